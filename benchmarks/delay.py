"""A line with a length: a TCP proxy that delivers everything later, connections included."""

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast


class Delayed:
    """What one end says reaches the other so much later, in order.

    Does not bound what is under way: meant for short requests and answers.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, delay_s: float, ready_at_s: float) -> None:
        self._loop, self._delay_s, self._ready_at_s = loop, delay_s, ready_at_s
        self._under_way: deque[tuple[float, Callable[[], None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def deliver(self, act: Callable[[], None]) -> None:
        """Do it when it has travelled; not before the connection would have been made."""
        due_s = max(self._loop.time(), self._ready_at_s) + self._delay_s
        self._under_way.append((due_s, act))
        if self._timer is None:
            self._timer = self._loop.call_at(due_s, self._arrive)

    def _arrive(self) -> None:
        self._timer = None
        while self._under_way and self._under_way[0][0] <= self._loop.time():
            self._under_way.popleft()[1]()
        if self._under_way:
            self._timer = self._loop.call_at(self._under_way[0][0], self._arrive)


class End(asyncio.Protocol):
    """One end of a connection through the line; what it hears is said at the other."""

    def __init__(self, line: "Line", delayed: Delayed) -> None:
        self._line, self._delayed = line, delayed
        self.other: End | None = None
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._line.ends.add(self)
        for data in self._early:
            self._transport.write(data)
        if self._ended:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._delayed.deliver(lambda: self._at_other(data))

    def connection_lost(self, exc: Exception | None) -> None:
        self._line.left(self)
        self._delayed.deliver(self._close_other)

    def _at_other(self, data: bytes) -> None:
        if self.other is not None:
            self.other.say(data)

    def _close_other(self) -> None:
        if self.other is not None:
            self.other.end()

    def say(self, data: bytes) -> None:
        if self._transport is None:
            self._early.append(data)
        elif not self._transport.is_closing():
            self._transport.write(data)

    def end(self) -> None:
        self._ended = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Line:
    """Listens on loopback and leads to another port there; one way takes `delay_s`.

    A kernel makes connections at once, so a new one's first bytes wait for a round trip instead:
    what comes back comes when it would have come.
    """

    def __init__(self, to_port: int, delay_s: float) -> None:
        self._to_port, self._delay_s = to_port, delay_s
        self.ends: set[End] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._last_left = asyncio.Event()

    def accepted(self) -> End:
        """The near end of a new connection; the far one is made meanwhile."""
        loop = asyncio.get_running_loop()
        near = End(self, Delayed(loop, self._delay_s, loop.time() + 2 * self._delay_s))
        far = End(self, Delayed(loop, self._delay_s, loop.time()))
        near.other, far.other = far, near
        connecting = loop.create_task(self._connect(near, far))
        self._connecting.add(connecting)
        connecting.add_done_callback(self._connecting.discard)
        return near

    async def _connect(self, near: End, far: End) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: far, "127.0.0.1", self._to_port)
        except OSError as why:
            print(f"the line leads nowhere: {why}", file=sys.stderr)
            near.end()

    async def stop(self) -> None:
        """Cut every connection, and return when none is left."""
        self._last_left.clear()
        for connecting in self._connecting:
            connecting.cancel()
        for end in self.ends:
            end.abort()
        if self.ends:
            await self._last_left.wait()

    def left(self, end: End) -> None:
        """One end is closed."""
        self.ends.discard(end)
        if not self.ends:
            self._last_left.set()


@asynccontextmanager
async def line(to_port: int, delay_s: float, port: int = 0) -> AsyncIterator[int]:
    """A line while the block runs; the port of its near end. Raises OSError where that is taken."""
    laid = Line(to_port, delay_s)
    server = await asyncio.get_running_loop().create_server(laid.accepted, "127.0.0.1", port, backlog=1024)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await laid.stop()
        await server.wait_closed()
