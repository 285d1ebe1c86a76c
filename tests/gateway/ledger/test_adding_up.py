"""From the ledger through the job to the answers: the same sum, whichever way it is told."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.db.models import Sum

from gateway.ledger import queries, spans
from gateway.ledger.queries import Scope
from gateway.models import Attempt, Entry
from tests.gateway.ledger.usages import added, at, booked, made, naive

pytestmark = pytest.mark.django_db(transaction=True)

ALL = Scope(None)
MIDNIGHT = at("2026-10-25T00:00")
ZONES = ("UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns")


def assert_it_adds_up(calls: int, half: timedelta) -> None:
    """So many calls around midnight."""
    since, until = MIDNIGHT - half, MIDNIGHT + half
    known = made(teams=5, keys=4, calls=calls, since=since, until=until)
    booked(known)

    everything = naive(known, since, until)
    assert Entry.objects.aggregate(cost=Sum("cost_nanos"))["cost"] == everything.cost_nanos
    assert Attempt.objects.aggregate(cost=Sum("cost_nanos"))["cost"] == everything.cost_nanos
    assert queries.totals(ALL, since, until) == everything
    for by in ("team", "key", "route", "target", "outcome", "code", "priority"):
        parts = queries.breakdown(ALL, since, until, by, most=3)
        assert added([sums for _, sums in parts]) == everything, by
    for zone in ZONES:
        assert_series_add_up(since, until, ZoneInfo(zone))


def assert_series_add_up(since: datetime, until: datetime, zone: ZoneInfo) -> None:
    first, last = since - timedelta(days=3), until + timedelta(days=3)
    everything = queries.totals(ALL, first, last)
    for step in ("hour", "day", "week", "month"):
        edges = spans.edges(first, last, zone, step)
        assert added(queries.series(ALL, edges)) == everything, (zone.key, step)


def test_rows_teams_keys_routes_and_targets_add_up_to_the_unit() -> None:
    assert_it_adds_up(300, timedelta(minutes=2))


@pytest.mark.prove
def test_a_hundred_thousand_calls_add_up_to_the_unit() -> None:
    assert_it_adds_up(100_000, timedelta(minutes=30))
