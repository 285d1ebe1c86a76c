"""A relay of real parts for tests: real journal, real transport, and a client that keeps what it got."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accounts.caller import Caller
from gateway.errors import GatewayError
from gateway.ledger.journal import Journal
from gateway.relay.admission import Admission, Reservation, Trying
from gateway.relay.attempts import Attempts, Limits
from gateway.relay.call import Call, understand
from gateway.relay.catalog import Catalog, Price, Route, Secret, Target
from gateway.relay.lifeline import Cut, Lifeline, Lifelines
from gateway.relay.pipeline import Relay
from gateway.relay.records import Settled
from gateway.relay.transports.aiohttp import AiohttpTransport, PoolConfig

ALICE = Caller(key_id=11, team_id=1)
PRICE = Price(3, 0, input_nanos=150_000_000, cached_input_nanos=75_000_000, output_nanos=600_000_000)
CREDENTIAL = "sk-upstream-credential-0123456789"


@dataclass
class Books:
    """A listener that keeps what it hears."""

    entries: list[Settled] = field(default_factory=list)
    refusals: list[tuple[int, int, str, str]] = field(default_factory=list)

    def settled(self, record: Settled, /) -> None:
        self.entries.append(record)

    def refused(self, team_id: int, key_id: int, route: str, code: str, /) -> None:
        self.refusals.append((team_id, key_id, route, code))

    @property
    def entry(self) -> Settled:
        [only] = self.entries
        return only


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
    """A catalog that never changes."""

    def __init__(self, catalog: Catalog) -> None:
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

    def start(self, call: Call, client: Client) -> tuple[asyncio.Task[None], Lifeline]:
        """Carry a call in a task of its own; its lifeline can be cut."""
        lines: list[Lifeline] = []

        async def carry() -> None:
            task = asyncio.current_task()
            assert task is not None
            lines.append(self.lines.open(task, time.monotonic(), 30.0))
            try:
                await self.relay.carry(call, ALICE, lines[0], client)
            except GatewayError as why:
                client.error = why

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


def call_to(model_name: str = "gpt-4o-mini", **fields: Any) -> Call:
    body = {"model": model_name, "messages": [{"role": "user", "content": "Hello there"}], **fields}
    return understand(json.dumps(body).encode(), time.monotonic())


@asynccontextmanager
async def house(
    base_url: str, folder: Path, limits: Limits | None = None, **pool: Any
) -> AsyncIterator[House]:
    """A relay whose every model name leads to this provider, under the same name."""
    journal = Journal(folder / "mine", max_bytes=1 << 26, segment_bytes=1 << 20)
    transport = AiohttpTransport(PoolConfig(**pool))
    books, lines = Books(), Lifelines(time.monotonic)
    attempts = Attempts(transport, limits or Limits(), time.monotonic, time.time)
    admission = Admission(journal, books, time.monotonic)
    relay = Relay(Routes(Catalog(EveryName(base_url))), admission, attempts, journal, books, time.monotonic)
    watch = asyncio.create_task(lines.watch())
    try:
        yield House(relay, books, lines, journal)
    finally:
        watch.cancel()
        await transport.close()
        journal.close()


class EveryName(dict[str, Route]):
    """Routes that appear when asked for; `unpriced` and `nowhere` are what they say."""

    def __init__(self, base_url: str) -> None:
        super().__init__()
        self._base_url = base_url

    def get(self, name: str, default: Any = None) -> Any:
        if name == "nowhere":
            return None
        prices = () if name.startswith("unpriced") else (PRICE,)
        target = Target(
            hash(name) & 0xFFFF, "openai", self._base_url, name, Secret(CREDENTIAL), prices=prices
        )
        return Route(name, (target,), unpriced_allowed=name == "unpriced-allowed")
