"""Keys of the playground: a person has one in a team, for an hour, and nobody lists or changes it."""

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from accounts import queries, services
from accounts.models import ApiKey, AuditEvent
from accounts.services.keys import MOST_PLAYGROUNDS, PlaygroundsUsedUp


def test_it_lasts_an_hour_with_the_usual_limit_and_its_tag(team, alice, usual_limits, heard, committing):
    with committing():
        key, text = services.open_playground(team, alice)

    key.refresh_from_db()
    assert timedelta(minutes=59) < key.expires_at - timezone.now() <= timedelta(hours=1)
    assert key.tags == {"source": "playground"}
    assert [each.amount for each in key.rate_limits.all()] == [100]
    assert text.startswith("pst_")
    assert heard == ["changed"]


def test_the_one_before_is_revoked_and_others_are_left_alone(team, alice, bob):
    other_team = services.create_team("Other", alice)
    of_bob, _ = services.open_playground(team, bob)
    elsewhere, _ = services.open_playground(other_team, alice)
    lasting, _ = services.create_key(team, "laptop", alice, kind="personal")
    before, _ = services.open_playground(team, alice)

    after, _ = services.open_playground(team, alice)

    alive = set(ApiKey.objects.filter(revoked_at=None))
    assert alive == {of_bob, elsewhere, lasting, after}
    assert before not in alive


def test_it_is_in_the_audit_and_not_in_the_lists(team, alice):
    key, _ = services.open_playground(team, alice)

    client = Client()
    client.force_login(alice)
    assert client.get("/api/keys").json()["items"] == []
    assert client.get(f"/api/keys/{key.pk}").json()["kind"] == "playground"
    assert queries.with_counts(queries.teams_of(alice), timezone.now()).get().active_keys == 0
    told = AuditEvent.objects.get(subject_kind="apikey", subject_id=str(key.pk))
    assert (told.action, told.after["kind"]) == ("key.created", "playground")


def test_it_is_neither_changed_nor_rotated(team, alice):
    key, _ = services.open_playground(team, alice)

    with pytest.raises(services.WrongValue, match="stays as it is"):
        services.update_key(key, {"expires_at": None})
    with pytest.raises(services.WrongValue, match="stays as it is"):
        services.rotate_key(key, by=alice)


def test_no_other_key_becomes_one(team, alice):
    with pytest.raises(services.WrongValue, match="service, personal"):
        services.create_key(team, "web", alice, kind="playground")


def test_signing_out_ends_all_of_a_persons_and_says_why(team, alice, bob, heard, committing):
    other_team = services.create_team("Other", alice)
    for owner, person in ((team, alice), (other_team, alice), (team, bob)):
        services.open_playground(owner, person)

    with committing():
        services.close_playground(alice, why="signed out")

    assert [each.created_by for each in ApiKey.objects.filter(revoked_at=None)] == [bob]
    last = AuditEvent.objects.filter(action="key.revoked").latest("id")
    assert last.after["because"] == "signed out"
    assert heard == ["changed"]


def test_a_person_gets_so_many_an_hour_in_a_team(team, alice, bob):
    """And others, and the same person elsewhere or later, get theirs."""
    elsewhere = services.create_team("Other", alice)
    for _ in range(MOST_PLAYGROUNDS):
        services.open_playground(team, alice)

    with pytest.raises(PlaygroundsUsedUp, match="at most 20 keys an hour"):
        services.open_playground(team, alice)

    assert ApiKey.objects.count() == MOST_PLAYGROUNDS
    services.open_playground(team, bob)
    services.open_playground(elsewhere, alice)
    ApiKey.objects.update(created_at=timezone.now() - timedelta(minutes=61))
    services.open_playground(team, alice)


def test_leaving_the_team_ends_it(team, bob):
    key, _ = services.open_playground(team, bob)

    services.leave_team(team, bob)

    key.refresh_from_db()
    assert key.revoked_at is not None


def test_an_administrator_has_one_in_a_team_that_they_are_not_in(team, ada, charlie):
    key, _ = services.open_playground(team, ada)

    assert key.created_by == ada
    with pytest.raises(services.WrongValue, match="maker who is in the team"):
        services.open_playground(team, charlie)
