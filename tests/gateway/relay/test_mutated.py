"""Answers with something wrong in them, thousands of them: no crash, no hang, and never half an answer.

Each call asks for the answer with its own number, so a call that goes wrong can be had again by its number.
"""

import asyncio
import json
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.ledger.sweeper import ends, read
from gateway.relay.breaker import BreakerPolicy
from gateway.relay.catalog import PoolConfig, Route, Secret, Target, TransportName
from gateway.relay.retry import RetryPolicy

# The engine is loaded when it is first asked for; here that would be within somebody's deadline.
from gateway.relay.transports import httpx as _engine  # noqa: F401
from gateway.simulator import running_simulator
from tests.gateway.relay import witnessed
from tests.gateway.relay.carried import CREDENTIAL, PRICE, House, house_of
from tests.gateway.relay.mutations import Played, Recorded, mutated
from tests.gateway.relay.witnessed import Heard, ask, front_of
from tests.gateway.simulator.raw import connection, posted, response

DEADLINE_S = 0.6
READ_TIMEOUT_S = 0.4
OVERDUE_S = 2.0
"""A call that ends later than this after its deadline hangs; a busy machine is allowed for."""
AT_ONCE = 16
NEVER_OPENS = BreakerPolicy(consecutive=10**9)
ONCE = RetryPolicy(attempts=1)
NOBODY = "0" * 12
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
ASKED: tuple[dict[str, Any], ...] = (
    {},
    {"n": 2},
    {"tools": [TOOL]},
    {"model": "fault-400"},
    {"model": "fault-429-retry-after-seconds"},
    {"model": "fault-500"},
)
"""What the answers are to that are recorded: good ones, and errors, which can be mutated as well."""
GOOD_ONES = 3


def marker_of(number: int) -> str:
    return f"{number * 2654435761 % (1 << 48):012x}"


async def recorded() -> list[Recorded]:
    """Answers of the simulator to nobody, whole and streamed."""
    found = []
    async with running_simulator() as simulator:
        for asked in ASKED:
            for streamed in (False, True):
                body = {
                    "model": "gpt-4o",
                    "messages": [{"role": "user", "content": f"call {NOBODY}"}],
                    "max_tokens": 24,
                    "stream": streamed,
                    "stream_options": {"include_usage": True} if streamed else None,
                    **asked,
                }
                async with connection(simulator.base_url) as (reader, writer):
                    writer.write(posted(body))
                    head, data = await response(reader)
                lines = [line for line in head.split(b"\r\n") if line and not line.startswith(FRAMING)]
                found.append(Recorded(b"\r\n".join(lines), data, streamed))
    return found


FRAMING = (b"content-length:", b"transfer-encoding:")


class Player:
    """A raw server: each request says the number of the mutation that it is answered with."""

    def __init__(self, answers: list[Recorded]) -> None:
        self.answers = answers
        self.base_url = ""
        self.played: dict[int, Played] = {}
        self._open: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while await self._answer(reader, writer):
                continue
        except (OSError, asyncio.IncompleteReadError):  # the client has left, as it may at any moment
            pass
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One answer; whether the connection goes on."""
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(re.findall(rb"(?i)content-length: *(\d+)", head)[0])
        body = json.loads(await reader.readexactly(size))
        number = int(body["user"])
        played = self.played[number] = self._chosen(number, bool(body.get("stream")))
        for piece in played.pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if played.end == "half-closes":
            writer.write_eof()
            await reader.read(1)
        return played.end == "stays"

    def _chosen(self, number: int, streamed: bool) -> Played:
        """Every other answer is one to begin with."""
        fitting = [each for each in self.answers if each.streamed == streamed]
        share = fitting[:GOOD_ONES] if number % 4 else fitting[GOOD_ONES:]
        answer = share[number // 4 % len(share)]
        body = answer.body.replace(NOBODY.encode(), marker_of(number).encode())
        return mutated(Recorded(answer.head, body, streamed), number)

    async def stop(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()
        assert await witnessed.settled(lambda: not self._open)


@asynccontextmanager
async def playing() -> AsyncIterator[Player]:
    player = Player(await recorded())
    server = await asyncio.start_server(player.serve, "127.0.0.1", 0)
    player.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield player
    finally:
        server.close()
        await player.stop()
        await server.wait_closed()


def call_number(number: int) -> Heard:
    fields = {"stream_options": {"include_usage": True}} if number % 3 == 0 else {}
    return witnessed.request(
        f"call {marker_of(number)}", streamed=number % 2 == 0, user=str(number), **fields
    )


def wrong_with(heard: Heard, number: int, markers: set[str]) -> str | None:
    """What a client should never see; None: nothing."""
    try:
        witnessed.check_framing(heard)
        if heard.error is None:
            documents = [heard.body] if not heard.is_stream else data_of(heard.body)
            for each in documents:
                assert isinstance(json.loads(each, parse_int=str), dict)
    except (AssertionError, ValueError) as why:
        return f"{type(why).__name__}: {why}"[:300]
    found = {each.decode() for each in re.findall(rb"\b[0-9a-f]{12}\b", heard.body)}
    return "another call's answer" if found & markers - {marker_of(number)} else None


def data_of(stream: bytes) -> list[bytes]:
    """The documents of a stream, by the letter of the format; `[DONE]` left out."""
    found = []
    for event in stream.split(b"\n\n"):
        lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
        if lines and b"\n".join(lines).strip() != b"[DONE]":
            found.append(b"\n".join(lines))
    return found


async def carry(home: House, numbers: range) -> dict[int, Heard]:
    front, left = front_of(home), iter(numbers)
    heard: dict[int, Heard] = {}

    async def one_after_another() -> None:
        for number in left:
            heard[number] = call_number(number)
            await ask(front, heard[number], within_s=DEADLINE_S + 20.0)

    await asyncio.gather(*(one_after_another() for _ in range(AT_ONCE)))
    return heard


async def outcomes_of(numbers: range, transport: TransportName, folder: Path) -> tuple[Counter[str], float]:
    """Carry these calls and look at each; how many ended in which way, and the longest after its deadline."""
    async with playing() as player:
        pool = PoolConfig(connect_timeout_s=8.0, read_timeout_s=READ_TIMEOUT_S)
        target = Target(
            1,
            "openai",
            player.base_url,
            "gpt-4o",
            Secret(CREDENTIAL),
            prices=(PRICE,),
            transport=transport,
            pool=pool,
        )
        route = Route("gpt-4o-mini", (target,), timeout_s=DEADLINE_S)
        async with house_of({"gpt-4o-mini": route}, folder, retry=ONCE, breaker=NEVER_OPENS) as home:
            heard = await carry(home, numbers)
            markers = {marker_of(each) for each in numbers}
            wrong = {
                number: f"{why} after {player.played[number].what}"
                for number, each in heard.items()
                if (why := wrong_with(each, number, markers)) is not None
            }
            assert wrong == {}
            entries = {each.call_id: each for each in home.books.entries}
            assert {each.call_id for each in ends(read(home.journal.folder))} == entries.keys()
            assert {each.call_id for each in heard.values()} == entries.keys()
            for each in entries.values():
                witnessed.check_costs(each)
            assert await witnessed.settled(lambda: witnessed.is_free(home, target))
            longest_s = max(each.latency_us for each in entries.values()) / 1e6
            return Counter(each.outcome for each in entries.values()), longest_s - DEADLINE_S


TRANSPORTS = pytest.mark.parametrize("transport", ["http1", "aiohttp", "httpx"])


@TRANSPORTS
async def test_no_mutated_answer_is_a_crash_a_hang_or_half_an_answer(
    transport: TransportName, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes, overdue_s = await outcomes_of(range(250), transport, tmp_path / "journal")
    assert min(outcomes[each] for each in ("answered", "rejected", "failed", "truncated")) > 5
    assert overdue_s < OVERDUE_S
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR] == []


@pytest.mark.prove
@TRANSPORTS
async def test_no_mutated_answer_of_ten_thousand_is_a_crash_a_hang_or_half_an_answer(
    transport: TransportName,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    outcomes, overdue_s = await outcomes_of(range(10_000), transport, tmp_path / "journal")
    assert overdue_s < OVERDUE_S
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR] == []
    with capsys.disabled():
        print(f"\n{transport}: {dict(outcomes)}; the last ended {overdue_s:.3f} s after its deadline")
