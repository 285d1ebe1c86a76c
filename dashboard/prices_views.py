"""Prices of every target and exchange rates, for operators: what holds now, what was, and files of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST, require_safe

from accounts.models import User
from gateway import exchange, price_csv, price_files, snapshot
from gateway.models import ExchangeRate, Price, Target
from gateway.price_files import FileRefused, Findings
from gateway.price_inputs import amount_of
from gateway.relay import catalog

ROWS: Final = 100
"""Dated rows of a page, and what a preview shows of a file."""
RATES: Final = 200
"""Exchange rates shown, the latest of all pairs; the file has them all."""
OTHERS: Final[Mapping[str, Promise]] = {
    "cache_write_nanos": gettext_lazy("cache write %(amount)s"),
    "reasoning_nanos": gettext_lazy("reasoning %(amount)s"),
    "audio_input_nanos": gettext_lazy("audio in %(amount)s"),
    "audio_output_nanos": gettext_lazy("audio out %(amount)s"),
}


@dataclass(frozen=True, slots=True)
class Shown:
    """A price in words. Amounts are plain text in its own currency, per million tokens."""

    currency: str
    input: str
    cached_input: str
    output: str
    others: Sequence[str]
    tiers: Sequence[str]
    source: str
    begins_at: datetime
    is_to_come: bool


@dataclass(frozen=True, slots=True)
class Held:
    """A target and what it costs now."""

    target: Target
    price: Shown | None
    state: str
    """`priced`, `no price`, or `no exchange rate`."""


@require_safe
@login_required
def prices(request: HttpRequest) -> HttpResponse:
    """Four queries: targets, prices, exchange rates for both tables, and the page of dated rows."""
    _require(request, "view")
    return render(request, "dashboard/prices.html", _context(request))


@require_POST
@login_required
def read_file(request: HttpRequest) -> HttpResponse:
    """A file of prices or of exchange rates: looked at first, then added whole or not at all."""
    _require(request, "add")
    form = FileForm(request.POST, request.FILES)
    if not form.is_valid():
        return render(request, "dashboard/prices.html", {**_context(request), "form": form}, status=422)
    kind, text = KINDS[form.cleaned_data["kind"]], form.content()
    if request.POST.get("step") != "add":
        return _preview(request, kind, text, kind.look(_parts(text)))
    try:
        found = kind.add(_parts(text))
    except FileRefused as why:
        return _preview(request, kind, text, Findings(wrong=why.wrong))
    messages.success(
        request,
        _("%(added)s added, %(known)s were there already.")
        % {"added": f"{len(found.fresh):,}", "known": f"{found.known:,}"},
    )
    return redirect("prices")


def _require(request: HttpRequest, what: str) -> None:
    """As the operator pages have it. Raises PermissionDenied."""
    user = cast(User, request.user)
    if not user.is_staff or not user.has_perms([f"gateway.{what}_price", f"gateway.{what}_exchangerate"]):
        raise PermissionDenied(_("Prices are for administrators."))


# Files


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the two sorts of files."""

    name: str
    label: str | Promise
    look: Callable[[Iterable[bytes]], Findings[Any]]
    add: Callable[[Iterable[bytes]], Findings[Any]]


KINDS: Final[Mapping[str, Kind]] = {
    each.name: each
    for each in (
        Kind("prices", gettext_lazy("Prices"), price_files.look_at_prices, price_files.add_prices),
        Kind("rates", gettext_lazy("Exchange rates"), price_files.look_at_rates, price_files.add_rates),
    )
}


class FileForm(forms.Form):
    """A file to look at, or the text of one that was looked at."""

    kind = forms.ChoiceField(
        label=gettext_lazy("It holds"), choices=[(each.name, each.label) for each in KINDS.values()]
    )
    file = forms.FileField(
        label=gettext_lazy("CSV file"),
        required=False,
        widget=forms.FileInput(attrs={"accept": ".csv,text/csv"}),
    )
    text = forms.CharField(
        label=gettext_lazy("The file"),
        required=False,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 12, "wrap": "off"}),
    )

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        file = self.cleaned_data.get("file")
        if file is not None and file.size > price_csv.MOST_BYTES:
            self.add_error(
                "file", _("A file has at most %s bytes: send it in parts.") % f"{price_csv.MOST_BYTES:,}"
            )
        if file is None and not self.cleaned_data.get("text") and "file" not in self.errors:
            self.add_error("file", _("Choose a file."))
        return cleaned

    def content(self) -> bytes:
        """The bytes of the file, or of the text where there is none."""
        file = self.cleaned_data["file"]
        return cast(bytes, file.read()) if file is not None else self.cleaned_data["text"].encode()


def _parts(content: bytes) -> Iterable[bytes]:
    return [content]


def _preview(request: HttpRequest, kind: Kind, content: bytes, found: Findings[Any]) -> HttpResponse:
    """What the file would add. Its text comes along, to be put right here and to be added as it was shown."""
    text = content.decode("utf-8-sig", errors="replace")
    context = {
        "kind": kind,
        "found": found,
        "form": FileForm(initial={"kind": kind.name, "text": text}),
        "fresh": [_told(each) for each in found.fresh[:ROWS]],
        "more": max(0, len(found.fresh) - ROWS),
    }
    return render(request, "dashboard/price_file.html", context, status=422 if found.wrong else 200)


def _told(row: Price | ExchangeRate) -> Mapping[str, Any]:
    if isinstance(row, ExchangeRate):
        return {
            "name": _("%(base)s in %(quote)s") % {"base": row.base, "quote": row.quote},
            "begins": row.valid_from,
            "figure": _rate(row),
        }
    price = _shown(row, timezone.now())
    said = {"input": price.input, "output": price.output, "currency": price.currency}
    figure = _("%(input)s in, %(output)s out, %(currency)s") % said
    name = _("%(route)s at %(target)s") % {"route": row.target.route.model_name, "target": row.target}
    return {"name": name, "begins": row.valid_from.astimezone(UTC), "figure": figure}


# The page


def _context(request: HttpRequest) -> dict[str, Any]:
    now = timezone.now()
    rates = snapshot.exchange_rates()
    rows = Price.objects.order_by("valid_from", "id")
    targets = Target.objects.select_related("route", "provider").order_by("route__model_name", "order", "id")
    by_target: dict[int, list[Price]] = {}
    for row in rows:
        by_target.setdefault(row.target_id, []).append(row)
    user = cast(User, request.user)
    dated, older = _dated(request)
    newest = ExchangeRate.objects.order_by("-valid_from", "-id")[:RATES]
    return {
        "targets": [_held(each, by_target.get(each.pk, []), rates, now) for each in targets],
        "dated": [(row, _shown(row, now)) for row in dated],
        "older": older,
        "is_first": not request.GET.get("before"),
        "rates": [(each, _rate(each)) for each in newest],
        "currency": settings.LEDGER_CURRENCY,
        "may_add": user.has_perms(["gateway.add_price", "gateway.add_exchangerate"]),
        "form": FileForm(),
        "columns": {"prices": price_csv.PRICE_COLUMNS, "rates": price_csv.RATE_COLUMNS},
    }


def _dated(request: HttpRequest) -> tuple[list[Price], int | None]:
    """A page of rows, the last entered first, and after which one the next page begins."""
    rows = Price.objects.select_related("target__route", "target__provider").order_by("-id")
    before = request.GET.get("before", "")
    if before.isascii() and before.isdecimal():
        rows = rows.filter(pk__lt=int(before[:18]))
    found = list(rows[: ROWS + 1])
    return found[:ROWS], found[ROWS - 1].pk if len(found) > ROWS else None


def _held(target: Target, rows: Sequence[Price], rates: exchange.Rates, now: datetime) -> Held:
    """As the relay would have it: the last row that has begun, where its currency has an exchange rate."""
    begun = [each for each in rows if each.valid_from <= now]
    if not begun:
        return Held(target, None, "no price")
    row = begun[-1]
    own = row.currency or settings.LEDGER_CURRENCY
    known = rates.exchange(own, settings.LEDGER_CURRENCY, now.astimezone(UTC).date())
    return Held(target, _shown(row, now), "priced" if known else "no exchange rate")


def _shown(row: Price, now: datetime) -> Shown:
    price = snapshot.price_of(row)
    others = _others(price.rates)
    if price.request_nanos:
        others.append(_("a request %(amount)s") % {"amount": amount_of(price.request_nanos)})
    return Shown(
        currency=row.currency or settings.LEDGER_CURRENCY,
        input=amount_of(row.input_nanos),
        cached_input=amount_of(row.cached_input_nanos),
        output=amount_of(row.output_nanos),
        others=others,
        tiers=[_tier(each) for each in price.tiers],
        source=row.source,
        begins_at=row.valid_from.astimezone(UTC),
        is_to_come=row.valid_from > now,
    )


def _others(rates: catalog.Rates) -> list[str]:
    found = {word: getattr(rates, name) for name, word in OTHERS.items()}
    return [str(word) % {"amount": amount_of(nanos)} for word, nanos in found.items() if nanos is not None]


def _tier(rates: catalog.Rates) -> str:
    figures = [
        _("in %(amount)s") % {"amount": amount_of(rates.input_nanos)},
        _("cached %(amount)s") % {"amount": amount_of(rates.cached_input_nanos)},
        _("out %(amount)s") % {"amount": amount_of(rates.output_nanos)},
        *_others(rates),
    ]
    said = {"above": f"{rates.above_tokens:,}", "figures": ", ".join(figures)}
    return _("above %(above)s tokens: %(figures)s") % said


def _rate(row: ExchangeRate) -> str:
    return f"1 {row.base} = {amount_of(row.rate_nanos)} {row.quote}"
