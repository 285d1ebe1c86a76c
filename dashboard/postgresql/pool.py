"""The connections of one process to its database.

psycopg's own pool connects in threads of its own: whoever waits for one learns nothing of a refusal
until its time is over, and after an outage the next try may be half a minute away.
Here whoever needs a connection makes it, so that an outage is an error at once, and over when it is over.
"""

import os
import select
import threading
import time
from collections.abc import Callable
from typing import NamedTuple
from weakref import WeakSet

from psycopg import OperationalError
from psycopg.pq import TransactionStatus

from dashboard.postgresql.wire import Wire

AGAIN_AFTER_S = 0.5
"""So long after it could not be connected to, the database is not tried again: a page in a queue of pages
would wait for each of those before it."""
LIVES_S = 1800.0
"""Then a connection makes room for a fresh one: a server's process keeps what it once cached."""
LOOK_S = 0.5
"""How often those who wait look for a connection that was lost with its borrower."""
TRY_S = 60.0
"""Longer than one try to connect takes."""
RESTS_S = 300.0
"""An idle one is closed after as long."""


class Idle(NamedTuple):
    """A connection that nobody needs, and since when."""

    wire: Wire
    since_s: float


class Pool:
    """At most `most` connections, lent to one thread at a time. The last one given back is lent first.

    A connection whose borrower was lost with it makes room for another.
    Does not decide how to connect: `connect` raises psycopg.OperationalError.
    """

    def __init__(
        self,
        connect: Callable[[], Wire],
        most: int,
        wait_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`wait_s` is how long somebody waits for one of `most` to be given back."""
        self._connect, self._most, self._wait_s, self._clock = connect, most, wait_s, clock
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._idle: list[Idle] = []
        self._lent: WeakSet[Wire] = WeakSet()
        self._making = 0
        self._away: OperationalError | None = None
        self._again_at_s = 0.0

    def __repr__(self) -> str:
        away = ", database away" if self._away else ""
        return f"<Pool {len(self._lent)} of {self._most} connections lent, {len(self._idle)} idle{away}>"

    def open(self) -> None:
        """Nothing to do: the first connection is made when it is asked for."""

    def close(self) -> None:
        """End the idle ones. What is lent is closed when it is given back."""
        with self._changed:
            idle, self._idle = self._idle, []
            self._lent.clear()
        for each in idle:
            each.wire.close()

    def getconn(self) -> Wire:
        """A connection that is alive, as far as its socket tells. Raises psycopg.OperationalError."""
        if self._process != os.getpid():
            self._begin()  # a forked process may not talk on its parent's connections
        self._take_place()
        try:
            wire = self._kept() or self._made()
        except BaseException:
            self._leave_place(None)
            raise
        self._leave_place(wire)
        return wire

    def putconn(self, wire: Wire) -> None:
        """Give it back. One that is broken, old, or in the middle of something is closed."""
        now_s = self._clock()
        with self._changed:
            is_kept = wire in self._lent and _is_fit(wire, now_s)
            self._lent.discard(wire)
            over = self._over(now_s)
            if is_kept:
                self._idle.append(Idle(wire, now_s))
            else:
                over.append(wire)
            self._changed.notify()
        for each in over:
            each.close()

    def _over(self, now_s: float) -> list[Wire]:
        """Take out those that have rested for too long."""
        over = [each.wire for each in self._idle if now_s - each.since_s >= RESTS_S]
        if over:
            self._idle = [each for each in self._idle if now_s - each.since_s < RESTS_S]
        return over

    def _take_place(self) -> None:
        ends_at_s = self._clock() + self._wait_s
        with self._changed:
            while self._making + len(self._lent) >= self._most:
                if (left_s := ends_at_s - self._clock()) <= 0:
                    raise OperationalError(f"all {self._most} connections to the database are in use")
                self._changed.wait(min(left_s, LOOK_S))
            self._making += 1

    def _leave_place(self, wire: Wire | None) -> None:
        with self._changed:
            self._making -= 1
            if wire is not None:
                self._lent.add(wire)
            else:
                self._changed.notify()

    def _kept(self) -> Wire | None:
        while True:
            with self._changed:
                if not self._idle:
                    return None
                wire = self._idle.pop().wire
            if _is_fit(wire, self._clock()):
                return wire
            wire.close()

    def _made(self) -> Wire:
        """A new one. While the database is away one thread at a time finds out whether it still is."""
        self._raise_while_away()
        try:
            wire = self._connect()
        except OperationalError as why:
            with self._changed:
                self._away, self._again_at_s = why, self._clock() + AGAIN_AFTER_S
            raise
        with self._changed:
            self._away = None
        wire.born_at_s = self._clock()
        wire._pool = self  # where Django looks for it
        return wire

    def _raise_while_away(self) -> None:
        with self._changed:
            if self._away is None:
                return
            now_s = self._clock()
            if now_s < self._again_at_s:
                raise OperationalError(str(self._away))
            self._again_at_s = now_s + TRY_S


def _is_fit(wire: Wire, now_s: float) -> bool:
    """It is open, at rest and young, and the server has said nothing on it that was not asked: goodbye."""
    return (
        not wire.closed
        and wire.pgconn.transaction_status == TransactionStatus.IDLE
        and now_s - wire.born_at_s < LIVES_S
        and not _is_readable(wire.fileno())
    )


def _is_readable(number: int) -> bool:
    waiting = select.poll()
    waiting.register(number, select.POLLIN)
    return bool(waiting.poll(0))
