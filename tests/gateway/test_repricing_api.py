"""Calls without a price, and late prices, by the management API."""

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from accounts import services
from accounts.models import User
from gateway.ledger.cover import DAY, QUARTER, floor
from gateway.ledger.spans import minute_of
from gateway.models import Provider, Repricing, Rollup, Route, Target

pytestmark = pytest.mark.django_db


@pytest.fixture
def alice() -> User:
    return User.objects.create_user("alice@example.com")


@pytest.fixture
def ada() -> User:
    return User.objects.create_superuser("ada@example.com")


@pytest.fixture
def team(alice):
    return services.create_team("Hydro", alice)


@pytest.fixture
def target(db) -> Target:
    provider = Provider.objects.create(slug="acme", name="Acme", base_url="https://acme.example/v1")
    route = Route.objects.create(model_name="llama-4", unpriced="allowed")
    return Target.objects.create(route=route, provider=provider, upstream_model="llama-4-70b")


def client_of(person: User) -> Client:
    client = Client()
    client.force_login(person)
    return client


def calls(team_id: int, count: int) -> None:
    """Unpriced ones of the hour before the last."""
    minute = minute_of(timezone.now() - timedelta(hours=2))
    for size in (QUARTER, DAY):
        Rollup.objects.create(
            **{
                "size": size,
                "start": floor(minute, size),
                "team_id": team_id,
                "key_id": 1,
                "route": "llama-4",
            },
            **{"target": "acme/llama-4-70b", "outcome": "answered", "code": "", "priority": "normal"},
            **{"calls": count, "unpriced": count, "input_tokens": 10 * count, "output_tokens": count},
        )


def test_a_team_beyond_all_numbers_is_said_to_be_wrong(alice, ada):
    for person in (alice, ada):
        assert client_of(person).get("/api/unpriced", {"team": 10**30}).status_code == 422


def test_a_person_sees_what_their_teams_lack(alice, team, target):
    calls(team.pk, 3)
    calls(team.pk + 1, 4)

    [told] = client_of(alice).get("/api/unpriced").json()

    assert (told["route"], told["target"], told["calls"]) == ("llama-4", "acme/llama-4-70b", 3)
    assert (told["input_tokens"], told["output_tokens"], told["is_mixed"]) == (30, 3, False)
    assert told["lacking"] == [{"target_id": target.pk, "name": "acme/llama-4-70b", "currency": ""}]


def test_an_administrator_sees_all_teams_or_one(ada, team, target):
    calls(team.pk, 3)
    calls(team.pk + 1, 4)
    client = client_of(ada)

    assert [each["calls"] for each in client.get("/api/unpriced").json()] == [7]
    assert [each["calls"] for each in client.get(f"/api/unpriced?team={team.pk}").json()] == [3]


def test_a_foreign_team_does_not_exist(alice, ada, team):
    solar = services.create_team("Solar", ada)

    assert client_of(alice).get(f"/api/unpriced?team={solar.pk}").status_code == 404


def test_repricings_are_listed_with_how_far_they_are(ada, target):
    now = timezone.now()
    for hours in (2, 1):
        Repricing.objects.create(
            **{"target_id": target.pk, "from_at": now - timedelta(hours=hours), "until_at": now},
            **{"cause": f"A price for {hours} hours.", "corrected": 7},
        )
    client = client_of(ada)

    first = client.get("/api/repricings?limit=1").json()
    second = client.get(f"/api/repricings?limit=1&after={first['next']}").json()

    assert [each["cause"] for each in first["items"]] == ["A price for 1 hours."]
    assert [each["cause"] for each in second["items"]] == ["A price for 2 hours."]
    assert second["next"] is None
    assert first["items"][0]["corrected"] == 7
    assert (first["items"][0]["place"], first["items"][0]["finished_at"]) == (None, None)


def test_repricings_are_for_operators(alice, target):
    assert client_of(alice).get("/api/repricings").status_code == 403
