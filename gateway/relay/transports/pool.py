"""One target's places: who may send now, who waits, and what a page shows of it.

The relay counts for itself; what a library thinks of its own pool is not asked.
"""

import asyncio
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from itertools import accumulate

from gateway.relay.catalog import PoolConfig
from gateway.relay.ports import ACQUIRE_BOUNDS_S, PoolFigures
from gateway.relay.transports import ConnectTimedOut, PoolExhausted, TransportError


class Pool:
    """Counts one target's calls in use; who finds no place free waits in line.

    Lives as long as its target is called: it outlives the connections behind it, and its limits
    may change at any time. Leaves connections to the client libraries.
    """

    __slots__ = (
        "_clock",
        "_max_connections",
        "_timeout_s",
        "_waits",
        "acquire_s",
        "acquired",
        "answers",
        "connect_timeouts",
        "connection_errors",
        "connects",
        "http_version",
        "in_use",
        "opened",
        "pool_timeouts",
        "requests",
        "waiting",
    )

    def __init__(self, config: PoolConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._max_connections, self._timeout_s = config.max_connections, config.pool_timeout_s
        self.in_use = 0
        self.waiting: deque[asyncio.Future[None]] = deque()
        self.acquired = self.pool_timeouts = 0
        self.acquire_s = 0.0
        self._waits = [0] * (len(ACQUIRE_BOUNDS_S) + 1)
        """How many of those who waited did so up to each bound, and longer; not cumulative."""
        self.requests = self.answers = self.connects = self.opened = 0
        self.connect_timeouts = self.connection_errors = 0
        self.http_version: str | None = None

    def take(self) -> bool:
        """Take a place if one is free. Nearly every call ends here, so it costs nothing else."""
        if self.in_use >= self._max_connections:
            return False
        self.in_use += 1
        self.acquired += 1
        return True

    async def wait(self) -> None:
        """Take the next place that comes free. Raises PoolExhausted after `pool_timeout_s`."""
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        began = self._clock()
        try:
            async with asyncio.timeout(self._timeout_s):
                await turn
        except TimeoutError:
            self._give_up(turn)
            self.pool_timeouts += 1
            raise PoolExhausted(
                f"all {self._max_connections} connections to the provider are in use"
            ) from None
        except asyncio.CancelledError:
            self._give_up(turn)
            raise
        self._came_after(self._clock() - began)

    def release(self) -> None:
        """Give a place back, to the next in line if there is one."""
        self.in_use -= 1
        self._let_in()

    def configure(self, config: PoolConfig) -> None:
        """New limits, at once: more places wake who waits; fewer are reached as places come back."""
        self._max_connections, self._timeout_s = config.max_connections, config.pool_timeout_s
        self._let_in()

    def count(self, why: TransportError) -> TransportError:
        """Count what went wrong on a connection; returns it, to be raised."""
        if isinstance(why, ConnectTimedOut):
            self.connect_timeouts += 1
        else:
            self.connection_errors += 1
        return why

    def figures(self, idle: int | None) -> PoolFigures:
        at_once = self.acquired - sum(self._waits)
        buckets = accumulate([at_once + self._waits[0], *self._waits[1:]])
        return PoolFigures(
            in_use=self.in_use,
            waiting=len(self.waiting),
            acquired=self.acquired,
            acquire_s=self.acquire_s,
            acquire_buckets=tuple(buckets),
            pool_timeouts=self.pool_timeouts,
            connect_timeouts=self.connect_timeouts,
            connection_errors=self.connection_errors,
            requests=self.requests,
            answers=self.answers,
            http_version=self.http_version,
            idle=idle,
            opened=self.opened,
            reused=self.requests - self.connects,
        )

    def _let_in(self) -> None:
        """Hand free places to those who wait, first come first served."""
        while self.waiting and self.in_use < self._max_connections:
            turn = self.waiting.popleft()
            if not turn.done():
                self.in_use += 1
                turn.set_result(None)

    def _give_up(self, turn: asyncio.Future[None]) -> None:
        if turn.done() and not turn.cancelled():
            self.release()  # the place came at the very moment of leaving
        elif turn in self.waiting:
            self.waiting.remove(turn)

    def _came_after(self, waited_s: float) -> None:
        self.acquired += 1
        self.acquire_s += waited_s
        self._waits[bisect_left(ACQUIRE_BOUNDS_S, waited_s)] += 1

    def __repr__(self) -> str:
        return f"<Pool {self.in_use} of {self._max_connections} in use, {len(self.waiting)} waiting>"
