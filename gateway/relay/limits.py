"""Rate limits and quotas as arithmetic: what applies to a call, how much it asks for, when to come back.

Pure: values and moments in, values out. What is used is counted in `counters.py`, here or in Redis.
"""

from msgspec import Struct

from accounts.caller import Quota, RateLimit


class RateAsk(Struct, frozen=True):
    """So much of one rate limit: a request, tokens, or a place among the calls under way."""

    limit: RateLimit
    amount: int


class QuotaAsk(Struct, frozen=True):
    """So much of one quota, in its unit, in the period that the call began in."""

    quota: Quota
    counter: str
    """The name of the quota's counter for that period; see `counter_of`."""
    amount: int
    ends_at_us: int
    """When the period ends, in microseconds since the Unix epoch."""


class Ask(Struct, frozen=True):
    """All that one call must be granted before it is let in, or before its next attempt."""

    call_id: str
    lives_s: float
    """After this long a hold that nobody settled becomes spend."""
    rates: tuple[RateAsk, ...] = ()
    quotas: tuple[QuotaAsk, ...] = ()


class Standing(Struct, frozen=True):
    """A rate limit right after a call was let in."""

    limit: RateLimit
    remaining: int


class Admitted(Struct, frozen=True):
    """Everything was granted."""

    standings: tuple[Standing, ...] = ()
    """Of each rate limit that was asked, in the order of the asking."""


class Exceeded(Struct, frozen=True):
    """Nothing was granted, because of this rate limit or quota."""

    bound: RateLimit | Quota
    asked: int
    used: int
    """Of a rate limit, what is in the window or under way; of a quota, what was spent."""
    held: int
    """Of a quota, what calls under way hold, and what is counted as spent because they never settled."""
    retry_after_s: float
    """Until so much is free again, as far as is known."""


class Spent(Struct, frozen=True):
    """What a call used in the end, all attempts together."""

    tokens: int = 0
    cost_nanos: int = 0
