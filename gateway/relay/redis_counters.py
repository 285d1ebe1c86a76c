"""Rate limits and quotas counted in Redis, shared by all processes of one machine.

    calls of a turn ─┬─ admit  ─▶ one round trip ─▶ scripts/admit.lua
                     └─ settle ─▶   the same     ─▶ scripts/settle.lua

While a round trip is under way the next one gathers. What a call holds is in Redis, by its call id,
so a settlement needs no more than that, from whichever process it comes.
Redis holds no facts: what it forgets is made again from the ledger and the journals, by `survey`.
What applies to a call, and how much it asks for, is decided in `limits.py`.

When Redis is away, no call waits for it twice: rate limits are judged by this process's share of them,
hard quotas refuse, soft ones let through, and what ended is kept and told to Redis when it is back.
"""

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import redis

from accounts.caller import RateLimit
from gateway.errors import Unavailable
from gateway.relay.counters import LocalCounters, Share
from gateway.relay.holdings import Surveyor
from gateway.relay.limits import (
    Admitted,
    Ask,
    Exceeded,
    Figures,
    QuotaAsk,
    Spent,
    Standing,
    quota_retry_after,
    rate_counter,
    worst_of,
)
from gateway.relay.redis_link import Command, Link, LinkLost, RedisRefused, Reply, Talk, connected
from gateway.relay.redis_maker import Maker
from gateway.relay.redis_scripts import (
    DAY_S,
    ENROL,
    LIMB,
    RELEASE,
    SETTLE,
    UNDO,
    Row,
    decode,
    encode,
    quota_row,
    rate_row,
    script,
)

log = logging.getLogger(__name__)

TIMEOUT_S: Final = 0.25
"""So long a call waits for Redis, all together: hundreds of times what a round trip takes."""
PROBE_EVERY_S: Final = 0.25
PROBE_LASTS_S: Final = 5.0
"""So long one probe waits: a frozen Redis answers the probe that is there when it thaws."""
PATIENCE_S: Final = 2.0
"""So long a call waits for the ledger's sum of a quota that is new here, as where there is no Redis."""
UNCOUNTED_S: Final = 1.0
"""So long nobody tries to make counters again after the survey failed."""
BATCH: Final = 256
"""Calls a round trip: Redis does nothing else meanwhile, some milliseconds."""
ENDS_BATCH: Final = 512
LOOK_BATCH: Final = 1000
OPEN_S: Final = 2.0
COLD_S: Final = 2.0
"""So long what is no call waits for Redis."""
RETRY_S: Final = 1.0
ENDS_KEPT: Final = 100_000
"""Ends that wait while Redis is away; some 30 MB. Beyond that the comparison with the ledger corrects."""
ADMITTED, EXCEEDED, MISSING = 1, 0, 2
"""How `admit.lua` answers; otherwise no counter is there."""

T = TypeVar("T")


def boot_id() -> str:
    """Changes when the machine starts, and its steady clock with it; empty where that is not told."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def steady_s() -> float:
    """Seconds since the machine started: the same for all its processes, and no wall clock moves it."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Waiting:
    """A call that waits for its answer."""

    __slots__ = ("answer", "ask", "quotas", "tag", "uncounted", "until")

    def __init__(self, ask: Ask, answer: "asyncio.Future[Admitted | Exceeded]", until: float) -> None:
        self.ask, self.answer = ask, answer
        self.until = until
        """When the loop's clock says that Redis had its time."""
        self.quotas: Sequence[QuotaAsk] = ask.quotas
        """Those that are asked of Redis: a soft one that cannot be counted is left out."""
        self.uncounted: Sequence[QuotaAsk] = ()
        """Those whose counters are being made."""
        self.tag = 0

    def row(self) -> Row:
        ask = self.ask
        return (
            ask.call_id,
            ask.lives_s,
            [rate_row(each) for each in ask.rates],
            [quota_row(each) for each in self.quotas],
        )


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
        self._maker = Maker(url, survey, clock, wall_clock, self._boot)
        self._alone = LocalCounters(_no_sums, clock=clock, wall_clock=wall_clock, share=share)
        self._let_in_alone: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._link: Link | None = None
        self._why = "it was not asked yet"
        self._shas: dict[str, bytes] = {}
        self._fence = ""
        self._epoch = ""
        self._tag = 0
        self._asks: deque[Waiting] = deque()
        self._ends: deque[Row] = deque()
        self._looks: deque[Look] = deque()
        self._sent = Sent()
        self._flush_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._probing: asyncio.Task[None] | None = None
        self._dropped = 0
        self._short: dict[Waiting, asyncio.TimerHandle] = {}
        self._missing: dict[str, QuotaAsk] = {}
        self._making: asyncio.Task[str] | None = None
        self._uncounted_until = -inf

    def __repr__(self) -> str:
        state = "away" if self.away else "there"
        return f"<RedisCounters {state}, {len(self._asks)} calls and {len(self._ends)} ends wait>"

    @property
    def away(self) -> bool:
        """Redis does not answer, so this process counts its share of the rate limits, and no quotas."""
        return self._link is None

    @property
    def away_because(self) -> str:
        """In words, for a person; empty where it is there."""
        return self._why if self.away else ""

    @property
    def unsent(self) -> int:
        """Ends that Redis was not told of yet."""
        return len(self._ends) + len(self._sent.ends)

    # Of the process

    async def open(self) -> None:
        """Begin to count. Returns soon, also where Redis is away."""
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(OPEN_S):
                await self._come_back()
        except (LinkLost, RedisRefused, OSError) as wrong:  # TimeoutError is an OSError
            self._why = _words(wrong)
            log.warning("Redis is away: %s", self._why)
            self._probe()

    async def close(self) -> None:
        """Tell Redis what ended, if it is there, and leave it."""
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                await self._look()
        link, self._link = self._link, None
        if link is not None:
            link.close()
        if self._timer is not None:
            self._timer.cancel()
        self._answer_all_alone()
        tasks = [each for each in (self._probing, self._making) if each is not None]
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._maker.close()
        await self._alone.close()

    # Of calls

    def admit_now(self, ask: Ask) -> Admitted | Exceeded | None:
        return None

    async def admit(self, ask: Ask) -> Admitted | Exceeded:
        if not ask.rates and not ask.quotas:
            return Admitted()
        if self._link is None:
            return self._decide_alone(ask)
        loop = self._loop
        assert loop is not None
        waiting = Waiting(ask, loop.create_future(), loop.time() + self._timeout_s)
        self._asks.append(waiting)
        self._flush_soon()
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            self._give_back(waiting)
            raise

    def settle(self, call_id: str, spent: Spent) -> None:
        self._end((SETTLE, call_id, spent.tokens, *divmod(spent.cost_nanos, LIMB)))
        if call_id in self._let_in_alone:
            self._let_in_alone.discard(call_id)
            self._alone.settle(call_id, spent)

    def release(self, call_id: str) -> None:
        self._end((RELEASE, call_id))
        if call_id in self._let_in_alone:
            self._let_in_alone.discard(call_id)
            self._alone.release(call_id)

    def _end(self, end: Row) -> None:
        if len(self._ends) < ENDS_KEPT:
            self._ends.append(end)
            self._flush_soon()
            return
        if not self._dropped:
            log.error(
                "Redis is away for so long that ends of calls are dropped: its counters are corrected later"
            )
        self._dropped += 1

    def _give_back(self, waiting: Waiting) -> None:
        """The call was cancelled while it waited: what this ask is granted is given back."""
        call_id = waiting.ask.call_id
        self._stop_waiting(waiting)
        if waiting.tag:
            self._end((UNDO, call_id, waiting.tag))
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
        """After all that ended until now. Raises errors.Unavailable."""
        if self._link is None or self._loop is None:
            raise _away()
        while len(self._ends) > ENDS_BATCH:
            await self._ask_to_look(((), (), (), (), ()))
        return await self._ask_to_look((quotas, windows, places, corrections, forgotten))

    async def _ask_to_look(self, row: Row) -> Any:
        assert self._loop is not None
        if self._link is None:
            raise _away()
        look = Look(row, self._loop.create_future())
        self._looks.append(look)
        self._flush_soon()
        return await look.answer

    # Round trips

    def _flush_soon(self) -> None:
        if self._flush_due or self._sent.under_way or self._link is None:
            return
        self._flush_due = True
        assert self._loop is not None
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send what has gathered: what ended first, so that what it frees is free."""
        self._flush_due = False
        if self._sent.under_way or self._link is None:
            return
        sent = Sent(_some(self._ends, ENDS_BATCH), _some(self._looks, 1), self._some_asks())
        if not sent.under_way:
            return
        self._sent = sent
        assert self._loop is not None
        self._timer = self._loop.call_later(self._patience(sent), self._late)
        self._link.send(self._commands(sent))

    def _some_asks(self) -> list[Waiting]:
        found = [each for each in _some(self._asks, BATCH) if not each.answer.done()]
        if found:
            self._tag += 1
            for each in found:
                each.tag = self._tag
        return found

    def _patience(self, sent: "Sent") -> float:
        """Seconds until the first of them has waited long enough; a little, where this process was late."""
        assert self._loop is not None
        if not sent.asks:
            return self._timeout_s
        return max(self._timeout_s / 4, sent.asks[0].until - self._loop.time())

    def _commands(self, sent: "Sent") -> list[Command]:
        found: list[Command] = []
        now, boot = self._clock(), self._boot
        if sent.ends:
            found.append(self._command("settle", (now, boot, sent.ends)))
        found += [self._command("look", (now, boot, *each.row)) for each in sent.looks]
        if sent.asks:
            found.append(self._admit_command(now, [each.row() for each in sent.asks]))
        return found

    def _admit_command(self, now: float, rows: Sequence[Row]) -> Command:
        return self._command("admit", (self._process, self._fence, now, self._boot, self._tag, rows))

    def _command(self, name: str, row: Row) -> Command:
        return (b"EVALSHA", self._shas[name], b"0", encode(row))

    def _answered(self, replies: list[Reply]) -> None:
        try:
            answers = [_decoded(each) for each in replies]
        except (RedisRefused, LinkLost) as wrong:
            self._go_away(str(wrong))
            return
        if self._timer is not None:
            self._timer.cancel()
        sent, self._sent = self._sent, Sent()
        for look in sent.looks:
            _tell(look.answer, answers[1 if sent.ends else 0])
        if sent.asks:
            for waiting, answer in zip(sent.asks, answers[-1], strict=True):
                self._hear(waiting, answer)
        if self._ends or self._looks or self._asks:
            self._flush()

    # What Redis said of a call

    def _hear(self, waiting: Waiting, reply: Sequence[Any]) -> None:
        kind = reply[0]
        if kind == ADMITTED:
            rates = waiting.ask.rates
            standings = [Standing(rate.limit, left) for rate, left in zip(rates, reply[1:], strict=True)]
            _tell(waiting.answer, Admitted(tuple(standings)))
        elif kind == EXCEEDED:
            _tell(waiting.answer, worst_of([self._exceeded(waiting, each) for each in reply[1:]]))
        elif kind == MISSING:
            self._wait_for_counters(waiting, [waiting.quotas[at - 1] for at in reply[1:]], self._patience_s)
        else:
            self._epoch = ""
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
        assert self._loop is not None
        self._short[waiting] = self._loop.call_later(patience_s, self._cannot_count, waiting)
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
        failure, waiting = task.exception(), list(self._short)
        if failure is not None:
            log.warning("The counters of quotas cannot be made: %r", failure)
            self._uncounted_until = self._clock() + UNCOUNTED_S
        else:
            self._epoch = task.result()
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
            _refuse(waiting.answer, _uncounted())
            return
        waiting.quotas = [each for each in waiting.quotas if each not in uncounted]
        self._ask_again(waiting)

    def _ask_again(self, waiting: Waiting) -> None:
        self._stop_waiting(waiting)
        if self._link is None:
            self._answer_alone(waiting)
            return
        assert self._loop is not None
        waiting.until = self._loop.time() + self._timeout_s
        self._asks.append(waiting)
        self._flush_soon()

    def _stop_waiting(self, waiting: Waiting) -> None:
        timer = self._short.pop(waiting, None)
        if timer is not None:
            timer.cancel()

    # While Redis is away

    def _late(self) -> None:
        self._go_away(f"it did not answer within {self._timeout_s:g} s")

    def _lost(self, link: Link, why: str) -> None:
        self._go_away(why)

    def _go_away(self, why: str) -> None:
        """From now on no call waits for Redis, until a probe finds it again."""
        link, self._link = self._link, None
        if link is None:
            return
        self._why = why
        log.warning("Redis is away: %s", why)
        link.close()
        if self._timer is not None:
            self._timer.cancel()
        sent, self._sent = self._sent, Sent()
        self._ends.extendleft(reversed(sent.ends))  # to be sent again
        for waiting in sent.asks:  # whatever becomes of what was sent, nobody holds it
            self._end((UNDO, waiting.ask.call_id, waiting.tag))
            waiting.tag = 0
        self._asks.extendleft(reversed(sent.asks))
        self._looks.extendleft(sent.looks)
        self._answer_all_alone()
        self._probe()

    def _answer_all_alone(self) -> None:
        while self._asks:
            self._answer_alone(self._asks.popleft())
        for waiting in list(self._short):
            self._stop_waiting(waiting)
            self._answer_alone(waiting)
        while self._looks:
            _refuse(self._looks.popleft().answer, _away())

    def _answer_alone(self, waiting: Waiting) -> None:
        if waiting.answer.done():
            return
        try:
            answer = self._decide_alone(waiting.ask)
        except Unavailable as refusal:
            _refuse(waiting.answer, refusal)
        else:
            waiting.tag = self._tag
            _tell(waiting.answer, answer)

    def _decide_alone(self, ask: Ask) -> Admitted | Exceeded:
        """By this process's share of the rate limits. Raises errors.Unavailable under a hard quota."""
        if any(each.quota.hard for each in ask.quotas):
            raise _away()
        answer = self._alone.admit_now(Ask(ask.call_id, ask.lives_s, ask.rates))
        assert answer is not None, "without quotas there is nothing to wait for"
        if isinstance(answer, Admitted):
            self._let_in_alone.add(ask.call_id)
            self._enrol(ask)
        return answer

    def _enrol(self, ask: Ask) -> None:
        """Redis is told of the call when it is back, whatever its limits say then."""
        self._tag += 1
        rates, quotas = [rate_row(each) for each in ask.rates], [quota_row(each) for each in ask.quotas]
        origin = (self._tag, self._process, self._epoch, self._clock(), ask.lives_s)
        self._end((ENROL, ask.call_id, *origin, rates, quotas))

    def _probe(self) -> None:
        if self._probing is None:
            self._probing = asyncio.create_task(self._find())

    async def _find(self) -> None:
        """Ask whether Redis is back, until it is."""
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            try:
                async with asyncio.timeout(PROBE_LASTS_S):
                    await self._come_back()
                break
            except (LinkLost, RedisRefused, OSError) as wrong:  # that it is away was said already
                self._why = _words(wrong)
        self._probing = None
        log.warning(
            "Redis is back; %d ends of calls are sent, %d were dropped", len(self._ends), self._dropped
        )
        self._dropped = 0

    async def _come_back(self) -> None:
        """Connect, and count there again. Raises LinkLost, RedisRefused, OSError."""
        talk = await connected(self._url)
        try:
            await self._greet(talk)
        except BaseException:
            talk.link.close()
            raise
        self._link = talk.hand_on(self._answered, self._lost)
        if not self._epoch:
            self._make()
        self._flush_soon()

    async def _greet(self, talk: Talk) -> None:
        """Fence off what an earlier connection may still bring, and see whether Redis admits in time."""
        for name in ("admit", "settle", "look"):
            (sha,) = await talk.ask((b"SCRIPT", b"LOAD", script(name).encode()))
            self._shas[name] = _blob(sha)
        self._fence = secrets.token_hex(4)
        fence = b"pst:fence:" + self._process.encode()
        await talk.ask((b"SET", fence, self._fence.encode(), b"EX", b"%d" % (3 * DAY_S)))
        async with asyncio.timeout(self._timeout_s):
            _, epoch = await talk.ask(self._admit_command(self._clock(), ()), (b"GET", b"pst:epoch"))
        self._epoch = _blob(epoch).decode() if epoch is not None else ""

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
                self._tell(client, rows)
                self._tell(client, [(RELEASE, each) for each in _held_by(client, process)])
        except redis.RedisError as wrong:
            raise _away() from wrong

    def _tell(self, client: "redis.Redis", rows: Sequence[Row]) -> None:
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


class Look(msgspec.Struct, frozen=True, eq=False):
    """A question of pages, and who waits for its answer."""

    row: Row
    answer: "asyncio.Future[Any]"


class Sent:
    """What one round trip carries."""

    __slots__ = ("asks", "ends", "looks", "under_way")

    def __init__(
        self, ends: Sequence[Row] = (), looks: Sequence[Look] = (), asks: Sequence[Waiting] = ()
    ) -> None:
        self.ends, self.looks, self.asks = ends, looks, asks
        self.under_way = bool(ends or looks or asks)


def _some(queue: deque[T], most: int) -> list[T]:
    """The first of a queue, taken out."""
    if len(queue) <= most:
        found = list(queue)
        queue.clear()
        return found
    return [queue.popleft() for _ in range(most)]


def _decoded(reply: Reply) -> Any:
    """What a script answered. Raises RedisRefused, LinkLost."""
    if isinstance(reply, RedisRefused):
        raise reply
    return reply if isinstance(reply, int) else decode(_blob(reply))


def _blob(reply: Reply) -> bytes:
    """Raises LinkLost."""
    if not isinstance(reply, bytes):
        raise LinkLost(f"it answered {reply!r} where a string was asked for")
    return reply


def _tell(waits: "asyncio.Future[T]", answer: T) -> None:
    """Unless nobody waits any more."""
    if not waits.done():
        waits.set_result(answer)


def _refuse(waits: "asyncio.Future[T]", why: Unavailable) -> None:
    if not waits.done():
        waits.set_exception(why)


def _words(wrong: Exception) -> str:
    return str(wrong) or "it does not answer in time"


def _away() -> Unavailable:
    refusal = Unavailable(
        "The gateway cannot count at the moment what was spent, so calls under a hard quota are not let in. "
        "Try again shortly."
    )
    refusal.retry_after_s = RETRY_S
    return refusal


def _uncounted() -> Unavailable:
    refusal = Unavailable(
        "The gateway is adding up what was spent of a hard quota, so its calls are not let in yet. "
        "Try again shortly."
    )
    refusal.retry_after_s = RETRY_S
    return refusal


async def _no_sums(wanted: Sequence[QuotaAsk]) -> Mapping[str, int]:
    """This process counts no quotas alone."""
    raise AssertionError(f"nobody asks for {len(wanted)} sums")
