"""What one process changed, the others hear at once; and none of them waits for a dead Redis."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from accounts.changes import change_number, note_change
from accounts.signals import changed
from gateway import feed
from gateway.feed import CHANGES, EVERYBODY, SOMETHING, BreakerNews, Feed, Publisher, is_fresh
from gateway.relay.ports import Change
from tests.redis import RunningRedis, running_redis
from tests.soon import soon

NOW_US = time.time_ns() // 1000
PATIENT_S = 5.0
"""Which a busy machine keeps."""
OPENED = Change(NOW_US, "closed", "open", "5 failures in a row", NOW_US + 3600_000_000)


@pytest.fixture
def redis_server() -> Iterator[RunningRedis]:
    with running_redis() as running:
        yield running


class Process:
    """One process's feed, with all that it heard."""

    def __init__(self, url: str, name: str) -> None:
        self.changes: list[int] = []
        self.rights: list[int] = []
        self.breakers: list[tuple[int, Change]] = []
        self.feed = Feed(
            url,
            self.changes.append,
            rights=self.rights.append,
            told=lambda target_id, change: self.breakers.append((target_id, change)),
            origin=lambda: name,
        )


Started = Callable[[], Any]


@pytest.fixture
async def listening(redis_server: RunningRedis) -> AsyncIterator[Started]:
    """A process that is subscribed."""
    opened: list[Process] = []

    async def start() -> Process:
        process = Process(redis_server.url, f"process-{len(opened)}")
        opened.append(process)
        await process.feed.open()
        await soon(lambda: not process.feed.away, "the subscription")
        return process

    yield start
    for each in opened:
        await each.feed.close()


@pytest.fixture
def publisher(redis_server: RunningRedis) -> Iterator[Publisher]:
    made = Publisher(redis_server.url, timeout_s=PATIENT_S)
    yield made
    made.close()


async def test_every_process_hears_a_change_with_its_number(listening: Started, publisher: Publisher) -> None:
    processes = [await listening() for _ in range(4)]
    await asyncio.to_thread(publisher.changed, 17)

    await soon(lambda: all(each.changes[-1] == 17 for each in processes), "the change")
    assert all(each.changes == [SOMETHING, 17] for each in processes)


async def test_changed_rights_are_heard_with_whose_they_are(listening: Started, publisher: Publisher) -> None:
    process = await listening()
    await asyncio.to_thread(publisher.rights_changed, 5)

    await soon(lambda: process.rights == [5], "the rights")


async def test_a_process_does_not_heed_itself(listening: Started, redis_server: RunningRedis) -> None:
    process = await listening()
    publisher = Publisher(redis_server.url, origin=lambda: "process-0", timeout_s=PATIENT_S)
    publisher.changed(17)
    process.feed.tell(7, OPENED)
    publisher.close()
    with redis_server.client() as client:  # on both channels, after those that must not be heeded
        client.publish(CHANGES, b'{"type":"changed","number":18,"origin":"another"}')
        await soon(lambda: 18 in process.changes, "another process's change")

    assert process.changes == [SOMETHING, 18]
    assert process.breakers == []


async def test_what_cannot_be_read_may_be_a_change(listening: Started, redis_server: RunningRedis) -> None:
    process = await listening()
    with redis_server.client() as client:
        client.publish(CHANGES, b'{"type":"of next year"}')

    await soon(lambda: process.changes == [SOMETHING, SOMETHING], "that something changed")


async def test_a_change_may_have_been_missed_while_redis_was_dead(
    listening: Started, redis_server: RunningRedis, publisher: Publisher
) -> None:
    process = await listening()
    redis_server.kill()
    await soon(lambda: process.feed.away, "that Redis is missed")
    redis_server.start()
    await soon(lambda: not process.feed.away, "the subscription")

    assert process.changes == [SOMETHING, SOMETHING]
    assert process.rights == [EVERYBODY]
    await asyncio.to_thread(publisher.changed, 17)
    await soon(lambda: process.changes[-1] == 17, "the change")


async def test_a_change_is_heard_after_redis_was_frozen(
    listening: Started, redis_server: RunningRedis
) -> None:
    process = await listening()
    publisher = Publisher(redis_server.url)
    redis_server.freeze()
    await asyncio.to_thread(publisher.changed, 17)  # returns, or nothing would ever thaw
    redis_server.thaw()

    await asyncio.to_thread(publisher.changed, 18)
    await soon(lambda: process.changes[-1] in (17, SOMETHING, 18), "that something changed")
    publisher.close()


async def test_a_silent_connection_is_given_up(listening: Started, redis_server: RunningRedis) -> None:
    process = await listening()
    redis_server.freeze()

    await soon(lambda: process.feed.away, "that nothing is heard", within_s=15)


def test_a_redis_that_is_dead_is_left_alone_for_a_while(
    redis_server: RunningRedis, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    publisher = Publisher(redis_server.url, clock=clock, timeout_s=PATIENT_S)
    redis_server.kill()
    publisher.changed(1)
    publisher.changed(2)
    assert len(caplog.records) == 1, "the second was not tried"

    redis_server.start()
    with redis_server.client() as client, client.pubsub() as pubsub:
        pubsub.subscribe(CHANGES)
        clock.now += feed.LEFT_ALONE_S
        publisher.changed(3)
        said = [pubsub.get_message(timeout=5) for _ in range(2)]
    publisher.close()
    assert b'"number":3' in said[1]["data"]  # type: ignore[index]


class Clock:
    """Monotonic seconds, moved by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_connection_that_died_unseen_is_made_anew(redis_server: RunningRedis) -> None:
    publisher = Publisher(redis_server.url, timeout_s=PATIENT_S)
    publisher.changed(1)
    redis_server.kill()
    redis_server.start()
    with redis_server.client() as client, client.pubsub() as pubsub:
        pubsub.subscribe(CHANGES)
        pubsub.get_message(timeout=5)
        publisher.changed(2)
        said = pubsub.get_message(timeout=5)
    publisher.close()
    assert b'"number":2' in said["data"]  # type: ignore[index]


async def test_a_breakers_news_reaches_the_others(listening: Started) -> None:
    one, other = await listening(), await listening()
    one.feed.tell(7, OPENED)

    await soon(lambda: other.breakers == [(7, OPENED)], "the news")


async def test_news_waits_for_redis_and_only_the_newest_of_a_target(
    listening: Started, redis_server: RunningRedis
) -> None:
    one, other = await listening(), await listening()
    redis_server.kill()
    await soon(lambda: other.feed.away, "that Redis is missed")
    later = Change(NOW_US, "half_open", "open", "the probe failed", NOW_US + 7200_000_000)
    for change in (OPENED, later):
        one.feed.tell(7, change)
    redis_server.start()

    await soon(lambda: not other.feed.away, "the subscription")
    one.feed.tell(8, OPENED)  # said after the subscription, so after whatever was said before it
    await soon(lambda: (8, OPENED) in other.breakers, "the news")
    assert (7, OPENED) not in other.breakers


def test_news_grow_stale() -> None:
    now_s = NOW_US / 1_000_000
    closed = Change(NOW_US, "half_open", "closed", "the probe succeeded")

    assert is_fresh(OPENED, now_s + 3599)
    assert not is_fresh(OPENED, now_s + 3601)
    assert is_fresh(closed, now_s + 4)
    assert not is_fresh(closed, now_s + 6)


async def test_without_redis_nothing_is_said_and_nothing_heard() -> None:
    process = Process("", "alone")
    await process.feed.open()
    process.feed.tell(7, OPENED)
    await process.feed.close()

    assert not process.feed.away
    assert process.changes == []


def test_messages_survive_the_wire() -> None:
    news = BreakerNews(7, OPENED, "a")
    assert feed._decode(feed._encode(news)) == news


@pytest.mark.django_db(transaction=True)
def test_the_signal_carries_the_change_number() -> None:
    told: list[int] = []

    def hear(number: int, **_: Any) -> None:
        told.append(number)

    changed.connect(hear)
    note_change()
    note_change()
    changed.disconnect(hear)

    assert told == [change_number() - 1, change_number()]


async def test_a_thread_that_commits_waits_little_for_a_frozen_redis(redis_server: RunningRedis) -> None:
    publisher = Publisher(redis_server.url)
    publisher.changed(1)
    redis_server.freeze()
    done = threading.Event()

    def publish() -> None:
        publisher.changed(2)
        done.set()

    thread = threading.Thread(target=publish)
    thread.start()
    assert await asyncio.to_thread(done.wait, 5), "it waited until Redis thawed"
    thread.join()
    publisher.close()
