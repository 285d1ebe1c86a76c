"""What is old goes, and its sums stay."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection

from accounts.models import ApiKey, Team
from gateway.ledger import marks, partitions, rebuilding, retention, rollups, spending
from gateway.ledger.cover import DAY, MINUTE, QUARTER, floor
from gateway.ledger.marks import Bucket
from gateway.ledger.measuring import minute_of, moment_of
from gateway.ledger.writer import book
from gateway.models import (
    Attempt,
    Correction,
    Entry,
    Refusal,
    RefusalCount,
    Repricing,
    Rollup,
    Stale,
    TagName,
    TagRollup,
)
from gateway.relay.records import Refusals, RefusedCount
from tests.gateway.ledger import naive
from tests.gateway.records import AT_US, opened, settled

pytestmark = pytest.mark.django_db(transaction=True)

by_quarter_hours = pytest.mark.sqlite
by_months = pytest.mark.postgresql

NOW = datetime.fromtimestamp(AT_US / 1e6, UTC)
NOW_MINUTE = minute_of(NOW)
TODAY = floor(NOW_MINUTE, DAY)
LONG_AGO = TODAY - 100 * DAY + 500


@pytest.fixture
def team() -> Team:
    return Team.objects.create(name="Tide", slug="tide")


@pytest.fixture
def call(team: Team) -> dict[str, Any]:
    key = ApiKey.objects.create(team=team, name="alice's")
    TagName.objects.create(team=team, name="env")
    return {"team_id": team.pk, "key_id": key.pk, "tags": {"env": "prod"}}


def book_at(call: dict[str, Any], *minutes: int) -> None:
    book([settled(opened(**call, started_at_us=each * 60_000_000)) for each in minutes])


def refuse_at(call: dict[str, Any], minute: int) -> None:
    count = RefusedCount(minute, call["team_id"], call["key_id"], "gpt-4o", "insufficient_quota", "normal", 3)
    book([], [Refusals(str(uuid4()), minute * 60_000_000, (count,))])


def correct_all(change: int) -> None:
    row = Repricing.objects.create(target_id=7, from_at=NOW, until_at=NOW, cause="late", finished_at=NOW)
    for each in Attempt.objects.select_related("entry"):
        Correction.objects.create(
            call_id=each.entry_id,
            attempt_no=each.attempt_no,
            repricing=row,
            team_id=each.entry.team_id,
            started_at=each.entry.started_at,
            before_nanos=0,
            after_nanos=change,
            price="",
        )
        marks.add([Bucket(MINUTE, minute_of(each.entry.started_at), each.entry.team_id)])


def retain(entries_days: int = 30, minutes_days: int = 35) -> None:
    retention.retain(NOW, entries_days=entries_days, minutes_days=minutes_days, budget_s=60)


def sums(model: type[Rollup] | type[TagRollup], *sizes: int) -> list[tuple[int, int, int, int]]:
    rows = model.objects.filter(size__in=sizes).order_by("size", "start", "outcome")
    return list(rows.values_list("size", "start", "calls", "cost_nanos"))


@by_quarter_hours
def test_old_calls_go_with_all_that_belongs_to_them_and_their_sums_stay(call: dict[str, Any]) -> None:
    book_at(call, LONG_AGO, LONG_AGO + 1, NOW_MINUTE)
    refuse_at(call, LONG_AGO)
    correct_all(5)
    rollups.work(NOW)
    before = sums(Rollup, QUARTER, DAY), sums(TagRollup, QUARTER, DAY)

    retain()
    rollups.work(NOW)

    assert [minute_of(each.started_at) for each in Entry.objects.all()] == [NOW_MINUTE]
    assert [each.count() for each in (Attempt.objects, Correction.objects, RefusalCount.objects)] == [1, 1, 0]
    assert (sums(Rollup, QUARTER, DAY), sums(TagRollup, QUARTER, DAY)) == before
    assert retention.kept_from() == TODAY - 32 * DAY


def test_calls_stay_for_ever_where_nothing_else_was_asked_for(call: dict[str, Any]) -> None:
    book_at(call, LONG_AGO)
    rollups.work(NOW)

    retain(entries_days=0)

    assert Entry.objects.count() == 1
    assert retention.kept_from() == 0


def test_a_call_that_is_not_in_the_rollups_stays(call: dict[str, Any]) -> None:
    book_at(call, LONG_AGO)
    rollups.work(NOW)
    book_at(call, LONG_AGO)

    retain()

    assert Entry.objects.count() == 2
    assert Rollup.objects.filter(size=MINUTE).exists()


@pytest.mark.parametrize("size", [QUARTER, DAY])
def test_calls_stay_until_the_sums_that_remain_are_worked_out(call: dict[str, Any], size: int) -> None:
    book_at(call, LONG_AGO)
    rollups.work(NOW)
    marks.add([Bucket(size, floor(LONG_AGO, size), call["team_id"])])

    retain()

    assert Entry.objects.count() == 1


def test_calls_stay_while_prices_of_their_time_are_worked_on(call: dict[str, Any]) -> None:
    book_at(call, LONG_AGO)
    rollups.work(NOW)
    Repricing.objects.create(target_id=7, from_at=moment_of(LONG_AGO), until_at=NOW, cause="late")

    retain()

    assert Entry.objects.count() == 1


@by_quarter_hours
def test_a_call_whose_later_attempt_is_being_priced_stays(call: dict[str, Any]) -> None:
    """An attempt begins up to a day after its call, and its correction needs the call's entry."""
    stop = TODAY - 32 * DAY
    book_at(call, stop - 60)
    rollups.work(NOW)
    from_at = moment_of(stop + 60)
    row = Repricing.objects.create(target_id=7, from_at=from_at, until_at=NOW, cause="late")

    retain()
    assert Entry.objects.count() == 1

    row.finished_at = NOW
    row.save()
    retain()
    assert Entry.objects.count() == 0


@pytest.mark.parametrize("hours", [25, 50])
def test_a_call_stays_as_long_as_a_living_process_may_have_it_in_its_journal(
    call: dict[str, Any], hours: int
) -> None:
    """It ends a day after it began, and lies beside a call that is open for another day."""
    late = settled(opened(**call, started_at_us=(TODAY - hours * 60) * 60_000_000))
    book([late])
    rollups.work(NOW)
    retention.retain(moment_of(TODAY), entries_days=1, minutes_days=35, budget_s=60)

    book([late])
    rollups.work(NOW)

    assert [calls for _, _, calls, _ in sums(Rollup, DAY)] == [1]


def test_calls_stay_that_a_journal_on_this_host_may_hold(call: dict[str, Any]) -> None:
    """The host was off for long, and who adopts the journal comes after this."""
    found = settled(opened(**call, started_at_us=LONG_AGO * 60_000_000))
    book([found])
    rollups.work(NOW)

    written_us = (LONG_AGO + DAY) * 60_000_000
    retention.retain(NOW, entries_days=30, minutes_days=35, journals_from_us=written_us, budget_s=60)
    book([found])
    rollups.work(NOW)

    assert [calls for _, _, calls, _ in sums(Rollup, DAY)] == [1]
    assert Entry.objects.count() == 1


@by_quarter_hours
def test_calls_go_that_are_older_than_any_journal_on_this_host(call: dict[str, Any]) -> None:
    book_at(call, LONG_AGO)
    rollups.work(NOW)

    written_us = (LONG_AGO + 2 * DAY) * 60_000_000
    retention.retain(NOW, entries_days=30, minutes_days=35, journals_from_us=written_us, budget_s=60)

    assert Entry.objects.count() == 0


@by_quarter_hours
def test_many_calls_go_a_span_at_a_time(call: dict[str, Any]) -> None:
    minutes = [LONG_AGO + each for each in range(0, 300, 10) for _ in range(200)]
    book_at(call, *minutes)
    rollups.work(NOW, budget_s=None)

    retention.retain(NOW, entries_days=30, minutes_days=35, budget_s=0)
    retention.retain(NOW, entries_days=30, minutes_days=35, budget_s=60)

    assert Entry.objects.count() == 0
    assert sum(calls for _, _, calls, _ in sums(Rollup, DAY)) == len(minutes)


@by_quarter_hours
def test_a_call_that_comes_after_its_time_was_deleted_is_added_to_the_sums(
    team: Team, call: dict[str, Any]
) -> None:
    book_at(call, LONG_AGO, NOW_MINUTE)
    rollups.work(NOW)
    retain()

    for requests in (3, 4):
        book_at(call, LONG_AGO)
        refuse_at(call, LONG_AGO)
        assert spending.used(team.pk, None, TODAY - 200 * DAY, TODAY + DAY).requests == requests
        rollups.work(NOW)

    days = Rollup.objects.filter(size=DAY, start__lt=TODAY)
    assert sum(each.calls for each in days.exclude(outcome="refused")) == 3
    assert sum(each.calls for each in days.filter(outcome="refused")) == 6
    assert sum(each.calls for each in TagRollup.objects.filter(size=DAY, start__lt=TODAY)) == 3
    assert Entry.objects.count() == 1
    assert spending.used(team.pk, None, TODAY - 200 * DAY, TODAY + DAY).requests == 4


@by_quarter_hours
def test_what_was_deleted_is_not_rebuilt(call: dict[str, Any]) -> None:
    book_at(call, LONG_AGO, NOW_MINUTE)
    rollups.work(NOW)
    retain()
    before = sums(Rollup, QUARTER, DAY)

    rebuilding.again(None, None)
    rollups.work(NOW)

    assert sums(Rollup, QUARTER, DAY) == before


def test_old_minutes_go_and_quarter_hours_stay(call: dict[str, Any]) -> None:
    book_at(call, LONG_AGO, NOW_MINUTE)
    rollups.work(NOW)

    retain(entries_days=0)

    assert [start for _, start, _, _ in sums(Rollup, MINUTE)] == [NOW_MINUTE]
    assert [start for _, start, _, _ in sums(TagRollup, MINUTE)] == [NOW_MINUTE]
    assert len(sums(Rollup, QUARTER)) == 1  # of long ago; the present one is not over


def test_a_late_call_puts_a_quarter_hour_together_again_whose_minutes_are_gone(call: dict[str, Any]) -> None:
    start = floor(LONG_AGO, QUARTER)
    book_at(call, start, start + 3, start + 14)
    rollups.work(NOW)
    retain(entries_days=0)
    assert not Rollup.objects.filter(size=MINUTE).exists()

    book_at(call, start + 3)
    rollups.work(NOW)

    assert naive.found() == naive.expected()
    assert naive.found_of_tags() == naive.expected_of_tags()


def test_minutes_stay_while_their_quarter_hour_is_marked(call: dict[str, Any]) -> None:
    book_at(call, LONG_AGO)
    rollups.work(NOW)
    marks.add([Bucket(QUARTER, floor(LONG_AGO, QUARTER), call["team_id"])])

    retain(entries_days=0)

    assert Rollup.objects.filter(size=MINUTE).exists()


def test_the_newest_thousand_explained_refusals_of_a_team_stay(team: Team, call: dict[str, Any]) -> None:
    def refusal(team_id: int, seconds: int) -> Refusal:
        return Refusal(
            call_id=uuid4(),
            at=NOW - timedelta(seconds=seconds),
            team_id=team_id,
            key_id=call["key_id"],
            status=429,
            code="rate_limit_exceeded",
            priority="normal",
        )

    Refusal.objects.bulk_create(refusal(team.pk, each) for each in range(1500))
    Refusal.objects.bulk_create(refusal(team.pk + 1, each) for each in range(10))

    retain()

    kept = Refusal.objects.filter(team_id=team.pk)
    assert kept.count() == 1000
    assert min(each.at for each in kept) == NOW - timedelta(seconds=999)
    assert Refusal.objects.filter(team_id=team.pk + 1).count() == 10
    assert not Stale.objects.exists()


# On PostgreSQL


@pytest.fixture
def over(transactional_db: None) -> Iterator[datetime]:
    """When the month of NOW and the oldest part are over. What is dropped is made again afterwards."""
    before = {table: partitions.parts(table) for table in partitions.TABLES}
    yield max(_month_after(each[0].end) for each in before.values()) + timedelta(days=33)
    with connection.cursor() as cursor:
        for table, known in before.items():
            kept = [each.name for each in partitions.parts(table)]
            start = "MINVALUE"
            for each in known:
                if each.name not in kept:
                    cursor.execute(f"DELETE FROM {table.rest}")
                    cursor.execute(
                        f"CREATE TABLE {each.name} PARTITION OF {table.name} "
                        f"FOR VALUES FROM ({start}) TO ('{each.end}')"
                    )
                start = f"'{each.end}'"


def _month_after(first_id: UUID) -> datetime:
    return datetime.fromtimestamp((first_id.int >> 80) / 1000, UTC)


@by_months
def test_months_that_are_over_go_and_what_comes_late_is_added_to_their_sums(
    over: datetime, team: Team, call: dict[str, Any]
) -> None:
    def keep_a_month() -> None:
        rollups.work(over)
        retention.retain(over, entries_days=30, minutes_days=35, budget_s=60)

    book_at(call, NOW_MINUTE, NOW_MINUTE + 1)
    refuse_at(call, NOW_MINUTE)
    rollups.work(over)
    marks.add([Bucket(DAY, TODAY, team.pk)])
    retention.retain(over, entries_days=30, minutes_days=35, budget_s=60)
    assert Entry.objects.count() == 2  # a mark is in the way
    assert partitions.parts(partitions.ENTRIES)[0].end <= partitions.first_id(over)

    keep_a_month()
    assert [each.objects.count() for each in (Entry, Attempt, RefusalCount)] == [0, 0, 0]
    assert moment_of(retention.kept_from()) == partitions.month_of(over - timedelta(days=32))

    book_at(call, NOW_MINUTE)
    assert spending.used(team.pk, None, TODAY, TODAY + DAY).requests == 3
    keep_a_month()
    assert [each.objects.count() for each in (Entry, Attempt)] == [0, 0]
    assert spending.used(team.pk, None, TODAY, TODAY + DAY).requests == 3
