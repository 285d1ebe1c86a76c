"""The list of API keys: what is asked of it, and one page of the answer. Reads only.

Five queries at most, and no more rows than a page has, however many keys there are.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from django.db.models import (
    BooleanField,
    Case,
    CharField,
    Count,
    Exists,
    Max,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Value,
    When,
)
from django.db.models.functions import Concat

from accounts import searching
from accounts.keys import PREFIX, prefix_of, public_id_of
from accounts.models import ApiKey, KeySecret, KeyUse, Team
from accounts.queries import KeyState, state_of

State = Literal["", "active", "rotating", "expired", "revoked"]
PER_PAGE: Final = 50


@dataclass(frozen=True, slots=True)
class Asked:
    """Of which keys; empty or None: of any."""

    text: str = ""
    """A part of the name, or the beginning of a secret."""
    team: Team | None = None
    state: State = ""
    """`rotating`: an old secret works beside the new one."""
    page: int = 1


@dataclass(frozen=True, slots=True)
class Old:
    """The secret before the current one, while it still works."""

    prefix: str
    ends_at: datetime
    users: int
    """Programs that presented it after it was replaced."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An API key as the list shows it; nothing of its secret."""

    key: ApiKey
    """With its team and its maker."""
    prefix: str
    state: KeyState
    last_used_at: datetime | None
    old: Old | None


@dataclass(frozen=True, slots=True)
class Page:
    rows: tuple[Listed, ...]
    number: int
    pages: int
    total: int

    @property
    def first(self) -> int:
        """The place of the first row among all, from 1; 0 where there is none."""
        return (self.number - 1) * PER_PAGE + 1 if self.total else 0

    @property
    def last(self) -> int:
        return min(self.total, self.number * PER_PAGE)


def page(teams: QuerySet[Team], asked: Asked, now: datetime) -> Page:
    """Active keys first, then the newest. A page beyond the last is the last one."""
    found = _asked_for(ApiKey.objects.filter(team__in=teams), asked, now)
    total = found.count()
    pages = max(1, -(-total // PER_PAGE))
    number = min(max(1, asked.page), pages)
    begin = (number - 1) * PER_PAGE
    # Named first, so that what stands beside them is looked up for these alone.
    chosen = _ordered(found, now).values("pk")[begin : begin + PER_PAGE]
    rows = _rows(_ordered(ApiKey.objects.filter(pk__in=chosen), now), now) if total else ()
    return Page(rows, number, pages, total)


def _asked_for(keys: QuerySet[ApiKey], asked: Asked, now: datetime) -> QuerySet[ApiKey]:
    found = keys.exclude(kind=ApiKey.Kind.PLAYGROUND)
    if asked.team is not None:
        found = found.filter(team=asked.team)
    if asked.state:
        found = found.filter(_in_state(asked.state, now))
    return _with_text(found, asked.text.strip()) if asked.text.strip() else found


def _with_text(keys: QuerySet[ApiKey], text: str) -> QuerySet[ApiKey]:
    if text.startswith(PREFIX):
        public_id = public_id_of(text).rstrip("…")
        secrets = KeySecret.objects.filter(key=OuterRef("pk"), public_id__startswith=public_id)
        return keys.filter(Exists(secrets))
    return searching.with_part(keys, "name", text)


def _active(now: datetime) -> Q:
    return Q(revoked_at=None) & (Q(expires_at=None) | Q(expires_at__gt=now))


def _in_state(state: State, now: datetime) -> Q:
    if state == "revoked":
        return Q(revoked_at__isnull=False)
    if state == "expired":
        return Q(revoked_at=None, expires_at__lte=now)
    if state == "rotating":
        return _active(now) & Q(Exists(KeySecret.objects.filter(key=OuterRef("pk"), ends_at__gt=now)))
    return _active(now)


def _ordered(keys: QuerySet[ApiKey], now: datetime) -> QuerySet[ApiKey]:
    ended = Case(When(_active(now), then=Value(False)), default=Value(True), output_field=BooleanField())
    return keys.order_by(ended, "-created_at", "-pk")


def _rows(keys: QuerySet[ApiKey], now: datetime) -> tuple[Listed, ...]:
    of_key = KeySecret.objects.filter(key=OuterRef("pk")).order_by().values("key")
    used_at = Subquery(of_key.annotate(used_at=Max("last_used_at")).values("used_at"))
    listed = list(keys.select_related("team", "created_by").annotate(used_at=used_at))
    current, old = _live_secrets([each.pk for each in listed], now)
    return tuple(
        Listed(
            key=each,
            prefix=prefix_of(current[each.pk].public_id) if each.pk in current else "",
            state=state_of(each, now),
            last_used_at=each.used_at,
            old=old.get(each.pk) if state_of(each, now) == "active" else None,
        )
        for each in listed
    )


def _live_secrets(key_ids: Collection[int], now: datetime) -> tuple[dict[int, KeySecret], dict[int, Old]]:
    """By key: the current secret, and the overlapping one that works longest."""
    live = Q(ends_at=None) | Q(ends_at__gt=now)
    secrets = list(KeySecret.objects.filter(live, key__in=key_ids).order_by("ends_at", "pk"))
    current = {each.key_id: each for each in secrets if each.ends_at is None}
    lasting = {each.key_id: each for each in secrets if each.ends_at is not None}
    users = _users_of_old(secrets) if lasting else {}
    return current, {
        key_id: Old(prefix_of(each.public_id), each.ends_at, users.get(key_id, 0))
        for key_id, each in lasting.items()
        if each.ends_at is not None
    }


def _users_of_old(secrets: Sequence[KeySecret]) -> dict[int, int]:
    """By key: programs that presented an old secret after the next one was made, each counted once."""
    since = Q(pk__in=[])
    for old in secrets:
        later = [each.created_at for each in secrets if each.key_id == old.key_id and each.pk > old.pk]
        if old.ends_at is not None and later:
            since |= Q(secret=old, last_used_at__gt=min(later))
    program = Concat("address", Value("\n"), "user_agent", output_field=CharField())
    counted = KeyUse.objects.filter(since).order_by().values("secret__key")
    return dict(
        counted.annotate(programs=Count(program, distinct=True)).values_list("secret__key", "programs")
    )
