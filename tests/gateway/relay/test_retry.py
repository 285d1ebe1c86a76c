"""The decision in plain values, the budget, and both at work on a clock of their own."""

from bisect import bisect_right
from math import inf, nan

import pytest

from gateway.relay.breaker import Breaker, BreakerPolicy
from gateway.relay.retry import (
    FALL_BACK,
    GIVE_UP,
    Again,
    Failed,
    RetryBudget,
    RetryDecision,
    RetryPolicy,
    next_step,
)
from tests.gateway.relay.single_target import SingleTarget, always_down, works_four_times_in_five

AGAIN_ONLY = Failed(again=True, elsewhere=False)
ANYWHERE = Failed(again=True, elsewhere=True)
ELSEWHERE_ONLY = Failed(again=False, elsewhere=True)
HOPELESS = Failed(again=False, elsewhere=False)


def decided(
    failed: Failed,
    attempt_no: int = 1,
    time_left_s: float = 600.0,
    asked_so_far_s: float = 0.0,
    other_ready: bool = False,
    budget_allows: bool = True,
    jitter: float = 0.5,
    policy: RetryPolicy | None = None,
) -> RetryDecision:
    given = (failed, attempt_no, time_left_s, asked_so_far_s, other_ready, budget_allows, jitter)
    return next_step(*given) if policy is None else next_step(*given, policy=policy)


def asks(retry_after_s: float, elsewhere: bool = False) -> Failed:
    return Failed(again=True, elsewhere=elsewhere, retry_after_s=retry_after_s)


# ---- which way ----


def test_what_may_succeed_is_tried_again() -> None:
    assert decided(AGAIN_ONLY) == Again(0.5, asked=False)


def test_what_cannot_succeed_here_falls_back() -> None:
    assert decided(ELSEWHERE_ONLY) == FALL_BACK


def test_what_can_succeed_nowhere_is_given_up() -> None:
    assert decided(HOPELESS) == GIVE_UP


def test_a_target_gets_three_attempts() -> None:
    assert isinstance(decided(AGAIN_ONLY, attempt_no=2), Again)
    assert decided(AGAIN_ONLY, attempt_no=3) == GIVE_UP


def test_after_the_third_attempt_another_target_is_asked() -> None:
    assert decided(ANYWHERE, attempt_no=3) == FALL_BACK


def test_without_budget_nothing_is_tried_again() -> None:
    assert decided(AGAIN_ONLY, budget_allows=False) == GIVE_UP
    assert decided(ANYWHERE, budget_allows=False) == FALL_BACK


def test_the_same_target_is_preferred_while_the_wait_is_short() -> None:
    assert decided(ANYWHERE, other_ready=True) == Again(0.5, asked=False)


def test_falling_back_does_not_ask_whether_the_other_is_ready() -> None:
    assert decided(ELSEWHERE_ONLY, other_ready=False) == FALL_BACK


# ---- how long ----


@pytest.mark.parametrize(
    ("attempt_no", "longest_s"), [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 10.0), (9, 10.0)]
)
def test_the_longest_wait_doubles_up_to_ten_seconds(attempt_no: int, longest_s: float) -> None:
    patient = RetryPolicy(attempts=10)
    assert decided(AGAIN_ONLY, attempt_no, jitter=0.25, policy=patient) == Again(longest_s / 4, asked=False)


def test_jitter_reaches_down_to_no_wait_at_all() -> None:
    assert decided(AGAIN_ONLY, jitter=0.0) == Again(0.0, asked=False)


def test_the_provider_s_own_wait_is_kept_to_the_moment() -> None:
    assert decided(asks(7.25), jitter=0.1) == Again(7.25, asked=True)


def test_a_wait_of_a_millisecond_that_was_asked_for_is_taken_too() -> None:
    assert decided(asks(0.001)) == Again(0.001, asked=True)


@pytest.mark.parametrize("nothing", [0.0, -0.0, -5.0, -inf, nan])
def test_a_retry_after_that_names_no_moment_leaves_the_wait_to_us(nothing: float) -> None:
    """openai-python#3555: zero, negative and non-finite values keep the backoff."""
    assert decided(asks(nothing)) == Again(0.5, asked=False)


# ---- waits that are too long ----


def test_sixty_seconds_are_waited_when_asked_for() -> None:
    """openai-node#1924: the bound itself is still honoured."""
    assert decided(asks(60.0)) == Again(60.0, asked=True)


@pytest.mark.parametrize("too_long", [60.001, 3600.0, 1e300, inf])
def test_a_longer_wait_is_not_cut_short_but_not_taken(too_long: float) -> None:
    """openai-node#1840: never parked for hours; and never back before the moment that was named."""
    assert decided(asks(too_long), time_left_s=inf) == GIVE_UP
    assert decided(asks(too_long, elsewhere=True), time_left_s=inf) == FALL_BACK


def test_sixty_seconds_are_for_all_waits_of_a_call_together() -> None:
    assert decided(asks(20.0), asked_so_far_s=40.0) == Again(20.0, asked=True)
    assert decided(asks(20.5), asked_so_far_s=40.0) == GIVE_UP


def test_our_own_waits_do_not_count_towards_the_sixty() -> None:
    assert decided(AGAIN_ONLY, asked_so_far_s=60.0) == Again(0.5, asked=False)


def test_no_wait_goes_past_the_deadline() -> None:
    """linkerd#2369: retries went on for hours past the time of the call."""
    assert decided(AGAIN_ONLY, time_left_s=0.51) == Again(0.5, asked=False)
    assert decided(AGAIN_ONLY, time_left_s=0.4) == GIVE_UP
    assert decided(asks(30.0, elsewhere=True), time_left_s=29.0) == FALL_BACK


def test_a_wait_that_ends_with_the_deadline_leaves_no_time_for_the_attempt() -> None:
    assert decided(AGAIN_ONLY, time_left_s=0.5) == GIVE_UP


def test_a_call_whose_time_is_over_waits_for_nothing() -> None:
    assert decided(AGAIN_ONLY, time_left_s=0.0, jitter=0.0) == GIVE_UP
    assert decided(AGAIN_ONLY, time_left_s=-1.0, jitter=0.0) == GIVE_UP


def test_two_seconds_are_waited_even_with_another_target_ready() -> None:
    assert decided(asks(2.0, elsewhere=True), other_ready=True) == Again(2.0, asked=True)


def test_no_longer_wait_is_taken_while_another_target_is_ready() -> None:
    assert decided(asks(2.001, elsewhere=True), other_ready=True) == FALL_BACK
    assert decided(asks(2.001, elsewhere=True), other_ready=False) == Again(2.001, asked=True)


def test_our_own_long_wait_is_not_taken_either_while_another_target_is_ready() -> None:
    patient = RetryPolicy(attempts=5)
    assert decided(ANYWHERE, attempt_no=4, jitter=0.5, other_ready=True, policy=patient) == FALL_BACK


def test_a_ready_target_is_no_help_to_a_call_that_may_not_go_there() -> None:
    assert decided(asks(30.0), other_ready=True) == Again(30.0, asked=True)


# ---- budget ----


@pytest.fixture
def budget() -> RetryBudget:
    return RetryBudget()


def sent(budget: RetryBudget, now: float, tries: int = 1_000) -> int:
    """How many retries go out at once when so many are wanted."""
    count = 0
    for _ in range(tries):
        if budget.allows(now):
            budget.retried(now)
            count += 1
    return count


def test_ten_retries_in_a_second_are_always_allowed(budget: RetryBudget) -> None:
    assert sent(budget, 100.0) == 10


def test_and_ten_more_in_each_further_second(budget: RetryBudget) -> None:
    assert [sent(budget, 100.0 + second) for second in range(30)] == [10] * 30


def test_a_busy_target_gets_two_fifths_of_its_calls(budget: RetryBudget) -> None:
    for _ in range(1_000):
        budget.called(100.0)
    assert sent(budget, 100.0) == 400


def test_the_share_is_of_the_last_ten_seconds(budget: RetryBudget) -> None:
    for second in range(20):
        for _ in range(100):
            budget.called(100.0 + second)
    assert sent(budget, 119.5) == 400


def test_retries_of_the_last_ten_seconds_use_the_share_up(budget: RetryBudget) -> None:
    for _ in range(1_000):
        budget.called(100.0)
    assert sent(budget, 100.5, tries=390) == 390
    assert sent(budget, 101.0) == 10
    assert not budget.allows(101.0)


def test_the_share_is_exact_to_one_retry(budget: RetryBudget) -> None:
    for _ in range(29):
        budget.called(100.0)
    assert sent(budget, 100.0) == 11


def test_after_a_long_idle_time_only_the_few_are_left(budget: RetryBudget) -> None:
    for _ in range(1_000):
        budget.called(100.0)
    assert sent(budget, 5_000.0) == 10
    budget.called(5_000.0)
    assert not budget.allows(5_000.0)


def test_asking_takes_nothing(budget: RetryBudget) -> None:
    for _ in range(1_000):
        assert budget.allows(100.0)


# ---- at work ----

THEORY = 1 - 0.2**3


@pytest.mark.parametrize("per_s", [20, 50, 200])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_fifth_of_random_failures_costs_what_theory_says(per_s: int, seed: int) -> None:
    target = SingleTarget(works_four_times_in_five, seed=seed).receive(10_000, per_s)

    assert target.calls == 10_000
    assert target.answered / target.calls == pytest.approx(THEORY, abs=0.003)
    assert target.refused == 0


@pytest.mark.parametrize("per_s", [20, 50, 200])
def test_a_breaker_that_only_counted_would_refuse_many_of_them(per_s: int) -> None:
    counting = Breaker("simulated/model", BreakerPolicy(share=0.0))
    target = SingleTarget(works_four_times_in_five, breaker=counting).receive(10_000, per_s)

    assert target.answered / target.calls < 0.9


OUTAGES = [(200, 0.01), (200, 0.1), (600, 1), (3_000, 20), (3_000, 50), (3_000, 200), (3_000, 1_000)]


@pytest.mark.parametrize(("calls", "per_s"), OUTAGES)
@pytest.mark.parametrize("latency_s", [0.001, 0.1, 1.0, 10.0, 60.0], ids=lambda s: f"after {s:g} s")
def test_a_total_outage_is_not_multiplied_at_any_moment(calls: int, per_s: float, latency_s: float) -> None:
    """Connections refused, 5xx, slow failures and timeouts differ only in how long they take."""
    target = SingleTarget(always_down, latency_s).receive(calls, per_s)

    for attempts, moment in enumerate(target.sent_at, start=1):
        assert attempts <= 1.10 * bisect_right(target.came_at, moment) + 10
    assert target.answered == 0


@pytest.mark.parametrize("per_s", [1, 20, 200])
@pytest.mark.parametrize("latency_s", [0.001, 0.1, 1.0], ids=lambda s: f"after {s:g} s")
def test_an_outage_right_after_health_is_not_multiplied_at_any_moment(per_s: int, latency_s: float) -> None:
    """The good calls of the last seconds must not hold the breaker closed while its calls are retried."""
    target = SingleTarget(lambda now, dice: now < 1_030.0, latency_s).receive(90 * per_s, per_s)

    came = [at for at in target.came_at if at >= 1_030.0]
    for attempts, moment in enumerate((at for at in target.sent_at if at >= 1_030.0), start=1):
        assert attempts <= 1.10 * bisect_right(came, moment) + 10


@pytest.mark.parametrize("asks_again", [True, False])
def test_a_budget_that_is_asked_again_after_the_wait_is_kept(asks_again: bool) -> None:
    """Throttling never opens the breaker, so here the budget is all there is."""
    storm = SingleTarget(always_down, failures_are="neutral", asks_again=asks_again).receive(1_500, per_s=50)

    two_seconds_of_the_few = 20
    kept = storm.attempts - storm.calls <= 0.4 * storm.calls + two_seconds_of_the_few
    assert kept is asks_again
