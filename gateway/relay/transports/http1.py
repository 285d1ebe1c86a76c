"""The default transport: HTTP/1.1 over connections of our own, made to cost little for each call.

A call on a kept connection is one write and one wait. Places are counted by the pool; silence and deadlines
are the lifeline's. What is HTTP and what is not, `http1_reading` says.
"""

import asyncio
import re
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator
from functools import partial

from gateway.relay.catalog import PoolConfig, Target
from gateway.relay.transports import Broken, CannotConnect, TooLarge, TransportError, WriteTimedOut
from gateway.relay.transports.addresses import CheckedResolver
from gateway.relay.transports.connecting import dial, no_connection, trust
from gateway.relay.transports.http1_reading import NotHttp
from gateway.relay.transports.http1_wire import Incoming, NotTaken, Wire
from gateway.relay.transports.pool import Pool
from gateway.relay.transports.reach import PooledTransport, Reach
from gateway.relay.transports.request import endpoint, headers_to

RESTED_S = 1.0
"""A connection counts as idle after this: under load, a turn of the loop frees many and takes them again."""
BLOCK = 16 * 1024
"""Bytes from which on a part of a large body is kept as it is."""
_NOT_IN_A_HEADER = re.compile(r"[\r\n\0\ud800-\udfff]")


class Http1Transport(PooledTransport):
    """Every target by this transport, whatever its own wish."""

    def __init__(self, *, allow_private: bool = True) -> None:
        super().__init__(partial(Http1Reach, allow_private=allow_private))


class Http1Reach(Reach):
    """The connections to one target, and the head of every request."""

    def __init__(self, target: Target, pool: Pool, *, allow_private: bool) -> None:
        super().__init__(target, pool)
        url = endpoint(target, allow_private=allow_private)
        self._host, self._port = url.raw_host or "", url.port or 0
        self.is_tls = url.scheme == "https"
        headers = {"Host": url.host_port_subcomponent or "", **headers_to(target)}
        self._prefix = _prefix(url.raw_path_qs, headers)
        self._resolver = CheckedResolver(allow_private=allow_private)
        self._trust: ssl.SSLContext | None = None
        self._loop = asyncio.get_running_loop()
        self._kept = _Kept(target.pool, self._loop)
        self._wires: set[Wire] = set()

    async def send(self, call_id: str, body: bytes, /) -> "Http1Answer":
        pool = self.pool
        pool.requests += 1
        wire: Wire | None = None
        try:
            head = _head(self._prefix, call_id, len(body))
            wire = self._kept.take() or await self._open()
            incoming = wire.ask(head, body)
            while incoming.head is None:
                if incoming.lost is not None:
                    raise _no_answer(incoming.lost)
                await incoming.more()
        except BaseException as why:
            if wire is not None:
                wire.close()
            self.release()
            if isinstance(why, OSError | ValueError | TransportError):
                raise pool.count(_translated(why)) from None
            raise
        pool.answers += 1
        pool.http_version = incoming.head.version
        return Http1Answer(incoming, wire, self)

    def idle(self) -> int:
        return self._kept.count()

    async def close(self) -> None:
        self._kept.close()
        for wire in list(self._wires):
            wire.close()

    def end(self, wire: Wire) -> None:
        """The call that had this connection is over."""
        if wire.let_go():
            self._kept.keep(wire)
        self.release()

    async def _open(self) -> Wire:
        self.pool.connects += 1
        config = self.target.pool
        async with asyncio.timeout(config.connect_timeout_s):
            wire = await dial(
                lambda: Wire(self._loop, self._wires.discard),
                self._host,
                self._port,
                await self._trusted(),
                self._resolver,
                config.write_timeout_s,
            )
        self.pool.opened += 1
        if wire.is_open:
            self._wires.add(wire)
        return wire

    async def _trusted(self) -> ssl.SSLContext | None:
        if self.is_tls and self._trust is None:
            self._trust = await trust(self.target.ca_pem)
        return self._trust


class Http1Answer:
    """One answer; owns its place in the pool until closed."""

    __slots__ = (
        "_closed",
        "_incoming",
        "_reach",
        "_wire",
        "content_encoding",
        "content_type",
        "retry_after",
        "retry_after_ms",
        "status",
    )

    def __init__(self, incoming: Incoming, wire: Wire, reach: Http1Reach) -> None:
        head = incoming.head
        assert head is not None
        self._incoming, self._wire, self._reach, self._closed = incoming, wire, reach, False
        self.status = head.status
        self.content_type, self.content_encoding = head.content_type, head.content_encoding
        self.retry_after, self.retry_after_ms = head.retry_after, head.retry_after_ms

    async def whole(self, limit: int) -> bytes:
        if self._reach.is_tls:  # what is not read when the end comes would be lost
            self._incoming.most_unread = limit
        body = _Blocks()
        try:
            while chunk := self.ready() or await self.next():
                if not body.size and self._incoming.over and not self._incoming.parts and len(chunk) <= limit:
                    return chunk
                body.add(chunk)
                if body.size > limit:
                    raise TooLarge(limit, body.size)
        except Broken as why:
            why.after_bytes, why.came = body.size > 0, body.size
            raise
        return body.joined()

    def chunks(self) -> AsyncIterator[bytes]:
        return _Chunks(self)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._reach.end(self._wire)

    def ready(self) -> bytes:
        """What has come already of the body."""
        chunk = self._incoming.take()
        self._wire.go_on()
        return chunk

    async def next(self) -> bytes:
        """What comes next of the body; empty at its end. Raises Broken."""
        incoming = self._incoming
        while not incoming.parts:
            if incoming.over:
                return b""
            if incoming.lost is not None:
                raise self._reach.pool.count(_broke_off(incoming.lost))
            await incoming.more()
        return self.ready()


class _Blocks:
    """A large body as it comes, joined once.

    One piece that grows is copied as it grows, and takes twice its size meanwhile; small parts, each by
    itself, take many times theirs, so they share a block.
    """

    __slots__ = ("_blocks", "_open", "size")

    def __init__(self) -> None:
        self._blocks: list[bytes | bytearray] = []
        self._open = bytearray()
        """The last block, if small parts go on there."""
        self.size = 0
        """In bytes."""

    def add(self, part: bytes) -> None:
        if len(part) >= BLOCK:
            self._blocks.append(part)
            self._open = bytearray()
        else:
            if not 0 < len(self._open) < BLOCK:
                self._open = bytearray()
                self._blocks.append(self._open)
            self._open += part
        self.size += len(part)

    def joined(self) -> bytes:
        return b"".join(self._blocks)


class _Chunks:
    """A body as it comes. No generator: one that is left unfinished costs a task of the event loop."""

    __slots__ = ("_answer",)

    def __init__(self, answer: Http1Answer) -> None:
        self._answer = answer

    def __aiter__(self) -> "_Chunks":
        return self

    async def __anext__(self) -> bytes:
        chunk = self._answer.ready() or await self._answer.next()
        if not chunk:
            raise StopAsyncIteration
        return chunk


class _Kept:
    """Connections that wait for the next call, oldest first.

    The newest is taken first, so that the others can grow old.
    """

    def __init__(self, config: PoolConfig, loop: asyncio.AbstractEventLoop) -> None:
        self._most, self._expiry_s = config.max_keepalive_connections, config.keepalive_expiry_s
        self._loop = loop
        self._wires: deque[Wire] = deque()
        self._looking: asyncio.TimerHandle | None = None
        self._closed = False

    def take(self) -> Wire | None:
        while self._wires:
            newest = self._wires.pop()
            if self._is_fit(newest, time.monotonic()) and not newest.was_heard():
                return newest
            newest.close()
        return None

    def keep(self, wire: Wire) -> None:
        if self._closed:
            wire.close()
            return
        wire.idle_since = time.monotonic()
        self._wires.append(wire)
        if self._looking is None:
            self._looking = self._loop.call_later(RESTED_S, self._look_after)

    def count(self) -> int:
        now = time.monotonic()
        return sum(self._is_fit(each, now) for each in self._wires)

    def close(self) -> None:
        self._closed = True
        if self._looking is not None:
            self._looking.cancel()

    def _is_fit(self, wire: Wire, now: float) -> bool:
        """The provider has not ended it, and its time is not over."""
        return wire.is_open and now - wire.idle_since < self._expiry_s

    def _look_after(self) -> None:
        """Close what expired, and the longest idle of those too many."""
        now, wires = time.monotonic(), self._wires
        for each in wires:
            if not self._is_fit(each, now):
                each.close()
        fit = [each for each in wires if each.is_open]
        wires.clear()
        wires.extend(fit)
        while len(wires) > self._most and wires[0].idle_since <= now - RESTED_S:
            wires.popleft().close()
        self._looking = self._loop.call_later(RESTED_S, self._look_after) if wires else None


def _prefix(path: str, headers: dict[str, str]) -> bytes:
    """What every request begins with, up to the value of the call id. Raises CannotConnect."""
    if any(_NOT_IN_A_HEADER.search(each) for each in (path, *headers.values())):
        raise CannotConnect("the provider cannot be reached: its credential cannot go into a header")
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "X-Request-Id: "]).encode()


def _head(prefix: bytes, call_id: str, length: int) -> bytes:
    """The head of one request. Raises CannotConnect."""
    if _NOT_IN_A_HEADER.search(call_id):
        raise CannotConnect("the provider cannot be reached: the call's id cannot go into a header")
    return b"%b%b\r\nContent-Length: %d\r\n\r\n" % (prefix, call_id.encode(), length)


def _translated(why: OSError | ValueError | TransportError) -> TransportError:
    """Why there was no answer, where that is not said yet: a connection could not be made."""
    if isinstance(why, TransportError):
        return why
    if isinstance(why, OSError):
        return no_connection(why)
    return CannotConnect("the provider cannot be reached: its base URL is not valid")


def _no_answer(why: Exception) -> TransportError:
    """Why a connection ended before the answer began."""
    if isinstance(why, NotHttp):
        return Broken("what the provider sent is not HTTP")
    if isinstance(why, NotTaken):
        return WriteTimedOut("the provider took nothing of what was sent to it for too long")
    return Broken(f"the provider ended the connection without an answer ({type(why).__name__})")


def _broke_off(why: Exception) -> Broken:
    return Broken(f"the provider's answer broke off ({type(why).__name__})")
