"""The names of tags that a team's usage is told apart by, and what becomes of its calls."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client

from accounts import services
from accounts.models import AuditEvent, User
from gateway.ledger import rollups
from gateway.ledger.writer import book
from gateway.models import TagRollup
from tests.gateway.ledger import naive
from tests.gateway.records import AT_US, opened, settled

LATER = datetime.fromtimestamp(AT_US / 1e6, UTC) + timedelta(days=2)


@pytest.fixture
def alice(db):
    return User.objects.create_user("alice@example.com")


@pytest.fixture
def team(alice):
    return services.create_team("Hydro", alice)


@pytest.fixture
def api(alice):
    client = Client()
    client.force_login(alice)
    return client


@pytest.fixture
def put(api, team):
    def put(*names):
        path = f"/api/teams/{team.pk}/tag-names"
        return api.put(path, json.dumps({"names": names}), content_type="application/json")

    return put


def test_names_are_set_and_listed(api, team, put):
    assert put("project", " env ", "project").json() == {"names": ["env", "project"]}
    assert put("env", "stage").json() == {"names": ["env", "stage"]}

    assert api.get(f"/api/teams/{team.pk}/tag-names").json() == {"names": ["env", "stage"]}
    event = AuditEvent.objects.filter(action="team.tag_names_changed").latest("pk")
    assert (event.before, event.after) == ({"names": ["env", "project"]}, {"names": ["env", "stage"]})


def test_the_same_names_again_change_nothing(put):
    put("env")
    put("env")

    assert AuditEvent.objects.filter(action="team.tag_names_changed").count() == 1


@pytest.mark.parametrize("names", [["a=b"], ["a,b"], [" "], ["x" * 65], [f"n{each}" for each in range(11)]])
def test_names_that_no_call_can_bring_or_too_many_are_refused(put, names):
    answer = put(*names)

    assert answer.status_code == 422
    assert "names" in json.dumps(answer.json())


def test_nothing_is_told_apart_in_an_archived_team(team, put, alice):
    services.archive_team(team, alice)

    assert put("env").status_code == 409


@pytest.mark.django_db(transaction=True)
def test_calls_of_before_are_told_apart_by_a_new_name(team, put):
    whose = {"team_id": team.pk, "key_id": 1}
    book([settled(opened(**whose, tags={"env": "prod"})), settled(opened(**whose, tags={"other": "x"}))])
    rollups.work(LATER)

    put("env")
    rollups.work(LATER)

    assert naive.found_of_tags() == naive.expected_of_tags()
    assert sorted(TagRollup.objects.values_list("value", "size", "calls")) == [
        ("prod", 1, 1),
        ("prod", 15, 1),
        ("prod", 1440, 1),
    ]

    put("other")
    rollups.work(LATER)
    assert set(TagRollup.objects.values_list("name", "value")) == {("other", "x")}
