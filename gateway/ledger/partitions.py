"""The ledger's tables on PostgreSQL: one part for each month, by the call's id.

A call id begins with the milliseconds of its time (UUIDv7, RFC 9562), so a month is a range of ids,
and a year that is too old goes with its tables and not row by row. On SQLite nothing here does anything.
`gateway/partitioning.py` makes the parts the first time.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple
from uuid import UUID

from django.db import connection

from gateway.models import Attempt, Entry
from gateway.patience import is_postgresql, with_short_locks

AHEAD = 3
"""Months beside the present one. Should the task that makes them stand still, calls go on for as long."""
WORK = 0x70656E73
"""The advisory lock of whoever changes the parts: one at a time."""
_BOUND = re.compile(r"FROM \((MINVALUE|'[^']+')\) TO \('([^']+)'\)")


class Parted(NamedTuple):
    """A table in parts, and the column with the call's id."""

    name: str
    key: str

    @property
    def rest(self) -> str:
        """The part for what belongs to no month: ids from a clock that is far off, or from long ago."""
        return f"{self.name}_rest"


class Part(NamedTuple):
    """The ids of one part's calls are below `end`."""

    name: str
    end: UUID


ENTRIES = Parted(Entry._meta.db_table, "call_id")
ATTEMPTS = Parted(Attempt._meta.db_table, "entry_id")
TABLES = (ATTEMPTS, ENTRIES)
"""In the order in which they are dropped: no attempt without its entry."""


def first_id(moment: datetime) -> UUID:
    """No call of before the moment has an id that is as great."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)


def month_of(moment: datetime, later: int = 0) -> datetime:
    """The start of the month in UTC, or of one that is so many months later."""
    at = moment.astimezone(UTC)
    years, month = divmod(at.month - 1 + later, 12)
    return datetime(at.year + years, month + 1, 1, tzinfo=UTC)


def make_ahead(now: datetime) -> int:
    """Make the parts of this month and of the next ones, where they are missing; how many were made.

    What landed in the rest meanwhile moves to its month. Raises DatabaseError.
    """
    if not is_postgresql():
        return 0
    missing = [(table, start) for table in TABLES for start in _missing(table, now)]
    for table, start in missing:
        with_short_locks(partial(_make, table, start))
    return len(missing)


def drop_before(moment: datetime) -> int:
    """Drop the parts whose months were over by then, and how many months these were.

    Only whole months go. Raises DatabaseError.
    """
    if not is_postgresql():
        return 0
    bound = first_id(month_of(moment))
    over = [each for each in parts(ENTRIES) if each.end <= bound]
    for table in TABLES:
        with_short_locks(partial(_drop, table, bound))
    return len(over)


def parts(table: Parted) -> list[Part]:
    """By month, the oldest first; without the rest."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT child.relname, pg_get_expr(child.relpartbound, child.oid) "
            "FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid WHERE inhparent = %s::regclass",
            [table.name],
        )
        found = cursor.fetchall()
    return sorted(_read(found), key=lambda each: each.end)


def _missing(table: Parted, now: datetime) -> Iterator[datetime]:
    """The starts of the months that come after the last part; none where the table is not in parts."""
    end = _end(table)
    if end is None:
        return
    start = datetime.fromtimestamp((end.int >> 80) / 1000, UTC)
    while start <= month_of(now, AHEAD):
        yield start
        start = month_of(start, 1)


def _read(found: list[tuple[str, str]]) -> Iterator[Part]:
    for name, bound in found:
        if matched := _BOUND.search(bound):
            yield Part(name, UUID(matched[2]))


def _end(table: Parted) -> UUID | None:
    """Where the last part ends; None where the table is not in parts."""
    return max((each.end for each in parts(table)), default=None)


def _make(table: Parted, start: datetime) -> None:
    """In a transaction. A table is made first and then made a part: calls go on being written meanwhile."""
    stop = month_of(start, 1)
    name = f"{table.name}_{start:%Y_%m}"
    bounds = [first_id(start), first_id(stop)]
    within = f"{table.key} >= '{bounds[0]}' AND {table.key} < '{bounds[1]}'"
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [WORK])
        if (_end(table) or bounds[1]) >= bounds[1]:
            return  # another process was first
        cursor.execute(f"LOCK TABLE {table.rest} IN ACCESS EXCLUSIVE MODE")
        cursor.execute(f"CREATE TABLE {name} (LIKE {table.name} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
        cursor.execute(
            f"WITH moved AS (DELETE FROM {table.rest} WHERE {within} RETURNING *) "  # noqa: S608
            f"INSERT INTO {name} SELECT * FROM moved"
        )
        cursor.execute(
            f"ALTER TABLE {table.name} ATTACH PARTITION {name} "
            f"FOR VALUES FROM ('{bounds[0]}') TO ('{bounds[1]}')"
        )


def _drop(table: Parted, bound: UUID) -> None:
    """In a transaction."""
    over = [each.name for each in parts(table) if each.end <= bound]
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [WORK])
        cursor.execute(f"DELETE FROM {table.rest} WHERE {table.key} < %s", [bound])  # noqa: S608
        for each in over:
            cursor.execute(f"DROP TABLE {each}")
