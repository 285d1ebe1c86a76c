"""Questions to the books: totals, series and breakdowns, over any span and in any time zone. Reads only.

All are answered from rollups, in the coarsest buckets that hold the span exactly and have no mark, so a year
is as quick as a day; the ledger itself is never looked through. What a figure means is told by
`gateway.models.Measures`. Bounds are whole minutes, and whole quarter-hours where minutes are kept no more.

A cost in another currency is each UTC day's sum at that day's exchange rate, rounded half up:
once for each day of each group that is asked for, so groups may differ from their total by a nano-unit a day.
In the ledger's own currency nothing is ever rounded.

Who may ask for which teams is decided by those who ask.
"""

import heapq
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import lru_cache
from itertools import pairwise
from operator import add, sub
from typing import Final, Literal

from django.conf import settings
from django.db import connection
from django.utils import timezone
from django.utils.translation import gettext as _
from msgspec import Struct

from accounts.models import ApiKey, Team
from gateway import histograms
from gateway.exchange import converted
from gateway.histograms import Histogram
from gateway.ledger import grouping, marks
from gateway.ledger.cover import Run, cover
from gateway.ledger.grouping import (
    DAY,
    SUMMED,
    Condition,
    Grid,
    Key,
    Read,
    Value,
    Values,
    column_of,
    grid_for,
)
from gateway.ledger.lending import Plan, plan
from gateway.ledger.reading import one_view
from gateway.ledger.spans import minute_of, moment_of
from gateway.relay.catalog import PAR, Exchange
from gateway.snapshot import exchange_rates

Dimension = Literal["team", "key", "route", "target", "outcome", "code", "priority"]
By = Dimension | tuple[Literal["tag"], str]
"""What a breakdown tells apart; a tag by its name, which the team has declared."""

RateOn = Callable[[date], Exchange | None]

OTHER: Final = "(other)"
"""Stands for all values beyond the largest ones."""
MOST_ROWS: Final = 50
MOST_HISTOGRAMS: Final = 30_000
"""Rollup rows whose histograms are added up for one question: some 100 ms."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose calls are asked about, and which of them."""

    team_ids: tuple[int, ...] | None
    """None: every team's."""
    where: Mapping[Dimension, tuple[str, ...]] = field(default_factory=dict)
    """Any of these values; teams and keys by their id. `outcome` may be `refused`."""
    tag: tuple[str, str] | None = None
    """Name and value. Only what ended after the team declared the name, or was worked out again since."""


class Sums(Struct):
    """What some calls add up to. Durations in microseconds, money in nano-units of the currency asked for."""

    calls: int = 0
    """That were let in."""
    refused: int = 0
    failed: int = 0
    """Ours or the provider's fault: failed or truncated."""
    unpriced: int = 0
    estimated: int = 0
    """Calls whose usage was not reported."""
    simulated: int = 0
    attempts: int = 0
    billed_attempts: int = 0
    """Attempts that a price's fee for a request is taken for."""
    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    audio_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    audio_output_tokens: int = 0
    cost_nanos: int = 0
    queued_us: int = 0
    latency_us: int = 0
    latency: Histogram | None = None
    """None, here and below: not asked for, or too many rows to add up."""
    first_token: Histogram | None = None
    no_rate_on: tuple[date, ...] = ()
    """UTC days whose cost is not in `cost_nanos`: no exchange rate is known for them."""

    @property
    def error_rate(self) -> float | None:
        """Failed and truncated calls among all that ended, from 0 to 1; None where none did."""
        return self.failed / self.calls if self.calls else None

    def latency_at(self, share: float) -> int | None:
        """The latency in microseconds that a share of the calls, from 0 to 1, stayed within, to 1 %."""
        return _at(self.latency, share)

    def first_token_at(self, share: float) -> int | None:
        """The same of the time to the first content chunk of streams."""
        return _at(self.first_token, share)


def totals(
    scope: Scope, since: datetime, until: datetime, currency: str | None = None, *, percentiles: bool = False
) -> Sums:
    """All of a span together; the end is outside. `currency` None: the ledger's.

    Three queries, and one more for another currency and for percentiles.
    Raises ValueError for a scope that cannot be.
    """
    return series(scope, (since, until), currency, percentiles=percentiles)[0]


def series(
    scope: Scope,
    edges: Sequence[datetime],
    currency: str | None = None,
    *,
    percentiles: bool = False,
    most_histograms: int = MOST_HISTOGRAMS,
) -> list[Sums]:
    """One for each span between two neighbouring edges, as `spans.edges` makes them."""
    with view():
        asked = _Question(scope, edges, currency)
        found = asked.told((), most_histograms if percentiles else 0)
    return [found(place, ()) for place in asked.places]


def breakdown(
    scope: Scope,
    since: datetime,
    until: datetime,
    by: By,
    currency: str | None = None,
    *,
    most: int = MOST_ROWS,
    percentiles: bool = False,
) -> list[tuple[str, Sums]]:
    """A span by the values of a dimension, the dearest first, and all beyond `most` as OTHER at the end.

    Teams and keys by their id, which `names_of` knows the names of.
    One query more than `totals` has. Raises ValueError for a scope that cannot be.
    """
    found = series_by(scope, (since, until), by, currency, most=most, percentiles=percentiles)
    return [(value, sums[0]) for value, sums in found]


def series_by(
    scope: Scope,
    edges: Sequence[datetime],
    by: By,
    currency: str | None = None,
    *,
    most: int = 10,
    percentiles: bool = False,
) -> list[tuple[str, list[Sums]]]:
    """A series for each value of a dimension, the dearest first; all beyond `most` as OTHER at the end."""
    with view():
        asked, column = _Question(scope, edges, currency, by), _column(by)
        values = asked.largest(column, most + 1)
        keys = [grouping.named(column, values[:most])]
        found = asked.told(keys, MOST_HISTOGRAMS if percentiles else 0)
    told = [(str(value), [found(place, (value,)) for place in asked.places]) for value in values[:most]]
    if len(values) > most:
        told.append((OTHER, [found(place, (None,)) for place in asked.places]))
    return told


def series_of(
    scope: Scope, edges: Sequence[datetime], dimension: Dimension, values: Sequence[str]
) -> dict[str, list[Sums]]:
    """A series for each of these values of a dimension, in the ledger's currency. Two queries."""
    where = {**scope.where, dimension: tuple(values)}
    with view():
        asked = _Question(Scope(scope.team_ids, where, scope.tag), edges, None)
        found = asked.told([grouping.each_of(_column(dimension))], 0)
    typed = _typed(dimension, values)
    return {str(each): [found(place, (each,)) for place in asked.places] for each in typed}


def every(
    scope: Scope, since: datetime, until: datetime, by: Sequence[By], currency: str | None = None
) -> list[tuple[tuple[str, ...], Sums]]:
    """A span by all values of some dimensions together, in the order of the values, for exports."""
    with view():
        return every_here(scope, since, until, by, currency)


def every_here(
    scope: Scope, since: datetime, until: datetime, by: Sequence[By], currency: str | None = None
) -> list[tuple[tuple[str, ...], Sums]]:
    """The same inside a `view` that other questions are asked in too."""
    tag = next((each for each in by if isinstance(each, tuple)), None)
    asked = _Question(scope, (since, until), currency, tag)
    found = asked.sums([grouping.each_of(_column(each)) for each in by])
    return [(tuple(map(str, values)), sums) for (_, values), sums in sorted(found.items())]


def names_of(by: By, values: Iterable[str]) -> dict[str, str]:
    """What to call the teams or API keys of a breakdown; nothing where a value is its own name. One query."""
    table = {"team": Team, "key": ApiKey}.get(by) if isinstance(by, str) else None
    if table is None:
        return {}
    ids = [int(each) for each in values if each != OTHER]
    return {str(pk): name for pk, name in table._default_manager.filter(pk__in=ids).values_list("pk", "name")}


def watermark(team_ids: Iterable[int] | None) -> datetime | None:
    """What ended before this moment is in the answers; None: all that is on the ledger. One query."""
    return marks.behind_since(team_ids)


def bounds_of(since: datetime, until: datetime) -> tuple[datetime, datetime]:
    """The span that is answered for when this one is asked for: see above what bounds can be."""
    earlier, later = _bounds((since, until))
    return moment_of(earlier), moment_of(later)


Told = Callable[[int, Values], Sums]
"""What the span of this place adds up to, for these values."""
Group = tuple[int, Values]
Placed = Callable[[int], Sequence[tuple[int, int]]]
"""In which spans the rows of a minute count, and whether they are added, 1, or taken away, -1."""
BY_DAY: Final = Grid(0, DAY)


def view() -> AbstractContextManager[None]:
    """What is read of marks and of buckets is as of one moment; in a transaction that is its own affair."""
    return nullcontext() if connection.in_atomic_block else one_view()


class _Question:
    """One question: which rollup rows answer it, and what they add up to."""

    def __init__(
        self, scope: Scope, edges: Sequence[datetime], currency: str | None, by: By | None = None
    ) -> None:
        self._bounds = _bounds(edges)
        conditions, tagged = _conditions(scope, by)
        self._table = grouping.table_of(conditions, tagged=tagged)
        self._whole, self._plan = _to_read(scope, self._bounds)
        self._rate = rate_on(currency)
        self._grid = grid_for(self._bounds, by_day=self._rate is not None)
        self.places = range(len(edges) - 1)

    def largest(self, column: str, most: int) -> list[Value]:
        """The values of a column, the dearest first, and the most used of those that cost the same."""
        found: dict[Value, tuple[int, int]] = defaultdict(lambda: (0, 0))
        for value, cost, calls in grouping.costs(self._table, self._whole, column):
            earlier = found[value]
            found[value] = (earlier[0] + cost, earlier[1] + calls)
        return heapq.nsmallest(most, found, key=lambda value: (-found[value][0], -found[value][1], value))

    def told(self, keys: Sequence[Key], most_histograms: int) -> Told:
        """Read the rows, and answer place by place; with percentiles, if that takes no more histograms."""
        found = self.sums(keys)
        runs = [*self._plan.plain, *self._plan.days, *self._plan.parts]
        measured = most_histograms and grouping.count(self._table, runs) <= most_histograms
        measures = self._histograms(keys) if measured else None

        def told(place: int, values: Values) -> Sums:
            sums = found.get((place, values)) or Sums()
            if measures is not None:
                sums.latency, sums.first_token = measures[place, values]
            return sums

        return told

    def sums(self, keys: Sequence[Key]) -> dict[Group, Sums]:
        """What is there, by place and values."""
        found: dict[Group, Sums] = {}
        for (group, day), summed in sorted(self._by_day(keys).items(), key=lambda each: each[0][1]):
            _take(found.setdefault(group, Sums()), summed, day, self._rate)
        return found

    def _by_day(self, keys: Sequence[Key]) -> dict[tuple[Group, int], Sequence[int]]:
        """Groups, and the UTC day where that matters, in the order of `SUMMED`."""
        found: dict[tuple[Group, int], Sequence[int]] = {}
        reads, placed = self._reads()
        for number, (step, values, summed) in grouping.sums(self._table, reads, keys):
            minute = self._minute(reads[number].grid, step)
            for place, sign in placed[number](minute):
                group = (place, values), minute // DAY if self._rate else 0
                known = found.get(group)
                found[group] = (
                    [sign * each for each in summed]
                    if known is None
                    else (list(map(add if sign > 0 else sub, known, summed)))
                )
        return found

    def _histograms(self, keys: Sequence[Key]) -> defaultdict[Group, tuple[Histogram, Histogram]]:
        found: defaultdict[Group, tuple[Histogram, Histogram]] = defaultdict(lambda: ({}, {}))
        for (group, sign), columns in self._packed(keys).items():
            for into, packed in zip(found[group], columns, strict=True):
                (histograms.add_packed if sign > 0 else _take_away)(into, b"".join(packed))
        return found

    def _packed(self, keys: Sequence[Key]) -> dict[tuple[Group, int], tuple[list[bytes], list[bytes]]]:
        """The histograms of each group, as they are kept; first those to add, then those to take away."""
        found: dict[tuple[Group, int], tuple[list[bytes], list[bytes]]] = {}
        reads, placed = self._reads()
        for number, step, values, *packed in grouping.histograms(self._table, reads, keys):
            for place, sign in placed[number](self._minute(reads[number].grid, step)):
                columns = found.setdefault(((place, values), sign), ([], []))
                for column, each in zip(columns, packed, strict=True):
                    column.append(each)
        return dict(sorted(found.items(), key=lambda each: -each[0][1]))

    def _reads(self) -> tuple[list[Read], list[Placed]]:
        """What to read, in which steps, and where each of it counts."""
        reads = [Read(self._plan.plain, self._grid)]
        placed: list[Placed] = [lambda minute: [(self._place(minute), 1)]]
        if self._plan.lent:
            reads += [Read(self._plan.days, BY_DAY), Read(self._plan.parts, BY_DAY)]
            placed += [lambda minute: [(self._plan.lent[minute // DAY].whole, 1)], self._part]
        return reads, placed

    def _part(self, minute: int) -> list[tuple[int, int]]:
        lent = self._plan.lent[minute // DAY]
        return [(lent.part, 1), (lent.whole, -1)]

    def _minute(self, grid: Grid, step: int) -> int:
        """The first minute that was asked about of a step."""
        return max(grid.minute(step), self._bounds[0])

    def _place(self, minute: int) -> int:
        return bisect_right(self._bounds, minute) - 1


def add_up(into: Sums, more: Sums, cost: int | date) -> None:
    """Count more calls in, with their cost in a currency, or the day on which that is not known."""
    for name in SUMMED:
        if name != "cost_nanos":
            setattr(into, name, getattr(into, name) + getattr(more, name))
    _add_cost(into, cost)


def _add_cost(into: Sums, cost: int | date) -> None:
    if isinstance(cost, int):
        into.cost_nanos += cost
    elif cost not in into.no_rate_on:
        into.no_rate_on += (cost,)


def _take(sums: Sums, summed: Sequence[int], day: int, rate: RateOn | None) -> None:
    """Add what a group of rows adds up to, in the currency that is asked for."""
    for name, amount in zip(SUMMED, summed, strict=True):
        if name == "cost_nanos":
            _add_cost(sums, exchanged(amount, moment_of(day * DAY).date(), rate))
        else:
            setattr(sums, name, getattr(sums, name) + amount)


def exchanged(nanos: int, day: date, rate: RateOn | None) -> int | date:
    """An amount of a day in the currency asked for; where no exchange rate is known, the day."""
    exchange = PAR if rate is None else rate(day)
    if exchange is None:
        return day if nanos else 0
    return converted(nanos, exchange)


def rate_on(currency: str | None) -> RateOn | None:
    """The exchange rate of a day in UTC, for a currency that is not the ledger's."""
    own = settings.LEDGER_CURRENCY
    if currency in (None, "", own):
        return None
    rates = exchange_rates()
    return lru_cache(maxsize=None)(lambda day: rates.exchange(own, currency, day))


def _take_away(from_: Histogram, data: bytes) -> None:
    """What is not there cannot be taken: a percentile is not worth an error."""
    less: Histogram = {}
    histograms.add_packed(less, data)
    for bucket, count in less.items():
        left = from_.pop(bucket, 0) - count
        if left > 0:
            from_[bucket] = left


def _at(histogram: Histogram | None, share: float) -> int | None:
    return histograms.percentiles(histogram, (share,))[0] if histogram else None


def _column(by: By) -> str:
    return column_of(by if isinstance(by, str) else "tag")


def _conditions(scope: Scope, by: By | None) -> tuple[list[Condition], bool]:
    """Which rows, and whether of the rollups by tags. Raises ValueError."""
    found = [Condition(column_of(each), _typed(each, values)) for each, values in scope.where.items()]
    if scope.team_ids is not None:
        found.append(Condition("team_id", scope.team_ids))
    name = scope.tag[0] if scope.tag else None
    asked = by[1] if isinstance(by, tuple) else name
    if asked is None:
        return found, False
    if name not in (None, asked):
        raise ValueError(_("Calls of one tag cannot be told apart by another: tags are added up one by one."))
    found.append(Condition("name", (asked,)))
    if scope.tag:
        found.append(Condition("value", (scope.tag[1],)))
    return found, True


def _typed(dimension: Dimension, values: Sequence[str]) -> tuple[Value, ...]:
    return tuple(map(int, values)) if dimension in ("team", "key") else tuple(values)


def _to_read(scope: Scope, bounds: Sequence[int]) -> tuple[Sequence[Run], Plan]:
    """The buckets of all spans as one, and of each."""
    if scope.team_ids == () or () in scope.where.values():
        return (), Plan([], [], [], {})
    marked = marks.marks_in(bounds[0], bounds[-1], scope.team_ids)
    return cover(bounds[0], bounds[-1], marked), plan(bounds, marked)


def _bounds(edges: Sequence[datetime]) -> list[int]:
    """Whole minutes since the Unix epoch; quarter-hours where minutes may be gone. Raises ValueError."""
    kept_from = minute_of(timezone.now()) - (settings.ENV.keep_minutes_days - 1) * DAY
    found = [minute_of(each) for each in edges]
    found = [each if each >= kept_from else each - each % 15 for each in found]
    if len(found) < 2 or any(earlier > later for earlier, later in pairwise(found)):
        raise ValueError(_("The span ends before it begins."))
    return found
