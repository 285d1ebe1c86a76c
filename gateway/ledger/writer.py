"""From the journal to the database, in batches, each call once."""

import logging
import threading
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from django.conf import settings
from django.db import DatabaseError, DataError, IntegrityError, close_old_connections, connection, transaction

from gateway.ledger.journal import Journal, Segment
from gateway.ledger.sweeper import Adopted, sweep, tell_nobody
from gateway.models import Attempt, Entry
from gateway.relay.records import Opened, Record, Released, Settled, Skipped

log = logging.getLogger(__name__)

BATCH = 2000
PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0
SWEEP_EVERY = 20
"""Rounds between two looks for dead journals."""

_json = msgspec.json.Encoder().encode
ENTRY_COLUMNS = tuple(str(each.column) for each in Entry._meta.concrete_fields)
ATTEMPT_COLUMNS = tuple(str(each.column) for each in Attempt._meta.concrete_fields if not each.primary_key)


def _insert(table: str, columns: tuple[str, ...]) -> str:
    """A call id that is there already stays as it is: a replay changes nothing."""
    places = ", ".join(["%s"] * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places}) ON CONFLICT DO NOTHING"  # noqa: S608


INSERT_ENTRY = _insert(Entry._meta.db_table, ENTRY_COLUMNS)
INSERT_ATTEMPT = _insert(Attempt._meta.db_table, ATTEMPT_COLUMNS)


UNBOOKABLE = (OverflowError, ValueError, TypeError, DataError, IntegrityError)
"""What a database says of a record that it will never take, however often it is asked."""


def book(settled: list[Settled]) -> None:
    """Write calls and their attempts, each once. Raises DatabaseError while the database is away.

    A record that cannot be booked is set aside for a person, so that it does not hold up the others.
    """
    for start in range(0, len(settled), BATCH):
        batch = settled[start : start + BATCH]
        try:
            _insert_all(batch)
        except UNBOOKABLE:
            for each in batch:
                _book_alone(each)


def _insert_all(batch: list[Settled]) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.executemany(INSERT_ENTRY, [_entry(each) for each in batch])
        cursor.executemany(INSERT_ATTEMPT, [row for each in batch for row in _attempts(each)])


def _book_alone(record: Settled) -> None:
    try:
        _insert_all([record])
    except UNBOOKABLE as why:
        aside = settings.VAR_DIR / "unbookable" / f"{record.call_id}.json"
        aside.parent.mkdir(mode=0o700, exist_ok=True)
        aside.write_bytes(_json(record))
        log.error("call %s cannot be booked (%s); its record is kept in %s", record.call_id, why, aside)


def _entry(record: Settled) -> tuple[Any, ...]:
    """One row in the order of ENTRY_COLUMNS."""
    usage = record.usage
    return (
        _id(record.call_id),
        record.team_id,
        record.key_id,
        record.route,
        record.streamed,
        record.simulated,
        record.outcome,
        record.status,
        record.code,
        _moment(record.started_at_us),
        _moment(record.ended_at_us),
        record.latency_us,
        record.first_token_us,
        usage.input_tokens,
        usage.cached_tokens,
        usage.output_tokens,
        usage.basis,
        record.cost_nanos,
        record.unpriced,
        _json(record.tags).decode() if record.tags else "{}",
        record.priority,
        _json([_skipped(each) for each in record.skipped]).decode() if record.skipped else "[]",
    )


def _skipped(skipped: Skipped) -> dict[str, Any]:
    return {name: getattr(skipped, name) for name in Skipped.__struct_fields__}


def _attempts(record: Settled) -> Iterable[tuple[Any, ...]]:
    """Rows in the order of ATTEMPT_COLUMNS."""
    call_id = _id(record.call_id)
    for each in record.attempts:
        yield (
            call_id,
            each.attempt_no,
            each.target_id,
            each.provider,
            each.upstream_model,
            each.outcome,
            each.status,
            _moment(each.started_at_us),
            each.latency_us,
            each.first_token_us,
            each.usage.input_tokens,
            each.usage.cached_tokens,
            each.usage.output_tokens,
            each.usage.basis,
            each.price_id,
            each.cost_nanos,
            each.code,
            each.queued_us,
            each.backoff_us,
            each.probe,
            each.trimmed,
        )


def _id(call_id: str) -> str:
    """As Django keeps a UUID where the database has no such type; PostgreSQL reads it too."""
    return call_id.replace("-", "")


def _moment(at_us: int) -> str:
    """As Django writes a moment into SQLite; PostgreSQL reads it too, its connections being in UTC."""
    second, fraction = divmod(at_us, 1_000_000)
    return f"{_second(second)}.{fraction:06d}"


@lru_cache(maxsize=1024)
def _second(at_s: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at_s))


class Writer:
    """A thread that carries one process's journal to the database, and dead processes' journals too.

    A database that does not answer makes the journal longer and nothing else.
    """

    def __init__(
        self, journal: Journal, root: Path, *, adopted: Adopted = tell_nobody, pause_s: float = PAUSE_S
    ) -> None:
        self._journal, self._root, self._pause_s = journal, root, pause_s
        self._adopted = adopted
        self._places: dict[Segment, int] = {}
        self._open: dict[str, Segment] = {}
        self._settled: list[Settled] = []
        self._stop = threading.Event()
        self._failures = 0
        self._rounds = 0
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)

    @property
    def behind(self) -> bool:
        """What the journal holds does not get onto the ledger."""
        return self._failures > 0 or not self.running

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Carry over what there is, once, and end."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._pause()):
            self._round()
        self._round()
        connection.close()

    def _pause(self) -> float:
        return min(self._pause_s * float(2**self._failures), LONGEST_PAUSE_S)

    def _round(self) -> None:
        """Carry over what there is; a failure is tried again later, with nothing lost."""
        try:
            self.carry_over()
            if self._rounds % SWEEP_EVERY == 0:
                sweep(self._root, book, self._adopted)
            self._rounds += 1
            self._failures = 0
        except DatabaseError as why:
            self._failures = min(self._failures + 1, 10)
            log.warning("the database does not take the ledger's batch, the journal keeps it: %s", why)
            close_old_connections()
        except Exception:  # the thread's outermost edge: the books must go on, and the journal keeps the rest
            self._failures = min(self._failures + 1, 10)
            log.exception("the ledger's batch could not be carried over")

    def carry_over(self) -> None:
        """Read what was appended, book what was settled, forget what is done. Raises DatabaseError."""
        self._gather()
        while self._settled:
            batch = self._settled[:BATCH]
            book(batch)
            del self._settled[: len(batch)]
        self._forget()

    def _gather(self) -> None:
        for segment in list(self._journal.segments):
            start, end = self._places.get(segment, 0), segment.end
            if end > start:
                for record in segment.read(start, end):
                    self._note(record, segment)
                self._places[segment] = end

    def _note(self, record: Record, segment: Segment) -> None:
        if isinstance(record, Settled):
            self._settled.append(record)
            self._open.pop(record.call_id, None)
        elif isinstance(record, Released):
            self._open.pop(record.call_id, None)
        elif isinstance(record, Opened):
            self._open[record.call_id] = segment

    def _forget(self) -> None:
        """Drop the oldest segments while every call opened in them is booked; never the one in use."""
        waiting = set(self._open.values())
        segments = self._journal.segments
        while (
            len(segments) > 1
            and segments[0] not in waiting
            and self._places.get(segments[0], 0) == segments[0].end
        ):
            del self._places[segments[0]]
            self._journal.forget_first()
