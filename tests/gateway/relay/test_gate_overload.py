"""The gate when far more is asked than it has places: order, shares, and what it promises."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable
from random import Random
from statistics import median, quantiles

import pytest

from accounts.caller import Priority
from gateway.relay.gate import PRIORITIES, Gate
from tests.gateway.relay.traffic import Told, Visit, carry, poisson, together
from tests.gateway.relay.virtual_time import in_virtual_time

ALICE, BOB, CHARLIE = 1, 2, 3
"""Three teams; Alice's is the greedy one."""
TEAMS = (ALICE, BOB, CHARLIE)
PLACES = 10
ROOM = 100_000
"""Nobody is pushed out unless the story is about that."""


def simulated(visits: Iterable[Visit], places: int = PLACES, most_waiting: int = ROOM) -> list[Told]:
    return in_virtual_time(lambda clock: carry(Gate(places, most_waiting, clock), visits, clock))


def burst(each: dict[int, int], mean_hold_s: float, seed: int = 1) -> list[Visit]:
    """So many calls of each priority by each team, all at once, in an order that is nobody's merit."""
    chance = Random(seed)
    visits = [
        Visit(0.0, team_id, priority, chance.uniform(0.5, 1.5) * mean_hold_s)
        for team_id, count in each.items()
        for priority in PRIORITIES
        for _ in range(count)
    ]
    chance.shuffle(visits)
    return visits


def waits(told: Iterable[Told], priority: Priority) -> list[float]:
    return [each.wait_s for each in told if each.visit.priority == priority]


def p95(values: list[float]) -> float:
    return quantiles(values, n=20)[-1]


def place_seconds(told: Iterable[Told], since: float, until: float) -> dict[int, float]:
    """By team, for how long it held places between two moments."""
    found: dict[int, float] = defaultdict(float)
    for each in told:
        if each.entered_at is not None:
            found[each.visit.team_id] += max(0.0, min(each.left_at, until) - max(each.entered_at, since))
    return found


def share(told: list[Told], team_id: int) -> float:
    """Of the places, while every team had calls waiting."""
    last_entered = (max(each.entered_at or 0.0 for each in told if each.visit.team_id == t) for t in TEAMS)
    held = place_seconds(told, told[0].came_at, min(last_entered))
    return held[team_id] / sum(held.values())


def check_order(told: list[Told]) -> None:
    by_priority = [waits(told, each) for each in PRIORITIES]
    assert [median(each) for each in by_priority] == sorted(median(each) for each in by_priority)
    assert [p95(each) for each in by_priority] == sorted(p95(each) for each in by_priority)
    assert 2 * median(by_priority[0]) < median(by_priority[1]) < median(by_priority[2])


# --- 200 urgent, 200 normal and 200 batch calls on 10 places, three teams


@pytest.mark.parametrize("mean_hold_s", [0.2, 1.0, 3.0])
def test_urgent_calls_wait_less_than_normal_ones_and_those_less_than_batch(mean_hold_s: float) -> None:
    """In 12 s nobody grows overdue, in a minute many, in three minutes nearly all."""
    told = simulated(burst({ALICE: 67, BOB: 67, CHARLIE: 66}, mean_hold_s))

    assert len(told) == 600
    check_order(told)


async def test_the_order_holds_on_a_real_loop() -> None:
    visits = burst({ALICE: 67, BOB: 67, CHARLIE: 66}, mean_hold_s=0.02)
    gate = Gate(PLACES, 1_000, time.monotonic)
    most_in_use = 0

    async def watch() -> None:
        nonlocal most_in_use
        while True:
            most_in_use = max(most_in_use, gate.figures().in_use)
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    told = await carry(gate, visits, time.monotonic)
    watching.cancel()

    check_order(told)
    figures = gate.figures()
    assert most_in_use == PLACES
    assert figures.entered == {"urgent": 200, "normal": 200, "batch": 200}
    assert (figures.in_use, figures.refused, figures.left) == (0, 0, 0)


@pytest.mark.parametrize("times", [1, 10, 50])
@pytest.mark.parametrize("places", [1, PLACES])
def test_no_team_gets_more_than_its_share_by_asking_more(times: int, places: int) -> None:
    asked = {ALICE: 60 * times, BOB: 60, CHARLIE: 60}
    visits = [each for each in burst(asked, mean_hold_s=0.2) if each.priority == "normal"]

    assert share(simulated(visits, places), ALICE) == pytest.approx(1 / 3, abs=0.02)


@pytest.mark.parametrize("places", [1, PLACES])
def test_no_team_gets_more_than_its_share_by_staying_longer(places: int) -> None:
    chance = Random(2)
    visits = [Visit(0.0, ALICE, "normal", 10.0) for _ in range(500)]
    visits += [Visit(0.0, t, "normal", chance.uniform(0.5, 1.5)) for t in (BOB, CHARLIE) for _ in range(500)]
    chance.shuffle(visits)

    assert share(simulated(visits, places), ALICE) == pytest.approx(1 / 3, abs=0.03)


def test_the_teams_share_alike_in_each_priority() -> None:
    told = simulated(burst({ALICE: 2_000, BOB: 200, CHARLIE: 200}, mean_hold_s=0.02))

    for priority in PRIORITIES:
        bob, charlie = (
            median(
                each.wait_s for each in told if each.visit.team_id == t and each.visit.priority == priority
            )
            for t in (BOB, CHARLIE)
        )
        assert bob == pytest.approx(charlie, rel=0.2)


def test_who_finds_every_place_taken_by_one_team_gets_the_next_ones() -> None:
    visits = [Visit(0.0, ALICE, "normal", 20.0 + number) for number in range(1_000)]
    visits += [Visit(1.0, BOB, "normal", 1.0) for _ in range(5)]

    told = simulated(visits)

    bob = sorted(each.wait_s for each in told if each.visit.team_id == BOB)
    assert bob[0] == pytest.approx(19.0)  # the first of Alice's places that comes free
    assert bob[-1] <= 24.0


# --- ageing


@pytest.mark.parametrize("batch_team", [ALICE, BOB])
def test_batch_calls_progress_under_a_continuous_stream_of_urgent_ones(batch_team: int) -> None:
    chance = Random(3)
    urgent = poisson(chance, a_second=55.0, until_s=200.0, team_id=ALICE, priority="urgent", mean_hold_s=0.2)
    batch = (Visit(1.0, batch_team, "batch", 0.2) for _ in range(100))

    told = simulated(together(urgent, batch))

    assert max(waits(told, "batch")) < 60.0
    served_urgent = [each for each in told if each.visit.priority == "urgent" and each.entered_at is not None]
    assert len(served_urgent) == len(told) - 100


def test_a_lasting_overload_of_batch_calls_does_not_delay_urgent_ones() -> None:
    """The reason why overdue calls get a share of the places and not the rank of urgent ones."""
    chance = Random(4)
    batch = poisson(chance, a_second=30.0, until_s=300.0, team_id=ALICE, priority="batch", mean_hold_s=0.5)
    urgent = poisson(chance, a_second=8.0, until_s=300.0, team_id=ALICE, priority="urgent", mean_hold_s=0.5)

    told = simulated(together(batch, urgent), most_waiting=1_000)

    served = [each for each in told if each.entered_at is not None]
    assert len(waits(served, "urgent")) == sum(each.visit.priority == "urgent" for each in told)
    assert p95(waits(served, "urgent")) < 0.5
    assert median(waits(served, "batch")) > 30.0


# --- what the gate promises


def test_the_expected_wait_is_near_the_true_one_in_a_burst() -> None:
    """All come within two seconds, the most urgent first: who comes later and goes first cannot be foreseen.

    The calls before them let the gate learn how long a place is held.
    """
    chance = Random(5)
    first = [Visit(0.1 * n, 1 + n % 3, "normal", chance.uniform(0.1, 0.3)) for n in range(60)]
    crowd = sorted(burst({ALICE: 300, BOB: 50, CHARLIE: 50}, 0.2), key=lambda v: PRIORITIES.index(v.priority))
    visits = first + [
        Visit(7.0 + 2.0 * n / len(crowd), v.team_id, v.priority, v.hold_s) for n, v in enumerate(crowd)
    ]

    check_promises(simulated(visits), least_s=0.2)


@pytest.mark.parametrize("load", [0.95, 1.2])
def test_the_expected_wait_is_near_the_true_one_under_a_steady_load(load: float) -> None:
    chance, a_second = Random(6), load * PLACES / 0.5 / 3
    streams = (poisson(chance, a_second, 300.0, team_id, "normal", 0.5) for team_id in TEAMS)

    check_promises(simulated(together(*streams)), least_s=0.5)


def check_promises(told: list[Told], least_s: float) -> None:
    """True wait by the one that was told on coming, where that was longer than a place is held."""
    ratios = [each.wait_s / each.expected_s for each in told if each.expected_s > least_s]
    assert len(ratios) > 500
    assert 0.8 < median(ratios) < 1.25
    assert sum(0.5 < each < 2.0 for each in ratios) > 0.85 * len(ratios)


def test_most_refusals_for_want_of_time_come_at_once_and_cost_nothing() -> None:
    """Everybody has five seconds, and the line is always about that long: the hardest case to foresee."""
    chance, until_s = Random(7), 120.0
    visits = [
        Visit(each.at_s, each.team_id, each.priority, each.hold_s, time_left_s=5.0)
        for each in together(*(poisson(chance, 30.0, until_s, t, "normal", 0.2) for t in TEAMS))
    ]

    told = simulated(visits)

    warm = [each for each in told if each.visit.at_s > 10.0]
    entered = [each for each in warm if each.entered_at is not None]
    at_once = [each for each in warm if each.entered_at is None and each.expected_s > 5.0]
    late = [each for each in warm if each.entered_at is None and each.expected_s <= 5.0]
    assert len(at_once) > 3_000
    assert len(late) < 0.15 * (len(late) + len(entered))
    assert max(each.wait_s for each in entered) <= 5.0 + 1e-6
    busy = place_seconds(told, told[0].came_at + 10.0, told[0].came_at + until_s)
    assert sum(busy.values()) == pytest.approx(PLACES * (until_s - 10.0), rel=0.001)


# --- one team asks for fifty times its share


def neighbours_latency_s(alices_shares: float) -> list[float]:
    """Of three teams that ask for four fifths of their quarter of 50 places, beside Alice's."""
    mean_hold_s, until_s = 0.6, 40.0
    quarter = 50 / mean_hold_s / 4
    asked = {ALICE: alices_shares, BOB: 0.8, CHARLIE: 0.8, 4: 0.8}
    streams = (
        poisson(Random(team_id), max(shares, 1e-9) * quarter, until_s, team_id, "normal", mean_hold_s)
        for team_id, shares in asked.items()
    )
    told = simulated(together(*streams), places=50, most_waiting=1_000)
    neighbours = [each for each in told if each.visit.team_id != ALICE]
    assert all(each.entered_at is not None for each in neighbours)
    return [each.latency_s for each in neighbours]


def test_a_team_at_fifty_times_its_share_hardly_delays_the_others() -> None:
    alone, beside = (quantiles(neighbours_latency_s(shares), n=100) for shares in (0.0, 50.0))

    assert beside[-1] <= 1.2 * alone[-1]
    assert beside[49] <= 1.2 * alone[49]
