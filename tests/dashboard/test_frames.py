"""Frames are final once they are out, add up to the calls, and know their percentiles within 1 %."""

import random
from collections import Counter
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.frames import (
    ALL,
    COUNTS,
    KEPT_S,
    LATEST_A_SECOND,
    REFUSED_NAMES_A_SECOND,
    TOTAL,
    Fold,
    Frame,
    Trailing,
    bucket_of,
    percentiles,
    value_of,
)
from gateway.relay.records import Settled, Usage
from tests.dashboard.records import settled

NOW = 1_700_000_000
OUTCOMES = ("answered", "rejected", "failed", "truncated", "hung_up", "abandoned")

records = st.builds(
    settled,
    at_s=st.floats(NOW - 5, NOW + 5),
    team_id=st.integers(1, 3),
    route=st.sampled_from(["gpt-4o", "claude-sonnet-4-5"]),
    outcome=st.sampled_from(OUTCOMES),
    latency_us=st.integers(0, 600_000_000),
    first_token_us=st.none() | st.integers(0, 60_000_000),
    usage=st.builds(Usage, st.integers(0, 10**6), st.integers(0, 10**6)),
    cost_nanos=st.integers(0, 10**15),
    simulated=st.booleans(),
    unpriced=st.booleans(),
)


def sums(calls: list[Settled]) -> dict[tuple[int, str], Counter[str]]:
    """What the ledger would say: plain sums over the records."""
    totals: dict[tuple[int, str], Counter[str]] = {}
    for call in calls:
        total = totals.setdefault((call.team_id, call.route), Counter())
        total["calls"] += 1
        total[call.outcome] += 1
        total["input_tokens"] += call.usage.input_tokens
        total["output_tokens"] += call.usage.output_tokens
        total["cost_nanos"] += call.cost_nanos
        total["simulated"] += call.simulated
        total["unpriced"] += call.unpriced
    return totals


def added_up(frames: list[Frame]) -> dict[tuple[int, str], Counter[str]]:
    whole = Frame(0)
    for frame in frames:
        whole.merge(frame)
    return {key: Counter(dict(zip(COUNTS, each.counts, strict=True))) for key, each in whole.numbers.items()}


@given(st.lists(st.one_of(records, st.just("tick")), max_size=60))
def test_frames_add_up_to_the_records_in_whatever_order_they_come(steps):
    fold, frames, now = Fold(), [], NOW
    for step in steps:
        if step == "tick":
            frames += fold.tick(now)
            now += 1
        else:
            fold.add(step)
    frames += fold.tick(NOW + 100)

    assert added_up(frames) == sums([step for step in steps if step != "tick"])


@given(st.lists(st.lists(records, max_size=8), max_size=8), st.randoms())
def test_frames_of_one_second_merge_into_the_same_in_any_order(frames_of_calls, chance):
    def merged(order):
        whole = Frame(NOW)
        for calls in order:
            frame = Frame(NOW)
            for call in calls:
                frame.add(call)
            whole.merge(frame)
        return {key: (each.counts, each.latency, each.first_token) for key, each in whole.numbers.items()}

    shuffled = list(frames_of_calls)
    chance.shuffle(shuffled)
    assert merged(frames_of_calls) == merged(shuffled)


@given(st.lists(st.integers(50, 600_000_000), min_size=1, max_size=300))
def test_percentiles_are_within_one_percent_of_the_nearest_rank(durations):
    histogram = Counter(bucket_of(duration) for duration in durations)
    ordered = sorted(durations)
    for share, found in zip((0.5, 0.95, 0.99), percentiles(dict(histogram)), strict=True):
        exact = ordered[ceil(share * len(ordered)) - 1]
        assert abs(found - exact) <= 0.01 * exact + 0.5  # it is rounded to a microsecond


def test_a_duration_of_nothing_has_a_bucket_too():
    assert [bucket_of(0), bucket_of(1)] == [0, 0]
    assert value_of(0) == 1


def test_there_is_no_percentile_of_nothing():
    assert percentiles({}) == [None, None, None]


def test_a_second_is_handed_out_when_it_is_over_and_not_before():
    fold = Fold()
    fold.add(settled(NOW + 0.9))

    assert [each.numbers for each in fold.tick(NOW)] == [{}]
    assert [(each.at_s, each.numbers[1, "gpt-4o"]["calls"]) for each in fold.tick(NOW + 1)] == [(NOW, 1)]


def test_seconds_are_handed_out_without_gaps_also_when_a_tick_was_missed():
    fold = Fold()
    fold.tick(NOW)

    assert [each.at_s for each in fold.tick(NOW + 4)] == [NOW, NOW + 1, NOW + 2, NOW + 3]


def test_a_record_that_comes_late_is_in_the_next_frame():
    fold = Fold()
    fold.tick(NOW + 1)
    fold.add(settled(NOW + 0.99))

    (frame,) = fold.tick(NOW + 2)
    assert frame.at_s == NOW + 1
    assert frame.numbers[1, "gpt-4o"]["calls"] == 1


def test_a_clock_set_back_a_little_is_waited_for():
    fold = Fold()
    fold.tick(NOW)
    fold.add(settled(NOW - 2))

    assert fold.tick(NOW - 2) == []
    assert [each.at_s for each in fold.tick(NOW + 1)] == [NOW]


def test_a_clock_set_back_far_does_not_stop_the_frames():
    fold = Fold()
    fold.tick(NOW)
    fold.add(settled(NOW + 1.5))
    fold.add(settled(NOW - 3600))

    frames = [each for ago in (3600, 3599) for each in fold.tick(NOW - ago)]
    assert [each.at_s for each in frames] == [NOW, NOW + 1]
    assert sum(each.numbers[1, "gpt-4o"]["calls"] for each in frames) == 2


def test_a_record_stamped_far_ahead_does_not_wait_for_its_second():
    fold = Fold()
    fold.add(settled(NOW + 3600))

    assert added_up(fold.tick(NOW))[1, "gpt-4o"]["calls"] == 1


def test_history_older_than_what_is_kept_is_not_handed_out():
    fold = Fold()
    fold.add(settled(NOW - KEPT_S - 10))
    fold.add(settled(NOW - KEPT_S + 10))

    frames = fold.tick(NOW)
    assert frames[0].at_s == NOW - KEPT_S
    assert added_up(frames)[1, "gpt-4o"]["calls"] == 1


def test_refused_calls_are_counted_apart_with_their_reason():
    fold = Fold()
    fold.refused(1, 7, "gpt-4o", "rate_limit_exceeded")
    fold.add(settled(NOW - 1))

    (frame,) = fold.tick(NOW)
    numbers = frame.numbers[1, "gpt-4o"]
    assert (numbers["calls"], numbers["refused"]) == (1, 1)
    assert numbers.refusals == {(7, "rate_limit_exceeded"): 1}


def test_made_up_model_names_do_not_fill_the_memory():
    fold = Fold()
    for number in range(1000):
        fold.refused(1, 7, f"made-up-{number}", "model_not_found")

    (frame,) = fold.tick(NOW)
    assert len(frame.numbers) <= REFUSED_NAMES_A_SECOND + 1
    assert set(frame.by_team()[1]) == {TOTAL}
    assert frame.by_team()[1][TOTAL]["refused"] == 1000


def test_an_abandoned_call_has_no_latency():
    fold = Fold()
    fold.add(settled(NOW - 1, outcome="abandoned"))

    (frame,) = fold.tick(NOW)
    assert frame.numbers[1, "gpt-4o"].latency == {}
    assert frame.numbers[1, "gpt-4o"]["abandoned"] == 1


def test_all_teams_are_the_sum_of_the_teams():
    fold = Fold()
    fold.add(settled(NOW - 1, team_id=1, cost_nanos=5))
    fold.add(settled(NOW - 1, team_id=2, cost_nanos=7, route="o3"))

    (frame,) = fold.tick(NOW)
    teams = frame.by_team()
    assert {name: each["cost_nanos"] for name, each in teams[ALL].items()} == {
        "gpt-4o": 5,
        "o3": 7,
        TOTAL: 12,
    }
    assert {name: each["cost_nanos"] for name, each in teams[1].items()} == {"gpt-4o": 5, TOTAL: 5}


def test_the_latest_calls_of_a_second_are_its_last_ones():
    fold = Fold()
    calls = [settled(NOW - 1 + number / 1000, team_id=1 + number % 2) for number in range(100)]
    for call in calls:
        fold.add(call)

    (frame,) = fold.tick(NOW)
    assert frame.latest_of(ALL) == calls[-LATEST_A_SECOND:]
    assert frame.latest_of(1) == [call for call in calls if call.team_id == 1][-LATEST_A_SECOND:]
    assert frame.latest_of(3) == []


def test_trailing_percentiles_are_those_of_the_last_sixty_seconds():
    chance = random.Random(7)
    calls = [
        settled(NOW + chance.randrange(200), latency_us=chance.randrange(1, 10**7), route=chance.choice("ab"))
        for _ in range(400)
    ]
    fold, trailing = Fold(), Trailing()
    for call in calls:
        fold.add(call)

    for frame in fold.tick(NOW + 300):
        rows = trailing.advance(frame)
        for route in ("a", "b"):
            recent = [
                call.latency_us
                for call in calls
                if frame.at_s - 60 < call.ended_at_us // 10**6 <= frame.at_s and call.route == route
            ]
            expected = percentiles(dict(Counter(bucket_of(each) for each in recent)))
            row = rows.get(1, {}).get(route)
            assert (row[len(COUNTS) : len(COUNTS) + 3] if row else [None] * 3) == expected
    assert rows == {}


def test_a_quiet_second_still_says_how_the_last_minute_was():
    trailing, frame = Trailing(), Frame(NOW)
    frame.add(settled(NOW))
    trailing.advance(frame)

    row = trailing.advance(Frame(NOW + 59))[1]["gpt-4o"]
    assert row[: len(COUNTS)] == [0] * len(COUNTS)
    assert row[len(COUNTS)] == pytest.approx(400_000, rel=0.01)
    assert trailing.advance(Frame(NOW + 60)) == {}
