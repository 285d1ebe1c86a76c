"""The step that parts the ledger by month, and the step back, while calls are written and read."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.db import connection

from gateway.ledger.partitions import TABLES, make_ahead
from gateway.partitioning import join, part
from gateway.relay.call import new_call_id
from tests.served import eventually

pytestmark = pytest.mark.postgresql
LONGEST_LOCK_S = 1.0
ENTRY = """
INSERT INTO gateway_entry (call_id, team_id, key_id, route, streamed, simulated, outcome, status, code,
    started_at, ended_at, latency_us, input_tokens, cached_tokens, output_tokens, usage_basis, cost_nanos,
    unpriced, tags, priority, skipped)
SELECT call_id, 1, 1, 'gpt-4o', false, false, 'answered', 200, '', now(), now(), 1, 1, 0, 1, 'reported', 1,
    false, '{}', 'normal', '[]' FROM unnest(%s::uuid[]) AS call_id ON CONFLICT DO NOTHING
"""
ATTEMPT = """
INSERT INTO gateway_attempt (entry_id, attempt_no, target_id, provider, upstream_model, outcome, started_at,
    latency_us, input_tokens, cached_tokens, output_tokens, usage_basis, cost_nanos, code, queued_us,
    backoff_us, probe, trimmed)
SELECT call_id, 1, 1, 'openai', 'gpt-4o', 'answered', now(), 1, 1, 0, 1, 'reported', 1, '', 0, 0, false, 0
FROM unnest(%s::uuid[]) AS call_id ON CONFLICT DO NOTHING
"""
FILL = """
SELECT (lpad(to_hex(1767225600000 + g * 1000), 12, '0') || '70008000' || lpad(to_hex(g), 12, '0'))::uuid
FROM generate_series(1, %s) AS g
"""
"""From the start of 2026 on, a call a second."""


def forth() -> None:
    """As the migration does."""
    for table in TABLES:
        part(table, datetime.now(UTC))
    make_ahead(datetime.now(UTC))


def back() -> None:
    for table in TABLES:
        join(table)


def rows(query: str, *values: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found


def another() -> psycopg.Connection:
    """A connection of somebody else."""
    options = connection.settings_dict
    return psycopg.connect(
        host=options["HOST"], user=options["USER"], dbname=options["NAME"], autocommit=True
    )


def fill(calls: int) -> None:
    with another() as other:
        write(other, [row[0] for row in other.execute(FILL, [calls])])


def counts() -> tuple[int, int]:
    return rows("SELECT COUNT(*) FROM gateway_entry")[0] + rows("SELECT COUNT(*) FROM gateway_attempt")[0]


def kinds() -> dict[str, str]:
    found = rows(
        "SELECT relname, relkind FROM pg_class WHERE relname IN ('gateway_entry', 'gateway_attempt')"
    )
    return dict(found)  # type: ignore[arg-type]


def shape() -> list[tuple[Any, ...]]:
    """Columns, constraints and indexes of both tables by their names."""
    return [
        *rows(
            "SELECT table_name, column_name, data_type, is_nullable, is_identity "
            "FROM information_schema.columns WHERE table_name IN ('gateway_entry', 'gateway_attempt') "
            "ORDER BY table_name, ordinal_position"
        ),
        *rows(
            "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE conrelid IN ('gateway_entry'::regclass, 'gateway_attempt'::regclass) ORDER BY 1, 2"
        ),
        *rows(
            "SELECT tablename, indexname, replace(indexdef, ' ON ONLY ', ' ON ') FROM pg_indexes "
            "WHERE tablename IN ('gateway_entry', 'gateway_attempt') ORDER BY 1, 2"
        ),
    ]


def write(other: psycopg.Connection, ids: list[UUID]) -> None:
    with other.transaction():
        other.execute(ENTRY, [ids])
        other.execute(ATTEMPT, [ids])


@pytest.fixture
def plain(transactional_db) -> Iterator[None]:
    """The tables as they were before; they are in parts again after the test, whatever it did."""
    back()
    yield
    forth()


@dataclass
class Load:
    """Calls that are booked and read while something else goes on."""

    booked: int = 0
    longest_s: float = 0.0
    failures: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def write(self) -> None:
        with another() as other:
            while not self.over.is_set():
                ids = [UUID(new_call_id(time.time_ns())) for _ in range(5)]
                self._timed(lambda ids=ids: write(other, ids))
                self.booked += 5

    def read(self) -> None:
        query = "SELECT SUM(cost_nanos) FROM gateway_entry WHERE team_id = 1 AND started_at > now()"
        with another() as other:
            while not self.over.is_set():
                self._timed(lambda: other.execute(query).fetchall())

    def _timed(self, do: Callable[[], object]) -> None:
        began_at_s = time.monotonic()
        try:
            do()
        except psycopg.Error as why:
            self.failures.append(str(why))
        self.longest_s = max(self.longest_s, time.monotonic() - began_at_s)


@contextlib.contextmanager
def under_load() -> Iterator[Load]:
    load = Load()
    threads = [threading.Thread(target=each) for each in (load.write, load.read)]
    for each in threads:
        each.start()
    try:
        yield load
    finally:
        load.over.set()
        for each in threads:
            each.join()


def back_and_forth(calls: int) -> str:
    """Nothing is lost or doubled, nobody fails, and nobody waits for a second."""
    fill(calls)
    before = shape()
    with under_load() as load:
        forth()
        there = load.booked
        back()
        everything = load.booked
    assert load.failures == []
    assert 0 < there < everything
    assert counts() == (calls + load.booked, calls + load.booked)
    assert shape() == before
    assert load.longest_s <= LONGEST_LOCK_S
    return (
        f"O9  a ledger of {calls:,} calls parted by month and joined again under load: {load.booked} calls "
        f"booked meanwhile, none lost or doubled, the longest wait of a reader or writer "
        f"{load.longest_s * 1000:.0f} ms"
    )


@pytest.mark.usefixtures("plain")
def test_the_ledger_is_parted_and_joined_while_it_is_used():
    back_and_forth(20_000)


@pytest.mark.prove
@pytest.mark.usefixtures("plain")
def test_a_ledger_of_a_million_calls_is_parted_and_joined_while_it_is_used(capsys):
    said = back_and_forth(1_000_000)
    with capsys.disabled():
        print(f"\n{said}")


@pytest.mark.usefixtures("plain")
def test_what_was_there_is_the_first_part():
    fill(100)
    forth()
    assert kinds() == {"gateway_entry": "p", "gateway_attempt": "p"}
    ((name, count),) = rows("SELECT tableoid::regclass::text, COUNT(*) FROM gateway_entry GROUP BY 1")
    assert count == 100
    assert name.startswith("gateway_entry_before_")


@pytest.mark.usefixtures("plain")
def test_attempts_are_counted_on_from_where_they_were():
    fill(100)
    for step in (forth, back, forth):
        step()
        ((newest,),) = rows("SELECT MAX(id) FROM gateway_attempt")
        call_id = UUID(new_call_id(time.time_ns()))
        with another() as other:
            write(other, [call_id])
        ((number,),) = rows("SELECT id FROM gateway_attempt WHERE entry_id = %s", call_id)
        assert number > newest


@pytest.mark.usefixtures("plain")
def test_a_step_that_meets_a_lock_lets_the_others_go_first():
    """Somebody reads for long: no lock is to be had, and whoever comes after is not held up by it."""
    fill(100)

    def move() -> None:
        forth()
        connection.close()

    with another() as reader, under_load() as load:
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM gateway_entry")
        moving = threading.Thread(target=move)
        moving.start()
        eventually(lambda: load.longest_s > 0.2, 60, "a try that kept others waiting")
        assert kinds()["gateway_entry"] == "r"
        reader.execute("COMMIT")
        moving.join()
    assert kinds() == {"gateway_entry": "p", "gateway_attempt": "p"}
    assert load.failures == []
    assert load.longest_s <= LONGEST_LOCK_S


@pytest.mark.usefixtures("transactional_db")
def test_a_way_back_that_was_broken_off_is_begun_again():
    fill(100)
    try:
        with another() as other:
            other.execute("CREATE TABLE gateway_entry_plain AS SELECT 1 AS call_id")
        back()
        assert counts() == (100, 100)
        assert kinds() == {"gateway_entry": "r", "gateway_attempt": "r"}
    finally:
        forth()


def test_done_twice_it_is_done_once(transactional_db):
    before = shape()
    forth()
    assert shape() == before
