"""One target's connections over httpcore2: kept ones, shared ones, and new ones.

httpcore2's own pool is left out. It counts what the relay counts already and scans every connection for every
call; and its connections do not reset what a cancelled call leaves behind.
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable

import httpcore2

from gateway.relay.catalog import PoolConfig
from gateway.relay.transports.http2 import Http2Connection
from gateway.relay.transports.pool import Pool
from gateway.relay.transports.wire import Wire

LOOK_EVERY_S = 1.0
"""Idle connections are looked after so often; one counts as idle after as long."""


class Http1Connection(httpcore2.AsyncHTTP11Connection):
    """One call at a time."""

    def __init__(self, origin: httpcore2.Origin, wire: Wire, keepalive_expiry_s: float) -> None:
        super().__init__(origin, wire, keepalive_expiry_s)
        self.wire = wire
        self.idle_since = time.monotonic()
        self._is_new = True

    def rest(self) -> None:
        """A call on it is over."""
        self._is_new, self.idle_since = False, time.monotonic()

    def is_fit(self) -> bool:
        """Its last answer was read to the end, and nothing came since: it would be read as the next one."""
        if self._is_new:
            return not self.wire.was_heard
        return self.is_idle() and not self.has_expired() and not self._h11_state.trailing_data[0]


Connection = Http1Connection | Http2Connection
Dial = Callable[[Callable[[Wire], None]], Awaitable[Wire]]


class Connections:
    """Hands out a connection for each call, and takes it back. How many calls may be, the pool decides."""

    def __init__(self, origin: httpcore2.Origin, config: PoolConfig, pool: Pool, dial: Dial) -> None:
        self._origin, self._config, self._pool, self._dial = origin, config, pool, dial
        self._kept: deque[Http1Connection] = deque()
        """Oldest first; the newest is taken first, so that the others can grow old."""
        self._shared: list[Http2Connection] = []
        self._wires: set[Wire] = set()
        self._opening: asyncio.Task[Connection] | None = None
        self._speaks_http2 = config.http2
        """Until the provider has shown that it does not."""
        self._looking: asyncio.TimerHandle | None = None
        self._closed = False

    async def take(self) -> Connection:
        """A connection for one call. Raises OSError, CannotConnect, httpcore2.ReadError."""
        while True:
            if (ready := self._shared_one() or self._kept_one()) is not None:
                return ready
            if not self._speaks_http2:
                return await self._open()
            await self._open_for_all()

    def give_back(self, connection: Connection) -> None:
        """The call is over. What cannot carry another is closed."""
        if isinstance(connection, Http2Connection):
            connection.calls -= 1
            if connection.is_spent and not connection.calls:
                connection.wire.close()
            return
        connection.rest()
        if connection.is_fit() and not self._closed:
            self._kept.append(connection)
            self._look_later()
        else:
            connection.wire.close()

    def idle(self) -> int:
        shared = sum(not each.calls and not each.is_spent for each in self._shared)
        return shared + sum(each.is_fit() for each in self._kept)

    def close(self) -> None:
        self._closed = True
        if self._looking is not None:
            self._looking.cancel()
        if self._opening is not None:
            self._opening.cancel()
        for wire in list(self._wires):
            wire.close()

    def _shared_one(self) -> Http2Connection | None:
        self._shared = [each for each in self._shared if not each.is_spent]
        for each in self._shared:
            if each.has_room():
                each.calls += 1
                return each
        return None

    def _kept_one(self) -> Http1Connection | None:
        while self._kept:
            newest = self._kept.pop()
            if newest.is_fit():
                return newest
            newest.wire.close()
        return None

    async def _open(self) -> Connection:
        self._pool.connects += 1
        wire = await self._dial(self._wires.discard)
        self._wires.add(wire)
        self._pool.opened += 1
        tls = wire.get_extra_info("ssl_object")
        if isinstance(tls, ssl.SSLObject) and tls.selected_alpn_protocol() == "h2":
            return Http2Connection(
                self._origin, wire, self._config.keepalive_expiry_s, self._config.write_timeout_s
            )
        self._speaks_http2 = False
        return Http1Connection(self._origin, wire, self._config.keepalive_expiry_s)

    async def _open_for_all(self) -> None:
        """Open one connection for everybody who waits for one; a failure is everybody's too.

        A task of its own, because whoever came first may be cancelled while the others wait on.
        """
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._open_shared())
            self._opening.add_done_callback(self._opened)
        opened = await asyncio.shield(self._opening)
        if opened.wire.has_ended:  # or a provider that hangs up on everybody would be called for ever
            raise httpcore2.ReadError("the connection ended as soon as it was made")

    async def _open_shared(self) -> Connection:
        connection = await self._open()
        if isinstance(connection, Http2Connection):
            self._shared.append(connection)
        else:
            self._kept.append(connection)
        self._look_later()
        return connection

    def _opened(self, opening: asyncio.Task[Connection]) -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # those who waited have it; if nobody did, nobody needs it

    def _look_later(self) -> None:
        if self._looking is None and not self._closed:
            loop = asyncio.get_running_loop()
            self._looking = loop.call_later(LOOK_EVERY_S, self._look_after)

    def _look_after(self) -> None:
        """Close what expired, what the provider ended, and what is idle beyond what is to be kept."""
        self._looking = None
        rested = time.monotonic() - LOOK_EVERY_S
        for each in [each for each in self._kept if not each.is_fit()]:
            self._kept.remove(each)
            each.wire.close()
        while len(self._kept) > self._config.max_keepalive_connections and self._kept[0].idle_since <= rested:
            self._kept.popleft().wire.close()
        for shared in self._shared:
            if not shared.calls and (shared.is_spent or shared.has_expired()):
                shared.wire.close()
        self._shared = [each for each in self._shared if not each.is_spent]
        if self._kept or self._shared:
            self._look_later()
