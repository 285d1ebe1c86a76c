"""The last seven days of keys, from the books to shapes."""

from datetime import UTC, date, datetime, timedelta

import pytest

from accounts.models import ApiKey
from dashboard import sparklines
from gateway.ledger import rollups
from gateway.ledger.queries import Sums
from gateway.ledger.writer import book
from tests.dashboard.called import a_call

NOW = datetime(2026, 11, 23, 15, 4, 5, tzinfo=UTC)
FIRST = date(2026, 11, 17)


def week(*calls_and_costs: tuple[int, int]) -> sparklines.Week:
    return sparklines.week(
        FIRST, [Sums(calls=calls, cost_nanos=cost) for calls, cost in calls_and_costs], "USD"
    )


def test_seven_days_end_with_today():
    edges = sparklines.edges_of(NOW)
    assert (edges[0], edges[-1]) == (datetime(2026, 11, 17, tzinfo=UTC), datetime(2026, 11, 24, tzinfo=UTC))
    assert len(edges) == 8


def test_the_busiest_day_is_as_high_as_the_drawing_and_an_idle_one_is_a_line():
    bars = sparklines.bars([0, 5, 10])
    assert [(bar.y, bar.height) for bar in bars] == [("23", "1"), ("12", "12"), ("0", "24")]
    assert [bar.x for bar in bars] == ["1", "29", "57"]


def test_the_line_ends_yesterday_because_today_is_not_over():
    assert sparklines.line([10, 0, 5]) == "14,1 42,23"
    assert sparklines.line([0, 0, 5]) == ""


def test_a_week_is_told_in_words_too():
    found = week((1, 0), (1200, 2_500_000_000), *[(0, 0)] * 4, (3, 500_000_000))
    assert (found.calls, found.calls_text, found.spend_text) == (1204, "1,204 calls", "$3.00")
    assert found.words.startswith("1,204 calls and $3.00 in 7 days. Calls a day: November 17: 1,")
    assert (found.days[1].day, found.days[1].calls, found.days[1].spend) == (
        date(2026, 11, 18),
        "1,200",
        "$2.50",
    )
    assert week(*[(0, 0)] * 6, (1, 0)).calls_text == "1 call"


@pytest.mark.django_db(transaction=True)
def test_weeks_of_many_keys_are_two_queries_and_what_is_on_the_books(
    team, other_team, django_assert_num_queries
):
    keys = [ApiKey.objects.create(team=each, name="web") for each in (team, team, other_team)]
    at = NOW - timedelta(days=1)
    book([a_call(team, keys[0], at), a_call(team, keys[0], NOW - timedelta(days=8))])
    book([a_call(other_team, keys[2], NOW - timedelta(minutes=3)) for _ in range(2)])
    rollups.work(NOW, budget_s=None)

    with django_assert_num_queries(4):  # begin, what is marked, rollups, end
        found = sparklines.weeks_of({each.pk: each.team_id for each in keys}, NOW)

    assert [found[each.pk].calls for each in keys] == [1, 0, 2]
    assert [day.calls for day in found[keys[0].pk].days] == ["0"] * 5 + ["1", "0"]
    assert found[keys[0].pk].spend_text == "$0.0000225"
