"""How targets are reached: one pool and one client a target, kept in step with its settings."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace

from gateway.relay.catalog import PoolConfig, Secret, Target
from gateway.relay.ports import Answer, PoolFigures
from gateway.relay.transports.pool import Pool

UNUSED_S = 300.0
"""A target that was not called for so long has its client closed, and its figures start anew."""
LOOK_EVERY_S = 30.0


class Reach(ABC):
    """The way to one target with its settings as they are: a library's client, and the target's pool.

    It is also the place that a call was given; all calls on it share it, so a place costs nothing to make.
    """

    def __init__(self, target: Target, pool: Pool) -> None:
        self.target, self.pool = target, pool
        self.calls = 0
        """Places that were given out on this very client, and are not back."""
        self._retired: Callable[[Reach], None] | None = None
        self._facts = _facts(target)

    def leads_to(self, target: Target) -> bool:
        """Whether this client, as it is, still reaches the target as it is now."""
        return self._facts == _facts(target)

    @abstractmethod
    async def send(self, call_id: str, body: bytes, /) -> Answer:
        """As `ports.Place` says; gives the place back itself unless it returns an answer."""

    @abstractmethod
    def idle(self) -> int | None:
        """Connections kept for the next call."""

    @abstractmethod
    async def close(self) -> None:
        """Close every connection. May be called twice."""

    def release(self) -> None:
        """One call has left."""
        self.calls -= 1
        self.pool.release()
        if self._retired is not None and self.calls == 0:
            self._retired(self)

    def retire(self, when_empty: "Callable[[Reach], None]") -> None:
        """It is no longer chosen: `when_empty` is told once the last call has left."""
        self._retired = when_empty
        if self.calls == 0:
            when_empty(self)


Facts = tuple[str, Secret | None, str, str, PoolConfig]


def _facts(target: Target) -> Facts:
    """What a client was made from. The limits that are not in it belong to the pool and to the lifeline."""
    pool = replace(target.pool, max_connections=0, pool_timeout_s=0, read_timeout_s=0)
    return target.base_url, target.credential, target.ca_pem, target.transport, pool


class PooledTransport:
    """`ports.Transport` for any library: `open_reach` makes a target's client.

    A changed limit takes effect at once. A change that concerns connections opens a new client over the same
    pool; calls on the old one end there, and the last to leave closes it.
    A call that began before a change does not bring the old settings back.
    """

    def __init__(
        self, open_reach: Callable[[Target, Pool], Reach], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._open_reach, self._clock = open_reach, clock
        self._reaches: dict[int, Reach] = {}
        self._seen: dict[int, tuple[int, float]] = {}
        """By target id: how many places had been given out, and since when it is that many."""
        self._looked_at = clock()
        self._closing: dict[Reach, asyncio.Task[None] | None] = {}

    async def acquire(self, target: Target, /) -> Reach:
        reach = self._reaches.get(target.id)
        if reach is None or (reach.target is not target and target.read_no >= reach.target.read_no):
            reach = self._reach_to(target, reach)
        if not reach.pool.take():
            await reach.pool.wait()
            reach = self._reaches.get(target.id, reach)  # settings may have changed meanwhile
        reach.calls += 1
        return reach

    def figures(self) -> dict[int, PoolFigures]:
        self._close_unused()
        return {id: reach.pool.figures(reach.idle()) for id, reach in self._reaches.items()}

    async def close(self) -> None:
        reaches = [*self._reaches.values(), *self._closing]
        self._reaches.clear()
        for reach in reaches:
            await reach.close()

    def _reach_to(self, target: Target, known: Reach | None) -> Reach:
        """The way to a target that is new, or that was read from the database again."""
        if known is not None:
            known.pool.configure(target.pool)
        if known is not None and known.leads_to(target):
            known.target = target
            return known
        fresh = self._open_reach(target, known.pool if known else Pool(target.pool))
        self._reaches[target.id] = fresh
        if known is not None:
            self._retire(known)
        self._close_unused()
        return fresh

    def _close_unused(self) -> None:
        """Close the clients of targets that nobody calls, among them those that left the catalog.

        Looked at when a client is opened and when figures are asked for, so that a call pays nothing.
        """
        now = self._clock()
        if now - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now
        for id, reach in list(self._reaches.items()):
            acquired, since = self._seen.get(id, (-1, now))
            if acquired != reach.pool.acquired or reach.pool.in_use or reach.pool.waiting:
                self._seen[id] = reach.pool.acquired, now
            elif now - since >= UNUSED_S:
                del self._reaches[id], self._seen[id]
                self._retire(reach)

    def _retire(self, reach: Reach) -> None:
        self._closing[reach] = None  # not to be forgotten where the process stops first
        reach.retire(self._close_reach)

    def _close_reach(self, reach: Reach) -> None:
        if self._closing.get(reach) is None:
            task = self._closing[reach] = asyncio.ensure_future(reach.close())
            task.add_done_callback(lambda _: self._closing.pop(reach, None))
