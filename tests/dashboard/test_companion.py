"""The dashboard's part in a serving process: what it tells the other processes, and what it hears of them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from dashboard import live
from dashboard.companion import Live
from dashboard.frames import ALL
from gateway.feed import EVERYBODY
from gateway.glance import Seen, UnderWay
from gateway.peers import Peers
from tests.dashboard.records import settled
from tests.dashboard.test_gathering import Page
from tests.dashboard.test_standing import target
from tests.redis import RunningRedis, running_redis
from tests.soon import soon

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def redis_server() -> Iterator[RunningRedis]:
    with running_redis() as running:
        yield running


class Process:
    """One process's companion, with its peers and its hub."""

    def __init__(self, url: str, name: str) -> None:
        self.peers, self.live = Peers(url, name), Live()
        self.hub: live.Hub | None = None

    async def open(self, **options: Any) -> None:
        await self.peers.open()
        await self.live.open(self.peers, **options)
        self.hub = live.current()

    async def close(self) -> None:
        await self.live.close()
        await self.peers.close()

    def page(self) -> Page:
        assert self.hub is not None
        return Page().watch(self.hub)


Started = Callable[..., Any]


@pytest.fixture
async def started(redis_server: RunningRedis) -> AsyncIterator[Started]:
    running: list[Process] = []

    async def start(name: str, **options: Any) -> Process:
        process = Process(redis_server.url, name)
        running.append(process)
        await process.open(**options)
        return process

    yield start
    for each in running:
        await each.close()


async def test_without_redis_it_is_opened_and_closed_alone() -> None:
    companion = Live()
    await companion.open()
    hub = live.current()
    assert hub is not None
    page = Page().watch(hub)
    companion.listener.settled(settled(time.time()))

    await soon(lambda: page.total == 1, "the call")
    await companion.close()
    await companion.close()
    assert live.current() is None


async def test_a_call_that_ends_while_a_process_drains_is_shown_by_the_others(started: Started) -> None:
    stays, drains = await started("a"), await started("b")
    page, left = stays.page(), drains.page()
    await asyncio.sleep(0)  # both have joined
    drains.live.drain()
    drains.live.settled(settled(time.time()))
    assert live.current() is None, "new sockets go elsewhere"
    await drains.close()

    await soon(lambda: page.total == 1, "the call")
    left.leave()


async def test_what_a_dead_process_told_nobody_of_is_shown_once(started: Started) -> None:
    stays, dies = await started("a"), await started("b")
    page = stays.page()
    gathering = stays.live._gathering
    await soon(lambda: gathering.newest_of("b") > 0, "a frame of the one that dies")
    await dies.close()  # as far as frames go, it is gone
    newest = gathering.newest_of("b")
    told, untold = settled(newest), settled(newest + 1)

    for _ in range(2):
        await asyncio.to_thread(stays.live.adopted, "b", [told, untold])

    await soon(lambda: page.total == 1, "the one call that nobody knew of")
    at = page.last_id
    await soon(lambda: page.last_id > at + 1, "two more seconds")
    assert page.total == 1


async def test_what_the_books_have_or_this_process_itself_tells_is_not_shown_again(started: Started) -> None:
    stays = await started("a")
    page = stays.page()
    await soon(lambda: stays.live._gathering.newest_of("a") > 0, "a frame of its own")
    for process in ("unknown", "a"):
        stays.live.adopted(process, [settled(time.time() + 1)])
    stays.live.settled(settled(time.time()))

    await soon(lambda: page.total == 1, "this process's own call")
    at = page.last_id
    await soon(lambda: page.last_id > at + 1, "two more seconds")
    assert page.total == 1


async def test_rights_that_changed_in_another_process_close_sockets_here(started: Started) -> None:
    process = await started("a")
    alices, bobs = process.hub.join(5), process.hub.join(6)
    await asyncio.to_thread(process.live.rights_changed, 5)
    await asyncio.sleep(0)  # one turn, for what the other thread handed over
    assert alices.closing == (live.RIGHTS_CHANGED, "Your rights have changed.")
    assert bobs.closing is None

    process.live.rights_changed(EVERYBODY)
    await asyncio.sleep(0)
    assert bobs.closing == (live.GOING_AWAY, "Come back: your rights may have changed.")


class Looked:
    """A moment of the gateway, as a test says it is."""

    def __init__(self) -> None:
        self.times_seen = 0

    def under_way(self) -> UnderWay:
        return {1: [0, 3, 0, 0, 0, 0]}

    def seen(self) -> Seen:
        self.times_seen += 1
        return Seen([target()], 0)


async def test_what_is_under_way_is_told_each_second_and_targets_only_to_who_looks() -> None:
    companion, looked = Live(), Looked()
    await companion.open()
    companion.look_through(looked)
    hub = live.current()
    assert hub is not None
    await soon(lambda: hub.has_frames(ALL), "a second with calls under way")
    assert looked.times_seen == 0

    socket = hub.join(5)
    socket.watch(1)
    await soon(lambda: looked.times_seen > 0, "a look at the targets")
    await companion.close()


async def test_another_process_is_told_what_is_under_way_here(started: Started) -> None:
    one, other = await started("a"), await started("b", publishes=False)
    one.live.look_through(Looked())
    assert other.hub is not None
    await soon(lambda: other.hub.has_frames(1), "the calls under way in the other process")
