"""Counters beside a naive model: every call ever let in, in a list that is added up from end to end."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from accounts.caller import Quota, RateLimit
from gateway.relay.counters import LocalCounters
from gateway.relay.holdings import Survey
from gateway.relay.limits import Admitted, Ask, Exceeded, Figures, QuotaAsk, RateAsk, Spent, rate_counter
from tests.gateway.relay.counters_contract import KEY, TEAM, Clock, asking, counter, requests

Answer = TypeVar("Answer")

USD = 1_000_000_000
LIVES_S = 40.0
RATES = (
    RateLimit(1, KEY, "requests", 4),
    RateLimit(2, TEAM, "requests", 6),
    RateLimit(3, KEY, "tokens", 100),
    RateLimit(4, TEAM, "tokens", 150),
    RateLimit(5, KEY, "concurrent", 3),
)
QUOTAS = (
    Quota(1, KEY, "money", 10**9 * USD + 1, "day", "UTC", True),
    Quota(2, TEAM, "money", 2 * 10**9 * USD, "month", "UTC", True),
    Quota(3, KEY, "tokens", 400, "day", "UTC"),
    Quota(4, TEAM, "requests", 12, "month", "Europe/Berlin", True),
)
BEFORE = {counter(QUOTAS[0]): 3 * USD + 7, counter(QUOTAS[3]): 2}
"""What the ledger says was spent."""


async def survey(wanted: Sequence[QuotaAsk] | None) -> Survey:
    return Survey({each.counter: BEFORE.get(each.counter, 0) for each in wanted or ()})


def at_once(answer: Coroutine[Any, Any, Answer]) -> Answer:
    """Of something that never waits."""
    try:
        answer.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waited")


@dataclass
class Taken:
    """So much of a rate limit, by one call in one second."""

    limit: RateLimit
    second: int
    amount: int


@dataclass
class Call:
    due: int
    taken: list[Taken] = field(default_factory=list)
    asked: dict[str, int] = field(default_factory=dict)
    """By quota counter, of those it was granted."""
    used: Spent | None = None
    """What it used, once it ended."""
    placed: int = 0
    """Places among the calls under way that it has."""


class CountersAgainstAList(RuleBasedStateMachine):
    """Amounts of money are large enough that a sum in doubles would be wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.counters = LocalCounters(survey, clock=self.clock, wall_clock=self.clock.wall)
        self.calls: dict[str, Call] = {}
        first = asking(*QUOTAS, amount=0, call_id="first")
        asyncio.run(self.counters.admit(first))
        self.counters.release("first")

    # What the model says

    def second(self) -> int:
        return int(self.clock.now_s)

    def expired(self, call: Call) -> bool:
        return self.second() >= call.due

    def used(self, limit: RateLimit) -> int:
        if limit.kind == "concurrent":
            return sum(
                each.placed for each in self.calls.values() if each.used is None and not self.expired(each)
            )
        return sum(
            each.amount
            for call in self.calls.values()
            for each in call.taken
            if each.limit.id == limit.id and each.second > self.second() - 61
        )

    def figures(self, quota: Quota) -> Figures:
        name = counter(quota)
        spent, held, expired = BEFORE.get(name, 0), 0, 0
        for call in self.calls.values():
            if name not in call.asked:
                continue
            if call.used is not None:
                spent += _of(quota, call.used)
            elif self.expired(call):
                expired += call.asked[name]
            else:
                held += call.asked[name]
        return Figures(spent, held, expired)

    def fits(self, ask: Ask) -> bool:
        return all(self.used(each.limit) + each.amount <= each.limit.amount for each in ask.rates) and all(
            self.figures(each.quota).total + each.amount <= each.quota.amount for each in ask.quotas
        )

    def grant(self, ask: Ask) -> None:
        call = self.calls.setdefault(ask.call_id, Call(0))
        call.due = int(self.clock.now_s + ask.lives_s) + 1
        for rate in ask.rates:
            if rate.limit.kind == "concurrent":
                call.placed += 1
            else:
                call.taken.append(Taken(rate.limit, self.second(), rate.amount))
        for each in ask.quotas:
            call.asked[each.counter] = call.asked.get(each.counter, 0) + each.amount

    # What happens

    @rule(
        which=st.sets(st.sampled_from((*RATES, *QUOTAS)), min_size=1),
        tokens=st.integers(1, 70),
        cost=st.integers(0, 4 * 10**8 * USD),
        changed=st.integers(1, 2),
    )
    def ask(self, which: set[RateLimit | Quota], tokens: int, cost: int, changed: int) -> None:
        self.ask_for(f"call-{len(self.calls)}", which, tokens, cost, changed)

    @precondition(lambda self: self.alive())
    @rule(
        data=st.data(),
        which=st.sets(st.sampled_from((*RATES[2:4], *QUOTAS[:3])), min_size=1),
        tokens=st.integers(1, 30),
        cost=st.integers(0, 10**8 * USD),
    )
    def ask_more(self, data: st.DataObject, which: set[RateLimit | Quota], tokens: int, cost: int) -> None:
        self.ask_for(data.draw(st.sampled_from(self.alive())), which, tokens, cost, 1)

    def alive(self) -> list[str]:
        return [
            call_id for call_id, each in self.calls.items() if each.used is None and not self.expired(each)
        ]

    def ask_for(
        self, call_id: str, which: set[RateLimit | Quota], tokens: int, cost: int, changed: int
    ) -> None:
        """`changed`: how many times as large the rate limits are now."""
        ask = _ask(call_id, sorted(which, key=repr), tokens, cost, changed)
        fits = self.fits(ask)

        answer = self.counters.admit_now(ask)

        if not fits:
            assert isinstance(answer, Exceeded)
            assert answer.used + answer.held + answer.asked > answer.bound.amount
            return
        self.grant(ask)
        assert isinstance(answer, Admitted)
        left = [(each.limit, each.limit.amount - self.used(each.limit)) for each in ask.rates]
        assert [(each.limit, each.remaining) for each in answer.standings] == left

    @precondition(lambda self: self.calls)
    @rule(
        data=st.data(), tokens=st.integers(0, 100), cost=st.integers(0, 5 * 10**8 * USD), again=st.booleans()
    )
    def settle(self, data: st.DataObject, tokens: int, cost: int, again: bool) -> None:
        """A call ends, in time or late, with more or less than it held, and is told once or twice."""
        call_id, call = data.draw(st.sampled_from(sorted(self.calls.items(), key=lambda each: each[0])))
        spent = Spent(tokens, cost)
        for _ in range(1 + again):
            self.counters.settle(call_id, spent)
        if call.used is not None:
            return
        call.used = spent
        for limit_id in (3, 4):
            self.correct([each for each in call.taken if each.limit.id == limit_id], tokens)

    def correct(self, taken: list[Taken], tokens: int) -> None:
        """The last taken is given back first; what was used beyond it all went into the last second."""
        over = tokens - sum(each.amount for each in taken)
        for each in reversed(taken):
            by = max(over, -each.amount)
            each.amount += by
            over -= by

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), again=st.booleans())
    def release(self, data: st.DataObject, again: bool) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.calls)))
        for _ in range(1 + again):
            self.counters.release(call_id)
        if self.calls[call_id].used is None:
            self.calls[call_id] = Call(0, used=Spent())

    @rule(seconds=st.sampled_from([0.1, 0.9, 1.0, 20.0, 59.9, 61.0]) | st.floats(0.0, 10.0))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    # What must always be true

    @invariant()
    def every_figure_is_the_sum_over_all_calls(self) -> None:
        names = [counter(each) for each in QUOTAS]
        assert at_once(self.counters.figures(names)) == {counter(each): self.figures(each) for each in QUOTAS}
        assert at_once(self.counters.used(RATES)) == {rate_counter(each): self.used(each) for each in RATES}

    @invariant()
    def nothing_is_ever_negative(self) -> None:
        for each in at_once(self.counters.figures([counter(each) for each in QUOTAS])).values():
            assert min(each.spent, each.held, each.expired) >= 0
        assert min(at_once(self.counters.used(RATES)).values()) >= 0


def _ask(call_id: str, which: list[RateLimit | Quota], tokens: int, cost: int, changed: int) -> Ask:
    found = asking(*which, amount=tokens, call_id=call_id, lives_s=LIVES_S)
    rates = tuple(
        RateAsk(RateLimit(limit.id, limit.owner, limit.kind, limit.amount * changed), each.amount)
        for each in found.rates
        for limit in [each.limit]
    )
    quotas = tuple(
        QuotaAsk(
            each.quota, each.counter, cost if each.quota.kind == "money" else each.amount, each.ends_at_us
        )
        for each in found.quotas
    )
    return Ask(call_id, LIVES_S, rates, quotas)


def _of(quota: Quota, used: Spent) -> int:
    return {"money": used.cost_nanos, "tokens": used.tokens, "requests": 1}[quota.kind]


TestCountersAgainstAList = CountersAgainstAList.TestCase
TestCountersAgainstAList.settings = settings(max_examples=60)


# Never more than the limit in any minute, and hardly less


def let_in(counters: LocalCounters, limit: RateLimit) -> bool:
    return isinstance(counters.admit_now(asking(limit)), Admitted)


@given(st.integers(1, 8), st.lists(st.floats(0.0, 3.0) | st.sampled_from([0.0, 1.0, 60.0]), max_size=150))
def test_no_minute_has_more_calls_than_the_limit(amount: int, steps: list[float]) -> None:
    clock, limit = Clock(), requests(amount)
    counters = LocalCounters(survey, clock=clock)
    moments = []
    for passes_s in steps:
        clock.advance(passes_s)
        if let_in(counters, limit):
            moments.append(clock.now_s)

    for at, first in enumerate(moments):
        assert sum(first <= each < first + 60.0 for each in moments[at:]) <= amount


@given(st.integers(1, 8), st.floats(0.0, 1.0), st.lists(st.floats(0.0, 20.0), max_size=20))
def test_a_limit_that_is_always_asked_lets_in_60_of_61(
    amount: int, begins_s: float, steps: list[float]
) -> None:
    """Callers that come back as soon as they are told."""
    clock, limit = Clock(), requests(amount)
    clock.advance(begins_s)
    counters = LocalCounters(survey, clock=clock)
    begun_s, count, pauses = clock.now_s, 0, iter(steps)
    while clock.now_s < begun_s + 610.0:
        answer = counters.admit_now(asking(limit))
        if isinstance(answer, Admitted):
            count += 1
        else:
            assert isinstance(answer, Exceeded)
            clock.advance(min(answer.retry_after_s, next(pauses, answer.retry_after_s)))

    assert count >= amount * 10


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.data())
def test_calls_that_end_in_any_order_never_overshoot_a_hard_quota(
    worst_cases: list[int], data: st.DataObject
) -> None:
    """As long as none uses more than its worst case."""
    quota = QUOTAS[1]
    small = Quota(quota.id, quota.owner, "money", 100, "day", "UTC", True)
    counters = LocalCounters(survey, clock=Clock())
    asyncio.run(counters.admit(asking(small, amount=0)))
    under_way: dict[str, int] = {}
    for worst in worst_cases:
        ask = asking(small, amount=worst)
        before = at_once(counters.figures([counter(small)]))[counter(small)]
        answer = counters.admit_now(ask)
        assert isinstance(answer, Admitted) == (before.total + worst <= 100)
        if isinstance(answer, Admitted):
            under_way[ask.call_id] = worst
        for call_id in [each for each in under_way if data.draw(st.booleans())]:
            used = data.draw(st.integers(0, under_way.pop(call_id)))
            counters.settle(call_id, Spent(cost_nanos=used))
        figures = at_once(counters.figures([counter(small)]))[counter(small)]
        assert figures.held == sum(under_way.values())
        assert figures.total <= 100
