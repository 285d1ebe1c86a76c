"""Processes that share a Redis know how many they are, and one of them leads."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from gateway.peers import EXPIRY_S, PEERS, Peers, serving_of
from tests.redis import RunningRedis, running_redis
from tests.soon import soon


@pytest.fixture
def redis_server() -> Iterator[RunningRedis]:
    with running_redis() as running:
        yield running


PATIENT_S = 2.0
"""Which a busy machine keeps."""
Joined = Callable[..., Any]


@pytest.fixture
async def joined(redis_server: RunningRedis) -> AsyncIterator[Joined]:
    """A process that has joined, unless Redis is not `there`; it leaves at the end."""
    opened: list[Peers] = []

    async def join(process: str, *, there: bool = True, **options: Any) -> Peers:
        peers = Peers(redis_server.url, process, timeout_s=PATIENT_S, **options)
        opened.append(peers)
        await peers.open()
        if there:
            await soon(lambda: not peers.away, f"that {process} has joined")
        return peers

    yield join
    for each in opened:
        await each.close()


async def test_without_redis_a_process_is_alone_and_leads() -> None:
    peers = Peers("", "a")
    await peers.open()

    assert peers.rank_and_live() == (0, 1)
    assert peers.leader
    assert peers.serving == ("a",)
    await peers.close()


async def test_each_knows_its_rank_and_how_many_there_are(joined: Joined) -> None:
    first, second, third = [await joined(name) for name in ("a", "b", "c")]

    await soon(lambda: all(each.rank_and_live()[1] == 3 for each in (first, second, third)), "three")
    assert [each.rank_and_live()[0] for each in (first, second, third)] == [0, 1, 2]
    assert [each.leader for each in (first, second, third)] == [True, False, False]


async def test_who_joins_and_leaves_is_told(joined: Joined) -> None:
    told: list[tuple[int, int]] = []
    await joined("b", changed=lambda rank, live: told.append((rank, live)))
    other = await joined("a")
    await soon(lambda: told == [(1, 2)], "the news that there are two")

    await other.close()
    await soon(lambda: told == [(1, 2), (0, 1)], "the news that one has left", within_s=EXPIRY_S + 5)


async def test_another_leads_when_the_leader_has_left(joined: Joined) -> None:
    first, second = await joined("a"), await joined("b")
    assert not second.leader
    await first.close()

    await soon(lambda: second.leader, "the second's turn to lead")
    assert not first.leader


async def test_pages_take_no_share_and_never_lead(joined: Joined) -> None:
    pages = await joined("a", role="pages")
    relay = await joined("b", role="relay")

    assert relay.rank_and_live() == (0, 1)
    assert (pages.leader, relay.leader) == (False, True)
    await soon(lambda: pages.serving == ("b",), "the pages' knowledge of the relay")


async def test_a_redis_that_forgot_everybody_makes_nobody_alone(
    joined: Joined, redis_server: RunningRedis
) -> None:
    told: list[tuple[int, int]] = []
    first = await joined("a", changed=lambda rank, live: told.append((rank, live)))
    second = await joined("b")
    await soon(lambda: told == [(0, 2)] and second.rank_and_live() == (1, 2), "two")

    redis_server.kill()
    await soon(lambda: first.away and second.away, "that Redis is missed")
    redis_server.start()
    await soon(lambda: not first.away and not second.away, "that Redis is back")
    await soon(lambda: first.leader or second.leader, "a leader")

    assert told == [(0, 2)]
    with redis_server.client() as client:
        assert client.zcard(PEERS) == 2


async def test_a_redis_that_was_frozen_takes_nobody_for_dead(
    joined: Joined, redis_server: RunningRedis
) -> None:
    told: list[tuple[int, int]] = []
    clock = Clock()
    first = await joined("a", changed=lambda rank, live: told.append((rank, live)), clock=clock)
    second = await joined("b")
    await soon(lambda: told == [(0, 2)], "two")
    await second.close()
    with redis_server.client() as client:  # as if nobody had been heard of for so long
        redis_server.freeze()
        await soon(lambda: first.away, "that Redis is missed")
        redis_server.thaw()
        await soon(lambda: not first.away, "that Redis is back")
        assert client.zrange(PEERS, 0, -1) == [b"all:a"]

    assert first.rank_and_live() == (0, 2)
    clock.now += EXPIRY_S
    await soon(lambda: first.rank_and_live() == (0, 1), "that the second is gone", within_s=EXPIRY_S + 5)


class Clock:
    """Monotonic seconds, moved by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_who_cannot_renew_leads_no_more(joined: Joined, redis_server: RunningRedis) -> None:
    clock = Clock()
    peers = await joined("a", clock=clock)
    assert peers.leader
    redis_server.freeze()
    await soon(lambda: peers.away, "that Redis is missed")
    assert peers.leader, "its lease is not over yet"

    clock.now += EXPIRY_S
    assert not peers.leader


async def test_a_beat_does_not_hold_up_a_process_that_starts_without_redis(
    joined: Joined, redis_server: RunningRedis
) -> None:
    redis_server.kill()
    peers = await joined("a", there=False)

    assert peers.away
    assert peers.rank_and_live() == (0, 1)
    redis_server.start()
    await soon(lambda: not peers.away and peers.leader, "the first beat that was heard")


def test_roles_decide_who_serves() -> None:
    assert serving_of(["all:1", "relay:2", "pages:3", "worker:4"]) == {"1", "2"}


async def test_it_introduces_itself(joined: Joined) -> None:
    assert repr(await joined("a")) == "<Peers a, 1 of 1, leads>"


async def test_leaving_twice_does_nothing(joined: Joined) -> None:
    peers = await joined("a")
    await asyncio.gather(peers.close(), peers.close())
    assert not peers.leader
