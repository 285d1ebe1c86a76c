"""Days of a time zone from days in UTC. Pure.

A day in Berlin begins at 22 or 23 o'clock in UTC, so no day bucket lies within one, and 96 quarter-hours
would have to be added up for each. Instead the bucket of the day in UTC is taken whole for the span that has
more of it; the quarter-hours of the lesser part are added to their own span and taken away from the other:

    UTC       |---------- day ----------|---------- day ----------|
    Berlin    -----------------------|-------------------------|----
    part                             |--|                      |--|

Sums are whole numbers and histograms counts, so what comes out is the same to the unit.
Moments are whole minutes since the Unix epoch.
"""

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import NamedTuple

from gateway.ledger.cover import DAY, Run, cover, floor


class Lent(NamedTuple):
    """Which spans a day in UTC is in, by their number: the one that is given it whole, and the part's."""

    whole: int
    part: int


class Plan(NamedTuple):
    """What to read for some spans that follow one another."""

    plain: list[Run]
    """Buckets that lie within one span."""
    days: list[Run]
    """Days in UTC that are in two spans."""
    parts: list[Run]
    """The lesser parts of these."""
    lent: dict[int, Lent]
    """By the number of the day since the Unix epoch."""


def plan(bounds: Sequence[int], marked: Collection[tuple[int, int]]) -> Plan:
    """For the spans between neighbouring bounds. A day with any mark in it is not lent."""
    marked = frozenset(marked)  # once: `cover` takes it as it is, for each span
    found = Plan([], [], [], {})
    marked_days = {floor(start, DAY) for _, start in marked}
    cuts = [(first, first) for first in bounds]  # where the span before ends, and the one after begins
    for place in range(1, len(bounds) - 1):
        day = floor(bounds[place], DAY)
        alone = bounds[place - 1] <= day < bounds[place] and day + DAY <= bounds[place + 1]
        if alone and day not in marked_days:
            cuts[place] = day, day + DAY
            _lend(found, place, day, bounds[place], marked)
    for (_, start), (stop, _) in pairwise(cuts):
        _join(found.plain, cover(start, stop, marked))
    return found


def _lend(found: Plan, place: int, day: int, edge: int, marked: Collection[tuple[int, int]]) -> None:
    """A day that an edge cuts in two: the span before is `place - 1`, the one after is `place`."""
    is_early = edge - day <= DAY // 2
    first, last = (day, edge) if is_early else (edge, day + DAY)
    found.lent[day // DAY] = Lent(place, place - 1) if is_early else Lent(place - 1, place)
    _join(found.days, [Run(DAY, day, day + DAY)])
    _join(found.parts, cover(first, last, marked))


def _join(found: list[Run], more: Collection[Run]) -> None:
    """Neighbours of a size become one, whichever spans they are in."""
    for run in more:
        joins = found and found[-1].size == run.size and found[-1].stop == run.start
        found.append(Run(run.size, found.pop().start, run.stop) if joins else run)
