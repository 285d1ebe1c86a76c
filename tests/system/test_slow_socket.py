"""O11: live sockets that nobody reads cost little, hold up nobody, and go on with what is newest."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx2 as httpx
import msgspec
import psutil
import pytest

from dashboard.live import QUEUE_FRAMES
from tests.served import Served
from tests.system import history
from tests.system.live import signed_in
from tests.system.unread import Unread

MIB = 1024 * 1024
MOST_FOR_A_SOCKET_MIB = 1.0
MODEL_NAMES = 20
"""Of the quarter of an hour before, which a new reader is sent: 5 MB, more than the kernel holds for it."""
UNREAD_S = 2 * QUEUE_FRAMES
CLIENTS = 4
PAUSE_S = 0.05
"""Between two calls."""


@pytest.fixture
def busy(var_dir: Path) -> Iterator[Served]:
    """A gateway with a quarter of an hour behind it."""
    served = Served(var_dir)
    served.configure(max_waiting=1000)
    book = f"from tests.system import history; history.book({MODEL_NAMES})"
    served.manage("shell", "--no-imports", "-c", book)
    try:
        served.start()
        yield served
    finally:
        served.kill()


@dataclass
class Reader:
    """Takes every message as it comes."""

    frames: dict[int, int] = field(default_factory=dict)
    """Calls of each second."""
    late_s: float = 0.0
    """The longest time from the end of a second to its frame, of those that came one by one."""
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            said = msgspec.json.decode(message.data)
            if said["kind"] == "frame":
                self.late_s = max(self.late_s, time.time() - said["id"] - 1)
            self.frames |= frames_of(said)
            self.news.set()

    async def has_more(self, seconds: int) -> None:
        """Wait for the frames of so many further seconds."""
        until_s = int(time.time()) + seconds
        async with asyncio.timeout(60 + seconds):
            while max(self.frames, default=0) < until_s:
                self.news.clear()
                await self.news.wait()


@dataclass
class Calls:
    """Clients, each with call after call."""

    served: Served
    statuses: list[int] = field(default_factory=list)
    longest_s: float = 0.0

    async def run(self) -> None:
        """Until it is cancelled."""
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "How deep?"}], "max_tokens": 4}
        headers = {"Authorization": f"Bearer {self.served.api_key}"}
        async with httpx.AsyncClient(timeout=30, headers=headers) as http:
            while True:
                began_s = time.monotonic()
                answer = await http.post(f"{self.served.base_url}/chat/completions", json=body)
                self.longest_s = max(self.longest_s, time.monotonic() - began_s)
                self.statuses.append(answer.status_code)
                await asyncio.sleep(PAUSE_S)  # a client that thinks


@dataclass
class Seen:
    """What came of it."""

    reader: Reader
    calls: Calls
    mib: float = 0.0
    """That the worker grew by for each socket."""
    unread: list[list[dict[str, Any]]] = field(default_factory=list)
    """Of each socket, every message, read at last."""
    read_from_s: int = 0
    opened_by_s: int = 0


def frames_of(said: Mapping[str, Any]) -> dict[int, int]:
    """Calls by second."""
    frames = said["frames"] if said["kind"] == "snapshot" else filter(None, [said.get("frame")])
    return {each["id"]: each["total"][0] for each in frames}


async def left_unread(served: Served, count: int) -> Seen:
    """So many sockets, beside one that is read and calls that flow."""
    seen = Seen(Reader(), Calls(served))
    async with (
        signed_in(served) as browser,
        browser.ws_connect("/ws/live/", max_msg_size=0) as socket,
        going_on(seen.reader.read(socket), *(seen.calls.run() for _ in range(CLIENTS))),
    ):
        await seen.reader.has_more(QUEUE_FRAMES)
        before = await asyncio.to_thread(weight_mib, served)
        cookies = {each.key: each.value for each in browser.cookie_jar}
        unread = [await asyncio.to_thread(Unread, served, cookies) for _ in range(count)]
        seen.opened_by_s = int(time.time())
        await seen.reader.has_more(UNREAD_S)
        seen.mib = (await asyncio.to_thread(weight_mib, served) - before) / count
        seen.read_from_s = int(time.time())
        readers = [asyncio.to_thread(read_up_to, each, seen.read_from_s) for each in unread]
        seen.unread = await asyncio.gather(*readers)
    return seen


@contextlib.asynccontextmanager
async def going_on(*work: Any) -> AsyncIterator[None]:
    """Meanwhile. What fails fails the test."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for each in tasks:
            each.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [each for each in ended if not isinstance(each, asyncio.CancelledError)] == []


def read_up_to(unread: Unread, second: int) -> list[dict[str, Any]]:
    """Everything that waits, until that second has come."""
    found = []
    with contextlib.closing(unread):
        for each in unread.messages():
            found.append(each)
            if each["id"] >= second:
                break
    return found


def weight_mib(served: Served) -> float:
    """Resident memory of the worker, the least of some readings, without the pages of its journal's file."""
    [worker] = served.workers()
    return min(_weight(worker, served.var_dir) for _ in range(5)) / MIB


def _weight(worker: psutil.Process, var_dir: Path) -> int:
    maps = worker.memory_maps(grouped=True)
    total: int = worker.memory_info().rss
    return total - sum(each.rss for each in maps if each.path.startswith(str(var_dir)))


def check(seen: Seen) -> None:
    """The reader missed nothing, nor did those who read late, and no call failed."""
    seconds = sorted(seen.reader.frames)
    assert len(seconds) > history.SECONDS / 2
    assert seconds[-UNREAD_S:] == list(range(seconds[-1] - UNREAD_S + 1, seconds[-1] + 1))
    assert set(seen.calls.statuses) == {200}
    for messages in seen.unread:
        assert_nothing_is_missing(messages, seen)


def assert_nothing_is_missing(messages: Sequence[Mapping[str, Any]], seen: Seen) -> None:
    """Frames were dropped for it, and came again in fewer messages."""
    caught_up = [each for each in messages if each["kind"] == "snapshot"]
    assert [each["full"] for each in caught_up] == [True] + [False] * (len(caught_up) - 1)
    dropped = [each for each in caught_up if each["id"] > seen.opened_by_s + QUEUE_FRAMES]
    assert dropped, "it was so far behind that its queue was dropped"
    ids = [second for each in messages for second in frames_of(each)]
    assert ids == sorted(set(ids)), "nothing comes twice or out of turn"
    assert messages[-1]["id"] >= seen.read_from_s
    found = {second: calls for each in messages for second, calls in frames_of(each).items()}
    known = {
        second: calls for second, calls in seen.reader.frames.items() if min(found) <= second <= max(found)
    }
    late = {second: calls for second, calls in found.items() if second not in known}
    assert found == known | late
    assert all(second > max(known) for second in late), "but for what came since"


@pytest.mark.parametrize("count", [20, pytest.param(100, marks=pytest.mark.prove)])
async def test_sockets_that_nobody_reads_hold_up_nobody(busy: Served, count: int, say: Callable[[str], None]):
    seen = await left_unread(busy, count)
    check(seen)
    assert seen.mib <= MOST_FOR_A_SOCKET_MIB
    assert "Traceback" not in busy.errors()
    say(
        f"O11  {count} live sockets unread for {UNREAD_S} s: {seen.mib:.2f} MiB each; beside them "
        f"{len(seen.calls.statuses)} calls, none failed, the longest {seen.calls.longest_s:.2f} s, and a "
        f"reader who had every frame at most {seen.reader.late_s:.2f} s late; read again, each had them all"
    )
