"""Calls and refusals by the management API: found, paged through, explained, and nobody else's."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.test import Client

from accounts.models import ApiKey, Membership, Team, User
from gateway import calls_examples as examples
from gateway.ledger.calls import Place
from gateway.ledger.writer import book
from gateway.models import TagName
from gateway.relay.call import new_call_id
from gateway.relay.records import Refusals
from tests.gateway.records import AT_US, opened, refused, settled

pytestmark = pytest.mark.django_db(transaction=True)

AT = datetime.fromtimestamp(AT_US / 1_000_000, UTC)


@pytest.fixture
def team() -> Team:
    return Team.objects.create(name="Tide", slug="tide")


@pytest.fixture
def key(team) -> ApiKey:
    return ApiKey.objects.create(team=team, name="nightly")


@pytest.fixture
def client(team) -> Client:
    alice = User.objects.create_user("alice@example.com")
    Membership.objects.create(user=alice, team=team, role=Membership.Role.VIEWER)
    made = Client()
    made.force_login(alice)
    return made


@pytest.fixture
def stranger() -> Client:
    otto = User.objects.create_user("otto@example.com")
    Membership.objects.create(user=otto, team=Team.objects.create(name="Solar", slug="solar"), role="owner")
    made = Client()
    made.force_login(otto)
    return made


def calls_of(team, key, number, **changes):
    made = []
    for each in range(number):
        at_us = AT_US + each * 60_000_000
        call = opened(
            call_id=new_call_id(at_us * 1000), started_at_us=at_us, team_id=team.pk, key_id=key.pk,
            tags={"app": "tide"},
        )  # fmt: skip
        made.append(settled(call, **changes))
    book(made)
    return [each.call_id for each in reversed(made)]


def test_pages_follow_each_other_and_end(client, team, key):
    ids = calls_of(team, key, 5)

    first = client.get("/api/calls", {"limit": 3}).json()
    second = client.get("/api/calls", {"limit": 3, "after": first["next"]}).json()

    assert [each["call_id"] for each in first["items"] + second["items"]] == ids
    assert second["next"] is None
    assert first["items"][0]["key"] == "nightly"


def test_every_filter_narrows(client, team, key):
    TagName.objects.create(team=team, name="app")
    calls_of(team, key, 2)
    calls_of(
        team, key, 1, outcome="failed", status=502, code="upstream_error", priority="batch", unpriced=True
    )

    for question, number in (
        ({"team": team.pk}, 3),
        ({"key": key.pk}, 3),
        ({"key": key.pk + 1}, 0),
        ({"route": "gpt-4o"}, 3),
        ({"route": "other"}, 0),
        ({"target": "openai/gpt-4o"}, 3),
        ({"outcome": "failed"}, 1),
        ({"code": "upstream_error"}, 1),
        ({"priority": "batch"}, 1),
        ({"unpriced": "true"}, 1),
        ({"tag": "app=tide"}, 3),
        ({"tag": "app=other"}, 0),
        ({"since": (AT + timedelta(seconds=30)).isoformat()}, 1),
        ({"until": (AT + timedelta(seconds=30)).isoformat()}, 2),
    ):
        found = client.get("/api/calls", question).json()["items"]
        assert len(found) == number, question


@pytest.mark.parametrize(
    ("question", "field"),
    [
        ({"after": "nowhere"}, "after"),
        ({"after": str(Place(datetime.max.replace(tzinfo=UTC), UUID(int=1)))}, "after"),
        ({"tag": "app"}, "tag"),
        ({"tag": "app=tide"}, "tag"),
        ({"key": 10**30}, "key"),
        ({"team": 10**30}, "team"),
    ],
)
def test_what_cannot_be_asked_is_said_with_its_name(client, question, field):
    answer = client.get("/api/calls", question)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field


def test_a_call_is_explained_in_the_shape_of_the_example(client, team, key):
    [call_id] = calls_of(team, key, 1)

    told = client.get(f"/api/calls/{call_id}").json()

    assert set(told) == set(examples.EXPLANATION)
    assert set(told["attempts"][0]) == set(examples.TRIED)
    assert (told["team"], told["key"], told["cost_nanos"]) == ("Tide", "nightly", 22_500)


def test_a_call_that_is_not_there_and_one_of_another_team_look_alike(client, stranger, team, key):
    [call_id] = calls_of(team, key, 1)

    foreign = stranger.get(f"/api/calls/{call_id}")
    unknown = stranger.get(f"/api/calls/{opened().call_id}")

    assert foreign.status_code == unknown.status_code == 404
    assert foreign.json() == unknown.json()
    assert "still under way" in foreign.content.decode()
    assert stranger.get("/api/calls").json()["items"] == []
    assert stranger.get("/api/calls", {"team": team.pk}).status_code == 404


def test_a_refusal_is_listed_and_explained(client, stranger, team, key):
    row = refused(team_id=team.pk, key_id=key.pk, code="rate_limit_exceeded")
    book([], [Refusals(row.call_id, row.at_us, (), (row,))])

    [listed] = client.get("/api/refusals", {"code": "rate_limit_exceeded"}).json()["items"]

    assert client.get(f"/api/refusals/{row.call_id}").json() == listed
    assert set(listed) == set(examples.REFUSED)
    assert client.get("/api/refusals", {"code": "overloaded"}).json()["items"] == []
    assert "GET /api/refusals" in client.get(f"/api/calls/{row.call_id}").content.decode()
    assert stranger.get("/api/refusals").json()["items"] == []
    assert stranger.get(f"/api/refusals/{row.call_id}").status_code == 404
