"""Moments as pages write them: in the reader's own zone, and for programs in UTC beside it."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django import template
from django.template import Context
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince
from django.utils.translation import gettext as _

register = template.Library()
FORMS: Final[Mapping[str, tuple[str, bool]]] = {
    "sentence": ("DATETIME_FORMAT", True),
    "seconds": ("DATETIME_FORMAT", True),
    "table": ("SHORT_DATETIME_FORMAT", False),
    "table seconds": ("SHORT_DATETIME_FORMAT", False),
    "day": ("SHORT_DATE_FORMAT", False),
}
"""Which of the language's formats a form is, and whether the zone stands beside it."""


@register.filter
def ago(moment: datetime, now: datetime | None = None) -> str:
    """How long ago, as in “7 minutes ago”; under a minute it is “just now”."""
    now = now or timezone.now()
    if now - moment < timedelta(minutes=1):
        return _("just now")
    return _("%(length)s ago") % {"length": timesince(moment, now)}


@register.filter
def lasting(left: timedelta) -> str:
    """A length of time in its largest unit but one, as in “23 hours, 59 minutes”."""
    return timesince(timezone.now() - left) if left >= timedelta(minutes=1) else _("less than a minute")


@register.simple_tag(takes_context=True)
def moment(context: Context, at: datetime, form: str = "sentence") -> SafeString:
    """A `<time>` in the reader's zone. `form` is one of FORMS, or `ago`; the exact moment is its title.

    In a column of a table the zone is said once, in the head: see `zone`.
    """
    here = at.astimezone(zone_of(context))
    words = ago(at) if form == "ago" else written(here, form)
    exact = written(here, "seconds")
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        at.astimezone(UTC).isoformat(),
        exact,
        words,
    )


@register.simple_tag(takes_context=True)
def zone(context: Context) -> str:
    """The abbreviation of the reader's zone, such as `JST`, for the head of a column."""
    return abbreviation(timezone.now().astimezone(zone_of(context)))


def written(here: datetime, form: str) -> str:
    """A moment that is in its reader's zone already, in one of FORMS."""
    name, has_zone = FORMS[form]
    seconds = f":{here:%S}" if form.endswith("seconds") else ""
    return f"{date_format(here, name)}{seconds}{f' {abbreviation(here)}' if has_zone else ''}"


def abbreviation(here: datetime) -> str:
    """`UTC`, `JST`, `CET`. Zones without letters of their own are told from UTC, as in `UTC-03`."""
    name = here.tzname() or ""
    return name if name[:1].isalpha() else f"UTC{name}"


def zone_of(context: Mapping[str, Any] | Context) -> tzinfo:
    """The zone of the person who reads; UTC for whoever chose none, or is not known.

    Not Django's current zone: spans of figures are in zones of their own, which their reader did choose.
    """
    user = context.get("user")
    return _zone(getattr(user, "zone", "") or "UTC")


@cache
def _zone(name: str) -> tzinfo:
    """Zones are a table of the machine's: one that was dropped from it is UTC again."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return UTC
