"""Which client carries a target's calls."""

import time
from collections.abc import Callable

from gateway.relay.catalog import Catalog, Target
from gateway.relay.transports.aiohttp import AiohttpReach
from gateway.relay.transports.http1 import Http1Reach
from gateway.relay.transports.pool import Pool
from gateway.relay.transports.reach import PooledTransport, Reach


def ready(catalog: Catalog) -> None:
    """Load what the catalog's targets ask for; in a thread, because it takes a while. May be called often."""
    targets = (each for route in catalog.routes.values() for each in route.targets)
    if any(_is_for_httpx(each) for each in targets):
        import gateway.relay.transports.httpx  # noqa: F401


def _is_for_httpx(target: Target) -> bool:
    return target.transport == "httpx" or target.pool.http2


class Transports(PooledTransport):
    """Each target by the client of its choice; only httpx speaks HTTP/2, so asking for that chooses it.

    The pool, its places and its figures stay the target's when the client changes.
    """

    def __init__(self, *, allow_private: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(self._open, clock)
        self._allow_private = allow_private

    def _open(self, target: Target, pool: Pool) -> Reach:
        if _is_for_httpx(target):
            return self._httpx(target, pool)
        if target.transport == "aiohttp":
            return AiohttpReach(target, pool, allow_private=self._allow_private)
        return Http1Reach(target, pool, allow_private=self._allow_private)

    def _httpx(self, target: Target, pool: Pool) -> Reach:
        # Imported where it is asked for only: it takes half a second and 10 MB, and few gateways use it.
        from gateway.relay.transports.httpx import HttpxReach

        return HttpxReach(target, pool, allow_private=self._allow_private)
