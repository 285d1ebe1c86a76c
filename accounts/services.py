"""The writes: teams, members, API keys. Each is one transaction that notes the change.

Who may do it is decided before, by `queries.may`; what can never be is refused here.
"""

from datetime import datetime
from functools import partial

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.text import slugify

from accounts import keys
from accounts.caller import Priority
from accounts.changes import note_change
from accounts.models import ApiKey, KeySecret, Membership, Team, User
from accounts.signals import rights_changed

Role = Membership.Role
_RANK: dict[str, int] = {Role.VIEWER: 0, Role.MEMBER: 1, Role.OWNER: 2}


class NotPossible(Exception):
    """A wish that the rules of the house refuse; the message is a sentence for whoever had it."""


class NameTaken(NotPossible):
    pass


class NoName(NotPossible):
    pass


class AlreadyMember(NotPossible):
    pass


class NotAMember(NotPossible):
    pass


class LastOwner(NotPossible):
    pass


class OwnRoleRaised(NotPossible):
    pass


class ExpiryPassed(NotPossible):
    pass


class AlreadyRevoked(NotPossible):
    pass


def create_team(name: str, owner: User) -> Team:
    """A team with its first owner. Raises NoName or NameTaken."""
    name = _named(name)
    with transaction.atomic():
        if Team.objects.filter(name__iexact=name).exists():
            raise NameTaken(f"There is a team called {name} already.")
        team = _insert_team(name)
        Membership.objects.create(team=team, user=owner, role=Role.OWNER)
        note_change()
        note_rights(owner.pk)
    return team


def add_member(team: Team, user: User, role: str) -> Membership:
    """Raises AlreadyMember."""
    role = Role(role)
    with transaction.atomic():
        membership, is_new = Membership.objects.get_or_create(team=team, user=user, defaults={"role": role})
        if not is_new:
            raise AlreadyMember(f"{user.email} is in {team.name} already, as {membership.role}.")
        note_change()
        note_rights(user.pk)
    return membership


def set_role(team: Team, user: User, role: str, by: User) -> None:
    """Raises NotAMember, OwnRoleRaised or LastOwner."""
    role = Role(role)
    with transaction.atomic():
        membership = _locked_membership(team, user)
        if by.pk == user.pk and _RANK[role] > _RANK[membership.role]:
            raise OwnRoleRaised("Nobody can raise their own role; ask another owner of the team.")
        if role != Role.OWNER:
            _keep_an_owner(team, membership)
        membership.role = role
        membership.save(update_fields=["role"])
        note_change()
        note_rights(user.pk)


def remove_member(team: Team, user: User) -> None:
    """The person's keys stay with the team. Raises NotAMember or LastOwner."""
    with transaction.atomic():
        membership = _locked_membership(team, user)
        _keep_an_owner(team, membership)
        membership.delete()
        note_change()
        note_rights(user.pk)


def create_key(
    team: Team,
    name: str,
    created_by: User | None,
    expires_at: datetime | None = None,
    *,
    priority_ceiling: Priority = "normal",
) -> tuple[ApiKey, str]:
    """A new API key, and the key in clear: nothing can show it again. Raises NoName or ExpiryPassed.

    `created_by` is None where a command made it.
    """
    name = _named(name)
    if expires_at is not None and expires_at <= timezone.now():
        raise ExpiryPassed("The key would have expired before it was made; choose a later moment.")
    parts = keys.mint()
    pepper = settings.KEY_PEPPERS[0]
    with transaction.atomic():
        key = ApiKey.objects.create(
            team=team,
            name=name,
            created_by=created_by,
            expires_at=expires_at,
            priority_ceiling=priority_ceiling,
        )
        KeySecret.objects.create(
            key=key,
            public_id=parts.public_id,
            digest=keys.digest(parts.secret, pepper),
            pepper_id=keys.pepper_id(pepper),
        )
        note_change()
    return key, parts.text


def set_priority_ceiling(key: ApiKey, ceiling: Priority) -> None:
    """The most urgent that the key's calls may be, from its commit on."""
    with transaction.atomic():
        key.priority_ceiling = ceiling
        key.save(update_fields=["priority_ceiling"])
        note_change()


def revoke_key(key: ApiKey, by: User | None) -> None:
    """From its commit on no call is admitted with the key. Raises AlreadyRevoked."""
    with transaction.atomic():
        revoked = ApiKey.objects.filter(pk=key.pk, revoked_at=None)
        if not revoked.update(revoked_at=timezone.now(), revoked_by=by):
            raise AlreadyRevoked(f"The key {key.name} was revoked already.")
        note_change()


def note_rights(user_id: int) -> None:
    """Tell open pages, at commit, that a person may see something else now."""
    transaction.on_commit(partial(rights_changed.send, sender=Membership, user_id=user_id))


def _named(name: str) -> str:
    name = " ".join(name.split())
    if not name:
        raise NoName("A name is needed, so that others know what this is for.")
    if len(name) > 100:
        raise NoName(f"A name has at most 100 characters; this one has {len(name)}.")
    return name


def _insert_team(name: str) -> Team:
    try:
        with transaction.atomic():
            return Team.objects.create(name=name, slug=_free_slug(name))
    except IntegrityError:
        raise NameTaken(f"A team called {name}, or much like it, was made at the same moment.") from None


def _free_slug(name: str) -> str:
    """The name in lower-case ASCII words; numbered where taken, `team` where nothing is left of it."""
    stem = slugify(name)[:90] or "team"
    taken = set(Team.objects.filter(slug__startswith=stem).values_list("slug", flat=True))
    if stem not in taken:
        return stem
    return next(slug for number in range(2, len(taken) + 3) if (slug := f"{stem}-{number}") not in taken)


def _locked_membership(team: Team, user: User) -> Membership:
    """The membership, with its team's row locked so that two owners cannot leave at once."""
    Team.objects.select_for_update().get(pk=team.pk)
    membership = Membership.objects.filter(team=team, user=user).first()
    if membership is None:
        raise NotAMember(f"{user.email} is not in {team.name}.")
    return membership


def _keep_an_owner(team: Team, leaving: Membership) -> None:
    if leaving.role != Role.OWNER:
        return
    if not Membership.objects.filter(team=team, role=Role.OWNER).exclude(pk=leaving.pk).exists():
        raise LastOwner(f"{team.name} needs an owner: make somebody else owner first.")
