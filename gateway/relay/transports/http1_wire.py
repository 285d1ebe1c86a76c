"""One connection that speaks HTTP/1.1: a request goes out, and what comes is read as its answer."""

import asyncio
import errno
import fcntl
import termios
from collections.abc import Callable
from typing import cast

from gateway.relay.transports.http1_reading import NotHttp, Reading

LARGEST_UNREAD = 64 * 1024
"""Bytes of a body that wait for their reader; the provider has to wait with the rest."""
LARGEST_UNREAD_TLS = 1 << 20
"""The same with TLS: uvloop drops what it has not decrypted where the end comes while nothing is read."""
LARGEST_AT_ONCE = 1 << 20
"""A larger body is written in parts, or it would hold up every other call for milliseconds."""
PART = 256 * 1024
_NOTHING = bytes(4)
"""An `int` of the kernel's."""


class ConnectionClosed(Exception):
    """The connection ended, without an error, before the answer did."""


class NotTaken(Exception):
    """The far end did not take all of what was sent to it, for too long."""


class Incoming(Reading):
    """The answer to one request, and who waits for it."""

    __slots__ = ("_loop", "_waiter", "lost", "most_unread")

    def __init__(self, loop: asyncio.AbstractEventLoop, most_unread: int) -> None:
        super().__init__()
        self.most_unread = most_unread
        """How many bytes of the body may wait for the reader."""
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None
        self.lost: Exception | None = None
        """Why no more of it will come; what came before may still be read."""

    def more(self) -> "asyncio.Future[None]":
        """Done when something has come, or nothing will. One reader at a time."""
        self._waiter = waiter = self._loop.create_future()
        return waiter

    def wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def fail(self, why: Exception) -> None:
        """Nothing more will come. Does nothing where all has come."""
        if not self.over and self.lost is None:
            self.lost = why
        self.wake()


class Wire(asyncio.Protocol):
    """A connection, with one call at a time.

    Silence is not bounded here, but by the lifeline; what is not taken, by the kernel (see `tune`).
    """

    __slots__ = (
        "_fd",
        "_incoming",
        "_is_full",
        "_is_paused",
        "_loop",
        "_most_unread",
        "_on_lost",
        "_rest",
        "_transport",
        "_why_lost",
        "idle_since",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, on_lost: "Callable[[Wire], None]") -> None:
        self._loop, self._on_lost = loop, on_lost
        self._transport: asyncio.Transport | None = None
        self._incoming: Incoming | None = None
        self._why_lost: Exception | None = None
        self._is_paused = self._is_full = False
        self._fd, self._most_unread = -1, LARGEST_UNREAD
        self._rest: memoryview | None = None
        """Of a large body: what is still to be written."""
        self.idle_since = 0.0
        """When its last call ended, by the monotonic clock, in seconds."""

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def was_heard(self) -> bool:
        """The kernel has bytes that nobody asked for. Asked of an open connection before it is used again."""
        return fcntl.ioctl(self._fd, termios.FIONREAD, _NOTHING) != _NOTHING

    def ask(self, head: bytes, body: bytes) -> Incoming:
        """Send a request. Never waits: a body is in memory already, and an early answer is read meanwhile."""
        self._incoming = incoming = Incoming(self._loop, self._most_unread)
        transport = self._transport
        if transport is None:
            incoming.fail(self._why_lost or ConnectionClosed())
        elif len(body) < LARGEST_AT_ONCE:
            transport.write(head + body)
        else:
            transport.write(head)
            self._rest = memoryview(body)
            self._write_on()
        return incoming

    def go_on(self) -> None:
        """What had come was taken."""
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()

    def let_go(self) -> bool:
        """The call is over. True: the connection can carry another; else it is closed."""
        if self._incoming is None or not self._incoming.can_be_followed or not self._has_sent_all:
            self.close()
            return False
        self._incoming = None
        return True

    @property
    def _has_sent_all(self) -> bool:
        """It is open, and not much of the request is left that the provider has not taken."""
        return self._transport is not None and self._rest is None and not self._is_full

    def close(self) -> None:
        """End the connection now. No farewell is waited for. May be called twice."""
        transport, self._transport, self._rest = self._transport, None, None
        if transport is not None:
            transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's only behaves like one
        self._fd = transport.get_extra_info("socket").fileno()
        if transport.get_extra_info("sslcontext") is not None:
            self._most_unread = LARGEST_UNREAD_TLS

    def data_received(self, data: bytes) -> None:
        incoming = self._incoming
        if incoming is None:
            self.close()  # nobody asked for it
            return
        try:
            incoming.feed(data)
        except NotHttp as why:
            incoming.fail(why.with_traceback(None))  # whose frames lead to `incoming`
            self.close()
            return
        if incoming.over:
            if incoming.has_surplus:
                self.close()
        elif incoming.unread >= incoming.most_unread and self._transport is not None and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()
        incoming.wake()

    def eof_received(self) -> None:
        """The provider's own end, which may be the answer's too; one that we made ourselves never is."""
        if self._incoming is not None:
            self._incoming.end()
            self._incoming.fail(ConnectionClosed())
        self.close()

    def connection_lost(self, why: Exception | None) -> None:
        if isinstance(why, OSError) and why.errno == errno.ETIMEDOUT:
            why = ConnectionClosed() if self._was_all_taken() else NotTaken()
        self._why_lost, self._transport, self._rest = why, None, None
        if self._incoming is not None:
            self._incoming.fail(why or ConnectionClosed())
        self._on_lost(self)

    def _was_all_taken(self) -> bool:
        """The far end's kernel has confirmed all that was sent: then it was silence that lasted too long.

        Asked before the socket is closed; SIOCOUTQ (tcp(7)) counts on after the connection's end.
        """
        return self._rest is None and fcntl.ioctl(self._fd, termios.TIOCOUTQ, _NOTHING) == _NOTHING

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._write_on()

    def _write_on(self) -> None:
        """Write the next part, and the others as they are taken, a turn of the loop for each."""
        if self._transport is None or self._rest is None or self._is_full:
            return
        part, rest = self._rest[:PART], self._rest[PART:]
        self._rest = rest if len(rest) else None
        self._transport.write(part)
        if self._rest is not None:
            self._loop.call_soon(self._write_on)
