"""What the live page sees of this moment: calls under way in this process, and targets in all of them."""

from collections.abc import Iterable
from typing import Final, NamedTuple, Protocol

from gateway.relay.gate import PRIORITIES
from gateway.relay.targets import TargetState

UnderWay = dict[int, list[int]]
"""Calls by team id: in flight as urgent, normal, batch, then those queued for a place likewise."""

NONE_UNDER_WAY: Final = (0,) * (2 * len(PRIORITIES))

Counted = Iterable[tuple[tuple[int, str], int]]
"""Calls by team id and priority."""


class Seen(NamedTuple):
    """Every target of the catalog, as all processes together know it."""

    targets: list[TargetState]
    missing: int
    """Processes whose part of it is not known, or is old."""


class Glance(Protocol):
    """Asked once a second, on the relay's loop. Waits for nothing."""

    def under_way(self) -> UnderWay: ...

    def seen(self) -> Seen: ...


def under_way(opened: Counted, waiting: Counted) -> UnderWay:
    """`opened` counts those that wait too; here a call is in flight or queued, never both."""
    found: UnderWay = {}
    for (team_id, priority), count in opened:
        place = PRIORITIES.index(priority)
        found.setdefault(team_id, list(NONE_UNDER_WAY))[place] += count
    for (team_id, priority), count in waiting:
        place = PRIORITIES.index(priority)
        counts = found.setdefault(team_id, list(NONE_UNDER_WAY))
        counts[place] = max(0, counts[place] - count)
        counts[place + len(PRIORITIES)] += count
    return found
