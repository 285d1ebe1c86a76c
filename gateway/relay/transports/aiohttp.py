"""The default transport: aiohttp, one session and one pool a target.

aiohttp's own limits and timeouts are off where the relay has its own:
the pool is counted here, silence and deadlines are the lifeline's.
"""

import asyncio
import ipaddress
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from gateway.relay.catalog import Target
from gateway.relay.transports import (
    Broken,
    CannotConnect,
    ConnectTimedOut,
    PoolExhausted,
    TooLarge,
    TransportError,
)
from gateway.relay.transports.addresses import CheckedResolver, ForbiddenAddress, check

USER_AGENT = "penstock"
LARGEST_READ = 64 * 1024


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """Limits of one target's pool; durations in seconds."""

    max_connections: int = 100
    keepalive_expiry_s: float = 30.0
    connect_timeout_s: float = 10.0
    pool_timeout_s: float = 5.0
    allow_private: bool = True


class Pool:
    """Counts one target's connections in use; who finds none free waits in line."""

    def __init__(self, config: PoolConfig) -> None:
        self.config = config
        self.in_use = 0
        self._idle: Callable[[], Coroutine[None, None, None]] | None = None
        self._closing: asyncio.Task[None] | None = None
        self.waiting: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> None:
        """Take a place. Raises PoolExhausted after `pool_timeout_s`."""
        if self.in_use < self.config.max_connections:
            self.in_use += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        try:
            async with asyncio.timeout(self.config.pool_timeout_s):
                await turn
        except TimeoutError:
            self._give_up(turn)
            raise PoolExhausted(
                f"all {self.config.max_connections} connections to the provider are in use"
            ) from None
        except asyncio.CancelledError:
            self._give_up(turn)
            raise

    def _give_up(self, turn: asyncio.Future[None]) -> None:
        if turn.done() and not turn.cancelled():
            self.release()  # the place came at the very moment of leaving
        elif turn in self.waiting:
            self.waiting.remove(turn)

    def release(self) -> None:
        """Hand the place to the next in line, or free it."""
        while self.waiting:
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.in_use -= 1
        self._close_if_idle()

    def when_idle(self, close: Callable[[], Coroutine[None, None, None]]) -> None:
        """The pool is no longer chosen: close it as soon as no call is on it."""
        self._idle = close
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._idle is not None and self.in_use == 0 and self._closing is None:
            self._closing = asyncio.ensure_future(self._idle())


class AiohttpAnswer:
    """One answer; owns its place in the pool until closed."""

    __slots__ = ("_closed", "_pool", "_response", "content_type", "retry_after", "retry_after_ms", "status")

    def __init__(self, response: aiohttp.ClientResponse, pool: Pool) -> None:
        self._response, self._pool, self._closed = response, pool, False
        headers = response.headers
        self.status = response.status
        self.content_type = headers.get("Content-Type", "")
        self.retry_after = headers.get("Retry-After")
        self.retry_after_ms = headers.get("Retry-After-Ms")

    async def whole(self, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        readany = self._response.content.readany
        try:
            while chunk := await readany():
                size += len(chunk)
                if size > limit:
                    raise TooLarge(f"the provider's answer is larger than {limit} bytes")
                parts.append(chunk)
        except (aiohttp.ClientError, OSError) as why:
            raise _broke_off(why) from None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def chunks(self) -> AsyncIterator[bytes]:
        content = self._response.content
        try:
            while chunk := await content.readany():
                yield chunk
        except (aiohttp.ClientError, OSError) as why:
            raise _broke_off(why) from None

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._response.content.at_eof():
                self._response.release()
            else:
                self._response.close()
            self._pool.release()


@dataclass(slots=True)
class _Reach:
    """How one target is reached: its session with the headers of every request, and its pool."""

    target: Target
    session: aiohttp.ClientSession
    pool: Pool
    url: URL

    def leads_to(self, target: Target) -> bool:
        """Whether this is still the way to the target as it is now."""
        mine = self.target
        return mine.base_url == target.base_url and mine.credential == target.credential

    def release(self) -> None:
        self.pool.release()

    async def send(self, call_id: str, body: bytes) -> AiohttpAnswer:
        try:
            response = await self.session.post(
                self.url, data=body, headers={"X-Request-Id": call_id}, allow_redirects=False
            )
        except BaseException as why:
            self.pool.release()
            if isinstance(why, aiohttp.ClientError | OSError | ValueError):
                raise _translated(why) from None
            raise
        return AiohttpAnswer(response, self.pool)


class AiohttpTransport:
    """One pool per target; a target that moved gets a new one, and running calls end on the old."""

    def __init__(self, config: PoolConfig) -> None:
        self._config = config
        self._reaches: dict[int, _Reach] = {}

    async def acquire(self, target: Target) -> _Reach:
        reach = self._reaches.get(target.id)
        if reach is None or reach.target is not target:
            reach = self._reach(reach, target)
        await reach.pool.acquire()
        return reach

    async def close(self) -> None:
        reaches, self._reaches = self._reaches, {}
        for reach in reaches.values():
            await reach.session.close()

    def _reach(self, known: _Reach | None, target: Target) -> _Reach:
        """The way to a target that is new, or that was read from the database again."""
        if known is not None and known.leads_to(target):
            known.target = target
            return known
        if known is not None:
            known.pool.when_idle(known.session.close)
        fresh = self._reaches[target.id] = self._open(target)
        return fresh

    def _open(self, target: Target) -> _Reach:
        url = URL(f"{target.base_url.rstrip('/')}/chat/completions")
        _check_literal(url, allow_private=self._config.allow_private)
        return _Reach(target, self._session(target), Pool(self._config), url)

    def _session(self, target: Target) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=0,
            keepalive_timeout=self._config.keepalive_expiry_s,
            resolver=CheckedResolver(allow_private=self._config.allow_private),
        )
        return aiohttp.ClientSession(
            connector=connector,
            headers=_headers(target),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._config.connect_timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            max_line_size=16 * 1024,
            max_field_size=16 * 1024,
            read_bufsize=LARGEST_READ,
        )


def _check_literal(url: URL, *, allow_private: bool) -> None:
    """An address written in the URL meets no resolver, so it is checked here."""
    host = url.host or ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return
    try:
        check(host, host, allow_private=allow_private)
    except ForbiddenAddress as why:
        raise CannotConnect(str(why)) from None


def _headers(target: Target) -> CIMultiDict[str]:
    """All that goes upstream beside the call id; nothing of the client's own headers does."""
    headers = CIMultiDict(
        {
            "Accept": "application/json, text/event-stream",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
        }
    )
    if target.credential is not None:
        headers["Authorization"] = f"Bearer {target.credential.value}"
    return headers


def _broke_off(why: Exception) -> Broken:
    return Broken(f"the provider's answer broke off ({type(why).__name__})")


def _translated(why: Exception) -> TransportError:
    if isinstance(why, aiohttp.ConnectionTimeoutError | TimeoutError):
        return ConnectTimedOut("no connection to the provider was made in time")
    if isinstance(why, aiohttp.ClientConnectorError | ForbiddenAddress | aiohttp.InvalidURL):
        return CannotConnect(f"the provider cannot be reached ({_reason(why)})")
    return Broken(f"the provider ended the connection without an answer ({type(why).__name__})")


def _reason(why: Exception) -> str:
    """A short cause; the operating system's words where there are some."""
    inner = getattr(why, "os_error", None)
    return getattr(inner, "strerror", None) or type(why).__name__
