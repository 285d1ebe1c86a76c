"""Door out: what breakers did and which credentials were refused, from the relay's loop to the database."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from django.db import DataError, IntegrityError, connection, transaction
from django.db import Error as DatabaseTrouble
from msgspec import Struct

from gateway.models import BreakerChange, Credential
from gateway.relay.catalog import Target
from gateway.relay.ports import Change

log = logging.getLogger(__name__)

MOST_WAITING = 10_000
"""Some hundred breakers that change every few seconds for an hour of a database that is away."""
PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIMELINE_KEPT_FOR = timedelta(days=90)
TIDY_EVERY_S = 24 * 3600.0
LOOK_EVERY_S = 600.0
"""How often an idle thread looks whether it is time to tidy."""

UNWRITABLE = (OverflowError, ValueError, TypeError, DataError, IntegrityError)
"""What a database says of a row that it will never take, however often it is asked."""


class Item(Protocol):
    """One piece of news, with what is done about it."""

    def write(self) -> None:
        """Raises django.db.Error."""


class Changed(Struct, frozen=True):
    """A breaker changed: a line on its target's timeline."""

    target_id: int
    provider: str
    upstream_model: str
    change: Change

    def write(self) -> None:
        change = self.change
        BreakerChange.objects.create(
            target_id=self.target_id,
            provider=self.provider,
            upstream_model=self.upstream_model,
            at=_moment(change.at_us),
            before=change.before,
            after=change.after,
            cause=change.cause,
            until=None if change.until_us is None else _moment(change.until_us),
        )


class CredentialRefused(Struct, frozen=True):
    """The credential is flagged, unless it was replaced since."""

    provider_id: int
    status: int
    at_us: int

    def write(self) -> None:
        at = _moment(self.at_us)
        kept = Credential.objects.filter(provider_id=self.provider_id, updated_at__lte=at)
        kept.update(refused_at=at, refused_status=self.status)


class CredentialAccepted(Struct, frozen=True):
    """The flag goes."""

    provider_id: int

    def write(self) -> None:
        flagged = Credential.objects.filter(provider_id=self.provider_id).exclude(refused_at=None)
        flagged.update(refused_at=None, refused_status=None)


class DatabaseNews:
    """A thread that writes what the relay tells, in the order in which it was told.

    Telling never waits for the database. While that is away what was told is kept and tried again,
    up to `most` pieces; then the oldest are dropped, and a log line says how many.
    Is no audit: what people do by hand is written by `gateway.services`, in their own transactions.
    """

    def __init__(
        self, *, most: int = MOST_WAITING, pause_s: float = PAUSE_S, now_s: Callable[[], float] = time.time
    ) -> None:
        self._most, self._pause_s, self._now_s = most, pause_s, now_s
        self._lock = threading.Lock()  # held for a few list operations at most, never while writing
        self._waiting: deque[Item] = deque()
        self._dropped = 0
        self._in_hand: Item | None = None
        self._failures = 0
        self._tidied_at_s: float | None = None
        self._told = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="news", daemon=True)

    def __repr__(self) -> str:
        away = ", database away" if self.behind else ""
        return f"<DatabaseNews {self._unwritten()} waiting{away}>"

    @property
    def behind(self) -> bool:
        """The database does not take what was told."""
        return self._failures > 0

    def breaker_changed(self, target: Target, change: Change) -> None:
        self._tell(Changed(target.id, target.provider, target.upstream_model, change))

    def credential_refused(self, target: Target, status: int) -> None:
        self._tell(CredentialRefused(target.provider_id, status, int(self._now_s() * 1_000_000)))

    def credential_accepted(self, target: Target) -> None:
        self._tell(CredentialAccepted(target.provider_id))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write what there is, once, and end. What the database does not take then is lost, and said."""
        self._stopping.set()
        self._told.set()
        self._thread.join()

    def _tell(self, item: Item) -> None:
        with self._lock:
            if len(self._waiting) >= self._most:
                self._waiting.popleft()
                self._dropped += 1
            self._waiting.append(item)
        self._told.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._round()
            self._rest()
        self._round()
        if lost := self._unwritten():
            log.error("%d pieces of news are lost: the database did not take them before the end", lost)
        connection.close()

    def _rest(self) -> None:
        if self.behind:
            self._stopping.wait(self._pause())
        elif not self._stopping.is_set():  # else `stop` may have told before the round forgot it
            self._told.wait(LOOK_EVERY_S)

    def _unwritten(self) -> int:
        return len(self._waiting) + (self._in_hand is not None)

    def _pause(self) -> float:
        return min(self._pause_s * float(2**self._failures), LONGEST_PAUSE_S)

    def _round(self) -> None:
        """Write all there is; after a failure the rest is tried again later."""
        self._told.clear()
        try:
            while self._take():
                self._write()
            self._tidy()
            self._failures = 0
        except DatabaseTrouble as why:
            self._failed()
            log.warning("the database does not take the news, it is kept: %s", why)
        except Exception:  # the thread's outermost edge: later news must still be written
            self._failed()
            log.exception("the news could not be written")

    def _failed(self) -> None:
        self._failures = min(self._failures + 1, 10)
        connection.close()  # the next round makes a fresh one

    def _take(self) -> bool:
        """Have the next piece in hand, or the one that could not be written before. False: there is none."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
            if self._in_hand is None and self._waiting:
                self._in_hand = self._waiting.popleft()
        if dropped:
            log.error("%d pieces of news were dropped, the oldest: more than %d waited", dropped, self._most)
        return self._in_hand is not None

    def _write(self) -> None:
        """Raises django.db.Error, with the piece still in hand. One that can never be written is left out."""
        assert self._in_hand is not None
        try:
            with transaction.atomic():
                self._in_hand.write()
        except UNWRITABLE as why:
            log.error("a piece of news cannot be written, and is left out (%s): %r", why, self._in_hand)
        self._in_hand = None

    def _tidy(self) -> None:
        """Once a day, take what is too old off the timeline."""
        now_s = self._now_s()
        if self._tidied_at_s is None or now_s - self._tidied_at_s >= TIDY_EVERY_S:
            oldest = datetime.fromtimestamp(now_s, UTC) - TIMELINE_KEPT_FOR
            BreakerChange.objects.filter(at__lt=oldest).delete()
            self._tidied_at_s = now_s


class SharedNews:
    """Writes what the relay tells, and says to other processes what breakers did by themselves."""

    def __init__(self, written: DatabaseNews, say: Callable[[int, Change], None]) -> None:
        """`say` is given a target's id and the change; it must not wait."""
        self._written, self._say = written, say

    def breaker_changed(self, target: Target, change: Change) -> None:
        self._written.breaker_changed(target, change)
        if change.after != "half_open":  # of that every process is its own judge
            self._say(target.id, change)

    def credential_refused(self, target: Target, status: int) -> None:
        self._written.credential_refused(target, status)

    def credential_accepted(self, target: Target) -> None:
        self._written.credential_accepted(target)


def _moment(at_us: int) -> datetime:
    return EPOCH + timedelta(microseconds=at_us)
