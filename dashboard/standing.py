"""The targets of a moment, as the live page is told of them: breakers to everybody, gates and pools to few.

Pure. A team sees how the targets are that its calls go to.
How much of them others use is for operators, as it is where the API tells of it.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from gateway.figures import STATES
from gateway.glance import Seen
from gateway.relay.gate import PRIORITIES
from gateway.relay.ports import BreakerState, PoolFigures
from gateway.relay.targets import TargetState

MOST_TARGETS: Final = 60
"""What a page shows and a message carries; of more, those that need an eye: not closed, then the busiest."""
UNKNOWN: Final = "null"


class Pool(msgspec.Struct, frozen=True):
    """None: the transport does not know."""

    in_use: int
    waiting: int
    idle: int | None
    reused: int | None
    """Requests that needed no new connection: handshakes avoided."""
    opened: int | None


class Line(msgspec.Struct, frozen=True):
    """One target, as the page reads it."""

    id: int
    route: str
    target: str
    state: BreakerState
    held: bool
    breakers: list[int]
    """How many processes have it open, half-open, closed."""
    in_use: int | None = None
    places: int | None = None
    queued: list[int] | None = None
    """Urgent, normal, batch."""
    pool: Pool | None = None
    """None: not called yet, or not the reader's to see."""


class _Told(msgspec.Struct, frozen=True):
    lines: list[Line]
    of: int
    missing: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What each audience is told, encoded once; "null" where nobody looked."""

    of_all: str = UNKNOWN
    of_team: str = UNKNOWN

    def text(self, *, sees_all: bool) -> str:
        """JSON."""
        return self.of_all if sees_all else self.of_team


def standing(seen: Seen) -> Standing:
    """Of all processes together, at one moment."""
    chosen = shown(seen.targets)
    for_all, for_teams = (
        _Told([line(each, sees_all=sees_all) for each in chosen], len(seen.targets), seen.missing)
        for sees_all in (True, False)
    )
    return Standing(_encoded(for_all), _encoded(for_teams))


def _encoded(told: _Told) -> str:
    return msgspec.json.encode(told).decode()


def shown(targets: list[TargetState]) -> list[TargetState]:
    """At most `MOST_TARGETS`, by route and name."""
    first = sorted(targets, key=_needs_an_eye)[:MOST_TARGETS]
    return sorted(first, key=lambda each: (each.route, each.provider, each.upstream_model, each.target_id))


def _needs_an_eye(target: TargetState) -> tuple[int, int, int]:
    busy = target.gate.in_use + sum(target.gate.waiting.values())
    return STATES.index(target.breaker), -busy, target.target_id


def line(target: TargetState, *, sees_all: bool) -> Line:
    breakers = target.breakers or (target.breaker,)
    name = f"{target.provider}/{target.upstream_model}"
    counts = [breakers.count(each) for each in STATES]
    state = Line(target.target_id, target.route, name, target.breaker, target.held, counts)
    if not sees_all:
        return state
    gate = target.gate
    return msgspec.structs.replace(
        state,
        in_use=gate.in_use,
        places=gate.places,
        queued=[gate.waiting[each] for each in PRIORITIES],
        pool=None if target.pool is None else _pool(target.pool),
    )


def _pool(pool: PoolFigures) -> Pool:
    return Pool(pool.in_use, pool.waiting, pool.idle, pool.reused, pool.opened)
