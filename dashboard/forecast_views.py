"""What the month will come to: of one team, or of all."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast
from zoneinfo import ZoneInfo, available_timezones

from django import forms
from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_safe

from accounts.models import User
from accounts.queries import teams_of
from dashboard import rounded
from dashboard.chosen import chosen_team
from dashboard.month_chart import month_chart
from gateway.ledger import outlook
from gateway.ledger.forecast import Forecast
from gateway.ledger.outlook import Outlook, Outlooks
from gateway.snapshot import exchange_rates


@require_safe
@login_required
def forecast(request: HttpRequest) -> HttpResponse:
    """The month's forecast, with its interval and how such forecasts did before.

    Three queries of the forecast, four for all teams; one of currencies, and one more in another currency.
    The last minutes may be missing.
    """
    user = cast(User, request.user)
    teams = list(teams_of(user))
    team = chosen_team(teams, request.GET.get("team", ""), user)
    if team is None and not user.is_superuser:
        return render(request, "dashboard/no_team.html", {"teams": teams})
    form = MonthQuestion(request.GET, exchange_rates().currencies(settings.LEDGER_CURRENCY))
    ids = None if team is None else (team.pk,)
    context = {
        "form": form,
        "teams": teams,
        "team": team,
        "may_see_all": user.is_superuser,
        **_told(ids, form, {str(each.pk): each.name for each in teams}),
    }
    return render(request, "dashboard/forecast.html", context, status=422 if form.errors else 200)


class MonthQuestion(forms.Form):
    """In which currency, and whose days. A field that cannot be read counts as empty, and says so."""

    currency = forms.ChoiceField(label=gettext_lazy("Currency"), required=False)
    zone = forms.ChoiceField(label=gettext_lazy("Days of"), required=False)

    def __init__(self, data: Any, currencies: Sequence[str]) -> None:
        super().__init__(data, auto_id="month_%s")
        self.offer("currency", [("", settings.LEDGER_CURRENCY), *((each, each) for each in currencies)])
        self.offer("zone", [("", "UTC"), *((each, each) for each in sorted(available_timezones()))])
        self.full_clean()

    def offer(self, name: str, choices: Sequence[Any]) -> None:
        self.fields[name].choices = choices  # type: ignore[attr-defined]

    def said(self, name: str) -> str:
        return cast(str, self.cleaned_data.get(name, ""))

    @property
    def shown_currency(self) -> str:
        return self.said("currency") or settings.LEDGER_CURRENCY

    def days_of(self) -> ZoneInfo:
        return ZoneInfo(self.said("zone") or "UTC")


@dataclass(frozen=True, slots=True)
class ShownForecast:
    """A month in words."""

    so_far: str
    expected: str
    """Empty, here and below: there is too little history."""
    interval: str
    calls: str
    """Expected."""
    history_days: int
    error: str
    """How far such forecasts were off; empty: there were none."""
    within: str
    no_rate: bool


def _told(team_ids: tuple[int, ...] | None, form: MonthQuestion, names: Mapping[str, str]) -> dict[str, Any]:
    currency = form.shown_currency
    found = outlook.outlooks(team_ids, timezone.now(), form.days_of(), form.said("currency"))
    made = found.together.cost.forecast if found.together.cost else None
    chart = month_chart(found.together.days, made) if isinstance(made, Forecast) else None
    return {
        "month": found.today.replace(day=1),
        "currency": currency,
        "forecast": shown(found.together, currency),
        "chart": asdict(chart) if chart else None,
        "days": [(day, rounded.money(cost, currency)) for day, cost in reversed(found.together.days)],
        "by_team": _by_team(found, names, currency) if len(found.by_team) > 1 else [],
    }


def _by_team(found: Outlooks, names: Mapping[str, str], currency: str) -> list[tuple[str, ShownForecast]]:
    return [(names.get(value, value), shown(each, currency)) for value, each in found.by_team]


def shown(found: Outlook, currency: str) -> ShownForecast:
    calls, record = found.calls.forecast, found.cost.track_record if found.cost else None
    made = found.cost.forecast if found.cost else None
    return ShownForecast(
        so_far=rounded.money(made.so_far if made else None, currency),
        expected=rounded.money(made.expected, currency) if isinstance(made, Forecast) else "",
        interval=_interval(made, currency) if isinstance(made, Forecast) else "",
        calls=rounded.count(calls.expected) if isinstance(calls, Forecast) else "",
        history_days=calls.history_days,
        error=rounded.share(record.mean_error) if record else "",
        within=_within(record.within, len(record.errors)) if record else "",
        no_rate=found.cost is None,
    )


def _within(within: int, tried: int) -> str:
    return _("%(within)d of %(tried)d") % {"within": within, "tried": tried}


def _interval(made: Forecast, currency: str) -> str:
    ends = {"low": rounded.money(made.low, currency), "high": rounded.money(made.high, currency)}
    return _("%(low)s to %(high)s") % ends
