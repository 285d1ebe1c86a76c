"""Places, waiters and figures; no sockets."""

import asyncio
from dataclasses import dataclass

import pytest

from gateway.relay.catalog import PoolConfig
from gateway.relay.ports import ACQUIRE_BOUNDS_S
from gateway.relay.transports import Broken, CannotConnect, ConnectTimedOut, PoolExhausted
from gateway.relay.transports.pool import Pool


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def pool_of(max_connections: int, pool_timeout_s: float = 10.0) -> Pool:
    return Pool(PoolConfig(max_connections=max_connections, pool_timeout_s=pool_timeout_s))


async def in_line(pool: Pool, waiting: int) -> list["asyncio.Task[None]"]:
    """So many tasks that wait, in order."""
    tasks = []
    for _ in range(waiting):
        tasks.append(asyncio.create_task(pool.wait()))
        await asyncio.sleep(0)
    assert len(pool.waiting) == waiting
    return tasks


def test_there_are_as_many_places_as_connections() -> None:
    pool = pool_of(2)
    assert [pool.take(), pool.take(), pool.take()] == [True, True, False]
    pool.release()
    assert pool.take()


async def test_who_waits_goes_in_order() -> None:
    pool = pool_of(1)
    pool.take()
    first, second = await in_line(pool, 2)

    pool.release()
    await first
    assert not second.done()
    assert not pool.take()

    pool.release()
    await second
    assert pool.in_use == 1


async def test_who_waits_too_long_is_told_and_is_no_longer_in_line() -> None:
    pool = pool_of(1, pool_timeout_s=0.001)
    pool.take()
    with pytest.raises(PoolExhausted, match="all 1 connections to the provider are in use"):
        await pool.wait()
    assert (len(pool.waiting), pool.in_use, pool.pool_timeouts) == (0, 1, 1)


async def test_who_is_cancelled_in_line_is_passed_over() -> None:
    pool = pool_of(1)
    pool.take()
    first, second = await in_line(pool, 2)
    first.cancel()
    pool.release()
    await second
    assert pool.in_use == 1


async def test_a_place_that_comes_at_the_moment_of_leaving_goes_to_the_next() -> None:
    pool = pool_of(1)
    pool.take()
    first, second = await in_line(pool, 2)

    pool.release()  # it is the first one's
    first.cancel()  # who does not know it yet
    await second

    assert first.cancelled()
    assert pool.in_use == 1


async def test_more_places_let_in_who_waits() -> None:
    pool = pool_of(1)
    pool.take()
    first, second, third = await in_line(pool, 3)

    pool.configure(PoolConfig(max_connections=3))
    await asyncio.gather(first, second)

    assert (pool.in_use, len(pool.waiting)) == (3, 1)
    third.cancel()


async def test_fewer_places_are_reached_as_they_come_back() -> None:
    pool = pool_of(3)
    for _ in range(3):
        pool.take()
    [waiting] = await in_line(pool, 1)

    pool.configure(PoolConfig(max_connections=1))
    pool.release()
    pool.release()
    assert (pool.in_use, len(pool.waiting)) == (1, 1)

    pool.release()
    await waiting
    assert pool.in_use == 1


async def test_waits_are_counted_by_how_long_they_took() -> None:
    clock = Clock()
    pool = Pool(PoolConfig(max_connections=1), clock)
    pool.take()
    for waited_s in (0.0005, 0.04, 20.0):
        [waiting] = await in_line(pool, 1)
        clock.now += waited_s
        pool.release()
        await waiting

    figures = pool.figures(idle=None)

    assert figures.acquired == 4
    assert figures.acquire_s == pytest.approx(20.0405)
    assert len(figures.acquire_buckets) == len(ACQUIRE_BOUNDS_S) + 1
    upto = dict(zip(ACQUIRE_BOUNDS_S, figures.acquire_buckets, strict=False))
    assert (upto[0.0005], upto[0.025], upto[0.05], upto[10.0]) == (2, 2, 3, 3)
    assert figures.acquire_buckets[-1] == 4


def test_failures_are_counted_by_their_kind() -> None:
    pool = pool_of(1)
    for why in (ConnectTimedOut(), CannotConnect(), Broken()):
        assert pool.count(why) is why
    figures = pool.figures(idle=3)
    assert (figures.connect_timeouts, figures.connection_errors, figures.idle) == (1, 2, 3)
    assert figures.http_version is None


def test_a_pool_introduces_itself() -> None:
    pool = pool_of(3)
    pool.take()
    assert repr(pool) == "<Pool 1 of 3 in use, 0 waiting>"
