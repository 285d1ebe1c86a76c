"""Live frames: what ended in one second, by team and route, as numbers that add up.

Pure: values and `now` in, values out. Needs no event loop, no database and no socket.
Durations are whole microseconds, moments whole seconds since the Unix epoch, money whole nano-units.
"""

import zlib
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from typing import TypeVar

import msgspec

from gateway.glance import NONE_UNDER_WAY, UnderWay
from gateway.histograms import Histogram, add, bucket_of, percentiles, subtract
from gateway.relay.records import Settled

WINDOW_S = 900
"""What the live page shows."""
TRAILING_S = 60
"""What a percentile or an error rate covers."""
KEPT_S = WINDOW_S + TRAILING_S
"""The first point of the page has a trailing minute as well."""
LATEST_A_SECOND = 20
BUSIEST_S = 300
"""What the busiest teams and keys are of."""
MOST_BUSIEST = 10
KEYS_A_SECOND = 1000
"""Of more of them in one second, the rest counts in totals only."""

ALL = 0
"""Stands for all teams together; no team has this id."""
TOTAL = ""
"""Stands for all model names together; no route has this name."""

# A caller may ask for any name, so the names of refused calls are bounded.
REFUSED_NAMES_A_SECOND = 100
# A clock that was set back by less than this is waited for.
SMALL_STEP_S = 5
# A record this far ahead of the tick was stamped before the clock was set back.
AHEAD_S = 2

COUNTS = (
    "calls",
    "answered",
    "rejected",
    "failed",
    "truncated",
    "hung_up",
    "abandoned",
    "refused",
    "input_tokens",
    "output_tokens",
    "cost_nanos",
    "simulated",
    "unpriced",
)
"""What is counted, in the order of `Numbers.counts`. `refused` calls are not among `calls`."""
_CALLS, _REFUSED, _INPUT, _OUTPUT, _COST, _SIMULATED, _UNPRICED = (
    COUNTS.index(name)
    for name in ("calls", "refused", "input_tokens", "output_tokens", "cost_nanos", "simulated", "unpriced")
)
_PLACE_OF_OUTCOME = {name: COUNTS.index(name) for name in COUNTS[1:7]}

Key = tuple[int, str]
"""A team's id and a route's model name."""
KeyOfTeam = tuple[int, int]
"""A team's id and a key's."""


class Numbers:
    """What ended in a second for one team and route. Two of them merge into one."""

    __slots__ = ("counts", "first_token", "latency", "refusals")

    def __init__(self) -> None:
        self.counts = [0] * len(COUNTS)
        self.latency: Histogram = {}
        self.first_token: Histogram = {}
        self.refusals: dict[tuple[int, str], int] = {}
        """Refused calls by key id and error code."""

    def add(self, settled: Settled) -> None:
        """Count one call in. Runs once a call on the relay's loop, so it is written for speed."""
        counts, usage = self.counts, settled.usage
        counts[_CALLS] += 1
        counts[_PLACE_OF_OUTCOME[settled.outcome]] += 1
        counts[_INPUT] += usage.input_tokens
        counts[_OUTPUT] += usage.output_tokens
        counts[_COST] += settled.cost_nanos
        if settled.simulated:
            counts[_SIMULATED] += 1
        if settled.unpriced:
            counts[_UNPRICED] += 1
        if settled.outcome != "abandoned":  # nobody saw its end, so its latency is not known
            bucket = bucket_of(settled.latency_us)
            self.latency[bucket] = self.latency.get(bucket, 0) + 1
            if settled.first_token_us is not None:
                bucket = bucket_of(settled.first_token_us)
                self.first_token[bucket] = self.first_token.get(bucket, 0) + 1

    def refuse(self, key_id: int, code: str) -> None:
        self.counts[_REFUSED] += 1
        self.refusals[key_id, code] = self.refusals.get((key_id, code), 0) + 1

    def merge(self, other: "Numbers") -> None:
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        add(self.latency, other.latency)
        add(self.first_token, other.first_token)
        for reason, count in other.refusals.items():
            self.refusals[reason] = self.refusals.get(reason, 0) + count

    def __getitem__(self, name: str) -> int:
        return self.counts[COUNTS.index(name)]

    def __repr__(self) -> str:
        said = ", ".join(f"{count} {name}" for name, count in zip(COUNTS, self.counts, strict=True) if count)
        return f"<Numbers {said or 'of nothing'}>"


@dataclass(slots=True)
class Frame:
    """One second that is over. Its id is that second, so ids are gapless within a run."""

    at_s: int
    numbers: dict[Key, Numbers] = field(default_factory=dict)
    latest: dict[int, deque[Settled]] = field(default_factory=dict)
    """The last calls of the second, by team, oldest first."""
    keys: dict[KeyOfTeam, list[int]] = field(default_factory=dict)
    """Calls, failed and truncated ones, and cost in nano-units."""
    under_way: UnderWay | None = None
    """At the end of the second; None: not known, because no process said so."""

    def add(self, settled: Settled) -> None:
        key = (settled.team_id, settled.route)
        numbers = self.numbers.get(key)
        if numbers is None:
            numbers = self.numbers[key] = Numbers()
        numbers.add(settled)
        self._count_key(settled)
        latest = self.latest.get(settled.team_id)
        if latest is None:
            latest = self.latest[settled.team_id] = deque(maxlen=LATEST_A_SECOND)
        latest.append(settled)

    def _count_key(self, settled: Settled) -> None:
        key = (settled.team_id, settled.key_id)
        counts = self.keys.get(key)
        if counts is None:
            if len(self.keys) >= KEYS_A_SECOND:
                return
            counts = self.keys[key] = [0, 0, 0]
        counts[0] += 1
        counts[1] += settled.outcome in ("failed", "truncated")
        counts[2] += settled.cost_nanos

    def refuse(self, team_id: int, key_id: int, route: str, code: str) -> None:
        if (team_id, route) not in self.numbers and len(self.numbers) >= REFUSED_NAMES_A_SECOND:
            route = TOTAL
        self.numbers.setdefault((team_id, route), Numbers()).refuse(key_id, code)

    def merge(self, other: "Frame") -> None:
        for key, numbers in other.numbers.items():
            self.numbers.setdefault(key, Numbers()).merge(numbers)
        for team_id, calls in other.latest.items():
            self.latest.setdefault(team_id, deque(maxlen=LATEST_A_SECOND)).extend(calls)
        _add_lists(self.keys, other.keys)
        # What was under way at another moment is no part of what is under way at this one.
        if other.under_way is not None and other.at_s == self.at_s:
            self.under_way = _add_lists({} if self.under_way is None else self.under_way, other.under_way)

    def by_team(self) -> dict[int, dict[str, Numbers]]:
        """The numbers of each team and of all teams, by route and in total.

        A name under which nothing was let in counts in the total only: it may be any name.
        """
        teams: dict[int, dict[str, Numbers]] = {}
        for (team_id, route), numbers in self.numbers.items():
            names = (route, TOTAL) if numbers["calls"] else (TOTAL,)
            for each in (team_id, ALL):
                routes = teams.setdefault(each, {})
                for name in names:
                    routes.setdefault(name, Numbers()).merge(numbers)
        return teams

    def latest_of(self, team_id: int) -> list[Settled]:
        """At most `LATEST_A_SECOND` calls, oldest first."""
        if team_id != ALL:
            return list(self.latest.get(team_id, ()))
        calls = [call for calls in self.latest.values() for call in calls]
        return sorted(calls, key=lambda call: call.ended_at_us)[-LATEST_A_SECOND:]


Id = TypeVar("Id")


def _add_lists(to: dict[Id, list[int]], more: Mapping[Id, Sequence[int]]) -> dict[Id, list[int]]:
    for each, counts in more.items():
        before = to.get(each)
        to[each] = [*counts] if before is None else [a + b for a, b in zip(before, counts, strict=True)]
    return to


class Fold:
    """Gather calls by the second in which they ended, and hand out the seconds that are over.

    A record that comes when its second has been handed out goes into the next frame:
    frames add up to the ledger, and each is final once it is out.
    Does not keep what it handed out, and knows nothing of who is watching.
    """

    def __init__(self) -> None:
        self._open: dict[int, Frame] = {}
        self._refused = Frame(0)
        self._next_s = 0
        """The oldest second that has not been handed out."""

    def add(self, settled: Settled) -> None:
        """Count one call in; a few microseconds."""
        second = settled.ended_at_us // 1_000_000
        if second < self._next_s:
            second = self._next_s
        frame = self._open.get(second)
        if frame is None:
            frame = self._open[second] = Frame(second)
        frame.add(settled)

    def refused(self, team_id: int, key_id: int, route: str, code: str) -> None:
        """Count one call that was not let in, in the second that ends with the next tick."""
        self._refused.refuse(team_id, key_id, route, code)

    def tick(self, now_s: int) -> list[Frame]:
        """Hand out every second before `now_s`, oldest first, empty ones too, at most `KEPT_S` of them.

        A clock that is set back a little is waited for; one that is set back far is not followed:
        frames go on from where they were, one a tick.
        """
        first_s, end_s = self._over(now_s)
        if first_s == end_s:
            return []
        frames = {second: self._open.pop(second, Frame(second)) for second in range(first_s, end_s)}
        newest = frames[end_s - 1]
        newest.merge(self._refused)
        self._refused, self._next_s = Frame(0), end_s
        for second in [each for each in self._open if each > end_s + AHEAD_S]:
            newest.merge(self._open.pop(second))
        for second in [each for each in self._open if each < end_s]:
            del self._open[second]  # older than anything that is shown
        return list(frames.values())

    def _over(self, now_s: int) -> tuple[int, int]:
        if not self._next_s:
            return max(min([*self._open, now_s - 1]), now_s - KEPT_S), now_s
        if now_s < self._next_s - SMALL_STEP_S:
            return self._next_s, self._next_s + 1
        return max(self._next_s, now_s - KEPT_S), max(self._next_s, now_s)


class _PackedNumbers(msgspec.Struct, array_like=True):
    """Numbers of one team and route, as they travel."""

    team_id: int
    route: str
    counts: list[int]
    latency: Histogram
    first_token: Histogram
    refusals: list[tuple[int, str, int]]


class _PackedFrame(msgspec.Struct, array_like=True):
    at_s: int
    numbers: list[_PackedNumbers]
    latest: dict[int, list[Settled]]
    keys: list[tuple[int, int, int, int, int]] = []
    """Team, key, and what is counted of it. A release that packs none has none to tell."""
    under_way: UnderWay | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_PackedFrame).decode


def packed(frame: Frame) -> bytes:
    """A frame as it travels to other processes. A call's attempts stay at home: no page shows them."""
    numbers = [_pack(key, each) for key, each in frame.numbers.items()]
    latest = {
        team_id: [msgspec.structs.replace(call, attempts=()) for call in calls]
        for team_id, calls in frame.latest.items()
    }
    keys = [(*key, *counts) for key, counts in frame.keys.items()]
    made = _PackedFrame(frame.at_s, numbers, latest, keys, frame.under_way)  # type: ignore[arg-type]
    return zlib.compress(_encode(made), 1)


def _pack(key: Key, numbers: Numbers) -> _PackedNumbers:
    refusals = [(key_id, code, count) for (key_id, code), count in numbers.refusals.items()]
    return _PackedNumbers(*key, numbers.counts, numbers.latency, numbers.first_token, refusals)


def unpacked(data: bytes) -> Frame:
    """What `packed` made. Raises ValueError where another release packed it otherwise."""
    try:
        read = _decode(zlib.decompress(data))
    except zlib.error as why:
        raise ValueError(f"not a packed frame: {why}") from None
    frame = Frame(read.at_s)
    for each in read.numbers:
        if len(each.counts) != len(COUNTS):
            raise ValueError(f"a frame counts {len(each.counts)} things, not {len(COUNTS)}")
        numbers = frame.numbers[each.team_id, each.route] = Numbers()
        numbers.counts, numbers.latency, numbers.first_token = each.counts, each.latency, each.first_token
        numbers.refusals = {(key_id, code): count for key_id, code, count in each.refusals}
    for team_id, calls in read.latest.items():
        frame.latest[team_id] = deque(calls, maxlen=LATEST_A_SECOND)
    frame.keys = {(team_id, key_id): counts for team_id, key_id, *counts in read.keys}
    if any(len(each) != len(NONE_UNDER_WAY) for each in (read.under_way or {}).values()):
        raise ValueError("a frame tells calls under way by other priorities")
    frame.under_way = read.under_way
    return frame


class Gatherer:
    """Adds up the frames of several processes, and hands out each second once, when it is closed.

    Told the same things in the same order, any two of them hand out the same frames,
    so that a page may go on with another process where it left off.
    A frame that comes when its second was handed out goes into the next one, so that nothing is lost.
    Does not decide when a second is closed.
    """

    def __init__(self, begins_s: int) -> None:
        """What happened before that second is not this one's to tell."""
        self.closed_s = begins_s - 1
        """The newest second that was handed out."""
        self._begins_s = begins_s
        self._open: dict[int, Frame] = {}
        self._newest: dict[str, int] = {}
        """The newest second that was heard of each process that publishes."""
        self._left: dict[str, int] = {}
        """The same of those that publish no more."""

    def heard(self, process: str, frame: Frame, *, is_last: bool = False) -> None:
        """A process's frame; one that was heard before changes nothing."""
        if frame.at_s <= self.newest_of(process):
            return
        self._newest[process] = frame.at_s
        if is_last:
            self._left[process] = self._newest.pop(process)
        if frame.at_s >= self._begins_s:
            at_s = max(frame.at_s, self.closed_s + 1)
            self._open.setdefault(at_s, Frame(at_s)).merge(frame)

    def newest_of(self, process: str) -> int:
        """The newest second that was heard of a process; 0: none ever was."""
        return self._newest.get(process, self._left.get(process, 0))

    def complete_s(self, serving: Collection[str]) -> int:
        """The newest second of which every process that publishes and still serves was heard."""
        newest = [at_s for process, at_s in self._newest.items() if process in serving]
        return max(self.closed_s, min(newest, default=self.closed_s))

    def awaited(self, at_s: int, serving: Collection[str]) -> list[str]:
        """Who serves and publishes, and was not heard of that second."""
        return sorted(
            process for process, newest in self._newest.items() if newest < at_s and process in serving
        )

    def close(self, at_s: int) -> list[Frame]:
        """Every second up to this one that was not handed out, oldest first, at most `KEPT_S` of them."""
        first_s = max(self.closed_s + 1, at_s - KEPT_S + 1)
        frames = [self._open.pop(second, Frame(second)) for second in range(first_s, at_s + 1)]
        self.closed_s = max(self.closed_s, at_s)
        self._open = {second: each for second, each in self._open.items() if second > self.closed_s}
        for known in (self._newest, self._left):
            for process in [each for each, newest in known.items() if newest < at_s - KEPT_S]:
                del known[process]
        return frames

    def __repr__(self) -> str:
        return f"<Gatherer up to {self.closed_s}, {len(self._newest)} processes, {len(self._open)} open>"


class _Window:
    """The durations of the trailing minute for one team and route."""

    __slots__ = ("first_token", "latency", "seconds")

    def __init__(self) -> None:
        self.latency: Histogram = {}
        self.first_token: Histogram = {}
        self.seconds = 0
        """In how many of them anything happened."""

    def add(self, numbers: Numbers) -> None:
        self.seconds += 1
        add(self.latency, numbers.latency)
        add(self.first_token, numbers.first_token)

    def subtract(self, numbers: Numbers) -> None:
        self.seconds -= 1
        subtract(self.latency, numbers.latency)
        subtract(self.first_token, numbers.first_token)


Row = list[int | None]
"""`COUNTS` of one second, then p50, p95, p99 of latency and of first-token time over the trailing minute."""
NOTHING = [0] * len(COUNTS)
NO_ROW: Row = [*NOTHING, *[None] * 6]


class Trailing:
    """Percentiles of the trailing minute, kept by adding the newest second and subtracting the oldest."""

    def __init__(self) -> None:
        self._windows: dict[int, dict[str, _Window]] = {}
        self._seconds: deque[tuple[int, dict[int, dict[str, Numbers]]]] = deque()

    def advance(self, frame: Frame) -> dict[int, dict[str, Row]]:
        """Rows by team and route for everything that was busy in the minute that ends with this frame."""
        teams = frame.by_team()
        self._seconds.append((frame.at_s, teams))
        for team_id, routes in teams.items():
            windows = self._windows.setdefault(team_id, {})
            for route, numbers in routes.items():
                windows.setdefault(route, _Window()).add(numbers)
        while self._seconds[0][0] <= frame.at_s - TRAILING_S:
            self._forget(self._seconds.popleft()[1])
        return {team_id: _rows(windows, teams.get(team_id, {})) for team_id, windows in self._windows.items()}

    def _forget(self, teams: Mapping[int, Mapping[str, Numbers]]) -> None:
        for team_id, routes in teams.items():
            windows = self._windows[team_id]
            for route, numbers in routes.items():
                windows[route].subtract(numbers)
                if not windows[route].seconds:
                    del windows[route]
            if not windows:
                del self._windows[team_id]


def _rows(windows: Mapping[str, _Window], numbers: Mapping[str, Numbers]) -> dict[str, Row]:
    return {
        route: [
            *(numbers[route].counts if route in numbers else NOTHING),
            *percentiles(window.latency),
            *percentiles(window.first_token),
        ]
        for route, window in windows.items()
    }


def under_way_by_team(frame: Frame) -> dict[int, list[int]]:
    """Of each team that has any, and of all teams; empty where it is not known."""
    teams = dict(frame.under_way or {})
    if teams:
        teams[ALL] = [sum(each) for each in zip(*teams.values(), strict=True)]
    return teams


class Busiest:
    """The teams and keys with most calls in the last `BUSIEST_S`, kept by adding and subtracting seconds."""

    def __init__(self) -> None:
        self._sums: dict[int, dict[int, list[int]]] = {}
        """By team and key: calls, failed and truncated ones, and cost in nano-units."""
        self._seconds: deque[tuple[int, dict[KeyOfTeam, list[int]]]] = deque()

    def advance(self, frame: Frame) -> None:
        self._seconds.append((frame.at_s, frame.keys))
        for (team_id, key_id), counts in frame.keys.items():
            _add_lists(self._sums.setdefault(team_id, {}), {key_id: counts})
        while self._seconds[0][0] <= frame.at_s - BUSIEST_S:
            self._forget(self._seconds.popleft()[1])

    def _forget(self, keys: Mapping[KeyOfTeam, Sequence[int]]) -> None:
        for (team_id, key_id), counts in keys.items():
            sums = self._sums[team_id]
            sums[key_id] = [one - other for one, other in zip(sums[key_id], counts, strict=True)]
            if not sums[key_id][0]:
                del sums[key_id]
            if not sums:
                del self._sums[team_id]

    def keys(self, team_id: int) -> list[list[int]]:
        """Team, key, calls, failed and truncated ones, cost; at most `MOST_BUSIEST`, the busiest first."""
        teams = self._sums if team_id == ALL else {team_id: self._sums.get(team_id, {})}
        rows = ([team, key, *counts] for team, keys in teams.items() for key, counts in keys.items())
        return nlargest(MOST_BUSIEST, rows, key=lambda row: (row[2], row[4]))

    def teams(self) -> list[list[int]]:
        """Team, calls, failed and truncated ones, cost; at most `MOST_BUSIEST`, the busiest first."""
        rows = (
            [team, *map(sum, zip(*keys.values(), strict=True))] for team, keys in self._sums.items() if keys
        )
        return nlargest(MOST_BUSIEST, rows, key=lambda row: (row[1], row[3]))

    def __repr__(self) -> str:
        return f"<Busiest of {len(self._sums)} teams>"
