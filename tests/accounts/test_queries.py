import typing
from datetime import timedelta

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.utils import timezone

from accounts import queries, services, tokens
from accounts.actor import Actor, acting_as
from accounts.models import ApiKey, AuditEvent, Invitation, KeySecret, KeyUse
from accounts.queries import AuditFilter

ACTIONS = typing.get_args(queries.Action)
OWNERS = {"see", "make_keys", "manage_keys", "manage_members", "manage_limits", "invite", "see_audit"}


@pytest.mark.parametrize(
    ("who", "allowed"),
    [
        ("alice", OWNERS),
        ("bob", {"see", "make_keys"}),
        ("vera", {"see"}),
        ("charlie", set()),
        ("ada", OWNERS | {"allow_urgent"}),
    ],
)
def test_what_each_may_do(request, team, who, allowed):
    person = request.getfixturevalue(who)
    assert {action for action in ACTIONS if queries.may(person, team, action)} == allowed


def test_who_is_not_signed_in_may_do_nothing(team):
    assert not any(queries.may(AnonymousUser(), team, action) for action in ACTIONS)


def test_an_inactive_account_may_do_nothing(team, alice, ada):
    for person in (alice, ada):
        person.is_active = False
        assert not any(queries.may(person, team, action) for action in ACTIONS)


def test_a_member_revokes_keys_of_their_own_making_only(team, alice, bob, vera, charlie):
    assert queries.may_revoke(bob, team, bob.pk)
    assert not queries.may_revoke(bob, team, alice.pk)
    assert not queries.may_revoke(bob, team, None)
    assert queries.may_revoke(alice, team, bob.pk)
    assert not queries.may_revoke(vera, team, vera.pk)
    assert not queries.may_revoke(charlie, team, charlie.pk)


def test_a_person_sees_own_teams_and_an_administrator_all(team, alice, charlie, ada):
    other = services.create_team("Billing", charlie)
    assert list(queries.teams_of(alice)) == [team]
    assert list(queries.teams_of(charlie)) == [other]
    assert list(queries.teams_of(ada)) == [other, team]


def test_teams_are_counted_once_for_each_person_and_key(team, alice):
    now = timezone.now()
    services.create_key(team, "one", alice)
    services.create_key(team, "two", alice, now + timedelta(days=1))
    gone, _ = services.create_key(team, "gone", alice)
    services.revoke_key(gone, by=alice)

    (counted,) = queries.with_counts(queries.teams_of(alice), now)
    assert (counted.people, counted.active_keys) == (3, 2)
    (later,) = queries.with_counts(queries.teams_of(alice), now + timedelta(days=2))
    assert later.active_keys == 1
    services.archive_team(team, by=alice)
    (archived,) = queries.with_counts(queries.teams_of(alice), now)
    assert (archived.people, archived.active_keys) == (3, 0)


def test_a_key_expires_at_its_moment(team, alice):
    moment = timezone.now() + timedelta(hours=1)
    key, _ = services.create_key(team, "web", alice, moment)
    assert queries.key_row(key, moment - timedelta(microseconds=1)).state == "active"
    assert queries.key_row(key, moment).state == "expired"


def test_a_key_shows_its_prefix_and_no_more(team, alice):
    key, text = services.create_key(team, "web", alice)
    row = queries.key_row(key, timezone.now())
    assert row.prefix == text[:16]
    assert text[17:30] not in repr(row)


def test_the_last_use_of_a_key_is_that_of_its_latest_secret(team, alice):
    key, _ = services.create_key(team, "web", alice)
    used = timezone.now() - timedelta(minutes=3)
    KeySecret.objects.filter(key=key).update(last_used_at=used)
    services.rotate_key(key, by=alice)
    assert queries.key_row(key, timezone.now()).last_used_at == used


def test_a_key_takes_two_queries_however_many_secrets(team, alice, django_assert_num_queries):
    key, _ = services.create_key(team, "web", alice)
    for _ in range(5):
        services.rotate_key(key, by=alice)
    key = ApiKey.objects.select_related("created_by").get(pk=key.pk)
    with django_assert_num_queries(2):  # its secrets, the programs that use those
        assert len(queries.key_row(key, timezone.now()).secrets) == 6


def test_what_an_administrator_set_only_an_administrator_changes(team, alice, bob, charlie, ada):
    key, _ = services.create_key(team, "web", bob)
    set_limit, set_quota = services.set_rate_limit, services.set_quota
    owners = [
        set_limit(team, "requests", 5, "small", by_administrator=False),
        set_limit(key, "requests", 5, by_administrator=False),
        set_quota(key, "tokens", 5, by_administrator=False),
    ]
    administrators = [
        set_limit(team, "requests", 5, by_administrator=True),
        set_quota(team, "tokens", 5, by_administrator=True),
        set_quota(key, "money", 5, by_administrator=True),
    ]
    everything = owners + administrators
    assert [row for row in everything if queries.may_change_limit(alice, row)] == owners
    assert [row for row in everything if queries.may_change_limit(ada, row)] == everything
    assert not any(queries.may_change_limit(each, row) for each in (bob, charlie) for row in everything)
    ada.is_active = False
    assert not any(queries.may_change_limit(ada, row) for row in everything)


def test_a_person_manages_the_keys_they_made(team, alice, bob, vera, charlie):
    key, _ = services.create_key(team, "web", bob)
    assert [who.email for who in (alice, bob, vera, charlie) if queries.may_manage_key(who, key)] == [
        alice.email,
        bob.email,
    ]


def used(secret: KeySecret, user_agent: str, at, uses: int = 1) -> None:
    KeyUse.objects.create(
        secret=secret,
        address="192.0.2.1",
        user_agent=user_agent,
        first_used_at=at,
        last_used_at=at,
        uses=uses,
    )


def test_a_key_tells_its_secrets_and_who_used_them_of_late(team, alice):
    key, _ = services.create_key(team, "web", alice, kind="personal")
    first = key.secrets.get()
    second, _ = services.rotate_key(key, by=alice, overlap=timedelta(0))
    third, _ = services.rotate_key(key, by=alice, overlap=timedelta(days=2))
    now = timezone.now() + timedelta(hours=1)
    used(third, "now and then", now - timedelta(minutes=5), 7)
    used(third, "busy", now - timedelta(minutes=1))
    used(third, "long ago", now - timedelta(hours=24))

    row = queries.key_row(ApiKey.objects.get(pk=key.pk), now)

    assert (row.kind, row.priority_ceiling, row.prefix) == ("personal", "normal", str(third)[:-1])
    assert [(each.id, each.state) for each in row.secrets] == [
        (third.pk, "current"),
        (second.pk, "overlapping"),
        (first.pk, "ended"),
    ]
    assert [each.user_agent for each in row.secrets[0].programs] == ["busy", "now and then"]
    assert row.secrets[0].programs[1].uses == 7
    assert queries.key_row(ApiKey.objects.get(pk=key.pk), now + timedelta(days=2)).secrets[1].state == "ended"


def test_a_key_tells_who_still_uses_an_old_secret(team, alice):
    key, _ = services.create_key(team, "web", alice)
    first = key.secrets.get()
    used(first, "already moved", timezone.now())
    second, _ = services.rotate_key(key, by=alice, overlap=timedelta(days=3))
    third, _ = services.rotate_key(key, by=alice, overlap=timedelta(days=2))
    now = timezone.now() + timedelta(days=1, hours=12)
    used(first, "laggard", now - timedelta(days=1, hours=6))
    used(first, "both", now - timedelta(hours=2))
    used(second, "both", now - timedelta(hours=1))
    used(third, "up to date", now)

    row = queries.key_row(ApiKey.objects.get(pk=key.pk), now)
    assert [(each.user_agent, each.last_used_at) for each in row.old_secret_users] == [
        ("both", now - timedelta(hours=1)),
        ("laggard", now - timedelta(days=1, hours=6)),
    ]
    assert queries.key_row(ApiKey.objects.get(pk=key.pk), now + timedelta(days=2)).old_secret_users == ()


def test_the_limits_of_an_owner_are_its_own(team, alice):
    key, _ = services.create_key(team, "web", alice)
    limit = services.set_rate_limit(team, "requests", 5, by_administrator=True)
    quota = services.set_quota(key, "tokens", 5, by_administrator=True)
    assert queries.limits_of(team) == ([limit], [])
    assert queries.limits_of(key) == ([], [quota])


def test_open_invitations_are_those_that_can_be_accepted(team, alice):
    waiting, _ = services.invite(team, alice, "member")
    withdrawn, _ = services.invite(team, alice, "member")
    services.withdraw_invitation(withdrawn)
    expired, _ = services.invite(team, alice, "member")
    Invitation.objects.filter(pk=expired.pk).update(expires_at=timezone.now())
    assert list(queries.open_invitations(team, timezone.now())) == [waiting]


def test_access_tokens_are_ones_own(alice, ada):
    mine, _ = tokens.make_token(alice, "deploy", ["read"])
    assert list(queries.access_tokens_of(alice)) == [mine]
    assert list(queries.access_tokens_of(ada)) == []


def test_owners_see_their_teams_audit_and_administrators_all(team, alice, bob, vera, charlie, ada):
    other = services.create_team("Billing", charlie)
    tokens.make_token(alice, "deploy", ["read"])
    everything = set(AuditEvent.objects.all())
    ours = {event for event in everything if event.team_id == team.pk}

    assert ours
    assert set(queries.audit_events(ada)) == everything
    assert set(queries.audit_events(alice)) == ours
    assert set(queries.audit_events(ada, team)) == ours
    assert set(queries.audit_events(charlie)) == {each for each in everything if each.team_id == other.pk}
    for nobody in (bob, vera):
        assert not queries.audit_events(nobody).exists()
        assert not queries.audit_events(nobody, team).exists()
    assert not queries.audit_events(alice, other).exists()
    ada.is_active = False
    assert not queries.audit_events(ada).exists()


def test_the_audit_is_asked_by_who_what_which_and_when(team, alice, ada):
    with acting_as(Actor("person", alice.email, alice.pk)):
        key, _ = services.create_key(team, "web", alice)
        services.set_rate_limit(key, "requests", 5, by_administrator=False)
    services.rotate_key(key, by=ada)

    def found(**asked: object) -> list[str]:
        return [event.action for event in queries.audit_events(ada, team, AuditFilter(**asked))]

    assert found(actor="ALICE@example.com") == ["rate_limit.set", "key.created"]
    assert found(action="key") == ["key.rotated", "key.created"]
    assert found(action="key.rotated") == ["key.rotated"]
    assert found(subject_kind="apikey", subject_id=str(key.pk)) == ["key.rotated", "key.created"]
    last = AuditEvent.objects.first()
    assert found(since=last.at) == ["key.rotated"]
    assert "key.rotated" not in found(until=last.at)
    assert found(actor="%") == []


@pytest.mark.parametrize(
    ("asked", "index"),
    [
        ({"actor": "nobody"}, "by_actor"),
        ({"action": "key.rotated"}, "by_action"),
        ({"action": "key"}, "by_area"),
        ({"actor": "nobody", "action": "key"}, "by_actor"),
        ({"subject_id": "7"}, "by_subject"),
        ({"subject_id": "7", "subject_kind": "apikey"}, "by_subject"),
    ],
    ids=lambda each: each if isinstance(each, str) else " ".join(each),
)
def test_the_audit_is_looked_through_by_indexes(ada, asked, index):
    events = queries.audit_events(ada, None, AuditFilter(**asked))[:50]

    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")  # which is quicker for a table of a few rows
        assert f"audit_event_{index}" in events.explain()
