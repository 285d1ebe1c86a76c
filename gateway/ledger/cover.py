"""Which rollups add up to a span: the coarsest buckets that hold what is known.

Pure. Moments are whole minutes since the Unix epoch in UTC, as `Rollup.start`.
"""

from collections.abc import Collection, Iterator
from typing import NamedTuple

MINUTE, QUARTER, DAY = 1, 15, 1440
"""Minutes of a bucket, as `Rollup.size`."""
_FINER = {DAY: QUARTER, QUARTER: MINUTE}


class Run(NamedTuple):
    """Neighbouring buckets of one size."""

    size: int
    start: int
    stop: int
    """Outside."""


def cover(start: int, stop: int, marked: Collection[tuple[int, int]]) -> tuple[Run, ...]:
    """Buckets without a mark that add up to the span exactly, the coarsest there are, in their order.

    `marked` holds `(size, start)` of quarter-hours and days that are to be worked out again; others may be
    among them. Marks at minutes do not matter: a minute holds what was last worked out, and so does
    every larger bucket without a mark.
    """
    runs: list[Run] = []
    for each in _runs(DAY, start, stop, frozenset(marked)):
        if runs and runs[-1].size == each.size and runs[-1].stop == each.start:
            runs[-1] = runs[-1]._replace(stop=each.stop)
        else:
            runs.append(each)
    return tuple(runs)


def floor(minute: int, size: int) -> int:
    """The start of the bucket that a minute is in."""
    return minute - minute % size


def _runs(size: int, start: int, stop: int, marked: frozenset[tuple[int, int]]) -> Iterator[Run]:
    """Not merged. What is not whole buckets without a mark is left to the finer ones."""
    if size == MINUTE:
        yield from [Run(MINUTE, start, stop)] if start < stop else []
        return
    finer, place = _FINER[size], start
    while place < stop:
        end = floor(place, size) + size
        if place % size == 0 and end <= stop and (size, place) not in marked:
            yield Run(size, place, end)
        else:
            yield from _runs(finer, place, min(end, stop), marked)
        place = end
