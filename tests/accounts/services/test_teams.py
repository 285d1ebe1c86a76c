import pytest

from accounts import services
from accounts.actor import Actor, acting_as
from accounts.models import ApiKey, Membership, Team


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


def test_an_owner_whose_account_is_switched_off_is_not_the_one_that_stays(team, alice, bob):
    services.set_role(team, bob, "owner", by=alice)
    bob.is_active = False
    bob.save()
    with pytest.raises(services.LastOwner):
        services.leave_team(team, alice)
    services.remove_member(team, bob)
    assert roles(team)[alice.email] == "owner"


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


def test_a_team_begins_with_the_usual_limits_which_are_an_administrators(alice, usual_limits):
    team = services.create_team("Search", alice)
    assert [(each.kind, each.amount, each.by_administrator) for each in team.rate_limits.all()] == [
        ("requests", 500, True),
        ("tokens", 100_000, True),
    ]


def test_without_usual_limits_a_team_begins_with_none(alice):
    assert not services.create_team("Search", alice).rate_limits.exists()


def test_a_team_is_renamed_and_keeps_its_address(team, alice, audited):
    services.create_team("Billing", alice)
    services.rename_team(team, "  Find ")
    team.refresh_from_db()
    assert (team.name, team.slug) == ("Find", "search")
    (event,) = audited("team.renamed")
    assert (event.before, event.after) == ({"name": "Search"}, {"name": "Find"})
    with pytest.raises(services.NameTaken):
        services.rename_team(team, "billing")
    services.rename_team(team, "FIND")  # its own name in another case is not taken


def test_an_archived_team_stays_and_makes_nothing_new(team, alice, bob, charlie, heard, committing):
    key, _ = services.create_key(team, "web", alice)
    with committing():
        services.archive_team(team, by=alice)
    assert heard == ["changed", alice.pk, bob.pk, team.memberships.get(role="viewer").user_id]
    wishes = [
        lambda: services.create_key(team, "more", alice),
        lambda: services.update_key(key, {"name": "other"}),
        lambda: services.rotate_key(key, by=alice),
        lambda: services.add_member(team, charlie, "member"),
        lambda: services.invite(team, alice, "member"),
        lambda: services.rename_team(team, "Other"),
        lambda: services.set_rate_limit(team, "requests", 5, by_administrator=True),
        lambda: services.set_quota(key, "requests", 5, by_administrator=True),
        lambda: services.archive_team(team, by=alice),
    ]
    for wish in wishes:
        with pytest.raises(services.Archived, match="is archived"):
            wish()
    assert ApiKey.objects.get() == key


def test_a_restored_team_goes_on_as_before(team, alice):
    with pytest.raises(services.NotPossible, match="is not archived"):
        services.restore_team(team)
    services.archive_team(team, by=alice)
    services.restore_team(team)
    services.create_key(team, "web", alice)
    assert roles(team)[alice.email] == "owner"


def test_an_invitation_does_not_outlive_the_archiving(team, alice):
    _, link = services.invite(team, alice, "member")
    services.archive_team(team, by=alice)
    services.restore_team(team)
    assert services.open_invitation(link) is None


def test_a_leavers_personal_keys_are_revoked_and_service_keys_stay(team, alice, bob, audited):
    mine, _ = services.create_key(team, "laptop", bob, kind="personal")
    other, _ = services.create_key(team, "alice's laptop", alice, kind="personal")
    service, _ = services.create_key(team, "nightly", bob)
    elsewhere, _ = services.create_key(services.create_team("Billing", bob), "x", bob, kind="personal")

    with acting_as(Actor("person", alice.email, alice.pk)):
        services.remove_member(team, bob)

    revoked = list(ApiKey.objects.exclude(revoked_at=None))
    assert revoked == [mine]
    assert revoked[0].revoked_by == alice
    assert {other, service, elsewhere} == set(ApiKey.objects.filter(revoked_at=None))
    (event,) = audited("key.revoked")
    assert event.after["because"] == "bob@example.com is no longer in the team"


def test_a_member_leaves_and_the_last_owner_cannot(team, alice, bob, audited):
    services.leave_team(team, bob)
    assert bob.email not in roles(team)
    assert [event.subject_name for event in audited("member.left")] == [bob.email]
    with pytest.raises(services.LastOwner):
        services.leave_team(team, alice)


def test_a_team_is_handed_over_to_a_member(team, alice, bob, vera, charlie, heard, committing):
    with committing():
        services.hand_over(team, alice, bob)
    assert roles(team) == {alice.email: "member", bob.email: "owner", vera.email: "viewer"}
    assert {alice.pk, bob.pk} <= set(heard)
    with pytest.raises(services.NotAnOwner):
        services.hand_over(team, alice, vera)
    with pytest.raises(services.NotAMember):
        services.hand_over(team, bob, charlie)
    with pytest.raises(services.NotPossible, match="somebody else"):
        services.hand_over(team, bob, bob)


def test_a_team_is_not_handed_to_an_account_that_is_switched_off(team, alice, bob):
    bob.is_active = False
    bob.save()
    with pytest.raises(services.NotPossible, match="switched off"):
        services.hand_over(team, alice, bob)
    assert roles(team)[alice.email] == "owner"


@pytest.mark.parametrize("goes", ["leaves", "is removed", "is lowered", "hands over"])
def test_invitations_end_with_their_makers_right_to_invite(team, alice, bob, goes):
    services.set_role(team, bob, "owner", by=alice)
    _, link = services.invite(team, bob, "owner")
    _, other = services.invite(team, alice, "member")
    {
        "leaves": lambda: services.leave_team(team, bob),
        "is removed": lambda: services.remove_member(team, bob),
        "is lowered": lambda: services.set_role(team, bob, "member", by=alice),
        "hands over": lambda: services.hand_over(team, bob, alice),
    }[goes]()
    assert services.open_invitation(link) is None
    assert services.open_invitation(other) is not None
