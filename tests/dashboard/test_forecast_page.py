"""The page of the forecast: what it says, to whom, and at which price in queries."""

from datetime import UTC, date, datetime, time, timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import User
from gateway.models import ExchangeRate
from tests.gateway.past_calls import call, keep, reads


@pytest.fixture
def days(team, api_key):
    """A call for 8 units on each of the last 10 days."""
    noon = datetime.combine(timezone.now().date(), time(12), UTC)
    of = {"team_id": team.pk, "key_id": api_key.pk}
    keep(*[call(noon - timedelta(days=ago), 0, 1_000_000, 8, **of) for ago in range(1, 11)])


def client_of(user):
    client = Client()
    client.force_login(user)
    return client


def page(user, **asked):
    answer = client_of(user).get("/forecast/", asked)
    return answer, " ".join(answer.content.decode().split())


def test_the_forecast_has_an_interval_and_lines(alice, days):
    answer, text = page(alice)

    assert "eight of ten times $" in text
    assert answer.context["chart"]["high"][-1] >= answer.context["chart"]["expected"][-1] > 0
    assert 'id="month-chart"' in text


def test_a_team_without_calls_is_told_what_is_missing(alice):
    answer, text = page(alice)

    assert answer.status_code == 200
    assert "not enough history: 0 of 7 days" in text
    assert 'data-state="empty"' in text


def test_an_administrator_sees_every_team(administrator, days, other_team):
    noon = datetime.combine(timezone.now().date(), time(12), UTC)
    keep(call(noon - timedelta(days=1), 5, 5, 1, team_id=other_team.pk))

    _, text = page(administrator)

    assert "Forecast by team" in text
    assert "Solar" in text


def test_a_team_of_others_is_not_there(alice, other_team):
    assert page(alice, team="solar")[0].status_code == 404


def test_who_is_on_no_team_is_told_so(transactional_db):
    assert "You are on no team yet" in page(User.objects.create_user("charlie@example.com"))[1]


def test_days_without_a_rate_leave_the_cost_untold(alice, days):
    ExchangeRate.objects.create(base="USD", quote="JPY", valid_from=date(2100, 1, 1), rate_nanos=10**11)

    assert "so the cost is not told" in page(alice, currency="JPY")[1]


def test_what_cannot_be_chosen_is_said(alice):
    answer, text = page(alice, currency="XXX")

    assert answer.status_code == 422
    assert "XXX is not one of the available choices" in text


def test_the_page_costs_a_few_queries(administrator, days):
    """Session, user, whether anything is simulated, teams; currencies; marks, largest teams, sums and
    exchange rates of the forecast."""
    ExchangeRate.objects.create(base="USD", quote="JPY", valid_from=date(2020, 1, 1), rate_nanos=10**11)

    client = client_of(administrator)

    with CaptureQueriesContext(connection) as made:
        client.get("/forecast/", {"currency": "JPY"})

    assert len(reads(made)) <= 12
    assert not any("gateway_entry" in sql for sql in reads(made))
