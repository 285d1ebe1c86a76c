"""A small HTTP/1.1 server for the simulator, because ASGI cannot reset a socket and this one can.

Keep-alive, counted and chunked bodies, back-pressure; one request at a time on a connection.
An application finds its `Wire` in `scope["extensions"]["penstock.transport"]`.
TLS where it is given a context. Does not do HTTP/2, WebSockets or ASGI's lifespan.
"""

import asyncio
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from ssl import SSLContext
from typing import cast
from urllib.parse import unquote_to_bytes

from gateway.simulator.app import Simulator
from gateway.simulator.exchange import WIRE, Event, Receive, Scope, Send
from gateway.simulator.http1 import Malformed, Request, RequestReader
from gateway.simulator.journal import Journal
from gateway.simulator.script import Step

logger = logging.getLogger(__name__)

Application = Callable[[Scope, Receive, Send], Awaitable[None]]

BACKLOG = 2048
_LINGER_ZERO = struct.pack("ii", 1, 0)


class Connection(asyncio.Protocol):
    """One client's connection; also the `Wire` that the application may cut it by."""

    def __init__(self, app: Application, open_connections: "set[Connection]") -> None:
        self._app = app
        self._open = open_connections
        self._reader = RequestReader()
        self._transport: asyncio.Transport
        self._loop = asyncio.get_running_loop()
        self._writable = asyncio.Event()
        self._writable.set()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self.task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "gone" if self.gone else "serving" if self.task else "idle"
        return f"<Connection {state}>"

    @property
    def gone(self) -> bool:
        return self._gone.done()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._open.add(self)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        if self.task is None:
            self._serve_next()

    def eof_received(self) -> None:
        """A half-closed connection counts as hung up; returning None closes it."""
        self._hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        self._hang_up()
        self._open.discard(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def write(self, data: bytes) -> None:
        """Hand bytes to the transport; waits for a slow reader. Raises ConnectionResetError."""
        self._check_here()
        self._transport.write(data)
        if not self._writable.is_set():
            await self._writable.wait()
            self._check_here()

    def _check_here(self) -> None:
        if self.gone or self._transport.is_closing():
            raise ConnectionResetError("the client has hung up")

    async def until_gone(self) -> None:
        await asyncio.shield(self._gone)

    def reset(self) -> None:
        if self._transport.is_closing():
            return
        # The option is set through a copy of the descriptor, since not every loop's transport has setsockopt.
        with socket.socket(fileno=os.dup(self._transport.get_extra_info("socket").fileno())) as copy:
            copy.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        self._transport.abort()

    def close(self) -> None:
        self._transport.close()

    def half_close(self) -> None:
        self._transport.write_eof()

    async def stop(self) -> None:
        """Cancel what is being served, then drop the connection."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])
        self._transport.abort()

    def _hang_up(self) -> None:
        self._writable.set()
        if not self._gone.done():
            self._gone.set_result(None)

    def _serve_next(self) -> None:
        try:
            request = self._reader.take()
        except Malformed as why:
            self._transport.write(_refusal(why))
            self._transport.close()
            return
        if request is not None:
            self.task = self._loop.create_task(self._serve(request))
        elif self._reader.awaits_continue:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _serve(self, request: Request) -> None:
        answer = AnswerWriter(self, request)
        try:
            await self._app(_scope(request, self), answer.receive, answer.send)
        except Exception:  # the outermost edge: a bug in the application ends its connection, not the server
            logger.exception("the simulator failed to answer %s", request.head.target)
        self.task = None
        if answer.complete and request.head.keep_alive:
            self._serve_next()
        else:
            self._transport.close()


class AnswerWriter:
    """ASGI's receive and send for one request.

    The head waits for the first part of the body, so that a short answer is one write;
    an empty part sends it ahead.
    """

    def __init__(self, connection: Connection, request: Request) -> None:
        self._connection = connection
        self._request = request
        self._heard = False
        self._head: bytes | None = None
        self._started = False
        self._chunked = False
        self._counted = False
        self.complete = False

    async def receive(self) -> Event:
        if not self._heard:
            self._heard = True
            return {"type": "http.request", "body": self._request.body, "more_body": False}
        await self._connection.until_gone()
        return {"type": "http.disconnect"}

    async def send(self, event: Event) -> None:
        if event["type"] == "http.response.start":
            self._head = _head_bytes(event["status"], event["headers"])
            self._counted = any(name == b"content-length" for name, _ in event["headers"])
            return
        more = bool(event.get("more_body", False))
        data = self._framed(event.get("body", b""), more)
        if self._head is not None:
            data, self._head = self._head + data, None
        await self._connection.write(data)
        self.complete = not more

    def _framed(self, body: bytes, more: bool) -> bytes:
        """The body's bytes with their framing, after the head's last line where it is the first part.

        Where the application counted its body itself, right or wrong, that is the framing.
        """
        if self._started:
            return self._chunks(body, more)
        self._started = True
        closing = b"" if self._request.head.keep_alive else b"connection: close\r\n"
        if self._counted:
            return closing + b"\r\n" + body
        if not more:
            return b"content-length: %d\r\n%b\r\n%b" % (len(body), closing, body)
        self._chunked = self._request.head.minor_version == 1
        framing = b"transfer-encoding: chunked\r\n" if self._chunked else b""
        return framing + closing + b"\r\n" + self._chunks(body, more)

    def _chunks(self, body: bytes, more: bool) -> bytes:
        """HTTP/1.0 knows no chunks: there the end of the connection is the end of the body."""
        if not self._chunked:
            return body
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        return chunk if more else chunk + b"0\r\n\r\n"


class SimulatorServer:
    """Listens, and knows its connections so that it can end them."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._scheme = "http"

    async def start(self, host: str = "127.0.0.1", port: int = 0, tls: SSLContext | None = None) -> None:
        """Raises OSError where the address cannot be had."""
        self._scheme = "http" if tls is None else "https"
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self._app, self._connections), host, port, backlog=BACKLOG, ssl=tls
        )

    @property
    def base_url(self) -> str:
        """What a client is configured with. Only while it listens."""
        assert self._server is not None, "start() comes first"
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{self._scheme}://{f'[{host}]' if ':' in host else host}:{port}/v1"

    async def stop(self) -> None:
        """Take no more connections and end those that are open. Calls in flight are cut."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._connections):
            await connection.stop()
        await self._server.wait_closed()
        self._server = None


class RunningSimulator:
    """A simulator and where to reach it."""

    def __init__(self, simulator: Simulator, server: SimulatorServer) -> None:
        self._simulator = simulator
        self._server = server
        self.base_url = server.base_url
        self.journal = simulator.journal

    def __repr__(self) -> str:
        return f"<RunningSimulator {self.base_url}>"

    def script(self, steps: Sequence[Step]) -> None:
        """Steps for the calls to come, after those that are there already."""
        self._simulator.script.extend(steps)

    def forget_script(self) -> None:
        self._simulator.script.clear()

    async def stop(self) -> None:
        """Go away before the block ends: calls in flight are cut, new connections refused."""
        await self._server.stop()


@asynccontextmanager
async def running_simulator(
    *,
    speed: float = 0.0,
    seed: int = 0,
    journal: Path | str | None = None,
    keep_bodies: bool = False,
    api_key: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: SSLContext | None = None,
) -> AsyncIterator[RunningSimulator]:
    """A simulator that listens while the block runs. Raises OSError for its address or its journal."""
    book = Journal(journal, keep_bodies=keep_bodies)
    simulator = Simulator(speed=speed, seed=seed, journal=book, api_key=api_key)
    server = SimulatorServer(simulator)
    try:
        await server.start(host, port, tls)
        yield RunningSimulator(simulator, server)
    finally:
        await server.stop()
        book.close()


def _scope(request: Request, wire: Connection) -> Scope:
    path, _, query = request.head.target.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": f"1.{request.head.minor_version}",
        "method": request.head.method,
        "scheme": "http",
        "path": unquote_to_bytes(path).decode("utf-8", "replace"),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": list(request.head.headers),
        "client": None,
        "server": None,
        "extensions": {WIRE: wire},
    }


def _head_bytes(status: int, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return b"HTTP/1.1 %d %b\r\n%b" % (status, _reason(status), lines)


def _reason(status: int) -> bytes:
    """Providers use numbers that no registry knows, such as 529."""
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Unregistered"


def _refusal(why: Malformed) -> bytes:
    text = f"{why}\n".encode()
    head = _head_bytes(why.status, [(b"content-type", b"text/plain"), (b"connection", b"close")])
    return head + b"content-length: %d\r\n\r\n%b" % (len(text), text)
