from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.test import Client

from accounts.models import Membership, Team, User
from gateway.ledger.spans import minute_of
from gateway.models import Stale
from gateway.relay.records import Settled
from tests.gateway.ledger.usages import at, made, naive, rolled_up

pytestmark = pytest.mark.django_db

SINCE, UNTIL = at("2026-10-24T00:00"), at("2026-10-27T00:00")
SPAN = {"since": "2026-10-24T00:00:00Z", "until": "2026-10-27T00:00:00Z"}


@pytest.fixture
def calls() -> list[Settled]:
    found = made(teams=2, keys=2, calls=60, since=SINCE, until=UNTIL)
    rolled_up(found)
    return found


@pytest.fixture
def bob() -> Client:
    """A viewer of the second team, and of no other."""
    person = User.objects.create_user("bob@example.com")
    Membership.objects.create(team=Team.objects.get(slug="team1"), user=person, role="viewer")
    return signed_in(person)


@pytest.fixture
def ada() -> Client:
    return signed_in(User.objects.create_superuser("ada@example.com"))


def signed_in(person: User) -> Client:
    client = Client()
    client.force_login(person)
    return client


def asked(client: Client, path: str, status: int = 200, **query: Any) -> Any:
    answer = client.get(f"/api/{path}?{urlencode({**SPAN, **query}, doseq=True)}")
    assert answer.status_code == status, answer.content
    return answer.json()


def of_team(calls: list[Settled], slug: str) -> list[Settled]:
    team = Team.objects.get(slug=slug)
    return [each for each in calls if each.team_id == team.pk]


def test_an_administrator_is_told_of_everybody_and_a_viewer_of_their_teams(
    calls: list[Settled], ada: Client, bob: Client
) -> None:
    everybodys = asked(ada, "usage")["totals"]
    bobs = asked(bob, "usage")["totals"]

    assert everybodys["cost_nanos"] == naive(calls, SINCE, UNTIL).cost_nanos
    assert bobs["cost_nanos"] == naive(of_team(calls, "team1"), SINCE, UNTIL).cost_nanos
    assert bobs["latency"]["p50_us"] <= bobs["latency"]["p99_us"]


def test_a_team_of_others_does_not_exist(calls: list[Settled], bob: Client) -> None:
    asked(bob, "usage", 404, team=Team.objects.get(slug="team0").pk)
    asked(bob, "usage", 404, team=[Team.objects.get(slug="team1").pk, 10**6])


def test_a_series_has_one_more_edge_than_points(calls: list[Settled], ada: Client) -> None:
    found = asked(ada, "usage/series", zone="Europe/Berlin", step="day", by="key", most=3)

    assert found["edges"][1:3] == ["2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"]
    assert [each["name"][:4] for each in found["series"]] == ["team", "team", "team", "(oth"]
    assert {len(each["points"]) for each in found["series"]} == {len(found["edges"]) - 1}
    costs = [point["cost_nanos"] for each in found["series"] for point in each["points"]]
    assert sum(costs) == naive(calls, SINCE, UNTIL).cost_nanos


def test_a_breakdown_tells_names(calls: list[Settled], ada: Client) -> None:
    rows = asked(ada, "usage/breakdown", by="team")["rows"]

    assert {each["name"] for each in rows} == {"Team0", "Team1"}
    assert {each["value"] for each in rows} == {str(each.team_id) for each in calls}


def test_values_can_be_given_several_times(calls: list[Settled], ada: Client) -> None:
    found = asked(ada, "usage", outcome=["failed", "truncated"], route=["fast", "wise"])["totals"]

    wanted = [each for each in calls if each.outcome in ("failed", "truncated") and each.route != "gpt-4o"]
    assert (found["calls"], found["failed"], found["error_rate"]) == (len(wanted), len(wanted), 1.0)


def test_what_is_behind_is_told(calls: list[Settled], ada: Client) -> None:
    assert asked(ada, "usage")["behind_since"] is None
    Stale.objects.create(size=1, start=minute_of(SINCE), team_id=calls[0].team_id)

    assert asked(ada, "usage")["behind_since"] == "2026-10-24T00:00:00Z"


def test_days_without_an_exchange_rate_are_named(calls: list[Settled], ada: Client) -> None:
    found = asked(ada, "usage", currency="JPY")

    assert found["currency"] == "JPY"
    assert found["totals"]["no_rate_on"] == ["2026-10-24", "2026-10-25", "2026-10-26"]


def test_unless_said_it_is_the_last_30_days(ada: Client) -> None:
    found = ada.get("/api/usage").json()

    assert datetime.fromisoformat(found["until"]) - datetime.fromisoformat(found["since"]) == timedelta(
        days=30
    )


@pytest.mark.parametrize(
    ("path", "query", "sentence"),
    [
        ("usage", {"until": "2026-10-24T00:00:00Z"}, "The span ends before it begins."),
        ("usage", {"until": "2026-10-24T00:00:30Z"}, "shorter than what is added up"),
        ("usage", {"tag": "project"}, "Write a tag as name=value."),
        ("usage", {"currency": "yen"}, "pattern"),
        ("usage", {"outcome": "late"}, "Input should be"),
        ("usage/series", {"zone": "Mars/Olympus"}, "Nobody knows this time zone"),
        ("usage/series", {"step": "hour", "since": "2020-01-01T00:00:00Z"}, "ask for a longer step"),
        ("usage/series", {"step": "hour", "by": "key", "since": "2026-09-01T00:00:00Z"}, "at most 5000"),
        ("usage/breakdown", {"by": "weather"}, "pattern"),
        ("usage/breakdown", {"by": "tag:app", "tag": "project=x"}, "cannot be told apart by another"),
        ("usage.csv", {"zone": "Mars/Olympus"}, "Nobody knows this time zone"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_a_sentence(
    ada: Client, path: str, query: dict[str, str], sentence: str
) -> None:
    told = asked(ada, path, 422, **query)

    assert sentence in str(told["errors"])


def test_many_points_are_told_of_few_values(calls: list[Settled], ada: Client) -> None:
    long = {"step": "hour", "since": "2026-09-01T00:00:00Z"}

    assert len(asked(ada, "usage/series", **long)["edges"]) == 56 * 24 + 1
    assert len(asked(ada, "usage/series", **long, by="team", most=3)["series"]) == 2


def test_a_month_of_a_statement_has_a_year_and_a_number(calls: list[Settled], ada: Client) -> None:
    path = f"teams/{calls[0].team_id}/statement.csv"

    asked(ada, path, 422, month="2026-13")
    asked(ada, path, 422)
