"""The live page's heart: a tick a second, and a hub that hands each frame to the sockets that watch.

A frame is encoded once a team and shared by every socket.
The hub lives on one event loop; what other threads may call says so.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, cast
from uuid import uuid4

import msgspec

from dashboard.frames import (
    ALL,
    KEPT_S,
    NO_ROW,
    TOTAL,
    Busiest,
    Fold,
    Frame,
    Row,
    Trailing,
    under_way_by_team,
)
from dashboard.standing import UNKNOWN, Standing, standing
from gateway.glance import NONE_UNDER_WAY, Seen
from gateway.models import Entry
from gateway.relay.records import Basis, CallOutcome, Settled, Usage

log = logging.getLogger(__name__)

LATEST_KEPT = 50
QUEUE_FRAMES = 8
"""What a socket may leave unread before it is caught up instead."""
LONGEST_MESSAGE = 128 * 1024
"""Characters of frames in one message that catches up; each reader who takes nothing holds one, twice."""
SETTLE_IN_S = 0.05
"""After the whole second, so that records stamped at its very end have come."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

GOING_AWAY = 1012
TRY_LATER = 1013
RIGHTS_CHANGED = 4403


class Call(msgspec.Struct, frozen=True):
    """One row of the latest calls, as the page reads it."""

    id: str
    at_us: int
    team: int
    key: int
    model_name: str
    streamed: bool
    outcome: str
    status: int
    code: str
    latency_us: int
    first_token_us: int | None
    input_tokens: int
    output_tokens: int
    usage_basis: str
    cost_nanos: int
    unpriced: bool
    simulated: bool


def _row_of(settled: Settled) -> Call:
    return Call(
        id=settled.call_id,
        at_us=settled.ended_at_us,
        team=settled.team_id,
        key=settled.key_id,
        model_name=settled.route,
        streamed=settled.streamed,
        outcome=settled.outcome,
        status=settled.status,
        code=settled.code,
        latency_us=settled.latency_us,
        first_token_us=settled.first_token_us,
        input_tokens=settled.usage.input_tokens,
        output_tokens=settled.usage.output_tokens,
        usage_basis=settled.usage.basis,
        cost_nanos=settled.cost_nanos,
        unpriced=settled.unpriced,
        simulated=settled.simulated,
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


class _Channel:
    """What one team's page is made of: encoded frames of the kept time, and the latest calls."""

    def __init__(self) -> None:
        self.frames: deque[tuple[int, str]] = deque()
        self.calls: deque[tuple[int, str]] = deque(maxlen=LATEST_KEPT)

    def add(self, frame_id: int, frame: str, calls: Iterable[str]) -> None:
        self.frames.append((frame_id, frame))
        self.calls.extend((frame_id, call) for call in calls)

    def forget(self, before_id: int) -> None:
        while self.frames and self.frames[0][0] < before_id:
            self.frames.popleft()
        while self.calls and self.calls[0][0] < before_id:
            self.calls.popleft()

    def since(self, frame_id: int) -> "_Piece":
        """What came after this id, as much as goes into one message."""
        frames: list[str] = []
        last_id: int | None = None
        length = 0
        for each, text in self.frames:
            if each > frame_id:
                length += len(text)
                if frames and length > LONGEST_MESSAGE:
                    break
                frames.append(text)
                last_id = each
        else:
            last_id = None
        calls = [
            text for each, text in self.calls if each > frame_id and (last_id is None or each <= last_id)
        ]
        return _Piece(",".join(frames), ",".join(calls), last_id)


class _Piece(NamedTuple):
    """Frames and calls, each as the inside of a JSON array."""

    frames: str
    calls: str
    last_id: int | None
    """Of the last frame; None: there is no more."""


class Socket:
    """One reader's place at the hub: a short queue that never makes the writer wait.

    A reader that falls behind loses the queue, not the frames:
    the next messages it takes are everything since the last one it took.
    """

    def __init__(self, hub: "Hub", user_id: int) -> None:
        self.user_id = user_id
        self.team_id: int | None = None
        self.dropped = 0
        self.closing: tuple[int, str] | None = None
        self._hub = hub
        self._queue: deque[tuple[int, str]] = deque()
        self._behind = True
        self._since = 0
        self._known_run = False
        self._wake = asyncio.Event()

    def watch(self, team_id: int, run_id: str = "", since: int = 0) -> None:
        """Start with all that is kept, or with what came after `since` where that is of this run."""
        self.team_id = team_id
        self._known_run = run_id == self._hub.run_id
        self._since = since if self._known_run else 0
        self._wake.set()

    def offer(self, frame_id: int, message: str) -> None:
        if len(self._queue) == QUEUE_FRAMES:
            self._queue.popleft()
            self.dropped += 1
            self._behind = True
        self._queue.append((frame_id, message))
        self._wake.set()

    def close(self, code: int, reason: str) -> None:
        self.closing = (code, reason)
        self._wake.set()

    async def messages(self) -> AsyncIterator[str]:
        """What to send, until the hub closes this socket; then `closing` says why."""
        while self.closing is None:
            if self._behind and self.team_id is not None:
                self._queue.clear()
                yield self._caught_up(self.team_id)
            elif self._queue:
                self._since, message = self._queue.popleft()
                yield message
            else:
                self._wake.clear()
                await self._wake.wait()

    def _caught_up(self, team_id: int) -> str:
        """The next message of what is missing: only one is held for a reader who does not take it."""
        message, self._since = self._hub.snapshot(team_id, self._since, full=not self._known_run)
        self._known_run, self._behind = True, self._since < self._hub.last_id
        return message

    def __repr__(self) -> str:
        queue = f"{len(self._queue)} unread, {self.dropped} dropped"
        return f"<Socket of user {self.user_id} on team {self.team_id}, {queue}>"


DATABASE = "the database"
"""As `Hub.missing` names it."""


class Hub:
    """Hands frames to sockets, each encoded once a team, and keeps 16 minutes for those who come.

    Does not decide who may watch what.
    """

    def __init__(self) -> None:
        self.run_id = uuid4().hex
        """Of whoever makes the frames; several processes that add up the same ones share it."""
        self.last_id = 0
        self.missing: tuple[str, ...] = ()
        """What the newest frame lacks, in words: a process that was not heard, or Redis; or the database."""
        self.database_away = False
        """Calls go on, and wait in the journal to be booked."""
        self._standing = self._told = Standing()
        """How the targets are, and what of it the newest message said."""
        self._trailing = Trailing()
        self._busiest = Busiest()
        self._under_way_from: int | None = None
        """The first frame that says what is under way."""
        self._channels: dict[int, _Channel] = {}
        self._sockets: set[Socket] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def join(self, user_id: int) -> Socket:
        """A new socket. It hears of its user's changed rights from now on, and of frames once it watches."""
        self._loop = asyncio.get_running_loop()
        socket = Socket(self, user_id)
        self._sockets.add(socket)
        return socket

    def leave(self, socket: Socket) -> None:
        self._sockets.discard(socket)

    def __len__(self) -> int:
        return len(self._sockets)

    def publish(self, frame: Frame, missing: tuple[str, ...] = ()) -> None:
        """Encode one second for every team that was busy in the trailing minute, and offer it around."""
        self.missing = (*missing, *((DATABASE,) if self.database_away else ()))
        rows = self._trailing.advance(frame)
        self._busiest.advance(frame)
        self.last_id = frame.at_s
        if self._under_way_from is None and frame.under_way is not None:
            self._under_way_from = frame.at_s
        under_way = under_way_by_team(frame)
        for team_id in under_way.keys() - rows.keys():
            rows[team_id] = {TOTAL: [*NO_ROW]}
        tails = {
            team_id: self._keep(frame, team_id, routes, under_way.get(team_id, NONE_UNDER_WAY))
            for team_id, routes in rows.items()
        }
        for channel in self._channels.values():
            channel.forget(frame.at_s - KEPT_S + 1)
        self._channels = {team_id: each for team_id, each in self._channels.items() if each.frames}
        self._offer(frame.at_s, tails)

    def wait(self, missing: tuple[str, ...]) -> None:
        """There is no frame yet, and why: said to every page, which else takes its line for dead."""
        self.missing = missing
        message = f'{{"kind":"waiting","missing":{_json(missing)}}}'
        for socket in self._sockets:
            if socket.team_id is not None:
                socket.offer(self.last_id, message)

    def see(self, seen: Seen | None) -> None:
        """The targets as they are now, for the next message; None: nobody looked."""
        self._standing = Standing() if seen is None else standing(seen)

    def _keep(self, frame: Frame, team_id: int, routes: dict[str, Row], under_way: Sequence[int]) -> str:
        total = routes.pop(TOTAL)
        encoded = _json(
            {
                "id": frame.at_s,
                "routes": routes,
                "total": total,
                "refused": _refusals(frame, team_id),
                "under_way": None if frame.under_way is None else under_way,
            }
        )
        calls = [_json(_row_of(call)) for call in frame.latest_of(team_id)]
        self._channels.setdefault(team_id, _Channel()).add(frame.at_s, encoded, calls)
        return f'"frame":{encoded},"calls":[{",".join(calls)}]'

    def _offer(self, frame_id: int, tails: dict[int, str]) -> None:
        messages: dict[int, str] = {}
        kind = f'"kind":"frame","id":{frame_id}'
        for socket in self._sockets:
            if socket.team_id is None:
                continue
            if socket.team_id not in messages:
                tail = tails.get(socket.team_id, '"frame":null,"calls":[]')
                head = self._head(socket.team_id, only_news=True)
                messages[socket.team_id] = f"{{{kind},{head},{tail}}}"
            socket.offer(frame_id, messages[socket.team_id])
        self._told = self._standing

    def _head(self, team_id: int, *, only_news: bool) -> str:
        """What is now, besides the frames. Whoever misses news is told all of it with the next snapshot."""
        busiest = {
            "keys": self._busiest.keys(team_id),
            "teams": self._busiest.teams() if team_id == ALL else None,
        }
        targets = self._standing.text(sees_all=team_id == ALL)
        if only_news and targets == self._told.text(sees_all=team_id == ALL):
            targets = UNKNOWN
        return (
            f'"missing":{_json(self.missing)},"under_way_from":{_json(self._under_way_from)},'
            f'"busiest":{_json(busiest)},"targets":{targets}'
        )

    def snapshot(self, team_id: int, since: int = 0, *, full: bool = True) -> tuple[str, int]:
        """Kept frames after `since`, seconds without one skipped, and the id that they go up to.

        As many as one message may hold. `full`: forget what you had.
        """
        if since < self.last_id - KEPT_S:
            full = True  # there would be a hole
        piece = self._channels.get(team_id, _Channel()).since(0 if full else since)
        up_to = self.last_id if piece.last_id is None else piece.last_id
        head = f'"kind":"snapshot","run":"{self.run_id}","id":{up_to},"full":{_json(full)}'
        head += f",{self._head(team_id, only_news=False)}"
        return f'{{{head},"frames":[{piece.frames}],"calls":[{piece.calls}]}}', up_to

    def has_frames(self, team_id: int) -> bool:
        """Whether a page of this team has anything to draw. May be called from any thread."""
        return team_id in self._channels

    def close_user(self, user_id: int | None) -> None:
        """Close every socket of a user, or of everybody, at once. May be called from any thread."""
        self._soon(
            lambda socket: user_id in (None, socket.user_id), RIGHTS_CHANGED, "Your rights have changed."
        )

    def close_all(self) -> None:
        """The server is going away. May be called from any thread."""
        self._soon(lambda socket: True, GOING_AWAY, "The server is restarting.")

    def recheck_all(self) -> None:
        """Every page comes back, and its rights are read again. May be called from any thread."""
        self._soon(lambda socket: True, GOING_AWAY, "Come back: your rights may have changed.")

    def _soon(self, chosen: Callable[[Socket], bool], code: int, reason: str) -> None:
        def close() -> None:
            for socket in filter(chosen, self._sockets):
                socket.close(code, reason)

        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(close)

    def __repr__(self) -> str:
        return f"<Hub at {self.last_id}, {len(self._sockets)} sockets, {len(self._channels)} teams>"


def _refusals(frame: Frame, team_id: int) -> dict[str, int]:
    """Refused calls by error code."""
    codes: dict[str, int] = {}
    for (each, _), numbers in frame.numbers.items():
        if team_id in (ALL, each):
            for (_, code), count in numbers.refusals.items():
                codes[code] = codes.get(code, 0) + count
    return codes


def show(hub: Hub, frame: Frame, missing: tuple[str, ...] = ()) -> None:
    """Publish a second; if that fails, say so and live on."""
    try:
        hub.publish(frame, missing)
    except Exception:  # the clock of every page: one second may fail, the next must come
        log.exception("The frame of second %d was not published.", frame.at_s)


async def run(fold: Fold, publish: Callable[[Frame], None], stop: asyncio.Event) -> None:
    """Publish each second soon after it is over, until `stop`."""
    while not await _stopped_within(_until_next_second(time.time()), stop):
        for frame in fold.tick(int(time.time())):
            publish(frame)
            await asyncio.sleep(0)  # a long history is published without holding up a call


def _until_next_second(now_s: float) -> float:
    return 1 - (now_s - SETTLE_IN_S) % 1


async def _stopped_within(wait_s: float, stop: asyncio.Event) -> bool:
    try:
        async with asyncio.timeout(wait_s):
            return await stop.wait()
    except TimeoutError:
        return False


def load_history(fold: Fold, before: datetime) -> int:
    """Fold in the entries that ended in the kept time before this moment; how many there were.

    Give it the start of the process, before the fold's first tick: what ended earlier is taken from
    the books and only from them, what ends later comes from the journal.
    """
    after = before - timedelta(seconds=KEPT_S)
    entries = Entry.objects.filter(ended_at__gte=after, ended_at__lt=before).order_by("ended_at")
    count = 0
    for entry in entries.iterator(chunk_size=2000):
        fold.add(_settled_again(entry))
        count += 1
    return count


def _settled_again(entry: Entry) -> Settled:
    """The record that made this entry, without its attempts."""
    basis = cast(Basis, entry.usage_basis)
    return Settled(
        call_id=str(entry.call_id),
        started_at_us=_microseconds(entry.started_at),
        ended_at_us=_microseconds(entry.ended_at),
        team_id=entry.team_id,
        key_id=entry.key_id,
        route=entry.route,
        streamed=entry.streamed,
        simulated=entry.simulated,
        tags=entry.tags,
        outcome=cast(CallOutcome, entry.outcome),
        status=entry.status,
        code=entry.code,
        latency_us=entry.latency_us,
        first_token_us=entry.first_token_us,
        usage=Usage(entry.input_tokens, entry.output_tokens, entry.cached_tokens, basis),
        cost_nanos=entry.cost_nanos,
        unpriced=entry.unpriced,
        attempts=(),
    )


def _microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


_current: Hub | None = None


def install(hub: Hub | None) -> None:
    """Make this the hub that sockets find; None when it is going away."""
    global _current
    _current = hub


def current() -> Hub | None:
    """The hub of this process, where it serves the live page."""
    return _current


def close_sockets_of(user_id: int | None) -> None:
    """Close a person's sockets, or everybody's, in this process at once. May be called from any thread."""
    if _current is not None:
        _current.close_user(user_id)


def recheck_sockets() -> None:
    """Make every socket of this process come back and show its rights. May be called from any thread."""
    if _current is not None:
        _current.recheck_all()
