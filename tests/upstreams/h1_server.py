"""A provider's stand-in that speaks HTTP/1.1, with TLS or without. See `tests.upstreams.upstream`.

Of its own it adds `raw`: bytes as they are.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from tests.upstreams.upstream import Connection, Exchange, Step, Upstream, answer, listening

NAMES = ("localhost", "127.0.0.1")


class H1Exchange(Exchange):
    """A request on a connection of its own, for as long as it takes."""

    def __init__(
        self, server: "_H1Protocol", request_line: str, headers: list[tuple[str, str]], body: bytes
    ) -> None:
        super().__init__(server.connection, headers, body)
        self._server, self.request_line = server, request_line

    async def begin(self, status: int = 200, headers: dict[str, str] | None = None) -> None:
        lines = [f"HTTP/1.1 {status} It", "transfer-encoding: chunked"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.raw("\r\n".join([*lines, "", ""]).encode())

    async def send(self, data: bytes) -> None:
        if data:  # an empty chunk would end the body
            self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    async def end(self) -> None:
        self.raw(b"0\r\n\r\n")

    async def reset(self) -> None:
        self._server.transport.abort()

    async def close(self) -> None:
        """End the connection in good order."""
        self._server.transport.close()

    @property
    def unsent_bytes(self) -> int:
        """What the client has not taken."""
        return self._server.transport.get_write_buffer_size()

    def raw(self, data: bytes) -> None:
        if not self.left.is_set():
            self._server.transport.write(data)


class _H1Protocol(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._unread = b""
        self._exchange: H1Exchange | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.connection: Connection = self._upstream.connected()

    def data_received(self, data: bytes) -> None:
        self._unread += data
        self._go_on()

    def _go_on(self) -> None:
        if self._exchange is None and (request := self._request()) is not None:
            self._exchange = request
            self._upstream.perform(request).add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._exchange = None
        self._go_on()

    def _request(self) -> H1Exchange | None:
        head, found, rest = self._unread.partition(b"\r\n\r\n")
        if not found:
            return None
        line, *fields = head.decode("latin-1").split("\r\n")
        headers = [(name, value.strip()) for name, _, value in (each.partition(":") for each in fields)]
        length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
        if len(rest) < length:
            return None
        self._unread = rest[length:]
        return H1Exchange(self, line, headers, rest[:length])

    def connection_lost(self, why: Exception | None) -> None:
        self.connection.closed.set()
        if self._exchange is not None:
            self._exchange.left.set()


def raw(*parts: bytes, then_close: bool = False) -> Step:
    """Answer with these bytes, each written on its own."""

    async def step(exchange: H1Exchange) -> None:
        for part in parts:
            exchange.raw(part)
            await asyncio.sleep(0)
        if then_close:
            await exchange.reset()

    return step


@asynccontextmanager
async def h1_upstream(*, tls: bool = False, names: tuple[str, ...] = NAMES) -> AsyncIterator[Upstream]:
    """A running stand-in."""
    upstream = Upstream(answer())
    async with listening(upstream, lambda: _H1Protocol(upstream), ["http/1.1"], tls=tls, names=names):
        yield upstream
