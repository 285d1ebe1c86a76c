"""How the ledger is read while it is written."""

import contextlib
from collections.abc import Iterator

from django.db import connection


@contextlib.contextmanager
def one_view() -> Iterator[None]:
    """All that is read inside is as of one moment. Raises DatabaseError.

    By hand, because `transaction.atomic` takes SQLite's write lock here, and the writer need not wait.
    """
    begin = "BEGIN ISOLATION LEVEL REPEATABLE READ" if connection.vendor == "postgresql" else "BEGIN"
    with connection.cursor() as cursor:
        cursor.execute(begin)
        try:
            yield
        finally:
            cursor.execute("ROLLBACK")
