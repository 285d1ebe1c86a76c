"""Whatever happens at the gate, in any order: nobody is lost, let in twice, or passed over."""

import asyncio

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from accounts.caller import Priority
from gateway.relay.gate import OVERDUE_EVERY, PRIORITIES, Full, Gate, Line, Waiting
from tests.gateway.relay.virtual_time import VirtualLoop, turns

ALICE, BOB, CHARLIE = 1, 2, 3
"""Three teams."""
A_DAY_S = 86_400.0

TEAMS = st.sampled_from([ALICE, BOB, CHARLIE])
LEVELS = st.sampled_from(PRIORITIES)


class LineAgainstAList(RuleBasedStateMachine):
    """The line beside a plain list that is searched from end to end."""

    def __init__(self) -> None:
        super().__init__()
        self.line, self.now = Line(), 0.0
        self.calls: list[Waiting] = []
        self.held: dict[int, int] = {}
        self.served_s: dict[int, float] = {}
        self.since_overdue = 0

    @rule(team_id=TEAMS, priority=LEVELS)
    def come(self, team_id: int, priority: Priority) -> None:
        waiting_teams = {each.team_id for each in self.calls}
        if team_id not in waiting_teams:
            least = min((self.served_s.get(each, 0.0) for each in waiting_teams), default=0.0)
            self.served_s[team_id] = max(least, self.served_s.get(team_id, 0.0))
        self.calls.append(self.line.push(team_id, priority, self.now))

    @rule(seconds=st.sampled_from([0.5, 4.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(team_id=TEAMS, places=st.integers(0, 3))
    def hold(self, team_id: int, places: int) -> None:
        self.held[team_id] = places

    @precondition(lambda self: self.calls)
    @rule(team_id=TEAMS, held_s=st.sampled_from([1.0, 2.0, 7.0]))
    def charge(self, team_id: int, held_s: float) -> None:
        self.line.charge(team_id, held_s)
        self.served_s[team_id] = self.served_s.get(team_id, 0.0) + held_s

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def go_away(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(self.calls))
        self.line.drop(gone)
        self.forget(gone)

    @precondition(lambda self: self.calls)
    @rule()
    def take(self) -> None:
        expected = self.next_one()
        assert self.line.take(self.held, self.now) == expected
        self.forget(expected)

    @precondition(lambda self: self.calls)
    @rule(team_id=TEAMS, priority=LEVELS)
    def ask_for_room(self, team_id: int, priority: Priority) -> None:
        size = {each: sum(call.team_id == each for call in self.calls) for each in (ALICE, BOB, CHARLIE)}
        yielding = self.line.who_yields(team_id, priority)
        if yielding is None:
            assert size[team_id] + 1 >= max(size.values())
            assert not any(
                call.team_id == team_id and PRIORITIES.index(call.priority) > PRIORITIES.index(priority)
                for call in self.calls
            )
        elif yielding.team_id != team_id:
            assert size[yielding.team_id] == max(size.values()) > size[team_id] + 1
        if yielding is not None:
            same = [each for each in self.calls if each.team_id == yielding.team_id]
            assert yielding == max(same, key=lambda each: (PRIORITIES.index(each.priority), each.number))

    def next_one(self) -> Waiting:
        def claim(each: Waiting) -> tuple[int, float]:
            return self.held.get(each.team_id, 0), self.served_s.get(each.team_id, 0.0)

        due = [each for each in self.calls if each.priority != "urgent" and each.due_at <= self.now]
        if due and self.since_overdue >= OVERDUE_EVERY - 1:
            self.since_overdue = 0
            return min(due, key=lambda each: (*claim(each), each.due_at, each.priority == "batch"))
        self.since_overdue += 1
        return min(self.calls, key=lambda each: (PRIORITIES.index(each.priority), *claim(each), each.number))

    def forget(self, gone: Waiting) -> None:
        self.calls.remove(gone)
        if not self.calls:
            self.served_s.clear()

    @invariant()
    def the_same_calls_wait(self) -> None:
        assert len(self.line) == len(self.calls)
        for level in PRIORITIES:
            came = [each.came_at for each in self.calls if each.priority == level]
            assert self.line.waiting(level) == len(came)
            assert self.line.oldest_at(level) == min(came, default=None)


class GateInAnyOrder(RuleBasedStateMachine):
    """Calls come, enter, leave and hang up, several at once between two turns of the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.gate = Gate(2, 3, self.loop.clock)
        self.places, self.most_in_use = 2, 0
        self.waiting: dict[asyncio.Task[float], tuple[int, Priority]] = {}
        self.hung_up: set[asyncio.Task[float]] = set()
        self.inside: list[int] = []
        self.came = self.refused = self.went_away = self.entered = 0

    def teardown(self) -> None:
        try:
            self.everyone_goes()
        finally:
            self.loop.close()

    def everyone_goes(self) -> None:
        for task in self.waiting:
            task.cancel()
            self.hung_up.add(task)
        self.look()
        for team_id in self.inside:
            self.gate.leave(team_id, 1.0)
        figures = self.gate.figures()
        assert (figures.in_use, sum(figures.waiting.values())) == (0, 0)

    @rule(team_id=TEAMS, priority=LEVELS, time_left_s=st.sampled_from([0.0, 1.0, 20.0, A_DAY_S]))
    def come(self, team_id: int, priority: Priority, time_left_s: float) -> None:
        task = self.loop.create_task(self.enter(team_id, priority, time_left_s))
        self.waiting[task] = team_id, priority

    async def enter(self, team_id: int, priority: Priority, time_left_s: float) -> float:
        self.came += 1
        return await self.gate.enter(team_id, priority, time_left_s)

    @rule(team_id=TEAMS, priority=LEVELS)
    def enter_now(self, team_id: int, priority: Priority) -> None:
        waiting = self.gate.figures().waiting
        if self.gate.enter_now(team_id, priority):
            assert not any(waiting[each] for each in PRIORITIES[: PRIORITIES.index(priority)])
            self.came += 1
            self.entered += 1
            self.inside.append(team_id)

    @precondition(lambda self: self.inside)
    @rule(data=st.data(), held_s=st.sampled_from([0.1, 1.0, 5.0]))
    def leave(self, data: st.DataObject, held_s: float) -> None:
        team_id = data.draw(st.sampled_from(self.inside))
        self.inside.remove(team_id)
        self.gate.leave(team_id, held_s)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def hang_up(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(list(self.waiting)))
        self.hung_up.add(task)
        task.cancel()

    @rule(places=st.integers(1, 4), most_waiting=st.integers(0, 5))
    def resize(self, places: int, most_waiting: int) -> None:
        self.gate.resize(places, most_waiting)
        self.places, self.most_in_use = places, max(places, self.gate.figures().in_use)
        assert sum(self.gate.figures().waiting.values()) <= most_waiting

    @rule(seconds=st.sampled_from([0.5, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))
        self.look()

    @rule()
    def look(self) -> None:
        """Let all tasks run, and see what became of them."""
        self.loop.run_until_complete(turns())
        self.gate.has_place(ALICE, "urgent")  # may find that a team is gone and others may go in
        self.loop.run_until_complete(turns())
        for task in [each for each in self.waiting if each.done()]:
            team_id, _ = self.waiting.pop(task)
            if task.cancelled():
                assert task in self.hung_up
                self.went_away += 1
            elif (why := task.exception()) is not None:
                assert isinstance(why, Full)
                self.refused += 1
            else:
                self.entered += 1
                self.inside.append(team_id)
        self.everyone_is_somewhere()
        self.nobody_waits_who_could_go_in()

    def nobody_waits_who_could_go_in(self) -> None:
        most_urgent = min((PRIORITIES.index(level) for _, level in self.waiting.values()), default=None)
        for team_id, level in self.waiting.values():
            if PRIORITIES.index(level) == most_urgent:
                assert not self.gate.has_place(team_id, level)

    def everyone_is_somewhere(self) -> None:
        figures = self.gate.figures()
        assert figures.in_use == len(self.inside)
        assert sum(figures.waiting.values()) == len(self.waiting)
        entered, refused, left = sum(figures.entered.values()), figures.refused, figures.left
        assert entered + refused + left + len(self.waiting) == self.came
        # Who hung up may have been let in or refused in the same moment.
        assert entered >= self.entered
        assert refused >= self.refused
        assert left <= self.went_away

    @invariant()
    def places_are_never_exceeded(self) -> None:
        in_use = self.gate.figures().in_use
        assert in_use <= max(self.places, self.most_in_use)
        self.most_in_use = max(self.places, in_use)

    @invariant()
    def the_figures_agree(self) -> None:
        figures = self.gate.figures()
        free = figures.places - figures.in_use
        assert free <= figures.kept or not sum(figures.waiting.values())
        for level in PRIORITIES:
            assert figures.wait_buckets[level][-1] == figures.entered[level]


LineAgainstAList.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
GateInAnyOrder.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestTheLineAgainstAList = LineAgainstAList.TestCase
TestTheGateInAnyOrder = GateInAnyOrder.TestCase
