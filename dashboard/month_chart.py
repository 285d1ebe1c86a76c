"""A month's running sum and its forecast, as lines of a chart: a value for each midnight. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import accumulate

from gateway.ledger.forecast import Forecast, last_of


@dataclass(frozen=True, slots=True)
class MonthChart:
    """In nano-units; one value for the end of each day of the month, None where the line is not."""

    days: list[str]
    so_far: list[int | None]
    """The running sum; its last value is of now."""
    expected: list[int | None]
    """From now to the month's end; here and below."""
    low: list[int | None]
    high: list[int | None]


def month_chart(sums: Sequence[tuple[date, int]], found: Forecast) -> MonthChart | None:
    """`sums` are of each day from the 1st to today. None where nothing is to be drawn."""
    if not sums or found.high <= 0:
        return None
    first, length = sums[0][0], last_of(sums[0][0]).day
    running = list(accumulate(value for _, value in sums))
    return MonthChart(
        days=[(first + timedelta(days=each)).isoformat() for each in range(length)],
        so_far=[*running, *[None] * (length - len(running))],
        expected=_onward(running, found.expected, length),
        low=_onward(running, found.low, length),
        high=_onward(running, found.high, length),
    )


def _onward(running: Sequence[int], end: int, length: int) -> list[int | None]:
    """Straight from now to the month's end."""
    left = length - len(running)
    now = running[-1]
    steps = [now + (end - now) * each // left for each in range(1, left + 1)] if left else []
    return [*[None] * (len(running) - 1), now if left else end, *steps]
