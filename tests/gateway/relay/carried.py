"""A relay of real parts for tests: real journal, real transport, and a client that keeps what it got."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accounts.caller import Caller
from gateway.errors import GatewayError
from gateway.ledger.journal import Journal
from gateway.relay.admission import Admission, Reservation, Trying
from gateway.relay.attempt import Attempt, Limits
from gateway.relay.breaker import POLICY as BREAKER
from gateway.relay.breaker import BreakerPolicy
from gateway.relay.call import Call, understand
from gateway.relay.catalog import Catalog, PoolConfig, Price, Rates, Route, Secret, Target
from gateway.relay.counters import LocalCounters
from gateway.relay.holdings import Survey
from gateway.relay.lifeline import Cut, Lifeline, Lifelines
from gateway.relay.limits import QuotaAsk
from gateway.relay.pipeline import Relay
from gateway.relay.ports import Change
from gateway.relay.records import Refused, Settled
from gateway.relay.retry import RetryPolicy
from gateway.relay.targets import Targets
from gateway.relay.transports.choice import Transports

ALICE = Caller(key_id=11, team_id=1)
PRICE = Price(3, 0, Rates(input_nanos=150_000_000, cached_input_nanos=75_000_000, output_nanos=600_000_000))
SOON = RetryPolicy(first_wait_s=0.01, longest_wait_s=0.05)
CREDENTIAL = "sk-upstream-credential-0123456789"


async def nothing_spent(wanted: Sequence[QuotaAsk] | None) -> Survey:
    """The ledger of a house that has just been built."""
    return Survey({each.counter: 0 for each in wanted or ()})


@dataclass
class Books:
    """A listener that keeps what it hears."""

    entries: list[Settled] = field(default_factory=list)
    refusals: list[tuple[int, int, str, str]] = field(default_factory=list)
    """Team, key, model name and code of each."""
    refused_calls: list[Refused] = field(default_factory=list)

    def settled(self, record: Settled, /) -> None:
        self.entries.append(record)

    def refused(self, refused: Refused, /) -> None:
        self.refused_calls.append(refused)
        self.refusals.append((refused.team_id, refused.key_id, refused.route, refused.code))

    @property
    def entry(self) -> Settled:
        [only] = self.entries
        return only


@dataclass
class Told:
    """News, kept."""

    changes: list[tuple[Target, Change]] = field(default_factory=list)
    credentials: list[tuple[str, int | None]] = field(default_factory=list)

    def breaker_changed(self, target: Target, change: Change, /) -> None:
        self.changes.append((target, change))

    def credential_refused(self, target: Target, status: int, /) -> None:
        self.credentials.append((target.provider, status))

    def credential_accepted(self, target: Target, /) -> None:
        self.credentials.append((target.provider, None))


@dataclass
class Client:
    """The far end: keeps what it was sent."""

    begun: bool = False
    body: bytes = b""
    ended: bool = False
    error: GatewayError | None = None
    first_byte: asyncio.Event = field(default_factory=asyncio.Event)
    reads: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.reads.set()

    async def whole(self, body: bytes, reservation: Reservation) -> None:
        self.begun = self.ended = True
        self.body = body

    async def begin_stream(self, trying: Trying, reservation: Reservation) -> None:
        self.begun = True

    async def chunk(self, data: bytes) -> None:
        self.body += data
        self.first_byte.set()
        await self.reads.wait()

    async def end_stream(self, data: bytes) -> None:
        self.body += data
        self.ended = True

    async def fail_stream(self, data: bytes) -> None:
        await self.end_stream(data)

    @property
    def answer(self) -> Any:
        return json.loads(self.body)


class Routes:
    """A catalog that changes when told."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def change(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def current(self) -> Catalog:
        return self._catalog


@dataclass
class House:
    """A relay with everything around it."""

    relay: Relay
    books: Books
    lines: Lifelines
    journal: Journal
    targets: Targets
    transport: Transports
    news: Told
    routes: Routes
    counters: LocalCounters
    caller: Caller

    def start(self, call: Call, client: Client) -> tuple[asyncio.Task[None], Lifeline]:
        """Carry a call in a task of its own; its lifeline can be cut."""
        lines: list[Lifeline] = []

        async def carry() -> None:
            task = asyncio.current_task()
            assert task is not None
            line = self.lines.open(task, time.monotonic(), 30.0)
            lines.append(line)
            try:
                await self.relay.carry(call, self.caller, lines[0], client)
            except GatewayError as why:
                client.error = why
            finally:
                self.lines.close(line)

        task = asyncio.create_task(carry())
        line = Late(lines)
        return task, line  # type: ignore[return-value]

    async def carry(self, call: Call) -> Client:
        client = Client()
        task, _ = self.start(call, client)
        async with asyncio.timeout(20):
            await task
        return client


class Late:
    """A lifeline that is there once its task has begun."""

    def __init__(self, lines: list[Lifeline]) -> None:
        self._lines = lines

    def cut_off(self, why: Cut) -> None:
        self._lines[0].cut_off(why)

    def hang_up(self) -> None:
        self._lines[0].hang_up()


def call_to(model_name: str = "gpt-4o-mini", **fields: Any) -> Call:
    body = {"model": model_name, "messages": [{"role": "user", "content": "Hello there"}], **fields}
    return understand(json.dumps(body).encode(), time.monotonic())


@asynccontextmanager
async def house(
    base_url: str,
    folder: Path,
    limits: Limits | None = None,
    *,
    target: dict[str, Any] | None = None,
    retry: RetryPolicy = SOON,
    caller: Caller = ALICE,
    **pool: Any,
) -> AsyncIterator[House]:
    """A relay whose every model name leads to this provider, under the same name.

    `target` has fields of `Target` beside those, `pool` those of its `PoolConfig`.
    """
    fields = {"pool": PoolConfig(**pool), **(target or {})}
    async with house_of(EveryName(base_url, fields), folder, limits, retry, caller=caller) as made:
        yield made


@asynccontextmanager
async def house_of(
    routes: Any,
    folder: Path,
    limits: Limits | None = None,
    retry: RetryPolicy = SOON,
    breaker: BreakerPolicy = BREAKER,
    caller: Caller = ALICE,
) -> AsyncIterator[House]:
    """A relay with these routes, by model name. Retries come soon, breakers are as they are at work."""
    journal = Journal(folder / "mine", max_bytes=1 << 26, segment_bytes=1 << 20)
    transport = Transports()
    clock = time.monotonic
    books, lines, news = Books(), Lifelines(clock), Told()
    counters = LocalCounters(nothing_spent)
    targets, known = Targets(news, clock, breaker), Routes(Catalog(routes))
    relay = Relay(
        known,
        Admission(journal, books, clock, counters, "USD"),
        targets,
        transport,
        Attempt(limits or Limits(), clock, time.time),
        journal,
        books,
        random.Random(7).random,
        retry,
    )
    watch = asyncio.create_task(lines.watch())
    try:
        yield House(relay, books, lines, journal, targets, transport, news, known, counters, caller)
    finally:
        watch.cancel()
        await transport.close()
        journal.close()


class EveryName(dict[str, Route]):
    """Routes that appear when asked for; `unpriced` and `nowhere` are what they say."""

    def __init__(self, base_url: str, target: dict[str, Any]) -> None:
        super().__init__()
        self._base_url, self._target = base_url, target

    def get(self, name: str, default: Any = None) -> Any:
        if name == "nowhere":
            return None
        prices = () if name.startswith("unpriced") else (PRICE,)
        target = Target(
            hash(name) & 0xFFFF,
            "openai",
            self._base_url,
            name,
            Secret(CREDENTIAL),
            **{"prices": prices, **self._target},
        )
        return Route(name, (target,), unpriced_allowed=name == "unpriced-allowed")
