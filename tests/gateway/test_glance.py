"""Calls under way, by team: each in flight or queued, and never both."""

import asyncio

from gateway.glance import under_way
from gateway.relay.gate import Gate
from gateway.relay.lifeline import Lifelines

HYDRO, SOLAR = 1, 2


async def test_open_calls_are_counted_by_team_and_priority_once_their_caller_is_known() -> None:
    lines, task = Lifelines(lambda: 100.0), asyncio.current_task()
    assert task is not None
    for team_id, priority in ((HYDRO, "urgent"), (HYDRO, "urgent"), (SOLAR, "batch"), (0, "normal")):
        line = lines.open(task, 100.0, 10.0)
        line.team_id, line.priority = team_id, priority

    assert lines.by_team() == {(HYDRO, "urgent"): 2, (SOLAR, "batch"): 1}


async def test_a_gate_says_who_waits() -> None:
    gate = Gate(1, 10, lambda: 100.0)
    assert gate.enter_now(HYDRO, "normal")
    waiting = [
        asyncio.create_task(gate.enter(team_id, priority, 60.0))
        for team_id, priority in ((HYDRO, "normal"), (SOLAR, "batch"), (SOLAR, "batch"))
    ]
    await asyncio.sleep(0)

    assert dict(gate.waiting_by_team()) == {(HYDRO, "normal"): 1, (SOLAR, "batch"): 2}
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert dict(gate.waiting_by_team()) == {}


def test_a_call_that_waits_is_queued_and_not_in_flight() -> None:
    opened = {(HYDRO, "normal"): 5, (SOLAR, "urgent"): 1}
    waiting = [((HYDRO, "normal"), 1), ((HYDRO, "normal"), 1)]

    assert under_way(opened.items(), waiting) == {HYDRO: [0, 3, 0, 0, 2, 0], SOLAR: [1, 0, 0, 0, 0, 0]}


def test_nothing_is_under_way_where_nobody_calls() -> None:
    assert under_way([], []) == {}
