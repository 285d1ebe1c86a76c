"""What the present month will come to, for teams together and each: rollups into `forecast`. Reads only."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from gateway.ledger import queries
from gateway.ledger.forecast import (
    HISTORY_DAYS,
    Forecast,
    NotEnough,
    TrackRecord,
    forecast,
    track_record,
)
from gateway.ledger.queries import Scope, Sums
from gateway.ledger.spans import edges, midnight

MONTHS_BACK: Final = 3
"""On which forecasts are tried out."""
MOST_TEAMS: Final = 200


class Foretold(NamedTuple):
    """One figure of a month: what it will come to, and how such forecasts did before."""

    forecast: Forecast | NotEnough
    track_record: TrackRecord | None


@dataclass(frozen=True, slots=True)
class Outlook:
    """A month of one team, or of several together."""

    cost: Foretold | None
    """In nano-units of the currency asked for; None: days have no exchange rate into it."""
    calls: Foretold
    days: tuple[tuple[date, int], ...]
    """What each day of the month has cost so far."""
    no_rate_on: tuple[date, ...] = ()
    """UTC days without an exchange rate."""


@dataclass(frozen=True, slots=True)
class Outlooks:
    """The month that `today` is in, by the days of a zone."""

    today: date
    together: Outlook
    by_team: tuple[tuple[str, Outlook], ...]
    """By the team's id, the dearest first; beyond MOST_TEAMS as `queries.OTHER`."""


def outlooks(team_ids: tuple[int, ...] | None, now: datetime, zone: ZoneInfo, currency: str = "") -> Outlooks:
    """Three queries, two of one team alone, and one more for another currency. None: every team's."""
    today = now.astimezone(zone).date()
    at = edges(midnight(_first_day(today), zone), now, zone, "day")
    found = _series(team_ids, at, currency or None)
    days, elapsed = [each.astimezone(zone).date() for each in at[:-1]], _elapsed(now, today, zone)
    own = tuple((value, _outlook(days, series, today, elapsed)) for value, series in found)
    return Outlooks(
        today, _outlook(days, _added([series for _, series in found], len(days)), today, elapsed), own
    )


def _series(
    team_ids: tuple[int, ...] | None, at: Sequence[datetime], currency: str | None
) -> list[tuple[str, list[Sums]]]:
    """By the team's id."""
    if team_ids is None or len(team_ids) != 1:
        return queries.series_by(Scope(team_ids), at, "team", currency, most=MOST_TEAMS)
    return [(str(team_ids[0]), queries.series(Scope(team_ids), at, currency))]


def _first_day(today: date) -> date:
    """So far back that the earliest month that a forecast is tried on has a whole history."""
    first = today.replace(day=1)
    for _ in range(MONTHS_BACK):
        first = (first - timedelta(days=1)).replace(day=1)
    return first - timedelta(days=HISTORY_DAYS)


def _elapsed(now: datetime, today: date, zone: ZoneInfo) -> Fraction:
    """How much of today is over; a day may have 23 or 25 hours."""
    begin, end = midnight(today, zone), midnight(today + timedelta(days=1), zone)
    return Fraction(int((now - begin).total_seconds()), int((end - begin).total_seconds()))


def _outlook(days: Sequence[date], series: Sequence[Sums], today: date, elapsed: Fraction) -> Outlook:
    costs = {day: sums.cost_nanos for day, sums in zip(days, series, strict=True)}
    calls = {day: sums.calls for day, sums in zip(days, series, strict=True)}
    no_rate_on = tuple(sorted({day for sums in series for day in sums.no_rate_on}))
    return Outlook(
        None if no_rate_on else _foretold(costs, today, elapsed),
        _foretold(calls, today, elapsed),
        tuple((day, cost) for day, cost in costs.items() if day >= today.replace(day=1)),
        no_rate_on,
    )


def _foretold(sums: dict[date, int], today: date, elapsed: Fraction) -> Foretold:
    return Foretold(forecast(sums, today, elapsed), track_record(sums, today, elapsed, MONTHS_BACK))


def _added(series: Sequence[Sequence[Sums]], length: int) -> list[Sums]:
    """Several series as one, of what is foretold."""
    return [
        Sums(
            calls=sum(each[place].calls for each in series),
            cost_nanos=sum(each[place].cost_nanos for each in series),
            no_rate_on=tuple(day for each in series for day in each[place].no_rate_on),
        )
        for place in range(length)
    ]
