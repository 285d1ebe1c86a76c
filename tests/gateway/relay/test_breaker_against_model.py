"""The breaker beside a naive one that keeps everything that ever happened and looks through it each time."""

from dataclasses import dataclass, field
from math import inf, isnan, nan

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.relay.breaker import Breaker, BreakerPolicy, Permit, Shift, Verdict

POLICY = BreakerPolicy(
    consecutive=3, share=0.5, window_s=10, surely=6, open_s=60.0, longest_open_s=300.0
)
"""Three in a row, so that random walks meet openings often."""

ASKED_S = st.sampled_from([None, None, None, 0.0, -1.0, nan, 1.0, 59.0, 61.0, 120.0, 1e9, inf])
VERDICTS = st.sampled_from(["success", "failure", "failure", "failure", "neutral"])
STEPS_S = st.sampled_from([0.0, 0.25, 1.0, 4.0, 9.75, 10.0, 59.75, 60.0, 61.0, 300.0, 10_000.0])
"""Quarters of seconds, so that sums of them are exact."""


@dataclass(eq=False)
class Out:
    """An attempt that has not ended."""

    permit: Permit
    era: int
    probe: bool


@dataclass
class Naive:
    """What the breaker should be. An era ends whenever it opens or closes."""

    era: int = 0
    is_open: bool = False
    held: bool = False
    ends: list[tuple[float, Verdict, float | None]] = field(default_factory=list)
    """Counted ends since it last closed: moment, verdict, the moment that a Retry-After named."""
    open_until: list[float] = field(default_factory=list)
    probe: Out | None = None
    was_probed: bool = False

    def named(self, now: float, asked_s: float | None) -> float | None:
        if asked_s is None or isnan(asked_s) or asked_s <= 0:
            return None
        return now + min(asked_s, 300.0)

    def state(self, now: float) -> str:
        if not self.is_open:
            return "closed"
        waiting = self.held or (not self.was_probed and now < max(self.open_until))
        return "open" if waiting else "half_open"

    def row(self) -> list[tuple[float, Verdict, float | None]]:
        """What came after the last success."""
        for index in range(len(self.ends), 0, -1):
            if self.ends[index - 1][1] == "success":
                return self.ends[index:]
        return self.ends

    def should_open(self, now: float) -> bool:
        recent = [verdict for at, verdict, _ in self.ends if int(at) > int(now) - 10 and verdict != "neutral"]
        in_a_row = [verdict for _, verdict, _ in self.row() if verdict == "failure"]
        is_share = recent.count("failure") * 2 >= len(recent)
        return len(in_a_row) >= 6 or (len(in_a_row) >= 3 and is_share)

    def open(self, now: float) -> float:
        self.era, self.is_open, self.probe, self.was_probed = self.era + 1, True, None, False
        self.open_until = [now + 60.0, *(named for _, _, named in self.row() if named is not None)]
        return max(self.open_until) - now

    def close(self) -> None:
        self.era, self.is_open, self.held, self.probe, self.was_probed = (
            self.era + 1,
            False,
            False,
            None,
            False,
        )
        self.ends = []


class BreakerBesideModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        self.breaker = Breaker("simulated/model", POLICY)
        self.naive = Naive()
        self.out: list[Out] = []

    @rule(step_s=STEPS_S)
    def time_passes(self, step_s: float) -> None:
        self.now += step_s

    @precondition(lambda self: self.naive.state(self.now) == "open" and not self.naive.held)
    @rule(short_by_s=st.sampled_from([0.0, 0.0, 0.25]))
    def its_open_time_passes(self, short_by_s: float) -> None:
        self.now = max(self.now, max(self.naive.open_until) - short_by_s)

    @rule()
    def a_caller_comes(self) -> None:
        state = self.naive.state(self.now)
        permit = self.breaker.enter(self.now)
        assert (permit is not None) == (
            state == "closed" or (state == "half_open" and self.naive.probe is None)
        )
        if permit is None:
            return
        out = Out(permit, self.naive.era, probe=state == "half_open")
        assert permit.probe == out.probe
        assert (permit.shift is not None) == (out.probe and not self.naive.was_probed)
        if out.probe:
            self.naive.probe, self.naive.was_probed = out, True
        self.out.append(out)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), verdict=VERDICTS, asked_s=ASKED_S)
    def an_attempt_ends(self, data: st.DataObject, verdict: Verdict, asked_s: float | None) -> None:
        self._ends(data.draw(st.sampled_from(self.out)), verdict, asked_s)

    @precondition(lambda self: self.naive.probe is not None)
    @rule(verdict=VERDICTS, asked_s=ASKED_S)
    def the_probe_ends(self, verdict: Verdict, asked_s: float | None) -> None:
        assert self.naive.probe is not None
        self._ends(self.naive.probe, verdict, asked_s)

    @precondition(lambda self: self.naive.state(self.now) == "closed")
    @rule(verdicts=st.lists(VERDICTS, max_size=8), asked_s=ASKED_S)
    def several_come_and_end(self, verdicts: list[Verdict], asked_s: float | None) -> None:
        came = len(self.out)
        for _ in verdicts:
            self.a_caller_comes()
        for out, verdict in zip(self.out[came:], verdicts, strict=True):
            self._ends(out, verdict, asked_s)

    def _ends(self, out: Out, verdict: Verdict, asked_s: float | None) -> None:
        self.out.remove(out)
        before = self.naive.state(self.now)
        expected = self._expected_of_end(out, verdict, self.naive.named(self.now, asked_s))
        shift = self.breaker.ended(out.permit, verdict, self.now, "why", asked_s)
        self._same(shift, before, expected)

    def _expected_of_end(self, out: Out, verdict: Verdict, named: float | None) -> float | str | None:
        """ "closed", or for how long it opens, or nothing."""
        naive = self.naive
        if out is naive.probe:
            return self._expected_of_probe(verdict, named)
        if out.era != naive.era:
            if naive.state(self.now) == "open" and named is not None:
                naive.open_until.append(named)
            return None
        naive.ends.append((self.now, verdict, named))
        return naive.open(self.now) if verdict == "failure" and naive.should_open(self.now) else None

    def _expected_of_probe(self, verdict: Verdict, named: float | None) -> float | str | None:
        self.naive.probe = None
        if verdict == "success":
            self.naive.close()
            return "closed"
        if verdict == "neutral" and named is None:
            return None
        self.naive.ends.append((self.now, verdict, named))
        return self.naive.open(self.now)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def an_attempt_is_cancelled(self, data: st.DataObject) -> None:
        out = data.draw(st.sampled_from(self.out))
        self.out.remove(out)
        self.breaker.give_back(out.permit, self.now)
        if out is self.naive.probe:
            self.naive.probe = None

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def a_stream_speaks(self, data: st.DataObject) -> None:
        out = data.draw(st.sampled_from(self.out))
        shift = self.breaker.spoke(out.permit, self.now)
        assert (shift is not None) == (out is self.naive.probe)
        if shift is not None:
            assert (shift.before, shift.after, shift.open_for_s) == ("half_open", "closed", None)
            self.naive.close()
            out.era = self.naive.era

    @rule()
    def a_person_holds_it_open(self) -> None:
        before, was_held = self.naive.state(self.now), self.naive.held
        shift = self.breaker.hold_open(self.now, "why")
        assert (shift is None) == was_held
        if shift is not None:
            assert shift == Shift(before, "open", "why", None)
            self.naive.open(self.now)
            self.naive.held = True

    @rule()
    def a_person_lets_it_go(self) -> None:
        shift = self.breaker.let_go(self.now, "why")
        assert shift == (Shift("open", "closed", "why", None) if self.naive.held else None)
        if shift is not None:
            self.naive.close()

    @rule()
    def a_person_closes_it(self) -> None:
        before = self.naive.state(self.now)
        shift = self.breaker.close(self.now, "why")
        may = before != "closed" and not self.naive.held
        assert shift == (Shift(before, "closed", "why", None) if may else None)
        if shift is not None:
            self.naive.close()

    def _same(self, shift: Shift | None, before: str, expected: float | str | None) -> None:
        if expected is None:
            assert shift is None
            return
        assert shift is not None
        after, open_for_s = ("closed", None) if expected == "closed" else ("open", expected)
        assert (shift.before, shift.after, shift.open_for_s) == (before, after, open_for_s)

    @invariant()
    def they_agree(self) -> None:
        state = self.naive.state(self.now)
        assert self.breaker.state(self.now) == state
        assert self.breaker.held == self.naive.held
        free = state == "closed" or (state == "half_open" and self.naive.probe is None)
        assert self.breaker.permits(self.now) == free
        assert self.breaker.ready_in_s(self.now) == self._ready_in_s(state, free)

    def _ready_in_s(self, state: str, free: bool) -> float:
        if free:
            return 0.0
        if state == "half_open":
            return 1.0
        return inf if self.naive.held else max(self.naive.open_until) - self.now


TestBreakerBesideModel = BreakerBesideModel.TestCase
TestBreakerBesideModel.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
