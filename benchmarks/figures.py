"""Figures and what is made of them. Pure."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SHARES = {"a quarter": 0.25, "half": 0.5, "three quarters": 0.75}
"""Of capacity, at which latency is measured; bounds are for half of it."""
LATENCY = "latency added at"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all values do not exceed; `share` from 0 to 1."""
    ordered = sorted(values)
    return ordered[max(1, math.ceil(round(len(ordered) * share, 6))) - 1]


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity, a value for each round, and the bound that it should keep, if any."""

    what: str
    unit: str
    values: tuple[float, ...]
    bound: float | None = None
    at_least: bool = False
    """The bound is a floor, not a ceiling."""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def reached(self) -> bool | None:
        """Whether the median keeps the bound; None where there is none."""
        if self.bound is None:
            return None
        return self.median >= self.bound if self.at_least else self.median <= self.bound


def latency_figures(share: str, added: Sequence[tuple[float, float]], what: str) -> Iterable[Figure]:
    """Of one share of capacity: `added` has milliseconds at p50 and p99, of each round.

    Bounds are of whole answers at half of it.
    """
    bounds: tuple[float | None, float | None] = (1, 5) if (share, what) == ("half", "whole") else (None, None)
    for which, values, bound in zip(("p50", "p99"), zip(*added, strict=True), bounds, strict=True):
        yield Figure(latency_name(share, what, which), "ms", values, bound)


def latency_name(share: str, what: str, which: str) -> str:
    return f"{LATENCY} {share} load, {what}, {which}"


def is_latency(figure: Figure) -> bool:
    return figure.what.startswith(LATENCY)


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one load on one server."""

    calls: int
    cpu_us: float
    """CPU time of the worker per call, in microseconds."""
    tree_us: float
    """The same of all processes of the server."""
    rate: float
    """Calls a second."""
    p50_ms: float
    share: float
    """Of its core, how much the worker had; what is missing, others had, or nobody wanted."""
    lag_s: float = 0.0
    """How long after the last answer the ledger had every call; its work is in `cpu_us`."""
    pieces: float = 0.0
    """Transfer chunks per call that reached the client."""


@dataclass(frozen=True, slots=True)
class Load:
    """A kind of load."""

    streamed: bool
    connections: int

    def __str__(self) -> str:
        kind = "streamed" if self.streamed else "whole"
        return f"{kind}, {self.connections} connection{'s' if self.connections > 1 else ''}"


@dataclass(frozen=True, slots=True)
class Beside:
    """A load on the gateway and on the empty application, round by round."""

    load: Load
    gateway: tuple[Sample, ...]
    empty: tuple[Sample, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """CPU per call of the gateway's worker over the empty application's, pair by pair."""
        return tuple(ours.cpu_us / its.cpu_us for ours, its in zip(self.gateway, self.empty, strict=True))


@dataclass(frozen=True, slots=True)
class Books:
    """What is on the ledger."""

    entries: int
    answered: int
    unpriced: int
    cost_nanos: int


def why_wrong(books: Books, calls: int, cost_nanos: int) -> str | None:
    """A sentence where the ledger differs from what was answered; `cost_nanos` is of one call."""
    if books.entries != calls:
        return f"{calls} calls were answered and {books.entries} are on the ledger"
    if books.answered != calls:
        return f"{calls - books.answered} entries have another outcome than 'answered'"
    if books.unpriced:
        return f"{books.unpriced} entries are unpriced"
    if books.cost_nanos != (due := calls * cost_nanos):
        return f"the ledger says {books.cost_nanos} nano-units and the calls cost {due}"
    return None


@dataclass(frozen=True, slots=True)
class Results:
    """Everything that one run measured."""

    figures: tuple[Figure, ...]
    grid: tuple[Beside, ...]
    books: Books
    seconds: float
