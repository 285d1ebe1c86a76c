"""What the processes that serve share: counters, peers, the feed, and the work that one does for all.

With Redis they share it; without, one process has it for itself. Opened and closed by `lifespan.py`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from django.db import DatabaseError, connection

from gateway.errors import Unavailable
from gateway.feed import Feed
from gateway.figures import Figures, Together
from gateway.ledger.holdings import all_wanted, surveyor
from gateway.peers import Peers, Role
from gateway.reconcile import EVERY_S, WARN_EVERY_S, Warner, reconcile
from gateway.relay import limits
from gateway.relay.admission import spent_by
from gateway.relay.counters import LocalCounters
from gateway.relay.pipeline import EXPIRES_AFTER_S
from gateway.relay.ports import Change
from gateway.relay.records import Settled
from gateway.relay.redis_counters import RedisCounters

log = logging.getLogger(__name__)


def now_us() -> int:
    return time.time_ns() // 1000


class Shared:
    """One process's part in what is shared. Lives on the relay's loop.

    Does not decide what a change means, nor what a breaker's news does: it hands both on.
    """

    def __init__(
        self,
        url: str,
        process: str,
        role: Role,
        journals: Path,
        *,
        call_timeout_s: float,
        heard: Callable[[int], None],
        rights: Callable[[int], None],
        told: Callable[[int, Change], None],
        divided: Callable[[int, int], None],
        figures: Callable[[], Figures] | None,
    ) -> None:
        """`heard` is given a change's number, `rights` a user's id, `told` what a breaker did elsewhere,
        `divided` this process's rank and how many serve; `figures` reads this process."""
        self._journals = journals
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="survey")
        self._survey = surveyor(
            journals, lives_s=call_timeout_s + EXPIRES_AFTER_S, now_us=now_us, threads=self._threads
        )
        self.peers = Peers(url, process, role=role, changed=divided)
        self.feed = Feed(url, heard, rights=rights, told=told)
        self.together = Together(self.peers, figures, self._is_gone)
        self.counters: LocalCounters | RedisCounters
        if url:
            self.counters = RedisCounters(url, process, survey=self._survey, share=self.peers.rank_and_live)
        else:
            self.counters = LocalCounters(self._survey)
        self._warner = Warner(now_us=now_us)
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Returns soon, also where Redis is away."""
        await self.peers.open()
        if isinstance(self.counters, RedisCounters):
            await self.counters.open()
        await self.feed.open()
        await self.together.open()
        self._start(self._lead(EVERY_S, self._reconcile))
        self._start(self._lead(WARN_EVERY_S, self._warn))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.feed.close()
        await self.counters.close()
        await self.together.close()
        await self.peers.close()
        await asyncio.to_thread(self._threads.shutdown)

    @property
    def away(self) -> bool:
        """Redis is configured and does not answer."""
        is_away = isinstance(self.counters, RedisCounters) and self.counters.away
        return is_away or self.peers.away or self.feed.away

    def adopted(self, process: str, found: list[Settled]) -> None:
        """A dead process's calls are on the books: its reservations are settled. In the writer's thread.

        Raises Unavailable while Redis is away. Counters of this process alone died with the one before.
        """
        is_own = process == self.peers.process
        if isinstance(self.counters, RedisCounters) and not (is_own and not self.counters.unsent):
            ends = [(each.call_id, spent_by(each)) for each in found]
            self.counters.adopt(process, ends)

    async def quotas(self, quota_ids: Sequence[int]) -> Mapping[int, limits.Figures]:
        """Of each quota in its present period. Raises DatabaseError, Unavailable."""
        wanted = await asyncio.get_running_loop().run_in_executor(
            self._threads, _wanted, frozenset(quota_ids)
        )
        found = await self.counters.figures(list(wanted.values()))
        return {quota_id: found[name] for quota_id, name in wanted.items() if name in found}

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))

    def _is_gone(self, process: str) -> bool:
        """Its journal was adopted, so it counts no more."""
        return not (self._journals / process).exists()

    async def _lead(self, every_s: float, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Do this again and again, where this process leads."""
        while True:
            await asyncio.sleep(every_s)
            if not self.peers.leader:
                continue
            try:
                await work()
            except (DatabaseError, Unavailable) as why:
                log.warning("the quotas are looked at later: %s", why)
            except Exception:  # the timer's outermost edge: the next round must come
                log.exception("the quotas could not be looked at")

    async def _reconcile(self) -> None:
        await reconcile(self.counters, self._survey, now_us=now_us)

    async def _warn(self) -> None:
        await self._warner.look(self.counters)


def _wanted(quota_ids: frozenset[int]) -> dict[int, str]:
    """The counters of these quotas in their present periods, by quota."""
    try:
        return {each.quota.id: each.counter for each in all_wanted(now_us()) if each.quota.id in quota_ids}
    finally:
        connection.close()
