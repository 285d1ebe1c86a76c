"""From the journal to the database, in batches, each call once."""

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec
from django.conf import settings
from django.db import DatabaseError, DataError, IntegrityError, close_old_connections, connection, transaction

from gateway.ledger import repricing, rows
from gateway.ledger.inserting import insert_new
from gateway.ledger.journal import Journal, Segment
from gateway.ledger.retention import kept_from
from gateway.ledger.sweeper import Adopted, sweep, tell_nobody
from gateway.patience import patient
from gateway.relay.records import Opened, Record, Refusals, Released, Settled

log = logging.getLogger(__name__)

BATCH = 2000
BATCH_S = 60.0
"""For each statement of a batch on PostgreSQL: one that a slow disk cuts off would begin again for ever."""
MOST_GATHERED = 4 * BATCH
"""Calls in memory that are not booked yet, however long the database is away."""
PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0
SWEEP_EVERY = 20
"""Rounds between two looks for dead journals."""

_json = msgspec.json.Encoder().encode


UNBOOKABLE = (OverflowError, ValueError, TypeError, DataError, IntegrityError)
"""What a database says of a record that it will never take, however often it is asked."""


def book(settled: Sequence[Settled], refusals: Sequence[Refusals] = ()) -> None:
    """Write calls with their attempts, and refusals, each once. Raises DatabaseError while it is away.

    A record that cannot be booked is set aside for a person, so that it does not hold up the others.
    """
    everything: list[Settled | Refusals] = [*settled, *refusals]
    for start in range(0, len(everything), BATCH):
        batch = everything[start : start + BATCH]
        try:
            _insert_all(batch)
        except UNBOOKABLE:
            for each in batch:
                _book_alone(each)


def book_left(settled: Sequence[Settled], refusals: Sequence[Refusals]) -> None:
    """The same, of a journal that a process left without saying that it is booked.

    Of what the ledger deleted nobody knows whether it was on it. It is booked, as a call that is counted
    twice can be found by who is told of it here, and one that is lost cannot.
    """
    oldest = kept_from()
    calls = sum(each.started_at_us < oldest * rows.MINUTE_US for each in settled)
    refused = sum(count.minute < oldest for each in refusals for count in each.counts)
    if calls or refused:
        log.warning(
            "%d calls and %d counts of refused ones in a journal are older than the ledger is kept: "
            "those that were on it before are counted twice",
            calls,
            refused,
        )
    book(settled, refusals)


def _insert_all(batch: Sequence[Settled | Refusals]) -> None:
    """In one transaction, with marks at the minutes whose sums change."""
    settled = [each for each in batch if isinstance(each, Settled)]
    refusals = [each for each in batch if isinstance(each, Refusals)]
    with transaction.atomic(), patient(BATCH_S), connection.cursor() as cursor:
        if settled:
            insert_new(cursor, rows.ENTRY, [rows.entry(each) for each in settled])
            insert_new(cursor, rows.ATTEMPT, [row for each in settled for row in rows.attempts(each)])
        if refusals:
            insert_new(cursor, rows.REFUSAL_COUNT, [row for each in refusals for row in rows.counts(each)])
            insert_new(cursor, rows.REFUSAL, [row for each in refusals for row in rows.samples(each)])
        insert_new(cursor, rows.STALE, rows.marks(settled, refusals))
        repricing.note_late(settled)


def _book_alone(record: Settled | Refusals) -> None:
    try:
        _insert_all([record])
    except UNBOOKABLE as why:
        name = record.call_id if isinstance(record, Settled) else record.batch_id
        aside = settings.VAR_DIR / "unbookable" / f"{name}.json"
        aside.parent.mkdir(mode=0o700, exist_ok=True)
        aside.write_bytes(_json(record))
        log.error("the record %s cannot be booked (%s); it is kept in %s", name, why, aside)


class Writer:
    """A thread that carries one process's journal to the database, and dead processes' journals too.

    A database that does not answer makes the journal longer and nothing else.
    """

    def __init__(
        self,
        journal: Journal,
        root: Path,
        *,
        adopted: Adopted = tell_nobody,
        pause_s: float = PAUSE_S,
        most_gathered: int = MOST_GATHERED,
    ) -> None:
        self._journal, self._root, self._pause_s = journal, root, pause_s
        self._adopted, self._most_gathered = adopted, most_gathered
        self._places: dict[Segment, int] = {}
        self._open: dict[str, Segment] = {}
        self._settled: list[Settled] = []
        self._refusals: list[Refusals] = []
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

    @property
    def has_booked_all(self) -> bool:
        """Nothing that the journal holds, or can come to hold, is left to be booked.

        Exact once the journal is sealed and the thread has ended: no call is opened then, so where none is
        open and all is read to the end, nothing is written any more.
        """
        is_read = all(self._places.get(each, 0) == each.end for each in self._journal.segments)
        waits = self._settled or self._refusals or self._open
        return self._journal.sealed and is_read and not waits

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
                sweep(self._root, book_left, self._adopted)
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
        while self._gather():
            while self._settled or self._refusals:
                batch, refusals = self._settled[:BATCH], self._refusals[:BATCH]
                book(batch, refusals)
                del self._settled[: len(batch)], self._refusals[: len(refusals)]
        self._forget()

    def _gather(self) -> bool:
        """Read on, but never far ahead of the database: the journal holds the rest. True: there is some."""
        if self._settled or self._refusals:
            return True
        for segment in list(self._journal.segments):
            start, end = self._places.get(segment, 0), segment.end
            if end > start:
                for behind, record in segment.read_on(start, end):
                    self._note(record, segment)
                    self._places[segment] = start + behind
                    if len(self._settled) >= self._most_gathered:
                        return True
        return bool(self._settled or self._refusals)

    def _note(self, record: Record, segment: Segment) -> None:
        if isinstance(record, Settled):
            self._settled.append(record)
            self._open.pop(record.call_id, None)
        elif isinstance(record, Refusals):
            self._refusals.append(record)
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
