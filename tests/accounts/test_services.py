from datetime import timedelta

import pytest
from django.conf import settings
from django.utils import timezone

from accounts import keys, services
from accounts.changes import change_number
from accounts.models import ApiKey, KeySecret, Membership, Team, User
from accounts.signals import changed, rights_changed


@pytest.fixture
def heard():
    """What went up as news: `changed`, or the id of the person whose rights changed."""
    news: list[object] = []

    def on_change(**_):
        news.append("changed")

    def on_rights(user_id, **_):
        news.append(user_id)

    changed.connect(on_change)
    rights_changed.connect(on_rights)
    yield news
    changed.disconnect(on_change)
    rights_changed.disconnect(on_rights)


@pytest.fixture
def committing(django_capture_on_commit_callbacks):
    return lambda: django_capture_on_commit_callbacks(execute=True)


def roles(team: Team) -> dict[str, str]:
    return dict(Membership.objects.filter(team=team).values_list("user__email", "role"))


def test_a_new_team_has_its_maker_as_owner(alice, heard, committing):
    with committing():
        team = services.create_team("  Search   and find ", alice)

    assert (team.name, team.slug) == ("Search and find", "search-and-find")
    assert roles(team) == {alice.email: "owner"}
    assert heard == ["changed", alice.pk]


@pytest.mark.parametrize("name", ["Search", "search", " SEARCH "])
def test_a_team_name_is_taken_in_any_case(team, alice, name):
    with pytest.raises(services.NameTaken, match="already"):
        services.create_team(name, alice)


def test_teams_whose_names_give_the_same_slug_are_numbered(alice):
    slugs = [services.create_team(name, alice).slug for name in ("R&D", "R D", "検索", "料金")]
    assert slugs == ["rd", "r-d", "team", "team-2"]


@pytest.mark.parametrize("name", ["", "   ", "x" * 101])
def test_a_team_needs_a_name_of_bearable_length(alice, name):
    with pytest.raises(services.NoName):
        services.create_team(name, alice)


def test_somebody_is_added_once(team, charlie, heard, committing):
    with committing():
        services.add_member(team, charlie, "viewer")
    assert roles(team)[charlie.email] == "viewer"
    assert heard == ["changed", charlie.pk]

    with pytest.raises(
        services.AlreadyMember, match=r"charlie@example.com is in Search already, as viewer\."
    ):
        services.add_member(team, charlie, "owner")
    assert roles(team)[charlie.email] == "viewer"


def test_there_is_no_other_role(team, charlie):
    with pytest.raises(ValueError, match="emperor"):
        services.add_member(team, charlie, "emperor")


def test_an_owner_makes_another_owner(team, alice, bob, heard, committing):
    with committing():
        services.set_role(team, bob, "owner", by=alice)
    assert roles(team)[bob.email] == "owner"
    assert heard == ["changed", bob.pk]


def test_nobody_raises_their_own_role(team, bob, vera):
    for person, role in ((bob, "owner"), (vera, "member"), (vera, "owner")):
        with pytest.raises(services.OwnRoleRaised):
            services.set_role(team, person, role, by=person)


def test_anybody_may_lower_their_own_role(team, alice, bob):
    services.set_role(team, bob, "viewer", by=bob)
    assert roles(team)[bob.email] == "viewer"


def test_the_last_owner_stays_owner(team, alice, heard):
    with pytest.raises(services.LastOwner):
        services.set_role(team, alice, "member", by=alice)
    with pytest.raises(services.LastOwner):
        services.remove_member(team, alice)
    assert roles(team)[alice.email] == "owner"
    assert heard == []


def test_one_of_two_owners_may_go(team, alice, bob, heard, committing):
    services.set_role(team, bob, "owner", by=alice)
    with committing():
        services.remove_member(team, alice)
    assert alice.email not in roles(team)
    assert heard[-1] == alice.pk
    with pytest.raises(services.LastOwner):
        services.remove_member(team, bob)


def test_who_is_not_in_the_team_has_no_role_to_change(team, alice, charlie):
    with pytest.raises(services.NotAMember):
        services.set_role(team, charlie, "owner", by=alice)
    with pytest.raises(services.NotAMember):
        services.remove_member(team, charlie)


def test_a_key_is_stored_as_a_digest_only(team, alice, heard, committing):
    with committing():
        key, text = services.create_key(team, "web", alice)

    parts = keys.take_apart(text)
    stored = KeySecret.objects.get(key=key)
    pepper = settings.KEY_PEPPERS[0]
    assert stored.public_id == parts.public_id
    assert bytes(stored.digest) == keys.digest(parts.secret, pepper)
    assert stored.pepper_id == keys.pepper_id(pepper)
    assert parts.secret not in repr(ApiKey.objects.values().get(pk=key.pk)) + repr(stored.__dict__)
    assert heard == ["changed"]


def test_a_key_cannot_expire_before_it_is_made(team, alice):
    with pytest.raises(services.ExpiryPassed):
        services.create_key(team, "web", alice, timezone.now() - timedelta(seconds=1))
    assert not ApiKey.objects.exists()


def test_a_revoked_key_says_when_and_by_whom(team, alice, heard, committing):
    key, _ = services.create_key(team, "web", alice)
    with committing():
        services.revoke_key(key, by=alice)

    key.refresh_from_db()
    assert key.revoked_at is not None
    assert key.revoked_by == alice
    assert heard == ["changed"]


def test_a_key_is_revoked_once(team, alice, bob):
    key, _ = services.create_key(team, "web", alice)
    services.revoke_key(key, by=alice)
    with pytest.raises(services.AlreadyRevoked):
        services.revoke_key(key, by=bob)
    key.refresh_from_db()
    assert key.revoked_by == alice


def test_calls_with_a_new_key_are_normal_at_most_unless_said_otherwise(team, alice):
    usual, _ = services.create_key(team, "web", alice)
    nightly, _ = services.create_key(team, "nightly", alice, priority_ceiling="batch")

    assert (usual.priority_ceiling, nightly.priority_ceiling) == ("normal", "batch")

    services.set_priority_ceiling(nightly, "urgent")
    nightly.refresh_from_db()
    assert nightly.priority_ceiling == "urgent"


def test_every_write_counts_as_a_change(alice, bob):
    numbers = [change_number()]

    def counted(_=None):
        numbers.append(change_number())

    team = services.create_team("Search", alice)
    counted()
    counted(services.add_member(team, bob, "member"))
    counted(services.set_role(team, bob, "viewer", by=alice))
    key, _ = services.create_key(team, "web", alice)
    counted()
    counted(services.set_priority_ceiling(key, "urgent"))
    counted(services.revoke_key(key, by=alice))
    counted(services.remove_member(team, bob))
    assert numbers == list(range(8))


@pytest.mark.django_db
def test_an_address_belongs_to_one_account_in_any_case(alice):
    from django.db import IntegrityError, transaction

    with pytest.raises(IntegrityError), transaction.atomic():
        User.objects.create_user("ALICE@example.com", "x")
