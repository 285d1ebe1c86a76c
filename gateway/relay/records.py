"""What the journal holds: one call's opening, its dispatches, and its end.

Frozen and self-contained: a `Settled` carries all that the books need,
so replaying it alone makes the same entry again.
Moments are whole microseconds since the Unix epoch; durations are whole microseconds
of the monotonic clock, so a clock that jumps cannot make them negative.
Money is whole nano-units of the ledger currency.
"""

from typing import Literal

from msgspec import Struct

from accounts.caller import Priority

CallOutcome = Literal["answered", "rejected", "failed", "truncated", "hung_up", "abandoned"]
AttemptOutcome = Literal["answered", "rejected", "failed", "timed_out", "cancelled", "abandoned"]
Basis = Literal["reported", "estimated", "none"]


class Usage(Struct, frozen=True, array_like=True):
    """Tokens of one attempt. `cached_tokens` are part of `input_tokens`."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    basis: Basis = "none"


class Hold(Struct, frozen=True, array_like=True):
    """What a call holds of one quota: the name of its counter, and how much of its unit."""

    counter: str
    amount: int


class Opened(Struct, frozen=True, array_like=True, tag="o"):
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


class Dispatched(Struct, frozen=True, array_like=True, tag="d"):
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


class AttemptEnded(Struct, frozen=True, array_like=True):
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


class Skipped(Struct, frozen=True, array_like=True):
    """A target that was passed over without an attempt."""

    target_id: int
    provider: str
    upstream_model: str
    why: Literal["open", "full"]


class Settled(Struct, frozen=True, array_like=True, tag="s"):
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


class Released(Struct, frozen=True, array_like=True, tag="r"):
    """A call was refused after it was opened, with nothing sent: it is no entry."""

    call_id: str
    released_at_us: int


Record = Opened | Dispatched | Settled | Released
