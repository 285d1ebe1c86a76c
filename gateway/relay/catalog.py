"""Routes, targets and prices as the relay sees them: frozen, and swapped whole.

Made by `gateway/snapshot.py` from the database. Pure: no Django.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Secret:
    """A credential that cannot be printed by accident."""

    value: str

    def __repr__(self) -> str:
        return "<Secret>"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class Price:
    """A dated price in nano-units of the ledger currency per million tokens."""

    id: int
    valid_from_us: int
    input_nanos: int
    cached_input_nanos: int
    output_nanos: int


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

    def price_at(self, moment_us: int) -> Price | None:
        for price in reversed(self.prices):
            if price.valid_from_us <= moment_us:
                return price
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


@dataclass(frozen=True, slots=True)
class Catalog:
    """Every route by each of its names."""

    routes: Mapping[str, Route] = field(default_factory=dict)
