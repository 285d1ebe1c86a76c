"""Which library carries a target's calls."""

import time
from collections.abc import Callable

from gateway.relay.catalog import Target
from gateway.relay.transports.aiohttp import AiohttpReach
from gateway.relay.transports.pool import Pool
from gateway.relay.transports.reach import PooledTransport, Reach


class Transports(PooledTransport):
    """Each target by the library of its choice; only httpx speaks HTTP/2, so asking for that chooses it.

    The pool, its places and its figures stay the target's when the library changes.
    """

    def __init__(self, *, allow_private: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(self._open, clock)
        self._allow_private = allow_private

    def _open(self, target: Target, pool: Pool) -> Reach:
        if target.transport == "httpx" or target.pool.http2:
            return self._httpx(target, pool)
        return AiohttpReach(target, pool, allow_private=self._allow_private)

    def _httpx(self, target: Target, pool: Pool) -> Reach:
        # Imported when it is first asked for: it takes 0.1 s and 10 MB, and few gateways use it.
        from gateway.relay.transports.httpx import HttpxReach

        return HttpxReach(target, pool, allow_private=self._allow_private)
