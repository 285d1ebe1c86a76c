"""When a call must end, and who ends it.

One ticker looks at every open call ten times a second: a timer for each wait
would cost more than the waits. So a deadline is kept to within a tenth of a second.
"""

import asyncio
import enum
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from accounts.caller import Priority

TICK_S = 0.1
NEVER = float("inf")


class Cut(enum.Enum):
    """Why a call was ended from outside."""

    HUNG_UP = "the client went away"
    SLOW_BODY = "the request body did not come in time"
    SLOW_READER = "the client did not read in time"
    SILENT = "the provider was silent for too long"
    DEADLINE = "the call's deadline passed"
    STOPPING = "the gateway is stopping"
    REVOKED = "the API key was revoked"

    @property
    def is_timeout(self) -> bool:
        """The provider took too long."""
        return self in (Cut.SILENT, Cut.DEADLINE)


@dataclass(slots=True, eq=False)
class Lifeline:
    """One call's task and its limits, in monotonic seconds. Cut at most once."""

    task: asyncio.Task[object]
    ends_at: float
    clock: Callable[[], float]
    quiet_until: float = NEVER
    quiet_means: Cut = Cut.DEADLINE
    cut: Cut | None = None
    next_cut: Cut | None = None
    """What came while the task had not yet heard of `cut`."""
    drain_s: float = 0.0
    """How long the answer under way is read on for its usage once the client has gone; 0: not at all."""
    secret_id: int = 0
    """The secret that the caller presented; 0: not told yet."""
    team_id: int = 0
    """The caller's; 0: not told yet."""
    priority: Priority = "normal"
    gone: bool = False
    """The client has gone, and the answer is read on without it."""

    def expect(self, until: float, else_cut: Cut) -> None:
        """Something must happen until then; the next `expect` replaces this one."""
        self.quiet_until, self.quiet_means = until, else_cut

    def cut_off(self, why: Cut) -> None:
        """Cancel the call's task, once; the task finds the reason in `cut`."""
        if self.cut is None:
            self.cut = why
            self.task.cancel()
        elif self.next_cut is None:
            self.next_cut = why

    def hang_up(self) -> None:
        """The client went away: the call ends, at once or when its answer has been read."""
        if not self.drain_s:
            self.cut_off(Cut.HUNG_UP)
        elif not self.gone:
            self.gone = True
            self.ends_at = min(self.ends_at, self.clock() + self.drain_s)

    def resume(self) -> None:
        """The task has caught the end of one attempt and goes on to another."""
        self.task.uncancel()
        self.cut, self.quiet_until = None, NEVER
        if self.next_cut is not None:
            self.cut_off(self.next_cut)

    def recover(self) -> None:
        """The task has caught its cancellation and goes on to settle."""
        self.task.uncancel()
        self.expect_nothing()

    def expect_nothing(self) -> None:
        """No time is of importance any more."""
        self.ends_at = self.quiet_until = NEVER

    def overdue(self, now: float) -> Cut | None:
        if now >= self.ends_at:
            return Cut.DEADLINE
        return self.quiet_means if now >= self.quiet_until else None


@dataclass(slots=True)
class Lifelines:
    """Every open call of this process."""

    clock: Callable[[], float]
    lines: set[Lifeline] = field(default_factory=set)

    def open(self, task: asyncio.Task[object], began: float, timeout_s: float) -> Lifeline:
        """A fresh line whose only limit is the call's deadline."""
        line = Lifeline(task, began + timeout_s, self.clock)
        self.lines.add(line)
        return line

    def close(self, line: Lifeline) -> None:
        self.lines.discard(line)

    def check(self) -> None:
        """Cut every call whose time has come."""
        now = self.clock()
        for line in list(self.lines):
            if why := line.overdue(now):
                line.cut_off(why)

    def cut_all(self, why: Cut) -> None:
        for line in list(self.lines):
            line.cut_off(why)

    def secrets(self) -> set[int]:
        """Of the callers whose calls are open."""
        return {each.secret_id for each in self.lines if each.secret_id}

    def by_team(self) -> Counter[tuple[int, Priority]]:
        """How many calls are open, by team and priority, of callers that are known."""
        return Counter((each.team_id, each.priority) for each in self.lines if each.team_id)

    def cut_revoked(self, ended: set[int]) -> None:
        """End every open call that was let in with one of these secrets."""
        for line in list(self.lines):
            if line.secret_id in ended:
                line.cut_off(Cut.REVOKED)

    async def watch(self) -> None:
        """Check for ever; the lifespan cancels it."""
        while True:
            await asyncio.sleep(TICK_S)
            self.check()
