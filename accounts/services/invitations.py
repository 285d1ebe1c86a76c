"""Invitations: a place in a team for whoever has the link, or the one address that it was mailed to.

The link's secret has 256 bits and is stored as SHA-256 alone: nobody can guess it, so no pepper is needed.
"""

import hashlib
import secrets
from dataclasses import replace
from datetime import timedelta

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts import audit
from accounts.actor import acting_as, actor
from accounts.changes import note_change
from accounts.models import Invitation, Membership, Team, User
from accounts.services.common import RANK, Role, live
from accounts.services.teams import join
from accounts.services.wishes import (
    AccountExists,
    AlreadyMember,
    InvitationGone,
    InvitedSomebodyElse,
    PasswordTooWeak,
    RoleAboveOwn,
    WrongValue,
)

USUAL_DAYS = 7
MOST_DAYS = 30


def invite(
    team: Team, by: User, role: str, email: str = "", days: int = USUAL_DAYS
) -> tuple[Invitation, str]:
    """A new invitation, and the secret of its link in clear. With an address it is mailed there too,
    and replaces an earlier one to the same address.

    Raises RoleAboveOwn, AlreadyMember, WrongValue or Archived.
    """
    role, email = Role(role), _address(email)
    if not 1 <= days <= MOST_DAYS:
        raise WrongValue("days", _("An invitation is good for 1 to %(most)s days.") % {"most": MOST_DAYS})
    secret = secrets.token_urlsafe(32)
    with transaction.atomic():
        live(team.pk)
        if not _may_give(team, by, role):
            raise RoleAboveOwn(_("Nobody can invite somebody to a role above their own."))
        _replace_earlier(team, email)
        invitation = Invitation.objects.create(
            team=team,
            email=email,
            role=role,
            digest=_digest(secret),
            created_by=by,
            expires_at=timezone.now() + timedelta(days=days),
        )
        after = {"role": role.value, "email": email, "expires_at": invitation.expires_at}
        audit.record("invitation.made", invitation, team=team, after=after)
        if email:
            _mail(invitation, secret)
    return invitation, secret


def withdraw_invitation(invitation: Invitation) -> None:
    """From its commit on nobody can accept it. Raises InvitationGone."""
    with transaction.atomic():
        at = timezone.now()
        if not _still_open(invitation).update(withdrawn_at=at):
            raise InvitationGone(_("This invitation was accepted or withdrawn already."))
        invitation.withdrawn_at = at
        audit.record("invitation.withdrawn", invitation, team=invitation.team, after={"withdrawn_at": at})


def open_invitation(token: str) -> Invitation | None:
    """The invitation with this secret, with its team, where it can still be accepted.

    It is as good as its maker's right to give that role, now.
    """
    found = (
        Invitation.objects.select_related("team", "created_by")
        .filter(digest=_digest(token), accepted_at=None, withdrawn_at=None)
        .filter(expires_at__gt=timezone.now(), team__archived_at=None, created_by__is_active=True)
        .first()
    )
    if found is None or found.created_by is None or not _may_give(found.team, found.created_by, found.role):
        return None
    return found


def accept_invitation(token: str, user: User) -> Membership:
    """The person joins the team. Raises InvitationGone, InvitedSomebodyElse or AlreadyMember."""
    with transaction.atomic():
        invitation = _opened(token)
        if invitation.email and invitation.email != user.email:
            raise InvitedSomebodyElse(
                _("This invitation is for %(email)s: sign in with that address to accept it.")
                % {"email": invitation.email}
            )
        return _accept(invitation, user)


def accept_as_new(token: str, password: str) -> User:
    """A new account with the address that the invitation was mailed to, in the team.

    The mail proves the address. Raises InvitationGone, InvitedSomebodyElse, AccountExists or PasswordTooWeak.
    """
    with transaction.atomic():
        invitation = _opened(token)
        if not invitation.email:
            raise InvitedSomebodyElse(_("This link needs an account: sign in, then open it again."))
        user = _new_account(invitation.email, password)
        with acting_as(replace(actor(), kind="person", name=user.email, user_id=user.pk)):
            audit.record("user.created", user, team=invitation.team, after={"email": user.email})
            _accept(invitation, user)
    return user


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _address(email: str) -> str:
    email = User.objects.normalize_email(email.strip())
    if email:
        try:
            validate_email(email)
        except ValidationError:
            raise WrongValue("email", _("%(email)s is no e-mail address.") % {"email": email}) from None
    return email


def _may_give(team: Team, by: User, role: str) -> bool:
    """Nobody gives what they have not; an administrator has everything."""
    if by.is_superuser:
        return True
    own = Membership.objects.filter(team=team, user=by).values_list("role", flat=True).first()
    return own is not None and RANK[role] <= RANK[own]


def _replace_earlier(team: Team, email: str) -> None:
    if not email:
        return
    if Membership.objects.filter(team=team, user__email=email).exists():
        raise AlreadyMember(_("%(email)s is in %(name)s already.") % {"email": email, "name": team.name})
    for earlier in Invitation.objects.filter(team=team, email=email, accepted_at=None, withdrawn_at=None):
        withdraw_invitation(earlier)


def _mail(invitation: Invitation, token: str) -> None:
    from accounts import notices  # it tells of what this room does

    notices.invite(invitation, token)


def _still_open(invitation: Invitation) -> QuerySet[Invitation]:
    return Invitation.objects.filter(pk=invitation.pk, accepted_at=None, withdrawn_at=None)


def _opened(token: str) -> Invitation:
    """With its team locked; what was true of it before others had done with the team may not be any more."""
    if (found := open_invitation(token)) is not None:
        live(found.team_id)
        found = open_invitation(token)
    if found is None:
        raise InvitationGone(_("This invitation is not open any more; ask for another."))
    return found


def _accept(invitation: Invitation, user: User) -> Membership:
    """Once, also where two accept at the same moment."""
    at = timezone.now()
    if not _still_open(invitation).update(accepted_at=at, accepted_by=user):
        raise InvitationGone(_("This invitation is not open any more; ask for another."))
    membership = join(invitation.team, user, invitation.role)
    after = {"role": invitation.role, "accepted_by": user.email}
    audit.record("invitation.accepted", invitation, team=invitation.team, after=after)
    note_change()
    return membership


def _new_account(email: str, password: str) -> User:
    if User.objects.filter(email=email).exists():
        raise AccountExists(
            _("There is an account for %(email)s already: sign in to accept.") % {"email": email}
        )
    try:
        validate_password(password, User(email=email))
    except ValidationError as why:
        raise PasswordTooWeak(" ".join(why.messages)) from None
    try:
        with transaction.atomic():
            return User.objects.create_user(email, password)
    except IntegrityError:
        raise AccountExists(
            _("An account for %(email)s was made at the same moment: sign in to accept.") % {"email": email}
        ) from None
