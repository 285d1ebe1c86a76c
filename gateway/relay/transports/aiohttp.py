"""A library in place of `http1`: aiohttp, one session a target.

aiohttp's own limits and timeouts are off where the relay has its own:
places are counted by the pool, silence and deadlines are the lifeline's.
"""

import asyncio
import errno
import io
import ssl
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpVersion10
from multidict import CIMultiDict

from gateway.relay.catalog import PoolConfig, Target
from gateway.relay.transports import (
    Broken,
    CannotConnect,
    TooLarge,
    TransportError,
    WriteTimedOut,
)
from gateway.relay.transports.addresses import CheckedResolver
from gateway.relay.transports.connecting import no_connection, trust, tune
from gateway.relay.transports.pool import Pool
from gateway.relay.transports.reach import PooledTransport, Reach
from gateway.relay.transports.request import endpoint, headers_to

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.tracing import Trace

LARGEST_READ = 64 * 1024
LARGEST_AT_ONCE = 1 << 20
"""A larger body is written in parts, or it would hold up every other call for milliseconds."""
RESTED_S = 1.0
"""A connection counts as idle after this: under load, a turn of the loop frees many and takes them again."""
NO_ROUNDING = 1e9


class AiohttpTransport(PooledTransport):
    """Every target by aiohttp, whatever its own wish."""

    def __init__(self, *, allow_private: bool = True) -> None:
        super().__init__(partial(AiohttpReach, allow_private=allow_private))


class AiohttpReach(Reach):
    """One session, with the headers of every request."""

    def __init__(self, target: Target, pool: Pool, *, allow_private: bool) -> None:
        super().__init__(target, pool)
        self._url = endpoint(target, allow_private=allow_private)
        self._connector = _Connector(target.pool, pool, CheckedResolver(allow_private=allow_private))
        self._session = _session(target, self._connector)
        self._trust: ssl.SSLContext | None = None

    async def send(self, call_id: str, body: bytes, /) -> "AiohttpAnswer":
        pool = self.pool
        pool.requests += 1
        try:
            response = await self._session.post(
                self._url,
                data=body if len(body) < LARGEST_AT_ONCE else io.BytesIO(body),
                headers={"X-Request-Id": call_id},
                allow_redirects=False,
                # aiohttp's own context trusts the system's certificates, and is made already
                ssl=(self._trust or await self._private_trust()) if self.target.ca_pem else True,
            )
        except BaseException as why:
            self.release()
            if isinstance(why, aiohttp.ClientError | OSError | ValueError | TransportError):
                raise pool.count(_translated(why)) from None
            raise
        pool.answers += 1
        pool.http_version = "1.0" if response.version == HttpVersion10 else "1.1"
        return AiohttpAnswer(response, self)

    def idle(self) -> int:
        return self._connector.idle()

    async def close(self) -> None:
        await self._session.close()

    async def _private_trust(self) -> ssl.SSLContext:
        try:
            made = await trust(self.target.ca_pem)
        except CannotConnect:
            self.pool.connects += 1  # one that got no further than this
            raise
        self._trust = self._trust or made  # one for all: aiohttp keeps connections apart by it
        return self._trust


class AiohttpAnswer:
    """One answer; owns its place in the pool until closed."""

    __slots__ = (
        "_closed",
        "_reach",
        "_response",
        "content_encoding",
        "content_type",
        "retry_after",
        "retry_after_ms",
        "status",
    )

    def __init__(self, response: aiohttp.ClientResponse, reach: AiohttpReach) -> None:
        self._response, self._reach, self._closed = response, reach, False
        get = response.headers.get
        self.status = response.status
        self.content_type: str = get("Content-Type", "")
        self.content_encoding: str = get("Content-Encoding", "")
        self.retry_after: str | None = get("Retry-After")
        self.retry_after_ms: str | None = get("Retry-After-Ms")

    async def whole(self, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        readany = self._response.content.readany
        try:
            while chunk := await readany():
                size += len(chunk)
                if size > limit:
                    raise TooLarge(limit, size)
                parts.append(chunk)
        except (aiohttp.ClientError, OSError) as why:
            raise self._broke_off(why, size) from None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def chunks(self) -> AsyncIterator[bytes]:
        content = self._response.content
        try:
            while chunk := await content.readany():
                yield chunk
        except (aiohttp.ClientError, OSError) as why:
            raise self._broke_off(why) from None

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._response.close()  # its connection too, unless the end of the body gave that back
            self._reach.release()

    def _broke_off(self, why: Exception, came: int = 0) -> Broken:
        """To be raised where it is kept in no name: it would lead to the frame, and the frame to it."""
        broken = Broken(f"the provider's answer broke off ({type(why).__name__})")
        broken.after_bytes, broken.came = came > 0, came
        self._reach.pool.count(broken)
        return broken


class _Wire(ResponseHandler):
    """A connection. One on which an answer came that nobody asked for is not handed on to the next call."""

    def is_connected(self) -> bool:
        """Asked before an idle connection is used again.

        What the kernel has and the loop has not read yet is missed; asking for it would cost 3 us a call.
        """
        return not self._buffer and super().is_connected()


class _Connector(aiohttp.TCPConnector):
    """Also counts connections, and keeps no more idle ones than asked.

    aiohttp has no public seam for these, so some of its inner parts are taken up here and in `_Wire`.
    The contract tests notice if a new aiohttp uses them no longer.
    """

    def __init__(self, config: PoolConfig, pool: Pool, resolver: CheckedResolver) -> None:
        super().__init__(limit=0, keepalive_timeout=config.keepalive_expiry_s, resolver=resolver)
        self._most_idle, self._write_timeout_s = config.max_keepalive_connections, config.write_timeout_s
        self._factory = cast("partial[ResponseHandler]", partial(_Wire, loop=self._loop))
        self._pool = pool
        self._trimming: asyncio.TimerHandle | None = None

    def idle(self) -> int:
        return sum(wire.is_connected() for wires in self._conns.values() for wire, _ in wires)

    async def _create_connection(
        self, req: "ClientRequest", traces: "list[Trace]", timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        self._pool.connects += 1
        wire = await super()._create_connection(req, traces, timeout)
        self._pool.opened += 1
        if wire.transport is not None:
            # Not before it is connected: the limit would hold for the connecting too.
            tune(wire.transport.get_extra_info("socket"), self._write_timeout_s)
        if self._trimming is None:
            self._trimming = self._loop.call_later(RESTED_S, self._trim)
        return wire

    def _trim(self) -> None:
        """Close the longest idle of those too many. Looks again while there may be too many."""
        self._trimming = None
        rested, connections = time.monotonic() - RESTED_S, len(self._acquired)
        for wires in self._conns.values():
            while len(wires) > self._most_idle and wires[0][1] <= rested:
                wires.popleft()[0].close()
            connections += len(wires)
        if connections > self._most_idle and not self._closed:
            self._trimming = self._loop.call_later(RESTED_S, self._trim)


def _session(target: Target, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        headers=CIMultiDict(headers_to(target)),
        timeout=aiohttp.ClientTimeout(
            total=None, connect=target.pool.connect_timeout_s, ceil_threshold=NO_ROUNDING
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        max_line_size=16 * 1024,
        max_field_size=16 * 1024,
        read_bufsize=LARGEST_READ,
    )


def _translated(why: Any) -> TransportError:
    if isinstance(why, TransportError):
        return why
    if isinstance(why, aiohttp.ConnectionTimeoutError | TimeoutError):
        return no_connection(TimeoutError())
    if isinstance(why, aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError):
        return no_connection(why.os_error)
    if isinstance(why, aiohttp.InvalidURL):
        return CannotConnect("the provider cannot be reached: its base URL is not valid")
    if isinstance(why, aiohttp.ClientResponseError):
        return Broken("what the provider sent is not HTTP")
    if isinstance(why, OSError) and why.errno == errno.ETIMEDOUT:
        return WriteTimedOut("the provider took nothing of what was sent to it for too long")
    return Broken(f"the provider ended the connection without an answer ({type(why).__name__})")
