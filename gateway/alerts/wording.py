"""An alert in words, in the language that is active: its figures, its rule, and its messages."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Final

from django.conf import settings
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from accounts import amounts
from accounts.notices import Words, link, moment
from gateway.models import Alert, AlertEvent

CENT_NANOS: Final = 10**7
DAY_MINUTES: Final = 1440
NONE: Final = "\u2013"
QUOTAS: Final = {
    "requests a day": gettext_lazy("requests a day"),
    "requests a month": gettext_lazy("requests a month"),
    "tokens a day": gettext_lazy("tokens a day"),
    "tokens a month": gettext_lazy("tokens a month"),
    "money a day": gettext_lazy("money a day"),
    "money a month": gettext_lazy("money a month"),
}
"""What a quota counts, as it is kept and told to programs, and as it is shown."""


def figure(kind: str, value: int | None) -> str:
    """With its unit; a dash where there is none."""
    return NONE if value is None else _FIGURES[kind](value)


def detail(kind: str, kept: str) -> str:
    """Whose figure it is, from the text that is kept of it; one of another form is shown as it is."""
    owner, _colon, counted = kept.rpartition(": ")
    if kind != Alert.Kind.QUOTA or counted not in QUOTAS:
        return kept
    return f"{owner}: {QUOTAS[counted]}"


def rule(alert: Alert) -> str:
    """When it fires, as a clause: `more than 5.00 USD spent in 1 hour`."""
    said = {
        Alert.Kind.SPEND: _("more than %(threshold)s spent in %(window)s"),
        Alert.Kind.ERROR_RATE: _("more than %(threshold)s of calls failed in %(window)s"),
        Alert.Kind.LATENCY: _("p95 latency above %(threshold)s over %(window)s"),
        Alert.Kind.BREAKER: _("a breaker open for more than %(threshold)s"),
        Alert.Kind.QUOTA: _("more than %(threshold)s of a quota used"),
    }[Alert.Kind(alert.kind)]
    clause = said % {
        "threshold": figure(alert.kind, alert.threshold),
        "window": minutes(alert.window_minutes),
    }
    if alert.least_calls < 2:
        return clause
    return _("%(rule)s, with at least %(calls)d calls") % {"rule": clause, "calls": alert.least_calls}


def scope(alert: Alert) -> str:
    """Whose calls it looks at: `Search · gpt-4o · API key nightly`."""
    parts = [alert.team.name if alert.team else _("The whole system")]
    if alert.route:
        parts.append(alert.route)
    if alert.key:
        parts.append(_("API key %(name)s") % {"name": alert.key.name})
    return " · ".join(parts)


def minutes(count: int) -> str:
    """A length of time in its largest whole unit."""
    if count % DAY_MINUTES == 0 and count:
        return ngettext("%(count)d day", "%(count)d days", days := count // DAY_MINUTES) % {"count": days}
    if count % 60 == 0 and count:
        return ngettext("%(count)d hour", "%(count)d hours", hours := count // 60) % {"count": hours}
    return ngettext("%(count)d minute", "%(count)d minutes", count) % {"count": count}


def fired(alert: Alert, event: AlertEvent) -> Callable[[], Words]:
    """The message that it fired."""

    def words() -> Words:
        subject = _("%(name)s: fired, at %(figure)s") % _said(alert, event.figure)
        text = _("The alert “%(name)s” (%(scope)s) fired on %(at)s.") % _said(
            alert, event.figure, event.fired_at
        )
        return Words(
            subject, "\n".join([text, *_facts(alert, event.figure, event.detail), "", page(alert), ""])
        )

    return words


def resolved(alert: Alert, event: AlertEvent, at: datetime) -> Callable[[], Words]:
    """The message that it is over."""

    def words() -> Words:
        said = _said(alert, event.last_figure, at) | {"since": moment(event.fired_at)}
        has_figure = event.last_figure is not None
        subject = (_("%(name)s: over, at %(figure)s") if has_figure else _("%(name)s: over")) % said
        text = _("The alert “%(name)s” (%(scope)s) has been over since %(at)s. It fired on %(since)s.") % said
        return Words(subject, "\n".join([text, *_facts(alert, event.last_figure, ""), "", page(alert), ""]))

    return words


def tested(alert: Alert, by: str) -> Callable[[], Words]:
    """A message that tries the way, and says so."""

    def words() -> Words:
        said = {**_said(alert, alert.figure), "by": by}
        subject = _("[Test] %(name)s") % said
        text = _("This is a test by %(by)s. The alert “%(name)s” (%(scope)s) did not fire.") % said
        return Words(subject, "\n".join([text, *_facts(alert, alert.figure, ""), "", page(alert), ""]))

    return words


def page(alert: Alert) -> str:
    """Its address from outside."""
    return link("alert", alert.pk)


def _facts(alert: Alert, value: int | None, kept: str) -> list[str]:
    lines = [
        _("The rule: %(rule)s") % {"rule": rule(alert)},
        _("The figure: %(figure)s") % {"figure": figure(alert.kind, value)},
    ]
    return [*lines, detail(alert.kind, kept)] if kept else lines


def _said(alert: Alert, value: int | None, at: datetime | None = None) -> dict[str, str]:
    return {
        "name": alert.name,
        "scope": scope(alert),
        "figure": figure(alert.kind, value),
        "at": moment(at) if at else "",
    }


def _money(nanos: int) -> str:
    """In cents from one unit on: nobody wakes for a nano-unit."""
    if nanos >= amounts.NANOS:
        nanos = (nanos + CENT_NANOS // 2) // CENT_NANOS * CENT_NANOS
    return amounts.worded("money", nanos, settings.LEDGER_CURRENCY)


def _percent(hundredths: int) -> str:
    return f"{Decimal(hundredths) / 100:f} %"


def _milliseconds(value: int) -> str:
    return f"{value:,} ms" if value < 10_000 else f"{value / 1000:,.1f} s"


def _seconds(value: int) -> str:
    if value < 120:
        return ngettext("%(count)d second", "%(count)d seconds", value) % {"count": value}
    return minutes(value // 60)


_FIGURES: dict[str, Callable[[int], str]] = {
    Alert.Kind.SPEND: _money,
    Alert.Kind.ERROR_RATE: _percent,
    Alert.Kind.LATENCY: _milliseconds,
    Alert.Kind.BREAKER: _seconds,
    Alert.Kind.QUOTA: lambda value: f"{value} %",
}
