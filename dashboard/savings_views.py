"""What usage would have cost elsewhere: of one team, or of all."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final, cast

from django import forms
from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_safe

from accounts.models import Milestone, User
from accounts.queries import teams_of
from accounts.services import milestones
from dashboard import rounded
from dashboard.chosen import chosen_team
from gateway.ledger import comparing
from gateway.ledger.comparing import Question, Shelf
from gateway.ledger.forecast import last_of
from gateway.ledger.savings import Comparison, WhatIf
from gateway.price_books import books
from gateway.savings_api import LEFT_OUT

USUAL_DAYS: Final = 30
MONTHS_OFFERED: Final = 13


@require_safe
@login_required
def savings(request: HttpRequest) -> HttpResponse:
    """What the usage of a period would have cost elsewhere.

    Five queries, the teams' and one of the milestone: two of what can be bought, three of savings.
    The last minutes may be missing.
    """
    user = cast(User, request.user)
    teams = list(teams_of(user))
    team = chosen_team(teams, request.GET.get("team", ""), user)
    if team is None and not user.is_superuser:
        return render(request, "dashboard/no_team.html", {"teams": teams})
    goods = comparing.shelf()
    form = SavingsQuestion(request.GET, goods)
    ids = None if team is None else (team.pk,)
    context = {
        "form": form,
        "teams": teams,
        "team": team,
        "may_see_all": user.is_superuser,
        **_savings(ids, form, goods),
    }
    milestones.reach(user, Milestone.Name.SAVINGS_SEEN)
    return render(request, "dashboard/savings.html", context, status=422 if form.errors else 200)


class SavingsQuestion(forms.Form):
    """Which period, and what to compare with. A field that cannot be read counts as empty, and says so."""

    period = forms.ChoiceField(label=gettext_lazy("Period"), required=False)
    other = forms.ChoiceField(label=gettext_lazy("Compared with"), required=False)
    currency = forms.ChoiceField(label=gettext_lazy("Currency"), required=False)

    def __init__(self, data: Any, goods: Shelf) -> None:
        super().__init__(data, auto_id="savings_%s")
        self.today = timezone.now().date()
        self._offer("period", [("", _("Last %d days") % USUAL_DAYS), *months(self.today)])
        self._offer("other", [("", _("The cheapest of all")), *_sides(goods)])
        self._offer(
            "currency", [("", settings.LEDGER_CURRENCY), *((each, each) for each in goods.currencies())]
        )
        self.full_clean()

    def _offer(self, name: str, choices: Sequence[Any]) -> None:
        self.fields[name].choices = choices  # type: ignore[attr-defined]

    def said(self, name: str) -> str:
        return cast(str, self.cleaned_data.get(name, ""))

    @property
    def shown_currency(self) -> str:
        return self.said("currency") or settings.LEDGER_CURRENCY

    def question(self, team_ids: tuple[int, ...] | None) -> Question:
        since, until = self._span()
        return Question(
            team_ids, since, until, self.today, other=self.said("other"), currency=self.said("currency")
        )

    def _span(self) -> tuple[date, date]:
        if not self.said("period"):
            until = self.today + timedelta(days=1)
            return until - timedelta(days=USUAL_DAYS), until
        since = date.fromisoformat(f"{self.said('period')}-01")
        return since, last_of(since) + timedelta(days=1)


def months(today: date) -> list[tuple[str, str]]:
    """This one and those before, the latest first."""
    found, first = [], today.replace(day=1)
    for _back in range(MONTHS_OFFERED):
        found.append((f"{first:%Y-%m}", date_format(first, "YEAR_MONTH_FORMAT")))
        first = (first - timedelta(days=1)).replace(day=1)
    return found


def _sides(goods: Shelf) -> list[tuple[str, list[tuple[str, str]]]]:
    return [
        (_("Price books"), [(f"book:{slug}", book.name) for slug, book in books().items()]),
        (_("Routes"), [(f"route:{each}", each) for each in sorted(goods.targets)]),
    ]


@dataclass(frozen=True, slots=True)
class ShownSide:
    """One comparison in words."""

    name: str
    actual: str
    other: str
    difference: str
    share: str
    left_out: tuple[str, ...]
    is_whole: bool


@dataclass(frozen=True, slots=True)
class ShownRoute:
    """A row of the table."""

    route: str
    tokens_in: str
    tokens_out: str
    actual: str
    cheapest: ShownSide | None
    others: tuple[ShownSide, ...]


def _savings(team_ids: tuple[int, ...] | None, form: SavingsQuestion, goods: Shelf) -> Mapping[str, Any]:
    asked, currency = form.question(team_ids), form.shown_currency
    found = comparing.savings(asked, goods)
    compared = found.comparison
    return {
        "asked": asked,
        "last_day": asked.until - timedelta(days=1),
        "other_name": found.name,
        "side": _side(found.name, compared, currency),
        "is_saved": compared.difference_nanos >= 0,
        "amount": rounded.money(abs(compared.difference_nanos), currency),
        "share": rounded.share(None if compared.share_saved is None else abs(compared.share_saved)),
        "yearly": rounded.money(
            abs(found.yearly_nanos) if found.yearly_nanos is not None else None, currency
        ),
        "has_comparison": compared.share_saved is not None,
        "routes": [_route(each, currency) for each in found.routes],
    }


def _route(found: WhatIf, currency: str) -> ShownRoute:
    cheapest = _side(*found.cheapest, currency) if found.cheapest else None
    own = rounded.money(found.actual_nanos, settings.LEDGER_CURRENCY)
    return ShownRoute(
        route=found.route,
        tokens_in=rounded.count(found.usage.input_tokens),
        tokens_out=rounded.count(found.usage.output_tokens),
        actual=cheapest.actual if cheapest else own,
        cheapest=cheapest,
        others=tuple(_side(name, each, currency) for name, each in found.offers),
    )


def _side(name: str, found: Comparison, currency: str) -> ShownSide:
    return ShownSide(
        name=name,
        actual=rounded.money(found.actual_nanos, currency),
        other=rounded.money(found.other_nanos, currency),
        difference=rounded.gain(found.difference_nanos, currency),
        share=rounded.share(found.share_saved),
        left_out=tuple(_left_out(found)),
        is_whole=found.is_whole,
    )


def _left_out(found: Comparison) -> Iterable[str]:
    """A sentence for each route and reason."""
    for each in found.left_out:
        days = ngettext("%d day", "%d days", len(each.days)) % len(each.days)
        cost = rounded.money(each.cost_nanos, settings.LEDGER_CURRENCY)
        yield f"{each.route}, {days}, {cost}: {LEFT_OUT[each.why]}"
