"""What a month will come to: the days that are over, and what the remaining ones usually bring.

Pure: sums of days in, figures out. A remaining day is expected to bring the mean of its weekday over the
last four weeks; with fewer of that weekday, the mean of all days counts for what is missing.

The interval is that of a mean forecast (Hyndman and Athanasopoulos, "Forecasting: Principles and
Practice", 5.5): days vary around what was expected of them independently, with the variance of the
history's residuals, and the means themselves are uncertain by it too. The residuals have as many degrees of
freedom as days less the trace of the smoother (Hastie and Tibshirani, "Generalized Additive Models", 3.5).
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction

HISTORY_DAYS = 28
"""Four of each weekday: long enough for their means, short enough to follow a change."""
LEAST_DAYS = 7
"""A week: without one of each weekday the next ones are guesses."""
ENOUGH = 4
"""Days of a weekday whose mean needs no help from the others."""
SHARE = 0.8
"""Of the intervals, how many contain what came."""
Z = 1.2815515655446004
"""The normal distribution's quantile at 0.9: a tenth is left out on either side."""

Sums = Mapping[date, int]
"""Of each day; a day that is not in it brought nothing."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Of one month, in the unit of the sums."""

    so_far: int
    expected: int
    """At the end of the month."""
    low: int
    high: int
    """Eight of ten times the month ends from `low` to `high`; never below what it has already."""
    history_days: int


@dataclass(frozen=True, slots=True)
class NotEnough:
    """There is no week of history yet."""

    so_far: int
    history_days: int


@dataclass(frozen=True, slots=True)
class TrackRecord:
    """How far such forecasts were off, made on the same day of earlier months."""

    errors: tuple[float, ...]
    """Of each month, the latest first: the distance as a share of what the month came to."""
    within: int
    """Months that ended within their interval."""

    @property
    def mean_error(self) -> float:
        """The mean absolute percentage error, as a share."""
        return sum(self.errors) / len(self.errors)


def forecast(sums: Sequence[tuple[date, int]] | Sums, today: date, elapsed: Fraction) -> Forecast | NotEnough:
    """What the month of `today` will come to. `elapsed` is how much of today is over, from 0 to 1.

    History begins with the first day that brought anything, so that a new team is not taken for a quiet one.
    """
    by_day = dict(sums)
    first = today.replace(day=1)
    so_far = sum(by_day.get(day, 0) for day in days(first, today + timedelta(days=1)))
    history = _history(by_day, today)
    if len(history) < LEAST_DAYS:
        return NotEnough(so_far, len(history))
    usual = _Usual(history)
    weights = _remaining(today, elapsed)
    rest = sum((weight * usual.of(weekday) for weekday, weight in weights.items()), Fraction())
    spread = usual.spread(weights)
    expected = so_far + _rounded(rest)
    return Forecast(
        so_far,
        expected,
        max(so_far, expected - math.ceil(spread)),
        expected + math.ceil(spread),
        len(history),
    )


def track_record(sums: Sums, today: date, elapsed: Fraction, months: int) -> TrackRecord | None:
    """Forecasts as they would have been made on this day of so many months before; None: of none.

    On the last day of a month that is shorter than this one. How far that day had come is taken from the
    clock, because a day's sum does not say when it came in.
    """
    errors, within = [], 0
    for month in _months_before(today, months):
        then = min(month.replace(day=1) + timedelta(days=today.day - 1), last_of(month))
        total = sum(sums.get(day, 0) for day in days(month, last_of(month) + timedelta(days=1)))
        known = {day: value for day, value in sums.items() if day < then}
        known[then] = _rounded(sums.get(then, 0) * elapsed)
        made = forecast(known, then, elapsed)
        if isinstance(made, Forecast) and total > 0:
            errors.append(abs(made.expected - total) / total)
            within += made.low <= total <= made.high
    return TrackRecord(tuple(errors), within) if errors else None


def days(since: date, until: date) -> list[date]:
    """Each day of a span; `until` is outside."""
    return [since + timedelta(days=number) for number in range((until - since).days)]


class _Usual:
    """What a day of each weekday usually brings."""

    def __init__(self, history: Sequence[tuple[date, int]]) -> None:
        self.days = len(history)
        self.mean = Fraction(sum(value for _, value in history), self.days)
        self.counts = Counter(day.weekday() for day, _ in history)
        sums: Counter[int] = Counter()
        for day, value in history:
            sums[day.weekday()] += value
        self._means = {weekday: Fraction(sums[weekday], count) for weekday, count in self.counts.items()}
        self.variance = self._variance(history)

    def __repr__(self) -> str:
        return f"<_Usual {self.days} days, {float(self.mean):.0f} a day>"

    def share(self, weekday: int) -> Fraction:
        """How much the weekday's own mean counts, from 0 to 1."""
        return Fraction(min(self.counts[weekday], ENOUGH), ENOUGH)

    def of(self, weekday: int) -> Fraction:
        own = self.share(weekday)
        return own * self._means.get(weekday, self.mean) + (1 - own) * self.mean

    def spread(self, weights: Mapping[int, Fraction]) -> float:
        """Half the interval of a sum of days, given as how many there are of each weekday.

        Of the days themselves, and of the means: each is a sum of history days with known weights.
        """
        own = float(sum(weights.values()))
        common = sum(float(count * (1 - self.share(weekday))) for weekday, count in weights.items())
        of_means = 0.0
        for weekday, seen in self.counts.items():
            leverage = float(weights.get(weekday, 0) * self.share(weekday)) / seen + common / self.days
            of_means += seen * leverage**2
        return self._quantile() * math.sqrt(self.variance * (own + of_means))

    def _freedom(self) -> float:
        """Degrees of freedom of the residuals: days less the trace of the smoother."""
        trace = sum(float(self.share(each)) + count * float(1 - self.share(each)) / self.days
                    for each, count in self.counts.items())  # fmt: skip
        return self.days - trace

    def _variance(self, history: Sequence[tuple[date, int]]) -> float:
        squares = sum(((value - self.of(day.weekday())) ** 2 for day, value in history), Fraction())
        return float(squares) / self._freedom()

    def _quantile(self) -> float:
        """Student's at 0.9, by the first term of its expansion (Abramowitz and Stegun, 26.7.5)."""
        return Z + (Z**3 + Z) / (4 * self._freedom())


def _history(by_day: Sums, today: date) -> list[tuple[date, int]]:
    """The last days that are over, zeros included, the oldest first."""
    used = [day for day, value in by_day.items() if value and day < today]
    if not used:
        return []
    first = max(min(used), today - timedelta(days=HISTORY_DAYS))
    return [(day, by_day.get(day, 0)) for day in days(first, today)]


def _remaining(today: date, elapsed: Fraction) -> dict[int, Fraction]:
    """How many days of each weekday are left in the month, today as what is left of it."""
    left = {today.weekday(): 1 - elapsed}
    for day in days(today + timedelta(days=1), last_of(today) + timedelta(days=1)):
        left[day.weekday()] = left.get(day.weekday(), Fraction()) + 1
    return left


def last_of(month: date) -> date:
    """The last day of the month that a day is in."""
    return (month.replace(day=1) + timedelta(days=31)).replace(day=1) - timedelta(days=1)


def _months_before(today: date, months: int) -> list[date]:
    """First days, the latest first."""
    found, first = [], today.replace(day=1)
    for _ in range(months):
        first = (first - timedelta(days=1)).replace(day=1)
        found.append(first)
    return found


def _rounded(value: Fraction | int) -> int:
    """Half up."""
    return math.floor(Fraction(value) + Fraction(1, 2))
