"""Counters in this process: the contract of all counters, and what only these do."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from math import inf

import pytest

from gateway.errors import Unavailable
from gateway.relay.counters import IDLE_WINDOW_S, KEPT_S, LOOK_UP_AGAIN_S, PRUNE_EVERY_S, LocalCounters, Share
from gateway.relay.holdings import OpenHold, Survey
from gateway.relay.limits import SHARE_RETRY_S, UNDER_WAY_RETRY_S, Admitted, Figures, QuotaAsk, Spent
from tests.gateway.relay.counters_contract import (
    LIVES_S,
    TEAM,
    Clock,
    CountersContract,
    Ledger,
    MakeCounters,
    admitted,
    asking,
    at_once,
    budget,
    counter,
    figures_of,
    refused,
    requests,
    tokens,
    used_of,
)


@asynccontextmanager
async def local(*, clock: Clock, ledger: Ledger) -> AsyncIterator[LocalCounters]:
    counters = LocalCounters(ledger.survey, clock=clock, wall_clock=clock.wall)
    try:
        yield counters
    finally:
        await counters.close()


class TestLocalCounters(CountersContract):
    @pytest.fixture
    def make(self) -> MakeCounters:
        return local


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
async def counters(clock: Clock, ledger: Ledger) -> AsyncIterator[LocalCounters]:
    async with local(clock=clock, ledger=ledger) as opened:
        yield opened


class SlowLedger(Ledger):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked, self.answers = asyncio.Event(), asyncio.Event()

    async def load(self, wanted: Sequence[QuotaAsk]) -> Mapping[str, int]:
        self.is_asked.set()
        self.asked += [each.counter for each in wanted]
        await self.answers.wait()
        return self.sums


async def test_a_place_may_be_free_soon_though_nobody_knows_when(counters: LocalCounters) -> None:
    place = at_once(1)
    await admitted(counters, asking(place))

    assert (await refused(counters, asking(place))).retry_after_s == UNDER_WAY_RETRY_S


# Without waiting


async def test_calls_are_decided_at_once_when_the_sums_are_known(counters: LocalCounters) -> None:
    quota = budget(100)
    assert counters.admit_now(asking(quota)) is None
    await admitted(counters, asking(quota))

    assert isinstance(counters.admit_now(asking(quota)), Admitted)


async def test_a_limit_that_is_reached_refuses_without_asking_the_ledger(
    counters: LocalCounters, ledger: Ledger
) -> None:
    limit, quota = requests(1), budget(100)
    await admitted(counters, asking(limit))

    assert (await refused(counters, asking(limit, quota))).bound == limit
    assert ledger.asked == []


# The ledger's sums


async def test_a_ledger_that_does_not_answer_is_not_waited_for_for_long(clock: Clock) -> None:
    ledger = SlowLedger()
    counters = LocalCounters(ledger.survey, clock=clock, wall_clock=clock.wall, patience_s=0.01)
    hard, soft = budget(100), budget(100, hard=False)
    ledger.sums = {counter(hard): 60, counter(soft): 100}

    with pytest.raises(Unavailable):
        await counters.admit(asking(hard))
    await admitted(counters, asking(soft))

    ledger.answers.set()  # late, and of use to those who come after
    assert (await refused(counters, asking(hard, amount=41))).used == 60
    assert (await refused(counters, asking(soft))).used == 100
    assert ledger.asked == [counter(hard), counter(soft)]
    await counters.close()


async def test_a_ledger_that_failed_is_asked_again_a_little_later(
    counters: LocalCounters, ledger: Ledger, clock: Clock
) -> None:
    quota = budget(100)
    ledger.away = True
    for _ in range(3):
        with pytest.raises(Unavailable):
            await counters.admit(asking(quota))
    assert len(ledger.asked) == 1

    ledger.away = False
    clock.advance(LOOK_UP_AGAIN_S)

    await admitted(counters, asking(quota))


async def test_calls_under_a_soft_quota_do_not_wait_for_a_ledger_that_failed(
    counters: LocalCounters, ledger: Ledger, clock: Clock
) -> None:
    quota = budget(100, hard=False)
    ledger.away = True
    await admitted(counters, asking(quota))
    clock.advance(LOOK_UP_AGAIN_S)

    assert isinstance(counters.admit_now(asking(quota)), Admitted)

    assert await figures_of(counters, quota) is None


async def test_what_was_let_through_uncounted_is_in_the_sum_that_comes_later(
    counters: LocalCounters, ledger: Ledger, clock: Clock
) -> None:
    quota = budget(100, hard=False)
    ledger.away = True
    settled = await admitted(counters, asking(quota, amount=10))
    await admitted(counters, asking(quota, amount=7))
    counters.settle(settled, Spent(cost_nanos=12))
    ledger.away, ledger.sums = False, {counter(quota): 40 + 12}
    clock.advance(LOOK_UP_AGAIN_S)

    await admitted(counters, asking(quota, amount=1))
    await admitted(counters, asking(budget(100), amount=1))  # waits its turn behind the look-up just begun

    assert await figures_of(counters, quota) == Figures(spent=52, held=8)


async def test_what_ends_while_the_ledger_adds_up_is_not_lost(clock: Clock) -> None:
    ledger = SlowLedger()
    counters = LocalCounters(ledger.survey, clock=clock, wall_clock=clock.wall, patience_s=0.01)
    quota = budget(100, hard=False)
    call_id = await admitted(counters, asking(quota, amount=10))
    ledger.sums = {counter(quota): 40}

    counters.settle(call_id, Spent(cost_nanos=12))
    ledger.answers.set()

    await admitted(counters, asking(quota, amount=1))
    assert await figures_of(counters, quota) == Figures(spent=52, held=1)
    await counters.close()


async def test_a_sum_that_is_being_read_is_not_corrected(clock: Clock) -> None:
    ledger = SlowLedger()
    counters = LocalCounters(ledger.survey, clock=clock, wall_clock=clock.wall)
    quota = budget(100)
    ledger.sums = {counter(quota): 40}
    waiting = asyncio.create_task(counters.admit(asking(quota)))
    await ledger.is_asked.wait()

    await counters.correct(counter(quota), 5)
    ledger.answers.set()

    await waiting
    assert await figures_of(counters, quota) == Figures(spent=40, held=1)
    await counters.close()


async def test_a_caller_that_goes_away_does_not_stop_the_look_up_of_others(clock: Clock) -> None:
    ledger = SlowLedger()
    counters = LocalCounters(ledger.survey, clock=clock, wall_clock=clock.wall)
    quota = budget(100)
    leaving = asyncio.create_task(counters.admit(asking(quota)))
    staying = asyncio.create_task(counters.admit(asking(quota)))
    await asyncio.sleep(0)

    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    ledger.answers.set()

    assert isinstance(await staying, Admitted)
    assert await figures_of(counters, quota) == Figures(held=1)
    await counters.close()


async def test_closing_ends_the_look_ups(clock: Clock) -> None:
    ledger = SlowLedger()
    counters = LocalCounters(ledger.survey, clock=clock, wall_clock=clock.wall)
    waiting = asyncio.create_task(counters.admit(asking(budget(100))))
    await ledger.is_asked.wait()

    await counters.close()

    with pytest.raises(Unavailable):
        await waiting


async def test_what_is_held_stays_held_when_a_counter_is_forgotten(
    counters: LocalCounters, ledger: Ledger
) -> None:
    quota = budget(100)
    call_id = await admitted(counters, asking(quota, amount=60))
    ledger.sums = {counter(quota): 30}

    await counters.forget(counter(quota))
    await admitted(counters, asking(quota, amount=10))

    assert await figures_of(counters, quota) == Figures(spent=30, held=70)
    counters.settle(call_id, Spent(cost_nanos=1))
    assert await figures_of(counters, quota) == Figures(spent=31, held=10)


# Expiry


async def test_a_call_that_asks_again_after_its_hold_expired_is_alive_after_all(
    counters: LocalCounters, clock: Clock
) -> None:
    quota, place = budget(100), at_once(1)
    call_id = await admitted(counters, asking(quota, place, amount=10))
    clock.advance(LIVES_S + 2)
    assert await figures_of(counters, quota) == Figures(expired=10)

    await admitted(counters, asking(quota, amount=5, call_id=call_id))

    assert await figures_of(counters, quota) == Figures(held=15)
    counters.settle(call_id, Spent(cost_nanos=3))
    assert await figures_of(counters, quota) == Figures(spent=3)
    assert await used_of(counters, place) == 0


async def test_holds_that_expire_and_come_alive_again_are_added_up(
    counters: LocalCounters, clock: Clock
) -> None:
    quota = budget(100)
    calls = [await admitted(counters, asking(quota, amount=amount)) for amount in (10, 20, 30)]
    clock.advance(LIVES_S + 2)
    assert await figures_of(counters, quota) == Figures(expired=60)

    for call_id in calls[:2]:
        await admitted(counters, asking(quota, amount=1, call_id=call_id))

    assert await figures_of(counters, quota) == Figures(held=32, expired=30)


async def test_what_stood_against_a_quota_is_told_with_what_expired(
    counters: LocalCounters, clock: Clock
) -> None:
    quota = budget(100)
    await admitted(counters, asking(quota, amount=60))
    clock.advance(LIVES_S + 2)

    answer = counters.admit_now(asking(quota, amount=5))

    assert isinstance(answer, Admitted)
    assert answer.quotas[0].used == 60


async def test_a_quota_in_which_the_call_just_fits_is_not_the_one_to_name(counters: LocalCounters) -> None:
    wide, narrow = budget(10), budget(5)
    await admitted(counters, asking(wide, narrow, amount=5))

    assert (await refused(counters, asking(wide, narrow, amount=5))).bound == narrow


# Memory


async def test_nothing_is_remembered_for_ever(counters: LocalCounters, clock: Clock) -> None:
    for _ in range(10):
        call_id = await admitted(counters, asking(requests(5), tokens(5), at_once(5), budget(100)))
        counters.settle(call_id, Spent())
    await admitted(counters, asking(budget(100)))  # and never settled
    assert repr(counters) == "<LocalCounters 30 rate limits, 11 quotas, 1 reservations>"

    clock.advance(IDLE_WINDOW_S + PRUNE_EVERY_S)
    await counters.figures([])
    assert repr(counters) == "<LocalCounters 0 rate limits, 11 quotas, 1 reservations>"

    clock.advance(KEPT_S)  # the hold has expired, and its late end may still come
    await counters.figures([])
    assert repr(counters) == "<LocalCounters 0 rate limits, 1 quotas, 0 reservations>"

    clock.advance(KEPT_S + PRUNE_EVERY_S)
    await counters.figures([])
    assert repr(counters) == "<LocalCounters 0 rate limits, 0 quotas, 0 reservations>"


async def test_a_place_of_a_long_call_is_not_forgotten(counters: LocalCounters, clock: Clock) -> None:
    limit = at_once(1)
    await admitted(counters, asking(limit, lives_s=10_000.0))

    clock.advance(5 * PRUNE_EVERY_S)

    assert (await refused(counters, asking(limit))).used == 1


async def test_a_hold_older_than_any_counter_may_be_is_not_forgotten(
    counters: LocalCounters, clock: Clock
) -> None:
    quota = budget(100)
    await admitted(counters, asking(quota, amount=60, lives_s=2.0 * KEPT_S))

    clock.advance(KEPT_S + 2 * PRUNE_EVERY_S)
    await counters.figures([])

    assert await figures_of(counters, quota) == Figures(held=60)


# A process's share


def sharing(clock: Clock, share: Share) -> LocalCounters:
    return LocalCounters(Ledger().survey, clock=clock, wall_clock=clock.wall, share=share)


async def test_the_shares_of_all_processes_are_the_limit(clock: Clock) -> None:
    limit = requests(10)
    let_in = []
    for rank in range(4):
        counters = sharing(clock, lambda rank=rank: (rank, 4))
        answers = [counters.admit_now(asking(limit)) for _ in range(10)]
        let_in.append(sum(isinstance(each, Admitted) for each in answers))

    assert let_in == [3, 3, 2, 2]


async def test_a_share_changes_with_the_processes_and_keeps_what_was_used(clock: Clock) -> None:
    live = 2
    counters = sharing(clock, lambda: (0, live))
    limit = requests(4)
    await admitted(counters, asking(limit))
    answer = await counters.admit(asking(limit))
    assert isinstance(answer, Admitted)
    assert answer.standings[0].remaining == 0
    await refused(counters, asking(limit))

    live = 1

    await admitted(counters, asking(limit))


async def test_what_fits_the_limit_and_not_the_share_may_come_back(clock: Clock) -> None:
    counters = sharing(clock, lambda: (3, 4))
    few, places, many = tokens(100), at_once(3, TEAM), requests(100)

    assert (await refused(counters, asking(few, amount=26))).retry_after_s == SHARE_RETRY_S
    assert (await refused(counters, asking(few, amount=100))).retry_after_s == SHARE_RETRY_S
    assert (await refused(counters, asking(few, amount=101))).retry_after_s == inf
    assert (await refused(counters, asking(places))).retry_after_s == SHARE_RETRY_S
    await admitted(counters, asking(many))


# A clock that jumps


async def test_a_wall_clock_that_jumps_lets_nobody_in(counters: LocalCounters, clock: Clock) -> None:
    limit, quota = requests(1), budget(100)
    await admitted(counters, asking(limit, quota))
    for jump_s in (3_600, 86_400, -3_600, -86_400):
        clock.wall_us += jump_s * 1_000_000

        assert (await refused(counters, asking(limit))).bound == limit
        assert await figures_of(counters, quota) == Figures(held=1)


async def test_calls_under_way_count_against_a_quota_that_is_made_meanwhile(clock: Clock) -> None:
    """They hold what the survey says of them, and their ends are counted once."""
    early, late = requests(10), budget(20)
    held: list[OpenHold] = []

    async def survey(wanted: Sequence[QuotaAsk] | None) -> Survey:
        return Survey({counter(late): 3}, held)

    counters = LocalCounters(survey, clock=clock, wall_clock=clock.wall)
    first = await admitted(counters, asking(early))
    held += [OpenHold(first, "p", counter(late), 4, 0), OpenHold("elsewhere", "q", counter(late), 9, 0)]
    await admitted(counters, asking(late))
    assert await figures_of(counters, late) == Figures(3, 5, 0)
    counters.settle(first, Spent(cost_nanos=2))
    assert await figures_of(counters, late) == Figures(5, 1, 0)
    await counters.close()


async def test_each_call_under_way_holds_its_own_of_a_quota_that_is_made_meanwhile(clock: Clock) -> None:
    late, held = budget(100), []

    async def survey(wanted: Sequence[QuotaAsk] | None) -> Survey:
        return Survey({counter(late): 0}, held)

    counters = LocalCounters(survey, clock=clock, wall_clock=clock.wall)
    for amount in (4, 7):
        call_id = await admitted(counters, asking(requests(10)))
        held.append(OpenHold(call_id, "p", counter(late), amount, 0))
    gone = await admitted(counters, asking(requests(10), lives_s=1))
    held.append(OpenHold(gone, "p", counter(late), 50, 0))
    clock.advance(3)

    await admitted(counters, asking(late))

    assert await figures_of(counters, late) == Figures(held=12)
    await counters.close()
