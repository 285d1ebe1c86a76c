"""What the two large parts of a call cost by themselves: everything of our own, and the transport.

    python -m benchmarks.parts

Prints CPU time in microseconds a call, the least of the rounds: our own part with a transport that
answers at once (head, key check left out, body, route, books, reply), and the real transport in a
bare loop against the benchmark's upstream.
"""

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

from accounts.caller import Caller
from benchmarks.configured import LIMITED, PRICE
from benchmarks.counters import nothing_spent
from benchmarks.processes import module, two_cores
from benchmarks.wire import ANSWER, MODEL_NAME, Wanted, request
from gateway.endpoints import RelayApplication
from gateway.ledger.journal import Journal
from gateway.relay.admission import Admission
from gateway.relay.attempt import Attempt, Limits
from gateway.relay.catalog import Catalog, PoolConfig, Route, Target
from gateway.relay.counters import LocalCounters
from gateway.relay.lifeline import Lifelines
from gateway.relay.pipeline import Relay
from gateway.relay.ports import Change, PoolFigures
from gateway.relay.records import Refused, Settled
from gateway.relay.targets import Targets
from gateway.relay.transports.http1 import Http1Transport

ROUNDS, CALLS, AT_ONCE = 6, 10_000, 64
UNLIMITED = Caller(key_id=1, team_id=1)
HEAD, _, BODY = request(Wanted(), 8000, "pst_any").partition(b"\r\n\r\n")


class AtOnce:
    """An answer that is there at once, and the place in a pool that it came from; costs nothing."""

    status, content_type, content_encoding = 200, "application/json", ""
    retry_after, retry_after_ms = None, None

    async def send(self, call_id: str, body: bytes) -> "AtOnce":
        return self

    async def whole(self, limit: int) -> bytes:
        return ANSWER

    async def chunks(self) -> AsyncIterator[bytes]:
        yield ANSWER

    def release(self) -> None:
        """Nothing is held."""

    def close(self) -> None:
        """Nothing is open."""


class NoTransport:
    """Every target answers at once."""

    place = AtOnce()

    async def acquire(self, target: Target) -> AtOnce:
        return self.place

    def figures(self) -> dict[int, PoolFigures]:
        return {}

    async def close(self) -> None:
        """Nothing is open."""


class House:
    """Keys, routes and a listener that cost nothing."""

    def __init__(self, target: Target, caller: Caller) -> None:
        self._catalog = Catalog({MODEL_NAME: Route(MODEL_NAME, (target,))})
        self._caller = caller

    def used(self, caller: Caller, address: str, user_agent: str) -> None: ...

    def remembered(self, presented: str) -> Caller:
        return self._caller

    async def look_up(self, presented: str) -> Caller:
        return self.remembered(presented)

    def current(self) -> Catalog:
        return self._catalog

    def settled(self, record: Settled) -> None:
        """Nobody listens."""

    def refused(self, refused: Refused) -> None:
        """Nobody listens."""

    def breaker_changed(self, target: Target, change: Change) -> None:
        """Nobody listens."""

    def credential_refused(self, target: Target, status: int) -> None:
        """Nobody listens."""

    def credential_accepted(self, target: Target) -> None:
        """Nobody listens."""


def target_at(base_url: str) -> Target:
    pool = PoolConfig(max_connections=10_000)
    return Target(1, "bench", base_url, MODEL_NAME, None, prices=(PRICE,), pool=pool)


def application(journal: Journal, caller: Caller) -> RelayApplication:
    house, limits, clock = House(target_at("http://upstream/v1"), caller), Limits(), time.monotonic
    admission, targets = (
        Admission(journal, house, clock, LocalCounters(nothing_spent), "USD"),
        Targets(house, clock),
    )
    attempt = Attempt(limits, clock, time.time)
    relay = Relay(house, admission, targets, NoTransport(), attempt, journal, house, random.random)
    lines = Lifelines(clock)
    return RelayApplication(relay, house, house, lines, limits, max_body_bytes=1 << 20, body_timeout_s=30)


def one_call(serve: RelayApplication) -> Callable[[], Awaitable[None]]:
    """A call through the application, as the server makes one: a task, and futures for `receive()`."""
    lines = [line.split(b": ", 1) for line in HEAD.split(b"\r\n")[1:]]
    headers = [(name.lower(), value) for name, value in lines]
    scope = {"type": "http", "path": "/v1/chat/completions", "method": "POST", "headers": headers}
    loop = asyncio.get_running_loop()

    async def send(message: Any) -> None:
        """Taken."""

    async def call() -> None:
        body: asyncio.Future[Any] = loop.create_future()
        body.set_result({"type": "http.request", "body": BODY, "more_body": False})
        coming = iter((body,))
        await serve(scope, lambda: next(coming, loop.create_future()), send)

    return lambda: loop.create_task(call())


async def least_us(call: Callable[[], Awaitable[Any]], at_once: int) -> float:
    """CPU time of this process for a call, in the round that took least."""

    async def work() -> None:
        for _ in range(CALLS // at_once):
            await call()

    found = []
    for _ in range(ROUNDS):
        began = time.process_time()
        await asyncio.gather(*(work() for _ in range(at_once)))
        found.append((time.process_time() - began) / (CALLS // at_once * at_once) * 1e6)
    return min(found)


async def measure(base_url: str, folder: Path) -> None:
    journal = Journal(folder / "journal", max_bytes=1 << 34)
    for caller, what in ((UNLIMITED, "our own part"), (LIMITED, "under limits and quotas")):
        print(f"{what}: {await least_us(one_call(application(journal, caller)), 1):.0f} us a call")
    journal.close()
    transport, target = Http1Transport(), target_at(base_url)

    async def carried() -> None:
        answer = await (await transport.acquire(target)).send("0", BODY)
        await answer.whole(1 << 20)
        answer.close()

    print(f"the transport: {await least_us(carried, AT_ONCE):.0f} us a call")
    await transport.close()


def main() -> None:
    cores = two_cores()
    with tempfile.TemporaryDirectory() as folder, module("benchmarks.upstream", cores.other) as upstream:
        uvloop.run(measure(f"http://127.0.0.1:{upstream.port}/v1", Path(folder)))


if __name__ == "__main__":
    main()
