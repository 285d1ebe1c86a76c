"""Teams and their members: never without an owner, archived instead of deleted."""

from datetime import datetime
from functools import partial

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.text import slugify
from django.utils.translation import gettext as _

from accounts import audit
from accounts.changes import note_change
from accounts.models import ApiKey, Invitation, Membership, RateLimit, Team, User
from accounts.services.common import RANK, Role, live, locked, named
from accounts.services.keys import revoke_now
from accounts.services.wishes import (
    AlreadyMember,
    Archived,
    LastOwner,
    NameTaken,
    NotAMember,
    NotAnOwner,
    NotPossible,
    OwnRoleRaised,
)
from accounts.signals import rights_changed
from accounts.turns import Turn, take_turn


def create_team(name: str, owner: User) -> Team:
    """A team with its first owner and the house's usual rate limits. Raises NoName or NameTaken."""
    name = named(name)
    with transaction.atomic():
        take_turn(Turn.TEAM_NAMES)
        if Team.objects.filter(name__iexact=name).exists():
            raise NameTaken(_("There is a team called %(name)s already.") % {"name": name})
        team = _insert_team(name)
        Membership.objects.create(team=team, user=owner, role=Role.OWNER)
        usual = _give_usual_limits(team)
        audit.record("team.created", team, team=team, after={"name": name, "owner": owner.email, **usual})
        note_change()
        note_rights(owner.pk)
    return team


def rename_team(team: Team, name: str) -> Team:
    """Its address on pages, the slug, stays. Raises NoName, NameTaken or Archived."""
    name = named(name)
    with transaction.atomic():
        take_turn(Turn.TEAM_NAMES)
        before = live(team.pk).name
        if Team.objects.filter(name__iexact=name).exclude(pk=team.pk).exists():
            raise NameTaken(_("There is a team called %(name)s already.") % {"name": name})
        team.name = name
        try:
            with transaction.atomic():
                team.save(update_fields=["name"])
        except IntegrityError:
            raise NameTaken(
                _("Another team took the name %(name)s at the same moment.") % {"name": name}
            ) from None
        if name != before:
            audit.record("team.renamed", team, team=team, before={"name": before}, after={"name": name})
        note_change()
    return team


def archive_team(team: Team, by: User | None) -> None:
    """From its commit on its keys are refused and nothing is made in it; it stays on the books.

    Raises Archived where it is already. `by` is None where a command did it.
    """
    with transaction.atomic():
        at = timezone.now()
        if locked(team.pk).archived_at is not None:
            raise Archived(_("%(name)s is archived already.") % {"name": team.name})
        _set_archived(team, at)
        _withdraw(team)
        after = {"archived_at": at, "by": by.email if by else ""}
        audit.record("team.archived", team, team=team, before={"archived_at": None}, after=after)
        note_change()
        _note_rights_of_members(team)


def restore_team(team: Team) -> None:
    """Its keys work again, as far as they are neither revoked nor expired. Raises NotPossible."""
    with transaction.atomic():
        before = locked(team.pk).archived_at
        if before is None:
            raise NotPossible(_("%(name)s is not archived.") % {"name": team.name})
        _set_archived(team, None)
        audit.record(
            "team.restored", team, team=team, before={"archived_at": before}, after={"archived_at": None}
        )
        note_change()
        _note_rights_of_members(team)


def add_member(team: Team, user: User, role: str) -> Membership:
    """Raises AlreadyMember or Archived."""
    role = Role(role)
    with transaction.atomic():
        live(team.pk)
        membership = join(team, user, role)
        audit.record("member.added", user, team=team, after={"role": role.value})
    return membership


def join(team: Team, user: User, role: str) -> Membership:
    """Inside a transaction, not yet audited. Raises AlreadyMember."""
    membership, is_new = Membership.objects.get_or_create(team=team, user=user, defaults={"role": role})
    if not is_new:
        raise AlreadyMember(
            _("%(email)s is in %(name)s already, as %(role)s.")
            % {"email": user.email, "name": team.name, "role": membership.role}
        )
    note_change()
    note_rights(user.pk)
    return membership


def set_role(team: Team, user: User, role: str, by: User) -> None:
    """Whoever is no owner any more loses the invitations they made.

    Raises NotAMember, OwnRoleRaised or LastOwner.
    """
    role = Role(role)
    with transaction.atomic():
        membership = _locked_membership(team, user)
        if by.pk == user.pk and RANK[role] > RANK[membership.role]:
            raise OwnRoleRaised(_("Nobody can raise their own role; ask another owner of the team."))
        if role != Role.OWNER:
            _keep_an_owner(team, membership)
        _change_role(membership, role)


def remove_member(team: Team, user: User) -> None:
    """Revokes the person's personal keys and withdraws the invitations they made; service keys stay.

    Raises NotAMember or LastOwner.
    """
    _remove(team, user, "member.removed")


def leave_team(team: Team, user: User) -> None:
    """As `remove_member`, by the person themselves. Raises NotAMember or LastOwner."""
    _remove(team, user, "member.left")


def hand_over(team: Team, from_user: User, to_user: User) -> None:
    """One owner makes another member owner and is a member from then on. Raises NotAMember or NotAnOwner."""
    if from_user.pk == to_user.pk:
        raise NotPossible(_("A team is handed over to somebody else."))
    with transaction.atomic():
        giving = _locked_membership(team, from_user)
        taking = _locked_membership(team, to_user)
        if giving.role != Role.OWNER:
            raise NotAnOwner(
                _("%(email)s does not own %(name)s, so cannot hand it over.")
                % {"email": from_user.email, "name": team.name}
            )
        if not to_user.is_active:
            raise NotPossible(
                _("The account %(email)s is switched off, so it cannot own a team.")
                % {"email": to_user.email}
            )
        _change_role(taking, Role.OWNER)
        _change_role(giving, Role.MEMBER)


def note_rights(user_id: int) -> None:
    """Tell open pages, at commit, that a person may see something else now."""
    transaction.on_commit(partial(rights_changed.send, sender=Membership, user_id=user_id))


def _insert_team(name: str) -> Team:
    try:
        with transaction.atomic():
            return Team.objects.create(name=name, slug=_free_slug(name))
    except IntegrityError:
        raise NameTaken(
            _("A team called %(name)s, or much like it, was made at the same moment.") % {"name": name}
        ) from None


def _free_slug(name: str) -> str:
    """The name in lower-case ASCII words; numbered where taken, `team` where nothing is left of it."""
    stem = slugify(name)[:90] or "team"
    taken = set(Team.objects.filter(slug__startswith=stem).values_list("slug", flat=True))
    if stem not in taken:
        return stem
    return next(slug for number in range(2, len(taken) + 3) if (slug := f"{stem}-{number}") not in taken)


def _give_usual_limits(team: Team) -> dict[str, int]:
    """The rate limits that every team begins with: an administrator's, so owners cannot lift them."""
    env = settings.ENV
    usual = {
        RateLimit.Kind.REQUESTS.value: env.team_requests_per_minute,
        RateLimit.Kind.TOKENS.value: env.team_tokens_per_minute,
    }
    given = {kind: amount for kind, amount in usual.items() if amount > 0}
    for kind, amount in given.items():
        RateLimit.objects.create(team=team, kind=kind, amount=amount, by_administrator=True)
    return {f"{kind}_per_minute": amount for kind, amount in given.items()}


def _set_archived(team: Team, at: datetime | None) -> None:
    team.archived_at = at
    team.save(update_fields=["archived_at"])


def _note_rights_of_members(team: Team) -> None:
    for user_id in Membership.objects.filter(team=team).values_list("user_id", flat=True):
        note_rights(user_id)


def _change_role(membership: Membership, role: str) -> None:
    before, membership.role = membership.role, role
    if before == role:
        return
    membership.save(update_fields=["role"])
    team, user = membership.team, membership.user
    if role != Role.OWNER:
        _withdraw(team, made_by=user)
    audit.record("member.role_changed", user, team=team, before={"role": before}, after={"role": str(role)})
    note_change()
    note_rights(user.pk)


def _remove(team: Team, user: User, action: str) -> None:
    with transaction.atomic():
        membership = _locked_membership(team, user)
        _keep_an_owner(team, membership)
        membership.delete()
        _withdraw(team, made_by=user)
        audit.record(action, user, team=team, before={"role": membership.role})
        _revoke_personal_keys(team, user)
        note_change()
        note_rights(user.pk)


def _revoke_personal_keys(team: Team, user: User) -> None:
    kinds = (ApiKey.Kind.PERSONAL, ApiKey.Kind.PLAYGROUND)
    for key in ApiKey.objects.filter(team=team, created_by=user, kind__in=kinds, revoked_at=None):
        revoke_now(key, by=None, why=f"{user.email} is no longer in the team")


def _withdraw(team: Team, made_by: User | None = None) -> None:
    """Open invitations would let somebody back in whose right to invite is gone."""
    still_open = Invitation.objects.filter(team=team, accepted_at=None, withdrawn_at=None)
    if made_by is not None:
        still_open = still_open.filter(created_by=made_by)
    for each in still_open:
        each.withdrawn_at = timezone.now()
        each.save(update_fields=["withdrawn_at"])
        audit.record("invitation.withdrawn", each, team=team, after={"withdrawn_at": each.withdrawn_at})


def _locked_membership(team: Team, user: User) -> Membership:
    """The membership, with its team's row locked so that two owners cannot leave at once."""
    locked(team.pk)
    membership = Membership.objects.filter(team=team, user=user).select_related("team", "user").first()
    if membership is None:
        raise NotAMember(_("%(email)s is not in %(name)s.") % {"email": user.email, "name": team.name})
    return membership


def _keep_an_owner(team: Team, leaving: Membership) -> None:
    if leaving.role != Role.OWNER:
        return
    owners = Membership.objects.filter(team=team, role=Role.OWNER, user__is_active=True)
    if not owners.exclude(pk=leaving.pk).exists():
        raise LastOwner(_("%(name)s needs an owner: make somebody else owner first.") % {"name": team.name})
