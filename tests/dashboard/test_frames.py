"""Frames are final once they are out, add up to the calls, and know their percentiles within 1 %."""

import random
import zlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.frames import (
    ALL,
    BUSIEST_S,
    COUNTS,
    KEPT_S,
    KEYS_A_SECOND,
    LATEST_A_SECOND,
    MOST_BUSIEST,
    REFUSED_NAMES_A_SECOND,
    TOTAL,
    Busiest,
    Fold,
    Frame,
    Gatherer,
    Trailing,
    packed,
    under_way_by_team,
    unpacked,
)
from gateway.histograms import bucket_of, percentiles
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


# ---- several processes ----


def frame_of(second, *calls, refused=()):
    frame = Frame(second)
    for call in calls:
        frame.add(call)
    for team_id, key_id, route, code in refused:
        frame.refuse(team_id, key_id, route, code)
    return frame


def calls_of(frame):
    return sum(numbers["calls"] for numbers in frame.numbers.values())


def test_a_frame_survives_the_way_to_another_process():
    sent = frame_of(
        NOW,
        settled(NOW, latency_us=123_456, first_token_us=7_000, cost_nanos=5),
        settled(NOW, team_id=2, route="o3", outcome="abandoned"),
        refused=[(1, 7, "gpt-4o", "overloaded")],
    )
    come = unpacked(packed(sent))

    assert come.at_s == sent.at_s
    assert come.numbers.keys() == sent.numbers.keys()
    for key, numbers in sent.numbers.items():
        for fact in ("counts", "latency", "first_token", "refusals"):
            assert getattr(come.numbers[key], fact) == getattr(numbers, fact)
    assert [call.call_id for call in come.latest[1]] == [call.call_id for call in sent.latest[1]]
    assert come.latest[1].maxlen == LATEST_A_SECOND


@pytest.mark.parametrize(
    "data", [b"", b"of next year", zlib.compress(b"\x01"), zlib.compress(b"\x93\x01\x90")]
)
def test_what_is_no_frame_is_said_to_be_none(data):
    with pytest.raises(ValueError):
        unpacked(data)


def test_frames_of_several_processes_add_up_by_the_second():
    gatherer = Gatherer(NOW)
    for second in (NOW, NOW + 1):
        for process in "abc":
            gatherer.heard(process, frame_of(second, settled(second)))

    assert [(each.at_s, calls_of(each)) for each in gatherer.close(NOW + 1)] == [(NOW, 3), (NOW + 1, 3)]


def test_a_frame_that_comes_twice_counts_once():
    gatherer = Gatherer(NOW)
    for _ in range(2):
        gatherer.heard("a", frame_of(NOW, settled(NOW)))

    assert [calls_of(each) for each in gatherer.close(NOW)] == [1]


def test_a_frame_that_comes_late_goes_into_the_next():
    gatherer = Gatherer(NOW)
    gatherer.close(NOW + 5)
    gatherer.heard("a", frame_of(NOW, settled(NOW)))
    gatherer.heard("a", frame_of(NOW + 1, settled(NOW + 1)))

    assert [(each.at_s, calls_of(each)) for each in gatherer.close(NOW + 6)] == [(NOW + 6, 2)]


def test_what_was_before_the_beginning_is_somebody_elses_to_tell():
    gatherer = Gatherer(NOW)
    gatherer.heard("a", frame_of(NOW - 1, settled(NOW - 1)))

    assert [calls_of(each) for each in gatherer.close(NOW)] == [0]
    assert gatherer.newest_of("a") == NOW - 1


def test_a_second_is_complete_when_all_that_publish_and_serve_were_heard():
    gatherer = Gatherer(NOW)
    gatherer.heard("a", Frame(NOW + 3))
    gatherer.heard("b", Frame(NOW + 1))
    gatherer.heard("dead", Frame(NOW))

    assert gatherer.complete_s(["a", "b", "starting"]) == NOW + 1
    assert gatherer.awaited(NOW + 3, ["a", "b", "starting"]) == ["b"]
    assert gatherer.awaited(NOW + 1, ["a", "b", "starting"]) == []


def test_nobody_is_waited_for_where_nobody_publishes():
    gatherer = Gatherer(NOW)

    assert gatherer.complete_s(["a"]) == NOW - 1
    assert gatherer.awaited(NOW, ["a"]) == []


def test_who_said_that_it_leaves_is_not_awaited_and_its_last_frame_counts_once():
    gatherer = Gatherer(NOW)
    for _ in range(2):
        gatherer.heard("a", frame_of(NOW, settled(NOW)), is_last=True)

    assert gatherer.awaited(NOW + 1, ["a"]) == []
    assert [calls_of(each) for each in gatherer.close(NOW + 1)] == [1, 0]


def test_a_second_is_handed_out_once_and_a_long_gap_is_bounded():
    gatherer = Gatherer(NOW)
    gatherer.heard("a", frame_of(NOW, settled(NOW)))
    assert len(gatherer.close(NOW)) == 1
    assert gatherer.close(NOW) == []
    assert gatherer.close(NOW - 5) == []

    assert len(gatherer.close(NOW + 10 * KEPT_S)) == KEPT_S
    assert gatherer.newest_of("a") == 0, "forgotten"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20)), max_size=60), st.data())
def test_in_whatever_order_frames_and_closings_come_each_call_is_counted_once(sent, data):
    """Against the plain count: every frame that is newer than its process's last is one call."""
    gatherer, shown, newest, counted = Gatherer(NOW), 0, {}, 0
    for process, offset in sent:
        gatherer.heard(process, frame_of(NOW + offset, settled(NOW + offset)))
        if offset > newest.get(process, -1):
            newest[process] = offset
            counted += 1
        if data.draw(st.booleans()):
            shown += sum(map(calls_of, gatherer.close(NOW + data.draw(st.integers(0, 20)))))
    shown += sum(map(calls_of, gatherer.close(NOW + 50)))

    assert shown == counted


def test_what_is_under_way_in_several_processes_is_added_up() -> None:
    frame = Frame(NOW, under_way={1: [1, 0, 0, 0, 0, 0]})
    frame.merge(Frame(NOW, under_way={1: [0, 2, 0, 0, 1, 0], 2: [0, 0, 3, 0, 0, 0]}))
    frame.merge(Frame(NOW))
    assert under_way_by_team(frame) == {1: [1, 2, 0, 0, 1, 0], 2: [0, 0, 3, 0, 0, 0], ALL: [1, 2, 3, 0, 1, 0]}


def test_what_was_under_way_in_a_late_frame_is_not_counted_in_the_next_second() -> None:
    gatherer = Gatherer(NOW)
    gatherer.heard("a", Frame(NOW, under_way={1: [1, 0, 0, 0, 0, 0]}))
    gatherer.close(NOW)
    gatherer.heard("b", Frame(NOW, under_way={1: [5, 0, 0, 0, 0, 0]}))
    gatherer.heard("a", Frame(NOW + 1, under_way={1: [1, 0, 0, 0, 0, 0]}))
    (frame,) = gatherer.close(NOW + 1)
    assert frame.under_way == {1: [1, 0, 0, 0, 0, 0]}


def test_keys_and_what_is_under_way_travel() -> None:
    frame = frame_of(NOW, settled(NOW), settled(NOW, outcome="failed", key_id=8))
    frame.under_way = {1: [0, 2, 0, 0, 1, 0]}
    again = unpacked(packed(frame))
    assert (again.keys, again.under_way) == (frame.keys, frame.under_way)
    assert unpacked(packed(Frame(NOW))).under_way is None


def test_a_frame_with_other_priorities_is_not_taken() -> None:
    with pytest.raises(ValueError, match="other priorities"):
        unpacked(packed(Frame(NOW, under_way={1: [1, 2]})))


def test_keys_of_one_second_are_bounded() -> None:
    frame = frame_of(NOW, *(settled(NOW, key_id=each) for each in range(KEYS_A_SECOND + 5)))
    assert len(frame.keys) == KEYS_A_SECOND
    assert frame.by_team()[ALL][TOTAL]["calls"] == KEYS_A_SECOND + 5


@given(st.lists(st.tuples(st.integers(0, 2 * BUSIEST_S), st.integers(1, 3), st.integers(1, 5)), max_size=60))
def test_the_busiest_are_the_sums_of_the_last_minutes(calls: list[tuple[int, int, int]]) -> None:
    busiest = Busiest()
    end = 2 * BUSIEST_S
    for second in range(end + 1):
        here = [settled(NOW + second, team_id=team, key_id=key) for at, team, key in calls if at == second]
        busiest.advance(frame_of(NOW + second, *here))

    of_late = Counter((team, key) for at, team, key in calls if at > end - BUSIEST_S)
    found = {(team, key): count for team, key, count, *_ in busiest.keys(ALL)}
    assert all(found[each] == of_late[each] for each in found)
    assert len(found) == min(MOST_BUSIEST, len(of_late))
    assert sum(count for _, count, *_ in busiest.teams()) == sum(of_late.values())


def test_the_busiest_come_first_and_an_idle_team_has_none() -> None:
    busiest = Busiest()
    busiest.advance(
        frame_of(NOW, *[settled(NOW, key_id=1)] * 2, *[settled(NOW, key_id=2, outcome="truncated")] * 3)
    )
    assert busiest.keys(1) == [[1, 2, 3, 3, 1_350_000], [1, 1, 2, 0, 900_000]]
    assert busiest.keys(2) == []
