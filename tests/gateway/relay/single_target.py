"""Calls to one target on a clock of its own: what retry, budget and breaker make of them together.

The parts are the real ones; only time, the provider and the loop around the attempts are made up here.
A run depends on its seed alone.
"""

import heapq
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

from gateway.relay.breaker import Breaker, Verdict
from gateway.relay.retry import Again, Failed, RetryBudget, RetryDecision, next_step

Waits = Iterator[float]
"""Something that happens in steps, with seconds between them."""


def always_down(now: float, dice: random.Random) -> bool:
    return False


def works_four_times_in_five(now: float, dice: random.Random) -> bool:
    return dice.random() >= 0.2


@dataclass
class SingleTarget:
    """What came, what was sent, and what became of it."""

    works: Callable[[float, random.Random], bool]
    """Is an attempt answered that is sent at this moment?"""
    latency_s: float = 0.1
    seed: int = 1
    deadline_s: float = 600.0
    failures_are: Verdict = "failure"
    asks_again: bool = True
    """The budget is asked a second time, after the wait."""
    breaker: Breaker = field(default_factory=lambda: Breaker("simulated/model"))
    budget: RetryBudget = field(default_factory=RetryBudget)
    now: float = 1_000.0
    answered: int = 0
    refused: int = 0
    came_at: list[float] = field(default_factory=list)
    sent_at: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.due: list[tuple[float, int, Waits]] = []
        self.order = count()

    @property
    def calls(self) -> int:
        return len(self.came_at)

    @property
    def attempts(self) -> int:
        return len(self.sent_at)

    def receive(self, calls: int, per_s: float) -> "SingleTarget":
        """Let this many calls come, at random moments, and see them all to their ends."""
        self._at(self.now, self._arrivals(calls, per_s))
        while self.due:
            self.now, _, steps = heapq.heappop(self.due)
            if (wait_s := next(steps, None)) is not None:
                self._at(self.now + wait_s, steps)
        return self

    def _at(self, moment: float, steps: Waits) -> None:
        heapq.heappush(self.due, (moment, next(self.order), steps))

    def _arrivals(self, calls: int, per_s: float) -> Waits:
        for _ in range(calls):
            yield self.dice.expovariate(per_s)
            self.came_at.append(self.now)
            self._at(self.now, self._call())

    def _call(self) -> Waits:
        deadline = self.now + self.deadline_s
        self.budget.called(self.now)
        for attempt_no in count(1):
            permit = self.breaker.enter(self.now)
            if permit is None:
                self.refused += 1
                return
            if attempt_no > 1:
                self.budget.retried(self.now)
            self.sent_at.append(self.now)
            works = self.works(self.now, self.dice)
            yield self.latency_s
            self.breaker.ended(permit, "success" if works else self.failures_are, self.now, "status 503")
            if works:
                self.answered += 1
                return
            step = self._next_step(attempt_no, deadline - self.now)
            if not isinstance(step, Again):
                return
            yield step.wait_s
            if self.asks_again and not self.budget.allows(self.now):
                return

    def _next_step(self, attempt_no: int, time_left_s: float) -> RetryDecision:
        return next_step(
            Failed(again=self.breaker.permits(self.now), elsewhere=False),
            attempt_no,
            time_left_s,
            asked_so_far_s=0.0,
            other_ready=False,
            budget_allows=self.budget.allows(self.now),
            jitter=self.dice.random(),
        )
