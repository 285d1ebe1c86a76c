"""The management API of rate limits and quotas, of teams and of API keys.

What an administrator set, only an administrator may change; a team's owners set what they like beside it.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from django.db.models import QuerySet
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from ninja import Body, Query, Router, Schema
from ninja.errors import AuthorizationError
from ninja.responses import Status
from pydantic import Field, with_config
from typing_extensions import TypedDict

from accounts import queries, services
from accounts.api.auth import door, me, require
from accounts.api.found import picked, team_of, visible_key
from accounts.api.shapes import Line, Page, Window, page, shown, taken
from accounts.models import ApiKey, Quota, RateLimit, Team
from accounts.refusals import SET_BY_ADMINISTRATOR
from accounts.services.limits import MOST_NANOS
from gateway import standing
from gateway.relay.limits import Figures

Owner = Team | ApiKey
Shown = dict[str, Any]

limits = Router(tags=["limits"], auth=door("limits"))


class RateLimitOut(Schema):
    model_config = shown(
        id=4, team_id=3, key_id=None, kind="requests", amount=500, model_name="", by_administrator=True
    )

    id: int
    team_id: int | None
    key_id: int | None
    kind: Literal["requests", "tokens", "concurrent"]
    amount: int
    model_name: str
    """The route that it is for; empty: all together."""
    by_administrator: bool
    """Then only an administrator may change it."""


class RateLimitIn(Schema):
    model_config = taken(kind="requests", amount=60, model_name="gpt-4o")

    kind: Literal["requests", "tokens", "concurrent"]
    """Requests or tokens in any 60 seconds, or calls at once."""
    amount: int = Field(ge=1, lt=2**53)
    model_name: Line = ""


class QuotaOut(Schema):
    model_config = shown(
        id=8,
        team_id=3,
        key_id=None,
        kind="money",
        amount=100_000_000_000,
        period="month",
        zone="Europe/Berlin",
        hard=True,
        warn_at=[50, 80, 100],
        by_administrator=False,
        spent=41_500_000_000,
        held=120_000_000,
        expired=0,
    )

    id: int
    team_id: int | None
    key_id: int | None
    kind: Literal["requests", "tokens", "money"]
    amount: int
    """Money in whole nano-units of the ledger currency."""
    period: Literal["day", "month"]
    zone: str
    hard: bool
    warn_at: list[int]
    by_administrator: bool
    """Then only an administrator may change it."""
    spent: int | None
    """In the present period; null: this process does not know."""
    held: int | None
    """By calls under way."""
    expired: int | None
    """By calls of which nobody knows yet what they cost: it counts as spent until somebody does."""


class QuotaIn(Schema):
    model_config = taken(
        kind="money",
        amount=100_000_000_000,
        period="month",
        zone="Europe/Berlin",
        hard=True,
        warn_at=[50, 80, 100],
    )

    kind: Literal["requests", "tokens", "money"]
    amount: int = Field(ge=0, le=MOST_NANOS)
    """Money in whole nano-units of the ledger currency."""
    period: Literal["day", "month"] = "month"
    zone: Line = "UTC"
    """Whose midnight counts, such as Europe/Berlin."""
    hard: bool = False
    """Hold the worst case of every call under way, so that it is never overshot."""
    warn_at: list[int] = Field([50, 80, 100], max_length=10)
    """Shares in percent at which owners are told."""


@with_config(taken(amount=200_000_000_000))
class QuotaChanges(TypedDict, total=False):
    """What is absent stays as it is."""

    amount: int
    zone: Line
    hard: bool
    warn_at: list[int]


@limits.get("/teams/{int:team_id}/rate-limits", response=Page[RateLimitOut])
def list_team_rate_limits(request: HttpRequest, team_id: int, window: Query[Window]) -> Shown:
    """A team's rate limits; its API keys may have more of their own."""
    return _rate_limits(team_of(request, team_id), window)


@limits.put("/teams/{int:team_id}/rate-limits", response=RateLimitOut)
def set_team_rate_limit(request: HttpRequest, team_id: int, new: RateLimitIn) -> Shown:
    """Set a team's one limit of this kind and model name."""
    return _set_rate_limit(request, team_of(request, team_id), new)


@limits.get("/keys/{int:key_id}/rate-limits", response=Page[RateLimitOut])
def list_key_rate_limits(request: HttpRequest, key_id: int, window: Query[Window]) -> Shown:
    """An API key's own rate limits; those of its team hold too."""
    return _rate_limits(visible_key(request, key_id), window)


@limits.put("/keys/{int:key_id}/rate-limits", response=RateLimitOut)
def set_key_rate_limit(request: HttpRequest, key_id: int, new: RateLimitIn) -> Shown:
    """Set an API key's one limit of this kind and model name."""
    return _set_rate_limit(request, visible_key(request, key_id), new)


@limits.get("/rate-limits/{int:limit_id}", response=RateLimitOut)
def get_rate_limit(request: HttpRequest, limit_id: int) -> Shown:
    """One rate limit."""
    return _rate_limit(get_object_or_404(_of_mine(request, RateLimit.objects.all()), pk=limit_id))


@limits.delete("/rate-limits/{int:limit_id}", response={204: None})
def remove_rate_limit(request: HttpRequest, limit_id: int) -> Status[None]:
    """Let it hold nobody back any more."""
    limit = get_object_or_404(_of_mine(request, RateLimit.objects.all()), pk=limit_id)
    _require_change(request, limit)
    services.remove_rate_limit(limit)
    return Status(204, None)


@limits.get("/teams/{int:team_id}/quotas", response=Page[QuotaOut])
def list_team_quotas(request: HttpRequest, team_id: int, window: Query[Window]) -> Shown:
    """A team's quotas, with what is used of them; its API keys may have more of their own."""
    return _quotas(team_of(request, team_id), window)


@limits.put("/teams/{int:team_id}/quotas", response=QuotaOut)
def set_team_quota(request: HttpRequest, team_id: int, new: QuotaIn) -> Shown:
    """Set a team's one quota of this kind and period."""
    return _set_quota(request, team_of(request, team_id), new)


@limits.get("/keys/{int:key_id}/quotas", response=Page[QuotaOut])
def list_key_quotas(request: HttpRequest, key_id: int, window: Query[Window]) -> Shown:
    """An API key's own quotas, with what is used of them; those of its team hold too."""
    return _quotas(visible_key(request, key_id), window)


@limits.put("/keys/{int:key_id}/quotas", response=QuotaOut)
def set_key_quota(request: HttpRequest, key_id: int, new: QuotaIn) -> Shown:
    """Set an API key's one quota of this kind and period."""
    return _set_quota(request, visible_key(request, key_id), new)


@limits.get("/quotas/{int:quota_id}", response=QuotaOut)
def get_quota(request: HttpRequest, quota_id: int) -> Shown:
    """One quota, with what is used of it."""
    return _quota(get_object_or_404(_of_mine(request, Quota.objects.all()), pk=quota_id))


@limits.patch("/quotas/{int:quota_id}", response=QuotaOut)
def change_quota(request: HttpRequest, quota_id: int, changes: Body[QuotaChanges]) -> Shown:
    """Change a quota. What is used of it stays."""
    quota = get_object_or_404(_of_mine(request, Quota.objects.all()), pk=quota_id)
    _require_change(request, quota)
    return _quota(services.change_quota(quota, changes, by_administrator=me(request).is_superuser))


@limits.delete("/quotas/{int:quota_id}", response={204: None})
def remove_quota(request: HttpRequest, quota_id: int) -> Status[None]:
    """Let it hold nobody back any more. What was spent stays on the books."""
    quota = get_object_or_404(_of_mine(request, Quota.objects.all()), pk=quota_id)
    _require_change(request, quota)
    services.remove_quota(quota)
    return Status(204, None)


def _of_mine(request: HttpRequest, rows: QuerySet[Any]) -> QuerySet[Any]:
    """Those of the person's teams and their keys."""
    teams = queries.teams_of(me(request)).values("pk")
    own = rows.filter(team__in=teams) | rows.filter(key__team__in=teams)
    return own.select_related("team", "key__team")


def _require_change(request: HttpRequest, row: RateLimit | Quota) -> None:
    """Raises AuthorizationError."""
    team = row.key.team if row.key else row.team
    assert team is not None, "the database holds every limit to one owner"
    require(request, team, "manage_limits")
    if not queries.may_change_limit(me(request), row):
        raise AuthorizationError(message=str(SET_BY_ADMINISTRATOR))


def _require_setting(request: HttpRequest, owner: Owner) -> None:
    require(request, owner.team if isinstance(owner, ApiKey) else owner, "manage_limits")


def _set_rate_limit(request: HttpRequest, owner: Owner, new: RateLimitIn) -> Shown:
    _require_setting(request, owner)
    by_administrator = me(request).is_superuser
    return _rate_limit(
        services.set_rate_limit(
            owner, new.kind, new.amount, new.model_name, by_administrator=by_administrator
        )
    )


def _set_quota(request: HttpRequest, owner: Owner, new: QuotaIn) -> Shown:
    _require_setting(request, owner)
    by_administrator = me(request).is_superuser
    return _quota(services.set_quota(owner, **new.model_dump(), by_administrator=by_administrator))


def _rate_limits(owner: Owner, window: Window) -> Shown:
    found, after = page(owner.rate_limits.all(), window, "id")
    return {"items": [_rate_limit(each) for each in found], "next": after}


def _quotas(owner: Owner, window: Window) -> Shown:
    found, after = page(owner.quotas.all(), window, "id")
    known = _used(each.pk for each in found)
    return {"items": [_told(each, known) for each in found], "next": after}


def _rate_limit(row: RateLimit) -> Shown:
    return picked(row, RateLimitOut.model_fields)


def _quota(row: Quota) -> Shown:
    return _told(row, _used([row.pk]))


def _told(row: Quota, known: Mapping[int, Figures]) -> Shown:
    figures = known.get(row.pk)
    names = ("spent", "held", "expired")
    used = picked(figures, names) if figures else dict.fromkeys(names)
    return {**picked(row, [each for each in QuotaOut.model_fields if each not in names]), **used}


def _used(quota_ids: Iterable[int]) -> Mapping[int, Figures]:
    """As far as it can be known here and now."""
    try:
        return standing.figures(list(quota_ids))
    except standing.NotKnown:
        return {}
