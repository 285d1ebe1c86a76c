"""Seeded traffic for one gate, and what became of every call."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import Random

from accounts.caller import Priority
from gateway.relay.gate import Full, Gate


@dataclass(frozen=True, slots=True)
class Visit:
    """A call to come: `at_s` after the start, holding a place for `hold_s` once it is in."""

    at_s: float
    team_id: int
    priority: Priority
    hold_s: float
    time_left_s: float = 600.0


@dataclass(slots=True)
class Told:
    """What became of it; seconds, moments on the gate's clock."""

    visit: Visit
    expected_s: float
    came_at: float
    entered_at: float | None = None
    """None: it was refused."""
    left_at: float = 0.0

    @property
    def wait_s(self) -> float:
        assert self.entered_at is not None
        return self.entered_at - self.came_at

    @property
    def latency_s(self) -> float:
        return self.left_at - self.came_at


async def carry(gate: Gate, visits: Iterable[Visit], clock: Callable[[], float]) -> list[Told]:
    """Bring calls to a gate in the order of their coming; returns when the last has gone."""
    start, tasks = clock(), []
    for visit in visits:
        if (pause_s := start + visit.at_s - clock()) > 0:
            await asyncio.sleep(pause_s)
        tasks.append(asyncio.create_task(_carry_one(gate, visit, clock)))
    return await asyncio.gather(*tasks)


async def _carry_one(gate: Gate, visit: Visit, clock: Callable[[], float]) -> Told:
    told = Told(visit, gate.expected_wait_s(visit.team_id, visit.priority), clock())
    try:
        await gate.enter(visit.team_id, visit.priority, visit.time_left_s)
    except Full:
        return told
    told.entered_at = clock()
    await asyncio.sleep(visit.hold_s)
    told.left_at = clock()
    gate.leave(visit.team_id, told.left_at - told.entered_at)
    return told


def poisson(
    chance: Random, a_second: float, until_s: float, team_id: int, priority: Priority, mean_hold_s: float
) -> Iterator[Visit]:
    """A stream of independent calls, with exponentially distributed gaps and places held."""
    at_s = 0.0
    while (at_s := at_s + chance.expovariate(a_second)) < until_s:
        yield Visit(at_s, team_id, priority, chance.expovariate(1 / mean_hold_s))


def together(*streams: Iterable[Visit]) -> list[Visit]:
    return sorted((each for stream in streams for each in stream), key=lambda each: each.at_s)
