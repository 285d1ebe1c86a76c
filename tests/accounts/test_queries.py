from datetime import timedelta

import pytest
from django.contrib.auth.models import AnonymousUser
from django.utils import timezone

from accounts import queries, services
from accounts.models import KeySecret

ACTIONS = ("see", "make_keys", "manage_keys", "manage_members")


@pytest.mark.parametrize(
    ("who", "allowed"),
    [
        ("alice", {"see", "make_keys", "manage_keys", "manage_members"}),
        ("bob", {"see", "make_keys"}),
        ("vera", {"see"}),
        ("charlie", set()),
        ("ada", {"see", "make_keys", "manage_keys", "manage_members"}),
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


def test_keys_say_their_state_and_active_ones_come_first(team, alice):
    now = timezone.now()
    services.create_key(team, "active", alice)
    services.create_key(team, "expired", None, now + timedelta(hours=1))
    revoked, _ = services.create_key(team, "revoked", alice, now + timedelta(hours=1))
    services.revoke_key(revoked, by=alice)

    rows = queries.keys_of(team, now + timedelta(hours=2))

    assert [(row.name, row.state) for row in rows] == [
        ("active", "active"),
        ("revoked", "revoked"),
        ("expired", "expired"),
    ]
    assert [row.made_by for row in rows] == [alice.email, alice.email, ""]


def test_a_key_expires_at_its_moment(team, alice):
    moment = timezone.now() + timedelta(hours=1)
    services.create_key(team, "web", alice, moment)
    assert queries.keys_of(team, moment - timedelta(microseconds=1))[0].state == "active"
    assert queries.keys_of(team, moment)[0].state == "expired"


def test_a_listed_key_shows_its_prefix_and_no_more(team, alice):
    _, text = services.create_key(team, "web", alice)
    (row,) = queries.keys_of(team, timezone.now())
    assert row.prefix == text[:16]
    assert text[17:30] not in repr(row)


def test_the_last_use_of_a_key_is_that_of_its_latest_secret(team, alice):
    key, _ = services.create_key(team, "web", alice)
    used = timezone.now() - timedelta(minutes=3)
    KeySecret.objects.filter(key=key).update(last_used_at=used)
    KeySecret.objects.create(key=key, public_id="0" * 12, digest=b"", pepper_id="x")
    assert queries.keys_of(team, timezone.now())[0].last_used_at == used


def test_the_keys_of_many_teams_take_two_queries(alice, django_assert_num_queries):
    teams = [services.create_team(f"Team {number}", alice) for number in range(5)]
    for each in teams:
        services.create_key(each, "web", alice)
    with django_assert_num_queries(2):  # keys with their makers, their secrets
        rows = queries.keys_by_team(teams, timezone.now())
    assert [len(rows[each.pk]) for each in teams] == [1] * 5
