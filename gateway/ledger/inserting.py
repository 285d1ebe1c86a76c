"""Rows into a table, as many as are not there yet."""

from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from itertools import chain
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from django.db import transaction
from django.db.backends.utils import CursorWrapper

Row = tuple[Any, ...]

TOGETHER = (128, 16, 1)
"""Rows of one statement on SQLite; times the columns of a table, below the 32,766 values that one takes."""


class Table(NamedTuple):
    """A table and those of its columns that rows are given for, in their order. The first is of its name."""

    name: str
    columns: tuple[str, ...]


_made: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()
"""By PostgreSQL connection: the tables for which it has a temporary one."""


def insert_new(cursor: CursorWrapper, table: Table, rows: Sequence[Row]) -> None:
    """What has its name already stays as it is: a replay changes nothing.

    Raises DatabaseError, ValueError.
    """
    if not rows:
        return
    if cursor.db.vendor == "postgresql":
        _copy_new(cursor, table, rows)
    else:
        _insert_together(cursor, table, rows)


def _insert_together(cursor: CursorWrapper, table: Table, rows: Sequence[Row]) -> None:
    """Many rows a statement, for the sake of the other threads.

    SQLite lets go of the interpreter once a statement and asks for it again, and where the event loop is busy
    that is two changes of thread: by `executemany()`, for every single row.
    """
    with cursor.db.wrap_database_errors:
        for some in _together(rows):
            cursor.db.connection.execute(_insert_of(table, len(some)), tuple(chain.from_iterable(some)))


def _together(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """All of them in few sizes, so that few statements are compiled."""
    start = 0
    for size in TOGETHER:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size


@lru_cache(maxsize=64)
def _insert_of(table: Table, count: int) -> str:
    places = f"({', '.join('?' * len(table.columns))})"
    into = f"INSERT INTO {table.name} ({', '.join(table.columns)})"
    return f"{into} VALUES {', '.join([places] * count)} ON CONFLICT DO NOTHING"


def _copy_new(cursor: CursorWrapper, table: Table, rows: Sequence[Row]) -> None:
    """By COPY into a temporary table, which knows of no conflicts, and on from there in one statement.

    In the order of their names: of two processes that insert the same, one waits for the other
    and never both for each other.
    """
    incoming, columns = f"incoming_{table.name}", ", ".join(table.columns)
    _make(cursor, table, incoming, columns)
    with cursor.db.wrap_database_errors, cursor.copy(f"COPY {incoming} ({columns}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
    cursor.execute(
        f"INSERT INTO {table.name} ({columns}) SELECT {columns} FROM {incoming} "  # noqa: S608
        f"ORDER BY {table.columns[0]} ON CONFLICT DO NOTHING"
    )
    cursor.execute(f"DELETE FROM {incoming}")  # noqa: S608 - the commit would do, but this may not be the last


def _make(cursor: CursorWrapper, table: Table, incoming: str, columns: str) -> None:
    """Once a connection, unless the transaction fails in which it is made. Its rows go with each commit."""
    made = _made.setdefault(cursor.db.connection, set())
    if incoming not in made:
        cursor.execute(
            f"CREATE TEMPORARY TABLE IF NOT EXISTS {incoming} ON COMMIT DELETE ROWS "  # noqa: S608
            f"AS SELECT {columns} FROM {table.name} WITH NO DATA"
        )
        transaction.on_commit(partial(made.add, incoming))
