"""How long a page may look: a statement of one that reads has two seconds, whatever is asked for.

On PostgreSQL the server ends it, on SQLite the database calls back while it works. Files are not meant: they
are sent after the page's answer was made, part by part.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

from django.conf import settings
from django.db import connection
from django.http import HttpRequest, HttpResponse

STATEMENT_S: Final = 2.0
STEPS: Final = 20_000
"""Of SQLite's machine between two looks at the clock: about a millisecond's worth."""
ENDED_BY_SERVER: Final = "57014"
"""SQLSTATE query_canceled."""
ENDED_BY_US: Final = "interrupted"
"""What SQLite says."""


class Patience:
    """Around whatever only reads: pages, the operator pages, and the lists of the management API."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.method not in ("GET", "HEAD"):
            return self.get_response(request)
        with at_most(STATEMENT_S):
            return self.get_response(request)


@contextmanager
def at_most(statement_s: float) -> Iterator[None]:
    """Statements of this thread's connection that take longer raise OperationalError; see `ran_out`.

    A connection that nothing is asked of is not opened.
    """
    limit: Limit = OnSQLite(statement_s) if connection.vendor == "sqlite" else OnPostgreSQL(statement_s)
    wires: list[Any] = []

    def limited(execute: Callable[..., Any], *asked: Any) -> Any:
        if connection.connection not in wires:
            wires.append(connection.connection)
            limit.begin(connection.connection)
        limit.restart()
        return execute(*asked)

    try:
        with connection.execute_wrapper(limited):
            yield
    finally:
        for each in wires:
            limit.end(each)


def ran_out(why: BaseException | None) -> bool:
    """The error, or what it came from, is that a statement took too long."""
    while why is not None:
        if getattr(why, "sqlstate", None) == ENDED_BY_SERVER or str(why) == ENDED_BY_US:
            return True
        why = why.__cause__
    return False


class Limit(Protocol):
    """How one kind of database keeps the time of a connection's statements."""

    def begin(self, wire: Any) -> None: ...
    def restart(self) -> None: ...
    def end(self, wire: Any) -> None: ...


class OnSQLite:
    """A statement's rows are worked out while they are fetched, so its clock runs until the next begins."""

    def __init__(self, statement_s: float) -> None:
        self.statement_s = statement_s
        self.ends_at = 0.0

    def begin(self, wire: Any) -> None:
        wire.set_progress_handler(lambda: time.monotonic() > self.ends_at, STEPS)

    def restart(self) -> None:
        self.ends_at = time.monotonic() + self.statement_s

    def end(self, wire: Any) -> None:
        wire.set_progress_handler(None, STEPS)


class OnPostgreSQL:
    """The server keeps the time of each statement by itself."""

    def __init__(self, statement_s: float) -> None:
        self.statement_s = statement_s

    def begin(self, wire: Any) -> None:
        self._say(wire, self.statement_s)

    def restart(self) -> None:
        pass

    def end(self, wire: Any) -> None:
        if not wire.closed:
            self._say(wire, settings.ENV.database_timeout_s)

    def _say(self, wire: Any, statement_s: float) -> None:
        wire.execute(f"SET statement_timeout = {int(statement_s * 1000)}")
