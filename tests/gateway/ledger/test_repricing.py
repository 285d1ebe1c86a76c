"""Prices that come late: what is corrected, and that in the end every attempt costs what it should."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from asgiref.sync import sync_to_async
from django.db import connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts.models import Quota
from gateway.ledger import repricing
from gateway.ledger.holdings import all_wanted, surveyor
from gateway.ledger.writer import book
from gateway.models import (
    Attempt,
    Correction,
    Entry,
    Price,
    Provider,
    Repricing,
    Stale,
    Target,
)
from gateway.reconcile import reconcile
from gateway.relay import pricing
from gateway.relay.bounds import worst_cost_nanos
from gateway.relay.counters import LocalCounters
from gateway.relay.limits import Ask, Figures, QuotaAsk
from gateway.relay.records import Settled, Usage
from tests.gateway.ledger.priced import NOW, T0, USED, Books, us

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def books() -> Books:
    return Books()


def work(now: datetime = NOW + timedelta(minutes=1), **options: int) -> int:
    return repricing.work(now, pause_s=0, **options)


def cost_of(call: Settled) -> int:
    entry = Entry.objects.get(pk=call.call_id)
    return repricing.effective_cost(entry, repricing.corrections_of([entry.pk]).get(entry.pk, []))


def is_unpriced(call: Settled) -> bool:
    entry = Entry.objects.get(pk=call.call_id)
    return repricing.is_unpriced(entry.attempts.all(), repricing.corrections_of([entry.pk]).get(entry.pk, []))


# What is corrected


def test_an_unpriced_call_costs_what_its_price_says_once_it_is_entered(books: Books) -> None:
    call = books.call(books.attempt(T0 + timedelta(minutes=5)))
    book([call])
    assert (cost_of(call), is_unpriced(call)) == (0, True)
    books.price()

    assert work() == 1

    # 900 x 2 + 100 x 1 + 200 x 8 per million
    assert (cost_of(call), is_unpriced(call)) == (3_500_000, False)


def test_the_old_figure_stays_visible(books: Books) -> None:
    books.price(T0 - timedelta(days=1), 1_000_000_000)
    call = books.call(books.attempt(T0 + timedelta(minutes=5)))
    book([call])
    price = books.price(T0)

    work()

    entry = Entry.objects.get()
    assert (entry.cost_nanos, entry.attempts.get().cost_nanos) == (1_750_000, 1_750_000)
    made = Correction.objects.get()
    assert (made.before_nanos, made.after_nanos, made.prices) == (1_750_000, 3_500_000, False)
    assert (made.team_id, made.started_at) == (books.team.pk, T0 + timedelta(minutes=5))
    how = pricing.read(made.price)
    assert how is not None
    assert (how.price_id, pricing.cost_of(USED, how)) == (price.pk, 3_500_000)


def test_what_costs_the_same_is_left_alone(books: Books) -> None:
    books.price(T0 - timedelta(days=1))
    book([books.call(books.attempt(T0 + timedelta(minutes=5)))])
    books.price(T0)

    assert work() == 0
    assert not Correction.objects.exists()


def test_a_free_target_is_priced_with_a_change_of_nothing(books: Books) -> None:
    call = books.call(books.attempt(T0 + timedelta(minutes=5)))
    book([call])
    books.price(T0, 0)

    assert work() == 1
    assert (cost_of(call), is_unpriced(call)) == (0, False)


def test_calls_outside_of_the_span_keep_their_cost(books: Books) -> None:
    books.price(T0 + timedelta(hours=2), 1_000_000_000, now=T0 - timedelta(hours=1))
    Repricing.objects.all().delete()
    early = books.call(books.attempt(T0 - timedelta(microseconds=1)))
    later = books.call(books.attempt(T0 + timedelta(hours=2)))
    book([early, later])
    books.price(T0)

    assert work() == 0
    assert (is_unpriced(early), cost_of(later)) == (True, 1_750_000)


def test_only_the_attempts_at_the_target_are_priced(books: Books) -> None:
    at = T0 + timedelta(minutes=5)
    other = books.list_of(books.other)
    call = books.call(books.attempt(at), books.attempt(at, known=other, no=2))
    book([call])
    books.price(T0)

    work()
    assert (cost_of(call), is_unpriced(call)) == (3_500_000, True)

    books.price(T0, 1_000_000_000, target=books.other)
    work()
    assert (cost_of(call), is_unpriced(call)) == (5_250_000, False)
    assert [each.attempt_no for each in Correction.objects.order_by("id")] == [1, 2]


def test_an_attempt_that_began_long_after_its_call_is_found(books: Books) -> None:
    call = books.call(books.attempt(T0 + timedelta(hours=1)), started_at=T0 - timedelta(hours=20))
    book([call])
    books.price(T0)

    assert work() == 1


def test_a_renamed_target_is_found(books: Books) -> None:
    book([books.call(books.attempt(T0 + timedelta(minutes=5)))])
    Provider.objects.update(slug="renamed")
    Target.objects.filter(pk=books.target.pk).update(upstream_model="another")
    books.price(T0)

    assert work() == 1


def test_an_abandoned_attempt_is_corrected_to_its_worst_case(books: Books) -> None:
    worst = Usage(1_000, 200, 0, "estimated")
    lost = msgspec.structs.replace(books.attempt(T0 + timedelta(minutes=5), worst), outcome="abandoned")
    call = books.call(lost)
    book([call])
    Price.objects.create(
        **{"target": books.target, "valid_from": T0, "input_nanos": 1_000_000, "output_nanos": 2_000_000},
        **{"cached_input_nanos": 0, "reasoning_nanos": 9_000_000},
    )
    repricing.note([books.target.pk], T0, NOW, "A late price.", now=NOW)

    work()

    price = books.list_of().price_at(us(NOW))
    assert cost_of(call) == worst_cost_nanos(worst, price) == 1_000 + 1_800
    how = pricing.read(Correction.objects.get().price)
    assert how is not None
    assert pricing.cost_of(worst, how) == 2_800


def test_the_rollups_are_told(books: Books) -> None:
    at = T0 + timedelta(minutes=5)
    book([books.call(books.attempt(at)), books.call(books.attempt(at + timedelta(seconds=3)))])
    Stale.objects.all().delete()
    books.price(T0)

    work()

    assert list(Stale.objects.values_list("size", "start", "team_id")) == [
        (1, us(at) // 60_000_000, books.team.pk)
    ]


def test_an_exchange_rate_that_comes_late_prices_what_had_none(books: Books) -> None:
    books.price(T0 - timedelta(days=3), currency="EUR")
    first = books.call(books.attempt(T0 - timedelta(days=1)))
    second = books.call(books.attempt(T0 + timedelta(minutes=5)))
    book([first, second])
    assert work() == 0  # no rate, no price

    books.rate((T0 - timedelta(days=1)).date(), 1_100_000_000)
    books.rate(T0.date(), 1_200_000_000)
    work()

    assert (cost_of(first), cost_of(second)) == (3_850_000, 4_200_000)
    assert not is_unpriced(first)


def test_a_price_that_cannot_be_used_yet_takes_no_figure_away(books: Books) -> None:
    books.price(T0)
    call = books.call(books.attempt(T0 + timedelta(minutes=5)))
    book([call])
    books.price(T0, currency="EUR")

    work()
    assert (cost_of(call), is_unpriced(call)) == (3_500_000, False)

    books.rate(T0.date(), 2_000_000_000)
    work()
    assert cost_of(call) == 7_000_000


# What is noted


def test_an_empty_span_is_nothing_to_do(books: Books) -> None:
    repricing.note([books.target.pk], T0, T0, "Nothing.", now=NOW)
    repricing.note([books.target.pk], NOW + timedelta(hours=1), NOW, "From then on.", now=NOW)

    assert not Repricing.objects.exists()


def test_each_target_is_noted_once(books: Books) -> None:
    repricing.note([books.other.pk, books.target.pk, books.target.pk], T0, NOW, "x" * 300, now=NOW)

    rows = Repricing.objects.order_by("id")
    assert [each.target_id for each in rows] == [books.target.pk, books.other.pk]
    assert rows[0].cause == "x" * 200


def test_what_lasts_until_now_waits_until_all_have_heard_of_the_price(books: Books) -> None:
    book([books.call(books.attempt(NOW + timedelta(seconds=2)))])  # by a process that has not
    books.price(T0)

    assert work(NOW + timedelta(seconds=5)) == 0
    assert not Repricing.objects.exclude(finished_at=None).exists()
    assert work(NOW + repricing.HEARD_WITHIN) == 1


def test_a_call_that_is_booked_late_is_corrected_then(books: Books) -> None:
    late = books.call(books.attempt(T0 + timedelta(minutes=5)))
    books.price(T0)
    work()

    book([late])

    assert Repricing.objects.latest("id").cause == repricing.LATE
    assert work() == 1
    assert cost_of(late) == 3_500_000


def test_calls_of_every_day_have_nothing_noted(books: Books) -> None:
    books.price(T0)
    work()

    book([books.call(books.attempt(NOW + timedelta(minutes=1)))])

    assert Repricing.objects.count() == 1


def test_what_nobody_began_to_work_on_is_not_noted_again(books: Books) -> None:
    late = books.call(books.attempt(T0 + timedelta(minutes=5)))
    books.price(T0)

    book([late])

    assert Repricing.objects.count() == 1
    assert work() == 1


def test_a_call_at_an_old_price_long_after_a_new_one_was_entered_is_corrected(books: Books) -> None:
    """A process that the database was away from does not hear of prices, and keeps none or the old one."""
    knows_none = books.list_of()
    books.price(T0, 2_000_000_000)
    knows_the_old = books.list_of()
    books.price(T0, 4_000_000_000)
    work()
    at = NOW + timedelta(minutes=5)
    calls = [books.call(books.attempt(at, known=each)) for each in (knows_none, knows_the_old)]

    book(calls)

    assert work(at + timedelta(minutes=1)) == 2
    assert [cost_of(each) for each in calls] == [7_000_000, 7_000_000]


def test_a_call_at_an_old_exchange_rate_is_corrected(books: Books) -> None:
    books.rate(T0.date(), 2 * 10**9)
    books.price(T0, currency="EUR")
    old = books.list_of()
    books.rate(T0.date(), 3 * 10**9)
    work()
    call = books.call(books.attempt(NOW + timedelta(minutes=5), known=old))

    book([call])

    assert work(NOW + timedelta(minutes=6)) == 1
    assert cost_of(call) == 10_500_000


def test_an_old_price_that_work_is_noted_for_is_not_noted_again(books: Books) -> None:
    old = books.list_of()
    books.price(T0)

    book([books.call(books.attempt(NOW + timedelta(seconds=5), known=old))])

    assert Repricing.objects.count() == 1


# How it is done


def test_the_work_is_done_in_chunks_and_goes_on_where_it_was(books: Books) -> None:
    calls = [books.call(books.attempt(T0 + timedelta(minutes=20 * each))) for each in range(5)]
    book(calls)
    books.price(T0)

    assert work(most=2) == 2
    row = Repricing.objects.get()
    assert (row.corrected, row.finished_at) == (2, None)
    assert T0 + timedelta(minutes=20) < row.place <= T0 + timedelta(minutes=40)

    assert work() == 3
    row.refresh_from_db()
    assert (row.corrected, row.finished_at) == (5, NOW + timedelta(minutes=1))
    assert {cost_of(each) for each in calls} == {3_500_000}


def test_a_chunk_of_many_calls_is_made_shorter(books: Books) -> None:
    at = T0 + timedelta(minutes=5)
    many = repricing.MOST_ENTRIES + 50
    book([books.call(books.attempt(at + timedelta(milliseconds=20 * each))) for each in range(many)])
    books.price(T0)

    first = repricing.work_on_next(NOW + timedelta(minutes=1), timedelta(hours=1))

    assert first is not None
    assert 0 < first.corrected <= repricing.MOST_ENTRIES
    assert first.corrected + work() == many


def test_calls_of_one_moment_are_one_chunk_however_many_they_are(books: Books) -> None:
    many = repricing.MOST_ENTRIES + 50
    book([books.call(books.attempt(T0 + timedelta(minutes=5))) for _ in range(many)])
    books.price(T0)

    assert work() == many
    assert Correction.objects.count() == many


def test_a_chunk_that_is_killed_is_done_again(books: Books) -> None:
    book([books.call(books.attempt(T0 + timedelta(minutes=20 * each))) for each in range(3)])
    books.price(T0)
    for _ in range(6):
        with transaction.atomic():  # as far as the last statement, and not its commit
            repricing.work_on_next(NOW + timedelta(minutes=1))
            transaction.set_rollback(True)
        assert Correction.objects.count() == Repricing.objects.get().corrected
        repricing.work_on_next(NOW + timedelta(minutes=1))

    assert Correction.objects.count() == 3
    assert Repricing.objects.get().finished_at


def test_a_finished_work_is_not_done_again(books: Books) -> None:
    book([books.call(books.attempt(T0 + timedelta(minutes=5)))])
    books.price(T0)
    work()

    assert work() == 0
    assert Correction.objects.count() == 1


def test_work_that_is_done_from_the_start_again_changes_nothing(books: Books) -> None:
    call = books.call(books.attempt(T0 + timedelta(minutes=5)))
    book([call])
    books.price(T0)
    work()
    Repricing.objects.update(place=None, finished_at=None)

    assert work() == 0
    assert cost_of(call) == 3_500_000


def test_two_at_a_time_correct_each_attempt_once(books: Books) -> None:
    calls = [books.call(books.attempt(T0 + timedelta(minutes=each))) for each in range(60)]
    book(calls)
    books.price(T0 - timedelta(days=1), 1_000_000_000)
    books.price(T0)
    failed: list[BaseException] = []

    def run() -> None:
        try:
            while repricing.work_on_next(NOW + timedelta(minutes=1)) is not None:
                pass
        except BaseException as why:
            failed.append(why)
            raise
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert failed == []
    assert {cost_of(each) for each in calls} == {3_500_000}
    assert Correction.objects.count() == 60
    assert sum(Repricing.objects.values_list("corrected", flat=True)) == 60


def test_a_removed_target_ends_the_work_and_says_so(books: Books, caplog: pytest.LogCaptureFixture) -> None:
    book([books.call(books.attempt(T0 + timedelta(minutes=5)))])
    books.price(T0)
    target_id = books.target.pk
    books.target.delete()

    assert work() == 0

    row = Repricing.objects.get()
    assert row.finished_at
    assert row.cause == "A late price. Stopped: the target was removed."
    assert f"the target {target_id} was removed" in caplog.text


def test_no_look_goes_through_the_whole_ledger(books: Books) -> None:
    book([books.call(books.attempt(T0 + timedelta(minutes=each))) for each in range(20)])
    books.price(T0)
    statements: list[tuple[str, object]] = []

    def keep(execute: Callable[..., object], sql: str, params: object, many: bool, context: object) -> object:
        statements.append((sql, params))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(keep):
        work()

    looks = [each for each in statements if each[0].startswith("SELECT") and "gateway_" in each[0]]
    assert any("gateway_attempt" in sql for sql, _ in looks)
    plans = [(sql, step) for sql, params in looks for step in plan(sql, params)]
    assert [each for each in plans if is_scan(each[1])] == []


def plan(sql: str, params: object) -> list[str]:
    """Its steps. PostgreSQL scans small tables by choice; here it may where there is no other way."""
    explain = "EXPLAIN" if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"{explain} {sql}", params)
        return [str(row[-1]).strip(" ->") for row in cursor.fetchall()]


def is_scan(step: str) -> bool:
    return step.startswith(("SCAN", "Seq Scan")) and ("gateway_entry" in step or "gateway_attempt" in step)


# Quotas


async def test_the_counter_of_a_quota_follows_the_corrections(books: Books, journals: Path) -> None:
    now_us = us(T0 + timedelta(hours=1))
    await sync_to_async(Quota.objects.create)(
        team=books.team, kind="money", amount=10**9, period="day", hard=True, warn_at=[]
    )
    survey = surveyor(journals, lives_s=660, now_us=lambda: now_us)
    counters = LocalCounters(survey, wall_clock=lambda: now_us / 1e6)
    await sync_to_async(lambda: book([books.call(books.attempt(T0))]))()
    [wanted] = await sync_to_async(all_wanted)(now_us)
    await counters.admit(Ask("a-call", 660, (), (QuotaAsk(wanted.quota, wanted.counter, 5, wanted.end_us),)))
    counters.release("a-call")
    assert (await counters.figures([wanted.counter]))[wanted.counter] == Figures(0, 0, 0)

    await sync_to_async(books.price)()
    assert await sync_to_async(work)() == 1
    await reconcile(counters, survey, now_us=lambda: now_us, pause=nothing_to_wait_for)

    assert (await counters.figures([wanted.counter]))[wanted.counter] == Figures(3_500_000, 0, 0)


async def nothing_to_wait_for() -> None:
    """No call ends meanwhile."""


# In any order


PRICES = st.tuples(
    st.just("price"), st.integers(-100_000, 60), st.integers(0, 3), st.sampled_from(("", "EUR"))
)
RATES = st.tuples(st.just("rate"), st.integers(-2, 0), st.integers(1, 3))
AGO = st.one_of(st.just(0), st.just(0), st.integers(0, 90_000))
CALLS = st.tuples(st.just("call"), AGO, st.integers(0, 9), st.integers(0, 3))
WORK = st.tuples(st.just("work"), st.integers(1, 4))
STEPS = st.lists(st.tuples(st.integers(0, 12), st.one_of(PRICES, RATES, CALLS, CALLS, WORK)), max_size=25)


@given(steps=STEPS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_in_the_end_every_attempt_costs_what_the_price_list_says(
    steps: list[tuple[int, tuple[str, int, int, object]]], transactional_db: None
) -> None:
    with transaction.atomic():
        story = Story()
        for seconds, step in steps:
            story.happens(seconds, *step)
        story.ends()
        assert story.wrong() == []
        transaction.set_rollback(True)


class Story:
    """Prices and calls as they come, on a clock of its own.

    A process that serves calls may know of a price up to nine seconds late, and book its calls later still.
    """

    def __init__(self) -> None:
        self.books, self.now = Books(), T0
        self.lists = [(T0 - timedelta(days=9), self.books.list_of())]
        self.waiting: list[tuple[int, Settled]] = []

    def happens(self, seconds: int, kind: str, *what: object) -> None:
        self.now += timedelta(seconds=seconds)
        getattr(self, kind)(*what)
        self.waiting = [(left - 1, call) for left, call in self.waiting]
        book([call for left, call in self.waiting if left < 0])
        self.waiting = [each for each in self.waiting if each[0] >= 0]

    def price(self, from_s: int, dollars: int, currency: str) -> None:
        valid_from = self.now + timedelta(seconds=from_s)
        self.books.price(valid_from, dollars * 10**9, now=self.now, currency=currency)
        self.lists.append((self.now, self.books.list_of()))

    def rate(self, days: int, dollars: int) -> None:
        self.books.rate((self.now + timedelta(days=days)).date(), dollars * 10**9, now=self.now)
        self.lists.append((self.now, self.books.list_of()))

    def call(self, ago_s: int, lag_s: int, booked_after: int) -> None:
        """One that began just now, or long ago, by the list of then."""
        at = self.now - timedelta(seconds=ago_s)
        known = [each for since, each in self.lists if since <= at - timedelta(seconds=lag_s)][-1]
        self.waiting.append((booked_after, self.books.call(self.books.attempt(at, known=known))))

    def work(self, most: int) -> None:
        repricing.work(self.now, most=most, pause_s=0)

    def ends(self) -> None:
        """Everything is booked, and all work is done."""
        for _ in range(5):
            self.happens(20, "work", 1)
        repricing.work(self.now + timedelta(hours=1), most=10_000, pause_s=0)
        assert not Repricing.objects.filter(finished_at=None).exists()

    def wrong(self) -> list[tuple[UUID, int, int]]:
        """Where there is a price. Where a later one cannot be used, what was known of the cost stays."""
        prices, found = self.books.list_of(), []
        corrections = repricing.corrections_of(list(Entry.objects.values_list("pk", flat=True)))
        for attempt in Attempt.objects.select_related("entry"):
            own = corrections.get(attempt.entry_id, [])
            cost = repricing.effective_cost(attempt.entry, own)
            price = prices.price_at(us(attempt.started_at))
            should = pricing.cost_nanos(USED, price)
            is_unpriced = repricing.is_unpriced([attempt], own)
            known = price is not None and not is_unpriced
            if cost != should if known else is_unpriced and (price or cost):
                found.append((attempt.entry_id, cost, should))
        return found
