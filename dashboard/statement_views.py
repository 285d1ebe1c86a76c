"""A team's month as a statement: what each API key used of each model name, with its sum and its file."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from urllib.parse import urlencode

from django import forms
from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_safe

from accounts.models import Team, User
from accounts.queries import teams_of
from dashboard.chosen import chosen_team
from dashboard.forecast_views import MonthQuestion
from dashboard.savings_views import months
from dashboard.usage_figures import together
from gateway.ledger import queries, spans
from gateway.ledger import statement as books
from gateway.ledger.queries import Scope, Sums
from gateway.ledger.statement import Month
from gateway.snapshot import exchange_rates

MOST_LINES = 1000
"""That a page shows, the dearest of them; the file has all."""


@dataclass(frozen=True, slots=True)
class Line:
    """What one API key used of one model name."""

    route: str
    key: str
    sums: Sums


class StatementQuestion(MonthQuestion):
    """Of which month, too."""

    month = forms.ChoiceField(label=gettext_lazy("Month"), required=False)
    field_order = ("month", "currency", "zone")

    def __init__(self, data: Any, currencies: Sequence[str], now: datetime) -> None:
        self._this = f"{now:%Y-%m}"
        self._offered = months(now.date())
        super().__init__(data, currencies)

    def full_clean(self) -> None:
        self.offer("month", self._offered)
        super().full_clean()

    def month_shown(self) -> Month:
        return Month.read(self.month_name, self.days_of())

    @property
    def month_name(self) -> str:
        return self.said("month") or self._this


@require_safe
@login_required
def statement(request: HttpRequest) -> HttpResponse:
    """The lines add up to the sum. The last minutes of a month that is not over may be missing.

    Seven queries, the teams' and those of every page: currencies; marks and sums; names of keys;
    later corrections; what is behind; one more in another currency.
    In another currency a line is rounded once for each day in UTC, and the file's once for each of its own.
    """
    user, now = cast(User, request.user), timezone.now()
    teams = list(teams_of(user))
    team = chosen_team(teams, request.GET.get("team", ""), user) or next(iter(teams), None)
    if team is None:
        return render(request, "dashboard/no_team.html", {"teams": teams})
    form = StatementQuestion(request.GET, exchange_rates().currencies(settings.LEDGER_CURRENCY), now)
    context = {"form": form, "teams": teams, "team": team, **_told(team, form, now)}
    return render(request, "dashboard/statement.html", context, status=422 if form.errors else 200)


def _told(team: Team, form: StatementQuestion, now: datetime) -> dict[str, Any]:
    month = form.month_shown()
    lines = _lines(team, month, form.said("currency"), now)
    is_over = month.ends_at <= now
    behind_since = queries.watermark((team.pk,))
    return {
        "month": month.first,
        "lines": lines[:MOST_LINES],
        "left_out": max(0, len(lines) - MOST_LINES),
        "total": together(each.sums for each in lines),
        "currency": form.shown_currency,
        "zone": form.said("zone") or "UTC",
        "is_over": is_over,
        "is_corrected": is_over and books.is_corrected_later(team.pk, month),
        "behind_since": behind_since if behind_since and behind_since < month.ends_at else None,
        "file": _file(team, form),
    }


def _lines(team: Team, month: Month, currency: str, now: datetime) -> list[Line]:
    """By model name, the dearest key first. Refused calls are not on a statement: they cost nothing."""
    since = spans.midnight(month.first, month.zone)
    until = min(month.ends_at, now + spans.MINUTE)
    found = (
        queries.every(Scope((team.pk,)), since, until, ("key", "route"), currency) if since < until else []
    )
    used = [(key, route, sums) for (key, route), sums in found if sums.calls or sums.attempts]
    names = queries.names_of("key", {key for key, _, _ in used}) if used else {}
    lines = [Line(route, names.get(key, key), sums) for key, route, sums in used]
    return sorted(lines, key=lambda each: (each.route, -each.sums.cost_nanos, each.key))


def _file(team: Team, form: StatementQuestion) -> str:
    said = {"month": form.month_name, "zone": form.said("zone"), "currency": form.said("currency")}
    asked = urlencode({name: value for name, value in said.items() if value})
    return f"{reverse('api:export_statement', args=[team.pk])}?{asked}"
