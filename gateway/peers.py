"""Which processes serve calls beside this one: how many share the work, and which of them leads.

    beat ──► Redis: who was heard of in the last 5 s ──► rank and number of those that serve

Without Redis a process is alone and leads.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from typing import Final, Literal

from gateway.redis_client import AWAY, QUICK_S, connect, end

log = logging.getLogger(__name__)

BEAT_S: Final = 1.0
EXPIRY_S: Final = 5.0
"""Who was not heard of for so long is gone."""
LEADS_S: Final = 4.0
"""How long a leader goes on without having renewed its lease, which ends after `EXPIRY_S`."""

PEERS: Final = "pst:peers"
SINCE: Final = "pst:peers:since"
LEADER: Final = "pst:leader"

Role = Literal["all", "relay", "pages", "worker"]
SERVING: Final = frozenset(("all", "relay"))
"""The roles that serve calls."""

# The clock is Redis's, so that no process's own can make another seem dead.
BEAT: Final = """
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now_ms, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. (now_ms - ARGV[4]))
redis.call('SET', KEYS[2], now_ms, 'NX')
local leader = redis.call('GET', KEYS[3])
if ARGV[3] == '1' and (not leader or leader == ARGV[2]) then
  redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[4])
  leader = ARGV[2]
end
return {redis.call('ZRANGE', KEYS[1], 0, -1), now_ms - redis.call('GET', KEYS[2]), leader}
"""

LEAVE: Final = """
redis.call('ZREM', KEYS[1], ARGV[1])
if redis.call('GET', KEYS[2]) == ARGV[2] then redis.call('DEL', KEYS[2]) end
"""


def serving_of(members: Iterable[str]) -> frozenset[str]:
    """The ids of those that serve calls, of members written as `<role>:<process id>`."""
    parts = (each.partition(":") for each in members)
    return frozenset(process for role, _, process in parts if role in SERVING)


class Peers:
    """Beats once a second, and knows what it last heard of the others. Lives on one event loop.

    A Redis that comes back may have forgotten everybody, or have counted a pause of its own as theirs.
    So for `EXPIRY_S` after it was away, and while its list is younger than that, nobody is taken for gone:
    a process that believed itself alone would take everybody's share.
    Does not decide what is shared, nor what a leader does.
    """

    def __init__(
        self,
        url: str,
        process: str,
        *,
        role: Role = "all",
        changed: Callable[[int, int], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        timeout_s: float = QUICK_S,
    ) -> None:
        """`changed` is told rank and number whenever one of them changes; `clock` gives monotonic seconds."""
        self.url, self.process, self.role = url, process, role
        self.away = False
        """Redis did not answer the last beat."""
        self.serving: tuple[str, ...] = (process,) if role in SERVING else ()
        """The ids of the processes that serve calls, sorted; what was last heard while Redis is away."""
        self._changed, self._clock, self._timeout_s = changed, clock, timeout_s
        self._client = connect(url, timeout_s=timeout_s) if url else None
        self._beating: asyncio.Task[None] | None = None
        self._leads = False
        self._renewed_at = 0.0
        self._sure_from = 0.0

    def __repr__(self) -> str:
        rank, live = self.rank_and_live()
        leads = ", leads" if self.leader else ""
        return f"<Peers {self.process}, {rank + 1} of {live}{leads}{', Redis away' if self.away else ''}>"

    def rank_and_live(self) -> tuple[int, int]:
        """This process's place among those that serve calls, from 0, and how many they are, at least 1."""
        if self.process not in self.serving:
            return 0, max(1, len(self.serving))
        return self.serving.index(self.process), len(self.serving)

    @property
    def leader(self) -> bool:
        """This process runs what only one should. For a moment nobody may; two never do for long."""
        if not self.url:
            return True
        return self._leads and self._clock() - self._renewed_at < LEADS_S

    async def open(self) -> None:
        """On return this process is known to the others, unless Redis is away. A second time does nothing."""
        if self._client is not None and self._beating is None:
            await self._beat()
            self._beating = asyncio.get_running_loop().create_task(self._keep_beating())

    async def close(self) -> None:
        """Leave: the others need not wait until this process seems dead. A second time does nothing."""
        client, self._client, self._leads = self._client, None, False
        if client is None:
            return
        if self._beating is not None:
            await end([self._beating])
        with contextlib.suppress(*AWAY):  # then they find out by themselves
            async with asyncio.timeout(self._timeout_s):
                await client.eval(LEAVE, 2, PEERS, LEADER, self._member, self.process)
        await client.aclose()

    @property
    def _member(self) -> str:
        return f"{self.role}:{self.process}"

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            await self._beat()

    async def _beat(self) -> None:
        assert self._client is not None
        asked_at = self._clock()
        args = (self._member, self.process, int(self.role in SERVING), int(EXPIRY_S * 1000))
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client.eval(BEAT, 3, PEERS, SINCE, LEADER, *map(str, args))
        except AWAY as why:
            self._missed(why)
            return
        members, age_ms, leader = answer
        self._leads, self._renewed_at = leader == self.process.encode(), asked_at
        self._heard(serving_of(each.decode() for each in members), age_ms / 1000)

    def _missed(self, why: BaseException) -> None:
        if not self.away:
            log.warning("Redis is away, the other processes are taken to be there still: %r", why)
        self.away = True

    def _heard(self, listed: frozenset[str], age_s: float) -> None:
        now = self._clock()
        if self.away:
            self._sure_from = now + EXPIRY_S
            self.away = False
            log.info("Redis is back")
        is_sure = now >= self._sure_from and age_s >= EXPIRY_S
        before = self.rank_and_live()
        self.serving = tuple(sorted(listed if is_sure else listed.union(self.serving)))
        after = self.rank_and_live()
        if after != before and self._changed is not None:
            self._changed(*after)
