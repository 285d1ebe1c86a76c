"""What the usage page is asked: a span and how it is told, from the address. Reads no books."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final, cast
from zoneinfo import ZoneInfo, available_timezones

from django import forms
from django.conf import settings
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from gateway import usage_api
from gateway.ledger import spans
from gateway.ledger.queries import Dimension

Texts = Mapping[str, str | Promise]

RANGES: Final[Texts] = {
    "hour": gettext_lazy("Last hour"),
    "24h": gettext_lazy("24 hours"),
    "today": gettext_lazy("Today"),
    "": gettext_lazy("7 days"),
    "30d": gettext_lazy("30 days"),
    "month": gettext_lazy("This month"),
    "last_month": gettext_lazy("Last month"),
    "custom": gettext_lazy("From … to …"),
}
DIMENSIONS: Final[Mapping[Dimension, str | Promise]] = {
    "route": gettext_lazy("Model name"),
    "key": gettext_lazy("API key"),
    "target": gettext_lazy("Target"),
    "outcome": gettext_lazy("Outcome"),
    "code": gettext_lazy("Code"),
    "priority": gettext_lazy("Priority"),
    "team": gettext_lazy("Team"),
}
COLUMNS: Final = (
    *("name", "cost", "change", "calls", "refused", "failed", "input_tokens", "output_tokens"),
    *("p50", "p95", "p99", "first_token"),
)
"""That the breakdown can be sorted by; with a minus before it the largest first."""
USUAL_SORT: Final = "-cost"
CURRENCY: Final = re.compile(r"[A-Z]{3}\Z")
DIMENSION: Final = re.compile(usage_api.DIMENSION)
LONGEST: Final = timedelta(days=3 * 366)
BEGIN: Final = datetime.combine(date(2000, 1, 1), time())
"""Of time, as far as the books are concerned."""
END: Final = datetime.combine(date(9000, 1, 1), time())


@dataclass(frozen=True, slots=True)
class Span:
    """From a moment up to another, in UTC."""

    since: datetime
    until: datetime


class MomentField(forms.Field):
    """A moment in the zone of the page, `2030-01-31T17:00`; or a day, whose begin is meant, or its end."""

    widget = forms.DateTimeInput(attrs={"type": "datetime-local"})

    def __init__(self, *, is_end: bool, **more: Any) -> None:
        super().__init__(required=False, **more)
        self._is_end = is_end

    def to_python(self, value: Any) -> datetime | None:
        """Without a zone, and within what can be. Raises ValidationError."""
        text = str(value or "").strip()
        if not text:
            return None
        try:
            return min(max(self._read(text), BEGIN), END)
        except ValueError:
            raise forms.ValidationError(_("Write it as 2030-01-31, or 2030-01-31T17:00.")) from None

    def _read(self, text: str) -> datetime:
        """Raises ValueError."""
        if len(text) == len("2030-01-31"):
            day = min(date.fromisoformat(text), END.date())
            return datetime.combine(day, time()) + timedelta(days=1 if self._is_end else 0)
        return datetime.fromisoformat(text).replace(tzinfo=None, second=0, microsecond=0)


def _at_once() -> forms.Select:
    """The page follows a choice without being told to."""
    return forms.Select(attrs={"class": "at-once"})


class UsageQuestion(forms.Form):
    """Which span, and how it is told. A field that cannot be read counts as empty, and says so."""

    range = forms.ChoiceField(label=gettext_lazy("Span"), required=False, choices=list(RANGES.items()))
    since = MomentField(label=gettext_lazy("From"), is_end=False)
    until = MomentField(label=gettext_lazy("To"), is_end=True)
    by = forms.ChoiceField(label=gettext_lazy("Broken down by"), required=False, widget=_at_once())
    currency = forms.ChoiceField(label=gettext_lazy("Currency"), required=False, widget=_at_once())
    zone = forms.ChoiceField(label=gettext_lazy("Time zone"), required=False, widget=_at_once())
    compare = forms.BooleanField(label=gettext_lazy("Compare with the period before"), required=False)
    sort = forms.CharField(required=False, max_length=20)

    def __init__(self, data: Any, *, all_teams: bool) -> None:
        super().__init__(data, auto_id="usage_%s")
        self._told = [each for each in DIMENSIONS.items() if each[0] != "team" or all_teams]
        by, currency = data.get("by", ""), data.get("currency", "")
        is_tag = by.startswith("tag:") and DIMENSION.fullmatch(by)
        self.offer([by[4:]] if is_tag else [], [currency] if CURRENCY.match(currency) else [])
        self._offer("zone", [("", "UTC"), *((each, each) for each in sorted(available_timezones()))])
        self.full_clean()

    def offer(self, tags: Iterable[str], currencies: Iterable[str]) -> None:
        """What there is to choose; what was chosen before is read without knowing it."""
        names = dict.fromkeys(tags)
        self._offer("by", [*self._told, *((f"tag:{each}", title_of(("tag", each))) for each in names)])
        self._offer("currency", [("", settings.LEDGER_CURRENCY), *((each, each) for each in currencies)])

    def _offer(self, name: str, choices: Sequence[Any]) -> None:
        self.fields[name].choices = choices  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        said = self.cleaned_data
        since, until = said.get("since"), said.get("until")
        if said.get("range") == "custom" and since and until and not timedelta(0) < until - since <= LONGEST:
            self.add_error("until", _("Choose a moment after the first, within three years."))
        return said

    def said(self, name: str) -> str:
        return cast(str, self.cleaned_data.get(name, ""))

    @property
    def zone_shown(self) -> ZoneInfo:
        return ZoneInfo(self.said("zone") or "UTC")

    @property
    def by_name(self) -> str:
        return self.said("by") or "route"

    @property
    def is_compared(self) -> bool:
        return bool(self.cleaned_data.get("compare"))

    @property
    def sorted_by(self) -> str:
        """A column, perhaps with a minus before it."""
        asked = self.said("sort")
        return asked if asked.removeprefix("-") in COLUMNS else USUAL_SORT

    def span(self, now: datetime) -> Span:
        """The minute that is not over is within."""
        return self._custom(now) if self.said("range") == "custom" else preset(*self._preset(), now)

    def before(self, span: Span) -> Span:
        """What it is compared with: as long, and of the same days or hours where that is possible."""
        if self.said("range") == "custom":
            return as_long_before(span)
        return preset_before(*self._preset(), span)

    def _preset(self) -> tuple[str, ZoneInfo]:
        return self.said("range"), self.zone_shown

    def _custom(self, now: datetime) -> Span:
        zone, latest = self.zone_shown, now + spans.MINUTE
        until = _moment(self.cleaned_data.get("until"), zone) or latest
        until = min(until, latest)
        since = _moment(self.cleaned_data.get("since"), zone)
        if since is None or since >= until:
            since = spans.midnight(until.astimezone(zone).date() - timedelta(days=6), zone)
        return Span(since, until)


def title_of(by: Dimension | tuple[str, str]) -> str:
    return _("Tag %(name)s") % {"name": by[1]} if isinstance(by, tuple) else str(DIMENSIONS[by])


def _moment(local: datetime | None, zone: ZoneInfo) -> datetime | None:
    """In UTC."""
    return None if local is None else local.replace(tzinfo=zone).astimezone(UTC)


def preset(name: str, zone: ZoneInfo, now: datetime) -> Span:
    """The span that a preset means at this moment; one of days begins at midnight in the zone."""
    until = now + spans.MINUTE
    if hours := {"hour": 1, "24h": 24}.get(name):
        return Span(until - timedelta(hours=hours), until)
    today = now.astimezone(zone).date()
    if name == "last_month":
        first = _month_before(today)
        return Span(spans.midnight(first, zone), spans.midnight(today.replace(day=1), zone))
    days = {"today": 0, "30d": 29, "month": today.day - 1}.get(name, 6)
    return Span(spans.midnight(today - timedelta(days=days), zone), until)


def preset_before(name: str, zone: ZoneInfo, span: Span) -> Span:
    """The same hours of as many days before, or the same part of the month before."""
    if name in ("hour", "24h"):
        return as_long_before(span)
    first, last = span.since.astimezone(zone), span.until.astimezone(zone)
    if name in ("month", "last_month"):
        return _month_of(first.date(), last, zone, span)
    days = timedelta(days={"today": 1, "30d": 30}.get(name, 7))
    until = min((last - days).astimezone(UTC), span.since)  # a local time, so across a change of clocks
    return Span(spans.midnight(first.date() - days, zone), until)


def _month_of(first: date, last: datetime, zone: ZoneInfo, span: Span) -> Span:
    """The month before, as far as this one is: a whole one whole, one that has fewer days to its end."""
    earlier = _month_before(first)
    days = (last.date() - first).days
    until = datetime.combine(earlier + timedelta(days=days), last.timetz())
    is_whole = last.date() == spans.following(first, "month")
    until = span.since if is_whole else min(until.astimezone(UTC), span.since)
    return Span(spans.midnight(earlier, zone), until)


def _month_before(day: date) -> date:
    return (day.replace(day=1) - timedelta(days=1)).replace(day=1)


def as_long_before(span: Span) -> Span:
    return Span(span.since - (span.until - span.since), span.since)
