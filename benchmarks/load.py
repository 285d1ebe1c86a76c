"""Load on one port: bare asyncio connections that send prepared bytes and count whole answers.

Closed loop (`saturate`): every connection sends its next call when it has its answer; shows capacity.
Open loop (`arrive`): calls are due at a fixed rate whatever the answers do, and latency counts from the
moment a call was due, so that a server that stalls is not asked less and praised for it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter as now
from typing import cast

from benchmarks.wire import AnswerReader

PATIENCE_S = 60.0


class NotWhole(Exception):
    """A call was not answered as it should be; nothing measured with it counts."""


@dataclass(slots=True)
class Tally:
    """What came back. Latencies in seconds, one for each call: percentiles of them are exact."""

    answered: int = 0
    in_time: int = 0
    """Answered before sending stopped."""
    seconds: float = 0.0
    """How long calls were sent."""
    events: int = 0
    pieces: int = 0
    latencies: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    """Of each streamed answer, from when it was due to its first piece; in the order of the pieces."""

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.in_time / self.seconds


class Connection(asyncio.Protocol):
    """One kept connection; one call at a time."""

    transport: asyncio.Transport

    def __init__(self, owner: "Connections", number: int) -> None:
        self.owner, self.number = owner, number
        self.reader: AnswerReader | None = None
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes, due: float) -> None:
        self.reader = AnswerReader()
        self.due = due
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        reader = self.reader
        if reader is None:
            self.owner.fail(f"bytes that nobody asked for: {data[:80]!r}")
            return
        began, is_whole = reader.pieces > 0, reader.feed(data)
        if reader.pieces and not began:
            self.owner.began(self)
        if is_whole:
            self.reader = None
            self.owner.ended(self, reader)

    def connection_lost(self, why: Exception | None) -> None:
        if self.reader is not None:
            self.owner.fail("a connection was lost in the middle of a call")


Said = bytes | Sequence[bytes]
"""The request of every call; or requests that are dealt out to the connections, which keep theirs."""


class Connections:
    """So many connections to one port, open inside a `with` block. One run at a time."""

    def __init__(self, port: int, count: int) -> None:
        self.port, self.count = port, count
        self.connections: list[Connection] = []
        self.tally = Tally()
        self._failed: str | None = None
        self._in_flight = 0
        self._over = asyncio.Event()
        """Nothing is in flight, or something went wrong."""
        self._next: Callable[[Connection], None] = lambda _: None
        self._said: Sequence[bytes] = ()

    async def __aenter__(self) -> "Connections":
        loop = asyncio.get_running_loop()
        for number in range(self.count):
            _, new = await loop.create_connection(partial(Connection, self, number), "127.0.0.1", self.port)
            self.connections.append(new)
        return self

    async def __aexit__(self, *_: object) -> None:
        for each in self.connections:
            each.reader = None
            each.transport.abort()

    def streaming(self) -> int:
        """How many have a stream open whose first chunk has come and whose last has not."""
        return sum(each.reader is not None and each.reader.pieces > 0 for each in self.connections)

    async def once(self, said: Said) -> Tally:
        """One call on every connection, all at the same time."""
        self._begin(lambda _: None, said)
        for each in self.connections:
            self._send(each, now())
        return await self._finish()

    async def saturate(self, said: Said, seconds: float) -> Tally:
        """Closed loop for so long; every call that was sent is answered when this returns."""
        stop_at = now() + seconds

        def next_call(connection: Connection) -> None:
            moment = now()
            if moment < stop_at:
                self.tally.in_time += 1
                self._send(connection, moment)

        self._begin(next_call, said)
        self.tally.seconds = seconds
        for each in self.connections:
            self._send(each, now())
        await asyncio.sleep(seconds)
        return await self._finish()

    async def arrive(self, said: Said, rate: float, seconds: float) -> Tally:
        """Open loop: `rate` calls a second, evenly spaced; one that finds no free connection waits."""
        free = deque(self.connections)
        waiting: deque[float] = deque()

        def next_call(connection: Connection) -> None:
            if waiting:
                self._send(connection, waiting.popleft())
            else:
                free.append(connection)

        self._begin(next_call, said)
        self.tally.seconds = seconds
        began = now()
        for number in range(int(rate * seconds)):
            due = began + number / rate
            if (early_s := due - now()) > 0:
                await asyncio.sleep(early_s)
            if free:
                self._send(free.popleft(), due)
            else:
                waiting.append(due)
        return await self._finish()

    def _begin(self, next_call: Callable[[Connection], None], said: Said) -> None:
        self.tally, self._next = Tally(), next_call
        self._said = [said] if isinstance(said, bytes) else said

    def _send(self, connection: Connection, due: float) -> None:
        self._in_flight += 1
        self._over.clear()
        connection.send(self._said[connection.number % len(self._said)], due)

    async def _finish(self) -> Tally:
        """Wait for what is in flight. Raises NotWhole."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._over.wait()
        except TimeoutError:
            self.fail(f"{self._in_flight} calls were not answered within {PATIENCE_S:g} s")
        if self._failed:
            raise NotWhole(self._failed)
        return self.tally

    def began(self, connection: Connection) -> None:
        """The first piece of a streamed answer has come."""
        self.tally.first_s.append(now() - connection.due)

    def ended(self, connection: Connection, reader: AnswerReader) -> None:
        """An answer is whole."""
        tally = self.tally
        self._in_flight -= 1
        tally.answered += 1
        tally.pieces += reader.pieces
        tally.latencies.append(now() - connection.due)
        if reader.status != 200:
            self.fail(f"status {reader.status}: {reader.body[:300]!r}")
        elif reader.pieces:
            tally.events += reader.events()
        self._next(connection)
        if not self._in_flight:
            self._over.set()

    def fail(self, why: str) -> None:
        self._failed = self._failed or why
        self._over.set()
