"""Sums of rollup rows by SQL that both databases run: one SELECT for each run of buckets, some in one query.

Knows rows and columns. What is asked, and in which currency, is decided in `queries`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from math import gcd
from typing import Any, Final, NamedTuple

from django.db import connection

from gateway.ledger.cover import Run
from gateway.models import Rollup, TagRollup

MOST_SELECTS: Final = 150
MOST_VARIABLES: Final = 10_000
"""Of one query. SQLite takes 500 SELECTs and 32,766 variables."""
DAY: Final = 1440

_ADMITTED = "CASE WHEN outcome <> 'refused' THEN calls ELSE 0 END"
_REFUSED = "CASE WHEN outcome = 'refused' THEN calls ELSE 0 END"
_FAILED = "CASE WHEN outcome IN ('failed', 'truncated') THEN calls ELSE 0 END"
_ALIKE = (
    "unpriced",
    "estimated",
    "simulated",
    "attempts",
    "billed_attempts",
    "input_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "audio_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "audio_output_tokens",
    "cost_nanos",
    "queued_us",
    "latency_us",
)
SUMMED: Final = ("calls", "refused", "failed", *_ALIKE)
"""What is added up, in the order of `Grouped.sums`."""
_SUMS: Final = ", ".join(f"SUM({each})" for each in (_ADMITTED, _REFUSED, _FAILED, *_ALIKE))
_COLUMNS: Final = {
    "team": "team_id",
    "key": "key_id",
    "route": "route",
    "target": "target",
    "outcome": "outcome",
    "code": "code",
    "priority": "priority",
    "tag": "value",
}

Value = str | int


class Condition(NamedTuple):
    """A column is one of these values."""

    column: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """Equal steps of time that no edge cuts, so that the database adds up as much as it can.

    In whole minutes: step `n` begins at `origin + n * length`, which may be before the first edge.
    """

    origin: int
    length: int

    def minute(self, step: int) -> int:
        return self.origin + step * self.length


def grid_for(bounds: Sequence[int], *, by_day: bool) -> Grid:
    """The longest steps for these edges; `by_day`: that no midnight in UTC is within a step either.

    The first and the last edge may be anywhere: nothing is asked about what is outside.
    """
    first, inner = bounds[0], bounds[1:-1]
    anchor = inner[0] if inner else first
    lengths = [each - anchor for each in inner[1:]]
    if by_day:
        anchor = anchor if inner else first - first % DAY
        lengths += [DAY, anchor % DAY]
    length = reduce(gcd, lengths, 0) or max(bounds[-1] - anchor, anchor - first, 1)
    return Grid(anchor - -(-max(anchor - first, 0) // length) * length, length)


@dataclass(frozen=True, slots=True)
class Table:
    """The rollups to look at: their table, and which of its rows."""

    name: str
    conditions: tuple[Condition, ...]


def table_of(conditions: Sequence[Condition], *, tagged: bool) -> Table:
    """The rollups of everything, or those by tags."""
    return Table((TagRollup if tagged else Rollup)._meta.db_table, tuple(conditions))


class Key(NamedTuple):
    """What sums are told apart by: an expression, and its variables."""

    sql: str
    variables: tuple[Value, ...] = ()


Values = tuple[Value | None, ...]
"""Of the keys, in their order."""


class Grouped(NamedTuple):
    """What a step and some values add up to."""

    step: int
    values: Values
    sums: tuple[int, ...]


def column_of(dimension: str) -> str:
    return _COLUMNS[dimension]


def each_of(column: str) -> Key:
    """Every value for itself."""
    return Key(column)


def named(column: str, values: Sequence[Value]) -> Key:
    """These values each for itself, and all others as None."""
    if not values:
        return Key("NULL")
    return Key(f"CASE WHEN {column} IN ({_places(values)}) THEN {column} END", tuple(values))


class Read(NamedTuple):
    """What to read in one go: buckets, and the steps in which they are added up."""

    runs: Sequence[Run]
    grid: Grid


def sums(table: Table, reads: Sequence[Read], keys: Sequence[Key] = ()) -> Iterator[tuple[int, Grouped]]:
    """By step and keys, each with the number of its read; all reads are one query, unless they are many.

    The same ones may come several times: sizes of buckets are not put together here.
    """
    tail = f" GROUP BY {', '.join(map(str, range(2, len(keys) + 3)))}"
    for number, *row in _rows(_parts(reads, keys, _SUMS), table, tail):
        step, *values = row[: len(keys) + 1]
        # PostgreSQL's sums are decimal numbers
        yield number, Grouped(step, tuple(values), tuple(map(int, row[len(keys) + 1 :])))


def costs(table: Table, runs: Sequence[Run], column: str) -> Iterator[tuple[Value, int, int]]:
    """The cost and calls, refused ones too, of each value of a column; a value may come several times."""
    head = f"SELECT {column}, SUM(cost_nanos), SUM(calls)"
    for value, cost, calls in _rows([_Part(head, [], runs)], table, " GROUP BY 1"):
        yield value, int(cost), int(calls)


def count(table: Table, runs: Sequence[Run]) -> int:
    """How many rows have histograms."""
    return sum(each for (each,) in _rows([_Part("SELECT COUNT(*)", [], runs)], table, _MEASURED))


def histograms(
    table: Table, reads: Sequence[Read], keys: Sequence[Key] = ()
) -> Iterator[tuple[int, int, Values, bytes, bytes]]:
    """Of each row that has some: its read, step and values, and both histograms as they are kept."""
    for number, *row in _rows(_parts(reads, keys, "latency, first_token"), table, _MEASURED):
        step, *values, latency, first_token = row
        yield number, step, tuple(values), bytes(latency), bytes(first_token)


_MEASURED = " AND calls > 0 AND outcome <> 'refused'"


class _Part(NamedTuple):
    """What is selected of some runs, with the variables of that."""

    head: str
    variables: list[Value]
    runs: Sequence[Run]


def _parts(reads: Sequence[Read], keys: Sequence[Key], columns: str) -> list[_Part]:
    """Each read with its number."""
    return [
        _Part(f"SELECT {number}, {_head(keys)}, {columns}", _told(read.grid, keys), read.runs)
        for number, read in enumerate(reads)
    ]


def _head(keys: Sequence[Key]) -> str:
    return ", ".join(["(start - %s) / %s", *(each.sql for each in keys)])


def _told(grid: Grid, keys: Sequence[Key]) -> list[Value]:
    return [grid.origin, grid.length, *(value for each in keys for value in each.variables)]


def _rows(parts: Sequence[_Part], table: Table, tail: str) -> Iterator[Any]:
    where, values = _where(table.conditions)
    rest = f" FROM {table.name} WHERE size = %s AND start >= %s AND start < %s{where}{tail}"
    selects = [(part.head + rest, [*part.variables, *run, *values]) for part in parts for run in part.runs]
    most = max((len(variables) for _, variables in selects), default=1)
    at_once = max(1, min(MOST_SELECTS, MOST_VARIABLES // most))
    for at in range(0, len(selects), at_once):
        some = selects[at : at + at_once]
        with connection.cursor() as cursor:
            sql = " UNION ALL ".join(select for select, _ in some)
            cursor.execute(sql, [each for _, variables in some for each in variables])
            yield from cursor.fetchall()


def _where(conditions: Sequence[Condition]) -> tuple[str, list[Value]]:
    text = "".join(f" AND {each.column} IN ({_places(each.values)})" for each in conditions)
    return text, [value for each in conditions for value in each.values]


def _places(values: Sequence[Value]) -> str:
    return ", ".join(["%s"] * len(values))
