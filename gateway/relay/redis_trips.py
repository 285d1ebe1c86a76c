"""Round trips to Redis: what gathers while one is under way goes with the next.

    asks, ends, looks ─▶ gathered ─▶ sent ─▶ heard
                             ▲         │ no answer in time, or the connection ended
                             └── ends ─┴─▶ away, until a probe finds Redis again

Knows when Redis is away. What is admitted then is left to whoever listens.
"""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from typing import Any, Final, Protocol, TypeVar

import msgspec

from gateway.errors import Unavailable
from gateway.relay.limits import Admitted, Ask, Exceeded, QuotaAsk
from gateway.relay.redis_link import Command, Link, LinkLost, RedisRefused, Reply, Talk, connected
from gateway.relay.redis_scripts import DAY_S, UNDO, Row, decode, encode, quota_row, rate_row, script

log = logging.getLogger(__name__)

OPEN_S: Final = 2.0
PROBE_EVERY_S: Final = 0.25
PROBE_LASTS_S: Final = 5.0
"""So long one probe waits: a frozen Redis answers the probe that is there when it thaws."""
BATCH: Final = 256
"""Calls a round trip: Redis does nothing else meanwhile, some milliseconds."""
ENDS_BATCH: Final = 512
ENDS_KEPT: Final = 100_000
"""Ends that wait while Redis is away; some 30 MB. Beyond that the comparison with the ledger corrects."""
FENCE_S: Final = 3 * DAY_S
RETRY_S: Final = 1.0

NOTHING: Final[Row] = ((), (), (), (), ())
"""To look at, which is how one learns that all before it is done."""

T = TypeVar("T")


class Waiting:
    """A call that waits for its answer."""

    __slots__ = ("answer", "ask", "quotas", "tag", "uncounted", "until")

    def __init__(self, ask: Ask, answer: "asyncio.Future[Admitted | Exceeded]") -> None:
        self.ask, self.answer = ask, answer
        self.until = inf
        """When the loop's clock says that Redis had its time; infinite: that has not begun."""
        self.quotas: Sequence[QuotaAsk] = ask.quotas
        """Those that are asked of Redis: a soft one that cannot be counted is left out."""
        self.uncounted: Sequence[QuotaAsk] = ()
        """Those whose counters are being made."""
        self.tag = 0
        """Of what was taken for it, or may be; 0: nothing."""

    def row(self) -> Row:
        ask = self.ask
        return (
            ask.call_id,
            ask.lives_s,
            [rate_row(each) for each in ask.rates],
            [quota_row(each) for each in self.quotas],
        )


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


class Listener(Protocol):
    """Who asked."""

    def heard(self, waiting: Waiting, answer: Sequence[Any], /) -> None:
        """What admit.lua said of a call."""

    def went_away(self, waiting: Sequence[Waiting], /) -> None:
        """Redis will not answer these."""

    def came_back(self) -> None:
        """It is there; `epoch` tells whether its counters are."""


class RoundTrips:
    """One at a time, on one event loop. `boot` and `clock` are the machine's; see common.lua."""

    def __init__(
        self,
        url: str,
        process: str,
        listener: Listener,
        *,
        clock: Callable[[], float],
        boot: str,
        timeout_s: float,
    ) -> None:
        self._url, self._process, self._listener = url, process, listener
        self._clock, self._boot, self._timeout_s = clock, boot, timeout_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._link: Link | None = None
        self.why_away = "it was not asked yet"
        self.epoch = ""
        """Of the counters that were there when it was last looked at; empty: none."""
        self.tag = 0
        """Of the asks that were sent last: what one round trip took can be told from all else of a call."""
        self._shas: dict[str, bytes] = {}
        self._fence = ""
        self._asks: deque[Waiting] = deque()
        self._ends: deque[Row] = deque()
        self._looks: deque[Look] = deque()
        self._sent = Sent()
        self._flush_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._probing: asyncio.Task[None] | None = None
        self._dropped = 0

    def __repr__(self) -> str:
        state = f"away: {self.why_away}" if self.away else "there"
        return f"<RoundTrips {state}, {len(self._asks)} calls and {self.unsent} ends wait>"

    @property
    def away(self) -> bool:
        return self._link is None

    @property
    def unsent(self) -> int:
        """Ends that Redis has not confirmed."""
        return len(self._ends) + len(self._sent.ends)

    async def open(self) -> None:
        """Returns soon, also where Redis is away."""
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(OPEN_S):
                await self._come_back()
        except (LinkLost, RedisRefused, OSError) as wrong:  # TimeoutError is an OSError
            self.why_away = _words(wrong)
            log.warning("Redis is away: %s", self.why_away)
            self._probe()

    async def close(self) -> None:
        """Send what ended, if Redis is there, and leave it. Who still waits is told that it is away."""
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                await self.look(NOTHING)
        self._leave("this process leaves it")
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)

    # What is to be sent

    def waiting(self, ask: Ask) -> Waiting:
        """Ask on behalf of a call."""
        assert self._loop is not None
        waiting = Waiting(ask, self._loop.create_future())
        self.ask(waiting)
        return waiting

    def ask(self, waiting: Waiting) -> None:
        """Redis has its time anew: from now on if it is busy with others, else once it is asked.

        What this process takes for a crowd that comes all at once is not Redis's time.
        """
        assert self._loop is not None
        waiting.until = self._loop.time() + self._timeout_s if self._sent.under_way else inf
        self._asks.append(waiting)
        self._flush_soon()

    def end(self, end: Row) -> None:
        """Kept until Redis has it."""
        if len(self._ends) < ENDS_KEPT:
            self._ends.append(end)
            self._flush_soon()
            return
        if not self._dropped:
            log.error("Redis was away for long: ends of calls are dropped, and its counters corrected later")
        self._dropped += 1

    async def look(self, row: Row) -> Any:
        """See look.lua. After all that ended until now. Raises errors.Unavailable."""
        while len(self._ends) > ENDS_BATCH:
            await self._look(NOTHING)
        return await self._look(row)

    async def _look(self, row: Row) -> Any:
        if self._link is None or self._loop is None:
            raise away()
        look = Look(row, self._loop.create_future())
        self._looks.append(look)
        self._flush_soon()
        return await look.answer

    # One round trip

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
        self._timer = self._loop.call_later(self._patience(sent) - self._timeout_s / 4, self._last_look)
        self._link.send(self._commands(sent))

    def _some_asks(self) -> list[Waiting]:
        found = [each for each in _some(self._asks, BATCH) if not each.answer.done()]
        if found:
            self.tag += 1
            for each in found:
                each.tag = self.tag
        return found

    def _patience(self, sent: Sent) -> float:
        """Seconds until the first of them has waited long enough; a little, where this process was late."""
        assert self._loop is not None
        if not sent.asks:
            return self._timeout_s
        left_s = sent.asks[0].until - self._loop.time()
        return min(self._timeout_s, max(self._timeout_s / 2, left_s))

    def _commands(self, sent: Sent) -> list[Command]:
        found: list[Command] = []
        now, boot = self._clock(), self._boot
        if sent.ends:
            found.append(self._command("settle", (now, boot, sent.ends)))
        found += [self._command("look", (now, boot, *each.row)) for each in sent.looks]
        if sent.asks:
            found.append(self._admit_command(now, [each.row() for each in sent.asks]))
        return found

    def _admit_command(self, now: float, rows: Sequence[Row]) -> Command:
        return self._command("admit", (self._process, self._fence, now, self._boot, self.tag, rows))

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
            tell(look.answer, answers[1 if sent.ends else 0])
        if sent.asks:
            for waiting, answer in zip(sent.asks, answers[-1], strict=True):
                self._listener.heard(waiting, answer)
        if self._ends or self._looks or self._asks:
            self._flush()

    # While Redis is away

    def _last_look(self) -> None:
        """The last quarter of its time begins only now: a loop that was busy runs what is due
        before it reads, so the answer may be there and be read in the next turn."""
        assert self._loop is not None
        self._timer = self._loop.call_later(self._timeout_s / 4, self._late)

    def _late(self) -> None:
        self._go_away(f"it did not answer within {self._timeout_s:g} s")

    def _go_away(self, why: str) -> None:
        """From now on no call waits for Redis, until a probe finds it again."""
        if self._link is not None:
            log.warning("Redis is away: %s", why)
            self._leave(why)
            self._probe()

    def _leave(self, why: str) -> None:
        """What was sent may be done, or be done later: it is sent again, or undone."""
        link, self._link = self._link, None
        self.why_away = why
        if link is not None:
            link.close()
        if self._timer is not None:
            self._timer.cancel()
        sent, self._sent = self._sent, Sent()
        self._ends.extendleft(reversed(sent.ends))
        for waiting in sent.asks:
            self.end((UNDO, waiting.ask.call_id, waiting.tag))
            waiting.tag = 0
        for look in (*sent.looks, *self._looks):
            refuse(look.answer, away())
        left = [*sent.asks, *self._asks]
        self._asks.clear()
        self._looks.clear()
        self._listener.went_away(left)

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
                self.why_away = _words(wrong)
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
        self._link = talk.hand_on(self._answered, self._go_away)
        self._listener.came_back()
        self._flush_soon()

    async def _greet(self, talk: Talk) -> None:
        """Fence off what an earlier connection may still bring, and see whether Redis admits in time."""
        for name in ("admit", "settle", "look"):
            (sha,) = await talk.ask((b"SCRIPT", b"LOAD", script(name).encode()))
            self._shas[name] = _blob(sha)
        self._fence = secrets.token_hex(4)
        fence = b"pst:fence:" + self._process.encode()
        await talk.ask((b"SET", fence, self._fence.encode(), b"EX", b"%d" % FENCE_S))
        async with asyncio.timeout(self._timeout_s):
            _, epoch = await talk.ask(self._admit_command(self._clock(), ()), (b"GET", b"pst:epoch"))
        self.epoch = _blob(epoch).decode() if epoch is not None else ""


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


def tell(waits: "asyncio.Future[T]", answer: T) -> None:
    """Unless nobody waits any more."""
    if not waits.done():
        waits.set_result(answer)


def refuse(waits: "asyncio.Future[T]", why: Unavailable) -> None:
    if not waits.done():
        waits.set_exception(why)


def _words(wrong: Exception) -> str:
    return str(wrong) or "it does not answer in time"


def away() -> Unavailable:
    refusal = Unavailable(
        "The gateway cannot count at the moment what was spent, so calls under a hard quota are not let in. "
        "Try again shortly."
    )
    refusal.retry_after_s = RETRY_S
    return refusal
