from datetime import UTC, datetime

import pytest
from django.db import IntegrityError, connection, transaction

from accounts import audit, services
from accounts.actor import Actor, acting_as, actor
from accounts.models import AuditEvent


@pytest.fixture
def event(team) -> AuditEvent:
    with acting_as(Actor("person", "alice@example.com", 7, "192.0.2.1", "a browser")):
        return audit.record("team.praised", team, team=team, before={"praise": 0}, after={"praise": 1})


def test_an_event_says_who_did_what_from_where_to_which(event, team):
    event.refresh_from_db()
    assert (event.actor_kind, event.actor_name, event.actor_id) == ("person", "alice@example.com", 7)
    assert (event.address, event.user_agent) == ("192.0.2.1", "a browser")
    assert (event.action, event.subject_kind, event.subject_id, event.subject_name) == (
        "team.praised",
        "team",
        str(team.pk),
        "Search",
    )
    assert (event.before, event.after) == ({"praise": 0}, {"praise": 1})


def test_where_nobody_said_who_it_is_the_house_itself(team):
    with acting_as(Actor("person", "alice@example.com")):
        assert actor().name == "alice@example.com"
    assert (actor().kind, actor().name) == ("system", "Penstock")


def test_moments_and_collections_are_written_plainly(team):
    at = datetime(2026, 1, 2, tzinfo=UTC)
    event = audit.record("team.praised", team, after={"at": at, "who": {"alice"}, "by": {"x": (at,)}})
    event.refresh_from_db()
    assert event.after == {"at": at.isoformat(), "who": ["alice"], "by": {"x": [at.isoformat()]}}


def test_an_event_can_neither_be_changed_nor_deleted(event):
    event.action = "team.scolded"
    for attempt in (
        event.save,
        event.delete,
        AuditEvent.objects.all().delete,
        lambda: AuditEvent.objects.update(action="team.scolded"),
    ):
        with pytest.raises(TypeError, match="append only"):
            attempt()
    assert AuditEvent.objects.get(pk=event.pk).action == "team.praised"


def test_the_database_refuses_a_change_whoever_asks(event):
    def change() -> None:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE accounts_auditevent SET action = 'team.scolded'")

    with pytest.raises(IntegrityError, match="append only"), transaction.atomic():
        change()
    assert AuditEvent.objects.get(pk=event.pk).action == "team.praised"


def test_a_change_that_did_not_happen_is_not_audited(team, alice):
    before = AuditEvent.objects.count()
    with pytest.raises(services.LastOwner):
        services.remove_member(team, alice)
    with pytest.raises(services.NameTaken):
        services.create_team("search", alice)
    assert AuditEvent.objects.count() == before


def test_every_write_is_audited_once(team, alice, bob, charlie):
    """Each service in turn, and what it wrote."""
    said: list[str] = [event.action for event in AuditEvent.objects.order_by("id")]

    def new() -> list[str]:
        events = [event.action for event in AuditEvent.objects.order_by("id")]
        fresh = events[len(said) :]
        said[:] = events
        return fresh

    assert said == ["team.created", "member.added", "member.added"]
    key, _ = services.create_key(team, "web", alice)
    assert new() == ["key.created"]
    services.set_priority_ceiling(key, "batch")
    assert new() == ["key.changed"]
    old = key.secrets.get()
    services.rotate_key(key, by=alice)
    services.end_overlap(old)
    assert new() == ["key.rotated", "key.overlap_ended"]
    services.revoke_key(key, by=alice)
    assert new() == ["key.revoked"]
    services.set_role(team, bob, "viewer", by=alice)
    assert new() == ["member.role_changed"]
    services.add_member(team, charlie, "member")
    services.leave_team(team, charlie)
    services.remove_member(team, bob)
    assert new() == ["member.added", "member.left", "member.removed"]
    invitation, _ = services.invite(team, alice, "member")
    services.withdraw_invitation(invitation)
    assert new() == ["invitation.made", "invitation.withdrawn"]
    services.archive_team(team, by=alice)
    services.restore_team(team)
    services.rename_team(team, "Find")
    assert new() == ["team.archived", "team.restored", "team.renamed"]
