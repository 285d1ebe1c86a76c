"""One of two workers is killed, or stands still: what becomes of its calls, connections and reservations.

Clients keep their connections and try nothing a second time; who owns a connection is asked of the kernel.
Newcomers make a new connection for each call.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psutil
import pytest

from tests.redis import RunningRedis
from tests.served import Served
from tests.soon import soon
from tests.system import books as b
from tests.system.test_several import is_replaced
from tests.system.together.findings import drifted
from tests.system.together.house import Key, Together, serving, together
from tests.system.together.keys import crew_of, own_port, ports_of, told_ms
from tests.system.upstream_side.clients import Wire, connect
from tests.system.upstream_side.house import House
from tests.system.upstream_side.provider import Provider, running_provider

MODEL_NAME = "gpt-4o"
CLIENTS, NEWCOMERS_A_SECOND = 16, 10
WORKERS = 2
RESPAWN_S = 2.0
PLENTY = 10**15
BOUNDS = (("requests", PLENTY, "day"), ("tokens", PLENTY, "day"), ("money", PLENTY, "day"))
FAILED = (asyncio.IncompleteReadError, OSError)
PEER_GONE_S = 5.0
"""So long nothing is heard of a process until the others take it for gone."""
METRICS = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Ended:
    """One call, as its client saw it. `port` is its own end of the connection."""

    trial: str
    port: int
    sent_at: float
    at: float
    status: int
    """0: the connection ended first."""
    call_id: str | None = None
    newcomer: bool = False


@dataclass
class Load:
    """Clients that keep their connections, and newcomers."""

    house: House
    key: Key
    prefix: str
    ended: list[Ended] = field(default_factory=list)
    refused: list[OSError] = field(default_factory=list)
    """Connections that nobody took."""
    open_at: dict[int, float] = field(default_factory=dict)
    stopping: bool = False
    trials: Iterator[int] = field(default_factory=count)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(self._client())
            while not self.stopping:
                clients.create_task(self._newcomer())
                await asyncio.sleep(1 / NEWCOMERS_A_SECOND)

    async def _client(self) -> None:
        wire = await connect(self.house.served.port)
        while not self.stopping:
            if await self._call(wire) is None:
                wire.leave()
                wire = await connect(self.house.served.port)
        wire.leave()

    async def _newcomer(self) -> None:
        try:
            wire = await connect(self.house.served.port)
        except OSError as why:
            self.refused.append(why)
        else:
            await self._call(wire, newcomer=True)
            wire.leave()

    async def _call(self, wire: Wire, *, newcomer: bool = False) -> Ended | None:
        """None: the connection is over."""
        trial, sent_at, port = f"{self.prefix}-{next(self.trials)}", time.monotonic(), own_port(wire)
        self.open_at[port] = sent_at
        request = self.house.request(MODEL_NAME, key=self.key.text, trial=trial, max_tokens=16)
        try:
            answer = await wire.ask(request)
        except FAILED:
            self.ended.append(Ended(trial, port, sent_at, time.monotonic(), 0, None, newcomer))
            return None
        finally:
            del self.open_at[port]
        call_id = answer.header("X-Request-Id")
        self.ended.append(Ended(trial, port, sent_at, answer.at, answer.status, call_id, newcomer))
        return self.ended[-1]

    def seen(self) -> list[b.Seen]:
        return [b.Seen(each.trial, each.call_id, False, each.status == 200) for each in self.ended]


@contextlib.asynccontextmanager
async def load_on(opened: Together, key: Key, prefix: str) -> AsyncIterator[Load]:
    """Calls are under way between these lines."""
    load = Load(opened.house, key, prefix)
    running = asyncio.create_task(load.run())
    try:
        await soon(lambda: len(load.ended) > 3 * CLIENTS or running.done(), "load", within_s=30)
        yield load
    finally:
        load.stopping = True
        await running


def beyond(load: Sequence[Ended], victim: set[int]) -> Iterator[str]:
    """Only calls on the victim's connections may fail."""
    for each in load:
        if each.status != 200 and each.port not in victim:
            who = "a newcomer's" if each.newcomer else "a client's"
            told = f"{each.status or 'no answer'} after {each.at - each.sent_at:.3f} s"
            yield f"{each.trial} got {told} on {who} connection of another process"


def test_a_failure_beyond_the_victim_is_found() -> None:
    good = Ended("one", 1001, 0.0, 1.0, 200)
    lost, planted = Ended("two", 1002, 0.0, 1.0, 0), Ended("three", 1003, 0.0, 1.0, 0)

    assert list(beyond([good, lost], {1002})) == []
    assert list(beyond([good, lost, planted], {1002})) == [
        "three got no answer after 1.000 s on a client's connection of another process"
    ]


def stands_still(pid: int) -> bool:
    """Every thread has stopped: a signal takes a moment to reach those on another core."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


async def kill_one(served: Served, load: Load) -> tuple[set[int], float]:
    """The ports of the clients that the victim served, and after how many seconds another served."""
    victim, other = await asyncio.to_thread(served.workers)
    os.kill(victim.pid, signal.SIGSTOP)  # so that its connections are those it dies with
    try:
        await soon(lambda: stands_still(victim.pid), "the victim's stop")
        ports = await asyncio.to_thread(ports_of, victim)
    finally:
        victim.kill()
    began = time.monotonic()
    while not await asyncio.to_thread(is_replaced, served, {victim.pid, other.pid}):
        assert time.monotonic() - began < 20, "nobody took the place of the one that was killed"
        await asyncio.sleep(0.01)
    took_s = time.monotonic() - began
    ended = len(load.ended)
    await soon(lambda: len(load.ended) > ended + 3 * CLIENTS, "calls afterwards", within_s=30)
    return ports, took_s


async def complete(opened: Together, load: Load, provider: Provider) -> tuple[b.Calls, b.Books]:
    """What the provider received and what the ledger has, once they know of the same calls."""
    calls = b.upstream_calls(await asyncio.to_thread(provider.news_at_rest))
    known = {*calls, *(each.call_id for each in load.ended if each.call_id)}
    found: list[b.Books] = []

    def is_complete() -> bool:
        found[:] = [b.read_books(opened.house.served.rows)]
        return known <= {each.call_id for each in found[0].entries}

    await soon(is_complete, "the last entries", within_s=20)
    return calls, found[0]


async def settled(opened: Together, key: Key) -> None:
    """Counters are the ledger, and nothing is held."""

    def wrong() -> list[str]:
        return list(drifted(opened.standing(key)))

    deadline = time.monotonic() + 20
    while found := await asyncio.to_thread(wrong):
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.1)


async def kill_workers(folder: Path, redis: RunningRedis, kills: int, slack: float = 1) -> str:
    """`slack` is for machines that do much else: times may be so many times the bound."""
    victims: set[int] = set()
    respawned: list[float] = []
    with (
        running_provider(folder / "provider", speed=4.0) as provider,
        together(folder, provider, redis, WORKERS, MODEL_NAME) as opened,
    ):
        key = opened.key("killed", *BOUNDS)
        async with load_on(opened, key, "kill") as load:
            for _ in range(kills):
                ports, took_s = await kill_one(opened.house.served, load)
                victims |= ports
                respawned.append(took_s)
        calls, books = await complete(opened, load, provider)
        await settled(opened, key)
    lost = [each for each in load.ended if each.status != 200]
    assert load.refused == []
    others = list(beyond(load.ended, victims))
    assert others == [], others
    assert 0 < len(lost) <= kills * (CLIENTS + 5 * NEWCOMERS_A_SECOND)
    assert b.findings(load.seen(), calls, books) == []
    plant = [each for each in books.entries if each.call_id != load.ended[0].call_id]
    assert b.findings(load.seen(), calls, b.Books(plant, books.attempts, books.prices)) != []
    assert max(respawned) <= RESPAWN_S * slack, respawned
    outcomes = Counter(each.outcome for each in books.entries)
    return (
        f"O6  kill -9 of one of {WORKERS} workers, {kills} times: of {len(load.ended)} calls {len(lost)} "
        f"failed, all of them on the victims' connections, {outcomes['abandoned']} booked as abandoned; 0 "
        "refused connections, 0 lost, 0 doubled, counters are the ledger; "
        f"another serves after {told_ms(respawned)}"
    )


async def test_a_killed_worker_takes_only_its_own_calls_along(tmp_path, redis, say):
    say(await kill_workers(tmp_path, redis, 2, slack=10))


@pytest.mark.prove
async def test_thirty_killed_workers_take_only_their_own_calls_along(tmp_path, redis, say):
    say(await kill_workers(tmp_path, redis, 30))


async def metric(wire: Wire, name: str) -> dict[str, float]:
    """By its labels as they are written."""
    text = (await wire.ask(METRICS)).body.decode()
    lines = [line.removeprefix(name).split() for line in text.splitlines() if line.startswith(name + "{")]
    return {labels: float(value) for labels, value in lines}


@dataclass
class Frozen:
    """What was seen while one worker stood still."""

    ports: set[int]
    since: float
    until: float
    was_missing: bool
    """The other worker said so."""

    def is_during(self, each: Ended) -> bool:
        return each.sent_at < self.until and each.at > self.since


async def freeze_one(opened: Together, load: Load, redis: RunningRedis, seconds: float) -> Frozen:
    served = opened.house.served
    async with crew_of(served, each=1) as crew:
        victim, other = (psutil.Process(pid) for pid in crew)
        [wire] = crew[other.pid]
        os.kill(victim.pid, signal.SIGSTOP)
        since, was_missing = time.monotonic(), False
        try:
            await soon(lambda: stands_still(victim.pid), "its stop")
            ports = await asyncio.to_thread(ports_of, victim)
            while time.monotonic() < since + seconds:
                was_missing |= serving(redis) < WORKERS
                found = await metric(wire, "penstock_processes")
                was_missing |= found['{state="counted"}'] < WORKERS or found['{state="missing"}'] > 0
                await asyncio.sleep(0.2)  # how often the other one is asked, for as long as it lasts
        finally:
            os.kill(victim.pid, signal.SIGCONT)
        until = time.monotonic()
        await back(wire, redis)
    return Frozen(ports, since, until, was_missing)


async def back(wire: Wire, redis: RunningRedis) -> None:
    """The other one counts it again."""
    deadline = time.monotonic() + 15
    while serving(redis) != WORKERS or await metric(wire, "penstock_processes") != {
        '{state="counted"}': WORKERS,
        '{state="missing"}': 0,
    }:
        assert time.monotonic() < deadline, "the worker that stood still is not taken back"
        await asyncio.sleep(0.1)


def late(ended: Sequence[Ended], frozen: Frozen, belongs: Callable[[Ended], bool]) -> list[float]:
    """How long calls of that time took, of connections that belong to somebody."""
    return [each.at - each.sent_at for each in ended if frozen.is_during(each) and belongs(each)]


async def freeze_a_worker(folder: Path, redis: RunningRedis, seconds: float) -> str:
    with (
        running_provider(folder / "provider", speed=4.0) as provider,
        together(folder, provider, redis, WORKERS, MODEL_NAME) as opened,
    ):
        key = opened.key("frozen", *BOUNDS)
        async with load_on(opened, key, "freeze") as load:
            frozen = await freeze_one(opened, load, redis, seconds)
        calls, books = await complete(opened, load, provider)
        await settled(opened, key)
    assert load.refused == []
    assert [each for each in load.ended if each.status != 200] == []
    assert b.findings(load.seen(), calls, books) == []
    assert {each.outcome for each in books.entries} == {"answered"}
    assert frozen.was_missing or seconds < PEER_GONE_S
    others = late(load.ended, frozen, lambda each: not each.newcomer and each.port not in frozen.ports)
    own = late(load.ended, frozen, lambda each: not each.newcomer and each.port in frozen.ports)
    new = late(load.ended, frozen, lambda each: each.newcomer)
    waited = [each for each in new if each > seconds / 10 + 1]
    assert others
    assert own
    assert max(others) < seconds, "calls of the other worker waited for the one that stood still"
    assert max(own) >= seconds / 2, "a worker that stood still would have answered"
    named = "named as missing and " if frozen.was_missing else ""
    return (
        f"O7  one of {WORKERS} workers stands still for {seconds:g} s: 0 of {len(load.ended)} calls failed; "
        f"the other's calls took {told_ms(others)}; its own {told_ms(own)}; of {len(new)} new connections "
        f"{len(waited)} were dealt to it and waited until it went on; {named}taken back; 0 lost, 0 doubled, "
        "settled once, counters are the ledger"
    )


async def test_a_worker_that_stands_still_holds_nobody_else_up(tmp_path, redis, say):
    say(await freeze_a_worker(tmp_path, redis, 3.0))


@pytest.mark.prove
async def test_a_worker_that_stands_still_for_ten_seconds_holds_nobody_else_up(tmp_path, redis, say):
    say(await freeze_a_worker(tmp_path, redis, 10.0))
