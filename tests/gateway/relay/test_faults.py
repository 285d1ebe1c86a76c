"""Whatever a provider does: what the client is told, what the books say, and what the breaker makes of it."""

import asyncio
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import psutil
import pytest

from gateway.relay.attempt import Limits
from gateway.relay.catalog import Route, Secret, Target, TransportName
from gateway.relay.records import Settled

# The engine is loaded when it is first asked for; here that would be within somebody's deadline.
from gateway.relay.transports import httpx as _engine  # noqa: F401
from gateway.simulator import Fault
from tests.gateway.relay import witnessed
from tests.gateway.relay.carried import CREDENTIAL, PRICE, house_of
from tests.gateway.relay.failing import Provider
from tests.gateway.relay.faults import CLOSED, EITHER, KEPT, TABLE, TAKEN, Row
from tests.gateway.relay.witnessed import ask, connections_to, front_of, request
from tests.upstreams import wire

HANGS_AFTER_S = 20.0


@dataclass(frozen=True)
class Case:
    """A row in one shape, over one transport."""

    row: Row
    streamed: bool
    transport: TransportName | Literal["http2"]

    def __str__(self) -> str:
        return f"{'streamed' if self.streamed else 'whole'} over {self.transport}"

    def route(self, provider: Provider) -> Route:
        target = Target(
            1,
            "openai",
            provider.base_url,
            "gpt-4o",
            Secret(CREDENTIAL),
            prices=(PRICE,),
            transport="httpx" if self.transport == "http2" else self.transport,
            pool=replace(self.row.pool, http2=self.transport == "http2"),
            **provider.target,
        )
        return Route("gpt-4o-mini", (target,), timeout_s=self.row.deadline_s)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.fails.name)
async def test_a_fault_ends_as_the_table_says(
    row: Row, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cases = [Case(row, streamed, transport) for streamed in row.shapes for transport in row.over]
    folders = [tmp_path / str(number) for number, _ in enumerate(cases)]

    seen = await asyncio.gather(*(looks(case, folder) for case, folder in zip(cases, folders, strict=True)))

    outcome = outcome_told_by(row.client)
    wanted = f"{row.client} | {outcome} | {row.attempts} | {row.usage} | {row.breaker} | {row.connection}"
    assert {str(case): each for case, each in zip(cases, seen, strict=True)} == {
        str(case): wanted for case in cases
    }
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR] == []


async def looks(case: Case, folder: Path) -> str:
    """One call, as its client, the books, the breaker and the sockets have it."""
    row = case.row
    async with row.fails.running() as provider:
        route = case.route(provider)
        [target] = route.targets
        async with house_of({"gpt-4o-mini": route}, folder, Limits(max_answer_bytes=TAKEN)) as home:
            breaker = home.targets.of(target).breaker
            witnessed.fail_once(breaker)
            others = connections_to(provider.base_url)
            heard = request(streamed=case.streamed, **row.asked)
            await ask(front_of(home), heard, within_s=HANGS_AFTER_S)

            witnessed.check_framing(heard)
            entry = witnessed.check_books(heard, home)
            connection = await connection_after(row, provider.base_url, others)
            free = await witnessed.settled(lambda: witnessed.is_free(home, target))
            assert free, "a place at the gate or in the pool is still taken"
            verdict = witnessed.verdict(breaker, len(entry.attempts))
            tries = witnessed.tries(entry)
            seen = (heard.in_short, entry.outcome, tries, entry.usage.basis, verdict, connection)
            return " | ".join(seen) + uncounted(row, provider, entry)


def outcome_told_by(client: str) -> str:
    """What the books must call it, going by what the client was told."""
    if client == "200":
        return "answered"
    if client.startswith("200 then"):
        return "truncated"
    return "rejected" if client.split()[0] in ("400", "404", "413", "422") else "failed"


def uncounted(row: Row, provider: Provider, entry: Settled) -> str:
    """Every request that the provider received is an attempt on the books, and every attempt was received."""
    if provider.call_ids is None:
        return ""
    received = provider.call_ids()
    wanted = [entry.call_id] * (len(entry.attempts) + row.unseen)
    return "" if received == wanted else f", but the provider received {len(received)} requests: {received}"


async def connection_after(row: Row, base_url: str, others: int) -> str:
    """What became of the connection, once it had its time to go."""
    if row.connection == EITHER:
        return EITHER
    wanted = others + (row.connection == KEPT)
    await witnessed.settled(lambda: connections_to(base_url) == wanted)
    left = connections_to(base_url) - others
    return {0: CLOSED, 1: KEPT}.get(left, f"{left} connections")


@pytest.mark.parametrize("transport", ["http1", "aiohttp", "httpx"])
async def test_a_connection_that_was_never_made_is_not_waited_for_any_longer(
    transport: TransportName, tmp_path: Path
) -> None:
    async with wire.connect_hang() as base_url:
        waiting = connecting()
        [row] = (each for each in TABLE if each.fails.name == "connection never made")
        route = Case(row, False, transport).route(Provider(base_url))
        async with house_of({"gpt-4o-mini": route}, tmp_path / "journal") as home:
            call = asyncio.create_task(ask(front_of(home), request()))
            assert await witnessed.settled(lambda: connecting() == waiting + 1)
            await call
            assert await witnessed.settled(lambda: connecting() == waiting)


def connecting() -> int:
    """This process's connections that are being made."""
    found = psutil.Process().net_connections("tcp4")
    return sum(each.status == psutil.CONN_SYN_SENT for each in found)


def test_the_table_has_every_fault_that_the_simulator_knows() -> None:
    assert {row.fails.fault for row in TABLE} >= set(Fault)


def test_the_table_has_as_many_scenarios_as_were_promised() -> None:
    assert len({row.fails.name for row in TABLE}) >= 40
