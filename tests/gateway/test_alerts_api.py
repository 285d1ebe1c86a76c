"""The management API of alerts and channels: what it asks of access tokens, and how it refuses tests."""

import json

import pytest
from django.core.cache import cache
from django.test import Client

from accounts import channels, services, tokens
from accounts.models import Channel, User
from gateway.alerts import services as alerts
from gateway.alerts.trying import A_MINUTE
from tests.gateway import receivers

pytestmark = pytest.mark.django_db(transaction=True)

SYSTEM_CHANNEL = {"team_id": None, "kind": "webhook", "name": "Inside", "address": "http://127.0.0.1:9/"}
SYSTEM_ALERT = {"team_id": None, "kind": "breaker", "name": "Breakers", "threshold": 60}


@pytest.fixture(autouse=True)
def _no_tests_counted():
    cache.clear()


@pytest.fixture
def receiver():
    with receivers.receiver() as made:
        yield made


@pytest.fixture
def alice() -> User:
    return User.objects.create_user("alice@example.com")


@pytest.fixture
def ada() -> User:
    return User.objects.create_superuser("ada@example.com")


@pytest.fixture
def channel(alice, receiver) -> Channel:
    return channels.add_channel(services.create_team("Search", alice), "slack", "#llm", receiver.url, alice)


def asker(person, *scopes: str):
    """Gives the answer to a request with an access token of the person's."""
    _, text = tokens.make_token(person, "program", scopes)
    client = Client(headers={"Authorization": f"Bearer {text}"})

    def ask(method, path, body=None, **headers):
        sent = "" if body is None else json.dumps(body)
        return client.generic(method, f"/api{path}", sent, content_type="application/json", headers=headers)

    return ask


def test_what_is_of_the_system_takes_a_token_that_may_operate(ada):
    teams, operate = asker(ada, "read", "teams"), asker(ada, "read", "teams", "operate")

    for kind, new in (("channels", SYSTEM_CHANNEL), ("alerts", SYSTEM_ALERT)):
        refused = teams("POST", f"/{kind}", new)
        assert (refused.status_code, "'operate'" in refused.json()["detail"]) == (403, True)
        made = operate("POST", f"/{kind}", new).json()
        address = f"/{kind}/{made['id']}"
        assert teams("GET", address).json() == made | ({"secret": None} if kind == "channels" else {})
        assert operate("GET", address).json() == made
        assert teams("PATCH", address, {"name": "Mine"}).status_code == 403
        assert teams("POST", f"{address}/test").status_code == 403
        assert teams("DELETE", address).status_code == 403
        assert operate("DELETE", address).status_code == 204


def test_what_is_of_a_team_takes_a_token_of_teams_alone(alice, channel):
    ask = asker(alice, "read", "teams")

    assert ask("PATCH", f"/channels/{channel.pk}", {"name": "#ops"}).status_code == 200
    assert ask("POST", f"/channels/{channel.pk}/test").json()["messages"][0]["answer"] == "it answered 204"


def test_too_many_tests_are_a_429_that_says_when_to_ask_again(alice, channel, receiver):
    ask = asker(alice, "read", "teams")
    values = {"name": "Spend", "threshold": 1, "tell_owners": False}
    alert = alerts.add_alert(channel.team, "spend", values, [channel], alice)

    paths = [f"/channels/{channel.pk}/test", f"/alerts/{alert.pk}/test"] * (A_MINUTE + 1)
    answers = [ask("POST", each) for each in paths]

    # Two more than twice as many as a minute allows: enough where a full minute began meanwhile.
    refused = [each for each in answers if each.status_code == 429]
    assert refused
    assert len(receiver.heard) + len(refused) == len(answers)
    for each in refused:
        assert each.json()["detail"].startswith("At most 5 tests a minute")
        assert 1 <= int(each["Retry-After"]) <= 60


def test_a_test_with_an_idempotency_key_waits_for_the_next_delivery(alice, channel, receiver):
    ask = asker(alice, "read", "teams")

    answers = [ask("POST", f"/channels/{channel.pk}/test", **{"Idempotency-Key": "one"}) for _ in range(2)]

    assert answers[0].json() == answers[1].json()
    assert answers[0].json()["messages"][0]["next_try_at"] is not None
    assert receiver.heard == []


def test_in_an_archived_team_nothing_is_made_or_tested(alice, channel, receiver):
    services.archive_team(channel.team, alice)
    ask, team_id = asker(alice, "read", "teams"), channel.team_id

    for path, new in (
        ("/channels", {"team_id": team_id, "kind": "mail", "name": "z", "address": "a@b.example"}),
        ("/alerts", {"team_id": team_id, "kind": "spend", "name": "a", "threshold": 1}),
        (f"/channels/{channel.pk}/test", None),
    ):
        answer = ask("POST", path, new)
        assert (answer.status_code, answer.json()["detail"]) == (
            409,
            "Search is archived: restore it first.",
        )

    assert receiver.heard == []
