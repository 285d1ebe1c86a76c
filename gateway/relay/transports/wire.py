"""One connection as httpcore2 wants it: bytes in, bytes out."""

import asyncio
import errno
import ssl
from collections.abc import Callable
from typing import Any, cast

import httpcore2

LARGEST_READ = 64 * 1024


class Wire(asyncio.Protocol, httpcore2.AsyncNetworkStream):
    """A connection on which a cancelled call leaves nothing half-said.

    What is written is handed to the event loop whole, before anything is awaited: with several calls on one
    HTTP/2 connection, a frame cut short by one would end them all.
    Silence is not bounded here, but by the lifeline; what is not taken, by the kernel (see `tune`).
    """

    def __init__(self, on_lost: "Callable[[Wire], None]") -> None:
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._unread = bytearray()
        self._ended = False
        self._lost: Exception | None = None
        self._reader: asyncio.Future[None] | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What has come, at least a byte; empty at the end. Raises httpcore2.ReadError, WriteTimeout."""
        if not self._unread and not self._ended:
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        if not self._unread and self._lost is not None:
            raise _why(self._lost, httpcore2.ReadError)
        return self.take(max_bytes)

    def take(self, max_bytes: int = LARGEST_READ) -> bytes:
        """What has come already, if anything."""
        taken = bytes(self._unread[:max_bytes])
        del self._unread[:max_bytes]
        if self._transport is not None and len(self._unread) < LARGEST_READ:
            self._transport.resume_reading()
        return taken

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send it all. Raises httpcore2.WriteError, WriteTimeout, where the connection is gone.

        Waits for nothing: a body is in memory already, and an answer that comes early is read meanwhile.
        """
        if self._transport is None:
            raise _why(self._lost, httpcore2.WriteError)
        self.say(buffer)

    def say(self, buffer: bytes) -> None:
        """Hand bytes to the event loop. Says nothing where the connection is gone: a reader will find out."""
        if self._transport is not None and buffer:
            self._transport.write(buffer)

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        """End the connection now. What was not read is dropped, and no farewell is waited for."""
        if self._transport is not None:
            self._transport.abort()
        self._ended = True

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        raise NotImplementedError("a connection is made with TLS or without, see dial()")

    def get_extra_info(self, info: str) -> Any:
        """`is_readable` is asked about idle connections: whether something was heard on it."""
        if info == "is_readable":
            return self.was_heard
        return None if self._transport is None else self._transport.get_extra_info(info)

    @property
    def was_heard(self) -> bool:
        """Bytes came that nobody read, or the end."""
        return bool(self._unread) or self._ended

    @property
    def has_ended(self) -> bool:
        return self._ended

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's only behaves like one

    def data_received(self, data: bytes) -> None:
        self._unread += data
        if len(self._unread) >= LARGEST_READ and self._transport is not None:
            self._transport.pause_reading()
        self._wake_reader()

    def eof_received(self) -> None:
        self._ended = True
        self._wake_reader()

    def connection_lost(self, why: Exception | None) -> None:
        self._ended, self._lost, self._transport = True, why, None
        self._wake_reader()
        self._on_lost(self)

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


def _why(lost: Exception | None, otherwise: type[Exception]) -> Exception:
    if isinstance(lost, OSError) and lost.errno == errno.ETIMEDOUT:
        return httpcore2.WriteTimeout(lost)
    return otherwise(lost)
