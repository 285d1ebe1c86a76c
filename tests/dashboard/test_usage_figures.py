"""Points, changes and rows of the usage page."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from dashboard.usage_figures import Drawing, Row, Steps, change, change_of_rate, joined, sorted_rows
from dashboard.usage_question import Span
from gateway.ledger.queries import OTHER, Sums

UTC_ZONE = ZoneInfo("UTC")
NOON = datetime(2026, 3, 30, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("hours", "step", "points"),
    [
        (1, "minute", 60),
        (6, "5 minutes", 72),
        (12, "quarter-hour", 48),
        (24, "hour", 24),
        (24 * 30, "day", 31),
    ],
)
def test_a_span_has_points_that_make_a_picture(hours, step, points):
    steps = Steps.of(Span(NOON - timedelta(hours=hours), NOON), UTC_ZONE)

    assert (steps.step, steps.points) == (step, points)
    assert all(earlier < later for earlier, later in pairwise(steps.edges))


def test_short_points_begin_at_full_steps():
    steps = Steps.of(Span(NOON + timedelta(minutes=2), NOON + timedelta(hours=3)), UTC_ZONE)

    assert [each.minute for each in steps.edges[:4]] == [2, 5, 10, 15]


def test_two_spans_are_one_question_with_the_gap_between_them():
    before = Steps.of(Span(NOON - timedelta(hours=30), NOON - timedelta(hours=25)), UTC_ZONE, "hour")
    now = Steps.of(Span(NOON - timedelta(hours=3), NOON), UTC_ZONE, "hour")

    edges, begin = joined(before, now)

    assert list(edges[begin:]) == list(now.edges)
    assert list(edges[: before.points + 1]) == list(before.edges)
    assert begin == before.points + 1


def test_spans_that_touch_share_an_edge():
    before = Steps.of(Span(NOON - timedelta(hours=6), NOON - timedelta(hours=3)), UTC_ZONE, "hour")
    now = Steps.of(Span(NOON - timedelta(hours=3), NOON), UTC_ZONE, "hour")

    edges, begin = joined(before, now)

    assert (len(edges), begin) == (7, 3)
    assert list(edges[begin:]) == list(now.edges)


@pytest.mark.parametrize(
    ("now", "before", "text", "direction"),
    [
        (150, 100, "50.0\u202f% more", "up"),
        (50, 100, "50.0\u202f% less", "down"),
        (100_001, 100_000, "the same", "same"),
        (3, 0, "none before", "up"),
    ],
)
def test_a_change_has_a_direction_and_words(now, before, text, direction):
    found = change(now, before)

    assert (found.text, found.direction) == (text, direction)


def test_what_is_not_known_has_not_changed():
    assert change(None, 3) is change(3, None) is change(0, 0) is change_of_rate(None, 0.1) is None


def test_slower_is_bad_and_faster_is_good():
    assert change(2, 1, more_is_bad=True).is_bad is True
    assert change(1, 2, more_is_bad=True).is_bad is False
    assert change(1, 2).is_bad is None


def test_an_error_rate_is_told_by_what_it_was():
    assert change_of_rate(0.02, 0.01).text == "from 1.0\u202f%"
    assert change_of_rate(0.01, 0.01).direction == "same"


def test_what_is_not_known_and_all_others_are_sorted_last():
    rows = [
        Row("b", Sums(calls=1, latency={500: 1}), "b"),
        Row(OTHER, Sums(calls=9, latency={900: 1}), OTHER),
        Row("unknown", Sums(calls=2), "unknown"),
        Row("a", Sums(calls=3, latency={700: 1}), "a"),
    ]

    assert [each.name for each in sorted_rows(rows, "-p95")] == ["a", "b", "unknown", OTHER]
    assert [each.name for each in sorted_rows(rows, "p95")] == ["b", "a", "unknown", OTHER]
    assert [each.name for each in sorted_rows(rows, "-calls")] == ["a", "unknown", "b", OTHER]


def test_a_shorter_period_before_ends_where_it_ends():
    drawing = Drawing([], [Sums()] * 3, [Sums(calls=4), Sums(calls=5)])

    [line] = drawing.behind(lambda sums: sums.calls)

    assert line.data == [4, 5, None]
