"""Forms of rate limits and quotas, of teams and of keys.

What an administrator set, only an administrator may change.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_POST

from accounts import queries, served, services
from accounts.forms.limits import NewQuota, NewRateLimit
from accounts.meters import WARN, Meter, used_up_at
from accounts.models import ApiKey, Quota, RateLimit, Team
from accounts.refusals import SET_BY_ADMINISTRATOR
from accounts.views.common import key_or_404, me, refuse, require, team_or_404

Owner = Team | ApiKey
Noun = Literal["rate limit", "quota"]
_HOLDS = {
    "rate limit": gettext_lazy("The rate limit holds from now on."),
    "quota": gettext_lazy("The quota holds from now on."),
}


@dataclass(frozen=True, slots=True)
class RateLimitRow:
    limit: RateLimit
    changes: bool
    """Whether the reader may change it."""


@dataclass(frozen=True, slots=True)
class QuotaRow:
    quota: Quota
    changes: bool
    meter: Meter | None
    """None: this process does not know what is used."""
    ends_at: datetime | None
    """Of the present period; None: not known here."""
    used_up_at: datetime | None
    """None: it lasts, or nobody can tell honestly."""

    @property
    def level(self) -> str:
        """Of its meter; empty where there is none. It warns from the first share to tell of."""
        return self.meter.level(min(self.quota.warn_at, default=WARN)) if self.meter else ""


@dataclass(frozen=True, slots=True)
class Panel:
    """What a page of a team or of a key shows of its limits."""

    rate_limits: list[RateLimitRow]
    quotas: list[QuotaRow]
    sets: bool
    """Whether the reader may set more."""
    rate_limit_url: str
    quota_url: str


def panel(request: HttpRequest, owner: Owner, rights: frozenset[queries.Action], *, is_live: bool) -> Panel:
    """In two queries. Nothing of an archived team or of a revoked key is set."""
    rows = queries.limits_of(owner)
    sets = is_live and "manage_limits" in rights
    used = served.used_of([each.pk for each in rows.quotas])

    def changes(row: RateLimit | Quota) -> bool:
        return sets and (me(request).is_superuser or not row.by_administrator)

    return Panel(
        [RateLimitRow(each, changes(each)) for each in rows.rate_limits],
        [_quota_row(each, used.get(each.pk), changes=changes(each)) for each in rows.quotas],
        sets,
        _url(owner, "rate_limit"),
        _url(owner, "quota"),
    )


def _quota_row(quota: Quota, used: served.Used | None, *, changes: bool) -> QuotaRow:
    now = timezone.now()
    meter = Meter(quota.amount, used.spent + used.expired, used.held) if used else None
    period = served.period_of(quota.period, quota.zone, now)
    runs_out = used_up_at(meter, *period, now) if meter and period else None
    return QuotaRow(quota, changes, meter, period[1] if period else None, runs_out)


@login_required
@require_http_methods(["GET", "POST"])
def team_rate_limit(request: HttpRequest, slug: str) -> HttpResponse:
    """Set a team's rate limit."""
    return _set_rate_limit(request, team_or_404(request, slug))


@login_required
@require_http_methods(["GET", "POST"])
def key_rate_limit(request: HttpRequest, key_id: int) -> HttpResponse:
    """Set a key's own rate limit."""
    return _set_rate_limit(request, key_or_404(request, key_id))


@login_required
@require_http_methods(["GET", "POST"])
def team_quota(request: HttpRequest, slug: str) -> HttpResponse:
    """Set a team's quota."""
    return _set_quota(request, team_or_404(request, slug))


@login_required
@require_http_methods(["GET", "POST"])
def key_quota(request: HttpRequest, key_id: int) -> HttpResponse:
    """Set a key's own quota."""
    return _set_quota(request, key_or_404(request, key_id))


@login_required
@require_POST
def remove_rate_limit(request: HttpRequest, limit_id: int) -> HttpResponse:
    """Let a rate limit hold nobody back any more."""
    limit = get_object_or_404(_of_mine(request, RateLimit.objects.all()), pk=limit_id)
    _require_change(request, limit)
    services.remove_rate_limit(limit)
    messages.success(request, _("The rate limit is removed."))
    return redirect(_home(_owner(limit)))


@login_required
@require_POST
def remove_quota(request: HttpRequest, quota_id: int) -> HttpResponse:
    """Let a quota hold nobody back any more. What was spent stays on the books."""
    quota = get_object_or_404(_of_mine(request, Quota.objects.all()), pk=quota_id)
    _require_change(request, quota)
    services.remove_quota(quota)
    messages.success(request, _("The quota is removed; what was spent stays on the books."))
    return redirect(_home(_owner(quota)))


def _set_rate_limit(request: HttpRequest, owner: Owner) -> HttpResponse:
    require(request, _team(owner), "manage_limits")
    row = _asked_for(request, owner, RateLimit.objects.all())
    form = NewRateLimit(request.POST or None, row=row, model_names=served.model_names())
    return _set(request, owner, form, services.set_rate_limit, "rate limit")


def _set_quota(request: HttpRequest, owner: Owner) -> HttpResponse:
    require(request, _team(owner), "manage_limits")
    form = NewQuota(request.POST or None, row=_asked_for(request, owner, Quota.objects.all()))
    return _set(request, owner, form, services.set_quota, "quota")


def _set(
    request: HttpRequest,
    owner: Owner,
    form: NewRateLimit | NewQuota,
    service: Callable[..., object],
    noun: Noun,
) -> HttpResponse:
    """Show the form, or set what it says."""
    if form.is_valid():
        try:
            service(owner, **form.wish(), by_administrator=me(request).is_superuser)
        except services.NotPossible as why:
            refuse(form, why)
        else:
            messages.success(request, _HOLDS[noun])
            return redirect(_home(owner))
    context: Mapping[str, Any] = {
        "form": form,
        "noun": noun,
        "owner": owner,
        "home": _home(owner),
        "is_key": isinstance(owner, ApiKey),
    }
    return render(request, "accounts/set_limit.html", context, status=422 if form.errors else 200)


def _asked_for(request: HttpRequest, owner: Owner, rows: QuerySet[Any]) -> Any:
    """The row to change, if one is named; nothing where it is not this owner's."""
    number = request.GET.get("change", "")
    if not number.isdecimal():
        return None
    found = rows.filter(key=owner) if isinstance(owner, ApiKey) else rows.filter(team=owner)
    row = get_object_or_404(found, pk=int(number[:18]))
    _require_change(request, row)
    return row


def _require_change(request: HttpRequest, row: RateLimit | Quota) -> None:
    """Raises PermissionDenied."""
    require(request, _team(_owner(row)), "manage_limits")
    if not queries.may_change_limit(me(request), row):
        raise PermissionDenied(str(SET_BY_ADMINISTRATOR))


def _of_mine(request: HttpRequest, rows: QuerySet[Any]) -> QuerySet[Any]:
    """Those of the reader's teams and of their keys."""
    teams = queries.teams_of(me(request)).values("pk")
    return rows.filter(Q(team__in=teams) | Q(key__team__in=teams)).select_related("team", "key__team")


def _owner(row: RateLimit | Quota) -> Owner:
    owner = row.key or row.team
    assert owner is not None, "the database holds every limit to one owner"
    return owner


def _team(owner: Owner) -> Team:
    return owner.team if isinstance(owner, ApiKey) else owner


def _url(owner: Owner, noun: str) -> str:
    if isinstance(owner, ApiKey):
        return reverse(f"key_{noun}", args=[owner.pk])
    return reverse(f"team_{noun}", args=[owner.slug])


def _home(owner: Owner) -> str:
    """The page that shows the limit."""
    if isinstance(owner, ApiKey):
        return reverse("key", args=[owner.pk]) + "#limits"
    return reverse("team", args=[owner.slug]) + "#limits"
