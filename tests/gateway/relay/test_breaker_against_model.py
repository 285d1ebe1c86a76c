"""The breaker beside a naive one that keeps everything that ever happened and looks through it each time."""

from dataclasses import dataclass, field
from math import inf, isnan, nan

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.relay.breaker import Breaker, BreakerPolicy, Permit, Shift, Verdict

POLICY = BreakerPolicy(
    consecutive=3, share=0.5, window_s=10, surely=6, open_s=60.0, longest_open_s=300.0, probe_s=30.0
)
"""Three in a row, so that random walks meet openings often; a lease that is no other figure."""

ASKED_S = st.sampled_from([None, None, None, 0.0, -1.0, nan, 1.0, 59.0, 61.0, 120.0, 1e9, inf])
VERDICTS = st.sampled_from(["success", "failure", "failure", "failure", "neutral"])
STEPS_S = st.sampled_from([0.0, 0.25, 1.0, 4.0, 9.75, 10.0, 29.75, 30.0, 59.75, 60.0, 61.0, 300.0, 10_000.0])
"""Quarters of seconds, so that sums of them are exact."""


@dataclass(eq=False)
class Out:
    """An attempt that has not ended."""

    permit: Permit
    era: int
    probe: bool
    at: float
    is_over: bool = False


@dataclass
class Naive:
    """What the breaker should be. An era ends whenever it opens or closes."""

    era: int = 0
    is_open: bool = False
    held: bool = False
    ends: list[tuple[float, Verdict, float | None]] = field(default_factory=list)
    """Counted ends since it last closed: moment, verdict, the moment that a Retry-After named."""
    open_until: list[float] = field(default_factory=list)
    probes: list[Out] = field(default_factory=list)
    """All that went out in this era, oldest first, also those that are over."""

    def latest(self) -> Out | None:
        """The newest probe, if it is out."""
        return self.probes[-1] if self.probes and not self.probes[-1].is_over else None

    def older(self) -> list[Out]:
        """Probes that are out though a newer one went out."""
        return [each for each in self.probes[:-1] if not each.is_over]

    def is_probing(self, out: Out) -> bool:
        return any(each is out for each in self.probes)

    def lets_through(self, now: float) -> bool:
        if self.state(now) != "half_open":
            return self.state(now) == "closed"
        latest = self.latest()
        return latest is None or now - latest.at >= 30.0

    def named(self, now: float, asked_s: float | None) -> float | None:
        if asked_s is None or isnan(asked_s) or asked_s <= 0:
            return None
        return now + min(asked_s, 300.0)

    def state(self, now: float) -> str:
        if not self.is_open:
            return "closed"
        waiting = self.held or (not self.probes and now < max(self.open_until))
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
        self.era, self.is_open, self.probes = self.era + 1, True, []
        self.open_until = [now + 60.0, *(named for _, _, named in self.row() if named is not None)]
        return max(self.open_until) - now

    def close(self) -> None:
        self.era, self.is_open, self.held = self.era + 1, False, False
        self.probes, self.ends = [], []


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

    @precondition(lambda self: self.naive.latest() is not None)
    @rule(short_by_s=st.sampled_from([0.0, 0.0, 0.25]))
    def its_probe_s_lease_passes(self, short_by_s: float) -> None:
        latest = self.naive.latest()
        assert latest is not None
        self.now = max(self.now, latest.at + 30.0 - short_by_s)

    @rule()
    def a_caller_comes(self) -> None:
        state, lets_through = self.naive.state(self.now), self.naive.lets_through(self.now)
        permit = self.breaker.enter(self.now)
        assert (permit is not None) == lets_through
        if permit is None:
            return
        out = Out(permit, self.naive.era, probe=state == "half_open", at=self.now)
        assert permit.probe == out.probe
        assert (permit.shift is not None) == (out.probe and not self.naive.probes)
        if out.probe:
            self.naive.probes.append(out)
        self.out.append(out)

    @precondition(lambda self: not self.naive.held and len(self.naive.older()) < 3)
    @rule()
    def a_probe_is_overtaken(self) -> None:
        """Random steps alone seldom lead to where two probes are out."""
        if self.naive.state(self.now) == "closed":
            self._fails_until_open()
        if self.naive.state(self.now) == "open":
            self.now = max(self.now, max(self.naive.open_until))
        self.a_caller_comes()
        self.now += 30.0
        self.a_caller_comes()

    def _fails_until_open(self) -> None:
        while self.naive.state(self.now) == "closed":
            self.a_caller_comes()
            self._ends(self.out[-1], "failure", None)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), verdict=VERDICTS, asked_s=ASKED_S)
    def an_attempt_ends(self, data: st.DataObject, verdict: Verdict, asked_s: float | None) -> None:
        self._ends(data.draw(st.sampled_from(self.out)), verdict, asked_s)

    @precondition(lambda self: self.naive.latest() is not None)
    @rule(verdict=VERDICTS, asked_s=ASKED_S)
    def the_probe_ends(self, verdict: Verdict, asked_s: float | None) -> None:
        latest = self.naive.latest()
        assert latest is not None
        self._ends(latest, verdict, asked_s)

    @precondition(lambda self: self.naive.older())
    @rule(data=st.data(), verdict=VERDICTS, asked_s=ASKED_S)
    def an_older_probe_ends(self, data: st.DataObject, verdict: Verdict, asked_s: float | None) -> None:
        self._ends(data.draw(st.sampled_from(self.naive.older())), verdict, asked_s)

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
        if naive.is_probing(out):
            return self._expected_of_probe(out, verdict, named)
        if out.era != naive.era:
            if naive.state(self.now) == "open" and named is not None:
                naive.open_until.append(named)
            return None
        naive.ends.append((self.now, verdict, named))
        return naive.open(self.now) if verdict == "failure" and naive.should_open(self.now) else None

    def _expected_of_probe(self, out: Out, verdict: Verdict, named: float | None) -> float | str | None:
        out.is_over = True
        if verdict == "success":
            self.naive.close()
            return "closed"
        if self.naive.latest() is not None or (verdict == "neutral" and named is None):
            return None
        self.naive.ends.append((self.now, verdict, named))
        return self.naive.open(self.now)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def an_attempt_is_cancelled(self, data: st.DataObject) -> None:
        self._is_cancelled(data.draw(st.sampled_from(self.out)))

    @precondition(lambda self: self.naive.latest() is not None)
    @rule()
    def the_probe_is_cancelled(self) -> None:
        latest = self.naive.latest()
        assert latest is not None
        self._is_cancelled(latest)

    def _is_cancelled(self, out: Out) -> None:
        self.out.remove(out)
        out.is_over = True
        self.breaker.give_back(out.permit, self.now)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def a_stream_speaks(self, data: st.DataObject) -> None:
        self._speaks(data.draw(st.sampled_from(self.out)))

    @precondition(lambda self: self.naive.older())
    @rule(data=st.data())
    def an_older_probe_speaks(self, data: st.DataObject) -> None:
        self._speaks(data.draw(st.sampled_from(self.naive.older())))

    def _speaks(self, out: Out) -> None:
        shift = self.breaker.spoke(out.permit, self.now)
        assert (shift is not None) == self.naive.is_probing(out)
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
        assert self.breaker.permits(self.now) == self.naive.lets_through(self.now)
        assert self.breaker.ready_in_s(self.now) == self._ready_in_s(state)

    def _ready_in_s(self, state: str) -> float:
        if self.naive.lets_through(self.now):
            return 0.0
        if state == "half_open":
            return min(1.0, self.naive.probes[-1].at + 30.0 - self.now)
        return inf if self.naive.held else max(self.naive.open_until) - self.now


TestBreakerBesideModel = BreakerBesideModel.TestCase
TestBreakerBesideModel.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
