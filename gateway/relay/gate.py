"""Where calls wait for a free place at a target. One gate a target.

    enter_now ──────────────────────► in ──► leave
    enter ──► Line: push, wait, take ──┘       │
                     ▲─────────────────────────┘

`Line` decides who is next and who makes room: plain values and `now` in, a waiting call out.
`Gate` counts places, wakes the call whose turn it is, and learns how long a place is held.
Neither knows what a call does with its place, nor what its client is told.

Who is next:

1. `urgent` before `normal` before `batch`.
2. Among teams of the same priority the one that holds the fewest places here.
   At a tie it is the one that was served least, in seconds for which it held places while others waited;
   a team that joins starts level with the least served of those that wait, so idling saves nothing up.
   This is start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996) with the charge made at the end,
   as in the virtual token counter (Sheng et al., OSDI 2024), because nobody knows beforehand how long
   a call takes.
3. Within a team the oldest.

Shares: the places are shared alike by the teams of which a call came of late. The last tenth of the
places is kept for teams that hold less than their share, so that they need not wait for a greedy one's
calls to end; telephony calls it trunk reservation (Kelly, Loss networks, 1991). It costs a greedy team
that tenth while others are about, and nothing when it is alone or when all of them ask for their share.
A kept place does not go to a call while a more urgent one waits.

Ageing: a call that waited longer than its priority's patience is overdue, and every fourth place goes
to an overdue one, whatever the others' priority. Letting it rise to `urgent` instead would undo the
order just when it matters: under a lasting overload of batch calls all the oldest are batch, and each
urgent call would wait behind them. So urgent calls keep three quarters of the places, and the rest
never starve.
"""

import asyncio
import itertools
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Set
from math import inf
from typing import Final, get_args

from msgspec import Struct

from accounts.caller import Priority

PRIORITIES: Final[tuple[Priority, ...]] = get_args(Priority)
"""Most urgent first."""
PATIENCE_S: Final[dict[Priority, float]] = {"normal": 10.0, "batch": 30.0}
"""How long a call waits before it is overdue. Urgent ones are first anyway.

Ten seconds is how long a person keeps looking at a page that does nothing.
Thirty are a twentieth of the longest usual deadline, so that a batch call is served well before it ends.
"""
OVERDUE_EVERY: Final = 4
"""One place in so many goes to an overdue call."""
LEAST_WEIGHT: Final = 0.02
"""Of the newest call in the mean time for which a place is held: about the last hundred count.

Fewer would make the promise of a long wait jump about by a tenth and more.
"""
KEPT_OF: Final = 10
"""One place in so many, at least one of two, is kept for teams that hold less than their share.

Simulated with 50 places held for 0.2 s by a team that asks for fifty times its share, three others at half
of theirs: without, their p99 is 1.9 times what it is alone, because calls that fill a gate together end
together; with it 1.0, or 1.3 where every call takes exactly as long as every other.
"""
HERE_S: Final = 10.0
"""How long at least a team counts as one of those that share the places after its last call came."""
WAIT_BOUNDS_S: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0),
)

Held = Mapping[int, int]
"""Places held, by team id."""


class Full(Exception):
    """No room to wait, or the wait would be longer than the time left."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"the gate is full, come back in {retry_after_s:.3f} s")
        self.retry_after_s = retry_after_s


Turn = asyncio.Future[float | Full]


class Waiting(Struct, frozen=True):
    """A call in the line. `came_at` in monotonic seconds; numbers rise in the order of coming."""

    number: int
    team_id: int
    priority: Priority
    came_at: float

    @property
    def due_at(self) -> float:
        """Only of a priority that has a patience."""
        return self.came_at + PATIENCE_S[self.priority]


class Line:
    """The calls that wait at one gate, and which of them is next.

    `push`, `drop` and `charge` take the same time however many wait; `take` looks at each waiting team.
    Does not bound its own length.
    """

    def __init__(self) -> None:
        self._queues: dict[Priority, dict[int, OrderedDict[int, Waiting]]] = {each: {} for each in PRIORITIES}
        self._sizes: dict[int, int] = {}
        self._served_s: dict[int, float] = {}
        self._numbers = itertools.count(1)
        self._since_overdue = 0

    def __len__(self) -> int:
        return sum(self._sizes.values())

    def waiting(self, priority: Priority) -> int:
        return sum(map(len, self._queues[priority].values()))

    def by_team(self) -> Iterator[tuple[tuple[int, Priority], int]]:
        """How many calls wait, by team and priority."""
        for priority, queues in self._queues.items():
            yield from (((team_id, priority), len(queue)) for team_id, queue in queues.items())

    def teams(self) -> Set[int]:
        """Those that have a call in it."""
        return self._sizes.keys()

    def more_urgent_than(self, priority: Priority) -> bool:
        """Whether any such call waits."""
        return any(self._queues[each] for each in PRIORITIES[: _rank(priority)])

    def oldest_at(self, priority: Priority) -> float | None:
        """When the call came that has waited longest; None: none waits."""
        return min((each.came_at for each in self._heads(priority)), default=None)

    def push(self, team_id: int, priority: Priority, now: float) -> Waiting:
        """A call joins the end of its team's queue."""
        if team_id not in self._sizes:
            self._start_level(team_id)
        waiting = Waiting(next(self._numbers), team_id, priority, now)
        self._queues[priority].setdefault(team_id, OrderedDict())[waiting.number] = waiting
        self._sizes[team_id] = self._sizes.get(team_id, 0) + 1
        return waiting

    def take(self, held: Held, now: float, below: float = inf) -> Waiting | None:
        """The call whose turn it is leaves the line, which must not be empty.

        None: every team that has a call of the highest waiting priority holds `below` places or more.
        """
        overdue = self._overdue(held, now, below) if self._since_overdue >= OVERDUE_EVERY - 1 else None
        chosen = overdue or self._most_urgent(held, below)
        if chosen is not None:
            self._since_overdue = self._since_overdue + 1 if overdue is None else 0
            self.drop(chosen)
        return chosen

    def drop(self, waiting: Waiting) -> None:
        """A call leaves the line, from wherever it stands."""
        queues, team_id = self._queues[waiting.priority], waiting.team_id
        del queues[team_id][waiting.number]
        if not queues[team_id]:
            del queues[team_id]
        self._sizes[team_id] -= 1
        if not self._sizes[team_id]:
            del self._sizes[team_id]
        if not self._sizes:
            self._served_s.clear()

    def charge(self, team_id: int, held_s: float) -> None:
        """A team held a place for so long while others waited."""
        self._served_s[team_id] = self._served_s.get(team_id, 0.0) + held_s

    def greediest(self) -> Waiting:
        """The newest, least urgent call of the team that has most in the line, which must not be empty."""
        return self._last_of(max(self._sizes, key=self._sizes.__getitem__))

    def who_yields(self, team_id: int, priority: Priority) -> Waiting | None:
        """Whom a newcomer pushes out of a full line; None: it has no better claim.

        The longest queue loses (Suter et al., INFOCOM 1998), so that a team fills the line only as far
        as the others leave it empty. A team may make room within its own queue for something more urgent.
        """
        own = self._sizes.get(team_id, 0)
        if self._sizes and own + 1 < max(self._sizes.values()):
            return self.greediest()
        last = self._last_of(team_id) if own else None
        return last if last is not None and _rank(last.priority) > _rank(priority) else None

    def ahead(self, team_id: int, priority: Priority, held: Held, places: int) -> float:
        """About how many calls would be let in before a newcomer.

        All waiting ones that are more urgent, its own team's, and of each other team as many as its own
        has in the line and in places beyond its share, if the other has so many: those that it holds
        places for count twice, because a team that is here usually comes again.
        Does not foresee anything else: not who comes later and is more urgent, nor who grows overdue.
        """
        queues = self._queues[priority]
        teams = queues.keys() | held.keys() | {team_id}
        sizes = {each: len(queues.get(each, ())) + held.get(each, 0) for each in teams}
        beyond = max(0.0, sizes.pop(team_id) - places / len(teams))
        others = sum(min(size, beyond) for size in sizes.values())
        own = len(queues.get(team_id, ()))
        return sum(map(self.waiting, PRIORITIES[: _rank(priority)])) + own + others

    def _start_level(self, team_id: int) -> None:
        """A team that joins is not owed for the time when it asked for nothing."""
        least = min((self._served_s.get(other, 0.0) for other in self._sizes), default=0.0)
        self._served_s[team_id] = max(self._served_s.get(team_id, 0.0), least)

    def _most_urgent(self, held: Held, below: float) -> Waiting | None:
        level = next(each for each in PRIORITIES if self._queues[each])
        heads = (each for each in self._heads(level) if held.get(each.team_id, 0) < below)
        return min(heads, key=lambda each: (*self._claim(each.team_id, held), each.number), default=None)

    def _overdue(self, held: Held, now: float, below: float) -> Waiting | None:
        heads = (each for level in PATIENCE_S for each in self._heads(level) if each.due_at <= now)
        due = (each for each in heads if held.get(each.team_id, 0) < below)
        return min(due, key=lambda each: (*self._claim(each.team_id, held), each.due_at), default=None)

    def _claim(self, team_id: int, held: Held) -> tuple[int, float]:
        """The lowest goes first."""
        return held.get(team_id, 0), self._served_s.get(team_id, 0.0)

    def _heads(self, priority: Priority) -> Iterator[Waiting]:
        """Each team's oldest."""
        return (next(iter(queue.values())) for queue in self._queues[priority].values())

    def _last_of(self, team_id: int) -> Waiting:
        queues = next(each for level in reversed(PRIORITIES) if (each := self._queues[level].get(team_id)))
        return next(reversed(queues.values()))


def kept_of(places: int) -> int:
    """How many of the places are kept for teams that hold less than their share."""
    return -(-places // KEPT_OF) if places > 1 else 0


class GateFigures(Struct, frozen=True):
    """One gate, now and since it was opened. Calls that were let in at once count as waits of 0 s.

    All that ever came are `entered`, `waiting`, `refused` or `left`.
    """

    places: int
    kept: int
    """How many of them are kept for teams that hold less than their share."""
    in_use: int
    """More than `places` for a while after there were made fewer."""
    waiting: dict[Priority, int]
    longest_wait_s: dict[Priority, float]
    """Of those that are waiting."""
    entered: dict[Priority, int]
    wait_s: dict[Priority, float]
    """Seconds that those who entered had waited, all together."""
    wait_buckets: dict[Priority, tuple[int, ...]]
    """How many waited no longer than each of WAIT_BOUNDS_S, and, last, any time; cumulative."""
    refused: int
    """At once, in favour of another team, or when their time had passed."""
    left: int
    """Went away while waiting."""
    hold_s: float
    """How long a place is held, on average of late."""


class Gate:
    """Lets as many calls in at once as there are places. Whoever entered must leave, once.

    After every step no call waits that could go in, so that `enter_now` cannot overtake.
    Not for threads: everything happens on one event loop.
    """

    def __init__(self, places: int, most_waiting: int, clock: Callable[[], float]) -> None:
        """`places` is at least 1; `most_waiting` may be 0; `clock` gives monotonic seconds."""
        self._places, self._most_waiting, self._clock = places, most_waiting, clock
        self._open = places - kept_of(places)
        """Of the places those that anyone may have."""
        self._in_use = 0
        self._held: dict[int, int] = {}
        """Of every team that was here of late, though it may hold none at the moment."""
        self._came: set[int] = set()
        """The teams of which a call came since the idle ones were last forgotten."""
        self._forgot_at = clock()
        self._line = Line()
        self._turns: dict[int, Turn] = {}
        """By number, of each call in the line: told how long it waited, or why it may not go."""
        self._hold_s, self._weight = 0.0, 1.0
        self._quiet_since = 0.0
        """While calls wait: when a place was last given back, or the first of them came."""
        self._at_once = dict.fromkeys(PRIORITIES, 0)
        self._wait_s = dict.fromkeys(PRIORITIES, 0.0)
        self._waits: dict[Priority, list[int]] = {each: [0] * (len(WAIT_BOUNDS_S) + 1) for each in PRIORITIES}
        self._refused = self._left = 0

    def __repr__(self) -> str:
        waiting = ", ".join(f"{self._line.waiting(each)} {each}" for each in PRIORITIES)
        return f"<Gate {self._in_use} of {self._places} places, waiting {waiting}, held {self._hold_s:.3f} s>"

    def resize(self, places: int, most_waiting: int) -> None:
        """Takes effect at once: new places are given out, and who no longer fits in the line is refused.

        Nobody who is in is cut off: too many only means that the next places are not given out again.
        """
        self._places, self._most_waiting = places, most_waiting
        self._open = places - kept_of(places)
        self._hand_on(self._clock())
        while len(self._turns) > most_waiting:
            self._turn_away(self._line.greediest())

    def has_place(self, team_id: int, priority: Priority) -> bool:
        """A call would be let in at once."""
        if self._in_use < self._open:
            return True
        self._forget_idle(self._clock())
        return (
            self._in_use < self._places
            and self._held.get(team_id, 0) < self._share()
            and not self._line.more_urgent_than(priority)
        )

    def enter_now(self, team_id: int, priority: Priority) -> bool:
        """Let a call in if there is a place for it. Never overtakes one whose turn is before it."""
        if self._in_use >= self._open and not self.has_place(team_id, priority):
            return False
        self._in_use += 1
        self._held[team_id] = self._held.get(team_id, 0) + 1
        self._came.add(team_id)
        self._at_once[priority] += 1
        return True

    def expected_wait_s(self, team_id: int, priority: Priority) -> float:
        """How long a call would wait if it came now: places come free one after another, evenly.

        0 as long as nothing is known of how long a place is held.
        """
        if self.has_place(team_id, priority):
            return 0.0
        # Where nothing has been given back for longer than a place was held until now, the target
        # has grown slow and the mean, made of calls that ended, does not know it yet.
        quiet_s = self._clock() - self._quiet_since if self._turns else 0.0
        ahead = self._line.ahead(team_id, priority, self._held, self._places)
        return (ahead + 1) * max(self._hold_s, quiet_s) / self._places

    async def enter(self, team_id: int, priority: Priority, time_left_s: float) -> float:
        """Wait for a place; returns the seconds waited.

        Raises Full at once where the wait is expected to be longer than the time left or there is no room
        to wait, and later where another team's call needs the room or the time has passed after all.
        """
        if self.enter_now(team_id, priority):
            return 0.0
        waiting = self._join(team_id, priority, time_left_s)
        loop = asyncio.get_running_loop()
        turn: Turn = loop.create_future()
        self._turns[waiting.number] = turn
        alarm = loop.call_later(time_left_s, self._turn_away, waiting)
        try:
            told = await turn
        except BaseException:  # cancelled, or closed with its loop: either way it no longer waits
            self._went_away(waiting, turn)
            raise
        finally:
            alarm.cancel()
        if isinstance(told, Full):
            raise Full(told.retry_after_s)  # a new one: `turn` holds this one, which would hold this frame
        return told

    def leave(self, team_id: int, held_s: float) -> None:
        """Give a place back that was held for so long."""
        self._in_use -= 1  # as in _give_back, which would cost every call a tenth of a microsecond
        self._held[team_id] -= 1
        self._hold_s += (held_s - self._hold_s) * self._weight
        if self._weight > LEAST_WEIGHT:  # a plain mean of the first ones: 1, 1/2, 1/3, …
            self._weight /= 1.0 + self._weight
        if self._turns:
            self._quiet_since = now = self._clock()
            self._line.charge(team_id, held_s)
            self._forget_idle(now)
            self._hand_on(now)

    def figures(self) -> GateFigures:
        """Looks at every waiting team, so once a second and not once a call."""
        now, line = self._clock(), self._line
        buckets = {each: self._buckets(each) for each in PRIORITIES}
        return GateFigures(
            places=self._places,
            kept=self._places - self._open,
            in_use=self._in_use,
            waiting={each: line.waiting(each) for each in PRIORITIES},
            longest_wait_s={
                each: 0.0 if (at := line.oldest_at(each)) is None else now - at for each in PRIORITIES
            },
            entered={each: buckets[each][-1] for each in PRIORITIES},
            wait_s=dict(self._wait_s),
            wait_buckets=buckets,
            refused=self._refused,
            left=self._left,
            hold_s=self._hold_s,
        )

    def waiting_by_team(self) -> Iterator[tuple[tuple[int, Priority], int]]:
        """How many calls wait, by team and priority; looks at every waiting team, so once a second."""
        return self._line.by_team()

    def _join(self, team_id: int, priority: Priority, time_left_s: float) -> Waiting:
        """Raises Full."""
        expected_s = self.expected_wait_s(team_id, priority)
        if expected_s > time_left_s or not self._make_room(team_id, priority):
            self._refused += 1
            raise Full(expected_s)
        now = self._clock()
        if not self._turns:
            self._quiet_since = now
        self._held.setdefault(team_id, 0)
        self._came.add(team_id)
        return self._line.push(team_id, priority, now)

    def _make_room(self, team_id: int, priority: Priority) -> bool:
        if len(self._turns) < self._most_waiting:
            return True
        yielding = self._line.who_yields(team_id, priority)
        if yielding is not None:
            self._turn_away(yielding)
        return yielding is not None

    def _turn_away(self, waiting: Waiting) -> None:
        """One that waits is refused after all; nothing happens to one that waits no longer."""
        turn = self._turns.pop(waiting.number, None)
        if turn is None:
            return
        self._line.drop(waiting)
        if turn.cancelled():
            self._left += 1
        else:
            self._refused += 1
            turn.set_result(Full(self.expected_wait_s(waiting.team_id, waiting.priority)))
        self._hand_on(self._clock())  # where it was the more urgent one that a kept place waited for

    def _hand_on(self, now: float) -> None:
        """Give every free place to whoever is next."""
        while self._turns and self._in_use < self._places:
            waiting = self._line.take(self._held, now, inf if self._in_use < self._open else self._share())
            if waiting is None:
                return
            turn = self._turns.pop(waiting.number)
            if turn.cancelled():  # its task has not run since, so it still stood in the line
                self._left += 1
            else:
                self._let_in(waiting, turn, now - waiting.came_at)

    def _share(self) -> float:
        """Places for each of the teams that were here of late."""
        return self._places / max(1, len(self._held))

    def _forget_idle(self, now: float) -> None:
        """From time to time, teams that hold nothing and of which no call came since the last time."""
        if now - self._forgot_at < HERE_S:
            return
        stay = self._came | self._line.teams()
        self._held = {each: held for each, held in self._held.items() if held or each in stay}
        self._came.clear()
        self._forgot_at = now
        self._hand_on(now)  # the others' share has grown

    def _let_in(self, waiting: Waiting, turn: Turn, waited_s: float) -> None:
        self._in_use += 1
        self._held[waiting.team_id] += 1
        self._wait_s[waiting.priority] += waited_s
        self._waits[waiting.priority][bisect_left(WAIT_BOUNDS_S, waited_s)] += 1
        turn.set_result(waited_s)

    def _went_away(self, waiting: Waiting, turn: Turn) -> None:
        """A call stopped waiting by itself. A place that came at the same moment is handed on."""
        if self._turns.pop(waiting.number, None) is not None:
            self._line.drop(waiting)
            self._left += 1
        elif not turn.cancelled() and not isinstance(turn.result(), Full):
            self._give_back(waiting.team_id)
        self._hand_on(self._clock())

    def _give_back(self, team_id: int) -> None:
        self._in_use -= 1
        self._held[team_id] -= 1

    def _buckets(self, priority: Priority) -> tuple[int, ...]:
        counts = self._waits[priority].copy()
        counts[0] += self._at_once[priority]
        return tuple(itertools.accumulate(counts))


def _rank(priority: Priority) -> int:
    return PRIORITIES.index(priority)
