"""What the month will come to, by what is on the books."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import ApiKey, Team
from gateway.exchange import NANOS
from gateway.ledger.forecast import Forecast, NotEnough
from gateway.ledger.outlook import outlooks
from gateway.models import ExchangeRate
from tests.gateway.past_calls import call, keep, reads

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2026, 11, 16, tzinfo=UTC) + timedelta(minutes=1)
UTC_ZONE = ZoneInfo("UTC")


def a_team(name):
    team = Team.objects.create(name=name, slug=name.lower())
    return {"team_id": team.pk, "key_id": ApiKey.objects.create(team=team, name="k").pk}


def daily(days, cost=1, hour=12, **of):
    """One call on each of the last days before today."""
    first = datetime(2026, 11, 16, hour, tzinfo=UTC)
    return [call(first - timedelta(days=ago), cost=cost, **of) for ago in range(1, days + 1)]


def test_a_month_of_one_team_and_of_all():
    hydro, solar = a_team("Hydro"), a_team("Solar")
    keep(*daily(40, 2, **hydro), *daily(10, 1, **solar))

    found = outlooks(None, NOW, UTC_ZONE)

    assert found.today == date(2026, 11, 16)
    assert [value for value, _ in found.by_team] == [str(hydro["team_id"]), str(solar["team_id"])]
    own = found.by_team[0][1]
    assert own.cost.forecast.so_far == 30 * NANOS
    assert own.cost.forecast.expected == pytest.approx(
        60 * NANOS, abs=0.01 * NANOS
    )  # a minute of today is over
    assert own.calls.forecast == Forecast(15, 30, 30, 30, 28)
    assert found.by_team[1][1].calls.forecast == Forecast(10, 25, 25, 25, 10)
    assert found.together.calls.forecast.so_far == 25
    assert found.together.days[0] == (date(2026, 11, 1), 2 * NANOS)
    assert len(found.together.days) == 16


def test_only_the_teams_that_are_asked_for_count():
    hydro, solar = a_team("Hydro"), a_team("Solar")
    keep(*daily(10, **hydro), *daily(10, **solar))

    found = outlooks((solar["team_id"],), NOW, UTC_ZONE)

    assert [value for value, _ in found.by_team] == [str(solar["team_id"])]
    assert found.together.calls.forecast.so_far == 10


def test_earlier_months_tell_how_good_it_is():
    keep(*daily(76, **a_team("Hydro")))

    record = outlooks(None, NOW, UTC_ZONE).together.calls.track_record

    assert len(record.errors) == 2
    assert record.mean_error == 0.0


def test_days_are_those_of_the_zone():
    """Calls at 23:00 in UTC are on the next day in Tokyo: the last was today."""
    keep(*daily(20, hour=23, **a_team("Hydro")))

    found = outlooks(None, NOW, ZoneInfo("Asia/Tokyo")).together

    assert found.calls.forecast.so_far == 16
    assert found.calls.forecast.history_days == 19
    assert found.days[-1] == (date(2026, 11, 16), NANOS)


def test_a_young_ledger_foretells_nothing():
    keep(*daily(3, **a_team("Hydro")))

    found = outlooks(None, NOW, UTC_ZONE).together

    assert found.calls.forecast == NotEnough(3, 3)
    assert found.calls.track_record is None


def test_an_empty_ledger_foretells_nothing(db):
    found = outlooks(None, NOW, UTC_ZONE)

    assert found.by_team == ()
    assert found.together.calls.forecast == NotEnough(0, 0)


def test_another_currency_is_at_the_rate_of_each_day_or_told():
    keep(*daily(10, **a_team("Hydro")))
    ExchangeRate.objects.create(base="USD", quote="JPY", valid_from=date(2026, 11, 7), rate_nanos=150 * NANOS)

    found = outlooks(None, NOW, UTC_ZONE, "JPY").together
    assert found.cost is None
    assert found.no_rate_on == (date(2026, 11, 6),)
    assert found.calls.forecast.expected == 25

    ExchangeRate.objects.create(base="USD", quote="JPY", valid_from=date(2026, 11, 1), rate_nanos=100 * NANOS)
    found = outlooks(None, NOW, UTC_ZONE, "JPY").together
    assert found.cost.forecast.so_far == (9 * 150 + 100) * NANOS


def test_a_question_costs_three_queries(db):
    """Marks, the largest teams, their sums by day."""
    keep(*daily(3, **a_team("Hydro")))

    with CaptureQueriesContext(connection) as made:
        outlooks(None, NOW, UTC_ZONE)

    assert len(reads(made)) == 3


def test_one_team_alone_costs_two():
    hydro = a_team("Hydro")
    keep(*daily(10, **hydro))

    with CaptureQueriesContext(connection) as made:
        found = outlooks((hydro["team_id"],), NOW, UTC_ZONE)

    assert len(reads(made)) == 2
    assert found.together.calls.forecast == Forecast(10, 25, 25, 25, 10)
