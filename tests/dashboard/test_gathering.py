"""Several processes' frames become one page, the same whichever process serves it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from dashboard import live
from dashboard.frames import COUNTS, Fold, Frame
from dashboard.gathering import CLOSED, FRAMES, Alone, Shared
from gateway.peers import Peers
from tests.dashboard.records import settled
from tests.redis import RunningRedis, running_redis
from tests.soon import soon

CALLS = COUNTS.index("calls")


@pytest.fixture
def redis_server() -> Iterator[RunningRedis]:
    with running_redis() as running:
        yield running


def no_history(fold: Fold, before_s: float) -> None:
    """The books are empty."""


class Page:
    """A browser's page: takes what its socket brings, and may go on with another process."""

    def __init__(self) -> None:
        self.run, self.last_id = "", 0
        self.calls: dict[int, int] = {}
        """By second."""
        self.missing: list[str] = []
        self.missed: list[tuple[int, list[str]]] = []
        """Every second as it came, and who was missing."""
        self.waited = False
        self._reading: asyncio.Task[None] | None = None

    def watch(self, hub: live.Hub) -> "Page":
        socket = hub.join(5)
        socket.watch(1, self.run, self.last_id)
        self._reading = asyncio.create_task(self._read(socket))
        return self

    def leave(self) -> None:
        assert self._reading is not None
        self._reading.cancel()

    async def _read(self, socket: live.Socket) -> None:
        async for text in socket.messages():
            self._take(json.loads(text))

    def _take(self, message: dict[str, Any]) -> None:
        self.missing = message["missing"]
        if message["kind"] == "waiting":
            self.waited = True
            return
        self.missed.append((message["id"], self.missing))
        frames = message["frames"] if message["kind"] == "snapshot" else [message["frame"]]
        if message["kind"] == "snapshot":
            self.run = message["run"]
            self.calls = {} if message["full"] else self.calls
        for frame in filter(None, frames):
            assert message.get("full") or frame["id"] > self.last_id, "twice"
            self.calls[frame["id"]] = frame["total"][CALLS]
        self.last_id = max(self.last_id, message["id"])

    @property
    def total(self) -> int:
        return sum(self.calls.values())


class Process:
    """One process's live page, ticking as in the real one."""

    def __init__(self, url: str, name: str, **options: Any) -> None:
        self.peers = Peers(url, name)
        self.hub, self.fold = live.Hub(), Fold()
        self.shared = Shared(self.hub, self.peers, **options)
        self.last_s = 0
        """The last second that it told of."""
        self._stop = asyncio.Event()
        self._ticker: asyncio.Task[None] | None = None

    async def start(self, history: Callable[[Fold, float], None] = no_history) -> "Process":
        await self.peers.open()
        await self.shared.open(self.fold, history)
        self._ticker = asyncio.create_task(live.run(self.fold, self.shared.publish, self._stop))
        return self

    def call(self, **facts: Any) -> None:
        self.fold.add(settled(time.time(), **facts))

    def freeze(self) -> None:
        """It ticks no more, though it is there still."""
        self._stop.set()

    async def stop(self) -> None:
        if self._ticker is not None:
            self._stop.set()
            await self._ticker
            self._ticker = None
            *others, last = self.fold.tick(int(time.time()) + 1)
            for each in others:
                self.shared.publish(each)
            self.last_s = last.at_s
            await self.shared.close(last)
            await self.peers.close()


Started = Callable[..., Any]


@pytest.fixture
async def started(redis_server: RunningRedis) -> AsyncIterator[Started]:
    running: list[Process] = []

    async def start(
        name: str, history: Callable[[Fold, float], None] = no_history, **options: Any
    ) -> Process:
        process = Process(redis_server.url, name, **options)
        running.append(process)
        return await process.start(history)

    yield start
    for each in running:
        await each.stop()


async def test_every_process_shows_the_calls_of_all(started: Started) -> None:
    processes = [await started(name) for name in "abc"]
    pages = [Page().watch(each.hub) for each in processes]
    for each in processes:
        each.call()

    await soon(lambda: all(page.total == 3 for page in pages), "all three calls on each page")
    last = min(page.last_id for page in pages)
    shown = [{at: count for at, count in page.calls.items() if at <= last} for page in pages]
    assert shown[0] == shown[1] == shown[2]
    await soon(lambda: pages[0].missing == [], "nobody missing")


async def test_a_page_goes_on_with_another_process_without_gap_or_double(started: Started) -> None:
    one, other = await started("a"), await started("b")
    page, witness = Page().watch(one.hub), Page().watch(other.hub)
    for number in range(6):
        (one if number % 2 else other).call()
        await asyncio.sleep(0.3)  # calls come over two seconds
        if number == 3:
            page.leave()
    page.watch(other.hub)

    await soon(lambda: page.total == witness.total == 6, "all six calls")
    assert page.calls == {at: count for at, count in witness.calls.items() if at in page.calls}
    assert page.run == one.hub.run_id == other.hub.run_id


async def test_a_newcomer_has_what_the_others_showed(started: Started) -> None:
    one = await started("a")
    page = Page().watch(one.hub)
    began_at = one.hub.last_id
    await soon(lambda: page.last_id > began_at + 1, "a second that the stream has all of")
    one.call()
    await soon(lambda: page.total == 1, "the call")

    newcomer = await started("b", lambda fold, before_s: fold.add(settled(before_s - 5)))
    other = Page().watch(newcomer.hub)
    await soon(lambda: other.total == 2, "the call, and an older one from the books")


async def test_history_comes_from_the_books_once_however_many_start(started: Started) -> None:
    def books(fold: Fold, before_s: float) -> None:
        fold.add(settled(before_s - 5))

    processes = [await started(name, books) for name in "abc"]
    pages = [Page().watch(each.hub) for each in processes]
    processes[0].call()

    await soon(lambda: all(page.total == 2 for page in pages), "the call of before, and the new one")


async def test_a_process_that_is_not_heard_is_named_and_waited_for_no_longer_than_half_a_second(
    started: Started,
) -> None:
    one, frozen = await started("a"), await started("b")
    page = Page().watch(one.hub)
    await soon(lambda: one.shared.newest_of("b") > 0 and "b" in one.peers.serving, "the other's frames")
    frozen.freeze()
    one.call()

    await soon(lambda: page.total == 1 and page.missing == ["process b"], "the call, and who is missing")


async def test_what_comes_late_is_counted_later(started: Started) -> None:
    one, late = await started("a"), await started("b")
    page = Page().watch(one.hub)
    await soon(lambda: one.shared.newest_of("b") > 0 and "b" in one.peers.serving, "the other's frames")
    late.freeze()
    late.call()
    await soon(lambda: page.missing == ["process b"], "that one is missing")
    await late.stop()

    await soon(lambda: page.total == 1 and page.missing == [], "the late call, and nobody missing")


async def test_who_leaves_is_not_missed_and_its_last_call_is_shown(started: Started) -> None:
    one, leaves = await started("a"), await started("b")
    page = Page().watch(one.hub)
    await soon(lambda: one.shared.newest_of("b") > 0, "the other's frames")
    leaves.call()
    await leaves.stop()

    await soon(lambda: page.last_id >= leaves.last_s + 3, "three more seconds")
    assert page.total == 1
    assert [names for at, names in page.missed if at > leaves.last_s and "process b" in names] == []


async def test_a_dead_redis_is_named_and_the_gap_fills_when_it_is_back(
    started: Started, redis_server: RunningRedis
) -> None:
    one, other = await started("a"), await started("b")
    page, witness = Page().watch(one.hub), Page().watch(other.hub)
    one.call()
    await soon(lambda: page.total == witness.total == 1, "the first call")
    redis_server.kill()
    await soon(lambda: page.missing == ["Redis"] and page.waited, "that Redis is missing")
    stood_at = page.last_id
    one.call()
    other.call()
    await asyncio.sleep(2)  # the outage lasts
    assert page.last_id == stood_at

    redis_server.start()
    await soon(lambda: page.total == witness.total == 3 and page.missing == [], "the calls of the outage")
    assert page.calls == witness.calls
    assert max(page.calls.values()) <= 2


async def test_a_frozen_redis_is_named_and_the_gap_fills_when_it_thaws(
    started: Started, redis_server: RunningRedis
) -> None:
    one, other = await started("a"), await started("b")
    page, witness = Page().watch(one.hub), Page().watch(other.hub)
    one.call()
    await soon(lambda: page.total == witness.total == 1, "the first call")
    redis_server.freeze()
    await soon(lambda: page.missing == ["Redis"], "that Redis is missing")
    other.call()
    redis_server.thaw()

    await soon(lambda: page.total == witness.total == 2 and page.missing == [], "the call of the outage")


async def test_pages_alone_show_what_relays_publish(started: Started) -> None:
    relay = await started("a")
    pages = await started("b", publishes=False)
    page = Page().watch(pages.hub)
    relay.call()

    await soon(lambda: page.total == 1, "the relay's call")
    await relay.stop()
    at = page.last_id
    await soon(lambda: page.last_id > at + 1, "the page's clock, though no relay is left")


async def test_a_service_that_starts_again_takes_all_from_the_books(
    started: Started, redis_server: RunningRedis
) -> None:
    first = await started("a")
    page = Page().watch(first.hub)
    first.call()
    await soon(lambda: page.total == 1, "the call")
    await first.stop()

    again = await started("b", lambda fold, before_s: fold.add(settled(before_s - 1)))
    other = Page().watch(again.hub)
    await soon(lambda: other.total == 1, "the call, from the books")
    assert again.hub.run_id != first.hub.run_id


async def test_what_another_release_wrote_is_left_out(
    started: Started, redis_server: RunningRedis, caplog: pytest.LogCaptureFixture
) -> None:
    one = await started("a")
    page = Page().watch(one.hub)
    with redis_server.client() as client:
        client.xadd(FRAMES, {"process": "z", "frame": b"of next year"})
    one.call()

    await soon(lambda: page.total == 1, "the call")
    assert "cannot be read" in caplog.text


async def test_the_stream_is_capped(started: Started, redis_server: RunningRedis) -> None:
    one = await started("a")
    with redis_server.client() as client:
        for number in range(1, 500):
            client.xadd(FRAMES, {"process": "z", "frame": b""}, id=f"{number}-0")
        one.call()
        await soon(lambda: client.xlen(FRAMES) < 200, "that what is too old is dropped")


async def test_a_clock_that_was_ahead_does_not_stop_the_pages(
    started: Started, redis_server: RunningRedis
) -> None:
    with redis_server.client() as client:
        client.set(CLOSED, int(time.time()) + 3600, ex=3600)
    alone = await started("a")
    page = Page().watch(alone.hub)
    alone.call()

    await soon(lambda: page.total == 1, "the call")


async def test_alone_a_frame_is_shown_when_it_is_published() -> None:
    hub = live.Hub()
    gathering = Alone(hub)
    page = Page().watch(hub)
    await gathering.open(Fold(), no_history)
    frame = Frame(1_700_000_000)
    frame.add(settled(1_700_000_000))
    gathering.publish(frame)

    await soon(lambda: page.total == 1, "the frame")
    await gathering.close(Frame(1_700_000_001))
    page.leave()
