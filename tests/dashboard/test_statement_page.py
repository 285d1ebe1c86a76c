"""The page of a statement: its lines are those of the file, and add up to its sum."""

import csv
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import ApiKey, User
from gateway.models import ExchangeRate
from tests.gateway.past_calls import call, keep, reads


def month_before(day):
    return (day.replace(day=1) - timedelta(days=1)).replace(day=1)


@pytest.fixture
def month():
    """The last one, which is over."""
    return month_before(timezone.now().date())


@pytest.fixture
def calls(team, api_key, month):
    """Three calls of one key, and one of another."""
    other = ApiKey.objects.create(team=team, name="support bot")
    noon = datetime(month.year, month.month, 10, 12, tzinfo=UTC)
    of = {"team_id": team.pk, "key_id": api_key.pk}
    found = [call(noon + timedelta(days=each), 100, 50, 2, **of) for each in range(3)]
    keep(*found, call(noon, 10, 5, 0.25, team_id=team.pk, key_id=other.pk))
    return found


def client_of(user):
    client = Client()
    client.force_login(user)
    return client


def page(user, **asked):
    answer = client_of(user).get("/statement/", asked)
    return answer, " ".join(answer.content.decode().split())


def test_lines_are_of_each_model_name_and_key_and_add_up(alice, calls, month):
    answer, text = page(alice, month=f"{month:%Y-%m}")

    assert [(each.key, each.sums.calls, each.sums.cost_nanos) for each in answer.context["lines"]] == [
        ("nightly batch", 3, 6 * 10**9),
        ("support bot", 1, 10**9 // 4),
    ]
    assert answer.context["total"].cost_nanos == 6_250_000_000
    assert "$6.25" in text
    assert "The month is not over" not in text


def test_the_file_has_the_same_sum(alice, calls, month):
    client = client_of(alice)
    link = client.get("/statement/", {"month": f"{month:%Y-%m}"}).context["file"]

    rows = list(csv.DictReader(b"".join(client.get(link)).decode().splitlines()))

    [total] = [each for each in rows if each["line"] == "total"]
    assert Decimal(total["cost"]) == Decimal("6.25")


def test_the_present_month_is_said_to_go_on(alice, calls):
    answer, text = page(alice)

    assert answer.context["month"] == timezone.now().date().replace(day=1)
    assert "The month is not over" in text
    assert 'data-state="empty"' in text or answer.context["lines"]


def test_simulated_calls_are_said_to_be(alice, team, api_key, calls, month):
    noon = datetime(month.year, month.month, 11, 12, tzinfo=UTC)
    said = "of these calls was simulated: it counts with what it would have cost."
    assert said not in page(alice, month=f"{month:%Y-%m}")[1]

    keep(call(noon, 10, 5, 0.25, team_id=team.pk, key_id=api_key.pk, simulated=True))

    assert f"1 {said}" in page(alice, month=f"{month:%Y-%m}")[1]


def test_a_month_without_calls_has_an_empty_statement(alice, month):
    _, text = page(alice, month=f"{month:%Y-%m}")

    assert "Nothing was used" in text
    assert 'data-state="empty"' in text


def test_another_currency_is_shown_at_the_rates_of_the_days(alice, calls, month):
    ExchangeRate.objects.create(base="USD", quote="JPY", valid_from=date(2020, 1, 1), rate_nanos=10**11)

    answer, text = page(alice, month=f"{month:%Y-%m}", currency="JPY")

    assert answer.context["total"].cost_nanos == 625 * 10**9
    assert "¥625" in text
    assert "currency=JPY" in answer.context["file"]


def test_a_team_of_others_is_not_there(alice, other_team):
    assert page(alice, team="solar")[0].status_code == 404


def test_who_is_on_no_team_is_told_so(transactional_db):
    assert "You are on no team yet" in page(User.objects.create_user("charlie@example.com"))[1]


def test_what_cannot_be_chosen_is_said(alice):
    answer, text = page(alice, month="1999-01")

    assert answer.status_code == 422
    assert "1999-01 is not one of the available choices" in text


def test_the_page_costs_a_few_queries(administrator, calls, month):
    """Session, user, whether anything is simulated, teams; currencies; marks, exchange rates and sums;
    names of keys; watermark; later corrections."""
    ExchangeRate.objects.create(base="USD", quote="JPY", valid_from=date(2020, 1, 1), rate_nanos=10**11)

    client = client_of(administrator)

    with CaptureQueriesContext(connection) as made:
        client.get("/statement/", {"team": "hydro", "month": f"{month:%Y-%m}", "currency": "JPY"})

    assert len(reads(made)) <= 12
    assert not any('FROM "gateway_entry"' in sql for sql in reads(made))
