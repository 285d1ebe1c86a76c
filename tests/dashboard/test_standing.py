"""How the targets are at a moment, and who is told what of it."""

import json
from typing import Any

from msgspec.structs import replace

from dashboard.standing import MOST_TARGETS, UNKNOWN, Standing, line, shown, standing
from gateway.glance import Seen
from gateway.relay.gate import Gate
from gateway.relay.ports import PoolFigures
from gateway.relay.targets import TargetState

POOL = PoolFigures(2, 1, 90, 0.1, (), 0, 0, 0, 90, 90, "1.1", 3, 7, 83)


def target(target_id: int = 1, **changed: Any) -> TargetState:
    gate = Gate(5, 10, lambda: 0.0).figures()
    found = TargetState(
        target_id, "gpt-4o", "openai", f"gpt-{target_id}", "closed", False, 0.0, 0, gate, POOL
    )
    return replace(found, **changed)


def test_an_administrator_is_told_of_places_and_connections() -> None:
    told = line(target(), sees_all=True)
    assert (told.in_use, told.places, told.queued) == (0, 5, [0, 0, 0])
    assert told.pool is not None
    assert (told.pool.in_use, told.pool.waiting, told.pool.idle, told.pool.reused) == (2, 1, 3, 83)


def test_a_team_is_told_of_the_breaker_and_of_nothing_that_others_use() -> None:
    told = line(target(breaker="open"), sees_all=False)
    assert (told.state, told.target) == ("open", "openai/gpt-1")
    assert (told.in_use, told.places, told.queued, told.pool) == (None, None, None, None)


def test_breakers_of_several_processes_are_counted() -> None:
    told = line(target(breaker="open", breakers=("open", "closed", "closed")), sees_all=False)
    assert told.breakers == [1, 0, 2]


def test_what_a_transport_does_not_know_is_null_and_no_zero() -> None:
    told = line(target(pool=replace(POOL, idle=None, reused=None)), sees_all=True)
    assert told.pool is not None
    assert (told.pool.idle, told.pool.reused) == (None, None)


def test_of_too_many_targets_those_are_shown_that_need_an_eye() -> None:
    targets = [target(each) for each in range(1, MOST_TARGETS + 10)]
    targets[-1] = replace(targets[-1], breaker="open")

    assert len(shown(targets)) == MOST_TARGETS
    assert targets[-1] in shown(targets)
    assert json.loads(standing(Seen(targets, 2)).of_team)["of"] == len(targets)
    assert json.loads(standing(Seen(targets, 2)).of_team)["missing"] == 2


def test_a_moment_that_nobody_looked_at_is_not_known() -> None:
    assert Standing().text(sees_all=True) == Standing().text(sees_all=False) == UNKNOWN
