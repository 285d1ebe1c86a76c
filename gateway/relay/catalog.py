"""Routes, targets and prices as the relay sees them: frozen, and swapped whole.

Made by `gateway/snapshot.py` from the database. Pure: no Django.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Rule = Literal["refuse", "drop", "translate"]
"""What happens to a parameter that a target does not take as it is."""
Overflow = Literal["refuse", "trim", "reroute"]
"""What a route does with messages that are too long for its target."""
Lever = Literal["automatic", "open"]
"""Whether a target's breaker decides for itself, or a person holds it open."""
TransportName = Literal["http1", "aiohttp", "httpx"]


@dataclass(frozen=True, slots=True)
class Secret:
    """A credential that cannot be printed by accident."""

    value: str

    def __repr__(self) -> str:
        return "<Secret>"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class Rates:
    """What a million tokens of each kind cost, in nano-units of the price's currency.

    None: as the kind that it is a part of, which is input or output.
    """

    input_nanos: int
    cached_input_nanos: int
    output_nanos: int
    cache_write_nanos: int | None = None
    reasoning_nanos: int | None = None
    audio_input_nanos: int | None = None
    audio_output_nanos: int | None = None
    above_tokens: int = 0
    """These hold for attempts with more input tokens than this."""

    def __hash__(self) -> int:
        return self.output_nanos  # each call looks something up by its rates, and few are alike


@dataclass(frozen=True, slots=True)
class Exchange:
    """What one nano-unit of a price's currency is in the ledger's: a fraction, so that it is exact."""

    numerator: int = 1
    denominator: int = 1


PAR = Exchange()


@dataclass(frozen=True, slots=True)
class Price:
    """A dated price, with the exchange rate of the same time: a new rate makes a new one of these."""

    id: int
    valid_from_us: int
    rates: Rates
    tiers: tuple[Rates, ...] = ()
    """For larger prompts, by `above_tokens`, the least first."""
    request_nanos: int = 0
    """Of each attempt with usage, in nano-units of the price's currency."""
    currency: str = ""
    """Empty: the ledger's own."""
    exchange: Exchange = PAR
    usable: bool = True
    """False: its currency has no exchange rate at that time, so that calls have no price."""

    def __hash__(self) -> int:
        return self.id  # each call looks something up by its price

    def rates_for(self, input_tokens: int) -> Rates:
        """The rates of an attempt with so many input tokens."""
        found = self.rates
        for each in self.tiers:
            if input_tokens > each.above_tokens:
                found = each
        return found


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """Limits of one target's pool of connections; durations in seconds."""

    max_connections: int = 100
    max_keepalive_connections: int = 20
    """Idle ones that are kept for the next call."""
    keepalive_expiry_s: float = 30.0
    connect_timeout_s: float = 10.0
    """Name, connection and TLS together."""
    read_timeout_s: float = 60.0
    """Silence before and between the bytes of a stream; a whole answer may be silent until the deadline."""
    write_timeout_s: float = 10.0
    """How long the provider may leave what was sent to it untaken."""
    pool_timeout_s: float = 5.0
    """The longest wait for a connection."""
    http2: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """One provider and upstream model."""

    id: int
    provider: str
    base_url: str
    upstream_model: str
    credential: Secret | None
    simulated: bool = False
    prices: tuple[Price, ...] = ()
    """Oldest first."""
    provider_id: int = 0
    order: int = 0
    """Lower is tried first."""
    weight: int = 1
    """Share of the calls among targets of the same order; 0: only when the others cannot."""
    transport: TransportName = "http1"
    pool: PoolConfig = PoolConfig()
    ca_pem: str = ""
    """Certificates, in PEM, that may sign the provider's beside the system's; empty: the system's only."""
    max_concurrency: int = 50
    """Attempts at once."""
    max_waiting: int = 1000
    """Calls that may wait at the gate."""
    context_window: int | None = None
    """Tokens of prompt and answer together; None: not known."""
    media_tokens: int | None = None
    """The most that one image, recording or file counts as; None: not known."""
    parameters: Mapping[str, Rule] = field(default_factory=dict)
    """What is done with a parameter that this target does not take; others go up as they are."""
    lever: Lever = "automatic"
    closed_at_us: int = 0
    """When the breaker was last closed by hand."""
    credential_refused: bool = False
    """The provider did not take our credential when it was last asked."""
    read_no: int = field(default=0, compare=False)
    """Grows with each reading of the database: a call that began before a change brings older settings."""

    def price_at(self, moment_us: int) -> Price | None:
        for price in reversed(self.prices):
            if price.valid_from_us <= moment_us:
                return price if price.usable else None
        return None

    def __str__(self) -> str:
        return f"{self.provider}/{self.upstream_model}"


@dataclass(frozen=True, slots=True)
class Route:
    """A model name and the targets behind it, in the order in which they are tried."""

    model_name: str
    targets: tuple[Target, ...]
    unpriced_allowed: bool = False
    created_at_s: int = 0
    timeout_s: float | None = None
    """Deadline of a call that brings none; None: the gateway's."""
    overflow: Overflow = "refuse"
    overflow_route: str = ""
    """The model name to go on with where `overflow` is `reroute`."""
    hang_up_drain_s: float = 0.0
    """How long an answer is still read for its usage after its client went away; 0: it is cancelled."""
    max_tokens: int = 131_072
    """The most output tokens of one choice."""
    usual_max_tokens: int = 4096
    """Filled in where a call names no bound and a hard quota must know its worst case."""
    max_choices: int = 16
    """The largest `n`."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """Every route by each of its names."""

    routes: Mapping[str, Route] = field(default_factory=dict)
