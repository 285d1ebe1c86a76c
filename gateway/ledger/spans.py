"""Where the buckets of a series begin and end, in any time zone. Pure.

A day has 23 or 25 hours where the clocks change, and an hour of local time may be a half one long.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import takewhile
from typing import Final, Literal
from zoneinfo import ZoneInfo

from django.utils.translation import gettext as _

Step = Literal["hour", "day", "week", "month"]

MOST_DRAWN: Final = 100
"""Buckets of a series whose step was left to us, where no longer step is left."""
MOST_EDGES: Final = 2_500
"""Of any series: three months by the hour."""
MINUTE: Final = timedelta(minutes=1)
QUARTER: Final = timedelta(minutes=15)
_LENGTHS: Final[dict[Step, timedelta]] = {
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(days=7),
    "month": timedelta(days=28),
}
_DRAWN: Final[tuple[tuple[Step, timedelta], ...]] = (
    ("hour", timedelta(hours=96)),
    ("day", timedelta(days=93)),
    ("week", timedelta(days=7 * (MOST_DRAWN - 2))),
)


class TooMany(ValueError):
    """A series would have more buckets than anybody can use; the message says what to do."""


def step_for(since: datetime, until: datetime) -> Step:
    """The step with which a span is best drawn."""
    return next((step for step, longest in _DRAWN if until - since <= longest), "month")


def edges(since: datetime, until: datetime, zone: ZoneInfo, step: Step | None = None) -> list[datetime]:
    """Where buckets begin, and last where the last one ends: the span, cut at each new hour, day, ... there.

    A week begins on Monday. In UTC; the first and the last bucket are as long as the span leaves them.
    `step` None: as `step_for` chooses. Raises TooMany, and ValueError for a span that is none.
    """
    if since >= until:
        raise ValueError(_("The span ends before it begins."))
    step = step or step_for(since, until)
    if (until - since) / _LENGTHS[step] > MOST_EDGES:
        raise TooMany(
            _("A series has at most %(most)s points; ask for a longer step or a shorter span.")
            % {"most": MOST_EDGES}
        )
    since, until = since.astimezone(UTC), until.astimezone(UTC)
    inner = takewhile(lambda at: at < until, _begins(since, zone, step))
    return [since, *dict.fromkeys(inner), until]


def midnight(day: date, zone: tzinfo) -> datetime:
    """The first moment of a date in a zone, in UTC; where the clocks skip it, the moment of the change."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _begins(since: datetime, zone: ZoneInfo, step: Step) -> Iterator[datetime]:
    """The begins of all hours, days, ... after a moment."""
    return _hours(since, zone) if step == "hour" else _days(since, zone, step)


def _hours(since: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """Full hours on the clocks of the zone. Offsets from UTC are whole quarters of an hour."""
    at = since.replace(minute=since.minute // 15 * 15, second=0, microsecond=0)
    while True:
        at += QUARTER
        if at.astimezone(zone).minute == 0:
            yield at


def _days(since: datetime, zone: ZoneInfo, step: Step) -> Iterator[datetime]:
    day = _first_day(since.astimezone(zone).date(), step)
    while True:
        at = midnight(day, zone)
        if at > since:
            yield at
        day = following(day, step)


def _first_day(day: date, step: Step) -> date:
    """Of the week or month that a day is in."""
    if step == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if step == "month" else day


def following(day: date, step: Step) -> date:
    """The date on which the next day, week or month begins."""
    if step == "month":
        return (day + timedelta(days=31)).replace(day=1)
    return day + (timedelta(days=7) if step == "week" else timedelta(days=1))


def minute_of(moment: datetime) -> int:
    """Whole minutes since the Unix epoch: a moment within one is its begin."""
    return int(moment.timestamp()) // 60


def moment_of(minute: int) -> datetime:
    """The other way, in UTC."""
    return datetime.fromtimestamp(minute * 60, UTC)
