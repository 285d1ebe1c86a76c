from datetime import date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import ApiKey, Team
from gateway.exchange import converted
from gateway.ledger import queries, spans
from gateway.ledger.queries import OTHER, Dimension, Scope, Sums
from gateway.models import ExchangeRate, Rollup, Stale, TagRollup
from gateway.relay.catalog import Exchange
from gateway.relay.records import Settled
from tests.gateway.ledger.usages import added, at, made, naive, rolled_up

pytestmark = pytest.mark.django_db

SINCE, UNTIL = at("2026-10-24T00:00"), at("2026-10-27T00:00")
ALL = Scope(None)


@pytest.fixture
def calls() -> list[Settled]:
    """Some hundred calls of two teams, around the night in which Europe sets its clocks back."""
    found = made(teams=2, keys=2, calls=400, since=SINCE, until=UNTIL)
    rolled_up(found)
    return found


def plain(sums: Sums) -> Sums:
    return added([sums])


def test_a_total_is_what_its_calls_add_up_to(calls: list[Settled]) -> None:
    assert queries.totals(ALL, SINCE, UNTIL) == naive(calls, SINCE, UNTIL)


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("2026-10-24T00:00", "2026-10-25T00:00"),
        ("2026-10-24T18:30", "2026-10-25T18:30"),
        ("2026-10-24T22:15", "2026-10-26T23:00"),
        ("2026-10-25T01:01", "2026-10-25T13:59"),
    ],
)
def test_a_span_may_begin_and_end_at_any_minute(calls: list[Settled], since: str, until: str) -> None:
    found = queries.totals(ALL, at(since), at(until))

    assert found == naive(calls, at(since), at(until))


@pytest.mark.parametrize(
    "zone", ["UTC", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu", "America/New_York"]
)
@pytest.mark.parametrize("step", ["hour", "day"])
def test_a_series_adds_up_to_its_total_in_every_zone(
    calls: list[Settled], zone: str, step: spans.Step
) -> None:
    edges = spans.edges(SINCE, UNTIL, ZoneInfo(zone), step)

    found = queries.series(ALL, edges)

    assert found == [naive(calls, *span) for span in pairwise(edges)]
    assert added(found) == queries.totals(ALL, SINCE, UNTIL)


@pytest.mark.parametrize("by", ["team", "key", "route", "target", "outcome", "code", "priority"])
def test_a_breakdown_adds_up_to_its_total(calls: list[Settled], by: Dimension) -> None:
    found = queries.breakdown(ALL, SINCE, UNTIL, by)

    assert added([sums for _, sums in found]) == naive(calls, SINCE, UNTIL)
    costs = [sums.cost_nanos for _, sums in found]
    assert costs == sorted(costs, reverse=True)


def test_what_is_beyond_the_largest_values_is_told_as_others(calls: list[Settled]) -> None:
    everything = queries.breakdown(ALL, SINCE, UNTIL, "key")

    found = queries.breakdown(ALL, SINCE, UNTIL, "key", most=2)

    assert [value for value, _ in found] == [everything[0][0], everything[1][0], OTHER]
    assert found[:2] == everything[:2]
    assert found[2][1] == added([sums for _, sums in everything[2:]])


def test_a_stacked_series_adds_up_span_by_span(calls: list[Settled]) -> None:
    edges = spans.edges(SINCE, UNTIL, ZoneInfo("Asia/Kolkata"), "day")

    found = queries.series_by(ALL, edges, "target", most=1)

    assert [value for value, _ in found][1:] == [OTHER]
    together = [added(list(points)) for points in zip(*(points for _, points in found), strict=True)]
    assert together == queries.series(ALL, edges)


def test_a_scope_narrows_by_team_and_by_values(calls: list[Settled]) -> None:
    team = Team.objects.get(slug="team1")
    key = ApiKey.objects.filter(team=team).first()
    assert key is not None
    scope = Scope((team.pk,), {"key": (str(key.pk),), "outcome": ("failed", "truncated"), "route": ("fast",)})

    found = queries.totals(scope, SINCE, UNTIL)

    wanted = [each for each in calls if each.key_id == key.pk and each.route == "fast"]
    wanted = [each for each in wanted if each.outcome in ("failed", "truncated")]
    assert found == naive(wanted, SINCE, UNTIL)
    assert found.calls == found.failed > 0
    assert found.error_rate == 1


def test_nobody_elses_team_is_in_a_scope_of_none(calls: list[Settled]) -> None:
    assert queries.totals(Scope(()), SINCE, UNTIL) == Sums()
    assert queries.breakdown(Scope(()), SINCE, UNTIL, "route") == []
    assert queries.totals(Scope(()), SINCE, UNTIL).error_rate is None


def test_calls_count_where_they_ended_and_cost_where_it_was_spent(calls: list[Settled]) -> None:
    found = dict(queries.breakdown(ALL, SINCE, UNTIL, "target"))["acme/gpt-4o"]

    assert found.calls == sum(each.attempts[-1].provider == "acme" for each in calls)
    attempts = [attempt for each in calls for attempt in each.attempts if attempt.provider == "acme"]
    assert found.cost_nanos == sum(each.cost_nanos for each in attempts)
    assert found.attempts == len(attempts)


def test_a_refused_call_counts_as_refused_alone(calls: list[Settled]) -> None:
    start = spans.minute_of(SINCE)
    for size in Rollup.Size.values:
        Rollup.objects.create(
            **{"size": size, "start": start, "team_id": 1, "key_id": 1, "route": "nosuch", "target": ""},
            **{"outcome": "refused", "code": "rate_limit_exceeded", "priority": "normal", "calls": 7},
        )

    found = queries.totals(ALL, SINCE, UNTIL)

    assert (found.calls, found.refused) == (len(calls), 7)
    by_code = dict(queries.breakdown(Scope(None, {"outcome": ("refused",)}), SINCE, UNTIL, "code"))
    assert by_code == {"rate_limit_exceeded": Sums(refused=7)}


def test_a_marked_bucket_is_made_up_of_smaller_ones(calls: list[Settled]) -> None:
    day, quarter = spans.minute_of(at("2026-10-25T00:00")), spans.minute_of(at("2026-10-25T12:15"))
    Rollup.objects.filter(size=1440, start=day).update(calls=10**6)
    Rollup.objects.filter(size=15, start=quarter).update(calls=10**6)
    team = calls[0].team_id
    Stale.objects.create(size=1440, start=day, team_id=team)
    Stale.objects.create(size=15, start=quarter, team_id=team)

    assert queries.totals(ALL, SINCE, UNTIL) == naive(calls, SINCE, UNTIL)


def test_many_marks_make_several_queries_and_the_same_answer(calls: list[Settled]) -> None:
    team, day = calls[0].team_id, spans.minute_of(at("2026-10-24T00:00"))
    marked = [Stale(size=1440, start=day + each * 1440, team_id=team) for each in range(3)]
    marked += [Stale(size=15, start=day + each * 30, team_id=team) for each in range(3 * 48)]
    Stale.objects.bulk_create(marked)

    assert queries.totals(ALL, SINCE, UNTIL) == naive(calls, SINCE, UNTIL)
    found = queries.breakdown(ALL, SINCE, UNTIL, "route")
    assert added([sums for _, sums in found]) == naive(calls, SINCE, UNTIL)


def test_percentiles_are_within_one_percent(calls: list[Settled]) -> None:
    edges = spans.edges(SINCE, UNTIL, ZoneInfo("Asia/Kolkata"), "day")

    found = queries.series(ALL, edges, percentiles=True)

    for sums, (since, until) in zip(found, pairwise(edges), strict=True):
        started = [
            each for each in calls if since.timestamp() * 1e6 <= each.started_at_us < until.timestamp() * 1e6
        ]
        latencies = sorted(each.latency_us for each in started)
        middle = latencies[-(-len(latencies) // 2) - 1]
        assert sums.latency_at(0.5) == pytest.approx(middle, rel=0.0101)
        assert sum((sums.first_token or {}).values()) == sum(
            each.first_token_us is not None for each in started
        )
    assert queries.totals(ALL, SINCE, UNTIL).latency is None


def test_percentiles_of_too_many_rows_are_not_known(calls: list[Settled]) -> None:
    [found] = queries.series(ALL, [SINCE, UNTIL], percentiles=True, most_histograms=3)

    assert found.latency_at(0.5) is None
    assert found.calls == len(calls)


@pytest.fixture
def rates() -> None:
    for day, nanos in (("2026-10-20", 7_300_000_000), ("2026-10-25", 7_100_000_000)):
        ExchangeRate.objects.create(base="USD", quote="CNY", valid_from=day, rate_nanos=nanos)


def by_hand(calls: list[Settled], since: datetime, until: datetime) -> int:
    """In CNY: each UTC day's sum at its rate, rounded half up."""
    found = 0
    for day in (24, 25, 26):
        span = max(since, at(f"2026-10-{day}")), min(until, at(f"2026-10-{day + 1}"))
        rate = Exchange(73 if day == 24 else 71, 10)
        found += converted(naive(calls, *span).cost_nanos, rate) if span[0] < span[1] else 0
    return found


def test_another_currency_is_at_the_rate_of_the_day_of_the_call(calls: list[Settled], rates: None) -> None:
    assert queries.totals(ALL, SINCE, UNTIL, "CNY").cost_nanos == by_hand(calls, SINCE, UNTIL)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/New_York"])
def test_a_series_in_another_currency_cuts_its_days_at_midnight_in_utc(
    calls: list[Settled], rates: None, zone: str
) -> None:
    edges = spans.edges(SINCE, UNTIL, ZoneInfo(zone), "day")

    found = queries.series(ALL, edges, "CNY")

    assert [each.cost_nanos for each in found] == [by_hand(calls, *span) for span in pairwise(edges)]


def test_a_day_without_an_exchange_rate_is_named_and_not_counted_as_nothing(calls: list[Settled]) -> None:
    ExchangeRate.objects.create(base="EUR", quote="USD", valid_from="2026-10-26", rate_nanos=1_250_000_000)

    found = queries.totals(ALL, SINCE, UNTIL, "EUR")

    last = naive(calls, at("2026-10-26"), UNTIL).cost_nanos
    assert found.cost_nanos == converted(last, Exchange(4, 5))
    assert found.no_rate_on == (date(2026, 10, 24), date(2026, 10, 25))


def test_the_ledgers_own_currency_needs_no_rate(calls: list[Settled]) -> None:
    assert queries.totals(ALL, SINCE, UNTIL, "USD") == queries.totals(ALL, SINCE, UNTIL)


def tagged(team_id: int, value: str, cost_nanos: int, name: str = "project") -> None:
    TagRollup.objects.create(
        **{"size": 1440, "start": spans.minute_of(SINCE), "team_id": team_id, "key_id": 1, "route": "fast"},
        **{"target": "openai/gpt-4o", "outcome": "answered", "code": "", "priority": "normal"},
        **{"calls": 1, "cost_nanos": cost_nanos, "name": name, "value": value},
    )


def test_usage_is_told_by_the_values_of_a_tag() -> None:
    tagged(1, "north", 300)
    tagged(1, "south", 200)
    tagged(1, "x", 900, name="app")

    found = queries.breakdown(Scope((1,)), SINCE, UNTIL, ("tag", "project"))

    assert [(value, sums.cost_nanos) for value, sums in found] == [("north", 300), ("south", 200)]
    assert queries.totals(Scope((1,), tag=("project", "south")), SINCE, UNTIL).cost_nanos == 200
    with pytest.raises(ValueError, match="by another"):
        queries.breakdown(Scope((1,), tag=("project", "south")), SINCE, UNTIL, ("tag", "app"))


def test_long_ago_bounds_are_quarter_hours() -> None:
    found = queries.bounds_of(at("2020-01-01T10:07"), at("2020-01-01T11:59"))

    assert found == (at("2020-01-01T10:00"), at("2020-01-01T11:45"))


def test_a_question_takes_few_queries(calls: list[Settled], rates: None) -> None:
    edges = spans.edges(SINCE, UNTIL, ZoneInfo("Asia/Kolkata"), "hour")
    with CaptureQueriesContext(connection) as taken:
        queries.series_by(ALL, edges, "route", "CNY", percentiles=True)

    # the marks, the exchange rates, the largest routes, the sums, how many histograms there are, and these
    assert len(taken) == 6


def test_names_are_those_of_teams_and_keys(calls: list[Settled]) -> None:
    team = Team.objects.get(slug="team1")

    assert queries.names_of("team", [str(team.pk), OTHER]) == {str(team.pk): "Team1"}
    assert queries.names_of("route", ["fast"]) == {}


def test_the_watermark_is_the_oldest_minute_to_be_worked_out() -> None:
    assert queries.watermark(None) is None
    Stale.objects.create(size=1, start=spans.minute_of(SINCE) + 5, team_id=3)

    assert queries.watermark((3,)) == SINCE + timedelta(minutes=5)
    assert queries.watermark((4,)) is None


def test_no_question_looks_at_the_ledger(calls: list[Settled], rates: None) -> None:
    edges = spans.edges(SINCE, UNTIL, ZoneInfo("Asia/Kolkata"), "day")
    with CaptureQueriesContext(connection) as taken:
        queries.totals(ALL, SINCE, UNTIL, percentiles=True)
        queries.series_by(ALL, edges, "key", "CNY", percentiles=True)
        queries.breakdown(Scope((1,), tag=("project", "north")), SINCE, UNTIL, "route")
        queries.every(ALL, SINCE, UNTIL, ("key", "route"))
        queries.watermark(None)

    assert not [each for each in taken if "gateway_entry" in each["sql"] or "gateway_attempt" in each["sql"]]
