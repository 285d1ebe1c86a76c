"""The last seven days of API keys, drawn small: rollups in, shapes and figures out.

A drawing holds geometry alone: its colours come from a style sheet, which the policy of our pages asks for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, NamedTuple

from django.conf import settings
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from dashboard import rounded
from gateway.ledger import queries
from gateway.ledger.queries import Scope, Sums

DAYS: Final = 7
WIDTH, HEIGHT, GAP = 84, 24, 2
"""Of the drawing, and between its bars, in its own units."""
LEAST: Final = 1
"""A day without calls is a line on the ground, so that one sees that it was looked at."""


class Bar(NamedTuple):
    x: str
    y: str
    width: str
    height: str


class Day(NamedTuple):
    day: date
    calls: str
    spend: str


@dataclass(frozen=True, slots=True)
class Week:
    """What a key was used for in the last seven days in UTC, today among them."""

    calls: int
    calls_text: str
    spend_text: str
    words: str
    bars: tuple[Bar, ...]
    line: str
    days: tuple[Day, ...]


def weeks_of(team_of: Mapping[int, int], now: datetime) -> dict[int, Week]:
    """By the keys' ids, which name their teams' ids; two queries, whatever their number."""
    edges = edges_of(now)
    scope = Scope(tuple(sorted(set(team_of.values()))))
    found = queries.series_of(scope, edges, "key", [str(each) for each in team_of])
    first = edges[0].date()
    return {int(key_id): week(first, sums, settings.LEDGER_CURRENCY) for key_id, sums in found.items()}


def edges_of(now: datetime) -> list[datetime]:
    """Midnights in UTC: whole days, so that the coarsest buckets answer."""
    today = datetime.combine(now.astimezone(UTC).date(), time(), UTC)
    return [today + timedelta(days=each) for each in range(1 - DAYS, 2)]


def week(first: date, sums: Sequence[Sums], currency: str) -> Week:
    """Of neighbouring days, the first of which is named."""
    calls, costs = [each.calls for each in sums], [each.cost_nanos for each in sums]
    named = tuple(
        Day(
            first + timedelta(days=place), rounded.count(each.calls), rounded.money(each.cost_nanos, currency)
        )
        for place, each in enumerate(sums)
    )
    calls_text, spend = rounded.short(sum(calls)), rounded.money(sum(costs), currency)
    counted = ngettext("%(count)s call", "%(count)s calls", sum(calls)) % {"count": calls_text}
    return Week(sum(calls), counted, spend, _words(counted, spend, named), bars(calls), line(costs), named)


def _words(calls: str, spend: str, days: Sequence[Day]) -> str:
    each = ", ".join(f"{date_format(day.day, 'MONTH_DAY_FORMAT')}: {day.calls}" for day in days)
    said = _("%(calls)s and %(spend)s in 7 days. Calls a day: %(each)s.")
    return said % {"calls": calls, "spend": spend, "each": each}


def bars(values: Sequence[int]) -> tuple[Bar, ...]:
    """Side by side, the highest as high as the drawing."""
    step = WIDTH / len(values)
    heights = [max(LEAST, each * HEIGHT / (max(values) or 1)) for each in values]
    return tuple(
        Bar(_text(place * step + GAP / 2), _text(HEIGHT - height), _text(step - GAP), _text(height))
        for place, height in enumerate(heights)
    )


def line(values: Sequence[int]) -> str:
    """Points in the middle of the bars; empty where there is nothing to draw.

    Not of today: a day that has just begun would look like a fall.
    """
    over = values[:-1]
    most = max(over)
    if most <= 0:
        return ""
    step, room = WIDTH / len(values), HEIGHT - 2 * LEAST
    return " ".join(
        f"{_text((place + 0.5) * step)},{_text(HEIGHT - LEAST - each * room / most)}"
        for place, each in enumerate(over)
    )


def _text(number: float) -> str:
    """As SVG writes numbers, whatever the language of the page."""
    return f"{number:.2f}".rstrip("0").rstrip(".")
