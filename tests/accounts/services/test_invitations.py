import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from accounts import notices, services
from accounts.actor import Actor, acting_as
from accounts.models import Invitation, Membership, Outbox, User

PASSWORD = "a long enough password 2"


def role_of(team, user) -> str | None:
    return Membership.objects.filter(team=team, user=user).values_list("role", flat=True).first()


def test_an_invitation_is_stored_as_a_digest_only(team, alice, audited):
    invitation, link = services.invite(team, alice, "member")
    stored = Invitation.objects.get()
    assert stored.digest == hashlib.sha256(link.encode()).hexdigest()
    assert len(link) >= 43
    assert link not in repr(Invitation.objects.values().get()) + repr([e.__dict__ for e in audited()])
    assert timedelta(days=6, hours=23) < stored.expires_at - timezone.now() <= timedelta(days=7)
    assert services.open_invitation(link) == invitation


@pytest.mark.parametrize("link", ["", "x", "é\ud800", "x" * 100_000])
def test_a_link_that_was_never_made_opens_nothing(db, link):
    assert services.open_invitation(link) is None


def test_whoever_has_the_link_joins_and_it_works_once(team, alice, charlie, ada, audited, heard, committing):
    _, link = services.invite(team, alice, "member")
    with committing(), acting_as(Actor("person", charlie.email, charlie.pk)):
        services.accept_invitation(link, charlie)

    assert role_of(team, charlie) == "member"
    assert charlie.pk in heard
    (event,) = audited("invitation.accepted")
    assert (event.actor_name, event.team_id) == (charlie.email, team.pk)
    assert services.open_invitation(link) is None
    with pytest.raises(services.InvitationGone):
        services.accept_invitation(link, ada)


@pytest.mark.django_db(transaction=True)
def test_of_many_who_accept_at_once_one_joins(team, alice):
    _, link = services.invite(team, alice, "member")
    people = [User.objects.create_user(f"person{number}@example.com") for number in range(8)]
    together = threading.Barrier(len(people))

    def accept(person: User) -> str:
        try:
            together.wait(10)
            services.accept_invitation(link, person)
        except services.InvitationGone:
            return "gone"
        finally:
            connection.close()
        return "joined"

    with ThreadPoolExecutor(len(people)) as pool:
        ends = sorted(pool.map(accept, people))
    assert ends == ["gone"] * 7 + ["joined"]
    assert Membership.objects.filter(team=team, user__in=people).count() == 1


def test_a_member_cannot_raise_themselves_by_a_link(team, alice, bob):
    _, link = services.invite(team, alice, "owner")
    with pytest.raises(services.AlreadyMember):
        services.accept_invitation(link, bob)
    assert role_of(team, bob) == "member"
    assert services.open_invitation(link) is not None


@pytest.mark.parametrize("end", ["expired", "withdrawn", "archived"])
def test_an_invitation_that_is_over_lets_nobody_in(team, alice, charlie, end):
    invitation, link = services.invite(team, alice, "member")
    if end == "expired":
        Invitation.objects.update(expires_at=timezone.now())
    elif end == "withdrawn":
        services.withdraw_invitation(invitation)
    else:
        services.archive_team(team, by=alice)
    with pytest.raises(services.InvitationGone):
        services.accept_invitation(link, charlie)
    assert role_of(team, charlie) is None


@pytest.mark.parametrize("change", [{"is_active": False}, {"is_superuser": False}])
def test_an_invitation_is_as_good_as_its_makers_right_to_give_that_role(team, ada, charlie, change):
    _, link = services.invite(team, ada, "owner")
    assert services.open_invitation(link) is not None
    User.objects.filter(pk=ada.pk).update(**change)
    with pytest.raises(services.InvitationGone):
        services.accept_invitation(link, charlie)


def test_an_invitation_is_withdrawn_once(team, alice):
    invitation, _ = services.invite(team, alice, "member")
    services.withdraw_invitation(invitation)
    with pytest.raises(services.InvitationGone):
        services.withdraw_invitation(invitation)


def test_nobody_invites_above_their_own_role(team, alice, bob, charlie, ada):
    for person, role in ((bob, "owner"), (charlie, "viewer")):
        with pytest.raises(services.RoleAboveOwn):
            services.invite(team, person, role)
    services.invite(team, bob, "member")
    services.invite(team, alice, "owner")
    services.invite(team, ada, "owner")  # an administrator, in no team


@pytest.mark.parametrize("days", [0, 31, -1])
def test_an_invitation_is_good_for_a_month_at_most(team, alice, days):
    with pytest.raises(services.WrongValue, match="1 to 30 days"):
        services.invite(team, alice, "member", days=days)


def test_an_invitation_by_mail_goes_to_its_address(team, alice):
    _, link = services.invite(team, alice, "viewer", email=" Dora@Example.com ")
    mail = Outbox.objects.get()
    assert (mail.channel, mail.email) == ("mail", "dora@example.com")
    assert f"{settings.PUBLIC_URL}/invitations/{link}/" in notices.text_of(mail)
    assert alice.email in notices.text_of(mail)
    assert link not in mail.text


def test_a_link_is_mailed_to_nobody(team, alice):
    services.invite(team, alice, "viewer")
    assert not Outbox.objects.exists()


def test_an_address_must_be_one(team, alice):
    with pytest.raises(services.WrongValue, match="no e-mail address"):
        services.invite(team, alice, "viewer", email="dora")


def test_who_is_in_the_team_is_not_invited(team, alice, bob):
    with pytest.raises(services.AlreadyMember):
        services.invite(team, alice, "owner", email=bob.email)


def test_a_second_invitation_to_an_address_replaces_the_first(team, alice):
    _, first = services.invite(team, alice, "owner", email="dora@example.com")
    _, second = services.invite(team, alice, "viewer", email="dora@example.com")
    assert services.open_invitation(first) is None
    assert services.open_invitation(second).role == "viewer"
    assert Outbox.objects.count() == 2


def test_an_invitation_by_mail_is_for_that_account_alone(team, alice, charlie, ada):
    _, link = services.invite(team, alice, "member", email=charlie.email.upper())
    with pytest.raises(services.InvitedSomebodyElse, match=charlie.email):
        services.accept_invitation(link, ada)
    services.accept_invitation(link, charlie)
    assert role_of(team, charlie) == "member"


def test_somebody_new_makes_an_account_with_the_address_that_was_invited(team, alice, audited):
    _, link = services.invite(team, alice, "member", email="dora@example.com")
    dora = services.accept_as_new(link, PASSWORD)

    assert (dora.email, role_of(team, dora)) == ("dora@example.com", "member")
    assert dora.check_password(PASSWORD)
    assert (dora.is_staff, dora.is_superuser) == (False, False)
    assert dora.emailaddress_set.get().verified
    assert [(event.action, event.actor_name) for event in audited()[-2:]] == [
        ("user.created", dora.email),
        ("invitation.accepted", dora.email),
    ]
    with pytest.raises(services.InvitationGone):
        services.accept_as_new(link, PASSWORD)


@pytest.mark.parametrize("password", ["short", "password", "12345678901", "dora@example.com"])
def test_a_new_account_needs_a_good_password(team, alice, password):
    _, link = services.invite(team, alice, "member", email="dora@example.com")
    with pytest.raises(services.PasswordTooWeak):
        services.accept_as_new(link, password)
    assert not User.objects.filter(email="dora@example.com").exists()
    assert services.open_invitation(link) is not None


def test_an_account_is_not_taken_over_by_an_invitation(team, alice, charlie):
    _, link = services.invite(team, alice, "member", email=charlie.email)
    with pytest.raises(services.AccountExists, match="sign in"):
        services.accept_as_new(link, PASSWORD)
    charlie.refresh_from_db()
    assert not charlie.check_password(PASSWORD)


def test_a_link_alone_makes_no_account(team, alice):
    _, link = services.invite(team, alice, "member")
    people = User.objects.count()
    with pytest.raises(services.InvitedSomebodyElse, match="needs an account"):
        services.accept_as_new(link, PASSWORD)
    assert User.objects.count() == people
