"""What may be seen, and by whom. Reads only."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from allauth.mfa.models import Authenticator
from django.contrib.auth.models import AnonymousUser
from django.db.models import Count, Q, QuerySet

from accounts.keys import prefix_of
from accounts.models import ApiKey, KeySecret, Membership, Team, User

Action = Literal["see", "make_keys", "manage_keys", "manage_members"]
KeyState = Literal["active", "expired", "revoked"]

RIGHTS: dict[str, frozenset[Action]] = {
    Membership.Role.OWNER: frozenset(("see", "make_keys", "manage_keys", "manage_members")),
    Membership.Role.MEMBER: frozenset(("see", "make_keys")),
    Membership.Role.VIEWER: frozenset(("see",)),
}
"""What each role may do. A member may also revoke keys of their own making."""


@dataclass(frozen=True, slots=True)
class KeyRow:
    """An API key as lists show it; nothing of its secret."""

    id: int
    team_id: int
    name: str
    prefix: str
    made_by_id: int | None
    made_by: str
    """E-mail address; empty where a command made it or the account is gone."""
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None
    state: KeyState


def teams_of(user: User) -> QuerySet[Team]:
    """The teams a person may see, by name: an administrator sees all."""
    return Team.objects.all() if user.is_superuser else Team.objects.filter(memberships__user=user)


def with_counts(teams: QuerySet[Team], now: datetime) -> QuerySet[Team]:
    """Each team with `people` and `active_keys`."""
    active = Q(api_keys__revoked_at=None) & (Q(api_keys__expires_at=None) | Q(api_keys__expires_at__gt=now))
    return Team.objects.filter(pk__in=teams.values("pk")).annotate(
        people=Count("memberships", distinct=True),
        active_keys=Count("api_keys", filter=active, distinct=True),
    )


def roles_of(user: User) -> dict[int, str]:
    """The person's role by team id."""
    return dict(Membership.objects.filter(user=user).values_list("team_id", "role"))


def may(user: User | AnonymousUser, team: Team, action: Action) -> bool:
    """Whether a person may do something in a team."""
    return isinstance(user, User) and action in _rights_in(user, team)


def may_revoke(user: User, key_team: Team, made_by_id: int | None) -> bool:
    """Whether a person may revoke a key of this team."""
    return revokes(_rights_in(user, key_team), is_own=made_by_id == user.pk)


def rights(user: User, role: str | None) -> frozenset[Action]:
    """What a person with this role in a team may do there: an administrator everything, whatever the role."""
    if not user.is_active:
        return frozenset()
    return RIGHTS.get(Membership.Role.OWNER if user.is_superuser else role or "", frozenset())


def revokes(rights: frozenset[Action], *, is_own: bool) -> bool:
    """Who manages keys revokes any; who makes keys revokes their own."""
    return "manage_keys" in rights or (is_own and "make_keys" in rights)


def _rights_in(user: User, team: Team) -> frozenset[Action]:
    if user.is_superuser:
        return rights(user, None)
    membership = Membership.objects.filter(user=user, team=team)
    return rights(user, membership.values_list("role", flat=True).first())


def recovery_codes_left(user: User) -> int | None:
    """How many recovery codes a person has left; None where two-factor authentication is off."""
    factors = {each.type: each for each in Authenticator.objects.filter(user=user)}
    if Authenticator.Type.TOTP not in factors:
        return None
    codes = factors.get(Authenticator.Type.RECOVERY_CODES)
    return len(codes.wrap().get_unused_codes()) if codes else 0


def keys_of(team: Team, now: datetime) -> list[KeyRow]:
    """A team's keys, active ones first, then the newest."""
    return keys_by_team([team], now)[team.pk]


def keys_by_team(teams: Iterable[Team], now: datetime) -> dict[int, list[KeyRow]]:
    """Every team's keys in two queries, however many teams there are."""
    rows: dict[int, list[KeyRow]] = {team.pk: [] for team in teams}
    keys = ApiKey.objects.filter(team__in=rows).select_related("created_by").prefetch_related("secrets")
    for key in keys:
        rows[key.team_id].append(_row(key, now))
    for each in rows.values():
        each.sort(key=lambda row: row.state != "active")
    return rows


def state_of(key: ApiKey, now: datetime) -> KeyState:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is not None and key.expires_at <= now:
        return "expired"
    return "active"


def _row(key: ApiKey, now: datetime) -> KeyRow:
    secrets: list[KeySecret] = list(key.secrets.all())
    used = [secret.last_used_at for secret in secrets if secret.last_used_at is not None]
    return KeyRow(
        id=key.pk,
        team_id=key.team_id,
        name=key.name,
        prefix=prefix_of(secrets[0].public_id) if secrets else "",
        made_by_id=key.created_by_id,
        made_by=key.created_by.email if key.created_by else "",
        created_at=key.created_at,
        last_used_at=max(used, default=None),
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
        state=state_of(key, now),
    )
