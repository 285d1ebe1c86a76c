"""Each case that is known from the field is a sentence here; a report is named where there is one."""

from collections.abc import Iterable
from math import inf, nan

import pytest

from gateway.relay.breaker import Breaker, BreakerPolicy, Permit, Shift, Verdict

T = 1_000.0
"""When a test begins, in monotonic seconds."""
NAMED_NOTHING = [0.0, -5.0, -inf, nan]


@pytest.fixture
def breaker() -> Breaker:
    return Breaker("openai/gpt-4o")


def attempt(
    breaker: Breaker,
    verdict: Verdict,
    now: float = T,
    retry_after_s: float | None = None,
    cause: str = "status 503",
) -> Shift | None:
    """Enter and end at one moment."""
    permit = breaker.enter(now)
    assert permit is not None
    return breaker.ended(permit, verdict, now, cause, retry_after_s)


def attempts(breaker: Breaker, verdicts: Iterable[Verdict], now: float = T) -> list[Shift]:
    """Those that changed the state."""
    return [shift for verdict in verdicts if (shift := attempt(breaker, verdict, now))]


def opened(breaker: Breaker, now: float = T) -> Breaker:
    attempts(breaker, ["failure"] * 5, now)
    assert breaker.state(now) == "open"
    return breaker


def probe_of(breaker: Breaker, now: float = T + 60) -> Permit:
    permit = breaker.enter(now)
    assert permit is not None
    assert permit.probe
    return permit


# ---- closed ----


def test_a_closed_breaker_lets_everything_through(breaker: Breaker) -> None:
    assert breaker.state(T) == "closed"
    assert breaker.permits(T)
    assert breaker.ready_in_s(T) == 0.0
    permits = [breaker.enter(T) for _ in range(1_000)]
    assert all(permit is not None and not permit.probe and permit.shift is None for permit in permits)


def test_five_failures_in_a_row_open_it(breaker: Breaker) -> None:
    assert attempts(breaker, ["failure"] * 4) == []
    assert breaker.state(T) == "closed"
    assert attempt(breaker, "failure") == Shift(
        "closed", "open", "5 failures in a row, the last: status 503", 60.0
    )
    assert breaker.state(T) == "open"


def test_a_success_between_failures_makes_them_no_row(breaker: Breaker) -> None:
    """Polly#131: the counter was not reset by a success."""
    assert attempts(breaker, (["failure"] * 4 + ["success"]) * 20) == []


def test_one_failure_is_no_reason_though_it_is_all_there_was(breaker: Breaker) -> None:
    """litellm#17418: one failed attempt of one is 100 %, and took the target away."""
    assert attempt(breaker, "failure") is None
    assert breaker.permits(T)


def test_failures_that_are_far_apart_are_a_row_too(breaker: Breaker) -> None:
    """solace-broker-mcp#296: a count that fades with the window never opens on a quiet target."""
    shifts = [attempt(breaker, "failure", T + 90 * minute) for minute in range(5)]
    assert [shift is not None for shift in shifts] == [False] * 4 + [True]


def test_five_in_a_row_are_not_enough_while_most_attempts_succeed(breaker: Breaker) -> None:
    assert attempts(breaker, ["success"] * 6 + ["failure"] * 5) == []
    assert breaker.permits(T)


def test_it_opens_when_the_row_has_become_half_of_the_attempts(breaker: Breaker) -> None:
    attempts(breaker, ["success"] * 6 + ["failure"] * 5)
    shift = attempt(breaker, "failure")
    assert shift is not None
    assert shift.cause == "6 failures in a row, the last: status 503"


def test_failures_outside_the_row_count_towards_the_half(breaker: Breaker) -> None:
    shifts = attempts(breaker, ["failure"] * 4 + ["success"] * 9 + ["failure"] * 5)
    assert [shift.after for shift in shifts] == ["open"]


def test_only_the_last_ten_seconds_count_towards_the_half(breaker: Breaker) -> None:
    attempts(breaker, ["success"] * 1_000, T)
    assert attempts(breaker, ["failure"] * 5, T + 9.9) == []
    assert attempt(breaker, "failure", T + 10) is not None


def test_neutral_attempts_are_neither_in_the_row_nor_an_end_to_it(breaker: Breaker) -> None:
    row: list[Verdict] = ["failure", "neutral"] * 4
    assert attempts(breaker, row) == []
    assert attempt(breaker, "failure") is not None


def test_neutral_attempts_do_not_dilute_the_half(breaker: Breaker) -> None:
    """A provider that throttles most attempts and fails the rest is failing."""
    assert len(attempts(breaker, ["neutral"] * 100 + ["failure"] * 5)) == 1


def test_neutral_attempts_alone_never_open_it(breaker: Breaker) -> None:
    assert attempts(breaker, ["neutral"] * 1_000) == []


def test_attempts_that_were_given_back_count_for_nothing(breaker: Breaker) -> None:
    """litellm#41223: what a caller cut short says nothing about the target; nor does our own shedding."""
    for _ in range(1_000):
        permit = breaker.enter(T)
        assert permit is not None
        breaker.give_back(permit, T)
    assert len(attempts(breaker, ["failure"] * 5)) == 1


def test_content_of_an_ordinary_stream_changes_nothing(breaker: Breaker) -> None:
    attempts(breaker, ["failure"] * 4)
    permit = breaker.enter(T)
    assert permit is not None
    assert breaker.spoke(permit, T) is None
    assert breaker.ended(permit, "failure", T, "reset") is not None


# ---- open ----


def test_an_open_breaker_lets_nothing_through_for_its_time(breaker: Breaker) -> None:
    opened(breaker)
    for now in (T, T + 30, T + 59.999):
        assert breaker.state(now) == "open"
        assert not breaker.permits(now)
        assert breaker.enter(now) is None


def test_it_says_when_to_come_back(breaker: Breaker) -> None:
    opened(breaker)
    assert breaker.ready_in_s(T) == 60.0
    assert breaker.ready_in_s(T + 47.5) == 12.5
    assert breaker.ready_in_s(T + 60) == 0.0


def test_it_is_half_open_from_the_moment_its_time_is_over(breaker: Breaker) -> None:
    """semian#189: it was shown as open until somebody asked."""
    opened(breaker)
    assert breaker.state(T + 60) == "half_open"
    assert breaker.permits(T + 60)


def test_failures_that_end_together_open_it_once(breaker: Breaker) -> None:
    """opossum#385: the sixth of six failures at once stopped the clock of the opening."""
    permits = [breaker.enter(T) for _ in range(6)]
    shifts = [breaker.ended(permit, "failure", T, "reset") for permit in permits if permit]
    assert [shift is not None for shift in shifts] == [False] * 4 + [True, False]
    assert breaker.ready_in_s(T) == 60.0


def test_a_late_failure_does_not_push_the_time_back(breaker: Breaker) -> None:
    late = breaker.enter(T)
    assert late is not None
    opened(breaker)
    assert breaker.ended(late, "failure", T + 59, "timed out") is None
    assert breaker.ready_in_s(T + 59) == 1.0


def test_a_late_success_does_not_close_it(breaker: Breaker) -> None:
    """Polly#217: an attempt from before the opening says how things were then."""
    late = breaker.enter(T)
    assert late is not None
    opened(breaker)
    assert breaker.ended(late, "success", T + 30, "") is None
    assert breaker.state(T + 30) == "open"


# ---- Retry-After ----


def test_a_retry_after_makes_the_open_time_longer(breaker: Breaker) -> None:
    attempts(breaker, ["failure"] * 4)
    shift = attempt(breaker, "failure", retry_after_s=90.0)
    assert shift is not None
    assert shift.open_for_s == 90.0
    assert breaker.state(T + 89.9) == "open"
    assert breaker.state(T + 90) == "half_open"


def test_a_retry_after_never_makes_it_shorter(breaker: Breaker) -> None:
    attempts(breaker, ["failure"] * 4)
    attempt(breaker, "failure", retry_after_s=1.0)
    assert breaker.ready_in_s(T) == 60.0


def test_a_shorter_one_does_not_replace_a_longer_one(breaker: Breaker) -> None:
    """litellm#40130, the other way round."""
    attempt(breaker, "failure", T, retry_after_s=300.0)
    for second in range(1, 5):
        attempt(breaker, "failure", T + second, retry_after_s=5.0)
    assert breaker.ready_in_s(T + 4) == 296.0


def test_a_longer_one_replaces_a_shorter_one(breaker: Breaker) -> None:
    """litellm#40130: the first, shorter time was kept."""
    attempt(breaker, "failure", T, retry_after_s=1.0)
    for second in range(1, 5):
        attempt(breaker, "failure", T + second, retry_after_s=100.0)
    assert breaker.ready_in_s(T + 4) == 100.0


def test_a_throttled_attempt_in_the_row_is_heeded_when_it_opens(breaker: Breaker) -> None:
    attempt(breaker, "neutral", retry_after_s=200.0)
    opened(breaker)
    assert breaker.ready_in_s(T) == 200.0


def test_a_success_shows_that_the_asked_time_is_over(breaker: Breaker) -> None:
    attempt(breaker, "failure", retry_after_s=500.0)
    attempt(breaker, "success")
    opened(breaker)
    assert breaker.ready_in_s(T) == 60.0


def test_an_asked_time_that_has_passed_leaves_the_usual_one(breaker: Breaker) -> None:
    attempt(breaker, "failure", T, retry_after_s=70.0)
    for _ in range(4):
        attempt(breaker, "failure", T + 65)
    assert breaker.ready_in_s(T + 65) == 60.0


def test_a_late_retry_after_makes_the_open_time_longer(breaker: Breaker) -> None:
    late = [breaker.enter(T) for _ in range(3)]
    opened(breaker)
    for permit, asked_s in zip(late, (100.0, 2.0, 110.0), strict=True):
        assert permit is not None
        assert breaker.ended(permit, "neutral", T + 10, "status 429", asked_s) is None
    assert breaker.ready_in_s(T + 10) == 110.0


def test_a_late_retry_after_does_not_open_it_again(breaker: Breaker) -> None:
    late = breaker.enter(T)
    assert late is not None
    opened(breaker)
    breaker.ended(late, "failure", T + 60, "status 503", retry_after_s=100.0)
    assert breaker.state(T + 60) == "half_open"


@pytest.mark.parametrize("absurd", [3_601.0, 86_400.0 * 365, 1e300, inf])
def test_an_absurd_retry_after_is_believed_for_an_hour(breaker: Breaker, absurd: float) -> None:
    attempts(breaker, ["failure"] * 4)
    attempt(breaker, "failure", retry_after_s=absurd)
    assert breaker.ready_in_s(T) == 3_600.0
    assert not breaker.held


@pytest.mark.parametrize("nothing", NAMED_NOTHING)
def test_a_retry_after_that_names_no_moment_changes_nothing(breaker: Breaker, nothing: float) -> None:
    attempts(breaker, ["failure"] * 4)
    attempt(breaker, "failure", retry_after_s=nothing)
    assert breaker.ready_in_s(T) == 60.0


# ---- half-open ----


def test_a_thousand_callers_get_exactly_one_permit(breaker: Breaker) -> None:
    """Polly#216 and many others: the flag was looked at by all before it was set by one."""
    opened(breaker)
    permits = [permit for _ in range(1_000) if (permit := breaker.enter(T + 60))]
    assert [permit.probe for permit in permits] == [True]


def test_asking_whether_it_permits_takes_nothing(breaker: Breaker) -> None:
    opened(breaker)
    assert all(breaker.permits(T + 60) and breaker.ready_in_s(T + 60) == 0.0 for _ in range(1_000))
    assert breaker.enter(T + 60) is not None


def test_the_first_probe_tells_that_it_is_half_open_now(breaker: Breaker) -> None:
    opened(breaker)
    first = probe_of(breaker)
    assert first.shift == Shift("open", "half_open", "its open time is over, one attempt goes through", None)
    breaker.give_back(first, T + 61)
    assert probe_of(breaker, T + 62).shift is None


def test_while_the_probe_is_out_callers_are_told_to_ask_again_soon(breaker: Breaker) -> None:
    opened(breaker)
    probe_of(breaker)
    assert breaker.state(T + 60) == "half_open"
    assert not breaker.permits(T + 60)
    assert breaker.ready_in_s(T + 60) == 1.0


def test_a_successful_probe_closes_it(breaker: Breaker) -> None:
    opened(breaker)
    shift = breaker.ended(probe_of(breaker), "success", T + 61, "")
    assert shift == Shift("half_open", "closed", "the probe succeeded", None)
    assert breaker.state(T + 61) == "closed"


def test_after_closing_it_counts_from_nothing(breaker: Breaker) -> None:
    """disyuntor#6, gobreaker's counts: one failure after recovery must not open it again."""
    attempts(breaker, ["success"] * 5)
    attempts(breaker, ["failure"] * 5)
    breaker.ended(probe_of(breaker), "success", T + 60, "")
    assert attempts(breaker, ["failure"] * 4, T + 60) == []
    assert len(attempts(breaker, ["failure"], T + 60)) == 1


def test_so_many_failures_in_a_row_are_no_chance_whatever_the_share(breaker: Breaker) -> None:
    attempts(breaker, ["success"] * 5_000)
    assert attempts(breaker, ["failure"] * 19) == []
    shift = attempt(breaker, "failure")
    assert shift is not None
    assert shift.cause.startswith("20 failures in a row")


def test_after_closing_the_successes_of_before_are_forgotten_too() -> None:
    brief = Breaker("openai/gpt-4o", BreakerPolicy(open_s=1.0, surely=1000))
    attempts(brief, ["success"] * 50)
    attempts(brief, ["failure"] * 50)
    brief.ended(probe_of(brief, T + 1), "success", T + 1, "")
    assert len(attempts(brief, ["failure"] * 5, T + 1)) == 1


def test_after_closing_the_failures_of_before_are_forgotten_too(breaker: Breaker) -> None:
    opened(breaker)
    breaker.close(T, "closed by ada")
    assert attempts(breaker, ["success"] * 6 + ["failure"] * 5) == []


def test_after_closing_the_asked_time_is_forgotten(breaker: Breaker) -> None:
    attempt(breaker, "failure", retry_after_s=3_600.0)
    attempts(breaker, ["failure"] * 4)
    breaker.close(T, "a person said so")
    opened(breaker)
    assert breaker.ready_in_s(T) == 60.0


def test_a_failed_probe_opens_it_for_another_minute(breaker: Breaker) -> None:
    """opossum#276: a failed probe on a quiet target is a failure too, whatever the share says."""
    opened(breaker)
    shift = breaker.ended(probe_of(breaker), "failure", T + 65, "status 500")
    assert shift == Shift("half_open", "open", "the probe failed: status 500", 60.0)
    assert breaker.state(T + 124.9) == "open"
    assert breaker.state(T + 125) == "half_open"


def test_every_further_probe_is_one_alone_again(breaker: Breaker) -> None:
    """opossum#119: after the first failed probe the target was flooded, or never probed again."""
    opened(breaker)
    for minute in range(1, 20):
        now = T + 60 * minute
        permits = [permit for _ in range(100) if (permit := breaker.enter(now))]
        assert len(permits) == 1
        breaker.ended(permits[0], "failure", now, "refused")
    breaker.ended(probe_of(breaker, T + 1_200), "success", T + 1_200, "")
    assert breaker.state(T + 1_200) == "closed"


def test_a_failed_probe_with_a_retry_after_opens_it_for_longer(breaker: Breaker) -> None:
    opened(breaker)
    breaker.ended(probe_of(breaker), "failure", T + 60, "status 503", retry_after_s=120.0)
    assert breaker.ready_in_s(T + 60) == 120.0


def test_a_throttled_probe_opens_it_again_for_as_long_as_it_was_asked(breaker: Breaker) -> None:
    opened(breaker)
    shift = breaker.ended(probe_of(breaker), "neutral", T + 60, "status 429", retry_after_s=90.0)
    assert shift == Shift("half_open", "open", "the probe was told to come back later: status 429", 90.0)


def test_a_throttled_probe_opens_it_for_no_less_than_a_minute(breaker: Breaker) -> None:
    opened(breaker)
    breaker.ended(probe_of(breaker), "neutral", T + 60, "status 429", retry_after_s=1.0)
    assert breaker.ready_in_s(T + 60) == 60.0


def test_a_probe_that_said_nothing_lets_the_next_caller_probe(breaker: Breaker) -> None:
    """resilience4j#544, nora#585: an ignored result left it half-open for good."""
    opened(breaker)
    assert breaker.ended(probe_of(breaker), "neutral", T + 60, "status 401") is None
    assert breaker.state(T + 60) == "half_open"
    assert breaker.enter(T + 60) is not None
    assert breaker.enter(T + 60) is None


@pytest.mark.parametrize("nothing", NAMED_NOTHING)
def test_a_neutral_probe_whose_retry_after_names_no_moment_said_nothing(
    breaker: Breaker, nothing: float
) -> None:
    opened(breaker)
    assert breaker.ended(probe_of(breaker), "neutral", T + 60, "status 429", nothing) is None
    assert breaker.permits(T + 60)


def test_a_cancelled_probe_gives_its_permit_to_the_next_caller(breaker: Breaker) -> None:
    """litellm#39701: a cancelled probe left it half-open for good."""
    opened(breaker)
    breaker.give_back(probe_of(breaker), T + 61)
    assert breaker.state(T + 61) == "half_open"
    assert len([1 for _ in range(1_000) if breaker.enter(T + 61)]) == 1


def test_a_probe_given_back_twice_does_not_free_the_place_of_the_next(breaker: Breaker) -> None:
    """nv-redfish#211: an older attempt's end released a newer probe's place."""
    opened(breaker)
    first = probe_of(breaker)
    breaker.give_back(first, T + 60)
    probe_of(breaker, T + 61)
    breaker.give_back(first, T + 61)
    assert breaker.ended(first, "failure", T + 61, "reset") is None
    assert breaker.enter(T + 61) is None
    assert breaker.state(T + 61) == "half_open"


def test_a_permit_that_was_given_back_counts_nowhere(breaker: Breaker) -> None:
    opened(breaker)
    spent = probe_of(breaker)
    breaker.give_back(spent, T + 60)
    breaker.ended(probe_of(breaker), "success", T + 60, "")
    for _ in range(10):
        assert breaker.ended(spent, "failure", T + 60, "reset") is None
    assert breaker.state(T + 60) == "closed"


@pytest.mark.parametrize("verdict", ["success", "failure", "neutral"])
def test_a_late_end_decides_nothing_while_the_probe_is_out(breaker: Breaker, verdict: Verdict) -> None:
    """Polly#217: a slow attempt from before the opening ended in half-open, and decided it."""
    late = breaker.enter(T)
    assert late is not None
    opened(breaker)
    permit = probe_of(breaker)
    assert breaker.ended(late, verdict, T + 61, "late", retry_after_s=500.0) is None
    breaker.give_back(late, T + 61)
    assert breaker.enter(T + 61) is None
    assert breaker.ended(permit, "success", T + 62, "") is not None


def test_a_late_end_is_not_counted_after_closing(breaker: Breaker) -> None:
    late = [permit for _ in range(100) if (permit := breaker.enter(T))]
    opened(breaker)
    breaker.ended(probe_of(breaker), "success", T + 60, "")
    for permit in late:
        assert breaker.ended(permit, "failure", T + 61, "timed out") is None
    assert breaker.state(T + 61) == "closed"
    assert len(attempts(breaker, ["failure"] * 5, T + 61)) == 1


def test_the_end_of_a_probe_counts_once(breaker: Breaker) -> None:
    opened(breaker)
    permit = probe_of(breaker)
    breaker.ended(permit, "success", T + 60, "")
    for _ in range(10):
        assert breaker.ended(permit, "failure", T + 60, "again") is None
    assert breaker.state(T + 60) == "closed"


# ---- a probe that takes long ----


def overdue(breaker: Breaker) -> tuple[Permit, Permit]:
    """A probe that is out for longer than its lease, and the one that went out after it."""
    opened(breaker)
    return probe_of(breaker, T + 60), probe_of(breaker, T + 120)


def test_during_its_lease_no_other_goes_out(breaker: Breaker) -> None:
    opened(breaker)
    probe_of(breaker)
    for now in (T + 60, T + 90, T + 119.999):
        assert not breaker.permits(now)
        assert breaker.enter(now) is None
        assert breaker.state(now) == "half_open"


def test_after_its_lease_one_more_goes_out_and_no_second(breaker: Breaker) -> None:
    """OmniRoute#13836: a probe that never comes back kept the target from everybody."""
    opened(breaker)
    probe_of(breaker)
    assert breaker.permits(T + 120)
    assert breaker.ready_in_s(T + 120) == 0.0
    permits = [permit for _ in range(1_000) if (permit := breaker.enter(T + 120))]
    assert [(permit.probe, permit.shift) for permit in permits] == [(True, None)]
    assert not breaker.permits(T + 120)


def test_a_target_that_never_answers_gets_one_probe_each_lease(breaker: Breaker) -> None:
    opened(breaker)
    for lease in range(1, 100):
        first, last = T + 60 * lease, T + 60 * lease + 59.999
        assert len([1 for now in (first, first, last) if breaker.enter(now)]) == 1


def test_a_lease_begins_when_its_probe_goes_out(breaker: Breaker) -> None:
    opened(breaker)
    probe_of(breaker, T + 1_000)
    assert not breaker.permits(T + 1_059)
    assert breaker.permits(T + 1_060)


def test_shortly_before_the_lease_is_over_callers_are_told_its_rest(breaker: Breaker) -> None:
    opened(breaker)
    probe_of(breaker)
    assert breaker.ready_in_s(T + 119) == 1.0
    assert breaker.ready_in_s(T + 119.75) == 0.25


def test_an_overdue_probe_still_decides_while_no_other_is_out(breaker: Breaker) -> None:
    opened(breaker)
    permit = probe_of(breaker)
    shift = breaker.ended(permit, "failure", T + 660, "timed out")
    assert shift == Shift("half_open", "open", "the probe failed: timed out", 60.0)


def test_an_older_probe_s_success_closes_it(breaker: Breaker) -> None:
    older, newer = overdue(breaker)
    shift = breaker.ended(older, "success", T + 130, "")
    assert shift == Shift("half_open", "closed", "the probe succeeded", None)
    assert breaker.ended(newer, "failure", T + 140, "timed out") is None
    assert breaker.state(T + 140) == "closed"


def test_an_older_probe_s_first_content_closes_it(breaker: Breaker) -> None:
    older, newer = overdue(breaker)
    shift = breaker.spoke(older, T + 130)
    assert shift == Shift("half_open", "closed", "the probe's answer began", None)
    assert breaker.spoke(newer, T + 131) is None
    assert attempts(breaker, ["failure"] * 4, T + 132) == []
    assert breaker.ended(older, "failure", T + 133, "reset") is not None


@pytest.mark.parametrize("verdict", ["failure", "neutral"])
@pytest.mark.parametrize("asked_s", [None, 500.0])
def test_an_older_probe_s_bad_end_changes_nothing_while_a_newer_is_out(
    breaker: Breaker, verdict: Verdict, asked_s: float | None
) -> None:
    older, newer = overdue(breaker)
    assert breaker.ended(older, verdict, T + 130, "timed out", asked_s) is None
    assert breaker.state(T + 130) == "half_open"
    assert not breaker.permits(T + 130)
    assert breaker.ended(older, "success", T + 131, "twice") is None
    shift = breaker.ended(newer, "failure", T + 140, "reset")
    assert shift == Shift("half_open", "open", "the probe failed: reset", 60.0)


def test_an_older_probe_given_back_frees_nobody_s_place(breaker: Breaker) -> None:
    older, newer = overdue(breaker)
    breaker.give_back(older, T + 130)
    assert not breaker.permits(T + 130)
    assert breaker.ended(older, "success", T + 131, "twice") is None
    assert breaker.ended(newer, "success", T + 140, "") is not None


def test_the_newer_one_given_back_lets_the_next_caller_probe(breaker: Breaker) -> None:
    _, newer = overdue(breaker)
    breaker.give_back(newer, T + 130)
    assert len([1 for _ in range(1_000) if breaker.enter(T + 130)]) == 1
    assert not breaker.permits(T + 189)
    assert breaker.permits(T + 190)


def test_an_older_probe_s_failure_counts_again_when_the_newer_told_nothing(breaker: Breaker) -> None:
    older, newer = overdue(breaker)
    breaker.give_back(newer, T + 130)
    shift = breaker.ended(older, "failure", T + 140, "timed out")
    assert shift == Shift("half_open", "open", "the probe failed: timed out", 60.0)


@pytest.mark.parametrize("verdict", ["success", "failure", "neutral"])
def test_an_older_probe_is_late_when_the_newer_has_decided(breaker: Breaker, verdict: Verdict) -> None:
    older, newer = overdue(breaker)
    breaker.ended(newer, "failure", T + 130, "reset")
    assert breaker.spoke(older, T + 140) is None
    assert breaker.ended(older, verdict, T + 140, "late") is None
    assert breaker.state(T + 189) == "open"
    probe_of(breaker, T + 190)
    assert breaker.ended(older, verdict, T + 191, "late") is None
    assert breaker.state(T + 191) == "half_open"


# ---- a probe that streams ----


def test_a_probe_s_first_content_closes_it_at_once(breaker: Breaker) -> None:
    opened(breaker)
    shift = breaker.spoke(probe_of(breaker), T + 61)
    assert shift == Shift("half_open", "closed", "the probe's answer began", None)
    assert breaker.enter(T + 61) is not None


def test_its_end_then_counts_as_any_attempt_s(breaker: Breaker) -> None:
    opened(breaker)
    permit = probe_of(breaker)
    breaker.spoke(permit, T + 61)
    assert breaker.spoke(permit, T + 62) is None
    assert attempts(breaker, ["failure"] * 4, T + 63) == []
    assert breaker.ended(permit, "failure", T + 64, "reset") is not None


def test_its_good_end_ends_a_row_of_failures(breaker: Breaker) -> None:
    opened(breaker)
    permit = probe_of(breaker)
    breaker.spoke(permit, T + 61)
    attempts(breaker, ["failure"] * 4, T + 63)
    breaker.ended(permit, "success", T + 64, "")
    assert attempts(breaker, ["failure"] * 4, T + 64) == []


def test_its_cancellation_then_counts_for_nothing(breaker: Breaker) -> None:
    opened(breaker)
    permit = probe_of(breaker)
    breaker.spoke(permit, T + 61)
    breaker.give_back(permit, T + 62)
    assert breaker.state(T + 62) == "closed"


def test_its_end_is_late_when_it_opened_again_meanwhile(breaker: Breaker) -> None:
    opened(breaker)
    permit = probe_of(breaker)
    breaker.spoke(permit, T + 61)
    opened(breaker, T + 62)
    assert breaker.ended(permit, "success", T + 70, "") is None
    assert breaker.state(T + 70) == "open"


def test_it_remains_known_as_the_probe(breaker: Breaker) -> None:
    opened(breaker)
    permit = probe_of(breaker)
    breaker.spoke(permit, T + 61)
    assert permit.probe


# ---- by hand ----


def test_held_open_there_is_no_probe_until_it_is_let_go(breaker: Breaker) -> None:
    """circuitbreaker#8 (Go): tripped by hand, it tried again after its timeout."""
    assert breaker.hold_open(T, "held open by ada") == Shift("closed", "open", "held open by ada", None)
    assert breaker.held
    for now in (T, T + 60, T + 1e9):
        assert breaker.state(now) == "open"
        assert breaker.enter(now) is None
    assert breaker.ready_in_s(T) == inf


def test_let_go_it_is_closed_and_counts_from_nothing(breaker: Breaker) -> None:
    attempts(breaker, ["failure"] * 4)
    breaker.hold_open(T, "maintenance")
    assert breaker.let_go(T + 5, "let go by ada") == Shift("open", "closed", "let go by ada", None)
    assert not breaker.held
    assert attempts(breaker, ["failure"] * 4, T + 5) == []


def test_what_is_open_by_itself_can_be_held(breaker: Breaker) -> None:
    opened(breaker)
    assert breaker.hold_open(T + 1, "maintenance") == Shift("open", "open", "maintenance", None)
    assert breaker.state(T + 61) == "open"


def test_holding_twice_is_holding_once(breaker: Breaker) -> None:
    breaker.hold_open(T, "maintenance")
    assert breaker.hold_open(T + 1, "maintenance") is None


def test_the_end_of_a_probe_does_not_undo_a_hold(breaker: Breaker) -> None:
    opened(breaker)
    permit = probe_of(breaker)
    assert breaker.hold_open(T + 61, "maintenance") == Shift("half_open", "open", "maintenance", None)
    assert breaker.spoke(permit, T + 62) is None
    assert breaker.ended(permit, "success", T + 62, "") is None
    assert breaker.held


def test_a_late_retry_after_does_not_undo_a_hold(breaker: Breaker) -> None:
    late = breaker.enter(T)
    assert late is not None
    breaker.hold_open(T, "maintenance")
    breaker.ended(late, "failure", T + 1, "status 503", retry_after_s=5.0)
    assert breaker.held


def test_nothing_is_let_go_that_is_not_held(breaker: Breaker) -> None:
    assert breaker.let_go(T, "let go") is None
    opened(breaker)
    assert breaker.let_go(T, "let go") is None
    assert breaker.state(T) == "open"


def test_a_person_can_close_it_early(breaker: Breaker) -> None:
    opened(breaker)
    assert breaker.close(T + 5, "closed by ada") == Shift("open", "closed", "closed by ada", None)
    assert attempts(breaker, ["failure"] * 4, T + 5) == []


def test_closing_by_hand_makes_the_probe_s_end_a_late_one(breaker: Breaker) -> None:
    opened(breaker)
    permit = probe_of(breaker)
    assert breaker.close(T + 61, "closed by ada") == Shift("half_open", "closed", "closed by ada", None)
    assert breaker.ended(permit, "failure", T + 62, "timed out") is None
    assert breaker.state(T + 62) == "closed"


def test_closing_what_is_closed_changes_nothing(breaker: Breaker) -> None:
    attempts(breaker, ["failure"] * 4)
    assert breaker.close(T, "closed by ada") is None
    assert len(attempts(breaker, ["failure"])) == 1


def test_closing_does_not_let_go_what_is_held(breaker: Breaker) -> None:
    breaker.hold_open(T, "maintenance")
    assert breaker.close(T + 1, "closed by ada") is None
    assert breaker.held


# ---- policy and looks ----


def test_every_figure_of_its_policy_is_used() -> None:
    policy = BreakerPolicy(
        2, 0.9, 3, surely=1000, open_s=7.0, longest_open_s=20.0, probe_s=1.5, ask_again_s=0.5
    )
    breaker = Breaker("openai/gpt-4o", policy)
    attempts(breaker, ["success"])
    assert attempts(breaker, ["failure"] * 8) == []
    shift = attempt(breaker, "failure")
    assert shift is not None
    assert shift.open_for_s == 7.0
    breaker.ended(probe_of(breaker, T + 7), "failure", T + 7, "reset", retry_after_s=50.0)
    assert breaker.ready_in_s(T + 7) == 20.0
    probe_of(breaker, T + 27)
    assert breaker.ready_in_s(T + 27) == 0.5
    assert not breaker.permits(T + 28)
    assert breaker.permits(T + 28.5)
    breaker.close(T + 30, "closed by ada")
    attempts(breaker, ["success"] * 100, T + 30)
    assert len(attempts(breaker, ["failure"] * 2, T + 33)) == 1


def test_it_introduces_itself(breaker: Breaker) -> None:
    assert repr(breaker) == "<Breaker openai/gpt-4o closed, 0 failures>"
    attempt(breaker, "failure")
    assert repr(breaker) == "<Breaker openai/gpt-4o closed, 1 failure>"
    attempts(breaker, ["failure"] * 4)
    assert repr(breaker) == "<Breaker openai/gpt-4o open, 5 failures, retries in 60.0 s>"
    breaker.enter(T + 47.6)
    assert repr(breaker) == "<Breaker openai/gpt-4o open, 5 failures, retries in 12.4 s>"
    permit = probe_of(breaker)
    assert repr(breaker) == "<Breaker openai/gpt-4o half-open, 5 failures, the probe is out>"
    breaker.state(T + 120)
    assert repr(breaker) == "<Breaker openai/gpt-4o half-open, 5 failures, the probe is overdue>"
    breaker.give_back(permit, T + 60)
    assert repr(breaker) == "<Breaker openai/gpt-4o half-open, 5 failures, no probe yet>"
    breaker.ended(probe_of(breaker), "failure", T + 60, "reset")
    assert repr(breaker) == "<Breaker openai/gpt-4o open, 6 failures, retries in 60.0 s>"
    breaker.state(T + 130)
    assert repr(breaker) == "<Breaker openai/gpt-4o half-open, 6 failures, no probe yet>"
    breaker.hold_open(T + 130, "maintenance")
    assert repr(breaker) == "<Breaker openai/gpt-4o open, 6 failures, held open>"


# ---- several processes ----

THEIRS = Shift("closed", "open", "5 failures in a row, the last: status 503", 40.0)
PROBE_FAILED = Shift("half_open", "open", "the probe failed: status 503", 60.0)
RECOVERED = Shift("half_open", "closed", "the probe succeeded", None)


def test_what_opened_elsewhere_is_open_here_until_the_same_moment(breaker: Breaker) -> None:
    shift = breaker.told(THEIRS, T)

    assert shift == Shift("closed", "open", f"another process: {THEIRS.cause}", 40.0)
    assert breaker.state(T + 39.9) == "open"
    assert breaker.ready_in_s(T) == pytest.approx(40.0)
    assert probe_of(breaker, T + 40).probe


def test_what_began_before_it_was_told_changes_nothing(breaker: Breaker) -> None:
    permit = breaker.enter(T)
    assert permit is not None
    breaker.told(THEIRS, T)

    assert breaker.ended(permit, "success", T + 1, "") is None
    assert breaker.state(T + 1) == "open"


def test_an_opening_elsewhere_makes_the_open_time_longer_never_shorter(breaker: Breaker) -> None:
    opened(breaker)

    assert breaker.told(THEIRS, T) is None
    assert breaker.ready_in_s(T) == 60.0
    assert breaker.told(Shift("closed", "open", "told to wait", 300.0), T) is None
    assert breaker.ready_in_s(T) == 300.0


def test_what_closed_elsewhere_is_tried_here_at_once_by_one_probe(breaker: Breaker) -> None:
    opened(breaker)

    shift = breaker.told(RECOVERED, T + 1)

    assert shift == Shift("open", "half_open", "another process: the probe succeeded", None)
    probe = probe_of(breaker, T + 1)
    assert breaker.enter(T + 1) is None
    assert breaker.ended(probe, "success", T + 2, "") is not None
    assert breaker.state(T + 2) == "closed"


def test_a_probe_that_is_out_decides_whatever_is_told(breaker: Breaker) -> None:
    probe = probe_of(opened(breaker))

    assert breaker.told(PROBE_FAILED, T + 61) is None
    assert breaker.told(RECOVERED, T + 61) is None
    assert breaker.ended(probe, "success", T + 62, "") is not None
    assert breaker.state(T + 62) == "closed"


def test_a_probe_that_failed_elsewhere_spares_this_process_its_own(breaker: Breaker) -> None:
    opened(breaker)

    assert breaker.told(PROBE_FAILED, T + 60) is not None
    assert breaker.state(T + 119.9) == "open"


def test_one_probe_that_failed_elsewhere_opens_nothing_that_is_closed_here(breaker: Breaker) -> None:
    assert breaker.told(PROBE_FAILED, T) is None
    assert breaker.state(T) == "closed"


def test_what_a_person_holds_open_heeds_nobody(breaker: Breaker) -> None:
    breaker.hold_open(T, "held open by hand")

    assert breaker.told(RECOVERED, T) is None
    assert breaker.told(THEIRS, T) is None
    assert breaker.held


def test_a_closed_breaker_hears_of_a_recovery_in_peace(breaker: Breaker) -> None:
    assert breaker.told(RECOVERED, T) is None
    assert breaker.state(T) == "closed"


def test_another_process_is_believed_no_longer_than_a_provider(breaker: Breaker) -> None:
    breaker.told(Shift("closed", "open", "a clock that jumped", 1e9), T)

    assert breaker.ready_in_s(T) == breaker.policy.longest_open_s


def test_what_a_person_opened_elsewhere_says_no_time_and_opens_nothing_here(breaker: Breaker) -> None:
    assert breaker.told(Shift("closed", "open", "held open by ada", None), T) is None
    assert breaker.state(T) == "closed"


def test_the_lease_of_a_probe_that_ended_keeps_nothing_closed(breaker: Breaker) -> None:
    probe = probe_of(opened(breaker))
    breaker.ended(probe, "success", T + 61, "")

    shift = breaker.told(THEIRS, T + 62)

    assert shift == Shift("closed", "open", f"another process: {THEIRS.cause}", 40.0)
    assert breaker.state(T + 62) == "open"


def test_a_probe_decides_until_its_lease_is_over_and_no_longer(breaker: Breaker) -> None:
    probe_of(opened(breaker))
    lease_ends = T + 60 + BreakerPolicy().probe_s

    assert breaker.told(THEIRS, lease_ends - 0.001) is None
    assert breaker.told(THEIRS, lease_ends) is not None
