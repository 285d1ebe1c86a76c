"""Savings, forecasts and the reconciliation with a provider's bill, by the management API."""

from datetime import UTC, date, datetime, time, timedelta

import pytest
from django.test import Client
from django.utils import timezone

from accounts import services as accounts
from accounts.models import User
from gateway import services
from gateway.exchange import NANOS
from gateway.models import Provider, Route, Target
from tests.gateway.past_calls import call, keep

pytestmark = pytest.mark.django_db(transaction=True)

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def alice():
    return User.objects.create_user("alice@example.com")


@pytest.fixture
def team(alice):
    return accounts.create_team("Hydro", alice)


@pytest.fixture
def key(team, alice):
    return accounts.create_key(team, "nightly", alice)[0]


@pytest.fixture
def of(team, key):
    return {"team_id": team.pk, "key_id": key.pk, "target": "sheep/gpt-4o"}


@pytest.fixture
def sheep():
    provider = Provider.objects.create(slug="sheep", name="Sheep", base_url="https://sheep.example/v1")
    route = Route.objects.create(model_name="gpt-4o")
    target = Target.objects.create(route=route, provider=provider, upstream_model="gpt-4o")
    rates = {"input_nanos": NANOS, "cached_input_nanos": NANOS, "output_nanos": 8 * NANOS}
    services.add_price(target, LONG_AGO, **rates)
    return provider


@pytest.fixture
def api(alice):
    return client_of(alice)


@pytest.fixture
def administrator():
    return client_of(User.objects.create_superuser("ada@example.com"))


def client_of(user):
    client = Client()
    client.force_login(user)
    return client


def got(client, path, **asked):
    answer = client.get(f"/api/{path}", asked)
    assert answer.status_code == 200, answer.content
    return answer.json()


def test_a_month_against_a_price_book(api, of, sheep):
    keep(call(datetime(2026, 10, 1, 12, tzinfo=UTC), 0, 50_000_000, 400, **of))

    found = got(api, "savings", since="2026-10-01", until="2026-11-01", other="book:openai", book="azure")

    assert found["comparison"] == {
        "name": "OpenAI",
        "actual_nanos": 400 * NANOS,
        "other_nanos": 500 * NANOS,
        "difference_nanos": 100 * NANOS,
        "share_saved": 0.2,
        "left_out": [],
    }
    assert found["yearly_nanos"] == 1200 * NANOS
    assert found["currency"] == "USD"
    assert found["behind_since"] is None
    (route,) = found["routes"]
    assert (route["route"], route["output_tokens"], route["cheapest"]) == (
        "gpt-4o",
        50_000_000,
        "sheep/gpt-4o",
    )
    assert [each["name"] for each in route["offers"]] == ["sheep/gpt-4o", "Microsoft Azure"]


def test_what_is_left_out_is_told_with_a_sentence(api, of, sheep):
    keep(call(datetime(2026, 10, 1, 12, tzinfo=UTC), 0, 1000, 4, **of))

    found = got(api, "savings", since="2026-10-01", until="2026-11-01", other="book:holysheep")

    assert found["comparison"]["left_out"] == [
        {
            "why": "no_rate",
            "sentence": "There is no exchange rate from the other side's currency on these days.",
            "route": "gpt-4o",
            "days": ["2026-10-01"],
            "cost_nanos": 4 * NANOS,
        }
    ]


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"since": "2026-10-02", "until": "2026-10-02"}, "until"),
        ({"since": "2025-10-01", "until": "2026-10-31"}, "until"),
        ({"other": "book:nobody"}, "other"),
        ({"book": "nobody"}, "book"),
        ({"since": "1999-01-01"}, "since"),
        ({"currency": "dollars"}, "currency"),
        ({"team": 10**30}, "team"),
    ],
)
def test_what_cannot_be_asked_is_a_422_with_its_field(api, asked, field):
    answer = api.get("/api/savings", asked)

    assert answer.status_code == 422
    assert [each["field"] for each in answer.json()["errors"]] == [field]


def test_a_team_of_others_is_not_there(api, administrator):
    other = accounts.create_team("Solar", User.objects.create_user("otto@example.com"))

    assert api.get("/api/savings", {"team": other.pk}).status_code == 404
    assert api.get("/api/forecast", {"team": other.pk}).status_code == 404
    assert administrator.get("/api/forecast", {"team": other.pk}).status_code == 200
    assert administrator.get("/api/forecast", {"team": 10**30}).status_code == 422


def test_usage_of_other_teams_is_not_added_up(api, of, sheep):
    other = accounts.create_team("Solar", User.objects.create_user("otto@example.com"))
    keep(call(datetime(2026, 10, 1, tzinfo=UTC), 5, 5, 5, **{**of, "team_id": other.pk}))

    assert got(api, "savings", since="2026-10-01", until="2026-11-01")["routes"] == []


def test_a_forecast_of_a_team_and_together(administrator, of, team, sheep):
    noon = datetime.combine(timezone.now().date(), time(12), UTC)
    keep(*[call(noon - timedelta(days=ago), cost=2, **of) for ago in range(1, 11)])

    found = got(administrator, "forecast", zone="UTC")

    assert found["together"]["cost_nanos"]["history_days"] == 10
    assert found["together"]["cost_nanos"]["expected"] >= found["together"]["cost_nanos"]["so_far"]
    assert [(each["team"], each["name"]) for each in found["teams"]] == [(str(team.pk), "Hydro")]
    assert found["month"] == f"{noon:%Y-%m}"


def test_a_young_ledger_foretells_nothing(api):
    found = got(api, "forecast")["together"]["calls"]

    assert found["expected"] is found["low"] is found["high"] is found["mean_error"] is None
    assert found["history_days"] == 0


def test_a_time_zone_that_nobody_knows_is_refused(api):
    assert api.get("/api/forecast", {"zone": "Mars/Base"}).status_code == 422


# Reconciliation


def sent(client, provider, text, content_type="text/csv", **asked):
    query = "&".join(f"{name}={value}" for name, value in {"provider": provider.pk, **asked}.items())
    return client.post(f"/api/reconciliation?{query}", text, content_type=content_type)


def test_a_bill_is_compared_with_the_books(administrator, of, sheep):
    noon = datetime(2026, 10, 1, 12, tzinfo=UTC)
    keep(call(noon, 100, 20, 1, **of), guessed := call(noon, 50, 10, 0.5, basis="estimated", **of))

    answer = sent(
        administrator, sheep, "day,model,tokens,cost,project\n2026-10-01,gpt-4o-2024-08-06,240,2.00,x\n"
    )

    assert answer.status_code == 200
    found = answer.json()
    assert found["totals"]["tokens"] == {"ours": 180, "theirs": 240, "difference": -60, "share": 0.75}
    assert found["totals"]["input_tokens"] is None
    (row,) = found["rows"]
    assert (row["upstream_model"], row["lines"], row["is_even"], row["is_known"]) == (
        "gpt-4o",
        [2],
        False,
        True,
    )
    assert row["reasons"] == [
        {
            "kind": "estimated",
            "sentence": "Usage was estimated by us, because the provider reported none.",
            "attempts": 1,
            "tokens": 60,
            "cost_nanos": 500_000_000,
            "examples": [guessed.call_id],
        }
    ]
    assert found["not_read"] == ["project"]


def test_a_file_that_cannot_be_read_is_a_422_with_its_lines(administrator, sheep):
    answer = sent(administrator, sheep, "day,model,cost\nx,a,1\n2026-10-01,a,$1\n")

    assert answer.status_code == 422
    assert [each["field"] for each in answer.json()["errors"]] == ["line 2", "line 3"]


def test_a_bill_comes_as_csv(administrator, sheep):
    answer = sent(administrator, sheep, "{}", "application/json")

    assert answer.status_code == 415
    assert answer.json()["detail"] == "Send CSV, with Content-Type: text/csv."


def test_a_provider_that_is_not_there_is_a_404(administrator, sheep):
    sheep.pk += 1

    assert sent(administrator, sheep, "day,model,cost\n2026-10-01,a,1\n").status_code == 404


def test_a_bill_is_for_administrators(api, sheep):
    assert sent(api, sheep, "day,model,cost\n2026-10-01,a,1\n").status_code == 403


def test_a_bill_counts_the_days_of_a_zone(administrator, sheep):
    text = f"day,model,cost\n{date(2026, 10, 1)},a,1\n"

    assert (
        sent(administrator, sheep, text, zone="America/Los_Angeles").json()["zone"] == "America/Los_Angeles"
    )
    assert sent(administrator, sheep, text, zone="Mars/Base").status_code == 422
