"""Rate limits and quotas counted in Redis, shared by all processes of one machine.

    calls of a turn ─┬─ admit  ─▶ one round trip ─▶ scripts/admit.lua
                     └─ settle ─▶   the same     ─▶ scripts/settle.lua

What a call holds is in Redis, by its call id, so a settlement needs no more than that,
from whichever process it comes.
Redis holds no facts: what it forgets is made again from the ledger and the journals, by `survey`.
What applies to a call, and how much it asks for, is decided in `limits.py`.

When Redis is away, no call waits for it twice: rate limits are judged by this process's share of them,
hard quotas refuse, soft ones let through, and what ended is kept and told to Redis when it is back.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any, Final

import redis

from accounts.caller import RateLimit
from gateway.errors import Unavailable
from gateway.relay.counters import LocalCounters, Share
from gateway.relay.holdings import Survey, Surveyor
from gateway.relay.limits import (
    Admitted,
    Ask,
    Exceeded,
    Figures,
    QuotaAsk,
    RateAsk,
    Spent,
    Standing,
    Stood,
    quota_retry_after,
    rate_counter,
    worst_of,
)
from gateway.relay.redis_maker import Maker
from gateway.relay.redis_scripts import (
    ENROL,
    LIMB,
    RELEASE,
    SETTLE,
    UNDO,
    Row,
    encode,
    quota_row,
    rate_row,
    script,
)
from gateway.relay.redis_trips import ENDS_BATCH, RETRY_S, RoundTrips, Waiting, away, refuse, tell

log = logging.getLogger(__name__)

TIMEOUT_S: Final = 0.25
"""So long a call waits for Redis, all together: hundreds of times what a round trip takes."""
PATIENCE_S: Final = 2.0
"""So long a call waits for the ledger's sum of a quota that is new here, as where there is no Redis."""
UNCOUNTED_S: Final = 1.0
"""So long nobody tries to make counters again after the survey failed."""
LOOK_BATCH: Final = 1000
COLD_S: Final = 2.0
"""So long what is no call waits for Redis."""
ADMITTED, EXCEEDED, MISSING = 1, 0, 2
"""How `admit.lua` answers; otherwise no counter is there."""


def boot_id() -> str:
    """Changes when the machine starts, and its steady clock with it; empty where that is not told."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def steady_s() -> float:
    """Seconds since the machine started: the same for all its processes, and no wall clock moves it."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class RedisCounters:
    """See `ports.Counters`. Lives on one event loop; `adopt` alone may be called from any thread.

    `process` names this process in Redis, and is the folder of its journal.
    `clock` is the machine's steady one in seconds, `boot` changes when that begins anew;
    `wall_clock`, in Unix seconds, only tells how long a quota's period still lasts.
    """

    def __init__(
        self,
        url: str,
        process: str,
        *,
        survey: Surveyor,
        share: Share,
        clock: Callable[[], float] = steady_s,
        wall_clock: Callable[[], float] = time.time,
        boot: str | None = None,
        timeout_s: float = TIMEOUT_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._url, self._process = url, process
        self._clock, self._wall_clock = clock, wall_clock
        self._boot = boot_id() if boot is None else boot
        self._timeout_s, self._patience_s = timeout_s, patience_s
        self._trips = RoundTrips(url, process, self, clock=clock, boot=self._boot, timeout_s=timeout_s)
        self._maker = Maker(url, survey, clock, wall_clock, self._boot)
        self._alone = LocalCounters(_no_survey, clock=clock, wall_clock=wall_clock, share=share)
        self._let_in_alone: set[str] = set()
        """Calls under way that were counted here while Redis was away."""
        self._until_made: dict[Waiting, asyncio.TimerHandle] = {}
        """Calls that wait for counters, and what ends their patience."""
        self._missing: dict[str, QuotaAsk] = {}
        """Counters that are to be made next."""
        self._making: asyncio.Task[str] | None = None
        self._uncounted_until = -inf
        """Until then nobody waits for counters, because they could not be made."""

    def __repr__(self) -> str:
        return f"<RedisCounters of {self._process}, {self._trips!r}>"

    @property
    def away(self) -> bool:
        """Redis does not answer, so this process counts its share of the rate limits, and no quotas."""
        return self._trips.away

    @property
    def unsent(self) -> int:
        """Ends that Redis was not told of yet."""
        return self._trips.unsent

    # Of the process

    async def open(self) -> None:
        """Begin to count. Returns soon, also where Redis is away."""
        await self._trips.open()

    async def close(self) -> None:
        """Tell Redis what ended, if it is there, and leave it."""
        await self._trips.close()
        if self._making is not None:
            self._making.cancel()
            await asyncio.gather(self._making, return_exceptions=True)
        await self._maker.close()
        await self._alone.close()

    # Of calls

    def admit_now(self, ask: Ask) -> Admitted | Exceeded | None:
        return None

    async def admit(self, ask: Ask) -> Admitted | Exceeded:
        if not ask.rates and not ask.quotas:
            return Admitted()
        if self._trips.away:
            return self._decide_alone(ask)
        waiting = self._trips.waiting(ask)
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            self._give_back(waiting)
            raise

    def settle(self, call_id: str, spent: Spent) -> None:
        self._trips.end((SETTLE, call_id, spent.tokens, *divmod(spent.cost_nanos, LIMB)))
        if call_id in self._let_in_alone:
            self._let_in_alone.discard(call_id)
            self._alone.settle(call_id, spent)

    def release(self, call_id: str) -> None:
        self._trips.end((RELEASE, call_id))
        if call_id in self._let_in_alone:
            self._let_in_alone.discard(call_id)
            self._alone.release(call_id)

    def _give_back(self, waiting: Waiting) -> None:
        """The call was cancelled while it waited: what this ask is granted is given back."""
        call_id = waiting.ask.call_id
        self._stop_waiting(waiting)
        if waiting.tag:
            self._trips.end((UNDO, call_id, waiting.tag))
        if call_id in self._let_in_alone:
            self._let_in_alone.discard(call_id)
            self._alone.release(call_id)

    # Of pages, and of the comparison with the ledger

    async def figures(self, counters: Sequence[str]) -> Mapping[str, Figures]:
        """By quota counter; those that do not exist are missing. Raises errors.Unavailable."""
        found: dict[str, Figures] = {}
        for at in range(0, max(1, len(counters)), LOOK_BATCH):
            part = counters[at : at + LOOK_BATCH]
            rows, _, _ = await self._look(quotas=part)
            pairs = zip(part, rows, strict=True)
            found |= {name: Figures(*[int(each) for each in row]) for name, row in pairs if row}
        return found

    async def used(self, limits: Sequence[RateLimit]) -> Mapping[str, int]:
        """By `rate_counter`: in the window, or under way. Raises errors.Unavailable."""
        windows = [rate_counter(each) for each in limits if each.kind != "concurrent"]
        places = [rate_counter(each) for each in limits if each.kind == "concurrent"]
        _, sums, numbers = await self._look(windows=windows, places=places)
        return dict(zip([*windows, *places], [*sums, *numbers], strict=True))

    async def correct(self, counter: str, by: int) -> None:
        """Add so much to what was spent; nothing if there is no such counter. Raises errors.Unavailable."""
        await self._look(corrections=[(counter, *divmod(by, LIMB))])

    async def forget(self, counter: str) -> None:
        """The next call that needs this quota counter makes it anew. Raises errors.Unavailable."""
        await self._look(forgotten=[counter])

    async def _look(
        self,
        *,
        quotas: Sequence[str] = (),
        windows: Sequence[str] = (),
        places: Sequence[str] = (),
        corrections: Sequence[Row] = (),
        forgotten: Sequence[str] = (),
    ) -> Any:
        return await self._trips.look((quotas, windows, places, corrections, forgotten))

    # What Redis said of a call

    def heard(self, waiting: Waiting, reply: Sequence[Any]) -> None:
        kind = reply[0]
        if kind == ADMITTED:
            tell(waiting.answer, _admitted(waiting, reply[1:]))
        elif kind == EXCEEDED:
            tell(waiting.answer, worst_of([self._exceeded(waiting, each) for each in reply[1:]]))
        elif kind == MISSING:
            self._wait_for_counters(waiting, [waiting.quotas[at - 1] for at in reply[1:]], self._patience_s)
        else:
            self._trips.epoch = ""
            self._wait_for_counters(waiting, waiting.quotas, self._timeout_s)

    def _exceeded(self, waiting: Waiting, row: Sequence[Any]) -> Exceeded:
        if row[0] == 0:
            rate = waiting.ask.rates[row[1] - 1]
            wait_s = inf if rate.amount > rate.limit.amount else float(row[3])
            return Exceeded(rate.limit, rate.amount, row[2], 0, wait_s)
        quota = waiting.quotas[row[1] - 1]
        spent, held, expired = (int(each) for each in row[2:])
        wait_s = quota_retry_after(quota, spent, expired, int(self._wall_clock() * 1e6))
        return Exceeded(quota.quota, quota.amount, spent, held + expired, wait_s)

    # Counters that are to be made

    def _wait_for_counters(self, waiting: Waiting, quotas: Sequence[QuotaAsk], patience_s: float) -> None:
        waiting.uncounted, waiting.tag = quotas, 0
        if self._clock() < self._uncounted_until:
            self._cannot_count(waiting)
            return
        loop = asyncio.get_running_loop()
        self._until_made[waiting] = loop.call_later(patience_s, self._cannot_count, waiting)
        self._missing.update((each.counter, each) for each in quotas)
        self._make()

    def _make(self) -> None:
        """Begin to make what is missing, unless that is under way."""
        if self._making is None:
            wanted, self._missing = tuple(self._missing.values()), {}
            self._making = asyncio.create_task(self._maker.make(wanted))
            self._making.add_done_callback(self._made)

    def _made(self, task: asyncio.Task[str]) -> None:
        self._making = None
        if task.cancelled():
            return
        failure, waiting = task.exception(), list(self._until_made)
        if failure is not None:
            log.warning("The counters of quotas cannot be made: %r", failure)
            self._uncounted_until = self._clock() + UNCOUNTED_S
        else:
            self._trips.epoch = task.result()
        for each in waiting:
            if failure is not None:
                self._cannot_count(each)
            else:
                self._ask_again(each)

    def _cannot_count(self, waiting: Waiting) -> None:
        """Hard quotas refuse; soft ones are left out, and the ledger corrects their counters."""
        uncounted = waiting.uncounted
        if any(each.quota.hard for each in uncounted):
            self._stop_waiting(waiting)
            refuse(waiting.answer, _uncounted())
            return
        waiting.quotas = [each for each in waiting.quotas if each not in uncounted]
        self._ask_again(waiting)

    def _ask_again(self, waiting: Waiting) -> None:
        self._stop_waiting(waiting)
        if self._trips.away:
            self._answer_alone(waiting)
        else:
            self._trips.ask(waiting)

    def _stop_waiting(self, waiting: Waiting) -> None:
        timer = self._until_made.pop(waiting, None)
        if timer is not None:
            timer.cancel()

    # While Redis is away

    def went_away(self, waiting: Sequence[Waiting]) -> None:
        """Redis will not answer these, nor those whose counters are being made."""
        for each in (*waiting, *self._until_made):
            self._stop_waiting(each)
            self._answer_alone(each)

    def came_back(self) -> None:
        """Where it forgot everything, make that again before anybody needs it."""
        self._uncounted_until = -inf
        if not self._trips.epoch:
            self._make()

    def _answer_alone(self, waiting: Waiting) -> None:
        if waiting.answer.done():
            return
        try:
            answer = self._decide_alone(waiting.ask)
        except Unavailable as refusal:
            refuse(waiting.answer, refusal)
        else:
            waiting.tag = self._trips.tag
            tell(waiting.answer, answer)

    def _decide_alone(self, ask: Ask) -> Admitted | Exceeded:
        """By this process's share of the rate limits. Raises errors.Unavailable under a hard quota."""
        if any(each.quota.hard for each in ask.quotas):
            raise away()
        answer = self._alone.admit_now(Ask(ask.call_id, ask.lives_s, ask.rates))
        assert answer is not None, "without quotas there is nothing to wait for"
        if isinstance(answer, Admitted):
            self._let_in_alone.add(ask.call_id)
            self._enrol(ask)
        return answer

    def _enrol(self, ask: Ask) -> None:
        """Redis is told of the call when it is back, whatever its limits say then."""
        self._trips.tag += 1
        rates, quotas = [rate_row(each) for each in ask.rates], [quota_row(each) for each in ask.quotas]
        origin = (self._trips.tag, self._process, self._trips.epoch, self._clock(), ask.lives_s)
        self._trips.end((ENROL, ask.call_id, *origin, rates, quotas))

    # Of a process that is dead

    def adopt(self, process: str, ends: Sequence[tuple[str, Spent]]) -> None:
        """Settle its calls as the books have them, and give back all else that it held: that was never sent.

        May be called from any thread, and again. Raises errors.Unavailable where Redis is away.
        """
        rows: list[Row] = [
            (SETTLE, call_id, each.tokens, *divmod(each.cost_nanos, LIMB)) for call_id, each in ends
        ]
        try:
            with redis.Redis.from_url(
                self._url, socket_timeout=COLD_S, socket_connect_timeout=COLD_S
            ) as client:
                client.delete(f"pst:fence:{process}")  # nothing that it sent is admitted any more
                self._tell_all(client, rows)
                self._tell_all(client, [(RELEASE, each) for each in _held_by(client, process)])
        except redis.RedisError as wrong:
            raise away() from wrong

    def _tell_all(self, client: "redis.Redis", rows: Sequence[Row]) -> None:
        for at in range(0, len(rows), ENDS_BATCH):
            part = rows[at : at + ENDS_BATCH]
            client.eval(script("settle"), 0, encode((self._clock(), self._boot, part)))


def _held_by(client: "redis.Redis", process: str) -> list[str]:
    """Ids of calls that this process still holds something for, expired or not."""
    found: dict[str, None] = {}
    for key in ("pst:expiries", "pst:expired"):
        for member, _ in client.zscan_iter(key, match=f"{process} *", count=1000):
            found[member.decode().partition(" ")[2]] = None
    return list(found)


def _uncounted() -> Unavailable:
    refusal = Unavailable(
        "The gateway is adding up what was spent of a hard quota, so its calls are not let in yet. "
        "Try again shortly."
    )
    refusal.retry_after_s = RETRY_S
    return refusal


async def _no_survey(wanted: Sequence[QuotaAsk] | None) -> Survey:
    """This process counts no quotas alone."""
    raise AssertionError(f"nobody asks about {wanted}")


def _admitted(waiting: Waiting, figures: Sequence[Any]) -> Admitted:
    """Of each rate limit what remains, then of each quota what was used before."""
    rates, quotas = waiting.ask.rates, waiting.quotas
    left, used = figures[: len(rates)], figures[len(rates) :]
    return Admitted(
        tuple([_standing(rate, each) for rate, each in zip(rates, left, strict=True)]),
        tuple([Stood(ask.quota, ask.amount, int(each)) for ask, each in zip(quotas, used, strict=True)]),
    )


def _standing(rate: RateAsk, left: int) -> Standing:
    return Standing(rate.limit, left, rate.amount, rate.limit.amount - left - rate.amount)
