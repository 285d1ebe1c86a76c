"""How long PostgreSQL may take over a statement, and over a lock, where the usual is not right.

On SQLite nothing here does anything: its one lock has one time limit.
"""

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

from django.db import OperationalError, connection, connections, transaction

BESIDE_S = 2.0
"""The server's own time limit comes first: its answer says more."""
SHORT_LOCK_MS = 300
"""Whoever waits for a table's lock holds up all who come after; for no longer than this."""
SET_UP = 0x70656E7374
"""The advisory lock of whoever migrates and makes the first rows."""
LOCK_TRIES = 60
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
LOCK_NOT_AVAILABLE = "55P03"
"""PostgreSQL's code for a lock that was not to be had in time."""


def is_postgresql() -> bool:
    return connection.vendor == "postgresql"


@contextlib.contextmanager
def patient(statement_s: float | None) -> Iterator[None]:
    """Inside a transaction: each statement may take so long; None: without end."""
    if not is_postgresql():
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute(
            f"SET LOCAL statement_timeout = {0 if statement_s is None else int(statement_s * 1000)}"
        )
    with _waiting(None if statement_s is None else statement_s + BESIDE_S):
        yield


@contextlib.contextmanager
def _waiting(longest_s: float | None) -> Iterator[None]:
    """On our side. The wire may be another afterwards, where this one broke."""
    wire: Any = connection.connection
    before, wire.longest_wait_s = wire.longest_wait_s, longest_s
    try:
        yield
    finally:
        wire.longest_wait_s = before


def with_short_locks(work: Callable[[], None], pause: Callable[[float], None] = time.sleep) -> None:
    """Do it in a transaction of its own that waits for no lock for long, again and again until it is done.

    Raises OperationalError where a lock was never to be had.
    """
    if not is_postgresql():
        with transaction.atomic():
            work()
        return
    for number in range(LOCK_TRIES):
        try:
            with transaction.atomic(), patient(None):
                with connection.cursor() as cursor:
                    cursor.execute(f"SET LOCAL lock_timeout = {SHORT_LOCK_MS}")
                work()
        except OperationalError as why:
            if not is_lock_missing(why) or number == LOCK_TRIES - 1:
                raise
            pause(pause_s(number))
        else:
            return


@contextlib.contextmanager
def hurried() -> Iterator[None]:
    """In this thread statements may take any time, and none waits long for a lock. Raises DatabaseError."""
    if not is_postgresql():
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        cursor.execute(f"SET lock_timeout = {SHORT_LOCK_MS}")
    with _waiting(None):
        try:
            yield
        finally:
            _reset()


def _reset() -> None:
    """As it was. A broken connection is not used again, and a transaction that failed takes the rest back."""
    if connection.is_usable():
        with connection.cursor() as cursor:
            cursor.execute("RESET statement_timeout")
            cursor.execute("RESET lock_timeout")


@contextlib.contextmanager
def alone_in_database(pause: Callable[[float], None] = time.sleep) -> Iterator[None]:
    """Wait until nobody else sets this database up, on whatever machine. Raises DatabaseError.

    The lock is a connection's, so that it goes with a process that dies.
    """
    if not is_postgresql():
        yield
        return
    holder = connection.copy()
    try:
        while not _locked(holder):
            pause(LONGEST_PAUSE_S)
        yield
    finally:
        if holder.connection is not None:
            holder.connection.close()  # given back to the pool it would hold the lock for ever
        holder.close()


def _locked(holder: Any) -> bool:
    with holder.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [SET_UP])
        return bool(cursor.fetchone()[0])


def leave_database() -> None:
    """Close this process's connections, also those that rest in its pool."""
    connections.close_all()
    for each in connections.all():
        if hasattr(each, "close_pool"):
            each.close_pool()


def pause_s(number: int) -> float:
    """How long to let the others go first after so many tries, by chance shorter."""
    return random.uniform(0.5, 1) * min(FIRST_PAUSE_S * 2.0**number, LONGEST_PAUSE_S)  # noqa: S311


def is_lock_missing(why: OperationalError) -> bool:
    """Somebody else holds it; later they will not."""
    return getattr(why.__cause__, "sqlstate", None) == LOCK_NOT_AVAILABLE
