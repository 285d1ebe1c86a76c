"""How long PostgreSQL may take over a statement, and over a lock."""

import threading

import pytest
from django.db import OperationalError, connection, transaction

from gateway.patience import (
    LOCK_TRIES,
    alone_in_database,
    hurried,
    is_lock_missing,
    patient,
    with_short_locks,
)


def setting(name: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"SHOW {name}")
        return str(cursor.fetchone()[0])


def test_on_sqlite_nothing_is_different(db):
    if connection.vendor == "sqlite":
        done = []
        with patient(1), hurried(), alone_in_database():
            with_short_locks(lambda: done.append(1))
        assert done == [1]


@pytest.mark.postgresql
def test_a_statement_may_take_long_for_one_transaction(transactional_db):
    usual = setting("statement_timeout")
    with transaction.atomic(), patient(60):
        assert setting("statement_timeout") == "1min"
        assert connection.connection.longest_wait_s == 62
    assert setting("statement_timeout") == usual == "10s"
    assert connection.connection.longest_wait_s == 12


@pytest.mark.postgresql
def test_a_migration_waits_for_no_lock_for_long_and_nothing_of_it_stays(transactional_db):
    with hurried():
        assert (setting("statement_timeout"), setting("lock_timeout")) == ("0", "300ms")
        assert connection.connection.longest_wait_s is None
    assert (setting("statement_timeout"), setting("lock_timeout")) == ("10s", "5s")
    assert connection.connection.longest_wait_s == 12


class Somebody:
    """Holds the lock on a table until told to let it go."""

    def __init__(self, table: str) -> None:
        self._table, self._has_it, self.let_go = table, threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold)

    def __enter__(self) -> "Somebody":
        self._thread.start()
        assert self._has_it.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go.set()
        self._thread.join(60)

    def _hold(self) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {self._table} IN ACCESS EXCLUSIVE MODE")
            self._has_it.set()
            self.let_go.wait(60)
        connection.close()


def lock_entries() -> None:
    with connection.cursor() as cursor:
        cursor.execute("LOCK TABLE gateway_entry IN SHARE ROW EXCLUSIVE MODE")


@pytest.mark.postgresql
def test_a_lock_that_is_not_to_be_had_is_tried_again(transactional_db):
    pauses: list[float] = []
    with Somebody("gateway_entry") as somebody:

        def pause(pause_s: float) -> None:
            pauses.append(pause_s)
            if len(pauses) == 2:
                somebody.let_go.set()
                somebody._thread.join(60)

        with_short_locks(lock_entries, pause)
    assert len(pauses) == 2


@pytest.mark.postgresql
def test_a_lock_that_is_never_to_be_had_is_given_up(transactional_db, settings):
    pauses: list[float] = []

    def never() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = 1")
        lock_entries()

    with Somebody("gateway_entry"), pytest.raises(OperationalError) as told:
        with_short_locks(never, pauses.append)
    assert is_lock_missing(told.value)
    assert len(pauses) == LOCK_TRIES - 1


@pytest.mark.postgresql
def test_what_goes_wrong_otherwise_is_not_tried_again(transactional_db):
    tries: list[int] = []

    def wrong() -> None:
        tries.append(1)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(1) FROM pg_class, nowhere")

    with pytest.raises(Exception, match="nowhere"):
        with_short_locks(wrong)
    assert tries == [1]


@pytest.mark.postgresql
def test_one_at_a_time_sets_a_database_up(transactional_db):
    order: list[str] = []
    waiting = threading.Event()

    def second() -> None:
        with alone_in_database(lambda _: waiting.set()):
            order.append("second")
        connection.close()

    thread = threading.Thread(target=second)
    with alone_in_database():
        thread.start()
        assert waiting.wait(30)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]
