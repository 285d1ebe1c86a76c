"""What this process knows of each target at this moment: its breaker, its gate, its retries.

Made when a target is first called, kept while it is in the catalog, and told of its changed settings.
"""

import logging
import time
from collections.abc import Callable, Iterator

from msgspec import Struct

from accounts.caller import Priority
from gateway.relay.breaker import POLICY as BREAKER_POLICY
from gateway.relay.breaker import Breaker, BreakerPolicy, Shift
from gateway.relay.catalog import Catalog, Target
from gateway.relay.gate import Gate, GateFigures
from gateway.relay.limits import share_of
from gateway.relay.ports import BreakerState, Change, News, PoolFigures, Transport
from gateway.relay.retry import RetryBudget

log = logging.getLogger(__name__)


def places_of(amount: int, rank: int, live: int) -> int:
    """This process's part of the places that `live` processes divide: its share, and at least one.

    Where there are more processes than places, each has one, and they add up to more.
    """
    return max(1, share_of(amount, rank, live))


class LiveTarget(Struct, eq=False):
    """One target's breaker, gate and retry budget."""

    target: Target
    breaker: Breaker
    gate: Gate
    budget: RetryBudget
    retries: int = 0
    """Sent since the start."""
    credential_refused: bool = False


class TargetState(Struct, frozen=True):
    """One target as an operator sees it. Moments in microseconds since the epoch."""

    target_id: int
    route: str
    """The model name that it stands behind."""
    provider: str
    upstream_model: str
    breaker: BreakerState
    held: bool
    """The breaker is held open by hand."""
    ready_in_s: float
    """Until an attempt may be made; infinite where the breaker is held."""
    retries: int
    """Sent since the start."""
    gate: GateFigures
    pool: PoolFigures | None
    """None: not called yet."""
    breakers: tuple[BreakerState, ...] = ()
    """The state in each process, where there are several."""


class Targets:
    """Every target of this process. Lives on the relay's loop."""

    def __init__(
        self, news: News, clock: Callable[[], float], policy: BreakerPolicy = BREAKER_POLICY
    ) -> None:
        self._news, self._clock, self._policy = news, clock, policy
        self._live: dict[int, LiveTarget] = {}
        self._rank, self._processes = 0, 1
        self._told: dict[int, Change] = {}
        """What breakers did in other processes, by target id, of targets not called here yet."""

    def divide(self, rank: int, live: int) -> None:
        """The places of every gate are shared by `live` processes, of which this is number `rank`, from 0.

        Nobody who is in is cut off: a gate with fewer places gives the next ones out again later.
        """
        self._rank, self._processes = rank, live
        for each in self._live.values():
            self._resize(each)

    def told(self, target_id: int, change: Change) -> None:
        """What a target's breaker did by itself in another process. Is no news: that process tells it."""
        live = self._live.get(target_id)
        if live is None:
            self._told[target_id] = change
        else:
            self._heed(live, change)

    def _heed(self, live: LiveTarget, change: Change) -> None:
        until_us = change.until_us
        open_for_s = None if until_us is None else until_us / 1_000_000 - time.time()
        if open_for_s is not None and open_for_s <= 0:
            return
        theirs = Shift(change.before, change.after, change.cause, open_for_s)
        if shift := live.breaker.told(theirs, self._clock()):
            log.info("the breaker of %s is %s: %s", live.target, shift.after, shift.cause)

    def _resize(self, live: LiveTarget) -> None:
        places = places_of(live.target.max_concurrency, self._rank, self._processes)
        live.gate.resize(places, live.target.max_waiting)

    def of(self, target: Target) -> LiveTarget:
        """The live side of a target, with its newest settings: a call of before a change brings none back."""
        live = self._live.get(target.id)
        if live is None:
            live = self._live[target.id] = self._made(target)
        elif live.target is not target and target.read_no >= live.target.read_no:
            self._renew(live, target)
        return live

    def _made(self, target: Target) -> LiveTarget:
        live = LiveTarget(
            target,
            Breaker(str(target), self._policy),
            Gate(
                places_of(target.max_concurrency, self._rank, self._processes),
                target.max_waiting,
                self._clock,
            ),
            RetryBudget(),
            credential_refused=target.credential_refused,
        )
        if target.lever == "open":
            live.breaker.hold_open(self._clock(), "held open by hand")
        if (change := self._told.pop(target.id, None)) is not None:
            self._heed(live, change)
        return live

    def _renew(self, live: LiveTarget, target: Target) -> None:
        """What a person changed. The breaker's timeline has it already, from the hand that did it."""
        before, live.target = live.target, target
        now = self._clock()
        self._resize(live)
        # The catalog may have been read before the flag was written; a new credential is a new chance.
        is_same = target.credential == before.credential
        live.credential_refused = target.credential_refused or (live.credential_refused and is_same)
        if target.lever != before.lever:
            if target.lever == "open":
                live.breaker.hold_open(now, "held open by hand")
            else:
                live.breaker.let_go(now, "let go by hand")
        if target.closed_at_us > before.closed_at_us:
            live.breaker.close(now, "closed by hand")

    def shifted(self, live: LiveTarget, shift: Shift) -> None:
        """Tell of a breaker's change of state."""
        at_us = time.time_ns() // 1000
        until = None if shift.open_for_s is None else at_us + int(shift.open_for_s * 1_000_000)
        self._news.breaker_changed(live.target, Change(at_us, shift.before, shift.after, shift.cause, until))

    def credential_refused(self, live: LiveTarget, status: int) -> None:
        """The provider does not take our credential; told once."""
        if not live.credential_refused:
            live.credential_refused = True
            self._news.credential_refused(live.target, status)

    def credential_accepted(self, live: LiveTarget) -> None:
        """The provider takes it again after it had not."""
        live.credential_refused = False
        self._news.credential_accepted(live.target)

    def waiting(self) -> Iterator[tuple[tuple[int, Priority], int]]:
        """How many calls wait at all gates, by team and priority; a team is named once a gate."""
        return (each for live in self._live.values() for each in live.gate.waiting_by_team())

    def states(self, catalog: Catalog, transport: Transport) -> list[TargetState]:
        """Every target of the catalog, in the order of its id; what left the catalog is forgotten."""
        routes = catalog.routes.values()
        targets = {each.id: (each, route.model_name) for route in routes for each in route.targets}
        for gone in self._live.keys() - targets.keys():
            if not self._live[gone].gate.figures().in_use:
                del self._live[gone]
        pools = transport.figures()
        return [
            self._state(self.of(target), route, pools.get(each))
            for each, (target, route) in sorted(targets.items())
        ]

    def _state(self, live: LiveTarget, route: str, pool: PoolFigures | None) -> TargetState:
        target, breaker, now = live.target, live.breaker, self._clock()
        return TargetState(
            target.id,
            route,
            target.provider,
            target.upstream_model,
            breaker.state(now),
            target.lever == "open",
            breaker.ready_in_s(now),
            live.retries,
            live.gate.figures(),
            pool,
        )
