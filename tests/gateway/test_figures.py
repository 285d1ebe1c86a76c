"""Several processes' figures add up, and no counter goes down while the service lives."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
import pytest

from gateway.figures import LATEST, Figures, Together, at_rest, of_this_process, together
from gateway.meter import BOUNDS_S, Taken, Tally
from gateway.peers import Peers
from gateway.relay.gate import Gate
from gateway.relay.ports import ACQUIRE_BOUNDS_S, PoolFigures
from gateway.relay.targets import TargetState
from tests.redis import RunningRedis, running_redis
from tests.soon import soon

PATIENT_S = 5.0
"""Which a busy machine keeps."""
BY = ("gpt-4o", "answered")
POOL = PoolFigures(
    in_use=3,
    waiting=2,
    acquired=40,
    acquire_s=0.5,
    acquire_buckets=(*(30 for _ in ACQUIRE_BOUNDS_S), 40),
    pool_timeouts=1,
    connect_timeouts=4,
    connection_errors=5,
    requests=39,
    answers=33,
    http_version="1.1",
    idle=6,
    opened=7,
    reused=32,
)


def tally(calls: int) -> Tally:
    buckets = [0] * (len(BOUNDS_S) + 1)
    buckets[2] = calls
    return Tally(calls, 10 * calls, 2 * calls, 7 * calls, 1000 * calls, buckets)


def busy_gate() -> Gate:
    gate = Gate(2, 10, lambda: 0.0)
    gate.enter_now(1, "normal")
    gate.enter_now(1, "normal")
    gate.leave(1, 0.5)
    return gate


def target(target_id: int = 7, **changes: Any) -> TargetState:
    gate = busy_gate().figures()
    made = TargetState(target_id, "chat", "openai", "gpt-4o", "closed", False, 0.0, 11, gate, POOL)
    return msgspec.structs.replace(made, **changes)


def figures(calls: int = 1, *targets: TargetState, **process: float) -> Figures:
    return Figures(Taken({BY: tally(calls)}, {"overloaded": calls}), list(targets), process)


def test_calls_and_refusals_add_up() -> None:
    found = together(figures(1), [figures(2), figures(3)], [figures(4)])

    assert found.taken == Taken({BY: tally(10)}, {"overloaded": 10})
    assert (found.processes, found.missing) == (3, 0)


def test_adding_up_changes_nothing_of_what_was_added() -> None:
    own, other = figures(1, target()), figures(2, target())
    together(own, [other], [other])

    assert (own, other) == (figures(1, target()), figures(2, target()))


def test_gates_and_pools_add_up() -> None:
    [found] = together(figures(1, target()), [figures(1, target())], []).targets

    assert (found.retries, found.gate.places, found.gate.in_use) == (22, 4, 2)
    assert found.gate.entered == {"urgent": 0, "normal": 4, "batch": 0}
    assert found.gate.wait_buckets["normal"][-1] == 4
    assert found.gate.hold_s == 0.5
    assert found.pool is not None
    assert (found.pool.in_use, found.pool.requests, found.pool.idle) == (6, 78, 12)
    assert found.pool.acquire_buckets[-1] == 80


def test_of_a_process_that_is_gone_only_what_it_counted_is_left() -> None:
    gone = figures(1, target(breaker="open", ready_in_s=30.0), process_cpu_seconds=2.0, process_open_fds=9)
    [found] = together(figures(1, target()), [], [gone]).targets

    assert (found.breaker, found.breakers, found.ready_in_s) == ("closed", ("closed",), 0.0)
    assert (found.gate.places, found.gate.in_use, found.gate.entered["normal"]) == (2, 1, 4)
    assert found.pool is not None
    assert (found.pool.in_use, found.pool.idle, found.pool.requests) == (3, 6, 78)
    assert at_rest(gone).process == {"process_cpu_seconds": 2.0}


def test_a_breaker_that_is_open_anywhere_is_seen_first() -> None:
    open_one = target(breaker="open", ready_in_s=12.0)
    [found] = together(figures(1, target()), [figures(1, open_one), figures(1, target())], []).targets

    assert (found.breaker, found.ready_in_s) == ("open", 12.0)
    assert found.breakers == ("closed", "open", "closed")


def test_what_is_not_known_of_one_process_is_not_known_of_all() -> None:
    unknown = target(pool=msgspec.structs.replace(POOL, idle=None))
    uncalled = target(pool=None)
    [found] = together(figures(1, target()), [figures(1, unknown)], []).targets
    [alone] = together(figures(1, target()), [figures(1, uncalled)], []).targets

    assert found.pool is not None
    assert found.pool.idle is None
    assert alone.pool == POOL


def test_targets_are_those_of_this_processs_catalog() -> None:
    found = together(figures(1, target(1), target(2)), [figures(1, target(2), target(3))], [])

    assert [(each.target_id, each.retries) for each in found.targets] == [(1, 11), (2, 22)]


def test_a_process_that_serves_no_calls_sees_every_target() -> None:
    found = together(None, [figures(1, target(2)), figures(1, target(1))], [])

    assert [each.target_id for each in found.targets] == [1, 2]


def test_processes_add_up_and_the_oldest_start_counts() -> None:
    one = {"process_start_time_seconds": 50.0, "process_open_fds": 3.0}
    other = {"process_start_time_seconds": 40.0, "process_open_fds": 4.0}
    found = together(figures(1, **one), [figures(1, **other)], [])

    assert found.process == {"process_start_time_seconds": 40.0, "process_open_fds": 7.0}


def test_this_process_is_known() -> None:
    assert of_this_process()["process_resident_memory_bytes"] > 1_000_000


@pytest.fixture
def redis_server() -> Iterator[RunningRedis]:
    with running_redis() as running:
        yield running


class Process:
    """One that serves calls, as many as the test says."""

    def __init__(self, url: str, name: str, gone: set[str]) -> None:
        self.calls = 0
        self.peers = Peers(url, name, timeout_s=PATIENT_S)
        self.together = Together(
            self.peers, lambda: figures(self.calls), gone.__contains__, timeout_s=PATIENT_S
        )

    async def calls_of_all(self) -> int:
        found = await self.together.figures()
        return found.taken.tallies[BY].calls

    async def stop(self) -> None:
        await self.together.close()
        await self.peers.close()

    async def die(self) -> None:
        """Without a word."""
        for task in (self.together._publishing, self.peers._beating):
            assert task is not None
            task.cancel()
        for client in (self.together._client, self.peers._client):
            assert client is not None
            await client.aclose()
        self.together._client = self.peers._client = None


Started = Callable[..., Any]


@pytest.fixture
def gone() -> set[str]:
    """The ids of processes that surely count no more."""
    return set()


@pytest.fixture
async def started(redis_server: RunningRedis, gone: set[str]) -> AsyncIterator[Started]:
    running: list[Process] = []

    async def start(name: str, calls: int = 0) -> Process:
        process = Process(redis_server.url, name, gone)
        process.calls = calls
        running.append(process)
        await process.peers.open()
        await process.together.open()
        return process

    yield start
    for each in running:
        await each.stop()


def serving(*processes: Process) -> bool:
    """Every one knows of every other."""
    return all(len(each.peers.serving) == len(processes) for each in processes)


async def test_whichever_process_is_asked_tells_of_all_and_never_less_than_before(started: Started) -> None:
    processes = [await started(name) for name in "abc"]
    seen = 0
    for number in range(30):
        processes[number % 3].calls += 1
        found = await processes[(number + 1) % 3].calls_of_all()
        assert found >= seen
        seen = found

    found = [await each.calls_of_all() for each in processes]
    assert found[-1] == 30, "each has published when it was asked"


async def test_who_leaves_and_who_dies_takes_nothing_away(started: Started, gone: set[str]) -> None:
    stays, leaves, dies = await started("a", 1), await started("b", 10), await started("c", 100)
    await soon(lambda: serving(stays, leaves, dies), "three")
    assert await stays.calls_of_all() == 111
    leaves.calls += 5

    await leaves.stop()
    await dies.die()
    assert await stays.calls_of_all() == 116

    gone.update("bc")
    await soon(lambda: stays.peers.serving == ("a",), "that one is alone", within_s=20)
    await soon(lambda: not stays.together._others, "that both are folded", within_s=20)
    assert await stays.calls_of_all() == 116
    found = await stays.together.figures()
    assert (found.processes, found.missing) == (1, 0)


async def test_one_that_is_only_silent_is_not_folded_and_counts_on(started: Started) -> None:
    one, frozen = await started("a", 1), await started("b", 10)
    await soon(lambda: serving(one, frozen), "two")
    await one.calls_of_all()
    one.peers.serving = ("a",)  # as if nothing had been heard of the other for long

    for _ in range(2):
        await one.together._fold_one()
    assert await one.calls_of_all() == 11
    frozen.calls = 12
    await frozen.together.figures()
    assert await one.calls_of_all() == 13


async def test_two_that_fold_at_once_count_it_once(started: Started, gone: set[str]) -> None:
    one, other, leaves = await started("a", 1), await started("b", 10), await started("c", 100)
    await leaves.stop()
    for each in (one, other):
        await each.together.figures()
        each.peers.serving = ("a", "b")
    gone.add("c")

    await asyncio.gather(one.together._fold_one(), other.together._fold_one())

    assert [await each.calls_of_all() for each in (one, other)] == [111, 111]


async def test_without_redis_the_last_known_figures_stand_and_the_missing_are_counted(
    started: Started, redis_server: RunningRedis
) -> None:
    one, other = await started("a", 1), await started("b", 10)
    await soon(lambda: serving(one, other), "two")
    await one.together.figures()
    redis_server.freeze()
    one.calls += 1

    found = await one.together.figures()

    assert found.taken.tallies[BY].calls == 12
    assert (found.processes, found.missing) == (2, 1)
    redis_server.thaw()  # or they would wait to say goodbye


async def test_a_redis_that_forgot_everything_is_told_again(
    started: Started, redis_server: RunningRedis, gone: set[str]
) -> None:
    one, leaves, dies = await started("a", 1), await started("b", 10), await started("c", 100)
    await leaves.stop()
    await dies.die()
    gone.add("b")
    await one.together.figures()
    one.peers.serving = ("a",)
    await one.together._fold_one()
    assert await one.calls_of_all() == 111
    redis_server.kill()
    redis_server.start()
    with redis_server.client() as client:
        await soon(lambda: client.hlen(LATEST) == 2, "what was known of the one that died")

    newcomer = await started("d", 1000)
    assert await newcomer.calls_of_all() == 1111
    assert await one.calls_of_all() == 1111


async def test_alone_it_is_this_processs_figures() -> None:
    process = Process("", "a", set())
    process.calls = 5
    await process.together.open()

    assert await process.calls_of_all() == 5
    await process.stop()


async def test_pages_take_the_latest_of_all_without_waiting(started: Started) -> None:
    one, other = await started("a", 1), await started("b", 10)
    await soon(lambda: serving(one, other), "two")
    await one.together.figures()

    assert one.together.latest(figures(3)).taken.tallies[BY].calls == 13
