"""How the frames of one process, or of several, become what pages see.

    fold ──► publish ──► Redis's stream ──► every process's gatherer ──► its hub
                              └── "closed": the first to find a second complete, or overdue, says so there

All processes read one stream in one order, so they make the same frames of it, under the same ids.
Alone there is no stream: a frame is complete when it is published.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import msgspec

from dashboard.frames import KEPT_S, SMALL_STEP_S, Fold, Frame, Gatherer, packed, unpacked
from dashboard.live import Hub, show
from gateway.peers import Peers
from gateway.redis_client import AWAY, QUICK_S, Client, connect, end

log = logging.getLogger(__name__)

FRAMES: Final = "pst:frames"
CLOSED: Final = "pst:frames:closed"
RUN: Final = "pst:frames:run"

GRACE_S: Final = 0.5
"""How long after a second's end a process may be late before pages go on without it."""
BACK_GRACE_S: Final = 1.5
"""The same after Redis came back, while every process sends what it kept."""
LOOK_S: Final = 0.2
"""How often it is looked whether a second is overdue, where nothing comes."""
PAUSE_S: Final = 0.25
READ_AT_ONCE: Final = 500
SENT_AT_ONCE: Final = 50
REDIS: Final = "Redis"

# The first to close a second does; what others ask at the same time changes nothing.
# Its memory is short, so that a clock that was set back does not stop the pages for long.
CLOSE: Final = """
if tonumber(ARGV[1]) <= tonumber(redis.call('GET', KEYS[2]) or '0') then return 0 end
redis.call('SET', KEYS[2], ARGV[1], 'EX', 10)
redis.call('XADD', KEYS[1], '*', 'close', ARGV[1], 'missing', ARGV[2])
return 1
"""


Entry = tuple[bytes, Mapping[bytes, bytes]]
"""One of the stream, with its id: a process's frame, or that a second is closed."""


class Gathering(Protocol):
    """Where a process's frames go, and whence its hub's come."""

    async def open(self, fold: Fold, history: Callable[[Fold, float], None]) -> None:
        """`history(fold, before_s)` folds in what the books have of the time before, in Unix seconds.
        It is called in a thread."""

    def publish(self, frame: Frame) -> None:
        """A second of this process is over. Never waits."""

    def newest_of(self, process: str) -> int:
        """The newest second, in Unix seconds, of which a process's frame is known."""

    async def close(self, last: Frame) -> None:
        """The last frame of this process."""


class Alone:
    """One process: its frames are all there is."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def open(self, fold: Fold, history: Callable[[Fold, float], None]) -> None:
        """What the books have goes into the fold, so that the first tick hands it out."""
        await asyncio.to_thread(history, fold, time.time())

    def publish(self, frame: Frame) -> None:
        show(self._hub, frame)

    def newest_of(self, process: str) -> int:
        """Nobody else publishes."""
        return 0

    async def close(self, last: Frame) -> None:
        """The next start finds it in the books."""


class Shared:
    """Several processes that share a Redis. Lives on one event loop.

    While Redis is away pages stand still and say so. Every process keeps its frames for as long as pages
    would show them, and sends them when Redis is back; then the gap fills.
    """

    def __init__(self, hub: Hub, peers: Peers, *, publishes: bool = True) -> None:
        """`publishes`: calls end in this process too."""
        self._hub, self._peers, self._publishes = hub, peers, publishes
        self._gatherer = Gatherer(int(time.time()))
        self._unsent: deque[tuple[Frame, bool]] = deque(maxlen=KEPT_S)
        self._wake = asyncio.Event()
        self._read_to = b"0-0"
        self._back_at: float | None = None
        """Since when Redis is there, in monotonic seconds; None: it is away."""
        self._tasks: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        away = ", Redis away" if self.away else ""
        return f"<Shared {self._gatherer!r}, {len(self._unsent)} to send{away}>"

    @property
    def away(self) -> bool:
        return self._back_at is None

    async def open(self, fold: Fold, history: Callable[[Fold, float], None]) -> None:
        """What the stream has, is taken from there; what is older, from the books."""
        kept = await self._kept()
        begins_s = _begin(kept, int(time.time()))
        before = Fold()
        await asyncio.to_thread(history, before, begins_s)
        for frame in before.tick(begins_s):
            show(self._hub, frame)
            await asyncio.sleep(0)
        self._gatherer = Gatherer(begins_s)
        if kept:
            await self._take(kept)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._read()), loop.create_task(self._send())]

    def publish(self, frame: Frame) -> None:
        if self._publishes:
            self._unsent.append((frame, False))
            self._wake.set()
        if self.away:
            self._hub.wait((REDIS,))

    def newest_of(self, process: str) -> int:
        return self._gatherer.newest_of(process)

    async def close(self, last: Frame) -> None:
        """The others then wait for this process no more."""
        tasks, self._tasks = self._tasks, []
        await end(tasks)
        if not self._publishes:
            return
        self._unsent.append((last, True))
        client = connect(self._peers.url)
        try:
            await self._send_all(client)
        except AWAY as why:
            log.warning("%d frames did not reach the other processes: %r", len(self._unsent), why)
        finally:
            await client.aclose()

    async def _kept(self) -> list[Entry]:
        """All of the stream; nothing where Redis is away, or where its seconds are yet to come."""
        client = connect(self._peers.url)
        try:
            if set(self._peers.serving) <= {self._peers.process}:
                await client.delete(FRAMES, CLOSED, RUN)  # nobody's any more, and the books have all of it
            await self._share_run(client)
            found: Any = await client.xrange(FRAMES)
        except AWAY as why:
            log.warning("the live page starts with what the books have: %r", why)
            return []
        finally:
            await client.aclose()
        kept: list[Entry] = found
        if any(_closed_s(fields) > time.time() + SMALL_STEP_S for _, fields in kept):
            self._read_to = kept[-1][0]
            return []
        return kept

    async def _share_run(self, client: Client) -> None:
        """The ids of frames mean the same to all processes of a run."""
        async with asyncio.timeout(QUICK_S):
            await client.set(RUN, self._hub.run_id, nx=True)
            run_id: Any = await client.get(RUN)
        if run_id:
            self._hub.run_id = run_id.decode()

    async def _read(self) -> None:
        while True:
            client = connect(self._peers.url, silence_s=LOOK_S + QUICK_S)
            try:
                await self._share_run(client)
                await self._find_place(client)
                await self._follow(client)
            except AWAY as why:
                if not self.away:
                    log.warning("Redis is away, the live page waits for it: %r", why)
            finally:
                await client.aclose()
            self._back_at = None
            await asyncio.sleep(PAUSE_S * (0.5 + random.random()))  # noqa: S311  # jitter, no secret

    async def _find_place(self, client: Client) -> None:
        """A new stream whose ids are lower than what was read is read from its start."""
        newest: Any = await client.xrevrange(FRAMES, count=1)
        if newest and _order(newest[0][0]) < _order(self._read_to):
            self._read_to = b"0-0"

    async def _follow(self, client: Client) -> None:
        """Until Redis is away; raises one of AWAY then."""
        while True:
            found: Any = await client.xread(
                {FRAMES: self._read_to}, count=READ_AT_ONCE, block=int(LOOK_S * 1000)
            )
            if self._back_at is None:
                self._back_at = time.monotonic()
            for _, entries in found or []:
                await self._take(entries)
            await self._close_what_is_over(client)

    async def _take(self, entries: list[Entry]) -> None:
        for entry_id, fields in entries:
            if b"close" in fields:
                missing = msgspec.json.decode(fields[b"missing"], type=tuple[str, ...])
                for frame in self._gatherer.close(_closed_s(fields)):
                    show(self._hub, frame, missing)
                    await asyncio.sleep(0)
            else:
                self._gather(fields)
            self._read_to = entry_id

    def _gather(self, fields: Mapping[bytes, bytes]) -> None:
        try:
            frame = unpacked(fields[b"frame"])
        except (ValueError, msgspec.DecodeError) as why:
            log.warning("a frame of %s cannot be read: %s", fields[b"process"].decode(), why)
            return
        self._gatherer.heard(fields[b"process"].decode(), frame, is_last=b"last" in fields)

    async def _close_what_is_over(self, client: Client) -> None:
        """Every second of which all were heard, and every one that is overdue."""
        serving = self._peers.serving
        at_s = max(self._gatherer.complete_s(serving), self._overdue_s())
        if at_s > self._gatherer.closed_s:
            names = [f"process {each}" for each in self._gatherer.awaited(at_s, serving)]
            await client.eval(CLOSE, 2, FRAMES, CLOSED, str(at_s), msgspec.json.encode(names))

    def _overdue_s(self) -> int:
        """The newest second that is waited for no longer; 0 while processes send what they kept."""
        if self._back_at is None or time.monotonic() - self._back_at < BACK_GRACE_S:
            return 0
        return int(time.time() - 1 - GRACE_S)

    async def _send(self) -> None:
        client = connect(self._peers.url)
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                try:
                    await self._send_all(client)
                except AWAY:  # `_read` says so
                    await asyncio.sleep(PAUSE_S)
                    self._wake.set()
        finally:
            await client.aclose()

    async def _send_all(self, client: Client) -> None:
        """Raises one of AWAY; what Redis did not take is still there, and may come twice."""
        while self._unsent:
            some = [self._unsent[at] for at in range(min(SENT_AT_ONCE, len(self._unsent)))]
            oldest_ms = int((time.time() - KEPT_S) * 1000)
            async with client.pipeline(transaction=False) as pipeline, asyncio.timeout(QUICK_S):
                for frame, is_last in some:
                    pipeline.xadd(FRAMES, self._fields(frame, is_last), minid=oldest_ms, approximate=True)
                await pipeline.execute()
            for each in some:
                if self._unsent and self._unsent[0] is each:  # the oldest may have been dropped meanwhile
                    self._unsent.popleft()

    def _fields(self, frame: Frame, is_last: bool) -> Any:
        last = {"last": "1"} if is_last else {}
        return {"process": self._peers.process, "frame": packed(frame), **last}


def _closed_s(fields: Mapping[bytes, bytes]) -> int:
    """The second that an entry closes; 0 for one that closes none."""
    return int(fields.get(b"close", 0))


def _begin(kept: list[Entry], now_s: int) -> int:
    """The first second that the stream has all of; this one, where it has none."""
    first = next((closed for _, fields in kept if (closed := _closed_s(fields))), None)
    return now_s if first is None else first + 1


def _order(entry_id: bytes) -> tuple[int, ...]:
    return tuple(map(int, entry_id.split(b"-")))
