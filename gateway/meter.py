"""Counts what ended since the process started, for `/metrics`. No team and no key is told apart.

A listener between the relay and the floor above: hands on whatever it is told.
"""

import copy
from bisect import bisect_left
from typing import NamedTuple

from msgspec import Struct, field

from gateway.relay.ports import Listener
from gateway.relay.records import Refused, Settled

BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds of the latency buckets; a last one takes the rest."""
_BOUNDS_US = tuple(int(each * 1_000_000) for each in BOUNDS_S)
MOST_ROUTES = 1000
"""How many pairs of route and outcome are told apart; calls of later ones count as one route's."""
OTHER = "(other)"


class Tally(Struct):
    """The calls of one route and outcome; durations in microseconds."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nanos: int = 0
    latency_us: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))

    def add(self, other: "Tally") -> None:
        self.calls += other.calls
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.cost_nanos += other.cost_nanos
        self.latency_us += other.latency_us
        self.buckets = [mine + theirs for mine, theirs in zip(self.buckets, other.buckets, strict=True)]

    def __repr__(self) -> str:
        return f"<Tally {self.calls} calls>"


class Taken(NamedTuple):
    """A reading, which changes no more."""

    tallies: dict[tuple[str, str], Tally]
    refusals: dict[str, int]


class Meter:
    """Told of every record; a microsecond a call."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.tallies: dict[tuple[str, str], Tally] = {}
        """By route and outcome."""
        self.refusals: dict[str, int] = {}
        """By error code; a refused call may have asked for any name."""

    def settled(self, record: Settled, /) -> None:
        """Count one call in and hand it on."""
        key = (record.route, record.outcome)
        tally = self.tallies.get(key)
        if tally is None:
            tally = self._open(key)
        tally.calls += 1
        tally.input_tokens += record.usage.input_tokens
        tally.output_tokens += record.usage.output_tokens
        tally.cost_nanos += record.cost_nanos
        tally.latency_us += record.latency_us
        tally.buckets[bisect_left(_BOUNDS_US, record.latency_us)] += 1
        self._listener.settled(record)

    def taken(self) -> Taken:
        """The counts of this moment."""
        return Taken({key: copy.deepcopy(tally) for key, tally in self.tallies.items()}, dict(self.refusals))

    def _open(self, key: tuple[str, str]) -> Tally:
        if len(self.tallies) >= MOST_ROUTES:
            key = (OTHER, key[1])
        return self.tallies.setdefault(key, Tally())

    def refused(self, refused: Refused, /) -> None:
        """Count one call that was not let in, and hand it on."""
        self.refusals[refused.code] = self.refusals.get(refused.code, 0) + 1
        self._listener.refused(refused)
