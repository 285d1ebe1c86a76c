"""What every kind of counters keeps to, in this process or in Redis.

A module of tests takes part with a class that inherits `CountersContract` and has one fixture, `make`:
a `MakeCounters`, which opens counters that go by the scripted clock and load sums from the scripted ledger.

What was settled or released before is seen by whatever is asked next.
A hold's expiry may be noticed up to a second late.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import Protocol

import pytest

from accounts.caller import Owner, Quota, RateLimit
from gateway.errors import Unavailable
from gateway.relay.holdings import Survey
from gateway.relay.limits import (
    Admitted,
    Ask,
    Exceeded,
    Figures,
    QuotaAsk,
    RateAsk,
    Spent,
    counter_of,
    rate_counter,
)
from gateway.relay.ports import Counters

KEY = Owner("key", 1, "ci")
TEAM = Owner("team", 2, "Search")
NOON_US = 1_795_435_200_000_000
"""2026-11-23 12:00 UTC."""
MIDNIGHT_US = NOON_US + 12 * 3_600_000_000
LIVES_S = 100.0
BEYOND_DOUBLES = 2**53 + 1
"""The least whole number that a double cannot hold."""


class Clock:
    """Seconds of a clock that never jumps, and the wall clock beside it, moved on by hand."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.wall_us = NOON_US

    def __call__(self) -> float:
        return self.now_s

    def wall(self) -> float:
        """Unix seconds."""
        return self.wall_us / 1e6

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        self.wall_us += round(seconds * 1e6)


@dataclass
class Ledger:
    """Sums by counter, as the books would tell them."""

    sums: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """The counters that were looked up, one after the other."""
    away: bool = False

    async def load(self, wanted: Sequence[QuotaAsk]) -> Mapping[str, int]:
        self.asked += [each.counter for each in wanted]
        await asyncio.sleep(0)
        if self.away:
            raise ConnectionError("the database is away")
        return {each.counter: self.sums.get(each.counter, 0) for each in wanted}

    async def survey(self, wanted: Sequence[QuotaAsk] | None) -> Survey:
        return Survey(await self.load(wanted or ()))


class CountersOfPages(Counters, Protocol):
    """Counters, and what pages and the comparison with the ledger ask of them."""

    async def figures(self, counters: Sequence[str], /) -> Mapping[str, Figures]:
        """By quota counter; those that do not exist are missing."""

    async def used(self, limits: Sequence[RateLimit], /) -> Mapping[str, int]:
        """By `rate_counter`: in the window, or under way."""

    async def correct(self, counter: str, by: int, /) -> None:
        """Add so much to what was spent; nothing if there is no such counter."""

    async def forget(self, counter: str, /) -> None:
        """The next call that needs this quota counter makes it anew from the ledger."""


class MakeCounters(Protocol):
    def __call__(self, *, clock: Clock, ledger: Ledger) -> AbstractAsyncContextManager[CountersOfPages]: ...


_numbers = count(1)


def requests(amount: int, owner: Owner = KEY, number: int | None = None) -> RateLimit:
    return RateLimit(number or next(_numbers), owner, "requests", amount)


def tokens(amount: int, owner: Owner = KEY) -> RateLimit:
    return RateLimit(next(_numbers), owner, "tokens", amount)


def at_once(amount: int, owner: Owner = KEY) -> RateLimit:
    return RateLimit(next(_numbers), owner, "concurrent", amount)


def budget(amount: int, owner: Owner = KEY, *, hard: bool = True) -> Quota:
    """Money, a day in UTC."""
    return Quota(next(_numbers), owner, "money", amount, "day", "UTC", hard)


def quota_ask(quota: Quota, amount: int = 1, started_at_us: int = NOON_US) -> QuotaAsk:
    counter, _, ends_at_us = counter_of(quota, started_at_us)
    return QuotaAsk(quota, counter, amount, ends_at_us)


def counter(quota: Quota) -> str:
    return quota_ask(quota).counter


def asking(
    *bounds: RateLimit | Quota, amount: int = 1, call_id: str | None = None, lives_s: float = LIVES_S
) -> Ask:
    """One call that asks the same amount of all of these; a request and a place are always one."""
    return Ask(
        call_id or f"call-{next(_numbers)}",
        lives_s,
        tuple(
            RateAsk(each, amount if each.kind == "tokens" else 1)
            for each in bounds
            if isinstance(each, RateLimit)
        ),
        tuple(
            quota_ask(each, 1 if each.kind == "requests" else amount)
            for each in bounds
            if isinstance(each, Quota)
        ),
    )


async def admitted(counters: Counters, ask: Ask) -> str:
    """Ask, be let in, and have the call's id. Asks at once first, as the relay does."""
    answer = counters.admit_now(ask) or await counters.admit(ask)
    assert isinstance(answer, Admitted), answer
    return ask.call_id


async def refused(counters: Counters, ask: Ask) -> Exceeded:
    answer = counters.admit_now(ask) or await counters.admit(ask)
    assert isinstance(answer, Exceeded), answer
    return answer


async def figures_of(counters: CountersOfPages, quota: Quota) -> Figures | None:
    return (await counters.figures([counter(quota)])).get(counter(quota))


async def used_of(counters: CountersOfPages, limit: RateLimit) -> int:
    return (await counters.used([limit]))[rate_counter(limit)]


class CountersContract:
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def ledger(self) -> Ledger:
        return Ledger()

    @pytest.fixture
    async def counters(
        self, make: MakeCounters, clock: Clock, ledger: Ledger
    ) -> AsyncIterator[CountersOfPages]:
        async with make(clock=clock, ledger=ledger) as opened:
            yield opened

    # Rate limits

    async def test_a_call_without_limits_is_let_in(self, counters: CountersOfPages) -> None:
        assert await counters.admit(asking()) == Admitted()

    async def test_calls_are_let_in_up_to_the_limit(self, counters: CountersOfPages) -> None:
        limit = requests(3)
        for _ in range(3):
            await admitted(counters, asking(limit))

        exceeded = await refused(counters, asking(limit))

        assert (exceeded.bound, exceeded.asked, exceeded.used, exceeded.held) == (limit, 1, 3, 0)
        assert 60.0 <= exceeded.retry_after_s <= 61.0

    async def test_a_place_returns_after_sixty_seconds_and_at_most_one_late(
        self, counters: CountersOfPages, clock: Clock
    ) -> None:
        limit = requests(1)
        clock.advance(0.7)
        await admitted(counters, asking(limit))

        clock.advance(59.9)
        exceeded = await refused(counters, asking(limit))
        assert exceeded.retry_after_s <= 1.1
        clock.advance(exceeded.retry_after_s)
        await admitted(counters, asking(limit))

    async def test_the_wait_is_until_so_many_tokens_are_free(
        self, counters: CountersOfPages, clock: Clock
    ) -> None:
        limit = tokens(100)
        for amount in (30, 30, 40):
            await admitted(counters, asking(limit, amount=amount))
            clock.advance(10.0)

        little = await refused(counters, asking(limit, amount=30))
        much = await refused(counters, asking(limit, amount=31))

        assert much.retry_after_s == pytest.approx(little.retry_after_s + 10.0)
        clock.advance(little.retry_after_s)
        await admitted(counters, asking(limit, amount=30))

    async def test_standings_tell_what_remains_in_the_order_of_the_asking(
        self, counters: CountersOfPages
    ) -> None:
        first, second, third = requests(10), tokens(100, TEAM), at_once(5, TEAM)
        await admitted(counters, asking(first, second, third, amount=30))

        answer = await counters.admit(asking(first, second, third, amount=30))

        assert isinstance(answer, Admitted)
        assert [(each.limit, each.remaining) for each in answer.standings] == [
            (first, 8),
            (second, 40),
            (third, 3),
        ]
        assert [(each.used, each.asked) for each in answer.standings] == [(1, 1), (30, 30), (1, 1)]

    async def test_quotas_tell_what_was_used_before(self, counters: CountersOfPages, ledger: Ledger) -> None:
        spent, large = budget(10**18), budget(10**18, TEAM)
        ledger.sums = {counter(spent): 5, counter(large): 2**53 + 1}
        await admitted(counters, asking(spent, large, amount=7))

        answer = await counters.admit(asking(spent, requests(9), large, amount=3))

        assert isinstance(answer, Admitted)
        assert [(each.quota, each.asked, each.used) for each in answer.quotas] == [
            (spent, 3, 12),
            (large, 3, 2**53 + 8),
        ]

    async def test_all_is_taken_or_nothing(self, counters: CountersOfPages) -> None:
        wide, quota, narrow = requests(10), budget(100), requests(1, TEAM)
        await admitted(counters, asking(narrow))

        exceeded = await refused(counters, asking(wide, quota, narrow))

        assert exceeded.bound == narrow
        assert await used_of(counters, wide) == 0
        assert await figures_of(counters, quota) in (None, Figures())

    async def test_the_tighter_of_key_and_team_wins(self, counters: CountersOfPages) -> None:
        of_key, of_team = requests(2, KEY), requests(3, TEAM)
        await admitted(counters, asking(of_team))
        await admitted(counters, asking(of_key, of_team))
        await admitted(counters, asking(of_team))

        assert (await refused(counters, asking(of_key, of_team))).bound == of_team

    async def test_of_several_limits_the_one_with_the_longest_wait_is_named(
        self, counters: CountersOfPages, clock: Clock
    ) -> None:
        early, late = requests(1, KEY), requests(1, TEAM)
        await admitted(counters, asking(early))
        clock.advance(30.0)
        await admitted(counters, asking(late))

        assert (await refused(counters, asking(early, late))).bound == late
        assert (await refused(counters, asking(late, early))).bound == late

    async def test_more_than_the_whole_limit_can_never_be_let_in(self, counters: CountersOfPages) -> None:
        limit, quota = tokens(100), budget(100)

        assert (await refused(counters, asking(limit, amount=101))).retry_after_s == inf
        assert (await refused(counters, asking(quota, amount=101))).retry_after_s == inf

    async def test_tokens_are_corrected_when_the_call_ends(self, counters: CountersOfPages) -> None:
        limit = tokens(100)
        less, more = asking(limit, amount=50), asking(limit, amount=20)
        await admitted(counters, less)
        await admitted(counters, more)

        counters.settle(less.call_id, Spent(tokens=10))
        counters.settle(more.call_id, Spent(tokens=25))

        assert await used_of(counters, limit) == 35

    async def test_tokens_are_corrected_in_the_second_in_which_they_were_taken(
        self, counters: CountersOfPages, clock: Clock
    ) -> None:
        limit = tokens(100)
        call_id = await admitted(counters, asking(limit, amount=50))
        clock.advance(30.0)
        counters.settle(call_id, Spent(tokens=90))
        assert await used_of(counters, limit) == 90

        clock.advance(31.0)

        assert await used_of(counters, limit) == 0

    async def test_a_window_that_has_moved_on_is_not_corrected(
        self, counters: CountersOfPages, clock: Clock
    ) -> None:
        limit = tokens(100)
        call_id = await admitted(counters, asking(limit, amount=50))
        clock.advance(61.0)
        await admitted(counters, asking(limit, amount=7))

        counters.settle(call_id, Spent(tokens=1))

        assert await used_of(counters, limit) == 7

    async def test_a_request_stays_counted_when_its_call_ends(self, counters: CountersOfPages) -> None:
        limit = requests(5)
        counters.settle(await admitted(counters, asking(limit)), Spent())

        assert await used_of(counters, limit) == 1

    @pytest.mark.parametrize("ending", ["settled", "released"])
    async def test_a_place_among_the_calls_under_way_returns_when_one_ends(
        self, counters: CountersOfPages, clock: Clock, ending: str
    ) -> None:
        limit = at_once(1)
        call_id = await admitted(counters, asking(limit))
        clock.advance(90.0)
        exceeded = await refused(counters, asking(limit))
        assert (exceeded.bound, exceeded.used) == (limit, 1)
        assert 0.0 < exceeded.retry_after_s <= 60.0

        if ending == "settled":
            counters.settle(call_id, Spent())
        else:
            counters.release(call_id)

        await admitted(counters, asking(limit))

    async def test_a_call_that_is_released_was_never_counted(
        self, counters: CountersOfPages, clock: Clock
    ) -> None:
        limits = requests(5), tokens(100), at_once(5)
        quota = budget(100)
        call_id = await admitted(counters, asking(*limits, quota, amount=50))
        clock.advance(20.0)

        counters.release(call_id)

        assert [await used_of(counters, each) for each in limits] == [0, 0, 0]
        assert await figures_of(counters, quota) == Figures()

    async def test_a_changed_amount_keeps_what_was_used(self, counters: CountersOfPages) -> None:
        limit = requests(1)
        await admitted(counters, asking(limit))

        await admitted(counters, asking(requests(2, number=limit.id)))

        lowered = await refused(counters, asking(requests(1, number=limit.id)))
        assert lowered.used == 2

    async def test_a_limit_that_changes_its_kind_begins_anew(self, counters: CountersOfPages) -> None:
        limit = requests(1)
        await admitted(counters, asking(limit))

        await admitted(counters, asking(RateLimit(limit.id, KEY, "concurrent", 1)))

    async def test_calls_that_come_together_share_the_limit(self, counters: CountersOfPages) -> None:
        limit = requests(100)

        answers = await asyncio.gather(*(counters.admit(asking(limit)) for _ in range(300)))

        assert sum(isinstance(each, Admitted) for each in answers) == 100

    # Quotas

    async def test_a_call_holds_what_it_asks_and_then_has_spent_what_it_used(
        self, counters: CountersOfPages
    ) -> None:
        quota = budget(100)
        call_id = await admitted(counters, asking(quota, amount=30))
        assert await figures_of(counters, quota) == Figures(spent=0, held=30)

        counters.settle(call_id, Spent(tokens=1000, cost_nanos=12))

        assert await figures_of(counters, quota) == Figures(spent=12)

    async def test_each_kind_of_quota_counts_its_own_unit(self, counters: CountersOfPages) -> None:
        money = budget(100)
        of_tokens = Quota(next(_numbers), TEAM, "tokens", 100, "month", "UTC")
        of_requests = Quota(next(_numbers), TEAM, "requests", 100, "month", "Asia/Tokyo", True)
        call_id = await admitted(counters, asking(money, of_tokens, of_requests, amount=30))

        counters.settle(call_id, Spent(tokens=7, cost_nanos=12))

        assert [await figures_of(counters, each) for each in (money, of_tokens, of_requests)] == [
            Figures(spent=12),
            Figures(spent=7),
            Figures(spent=1),
        ]

    async def test_what_is_spent_and_what_is_held_both_count(
        self, counters: CountersOfPages, clock: Clock
    ) -> None:
        quota = budget(100)
        counters.settle(await admitted(counters, asking(quota, amount=40)), Spent(cost_nanos=40))
        await admitted(counters, asking(quota, amount=50))

        exceeded = await refused(counters, asking(quota, amount=11))

        assert (exceeded.bound, exceeded.asked, exceeded.used, exceeded.held) == (quota, 11, 40, 50)
        assert 0.0 < exceeded.retry_after_s <= 60.0  # calls under way may give some back
        await admitted(counters, asking(quota, amount=10))

    async def test_a_quota_that_is_spent_says_when_it_begins_anew(
        self, counters: CountersOfPages, clock: Clock
    ) -> None:
        quota = budget(100)
        counters.settle(await admitted(counters, asking(quota, amount=40)), Spent(cost_nanos=95))

        exceeded = await refused(counters, asking(quota, amount=6))

        assert exceeded.retry_after_s == pytest.approx((MIDNIGHT_US - clock.wall_us) / 1e6)

    async def test_a_new_period_has_its_own_counter(self, counters: CountersOfPages) -> None:
        quota = budget(100)
        await admitted(counters, asking(quota, amount=100))

        await admitted(counters, Ask("tomorrow's", LIVES_S, (), (quota_ask(quota, 100, MIDNIGHT_US),)))

        assert await figures_of(counters, quota) == Figures(held=100)

    async def test_calls_that_come_together_never_overshoot_a_hard_quota(
        self, counters: CountersOfPages
    ) -> None:
        quota = budget(100)

        answers = await asyncio.gather(*(counters.admit(asking(quota, amount=5)) for _ in range(100)))

        assert sum(isinstance(each, Admitted) for each in answers) == 20
        assert await figures_of(counters, quota) == Figures(held=100)

    async def test_more_may_be_held_for_a_call_that_holds_something_already(
        self, counters: CountersOfPages, clock: Clock
    ) -> None:
        quota, limit, place = budget(100), tokens(100), at_once(1)
        call_id = await admitted(counters, asking(quota, limit, place, amount=30))
        clock.advance(10.0)
        await admitted(counters, asking(quota, limit, amount=20, call_id=call_id))
        assert await figures_of(counters, quota) == Figures(held=50)
        assert await used_of(counters, limit) == 50

        counters.settle(call_id, Spent(tokens=40, cost_nanos=35))

        assert await figures_of(counters, quota) == Figures(spent=35)
        assert [await used_of(counters, each) for each in (limit, place)] == [40, 0]

    async def test_a_call_whose_further_ask_is_refused_keeps_what_it_holds(
        self, counters: CountersOfPages
    ) -> None:
        quota = budget(100)
        call_id = await admitted(counters, asking(quota, amount=80))

        await refused(counters, asking(quota, amount=21, call_id=call_id))

        assert await figures_of(counters, quota) == Figures(held=80)
        counters.settle(call_id, Spent(cost_nanos=3))
        assert await figures_of(counters, quota) == Figures(spent=3)

    async def test_a_call_that_asked_twice_is_one_request(self, counters: CountersOfPages) -> None:
        quota = Quota(next(_numbers), TEAM, "requests", 100, "month", "UTC")
        call_id = await admitted(counters, asking(quota))
        await admitted(counters, asking(quota, call_id=call_id))

        counters.settle(call_id, Spent())

        assert await figures_of(counters, quota) == Figures(spent=1)

    async def test_an_ending_counts_once(self, counters: CountersOfPages) -> None:
        quota, limits = budget(100), (tokens(100), requests(10), at_once(10))
        settled = await admitted(counters, asking(quota, *limits, amount=30))
        released = await admitted(counters, asking(quota, *limits, amount=30))

        for _ in range(2):
            counters.settle(settled, Spent(tokens=5, cost_nanos=10))
            counters.release(settled)
            counters.release(released)
            counters.settle(released, Spent(tokens=5, cost_nanos=10))
            assert await figures_of(counters, quota) == Figures(spent=10)

        assert [await used_of(counters, each) for each in limits] == [5, 1, 0]

    async def test_a_call_that_nobody_knows_changes_nothing(self, counters: CountersOfPages) -> None:
        quota = budget(100)
        await admitted(counters, asking(quota, amount=30))

        counters.settle("nobody's", Spent(tokens=5, cost_nanos=10))
        counters.release("nobody's")

        assert await figures_of(counters, quota) == Figures(held=30)

    async def test_a_changed_quota_keeps_what_was_spent(self, counters: CountersOfPages) -> None:
        quota = budget(100)
        await admitted(counters, asking(quota, amount=100))
        raised = Quota(quota.id, KEY, "money", 120, "day", "UTC", True)
        lowered = Quota(quota.id, KEY, "money", 50, "day", "UTC", True)

        await admitted(counters, asking(raised, amount=20))

        exceeded = await refused(counters, asking(lowered, amount=1))
        assert (exceeded.used, exceeded.held) == (0, 120)

    async def test_money_is_exact_beyond_what_doubles_hold(self, counters: CountersOfPages) -> None:
        amount = 100 * BEYOND_DOUBLES
        quota = budget(amount)
        for _ in range(2):
            call_id = await admitted(counters, asking(quota, amount=BEYOND_DOUBLES))
            counters.settle(call_id, Spent(cost_nanos=BEYOND_DOUBLES))
        assert await figures_of(counters, quota) == Figures(spent=2 * BEYOND_DOUBLES)
        free = amount - 2 * BEYOND_DOUBLES

        exceeded = await refused(counters, asking(quota, amount=free + 1))
        assert exceeded.asked == free + 1
        assert exceeded.used == 2 * BEYOND_DOUBLES
        await admitted(counters, asking(quota, amount=free))
        assert await figures_of(counters, quota) == Figures(2 * BEYOND_DOUBLES, free)

    # Expiry

    async def test_a_hold_that_nobody_settles_becomes_spend(
        self, counters: CountersOfPages, clock: Clock
    ) -> None:
        quota, place = budget(100), at_once(1)
        await admitted(counters, asking(quota, place, amount=60))

        clock.advance(LIVES_S - 1)
        assert await figures_of(counters, quota) == Figures(held=60)
        clock.advance(2.0)

        exceeded = await refused(counters, asking(quota, amount=41))
        assert (exceeded.used, exceeded.held) == (0, 60)
        assert await figures_of(counters, quota) == Figures(expired=60)
        assert await used_of(counters, place) == 0

    async def test_a_place_whose_call_never_ended_returns_when_its_hold_expires(
        self, counters: CountersOfPages, clock: Clock
    ) -> None:
        place = at_once(1)
        lost = await admitted(counters, asking(place))
        clock.advance(LIVES_S + 2)

        await admitted(counters, asking(place))

        counters.settle(lost, Spent())  # late, and the place is another call's by now
        assert await used_of(counters, place) == 1

    async def test_a_further_ask_lengthens_the_life_of_the_hold(
        self, counters: CountersOfPages, clock: Clock
    ) -> None:
        quota = budget(100)
        call_id = await admitted(counters, asking(quota, amount=10))
        clock.advance(LIVES_S - 1)
        await admitted(counters, asking(quota, amount=10, call_id=call_id))
        clock.advance(LIVES_S - 1)
        await admitted(counters, asking(quota, amount=1))

        assert await figures_of(counters, quota) == Figures(held=21)

    async def test_a_late_settlement_corrects_what_had_expired(
        self, counters: CountersOfPages, clock: Clock
    ) -> None:
        quota = budget(100)
        call_id = await admitted(counters, asking(quota, amount=60))
        clock.advance(LIVES_S + 2)
        await admitted(counters, asking(quota, amount=1))

        counters.settle(call_id, Spent(cost_nanos=25))
        counters.settle(call_id, Spent(cost_nanos=25))

        assert await figures_of(counters, quota) == Figures(spent=25, held=1)

    async def test_a_late_release_corrects_what_had_expired(
        self, counters: CountersOfPages, clock: Clock
    ) -> None:
        quota = budget(100)
        call_id = await admitted(counters, asking(quota, amount=60))
        clock.advance(LIVES_S + 2)
        await admitted(counters, asking(quota, amount=1))

        counters.release(call_id)

        assert await figures_of(counters, quota) == Figures(held=1)

    # The ledger

    async def test_a_counter_begins_with_what_the_ledger_says(
        self, counters: CountersOfPages, ledger: Ledger
    ) -> None:
        quota, other = budget(100), budget(100, TEAM)
        ledger.sums = {counter(quota): 90, counter(other): 5}

        exceeded = await refused(counters, asking(quota, other, amount=11))

        assert (exceeded.bound, exceeded.used) == (quota, 90)
        await admitted(counters, asking(quota, other, amount=10))
        assert await figures_of(counters, quota) == Figures(spent=90, held=10)
        assert await figures_of(counters, other) == Figures(spent=5, held=10)

    async def test_calls_that_need_the_same_counter_share_one_look_up(
        self, counters: CountersOfPages, ledger: Ledger
    ) -> None:
        quota, other = budget(100), budget(100, TEAM)
        ledger.sums = {counter(quota): 90}

        answers = await asyncio.gather(
            *(counters.admit(asking(quota, *([other] if at % 2 else []))) for at in range(30))
        )

        assert sum(isinstance(each, Admitted) for each in answers) == 10
        assert sorted(ledger.asked) == sorted([counter(quota), counter(other)])

    async def test_a_hard_quota_that_cannot_be_counted_refuses_with_a_time_to_come_back(
        self, counters: CountersOfPages, ledger: Ledger
    ) -> None:
        quota, limit = budget(100), requests(5)
        ledger.away = True

        with pytest.raises(Unavailable) as refusal:
            await counters.admit(asking(quota, limit))

        assert refusal.value.retry_after_s is not None
        assert await used_of(counters, limit) == 0

    async def test_a_soft_quota_that_cannot_be_counted_lets_calls_through(
        self, counters: CountersOfPages, ledger: Ledger
    ) -> None:
        quota, limit = budget(100, hard=False), requests(1)
        ledger.away = True

        await admitted(counters, asking(quota, limit, amount=60))

        assert (await refused(counters, asking(quota, limit))).bound == limit

    async def test_what_was_spent_is_corrected(self, counters: CountersOfPages) -> None:
        quota = budget(100)
        counters.settle(await admitted(counters, asking(quota, amount=60)), Spent(cost_nanos=50))

        await counters.correct(counter(quota), -20)
        assert await figures_of(counters, quota) == Figures(spent=30)
        await counters.correct(counter(quota), 5)
        assert await figures_of(counters, quota) == Figures(spent=35)

    async def test_a_counter_that_does_not_exist_is_not_corrected(self, counters: CountersOfPages) -> None:
        quota = budget(100)

        await counters.correct(counter(quota), -20)

        assert await figures_of(counters, quota) is None
        await admitted(counters, asking(quota, amount=100))
        await refused(counters, asking(quota))

    async def test_a_counter_that_is_forgotten_is_made_from_the_ledger_again(
        self, counters: CountersOfPages, ledger: Ledger
    ) -> None:
        quota = budget(100)
        await admitted(counters, asking(quota, amount=60))
        ledger.sums = {counter(quota): 70}

        await counters.forget(counter(quota))

        assert await figures_of(counters, quota) is None
        assert (await refused(counters, asking(quota, amount=31))).used == 70
