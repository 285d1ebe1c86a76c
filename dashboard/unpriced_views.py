"""The page of calls without a price: what lacks one, a form to enter it, and how far the corrections are."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, cast

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods

from accounts.amounts import NANOS
from accounts.models import User
from accounts.queries import teams_of
from gateway import services
from gateway.inputs import Unusable
from gateway.ledger import unpriced as ledger
from gateway.ledger.unpriced import Lacking, Unpriced
from gateway.models import Repricing, Target
from gateway.price_inputs import MAX_PRICE_NANOS, clean_currency

FORMS = 20
"""So many are shown, those with most calls first; others move up when these are filled in."""
REPRICINGS = 20
"""So many are shown, the latest first."""
FOR_ADMINISTRATORS = gettext_lazy("Only an administrator may enter prices.")
_MOST = Decimal(MAX_PRICE_NANOS) / NANOS


def _amount(label: Any, *, required: bool = True) -> forms.DecimalField:
    return forms.DecimalField(
        label=label,
        required=required,
        min_value=Decimal(0),
        max_value=_MOST,
        decimal_places=9,
        widget=forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off"}),
    )


class MissingPrice(forms.Form):
    """A price of one target from its first call without one on."""

    input = _amount(gettext_lazy("Input"))
    output = _amount(gettext_lazy("Output"))
    cached_input = _amount(gettext_lazy("Cached input"), required=False)
    currency = forms.CharField(max_length=3, widget=forms.TextInput(attrs={"autocomplete": "off"}))

    def __init__(self, target_id: int, data: Any = None) -> None:
        first = {"currency": settings.LEDGER_CURRENCY}
        super().__init__(data, initial=first, auto_id=f"price_{target_id}_%s")

    def clean_currency(self) -> str:
        try:
            return clean_currency(self.cleaned_data["currency"].strip().upper())
        except Unusable as why:
            raise forms.ValidationError(str(why)) from None

    def figures(self) -> dict[str, Any]:
        """As `services.add_price` takes them."""
        said = self.cleaned_data
        cached = said["input"] if said["cached_input"] is None else said["cached_input"]
        return {
            "input_nanos": int(said["input"] * NANOS),
            "cached_input_nanos": int(cached * NANOS),
            "output_nanos": int(said["output"] * NANOS),
            "currency": said["currency"],
        }


@dataclass(frozen=True, slots=True)
class Gap:
    """A target that lacks a price, since when, and the form to enter one."""

    lacking: Lacking
    since: datetime
    form: MissingPrice


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the work on one late price is."""

    row: Repricing
    target: str
    state: str
    """waiting, in work or done"""

    @property
    def whole_s(self) -> int:
        return max(1, round((self.row.until_at - self.row.from_at).total_seconds()))

    @property
    def done_s(self) -> int:
        """How much of the span is behind it, in seconds."""
        if self.row.finished_at:
            return self.whole_s
        done = (self.row.place - self.row.from_at).total_seconds() if self.row.place else 0
        return min(max(0, round(done)), self.whole_s)


@login_required
@require_http_methods(["GET", "POST"])
def unpriced(request: HttpRequest) -> HttpResponse:
    """What is not priced yet of the reader's teams, or of all; an administrator enters the price here."""
    user = cast(User, request.user)
    may_price = user.is_staff and user.has_perm("gateway.add_price")
    if request.method == "POST" and not may_price:
        raise PermissionDenied(str(FOR_ADMINISTRATORS))
    team_ids = None if user.is_superuser else list(teams_of(user).values_list("pk", flat=True))
    rows = ledger.found(team_ids, timezone.now())
    gaps = _gaps(rows) if may_price else []
    if request.method == "POST":
        gap = _asked_for(request, gaps)
        if gap is None:
            messages.info(request, _("That target has a price by now."))
            return redirect("unpriced")
        if gap.form.is_valid() and _enter(gap):
            said = _("The price of %(name)s is entered; its calls are corrected.")
            messages.success(request, said % {"name": gap.lacking.name})
            return redirect("unpriced")
        gaps = [gap if each.lacking.target_id == gap.lacking.target_id else each for each in gaps]
    context = {
        "rows": rows,
        "gaps": gaps,
        "may_price": may_price,
        "progress": _progress() if may_price else [],
        "currency": settings.LEDGER_CURRENCY,
    }
    status = 422 if any(each.form.errors for each in gaps) else 200
    return render(request, "dashboard/unpriced.html", context, status=status)


def _gaps(rows: Sequence[Unpriced]) -> list[Gap]:
    """Each target once, from its first call on, in the order in which most calls wait."""
    since: dict[int, datetime] = {}
    lacking: dict[int, Lacking] = {}
    for row in rows:
        for each in row.lacking:
            lacking.setdefault(each.target_id, each)
            since[each.target_id] = min(row.since, since.get(each.target_id, row.since))
    return [Gap(each, since[key], MissingPrice(key)) for key, each in lacking.items()][:FORMS]


def _asked_for(request: HttpRequest, gaps: Sequence[Gap]) -> Gap | None:
    """The gap that the form is about, with what was written; None: it is closed. Raises Http404."""
    number = request.POST.get("target", "")
    if not number.isdecimal() or not Target.objects.filter(pk=int(number[:18])).exists():
        raise Http404
    for each in gaps:
        if each.lacking.target_id == int(number):
            return Gap(each.lacking, each.since, MissingPrice(int(number), request.POST))
    return None


def _enter(gap: Gap) -> bool:
    """Whether the price is entered; if not, the form says why."""
    target = Target.objects.select_related("provider").get(pk=gap.lacking.target_id)
    try:
        services.add_price(target, gap.since, **gap.form.figures())
    except Unusable as why:
        gap.form.add_error(None, str(why))
        return False
    return True


def _progress() -> list[Progress]:
    """The latest ones; those that still have work to do first."""
    rows = list(Repricing.objects.order_by("-id")[:REPRICINGS])
    targets = Target.objects.select_related("provider").in_bulk([each.target_id for each in rows])
    found = [Progress(each, _name(targets.get(each.target_id)), _state(each)) for each in rows]
    return sorted(found, key=lambda each: each.row.finished_at is not None)


def _name(target: Target | None) -> str:
    return str(target) if target else _("A removed target")


def _state(row: Repricing) -> str:
    if row.finished_at:
        return "done"
    return "waiting" if row.place is None else "in work"
