from datetime import UTC, datetime, timedelta

import pytest

from gateway.alerts.rules import CALM, Figure, Rule, Standing, is_beyond, step

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
RULE = Rule(threshold=100)
OVER, UNDER = Figure(101), Figure(100)


def run(rule, figures, standing=None, every=MINUTE):
    """What happened with one figure a minute, and how it is in the end."""
    standing, told = standing or Standing(), []
    for number, figure in enumerate(figures):
        done = step(rule, standing, figure, NOON + number * every)
        standing = done.standing
        if done.happened:
            told.append((number, done.happened, done.is_told))
    return told, standing


def test_it_fires_at_once_above_its_threshold_and_not_at_it():
    assert run(RULE, [UNDER, UNDER])[0] == []
    assert run(RULE, [UNDER, OVER]) == (
        [(1, "fired", True)],
        Standing("firing", NOON + MINUTE, None, NOON + MINUTE),
    )


def test_it_tells_once_however_long_it_fires():
    assert run(RULE, [OVER] * 500)[0] == [(0, "fired", True)]


def test_it_is_over_after_it_was_calm_for_three_minutes():
    told, standing = run(RULE, [OVER, UNDER, UNDER, UNDER, UNDER])

    assert told == [(0, "fired", True), (4, "resolved", True)]
    assert standing.state == "ok"
    assert timedelta(minutes=3) == CALM


def test_a_figure_that_swings_around_the_threshold_tells_once():
    assert run(RULE, [OVER, UNDER, UNDER] * 100)[0] == [(0, "fired", True)]


def test_with_a_hold_it_fires_only_after_so_long():
    rule = Rule(threshold=100, hold=5 * MINUTE)

    assert run(rule, [OVER] * 5)[0] == []
    assert run(rule, [OVER] * 5)[1].state == "rising"
    assert run(rule, [OVER] * 6)[0] == [(5, "fired", True)]
    assert run(rule, [OVER, OVER, OVER, UNDER, OVER, OVER, OVER])[0] == []
    assert run(rule, [OVER] * 6 + [UNDER] * 6)[0] == [(5, "fired", True), (11, "resolved", True)]


def test_within_the_pause_it_fires_and_nobody_is_told():
    rule = Rule(threshold=100, pause=timedelta(minutes=30))
    again = [OVER, *[UNDER] * 4]

    told, _ = run(rule, again * 7)

    fired = [(minute, is_told) for minute, what, is_told in told if what == "fired"]
    assert fired == [(0, True), (5, False), (10, False), (15, False), (20, False), (25, False), (30, True)]


@pytest.mark.parametrize(
    ("figure", "beyond"),
    [
        (Figure(None), False),
        (Figure(None, calls=50), False),
        (Figure(101, calls=19), False),
        (Figure(101, calls=20), True),
        (Figure(101), True),
        (Figure(100, calls=20), False),
    ],
)
def test_few_calls_say_nothing(figure, beyond):
    assert is_beyond(Rule(threshold=100, least_calls=20), figure) == beyond


def test_looking_twice_in_the_same_moment_tells_nothing_more():
    first = step(RULE, Standing(), OVER, NOON)
    second = step(RULE, first.standing, OVER, NOON)

    assert (first.happened, second.happened) == ("fired", None)
    assert second.standing == first.standing


def test_what_has_nothing_to_measure_is_over_in_the_end():
    assert run(RULE, [OVER, *[Figure(None)] * 4])[0] == [(0, "fired", True), (4, "resolved", True)]
