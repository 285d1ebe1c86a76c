"""A provider's own figures against our books: a file is read, compared, and forgotten.

The bill is of all teams together, so only an administrator compares it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, cast
from zoneinfo import ZoneInfo, available_timezones

from django import forms
from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods

from accounts.models import User
from dashboard import rounded
from gateway.ledger import evidence, provider_csv, queries
from gateway.ledger.evidence import Answer
from gateway.ledger.provider_csv import Unreadable
from gateway.ledger.reconciliation import Compared, Figure, Reason, Row
from gateway.models import Provider

FIGURE_NAMES: Final[Mapping[Figure, str | Promise]] = {
    "input_tokens": gettext_lazy("Input tokens"),
    "output_tokens": gettext_lazy("Output tokens"),
    "tokens": gettext_lazy("Tokens"),
    "cost_nanos": gettext_lazy("Cost"),
}


class BillForm(forms.Form):
    """A provider's file, and how it is to be read."""

    provider = forms.ModelChoiceField(
        label=gettext_lazy("Provider"),
        queryset=Provider.objects.all(),
        to_field_name="slug",
        empty_label=None,
    )
    file = forms.FileField(
        label=gettext_lazy("CSV file"), widget=forms.FileInput(attrs={"accept": ".csv,text/csv"})
    )
    zone = forms.ChoiceField(label=gettext_lazy("Its days are those of"), required=False)
    currency = forms.CharField(label=gettext_lazy("Its currency"), required=False, max_length=3, min_length=3)
    midnight_minutes = forms.IntegerField(
        label=gettext_lazy("Minutes around midnight"),
        min_value=0,
        max_value=180,
        initial=evidence.NEAR_MINUTES,
    )

    def __init__(self, data: Any = None, files: Any = None) -> None:
        super().__init__(data, files, auto_id="bill_%s")
        zones = [("", "UTC"), *((each, each) for each in sorted(available_timezones()))]
        self.fields["zone"].choices = zones  # type: ignore[attr-defined]
        self.fields["currency"].widget.attrs["placeholder"] = settings.LEDGER_CURRENCY

    def clean_currency(self) -> str:
        code = str(self.cleaned_data["currency"]).upper()
        if code and not (code.isascii() and code.isalpha()):
            raise forms.ValidationError(_("Write three letters, such as USD."))
        return code

    def clean_file(self) -> Any:
        file = self.cleaned_data["file"]
        if file.size > provider_csv.MOST_BYTES:
            raise forms.ValidationError(
                _("A file has at most %s bytes: send it in parts, by month.")
                % rounded.count(provider_csv.MOST_BYTES)
            )
        return file

    def answer(self) -> Answer:
        """Raises Unreadable."""
        said = self.cleaned_data
        zone = ZoneInfo(said["zone"] or "UTC")
        return evidence.reconciled(
            said["file"].read(), said["provider"].slug, zone, said["currency"], said["midnight_minutes"]
        )


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def reconciliation(request: HttpRequest) -> HttpResponse:
    """A provider's usage against our books. The file is read, compared, and forgotten."""
    if not cast(User, request.user).is_superuser:
        raise PermissionDenied(_("A provider's bill is of all teams together, so it is for administrators."))
    if request.method != "POST":
        return render(
            request, "dashboard/reconciliation.html", {"form": BillForm(), "names": provider_csv.NAMES}
        )
    form = BillForm(request.POST, request.FILES)
    context: dict[str, Any] = {"form": form, "names": provider_csv.NAMES}
    if form.is_valid():
        try:
            context |= _told(form.answer(), form.cleaned_data["provider"])
        except Unreadable as why:
            for line, sentence in why.errors:
                form.add_error(
                    "file",
                    _("Line %(line)d: %(sentence)s") % {"line": line, "sentence": sentence}
                    if line
                    else sentence,
                )
    return render(request, "dashboard/reconciliation.html", context, status=422 if form.errors else 200)


@dataclass(frozen=True, slots=True)
class ShownFigure:
    """Both sides of one figure in words."""

    name: str
    ours: str
    theirs: str
    difference: str
    share: str


@dataclass(frozen=True, slots=True)
class ShownReason:
    sentence: str
    attempts: str
    tokens: str
    cost: str
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShownDay:
    """One day and model in words."""

    day: date
    upstream_model: str
    lines: str
    figures: tuple[ShownFigure, ...]
    """Of tokens and of cost."""
    reasons: tuple[ShownReason, ...]


def _told(answer: Answer, provider: Provider) -> Mapping[str, Any]:
    found = answer.found
    totals = [(figure, found.total(figure)) for figure in FIGURE_NAMES]
    return {
        "answer": answer,
        "provider": provider,
        "totals": [_figure(figure, total) for figure, total in totals if total is not None],
        "uneven": [_day(row, answer) for row in found.uneven()],
        "unknown": [_day(row, answer) for row in found.unknown()],
        "even": sum(row.is_even for row in found.rows),
        "behind_since": queries.watermark(None),
    }


def _day(row: Row, answer: Answer) -> ShownDay:
    reasons = answer.explained.reasons.get((row.day, row.upstream_model), ())
    return ShownDay(
        day=row.day,
        upstream_model=row.upstream_model,
        lines=", ".join(map(str, row.numbers)),
        figures=tuple(_figure(each, row.compared(each)) for each in ("tokens", "cost_nanos")),
        reasons=tuple(map(_reason, reasons)),
    )


def _reason(found: Reason) -> ShownReason:
    return ShownReason(
        found.sentence,
        rounded.count(found.attempts),
        rounded.count(found.tokens),
        rounded.money(found.cost_nanos, settings.LEDGER_CURRENCY),
        found.examples,
    )


def _figure(figure: Figure, found: Compared | None) -> ShownFigure:
    name = str(FIGURE_NAMES[figure])
    if found is None:
        return ShownFigure(name, rounded.NONE, rounded.NONE, rounded.NONE, rounded.NONE)
    sides = (found.ours, found.theirs, found.difference)
    ours, theirs, difference = (_worded(figure, each) for each in sides)
    return ShownFigure(name, ours, theirs, difference, rounded.share(found.share))


def _worded(figure: Figure, value: int) -> str:
    return rounded.money(value, settings.LEDGER_CURRENCY) if figure == "cost_nanos" else rounded.count(value)
