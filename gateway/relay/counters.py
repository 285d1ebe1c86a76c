"""Rate limits and quotas counted in this process, where it is the only one.

Everything is on the relay's own loop: nothing waits but for a quota's first sum from the ledger.
What applies to a call, and how much it asks for, is decided in `limits.py`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from math import inf
from sys import maxsize
from typing import Final

from accounts.caller import QuotaKind, RateLimit, RateLimitKind
from gateway.errors import Unavailable
from gateway.relay.holdings import OpenHold, Surveyor
from gateway.relay.limits import (
    SHARE_RETRY_S,
    UNDER_WAY_RETRY_S,
    Admitted,
    Ask,
    Exceeded,
    Figures,
    QuotaAsk,
    Spent,
    Standing,
    Stood,
    Window,
    give_back,
    quota_retry_after,
    rate_counter,
    share_of,
    worst_of,
)

log = logging.getLogger(__name__)

PRUNE_EVERY_S: Final = 60
IDLE_WINDOW_S: Final = 120
"""A window that nobody asked for so long is forgotten: it has been empty for half of that."""
KEPT_S: Final = 2 * 86_400
"""So long a quota counter that nobody needs is kept, and what an expired reservation held, for a late end.

A counter that is needed again is made from the ledger, so forgetting one loses nothing.
"""
PATIENCE_S: Final = 2.0
"""So long calls wait for a quota's sum: many times what the ledger takes, and short for a client."""
LOOK_UP_AGAIN_S: Final = 1.0
"""After a look-up that failed."""

Share = Callable[[], tuple[int, int]]
"""This process's rank among those that share the limits, from 0, and how many they are."""


class RateWindow(Window):
    """Requests or tokens of the last minute that count against one limit."""

    __slots__ = ("kind",)

    def __init__(self, kind: RateLimitKind, now_s: float) -> None:
        super().__init__()
        self.kind = kind
        self.advance(now_s)

    def idle(self, since: int) -> bool:
        """Nobody asked for it since that second."""
        return self.second < since


class Places:
    """Calls under way that count against one limit; looks like a window that never moves on."""

    __slots__ = ("second", "used")
    kind: Final = "concurrent"

    def __init__(self) -> None:
        self.second = maxsize
        self.used = 0

    def advance(self, now_s: float) -> None:
        """Nothing is forgotten with time."""

    def retry_after(self, asked: int, amount: int, now_s: float) -> float:
        """Nobody knows when a call ends. Infinite where so many never fit."""
        return inf if asked > amount else UNDER_WAY_RETRY_S

    def idle(self, since: int) -> bool:
        """No call under way counts against it."""
        return self.used == 0


RateCounter = RateWindow | Places


class QuotaCounter:
    """What stands against one quota in one period, in its unit."""

    __slots__ = ("expired", "failed_at", "held", "kind", "known", "looking_up", "spent", "touched")

    def __init__(self, kind: QuotaKind, second: int) -> None:
        self.kind = kind
        self.spent = self.held = self.expired = 0
        self.known = False
        """Whether `spent` has the ledger's sum in it."""
        self.looking_up: asyncio.Task[None] | None = None
        self.failed_at: float | None = None
        """When the last look-up failed."""
        self.touched = second

    def figures(self) -> Figures:
        return Figures(self.spent, self.held, self.expired)

    def used_by(self, spent: Spent) -> int:
        """How much of the quota's unit a call used."""
        if self.kind == "money":
            return spent.cost_nanos
        return spent.tokens if self.kind == "tokens" else 1


Taken = tuple[Window, int, int]
"""Where a call took something of a rate limit: the window, the second, the amount."""


class Reservation:
    """What one call holds, and where it was taken."""

    __slots__ = ("asked", "due", "expired", "places", "quotas", "requests", "tokens")

    def __init__(self) -> None:
        self.asked = 0
        """How often it was granted something."""
        self.due = 0
        """The second in which it expires, or, once it has, is forgotten."""
        self.expired = False
        self.requests: list[Taken] = []
        """In the order of the taking; so are the tokens."""
        self.tokens: list[Taken] = []
        self.places: list[tuple[Places, int]] = []
        self.quotas: dict[QuotaCounter, int] = {}


class LocalCounters:
    """See `ports.Counters`.

    `clock` in seconds, never going back; rate limits and the lives of reservations go by it alone.
    `wall_clock` in Unix seconds only tells how long a quota's period still lasts.
    With `share`, a rate limit's amount is this process's part of it.
    """

    def __init__(
        self,
        survey: Surveyor,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        share: Share | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._survey, self._clock, self._wall_clock = survey, clock, wall_clock
        self._share, self._patience_s = share, patience_s
        self._second = self._pruned = int(clock())
        self._rates: dict[int, RateCounter] = {}
        """By the limit's id."""
        self._quotas: dict[str, QuotaCounter] = {}
        self._reservations: dict[str, Reservation] = {}
        self._due: dict[int, dict[str, Reservation]] = {}
        self._look_ups: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        rates, quotas, holds = len(self._rates), len(self._quotas), len(self._reservations)
        return f"<LocalCounters {rates} rate limits, {quotas} quotas, {holds} reservations>"

    # Of calls

    def admit_now(self, ask: Ask) -> Admitted | Exceeded | None:
        return self._decide(ask, waited=False)

    async def admit(self, ask: Ask) -> Admitted | Exceeded:
        answer = self._decide(ask, waited=False)
        if answer is None:
            await self._look_up(ask.quotas)
            answer = self._decide(ask, waited=True)
        assert answer is not None
        return answer

    def settle(self, call_id: str, spent: Spent) -> None:
        reservation = self._give_back(call_id)
        if reservation is None:
            return
        if reservation.asked == 1:
            for window, second, amount in reservation.tokens:
                window.correct(second, spent.tokens - amount)
        else:
            _corrections(reservation.tokens, spent.tokens)
        for quota in reservation.quotas:
            quota.spent += quota.used_by(spent)

    def release(self, call_id: str) -> None:
        reservation = self._give_back(call_id)
        if reservation is None:
            return
        for window, second, amount in (*reservation.requests, *reservation.tokens):
            window.correct(second, -amount)

    # Of pages, and of the comparison with the ledger

    async def figures(self, counters: Sequence[str]) -> Mapping[str, Figures]:
        """By quota counter; those that do not exist, or whose sum is not known, are missing."""
        self._turn(int(self._clock()))
        known = ((name, self._quotas.get(name)) for name in counters)
        return {name: counter.figures() for name, counter in known if counter is not None and counter.known}

    async def used(self, limits: Sequence[RateLimit]) -> Mapping[str, int]:
        """By `rate_counter`: in the window, or under way."""
        second = int(self._clock())
        self._turn(second)
        found = {}
        for limit in limits:
            counter = self._rates.get(limit.id)
            if counter is None or counter.kind != limit.kind:
                found[rate_counter(limit)] = 0
            else:
                counter.advance(second)
                found[rate_counter(limit)] = counter.used
        return found

    async def correct(self, counter: str, by: int) -> None:
        """Add so much to what was spent; nothing if there is no such counter."""
        found = self._quotas.get(counter)
        if found is not None and found.known:
            found.spent += by

    async def forget(self, counter: str) -> None:
        """The next call that needs this quota counter gets its sum from the ledger. What is held stays so."""
        found = self._quotas.get(counter)
        if found is not None:
            found.known = False

    async def close(self) -> None:
        """Give up the look-ups that are under way."""
        looking_up = list(self._look_ups)
        for each in looking_up:
            each.cancel()
        await asyncio.gather(*looking_up, return_exceptions=True)

    # Admission

    def _decide(self, ask: Ask, *, waited: bool) -> Admitted | Exceeded | None:
        """None: a quota's sum is not known yet, and the ledger was not waited for."""
        now_s = self._clock()
        second = int(now_s)
        if second > self._second:
            self._turn(second)
        share = None if self._share is None else self._share()
        rates: list[RateCounter] = []
        quotas: list[QuotaCounter] = []
        fits = True
        for rate in ask.rates:
            limit = rate.limit
            counter = self._rates.get(limit.id)
            if counter is None or counter.kind != limit.kind:
                counter = self._new_rate_counter(limit)
            if counter.second < second:
                counter.advance(second)
            if counter.used + rate.amount > (
                limit.amount if share is None else share_of(limit.amount, *share)
            ):
                fits = False
            rates.append(counter)
        for each in ask.quotas:
            quota = self._quotas.get(each.counter) or self._new_quota_counter(each)
            if quota.known:
                if quota.spent + quota.held + quota.expired + each.amount > each.quota.amount:
                    fits = False
            elif fits and not self._may_pass_uncounted(each, quota, waited=waited):
                return None
            quotas.append(quota)
        if not fits:
            return self._refusal(ask, rates, quotas, share, now_s)
        return self._take(ask, rates, quotas, share, now_s)

    def _new_rate_counter(self, limit: RateLimit) -> RateCounter:
        kind = limit.kind
        counter = Places() if kind == "concurrent" else RateWindow(kind, self._second)
        self._rates[limit.id] = counter
        return counter

    def _new_quota_counter(self, ask: QuotaAsk) -> QuotaCounter:
        counter = self._quotas[ask.counter] = QuotaCounter(ask.quota.kind, self._second)
        return counter

    def _refusal(
        self,
        ask: Ask,
        rates: Sequence[RateCounter],
        quotas: Sequence[QuotaCounter],
        share: tuple[int, int] | None,
        now_s: float,
    ) -> Exceeded:
        """The limit or quota to name."""
        found = []
        for rate, window in zip(ask.rates, rates, strict=True):
            amount = rate.limit.amount if share is None else share_of(rate.limit.amount, *share)
            if window.used + rate.amount > amount:
                wait_s = window.retry_after(rate.amount, amount, now_s)
                if wait_s == inf and rate.amount <= rate.limit.amount:
                    wait_s = SHARE_RETRY_S
                found.append(Exceeded(rate.limit, rate.amount, window.used, 0, wait_s))
        now_us = int(self._wall_clock() * 1e6)
        for each, counter in zip(ask.quotas, quotas, strict=True):
            held = counter.held + counter.expired
            if counter.known and counter.spent + held + each.amount > each.quota.amount:
                wait_s = quota_retry_after(each, counter.spent, counter.expired, now_us)
                found.append(Exceeded(each.quota, each.amount, counter.spent, held, wait_s))
        return worst_of(found)

    def _take(
        self,
        ask: Ask,
        rates: Sequence[RateCounter],
        quotas: Sequence[QuotaCounter],
        share: tuple[int, int] | None,
        now_s: float,
    ) -> Admitted:
        """Take all that is asked for, and remember where."""
        reservation = self._reservation(ask, int(now_s + ask.lives_s) + 1)
        standings = []
        for rate, counter in zip(ask.rates, rates, strict=True):
            limit, amount = rate.limit, rate.amount
            if isinstance(counter, Places):
                counter.used += amount
                reservation.places.append((counter, amount))
            else:
                taken = reservation.tokens if counter.kind == "tokens" else reservation.requests
                taken.append((counter, counter.take(amount), amount))
            of = limit.amount if share is None else share_of(limit.amount, *share)
            standings.append(Standing(limit, of - counter.used, amount, counter.used - amount))
        held, stood = reservation.quotas, []
        for each, quota in zip(ask.quotas, quotas, strict=True):
            if quota.known:
                stood.append(Stood(each.quota, each.amount, quota.spent + quota.held + quota.expired))
            quota.held += each.amount
            quota.touched = self._second
            held[quota] = held[quota] + each.amount if quota in held else each.amount
        return Admitted(tuple(standings), tuple(stood))

    def _reservation(self, ask: Ask, due: int) -> Reservation:
        """The call's reservation, which from now on lives until then."""
        call_id = ask.call_id
        reservation = self._reservations.get(call_id)
        if reservation is None:
            reservation = self._reservations[call_id] = Reservation()
        else:
            del self._due[reservation.due][call_id]
            if reservation.expired:
                _revive(reservation)
        reservation.asked += 1
        self._expire_at(due, call_id, reservation)
        return reservation

    def _expire_at(self, second: int, call_id: str, reservation: Reservation) -> None:
        reservation.due = second
        due = self._due.get(second)
        if due is None:
            due = self._due[second] = {}
        due[call_id] = reservation

    # The ledger's sums

    def _may_pass_uncounted(self, ask: QuotaAsk, counter: QuotaCounter, *, waited: bool) -> bool:
        """Whether a call may go on though the quota's sum is not known. Raises Unavailable.

        False: it must wait for the look-up. A soft quota does not hold up calls once a look-up
        has failed; what they use is in the ledger when that answers again.
        """
        if ask.quota.hard:
            if waited:
                raise _cannot_count(ask)
            return False
        if counter.failed_at is not None and not waited:
            self._begin_look_up((ask,))
            return True
        return waited

    async def _look_up(self, asks: Sequence[QuotaAsk]) -> None:
        """Wait a while until the sums are known, or cannot be had."""
        self._begin_look_up(asks)
        counters = [self._quotas[each.counter] for each in asks if each.counter in self._quotas]
        looking_up = {each.looking_up for each in counters if each.looking_up is not None}
        if looking_up:
            await asyncio.wait(looking_up, timeout=self._patience_s)

    def _begin_look_up(self, asks: Sequence[QuotaAsk]) -> None:
        """Ask the ledger, for all that nobody is asking for already."""
        asks = [each for each in asks if self._wants_look_up(self._quotas.get(each.counter))]
        if not asks:
            return
        counters = [self._quotas.get(each.counter) or self._new_quota_counter(each) for each in asks]
        task = asyncio.get_running_loop().create_task(self._sum_up(asks, counters))
        self._look_ups.add(task)
        for each in counters:
            each.looking_up = task
        task.add_done_callback(lambda done: self._looked_up(done, counters))

    def _wants_look_up(self, counter: QuotaCounter | None) -> bool:
        if counter is None:
            return True
        if counter.known or counter.looking_up is not None:
            return False
        return counter.failed_at is None or self._clock() - counter.failed_at >= LOOK_UP_AGAIN_S

    async def _sum_up(self, asks: Sequence[QuotaAsk], counters: Sequence[QuotaCounter]) -> None:
        for counter in counters:
            counter.spent = 0  # whatever was settled until now is in the ledger's sum
        survey = await self._survey(asks)
        for each, counter in zip(asks, counters, strict=True):
            # What was settled in the meantime may be in the sum too. Counting it twice until
            # the next comparison with the ledger is safer than not at all.
            counter.spent += survey.spent.get(each.counter, 0)
            counter.known, counter.failed_at = True, None
        for hold in survey.open:
            self._enrol(hold)

    def _enrol(self, hold: OpenHold) -> None:
        """A call that was let in before this quota was made counts against it from now on."""
        reservation, quota = self._reservations.get(hold.call_id), self._quotas.get(hold.counter)
        if reservation is None or quota is None or reservation.expired or quota in reservation.quotas:
            return
        quota.held += hold.amount
        reservation.quotas[quota] = hold.amount

    def _looked_up(self, task: asyncio.Task[None], counters: Sequence[QuotaCounter]) -> None:
        self._look_ups.discard(task)
        for each in counters:
            each.looking_up = None
        if task.cancelled():
            return
        failure = task.exception()
        if failure is not None:
            log.warning("The sums of quotas cannot be read from the ledger: %r", failure)
            for each in counters:
                each.failed_at = self._clock()

    # Endings, and what time does

    def _give_back(self, call_id: str) -> Reservation | None:
        """Take a call's reservation away: its places are free, its quotas no longer held."""
        reservation = self._reservations.pop(call_id, None)
        if reservation is None:
            return None
        del self._due[reservation.due][call_id]
        if not reservation.expired:
            for places, amount in reservation.places:
                places.used -= amount
        for quota, amount in reservation.quotas.items():
            if reservation.expired:
                quota.expired -= amount
            else:
                quota.held -= amount
        return reservation

    def _turn(self, second: int) -> None:
        """A second has begun: holds expire, and now and then what nobody needs is forgotten."""
        self._second = second
        for due in sorted(each for each in self._due if each <= second):
            for call_id, reservation in self._due.pop(due).items():
                if reservation.expired:
                    del self._reservations[call_id]
                else:
                    self._expire(call_id, reservation)
        if second - self._pruned >= PRUNE_EVERY_S:
            self._pruned = second
            self._prune()

    def _expire(self, call_id: str, reservation: Reservation) -> None:
        """Nobody settled it in time: what it holds counts as spent, and its places are free."""
        reservation.expired = True
        for places, amount in reservation.places:
            places.used -= amount
        for quota, amount in reservation.quotas.items():
            quota.held -= amount
            quota.expired += amount
            quota.touched = self._second
        self._expire_at(self._second + KEPT_S, call_id, reservation)

    def _prune(self) -> None:
        """Forget counters that nobody needs, so that memory is bounded."""
        idle = self._second - IDLE_WINDOW_S
        self._rates = {number: each for number, each in self._rates.items() if not each.idle(idle)}
        long_ago = self._second - KEPT_S
        self._quotas = {
            name: each
            for name, each in self._quotas.items()
            if each.touched >= long_ago or each.held or each.looking_up is not None
        }


def _revive(reservation: Reservation) -> None:
    """A call that holds more is alive after all. Its places stay free: they were given away."""
    reservation.expired = False
    reservation.places.clear()
    for quota, amount in reservation.quotas.items():
        quota.expired -= amount
        quota.held += amount


def _cannot_count(ask: QuotaAsk) -> Unavailable:
    refusal = Unavailable(
        f"{ask.quota.owner.leading} has a hard quota, and what was spent of it cannot be read "
        "at the moment, so no call is let in. Try again shortly."
    )
    refusal.retry_after_s = LOOK_UP_AGAIN_S
    return refusal


def _corrections(taken: Sequence[Taken], used: int) -> None:
    """Correct every window where a call took tokens more than once."""
    for window in {each for each, _, _ in taken}:
        here = [(second, amount) for each, second, amount in taken if each is window]
        for second, by in give_back(here, used):
            window.correct(second, by)
