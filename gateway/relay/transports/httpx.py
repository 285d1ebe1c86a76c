"""The second transport: httpcore2, the engine of httpx2, for HTTP/1.1 and HTTP/2.

The engine's connections are used without the client and the pool around them: neither redirects, cookies,
decompression nor the environment's proxies can come in, and the relay counts places itself.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
from typing import Any, cast

import h2.errors
import h2.events
import h2.exceptions
import httpcore2

from gateway.relay.catalog import Target
from gateway.relay.transports import Broken, TooLarge, TransportError, WriteTimedOut
from gateway.relay.transports.addresses import CheckedResolver
from gateway.relay.transports.connecting import dial, no_connection, trust
from gateway.relay.transports.connections import Connection, Connections
from gateway.relay.transports.pool import Pool
from gateway.relay.transports.reach import PooledTransport, Reach
from gateway.relay.transports.request import endpoint, headers_to
from gateway.relay.transports.wire import Wire

TRIES = 3
"""Connections that may refuse a request unseen, as HTTP/2 lets them when they end, before we give up."""
ENGINE_FAILURES = (
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.TimeoutException,
    httpcore2.ConnectionNotAvailable,
    h2.exceptions.H2Error,
)


class HttpxTransport(PooledTransport):
    """Every target by httpcore2, whatever its own wish."""

    def __init__(self, *, allow_private: bool = True) -> None:
        super().__init__(partial(HttpxReach, allow_private=allow_private))


class HttpxReach(Reach):
    """The connections to one target, and the headers of every request."""

    def __init__(self, target: Target, pool: Pool, *, allow_private: bool) -> None:
        super().__init__(target, pool)
        url = endpoint(target, allow_private=allow_private)
        self._url = httpcore2.URL(str(url))
        self._host, self._port = url.raw_host or "", url.port or 0
        self._alpn = _alpn(url.scheme, target.pool.http2)
        self._resolver = CheckedResolver(allow_private=allow_private)
        self._headers = [(name.encode(), value.encode()) for name, value in headers_to(target).items()]
        self._headers.append((b"Host", (url.host_port_subcomponent or "").encode()))
        self._connections = Connections(self._url.origin, target.pool, pool, self._connect)
        self._leaving: set[asyncio.Task[None]] = set()

    async def send(self, call_id: str, body: bytes, /) -> "HttpxAnswer":
        pool = self.pool
        pool.requests += 1
        try:
            response, connection = await self._ask(self._request(call_id, body))
        except BaseException as why:
            self.release()
            if isinstance(why, (*ENGINE_FAILURES, OSError, TransportError)):
                raise pool.count(_translated(why)) from None
            raise
        pool.answers += 1
        pool.http_version = response.extensions["http_version"].decode().removeprefix("HTTP/")
        return HttpxAnswer(response, connection, self)

    def idle(self) -> int:
        return self._connections.idle()

    async def close(self) -> None:
        self._connections.close()
        await asyncio.gather(*self._leaving)

    def end(self, connection: Connection) -> None:
        """The call that had this connection is over."""
        self._connections.give_back(connection)
        self.release()

    def leave(self, answer: "HttpxAnswer") -> None:
        """End an answer that was not read to its end. A task: the engine's own ending is a coroutine."""
        task = asyncio.ensure_future(answer.leave())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def _request(self, call_id: str, body: bytes) -> httpcore2.Request:
        own = [(b"X-Request-Id", call_id.encode()), (b"Content-Length", b"%d" % len(body))]
        return httpcore2.Request("POST", self._url, headers=[*self._headers, *own], content=body)

    async def _ask(self, request: httpcore2.Request) -> tuple[httpcore2.Response, Connection]:
        for _ in range(TRIES):
            connection = await self._connections.take()
            try:
                return await connection.handle_async_request(request), connection
            except BaseException as why:
                self._connections.give_back(connection)
                if not _was_unseen(why):
                    raise
        raise _took_none()

    async def _connect(self, on_lost: Callable[[Wire], None]) -> Wire:
        pool = self.target.pool
        async with asyncio.timeout(pool.connect_timeout_s):
            context = await trust(self.target.ca_pem, self._alpn) if self._alpn else None
            return await dial(
                lambda: Wire(on_lost), self._host, self._port, context, self._resolver, pool.write_timeout_s
            )


class HttpxAnswer:
    """One answer; owns its place in the pool until closed."""

    __slots__ = (
        "_closed",
        "_connection",
        "_ended",
        "_parts",
        "_reach",
        "_stream",
        "content_encoding",
        "content_type",
        "retry_after",
        "retry_after_ms",
        "status",
    )

    def __init__(self, response: httpcore2.Response, connection: Connection, reach: HttpxReach) -> None:
        self._connection, self._reach = connection, reach
        self._closed = self._ended = False
        self._stream = cast(Any, response.stream)  # the engine's own, which can be closed
        self._parts: AsyncGenerator[bytes] = self._stream.__aiter__()
        headers = {name.lower(): value.decode("latin-1") for name, value in response.headers}
        self.status = response.status
        self.content_type = headers.get(b"content-type", "")
        self.content_encoding = headers.get(b"content-encoding", "")
        self.retry_after = headers.get(b"retry-after")
        self.retry_after_ms = headers.get(b"retry-after-ms")

    async def whole(self, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        try:
            async for chunk in self.chunks():
                size += len(chunk)
                if size > limit:
                    raise TooLarge(limit, size)
                parts.append(chunk)
        except Broken as why:
            why.after_bytes, why.came = size > 0, size
            raise
        return b"".join(parts)

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._parts:
                yield chunk
            await self._stream.aclose()
        except ENGINE_FAILURES as why:
            raise self._reach.pool.count(_broke_off(why)) from None
        self._ended = True

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._ended:
                self._reach.end(self._connection)
            else:
                self._reach.leave(self)

    async def leave(self) -> None:
        """End the stream or, with HTTP/1.1, the connection; then give the place back."""
        try:
            await self._parts.aclose()  # where reading had begun
            await self._stream.aclose()  # where it had not
        except ENGINE_FAILURES:
            pass  # over in any case, and the failure was told to whoever was reading
        finally:
            self._reach.end(self._connection)


def _alpn(scheme: str, http2: bool) -> tuple[str, ...]:
    """What is offered in the TLS handshake; empty: there is none."""
    if scheme != "https":
        return ()
    return ("h2", "http/1.1") if http2 else ("http/1.1",)


def _translated(why: BaseException) -> TransportError:
    if isinstance(why, TransportError):
        return why
    if isinstance(why, OSError):
        return no_connection(why)
    if isinstance(why, httpcore2.WriteTimeout):
        return WriteTimedOut("the provider took nothing of what was sent to it for too long")
    return Broken(f"the provider ended the connection without an answer ({_what(why)})")


def _was_unseen(why: BaseException) -> bool:
    """The provider says that it has not acted on the request, so it may be sent again (RFC 9113, 8.7)."""
    if isinstance(why, httpcore2.ConnectionNotAvailable):
        return True
    event = why.args[0] if why.args else None
    return (
        isinstance(event, h2.events.StreamReset) and event.error_code == h2.errors.ErrorCodes.REFUSED_STREAM
    )


def _took_none() -> Broken:
    lost = Broken("the provider ended every connection before it took the request")
    lost.unseen = True
    return lost


def _broke_off(why: BaseException) -> Broken:
    return Broken(f"the provider's answer broke off ({_what(why)})")


def _what(why: BaseException) -> str:
    """What ended it: HTTP/2 says so in a frame, which the engine hands on inside its own exception."""
    event = why.args[0] if why.args else None
    if isinstance(event, h2.events.ConnectionTerminated):
        return f"GOAWAY {_code(event.error_code)}"
    if isinstance(event, h2.events.StreamReset):
        return f"RST_STREAM {_code(event.error_code)}"
    return type(why).__name__


def _code(code: h2.errors.ErrorCodes | int | None) -> str:
    return code.name if isinstance(code, h2.errors.ErrorCodes) else str(code)
