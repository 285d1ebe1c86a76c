"""Who is next, who makes room, and that a place is never lost or given out twice."""

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from accounts.caller import Priority
from gateway.relay.gate import (
    HERE_S,
    OVERDUE_EVERY,
    PATIENCE_S,
    WAIT_BOUNDS_S,
    Full,
    Gate,
    Line,
    kept_of,
)
from tests.gateway.relay.garbage import left_to_the_collector
from tests.gateway.relay.virtual_time import Clock, in_virtual_time, turns

ALICE, BOB, CHARLIE = 1, 2, 3
"""Three teams."""
NOBODY: Mapping[int, int] = {}
"""No places are held."""
A_DAY_S = 86_400.0


def line_of(*calls: tuple[int, Priority], now: float = 0.0) -> Line:
    line = Line()
    for team_id, priority in calls:
        line.push(team_id, priority, now)
    return line


def taken(line: Line, held: Mapping[int, int] = NOBODY, now: float = 0.0) -> tuple[int, Priority]:
    waiting = line.take(held, now)
    assert waiting is not None
    return waiting.team_id, waiting.priority


def all_taken(line: Line, held: Mapping[int, int] = NOBODY, now: float = 0.0) -> list[tuple[int, Priority]]:
    return [taken(line, held, now) for _ in range(len(line))]


# --- who is next


def test_the_most_urgent_goes_first() -> None:
    line = line_of((ALICE, "batch"), (ALICE, "normal"), (ALICE, "urgent"))

    assert all_taken(line) == [(ALICE, "urgent"), (ALICE, "normal"), (ALICE, "batch")]


def test_within_a_team_the_oldest_goes_first() -> None:
    line = Line()
    first, second = line.push(ALICE, "normal", 0.0), line.push(ALICE, "normal", 1.0)

    assert [line.take(NOBODY, 2.0), line.take(NOBODY, 2.0)] == [first, second]


def test_the_team_that_holds_fewest_places_goes_first() -> None:
    line = line_of((ALICE, "normal"), (BOB, "normal"), (CHARLIE, "normal"))

    assert taken(line, {ALICE: 2, BOB: 1, CHARLIE: 3}) == (BOB, "normal")


def test_urgency_counts_before_fairness() -> None:
    line = line_of((ALICE, "urgent"), (BOB, "normal"))

    assert taken(line, {ALICE: 9}) == (ALICE, "urgent")


def test_at_a_tie_the_team_that_was_served_least_goes_first() -> None:
    line = line_of((ALICE, "normal"), (BOB, "normal"))
    line.charge(ALICE, 3.0)
    line.charge(BOB, 2.5)

    assert taken(line) == (BOB, "normal")


def test_one_place_is_shared_by_time_and_not_by_calls() -> None:
    line = line_of(*[(ALICE, "normal")] * 100, *[(BOB, "normal")] * 100)
    seconds = {ALICE: 0.0, BOB: 0.0}
    for _ in range(66):
        team_id = line.take(NOBODY, 0.0).team_id
        held_s = 10.0 if team_id == ALICE else 1.0
        seconds[team_id] += held_s
        line.charge(team_id, held_s)

    assert abs(seconds[ALICE] - seconds[BOB]) <= 10.0


def test_a_team_that_joins_late_starts_level_with_the_least_served() -> None:
    line = line_of(*[(ALICE, "normal")] * 10, *[(BOB, "normal")] * 10)
    line.charge(ALICE, 500.0)
    line.charge(BOB, 400.0)
    for _ in range(3):
        line.push(CHARLIE, "normal", 0.0)

    order = []
    for _ in range(4):
        order.append(line.take(NOBODY, 0.0).team_id)
        line.charge(order[-1], 1.0)

    assert order == [BOB, CHARLIE, BOB, CHARLIE]


def test_a_team_that_leaves_and_comes_again_is_not_forgiven_what_it_had() -> None:
    line = line_of((ALICE, "normal"), *[(BOB, "normal")] * 3)
    assert line.take(NOBODY, 0.0).team_id == ALICE
    line.charge(ALICE, 500.0)
    line.push(ALICE, "normal", 0.0)
    line.charge(BOB, 1.0)

    assert [line.take(NOBODY, 0.0).team_id for _ in range(4)] == [BOB, BOB, BOB, ALICE]


def test_an_empty_line_forgets_who_was_served() -> None:
    line = line_of((ALICE, "normal"))
    line.charge(ALICE, 500.0)
    line.take(NOBODY, 0.0)
    for team_id in (BOB, BOB, ALICE):
        line.push(team_id, "normal", 0.0)
    line.charge(BOB, 1.0)

    assert taken(line) == (ALICE, "normal")


def test_to_find_the_next_call_looks_at_teams_and_not_at_calls() -> None:
    class Counted(dict[int, int]):
        looks = 0

        def get(self, key: int, default: Any = None) -> Any:
            self.looks += 1
            return super().get(key, default)

    line, held = line_of(*((team_id, "normal") for team_id in (1, 2, 3) for _ in range(1_000))), Counted()
    line.take(held, PATIENCE_S["normal"])  # all are overdue as well

    assert held.looks <= 2 * 3


# --- ageing


def test_every_fourth_place_goes_to_an_overdue_call() -> None:
    line = line_of(*[(ALICE, "batch")] * 5, *[(BOB, "urgent")] * 20)

    order = [taken(line, now=PATIENCE_S["batch"])[1] for _ in range(12)]

    assert order == (["urgent"] * (OVERDUE_EVERY - 1) + ["batch"]) * 3


def test_a_call_is_not_overdue_before_its_patience_ends() -> None:
    line = line_of(*[(ALICE, "batch")] * 5, *[(BOB, "urgent")] * 8)

    assert {taken(line, now=PATIENCE_S["batch"] - 0.001)[1] for _ in range(8)} == {"urgent"}


def test_after_a_time_without_overdue_calls_the_first_goes_at_once() -> None:
    line = line_of((ALICE, "normal"), *[(BOB, "urgent")] * 8)
    for _ in range(5):
        assert taken(line) == (BOB, "urgent")

    assert taken(line, now=PATIENCE_S["normal"]) == (ALICE, "normal")


def test_the_longest_overdue_goes_first_whatever_its_priority() -> None:
    line = Line()
    line.push(ALICE, "normal", 25.0)  # due at 35
    line.push(ALICE, "batch", 0.0)  # due at 30
    for _ in range(6):
        line.push(BOB, "urgent", 0.0)

    order = [taken(line, now=40.0) for _ in range(8)]

    assert [each for each in order if each[0] == ALICE] == [(ALICE, "batch"), (ALICE, "normal")]


def test_overdue_places_are_shared_between_teams() -> None:
    line = line_of(*[(ALICE, "batch")] * 50, (BOB, "batch"), *[(CHARLIE, "urgent")] * 50)

    order = [taken(line, {ALICE: 1}, now=A_DAY_S) for _ in range(OVERDUE_EVERY)]

    assert order[-1] == (BOB, "batch")


@pytest.mark.parametrize("now", [0.0, A_DAY_S])
def test_where_only_teams_below_their_share_may_go_the_others_wait(now: float) -> None:
    line = line_of(*[(ALICE, "normal")] * 3, (CHARLIE, "batch"))
    line.push(BOB, "normal", now)
    for _ in range(OVERDUE_EVERY - 1):  # the next place is for an overdue call
        line.push(CHARLIE, "urgent", now)
        line.take(NOBODY, now)

    held = {ALICE: 4, BOB: 3, CHARLIE: 4}
    first, second = line.take(held, now, below=4), line.take(held, now, below=4)

    assert first is not None
    assert first.team_id == BOB
    assert second is None
    assert len(line) == 4


# --- who makes room


def test_a_call_leaves_the_line_from_the_middle() -> None:
    line = Line()
    first, second, third = (line.push(ALICE, "normal", 0.0) for _ in range(3))
    line.drop(second)

    assert [line.take(NOBODY, 0.0), line.take(NOBODY, 0.0)] == [first, third]
    assert not len(line)


def test_the_greediest_team_makes_room_with_its_newest_least_urgent_call() -> None:
    line = line_of((ALICE, "batch"), (BOB, "batch"))
    newest = line.push(ALICE, "batch", 1.0)
    line.push(ALICE, "normal", 2.0)

    assert line.who_yields(BOB, "batch") == newest
    assert line.who_yields(CHARLIE, "batch") == newest


def test_teams_that_would_only_change_places_do_not_push_each_other_out() -> None:
    line = line_of((ALICE, "normal"), (ALICE, "normal"), (BOB, "normal"))

    assert line.who_yields(BOB, "normal") is None


def test_a_newcomer_of_the_greediest_team_makes_nobody_else_yield() -> None:
    line = line_of(*[(ALICE, "normal")] * 3, (BOB, "batch"))

    assert line.who_yields(ALICE, "normal") is None
    assert line.who_yields(ALICE, "batch") is None


def test_a_team_makes_room_within_its_own_queue_for_something_more_urgent() -> None:
    line = line_of((ALICE, "batch"), (BOB, "batch"))

    yielding = line.who_yields(ALICE, "normal")

    assert yielding is not None
    assert (yielding.team_id, yielding.priority) == (ALICE, "batch")


def test_where_nobody_may_wait_nobody_yields() -> None:
    assert Line().who_yields(ALICE, "urgent") is None


# --- how many are ahead


def test_all_of_ones_own_and_all_more_urgent_ones_are_ahead() -> None:
    line = line_of(*[(ALICE, "urgent")] * 2, *[(ALICE, "normal")] * 3, *[(ALICE, "batch")] * 4)

    held = {ALICE: 10}
    assert line.ahead(ALICE, "urgent", held, 10) == 2
    assert line.ahead(ALICE, "normal", held, 10) == 5
    assert line.ahead(ALICE, "batch", held, 10) == 9


def test_nobody_is_ahead_of_a_team_that_has_less_than_its_share() -> None:
    line = line_of(*[(ALICE, "normal")] * 500)

    assert line.ahead(BOB, "normal", {ALICE: 10}, 10) == 0


def test_teams_that_hold_their_share_go_in_turns() -> None:
    line = line_of(*[(ALICE, "normal")] * 500, *[(BOB, "normal")] * 20)

    assert line.ahead(BOB, "normal", {ALICE: 5, BOB: 5}, 10) == 20 + 20


# --- the gate


def gate(clock: Callable[[], float], places: int = 1, most_waiting: int = 100) -> Gate:
    return Gate(places, most_waiting, clock)


async def entering(
    at: Gate, team_id: int = ALICE, priority: Priority = "normal", time_left_s: float = A_DAY_S
) -> asyncio.Task[float]:
    """A task that waits at the gate, or has been told already."""
    task = asyncio.create_task(at.enter(team_id, priority, time_left_s))
    await turns()
    return task


def test_calls_enter_at_once_while_there_are_places() -> None:
    at = gate(Clock(), places=2)

    assert at.enter_now(ALICE, "normal")
    assert at.has_place(CHARLIE, "normal")
    assert at.enter_now(ALICE, "normal")
    assert not at.has_place(CHARLIE, "normal")
    assert not at.enter_now(BOB, "urgent")
    at.leave(ALICE, 1.0)
    assert at.enter_now(BOB, "urgent")
    assert at.figures().in_use == 2


def test_a_call_that_waits_gets_the_place_that_is_given_back() -> None:
    async def story(clock: Clock) -> None:
        at = gate(clock)
        assert at.enter_now(ALICE, "normal")
        bob = await entering(at, BOB)
        clock.now_s += 2.5
        at.leave(ALICE, 2.5)

        assert not at.enter_now(ALICE, "urgent")  # the place is Bob's before Bob has run
        assert await bob == pytest.approx(2.5)
        at.leave(BOB, 1.0)
        assert at.figures().in_use == 0

    in_virtual_time(story)


def test_a_wait_longer_than_the_time_left_is_refused_at_once() -> None:
    async def story(clock: Clock) -> None:
        at = gate(clock)
        at.enter_now(ALICE, "normal")
        at.leave(ALICE, 8.0)
        at.enter_now(ALICE, "normal")

        with pytest.raises(Full) as why:
            await at.enter(BOB, "normal", 7.9)

        assert why.value.retry_after_s == pytest.approx(8.0)
        assert clock.now_s == 1_000.0
        assert at.figures().refused == 1
        assert at.figures().waiting == {"urgent": 0, "normal": 0, "batch": 0}

    in_virtual_time(story)


def test_a_wait_that_turns_out_too_long_ends_when_the_time_has_passed() -> None:
    async def story(clock: Clock) -> None:
        at = gate(clock)
        at.enter_now(ALICE, "normal")  # nothing is known yet of how long that takes

        with pytest.raises(Full):
            await at.enter(BOB, "normal", 5.0)

        assert clock.now_s == pytest.approx(1_005.0)
        assert sum(at.figures().waiting.values()) == 0
        at.leave(ALICE, 5.0)
        assert at.has_place(CHARLIE, "normal")

    in_virtual_time(story)


def test_whoever_waited_in_vain_is_forgotten_at_once() -> None:
    async def story(clock: Clock) -> None:
        at = gate(clock)
        at.enter_now(ALICE, "normal")

        with left_to_the_collector() as left:
            with contextlib.suppress(Full):
                await at.enter(BOB, "normal", 2.0)
            await turns()

        assert left == []

    in_virtual_time(story)


def test_where_there_is_no_room_to_wait_a_call_is_refused_at_once() -> None:
    async def story(clock: Clock) -> None:
        at = gate(clock, most_waiting=0)
        at.enter_now(ALICE, "normal")

        with pytest.raises(Full):
            await at.enter(BOB, "urgent", A_DAY_S)

    in_virtual_time(story)


def test_a_full_line_has_room_for_a_team_with_less_than_its_share() -> None:
    async def story(clock: Clock) -> None:
        at = gate(clock, most_waiting=3)
        at.enter_now(ALICE, "normal")
        greedy = [await entering(at, ALICE) for _ in range(3)]
        bob = await entering(at, BOB)

        assert [each.done() for each in greedy] == [False, False, True]
        assert isinstance(greedy[2].exception(), Full)
        at.leave(ALICE, 1.0)
        await bob
        assert at.figures().refused == 1
        for each in greedy[:2]:
            each.cancel()
        await turns()

    in_virtual_time(story)


def test_a_call_that_goes_away_leaves_the_line_as_if_it_had_not_come() -> None:
    async def story(clock: Clock) -> None:
        at = gate(clock)
        at.enter_now(ALICE, "normal")
        first, second = await entering(at, BOB), await entering(at, CHARLIE)
        first.cancel()
        await turns()

        assert at.figures().waiting["normal"] == 1
        assert at.figures().left == 1
        at.leave(ALICE, 1.0)
        await second
        assert at.figures().in_use == 1

    in_virtual_time(story)


@pytest.mark.parametrize("place_first", [True, False])
def test_a_place_that_comes_at_the_moment_of_leaving_is_handed_on(place_first: bool) -> None:
    async def story(clock: Clock) -> None:
        at = gate(clock)
        at.enter_now(ALICE, "normal")
        first, second = await entering(at, BOB), await entering(at, CHARLIE)
        steps = [lambda: at.leave(ALICE, 1.0), first.cancel]
        for step in steps if place_first else reversed(steps):
            step()
        await turns()

        assert first.cancelled()
        assert second.done()
        assert at.figures().in_use == 1
        at.leave(CHARLIE, 1.0)
        assert at.figures().in_use == 0
        assert at.has_place(CHARLIE, "normal")

    in_virtual_time(story)


@pytest.mark.parametrize("refused_first", [True, False])
def test_a_call_that_is_pushed_out_as_it_goes_away_leaves_nothing_behind(refused_first: bool) -> None:
    async def story(clock: Clock) -> None:
        at = gate(clock, most_waiting=2)
        at.enter_now(ALICE, "normal")
        _, pushed_out = await entering(at, ALICE), await entering(at, ALICE)
        newcomer = asyncio.create_task(at.enter(BOB, "normal", A_DAY_S))
        if refused_first:
            asyncio.get_running_loop().call_soon(pushed_out.cancel)
        else:
            pushed_out.cancel()
        await turns()

        assert pushed_out.cancelled()
        assert not newcomer.done()
        figures = at.figures()
        assert (figures.waiting["normal"], figures.left + figures.refused) == (2, 1)
        for each in asyncio.all_tasks() - {asyncio.current_task()}:
            each.cancel()
        await turns()

    in_virtual_time(story)


def test_more_places_let_in_those_who_wait() -> None:
    async def story(clock: Clock) -> None:
        at = gate(clock)
        at.enter_now(ALICE, "normal")
        waiting = [await entering(at, ALICE) for _ in range(3)]
        at.resize(3, 100)
        await turns()

        assert [each.done() for each in waiting] == [True, True, False]
        at.leave(ALICE, 1.0)
        await turns()
        assert waiting[2].done()

    in_virtual_time(story)


def test_fewer_places_cut_nobody_off() -> None:
    async def story(clock: Clock) -> None:
        at = gate(clock, places=3)
        for _ in range(3):
            at.enter_now(ALICE, "normal")
        waiting = await entering(at, BOB)
        at.resize(1, 100)
        in_use = []
        for _ in range(3):
            at.leave(ALICE, 1.0)
            in_use.append(at.figures().in_use)

        assert in_use == [2, 1, 1]
        await waiting

    in_virtual_time(story)


def test_a_shorter_line_refuses_those_who_no_longer_fit() -> None:
    async def story(clock: Clock) -> None:
        at = gate(clock)
        at.enter_now(ALICE, "normal")
        alice = [await entering(at, ALICE) for _ in range(3)]
        bob = await entering(at, BOB)
        at.resize(1, 2)
        await turns()

        assert [each.done() for each in (*alice, bob)] == [False, True, True, False]
        at.resize(3, 2)
        await turns()

    in_virtual_time(story)


def test_nothing_remembers_a_gate_that_nobody_uses() -> None:
    """A timer for each call that once waited would keep it for as long as that call had time."""

    async def story(clock: Clock) -> None:
        at = gate(clock)
        at.enter_now(ALICE, "normal")
        bob = await entering(at, BOB)
        at.leave(ALICE, 1.0)
        await bob
        known = weakref.ref(at)
        del at, bob
        gc.collect()

        assert known() is None

    in_virtual_time(story)


# --- kept places


def ten_places(clock: Clock, alices: int) -> Gate:
    """Bob called a moment ago, and Alice holds so many of ten places."""
    at = gate(clock, places=10)
    assert at.enter_now(BOB, "normal")
    at.leave(BOB, 1.0)
    for _ in range(alices):
        assert at.enter_now(ALICE, "normal")
    return at


def test_a_team_that_is_alone_has_all_places() -> None:
    at = gate(Clock(), places=10)

    assert all(at.enter_now(ALICE, "normal") for _ in range(10))


def test_the_last_place_is_kept_for_a_team_with_less_than_its_share() -> None:
    at = ten_places(Clock(), alices=9)

    assert at.figures().kept == 1
    assert not at.has_place(ALICE, "urgent")
    assert not at.enter_now(ALICE, "urgent")
    assert at.expected_wait_s(ALICE, "urgent") > 0.0
    assert at.has_place(BOB, "batch")
    assert at.enter_now(BOB, "batch")
    assert not at.enter_now(BOB, "urgent")


def test_teams_that_all_ask_for_their_share_use_every_place() -> None:
    at = gate(Clock(), places=10)

    entered = sum(at.enter_now(team_id, "normal") for _ in range(10) for team_id in (ALICE, BOB, CHARLIE))

    assert entered == 10


def test_a_kept_place_does_not_pass_over_a_more_urgent_call() -> None:
    async def story(clock: Clock) -> None:
        at = ten_places(clock, alices=9)
        alice = await entering(at, ALICE, "normal")

        assert at.has_place(BOB, "normal")
        assert not at.has_place(BOB, "batch")
        bob = await entering(at, BOB, "batch")
        assert not bob.done()
        alice.cancel()  # now nobody more urgent waits
        await turns()
        assert bob.done()

    in_virtual_time(story)


def test_a_kept_place_is_handed_on_when_the_more_urgent_call_runs_out_of_time() -> None:
    async def story(clock: Clock) -> None:
        at = ten_places(clock, alices=9)
        alice, bob = await entering(at, ALICE, "normal", 5.0), await entering(at, BOB, "batch")

        await bob

        assert isinstance(alice.exception(), Full)
        assert clock.now_s == pytest.approx(1_005.0)

    in_virtual_time(story)


def test_a_team_that_has_not_called_for_long_has_no_share() -> None:
    async def story(clock: Clock) -> None:
        at = ten_places(clock, alices=9)
        alice = await entering(at, ALICE)

        clock.now_s += HERE_S  # Bob's call came within this time
        assert at.has_place(CHARLIE, "urgent")
        await turns()
        assert not alice.done()
        clock.now_s += HERE_S  # and none within this
        assert not at.has_place(CHARLIE, "urgent")
        await turns()
        assert alice.done()

    in_virtual_time(story)


def test_a_team_keeps_its_share_for_a_while_after_each_of_its_calls() -> None:
    async def story(clock: Clock) -> None:
        at = ten_places(clock, alices=9)
        clock.now_s += HERE_S
        assert not at.has_place(ALICE, "normal")
        bob = await entering(at, BOB)
        at.leave(BOB, 1.0)
        for _ in range(3):
            clock.now_s += HERE_S / 4
            assert not at.has_place(ALICE, "normal")
        assert bob.done()

    in_virtual_time(story)


def test_a_team_that_had_to_wait_keeps_its_share_as_well() -> None:
    async def story(clock: Clock) -> None:
        at = gate(clock, places=10)
        for _ in range(10):
            at.enter_now(ALICE, "normal")
        clock.now_s += HERE_S
        at.has_place(ALICE, "normal")
        bob = await entering(at, BOB)
        at.leave(ALICE, 1.0)
        await bob
        at.leave(BOB, 1.0)
        clock.now_s += HERE_S

        assert not at.has_place(ALICE, "normal")

    in_virtual_time(story)


def test_those_who_wait_get_the_places_of_a_team_that_has_gone() -> None:
    async def story(clock: Clock) -> None:
        at = ten_places(clock, alices=9)
        for _ in range(3):
            await entering(at, ALICE)
        in_use = []
        for _ in range(2):
            clock.now_s += HERE_S
            at.leave(ALICE, 1.0)
            in_use.append(at.figures().in_use)

        assert in_use == [9, 10]
        await turns()

    in_virtual_time(story)


def test_as_many_places_are_kept_as_fit_the_new_size() -> None:
    at = gate(Clock(), places=10)
    at.resize(50, 100)

    assert at.figures().kept == 5


def test_one_place_is_not_kept_and_of_two_one_is() -> None:
    assert [kept_of(places) for places in (1, 2, 10, 11, 50)] == [0, 1, 1, 2, 5]


# --- what it tells


def test_the_expected_wait_follows_how_long_places_are_held() -> None:
    at = gate(Clock(), places=2)
    for held_s in (1.0, 3.0):
        assert at.enter_now(ALICE, "normal")
        at.leave(ALICE, held_s)
    at.enter_now(ALICE, "normal")
    assert at.expected_wait_s(BOB, "normal") == 0.0
    at.enter_now(ALICE, "normal")

    assert at.expected_wait_s(BOB, "normal") == pytest.approx(2.0 / 2)


def test_late_news_of_longer_calls_soon_counts() -> None:
    at = gate(Clock())
    for held_s in [1.0] * 10_000 + [10.0] * 150:
        at.enter_now(ALICE, "normal")
        at.leave(ALICE, held_s)

    assert 9.0 < at.figures().hold_s < 10.0


def test_a_gate_through_which_nothing_moves_expects_longer_waits() -> None:
    async def story(clock: Clock) -> None:
        at = gate(clock, places=2)
        for _ in range(10):
            at.enter_now(ALICE, "normal")
            at.leave(ALICE, 1.0)
        at.enter_now(ALICE, "normal")
        at.enter_now(ALICE, "normal")
        waiting = await entering(at, BOB)
        before_s = at.expected_wait_s(CHARLIE, "normal")
        clock.now_s += 60.0

        assert before_s <= 1.0
        assert at.expected_wait_s(CHARLIE, "normal") >= 30.0
        with pytest.raises(Full):
            await at.enter(CHARLIE, "normal", 20.0)
        at.leave(ALICE, 61.0)
        await waiting

    in_virtual_time(story)


def test_the_figures_tell_depth_and_waits_by_priority() -> None:
    async def story(clock: Clock) -> None:
        at = gate(clock)
        at.enter_now(ALICE, "urgent")
        served = await entering(at, BOB, "normal")
        await entering(at, CHARLIE, "batch")
        clock.now_s += 0.04
        at.leave(ALICE, 0.04)
        await served
        figures = at.figures()

        assert (figures.places, figures.in_use) == (1, 1)
        assert figures.waiting == {"urgent": 0, "normal": 0, "batch": 1}
        assert figures.entered == {"urgent": 1, "normal": 1, "batch": 0}
        assert figures.wait_s["normal"] == pytest.approx(0.04)
        assert figures.longest_wait_s["batch"] == pytest.approx(0.04)
        assert figures.wait_buckets["urgent"] == (1,) * (len(WAIT_BOUNDS_S) + 1)
        reached = WAIT_BOUNDS_S.index(0.05)
        assert figures.wait_buckets["normal"] == (0,) * reached + (1,) * (len(WAIT_BOUNDS_S) + 1 - reached)
        assert repr(at) == "<Gate 1 of 1 places, waiting 0 urgent, 0 normal, 1 batch, held 0.040 s>"
        at.leave(BOB, 1.0)
        await turns()

    in_virtual_time(story)
