"""What may be seen, and by whom. Reads only."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal, NamedTuple

from allauth.mfa.models import Authenticator
from django.contrib.auth.models import AnonymousUser
from django.db.models import Count, Prefetch, Q, QuerySet, Value, prefetch_related_objects
from django.db.models.functions import Upper
from django.db.models.lookups import Exact

from accounts.areas import Area
from accounts.keys import prefix_of
from accounts.models import (
    AccessToken,
    ApiKey,
    AuditEvent,
    Invitation,
    KeySecret,
    KeyUse,
    Membership,
    Quota,
    RateLimit,
    Team,
    User,
)

Action = Literal[
    "see",
    "make_keys",
    "manage_keys",
    "manage_members",
    "manage_limits",
    "invite",
    "see_audit",
    "allow_urgent",
]
KeyState = Literal["active", "expired", "revoked"]
SecretState = Literal["current", "overlapping", "ended"]

_OWNERS: frozenset[Action] = frozenset(
    ("see", "make_keys", "manage_keys", "manage_members", "manage_limits", "invite", "see_audit")
)
RIGHTS: dict[str, frozenset[Action]] = {
    Membership.Role.OWNER: _OWNERS,
    Membership.Role.MEMBER: frozenset(("see", "make_keys")),
    Membership.Role.VIEWER: frozenset(("see",)),
}
"""What each role may do. A member may also change, rotate and revoke keys of their own making."""
ADMINISTRATORS: frozenset[Action] = _OWNERS | {"allow_urgent"}
"""In every team. Urgent calls go before those of other teams, so no team decides that by itself."""
PROGRAMS_FOR = timedelta(hours=24)
"""How long a program that presented a secret is listed with it."""


class ProgramRow(NamedTuple):
    """A program, as far as one can tell: an address and what it calls itself."""

    address: str
    user_agent: str
    last_used_at: datetime
    uses: int


@dataclass(frozen=True, slots=True)
class SecretRow:
    """One of a key's secrets as pages show it: what it is called, and who still uses it."""

    id: int
    prefix: str
    state: SecretState
    created_at: datetime
    ends_at: datetime | None
    last_used_at: datetime | None
    last_used_from: str
    last_user_agent: str
    uses: int
    programs: tuple[ProgramRow, ...]
    """That presented it in the last 24 hours, latest first."""


@dataclass(frozen=True, slots=True)
class KeyRow:
    """An API key as its page shows it; nothing of its secrets but what they are called."""

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
    kind: str = "service"
    priority_ceiling: str = "normal"
    secrets: tuple[SecretRow, ...] = ()
    """Newest first; the current one is the first."""
    old_secret_users: tuple[ProgramRow, ...] = ()
    """Programs that presented an overlapping secret after it was replaced, each once, latest first."""


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """What is asked of the audit; empty or None: anything."""

    actor: str = ""
    """A name as it is recorded, in any case: an e-mail address."""
    action: str = ""
    """One action, such as `key.rotated`, or all of a noun, such as `key`."""
    subject_kind: str = ""
    subject_id: str = ""
    since: datetime | None = None
    until: datetime | None = None
    """Before this moment."""


class Limits(NamedTuple):
    """The rows of one team or of one key."""

    rate_limits: list[RateLimit]
    quotas: list[Quota]


def teams_of(user: User) -> QuerySet[Team]:
    """The teams a person may see, by name: an administrator sees all."""
    return Team.objects.all() if user.is_superuser else Team.objects.filter(memberships__user=user)


def with_counts(teams: QuerySet[Team], now: datetime) -> QuerySet[Team]:
    """Each team with `people` and `active_keys`; an archived one has none of those."""
    lasting = Q(api_keys__expires_at=None) | Q(api_keys__expires_at__gt=now)
    listed = ~Q(api_keys__kind=ApiKey.Kind.PLAYGROUND)
    active = Q(archived_at=None, api_keys__revoked_at=None) & lasting & listed
    return Team.objects.filter(pk__in=teams.values("pk")).annotate(
        people=Count("memberships", distinct=True),
        active_keys=Count("api_keys", filter=active, distinct=True),
    )


def places_of(user: User, most: int) -> list[tuple[Team, str | None]]:
    """The teams that a person may see with their role in each, by name, in one query.

    An administrator has no role to ask for: sees all, at most so many here.
    """
    if user.is_superuser:
        return [(team, None) for team in Team.objects.all()[:most]]
    own = Membership.objects.filter(user=user).select_related("team").order_by("team__name")
    return [(each.team, each.role) for each in own[:most]]


def roles_of(user: User) -> dict[int, str]:
    """The person's role by team id."""
    return dict(Membership.objects.filter(user=user).values_list("team_id", "role"))


def may(user: User | AnonymousUser, team: Team, action: Action) -> bool:
    """Whether a person may do something in a team."""
    return isinstance(user, User) and action in _rights_in(user, team)


def may_revoke(user: User, key_team: Team, made_by_id: int | None) -> bool:
    """Whether a person may revoke a key of this team."""
    return revokes(_rights_in(user, key_team), is_own=made_by_id == user.pk)


def may_manage_key(user: User, key: ApiKey) -> bool:
    """Whether a person may change, rotate or revoke this key."""
    return may_revoke(user, key.team, key.created_by_id)


def may_change_limit(user: User, row: RateLimit | Quota) -> bool:
    """Whether a person may change or remove this limit: an administrator's only an administrator."""
    if user.is_superuser:
        return user.is_active
    team = row.key.team if row.key else row.team
    return team is not None and not row.by_administrator and may(user, team, "manage_limits")


def rights(user: User, role: str | None) -> frozenset[Action]:
    """What a person with this role in a team may do there: an administrator everything, whatever the role."""
    if not user.is_active:
        return frozenset()
    return ADMINISTRATORS if user.is_superuser else RIGHTS.get(role or "", frozenset())


def revokes(rights: frozenset[Action], *, is_own: bool) -> bool:
    """Who manages keys revokes any; who makes keys revokes their own."""
    return "manage_keys" in rights or (is_own and "make_keys" in rights)


def _rights_in(user: User, team: Team) -> frozenset[Action]:
    if user.is_superuser:
        return rights(user, None)
    membership = Membership.objects.filter(user=user, team=team)
    return rights(user, membership.values_list("role", flat=True).first())


@dataclass(frozen=True)
class Factors:
    """What a person signs in with besides the password, or instead of it."""

    totp: bool
    passkeys: list[Authenticator]
    recovery_codes_left: int | None
    """None where none were made."""


def factors_of(user: User) -> Factors:
    """In one query, passkeys in the order in which they were added."""
    rows = list(Authenticator.objects.filter(user=user).order_by("id"))
    kinds = {row.type: row for row in rows}
    codes = kinds.get(Authenticator.Type.RECOVERY_CODES)
    return Factors(
        totp=Authenticator.Type.TOTP in kinds,
        passkeys=[row for row in rows if row.type == Authenticator.Type.WEBAUTHN],
        recovery_codes_left=len(codes.wrap().get_unused_codes()) if codes else None,
    )


def limits_of(owner: Team | ApiKey) -> Limits:
    """The rate limits and quotas of one team or of one key, oldest first, in two queries."""
    return Limits(list(owner.rate_limits.all()), list(owner.quotas.all()))


def open_invitations(team: Team, now: datetime) -> QuerySet[Invitation]:
    """Those that can still be accepted, newest first, with who made them."""
    waiting = team.invitations.filter(accepted_at=None, withdrawn_at=None, expires_at__gt=now)
    return waiting.select_related("created_by")


def access_tokens_of(user: User) -> QuerySet[AccessToken]:
    """A person's own, newest first."""
    return AccessToken.objects.filter(user=user)


def audit_events(
    user: User, team: Team | None = None, asked: AuditFilter | None = None
) -> QuerySet[AuditEvent]:
    """What a person may see of the audit, latest first: owners their teams', administrators all.

    Of a team where they may not, nothing.
    """
    events = AuditEvent.objects.all()
    if not user.is_active:
        return events.none()
    if not user.is_superuser:
        owned = Membership.objects.filter(user=user, role=Membership.Role.OWNER)
        events = events.filter(team_id__in=owned.values("team_id"))
    if team is not None:
        events = events.filter(team_id=team.pk)
    return events.filter(_matching(asked or AuditFilter()))


def _matching(asked: AuditFilter) -> Q:
    found = Q()
    if asked.actor:
        found &= Q(Exact(Upper("actor_name"), Upper(Value(asked.actor))))  # as its index has it
    if asked.action:
        found &= _is_about(asked)
    if asked.subject_kind:
        found &= Q(subject_kind=asked.subject_kind)
    if asked.subject_id:
        found &= Q(subject_id=asked.subject_id)
    if asked.since is not None:
        found &= Q(at__gte=asked.since)
    if asked.until is not None:
        found &= Q(at__lt=asked.until)
    return found


def _is_about(asked: AuditFilter) -> Q:
    """One kind of action, or all of an area: by its index, unless that of the actor finds less."""
    if "." in asked.action:
        return Q(action=asked.action)
    if asked.actor:
        return Q(action__startswith=f"{asked.action}.")
    return Q(Exact(Area("action"), Value(asked.action)))


def key_row(key: ApiKey, now: datetime) -> KeyRow:
    """A key with its secrets and who presents them, in two queries; its maker is one more if not at hand."""
    of_late = Q(last_used_at__gt=now - PROGRAMS_FOR) | Q(secret__ends_at__gt=now)
    programs = Prefetch("programs", KeyUse.objects.filter(of_late).order_by("-last_used_at", "id"))
    prefetch_related_objects([key], Prefetch("secrets", KeySecret.objects.prefetch_related(programs)))
    return _row(key, now)


def state_of(key: ApiKey, now: datetime) -> KeyState:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is not None and key.expires_at <= now:
        return "expired"
    return "active"


def secret_state(secret: KeySecret, now: datetime) -> SecretState:
    if secret.ends_at is None:
        return "current"
    return "overlapping" if secret.ends_at > now else "ended"


def _row(key: ApiKey, now: datetime) -> KeyRow:
    secrets: list[KeySecret] = sorted(key.secrets.all(), key=_newest_first)
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
        kind=key.kind,
        priority_ceiling=key.priority_ceiling,
        secrets=tuple(_secret_row(each, now) for each in secrets),
        old_secret_users=_old_secret_users(secrets, now),
    )


def _newest_first(secret: KeySecret) -> tuple[bool, int]:
    """The current one first, wherever the clock stood when it was made."""
    return secret.ends_at is not None, -secret.pk


def _secret_row(secret: KeySecret, now: datetime) -> SecretRow:
    of_late = [each for each in secret.programs.all() if each.last_used_at > now - PROGRAMS_FOR]
    return SecretRow(
        id=secret.pk,
        prefix=prefix_of(secret.public_id),
        state=secret_state(secret, now),
        created_at=secret.created_at,
        ends_at=secret.ends_at,
        last_used_at=secret.last_used_at,
        last_used_from=secret.last_used_from,
        last_user_agent=secret.last_user_agent,
        uses=secret.uses,
        programs=tuple(map(_program, of_late)),
    )


def _program(use: KeyUse) -> ProgramRow:
    return ProgramRow(use.address, use.user_agent, use.last_used_at, use.uses)


def _old_secret_users(newest_first: Sequence[KeySecret], now: datetime) -> tuple[ProgramRow, ...]:
    """Each secret was replaced when the one after it was made."""
    found: dict[tuple[str, str], ProgramRow] = {}
    for newer, older in pairwise(newest_first):
        if secret_state(older, now) != "overlapping":
            continue
        for use in older.programs.all():
            if use.last_used_at > newer.created_at:
                who = (use.address, use.user_agent)
                found[who] = max(
                    found.get(who, _program(use)), _program(use), key=lambda row: row.last_used_at
                )
    return tuple(sorted(found.values(), key=lambda row: row.last_used_at, reverse=True))
