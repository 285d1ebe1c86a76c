"""What the journal holds: one call's opening, its dispatches, and its end.

Frozen and self-contained: a `Settled` carries all that the books need,
so replaying it alone makes the same entry again.
Moments are whole microseconds since the Unix epoch; durations are whole microseconds
of the monotonic clock, so a clock that jumps cannot make them negative.
Money is whole nano-units of the ledger currency.
"""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from accounts.caller import OwnerKind, Priority, QuotaKind, RateLimitKind

CallOutcome = Literal["answered", "rejected", "failed", "truncated", "hung_up", "abandoned"]
AttemptOutcome = Literal["answered", "rejected", "failed", "timed_out", "cancelled", "abandoned"]
Basis = Literal["reported", "estimated", "none"]


class Usage(Struct, frozen=True, array_like=True, gc=False):
    """Tokens of one attempt.

    Cached, cache-write and audio input tokens are parts of `input_tokens`,
    reasoning and audio output tokens of `output_tokens`.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """Read from the provider's cache."""
    basis: Basis = "none"
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0


def total_of(usages: Sequence[Usage], basis: Basis) -> Usage:
    """Tokens of several attempts together."""
    return Usage(
        sum([each.input_tokens for each in usages]),
        sum([each.output_tokens for each in usages]),
        sum([each.cached_tokens for each in usages]),
        basis,
        sum([each.cache_write_tokens for each in usages]),
        sum([each.reasoning_tokens for each in usages]),
        sum([each.audio_input_tokens for each in usages]),
        sum([each.audio_output_tokens for each in usages]),
    )


class Seen(Struct, frozen=True, array_like=True, gc=False):
    """One rate limit or quota at the moment in which a call was let in, or was not."""

    owner: OwnerKind
    kind: QuotaKind | RateLimitKind
    period: Literal["minute", "call", "day", "month"]
    """`call`: calls under way are counted, and none that ended."""
    amount: int
    used: int
    """Without this call; of a quota, with what others hold."""
    asked: int
    hard: bool = False
    model_name: str = ""


class Hold(Struct, frozen=True, array_like=True, gc=False):
    """What a call holds of one quota: the name of its counter, and how much of its unit."""

    counter: str
    amount: int


class Opened(Struct, frozen=True, array_like=True, gc=False, tag="o"):
    """A call was admitted. Nothing has been sent yet."""

    call_id: str
    started_at_us: int
    team_id: int
    key_id: int
    route: str
    streamed: bool
    simulated: bool
    tags: dict[str, str] | None = None
    holds: tuple[Hold, ...] = ()


class Dispatched(Struct, frozen=True, array_like=True, gc=False, tag="d"):
    """An attempt is about to be sent. `worst` is booked if we never hear of it again."""

    call_id: str
    attempt_no: int
    started_at_us: int
    target_id: int
    provider: str
    upstream_model: str
    price_id: int | None
    worst: Usage
    worst_cost_nanos: int
    price: str = ""
    """As `AttemptEnded.price`, of the worst case."""


class AttemptEnded(Struct, frozen=True, array_like=True, gc=False):
    """One attempt as the books keep it; lives inside `Settled`."""

    attempt_no: int
    target_id: int
    provider: str
    upstream_model: str
    outcome: AttemptOutcome
    status: int | None
    """The provider's HTTP status; None: none was received."""
    started_at_us: int
    latency_us: int
    first_token_us: int | None
    usage: Usage
    price_id: int | None
    cost_nanos: int
    code: str = ""
    """What went wrong, in a word; empty for an answer."""
    queued_us: int = 0
    """How long the call waited at this target's gate and for a connection before the attempt."""
    backoff_us: int = 0
    """How long it had waited before that, because this attempt is a retry."""
    probe: bool = False
    """An attempt that a half-open breaker let through to see whether the target is well."""
    trimmed: int = 0
    """Messages left out because all of them were too long."""
    price: str = ""
    """The price as it was applied: `pricing.Applied` as JSON; empty where there was none."""
    pool_wait_us: int = 0
    """The part of `queued_us` that was spent on a connection."""
    first_byte_us: int | None = None
    """From the attempt's start to the answer's head; None: none came."""


class Skipped(Struct, frozen=True, array_like=True, gc=False):
    """A target that was passed over without an attempt."""

    target_id: int
    provider: str
    upstream_model: str
    why: Literal["open", "full"]


class Settled(Struct, frozen=True, array_like=True, gc=False, tag="s"):
    """A call ended. Repeats what `Opened` said, so that it stands alone."""

    call_id: str
    started_at_us: int
    ended_at_us: int
    team_id: int
    key_id: int
    route: str
    streamed: bool
    simulated: bool
    tags: dict[str, str] | None
    outcome: CallOutcome
    status: int
    """The HTTP status the client received, or 499 where it had gone."""
    code: str
    """The error's `code`; empty for an answer."""
    latency_us: int
    first_token_us: int | None
    """From admission to the first content chunk; None for whole answers."""
    usage: Usage
    cost_nanos: int
    unpriced: bool
    attempts: tuple[AttemptEnded, ...]
    priority: Priority = "normal"
    skipped: tuple[Skipped, ...] = ()
    limits: tuple[Seen, ...] = ()
    """With their figures at admission."""
    plan: tuple[str, ...] = ()
    """Targets in the order in which they were to be tried, as provider and upstream model."""


class Released(Struct, frozen=True, array_like=True, gc=False, tag="r"):
    """A call was refused after it was opened, with nothing sent: it is no entry."""

    call_id: str
    released_at_us: int


class Refused(Struct, frozen=True, array_like=True, gc=False):
    """A call that was not let in, with why."""

    call_id: str
    at_us: int
    team_id: int
    key_id: int
    route: str
    """The model name as it was asked for."""
    status: int
    code: str
    priority: Priority
    message: str
    limits: tuple[Seen, ...] = ()
    """The one that was exceeded."""


class RefusedCount(Struct, frozen=True, array_like=True, gc=False):
    """How many calls alike were not let in within one minute."""

    minute: int
    """Whole minutes since the Unix epoch."""
    team_id: int
    key_id: int
    route: str
    code: str
    priority: Priority
    calls: int


class Refusals(Struct, frozen=True, array_like=True, gc=False, tag="f"):
    """What one process refused within a second or so. Of many calls only the last are explained."""

    batch_id: str
    """A UUID, so that the same record is booked once."""
    at_us: int
    counts: tuple[RefusedCount, ...]
    samples: tuple[Refused, ...] = ()


Record = Opened | Dispatched | Settled | Released | Refusals
