"""Rate limits and quotas as arithmetic: what applies to a call, how much it asks for, when to come back.

Pure: values and moments in, values out. What is used is counted in `counters.py`, here or in Redis;
how a refusal reads is in `wording.py`.
"""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from math import inf
from typing import Final, Literal
from zoneinfo import ZoneInfo

from msgspec import Struct

from accounts.caller import Caller, Period, Quota, QuotaKind, RateLimit
from gateway.relay.records import Seen

WINDOW_S: Final = 60
BUCKETS: Final = WINDOW_S + 1
"""The window's whole seconds, and the one that has only partly left it, which is counted in full."""
UNDER_WAY_RETRY_S: Final = 1.0
"""When to come back where only calls under way are in the way: nobody knows when they end."""
SHARE_RETRY_S: Final = 5.0
"""When to come back where a call fits its limit and not this process's share of it, a passing state."""


class RateAsk(Struct, frozen=True, gc=False):
    """So much of one rate limit: a request, tokens, or a place among the calls under way."""

    limit: RateLimit
    amount: int


class QuotaAsk(Struct, frozen=True, gc=False):
    """So much of one quota, in its unit, in the period that the call began in."""

    quota: Quota
    counter: str
    """The name of the quota's counter for that period; see `counter_of`."""
    amount: int
    ends_at_us: int
    """When the period ends, in microseconds since the Unix epoch."""


class Ask(Struct, frozen=True, gc=False):
    """All that one call must be granted before it is let in, or before its next attempt."""

    call_id: str
    lives_s: float
    """After this long a hold that nobody settled becomes spend."""
    rates: tuple[RateAsk, ...] = ()
    quotas: tuple[QuotaAsk, ...] = ()


class Standing(Struct, frozen=True, gc=False):
    """A rate limit right after a call was let in."""

    limit: RateLimit
    remaining: int
    asked: int = 1
    used: int = 0
    """Before that."""


class Stood(Struct, frozen=True, gc=False):
    """A quota right before a call was let in."""

    quota: Quota
    asked: int
    used: int
    """Spent, held and expired."""


class Admitted(Struct, frozen=True, gc=False):
    """Everything was granted."""

    standings: tuple[Standing, ...] = ()
    """Of each rate limit that was asked, in the order of the asking."""
    quotas: tuple[Stood, ...] = ()
    """Of each quota that was asked and is counted."""


class Exceeded(Struct, frozen=True):
    """Nothing was granted, because of this rate limit or quota."""

    bound: RateLimit | Quota
    asked: int
    used: int
    """Of a rate limit, what is in the window or under way; of a quota, what was spent."""
    held: int
    """Of a quota, what calls under way hold, and what is counted as spent because they never settled."""
    retry_after_s: float
    """Until so much is free again, as far as is known; infinite where more is asked than the whole amount."""


class Spent(Struct, frozen=True, gc=False):
    """What a call used in the end, all attempts together."""

    tokens: int = 0
    cost_nanos: int = 0


class Amounts(Struct, frozen=True, gc=False):
    """What a call may use of the quotas: expected, or at worst."""

    tokens: int = 0
    cost_nanos: int = 0


class Figures(Struct, frozen=True):
    """One quota counter, in the quota's unit. What it leaves free is the amount less all three."""

    spent: int = 0
    """Of calls that were settled."""
    held: int = 0
    """Of reservations alive."""
    expired: int = 0
    """Of reservations that were not settled in time; corrected when they are."""

    @property
    def total(self) -> int:
        """All that stands against the quota's amount."""
        return self.spent + self.held + self.expired


# As the books keep them


def seen(granted: Iterable[Admitted]) -> tuple[Seen, ...]:
    """Every rate limit and quota of a call with its figures at admission."""
    found = []
    for each in granted:
        found += [seen_rate(rate.limit, rate.asked, rate.used) for rate in each.standings]
        found += [seen_quota(stood.quota, stood.asked, stood.used) for stood in each.quotas]
    return tuple(found)


def seen_rate(limit: RateLimit, asked: int, used: int) -> Seen:
    """`used` is without what is asked."""
    period: Literal["call", "minute"] = "call" if limit.kind == "concurrent" else "minute"
    return Seen(limit.owner.kind, limit.kind, period, limit.amount, used, asked, False, limit.model_name)


def seen_quota(quota: Quota, asked: int, used: int) -> Seen:
    """`used` is spent and held together, without what is asked."""
    return Seen(quota.owner.kind, quota.kind, quota.period, quota.amount, used, asked, quota.hard)


# What applies, and how much of it


def ask_of(
    call_id: str,
    caller: Caller,
    model_name: str,
    started_at_us: int,
    lives_s: float,
    prompt_tokens_estimate: int,
    max_tokens: int,
    expected: Amounts,
    worst: Amounts,
) -> Ask:
    """What a call must be granted: hard quotas are asked for its worst case, soft ones for what is expected.

    `max_tokens` is what the answer may use at most, for the rate limits.
    Does not look at what is used already.
    """
    tokens = prompt_tokens_estimate + max_tokens
    return Ask(
        call_id,
        lives_s,
        tuple(
            [
                RateAsk(each, tokens if each.kind == "tokens" else 1)
                for each in caller.rate_limits
                if not each.model_name or each.model_name == model_name
            ]
        ),
        tuple([_quota_ask(each, started_at_us, worst if each.hard else expected) for each in caller.quotas]),
    )


def _quota_ask(quota: Quota, started_at_us: int, amounts: Amounts) -> QuotaAsk:
    counter, _, ends_at_us = counter_of(quota, started_at_us)
    if quota.kind == "money":
        return QuotaAsk(quota, counter, amounts.cost_nanos, ends_at_us)
    return QuotaAsk(quota, counter, amounts.tokens if quota.kind == "tokens" else 1, ends_at_us)


# The names of counters, and the periods of quotas


def rate_counter(limit: RateLimit) -> str:
    """The name of a rate limit's counter; a limit that changes its kind begins anew."""
    return f"l{limit.id}:{limit.kind}"


def counter_of(quota: Quota, started_at_us: int) -> tuple[str, int, int]:
    """The counter's name for the period that holds this moment, and when that begins and ends.

    The moments in microseconds since the Unix epoch; the end is the first that is not part of it.
    """
    last = _last_counters.get(quota.id)
    if last is not None:
        found, kind, period, zone = last
        # Each part is compared, because an administrator may change any of them.
        if (
            found[1] <= started_at_us < found[2]
            and kind == quota.kind
            and period == quota.period
            and zone == quota.zone
        ):
            return found
    start_us, end_us = period_of(quota.period, quota.zone, started_at_us)
    name = f"q{quota.id}:{quota.kind}:{quota.period}:{start_us // 1_000_000}"
    if len(_last_counters) >= MOST_REMEMBERED:
        _last_counters.clear()
    _last_counters[quota.id] = (name, start_us, end_us), quota.kind, quota.period, quota.zone
    return name, start_us, end_us


MOST_REMEMBERED: Final = 10_000
_last_counters: dict[int, tuple[tuple[str, int, int], QuotaKind, Period, str]] = {}
"""What was last told of a quota: a thousand calls in a row ask for the same."""
_last_periods: dict[tuple[Period, str], tuple[int, int]] = {}
"""The period that was last asked for; as many as there are zones in use, times two."""


def period_of(period: Period, zone: str, at_us: int) -> tuple[int, int]:
    """The calendar day or month of a time zone that holds this moment: its begin, and the next one's.

    In microseconds since the Unix epoch. A day has 23 or 25 hours where the clocks change.
    Raises ZoneInfoNotFoundError.
    """
    last = _last_periods.get((period, zone))
    if last is None or not last[0] <= at_us < last[1]:
        last = _last_periods[period, zone] = _period(period, ZoneInfo(zone), at_us)
    return last


def _period(period: Period, zone: ZoneInfo, at_us: int) -> tuple[int, int]:
    first = datetime.fromtimestamp(at_us // 1_000_000, zone).date()
    if period == "month":
        first = first.replace(day=1)
    following = _following(period, first)
    if at_us >= _begin_us(following, zone):
        # Clocks were set back over midnight, so the date of this hour comes a second time;
        # the new day, once begun, goes on.
        first, following = following, _following(period, following)
    return _begin_us(first, zone), _begin_us(following, zone)


def _following(period: Period, first: date) -> date:
    if period == "day":
        return first + timedelta(days=1)
    return (first + timedelta(days=31)).replace(day=1)


def _begin_us(day: date, zone: ZoneInfo) -> int:
    """The first moment of a date. Where the clocks skip midnight, the moment of the change."""
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * 1_000_000


# Windows


class Window:
    """How much there was in the last minute, in one-second buckets with a running sum.

    The oldest bucket is counted in full until all of it is 60 seconds old.
    So there is never more than the limit in any 60 s, and a place returns at most 1 s late.
    Knows no clock: moments are seconds of one that never goes back.
    """

    __slots__ = ("_buckets", "second", "used")

    def __init__(self) -> None:
        self._buckets = [0] * BUCKETS
        self.second = 0
        """The newest bucket's."""
        self.used = 0
        """All buckets together."""

    def advance(self, now_s: float) -> None:
        """Forget what has left the window. A moment before the newest bucket changes nothing."""
        buckets, second = self._buckets, int(now_s)
        for passed in range(min(second - self.second, BUCKETS)):
            at = (second - passed) % BUCKETS
            self.used -= buckets[at]
            buckets[at] = 0
        self.second = max(second, self.second)

    def take(self, amount: int) -> int:
        """Count so much in the newest bucket, and say which second that is."""
        self._buckets[self.second % BUCKETS] += amount
        self.used += amount
        return self.second

    def correct(self, second: int, by: int) -> None:
        """It was more, or less, than was taken in that second. Nothing if that has left the window."""
        if by and self.second - BUCKETS < second <= self.second:
            self._buckets[second % BUCKETS] += by
            self.used += by

    def retry_after(self, asked: int, amount: int, now_s: float) -> float:
        """Seconds until so much fits the limit's amount; infinite where it never will."""
        if asked > amount:
            return inf
        too_much = self.used + asked - amount
        for second in range(self.second - BUCKETS + 1, self.second + 1):
            if too_much <= 0:
                break
            too_much -= self._buckets[second % BUCKETS]
            if too_much <= 0:
                return second + BUCKETS - now_s
        return 0.0


def give_back(taken: list[tuple[int, int]], used: int) -> list[tuple[int, int]]:
    """How to correct a window where a call took tokens, once it is known what it used.

    `taken` are seconds and amounts in the order of the taking; so is the answer, with what each second's
    bucket changes by. The last taken is given back first; what was used beyond all of it goes to the last.
    """
    over = used - sum(amount for _, amount in taken)
    if over >= 0:
        return [(taken[-1][0], over)] if over else []
    found = []
    for second, amount in reversed(taken):
        by = max(over, -amount)
        over -= by
        if by:
            found.append((second, by))
    return found[::-1]


def share_of(amount: int, rank: int, live: int) -> int:
    """One process's share of a limit's amount; those of all live processes add up to it exactly."""
    return amount // live + (rank < amount % live)


# When to come back


def quota_retry_after(ask: QuotaAsk, spent: int, expired: int, now_us: int) -> float:
    """Seconds until a quota that cannot hold this ask may do so, as far as is known."""
    if ask.amount > ask.quota.amount:
        return inf
    if spent + expired + ask.amount <= ask.quota.amount:
        return UNDER_WAY_RETRY_S
    return max(0.0, (ask.ends_at_us - now_us) / 1e6)


def worst_of(found: Iterable[Exceeded]) -> Exceeded:
    """The one to name, of several: the first of those with the longest wait."""
    return max(found, key=lambda each: each.retry_after_s)
