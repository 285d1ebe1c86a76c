"""What a month will come to, from the sums of its days and those before."""

import math
import random
from datetime import date, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.forecast import (
    Forecast,
    NotEnough,
    TrackRecord,
    days,
    forecast,
    track_record,
)

TODAY = date(2026, 11, 16)  # a Monday: 15 days of November are over, 14 whole ones are left
MIDNIGHT, NOON = Fraction(0), Fraction(1, 2)


def constant(value, before=60, today=TODAY):
    return {today - timedelta(days=ago): value for ago in range(1, before + 1)}


def test_what_never_changes_is_foretold_exactly():
    assert forecast(constant(100), TODAY, MIDNIGHT) == Forecast(1500, 3000, 3000, 3000, 28)


def test_today_counts_as_far_as_it_has_come():
    sums = constant(100) | {TODAY: 50}

    assert forecast(sums, TODAY, NOON) == Forecast(1550, 3000, 3000, 3000, 28)


def test_a_weekday_is_like_its_own_kind():
    """100 on working days, nothing at the weekend: of November's last 15 days, 11 are working days."""
    sums = {day: 0 if day.weekday() > 4 else 100 for day in days(date(2026, 9, 1), TODAY)}

    found = forecast(sums, TODAY, MIDNIGHT)

    assert found == Forecast(1000, 2100, 2100, 2100, 28)


def test_a_change_of_four_weeks_ago_is_the_new_usual():
    sums = {day: 900 if day < TODAY - timedelta(days=28) else 100 for day in days(date(2026, 6, 1), TODAY)}

    assert forecast(sums, TODAY, MIDNIGHT).expected == 3000


def test_with_one_week_of_history_a_weekday_leans_on_all_days():
    """One Monday of 800, and 100 on the other six days: 200 a day.

    A Monday brings 1/4 x 800 + 3/4 x 200 = 350, another day 1/4 x 100 + 3/4 x 200 = 175.
    Left are three Mondays, two of each other day.
    """
    first = TODAY - timedelta(days=7)
    sums = {day: 800 if day == first else 100 for day in days(first, TODAY)}

    found = forecast(sums, TODAY, MIDNIGHT)

    assert found.expected == 1400 + 3 * 350 + 12 * 175
    assert found.history_days == 7


def test_the_interval_worked_out_by_hand():
    """Four weeks; Mondays brought 60, 100, 140 and 100, the others 100 each.

    Residuals -40, 0, 40, 0: 3,200 over 28 - 7 degrees of freedom. On the Monday of the last week
    7 days are left, one of each weekday: the variance of 7 days, and of 7 means of four.
    Student's quantile at 21 degrees is 1.2816 + (1.2816^3 + 1.2816) / 84 = 1.3219.
    """
    today = date(2027, 2, 22)  # a Monday, and February ends with the Sunday
    sums = constant(100, 28, today)
    for weeks, value in ((4, 60), (3, 100), (2, 140), (1, 100)):
        sums[today - timedelta(weeks=weeks)] = value

    found = forecast(sums, today, MIDNIGHT)

    half = 1.3219 * math.sqrt(3200 / 21 * (7 + 7 / 4))
    assert found.expected == 2100 + 700 + 40  # so far with its Monday of 140
    assert found.high - found.expected == pytest.approx(half, abs=1)
    assert found.expected - found.low == pytest.approx(half, abs=1)


def test_days_before_the_first_use_are_no_history():
    sums = dict.fromkeys(days(date(2026, 1, 1), TODAY), 0) | constant(100, 10)

    assert forecast(sums, TODAY, MIDNIGHT) == Forecast(1000, 2500, 2500, 2500, 10)


@pytest.mark.parametrize("known", range(7))
def test_less_than_a_week_foretells_nothing(known):
    assert forecast(constant(100, known) | {TODAY: 3}, TODAY, NOON) == NotEnough(100 * known + 3, known)


def test_at_the_end_of_the_month_the_forecast_is_the_sum():
    today = date(2026, 11, 30)
    noisy = {day: 100 + 7 * day.day for day in days(date(2026, 10, 1), date(2026, 12, 1))}

    found = forecast(noisy, today, Fraction(1))

    assert found.expected == found.so_far == found.low == found.high


def test_a_track_record_of_what_never_changes_is_spotless():
    found = track_record(constant(100, 200), TODAY, MIDNIGHT, 3)

    assert found == TrackRecord((0.0, 0.0, 0.0), 3)


def test_a_track_record_tells_how_far_it_was_off():
    """From the 16th of October on, days brought 200 where 100 had been: 1,500 + 3,200, foretold 3,100."""
    sums = {day: 200 if day >= date(2026, 10, 16) else 100 for day in days(date(2026, 9, 1), TODAY)}

    found = track_record(sums, TODAY, MIDNIGHT, 3)

    # September was foretold too, with fifteen days of history.
    assert found.errors == (pytest.approx(1600 / 4700), 0.0)
    assert found.within == 1
    assert found.mean_error == pytest.approx(800 / 4700)


def test_a_track_record_made_at_noon_knows_half_of_its_day():
    assert track_record(constant(100, 200), TODAY, NOON, 3).mean_error == 0.0


def test_on_the_31st_shorter_months_are_judged_on_their_last_day():
    today = date(2026, 12, 31)

    assert track_record(constant(100, 200, today), today, MIDNIGHT, 3).errors == (0.0, 0.0, 0.0)


def test_without_an_earlier_month_there_is_no_track_record():
    assert track_record(constant(100, 15), TODAY, MIDNIGHT, 3) is None


sums = st.dictionaries(
    st.integers(0, 120).map(lambda ago: TODAY - timedelta(days=ago)), st.integers(0, 10**18), max_size=60
)
elapsed = st.fractions(0, 1)


@given(sums, elapsed, st.integers(0, 45))
def test_the_interval_holds_the_forecast_and_all_are_numbers(sums, elapsed, later):
    today = TODAY + timedelta(days=later)

    found = forecast(sums, today, elapsed)

    if isinstance(found, Forecast):
        assert 0 <= found.so_far <= found.low <= found.expected <= found.high
        assert all(isinstance(each, int) for each in (found.low, found.expected, found.high))
    else:
        assert found.history_days < 7


@given(sums, elapsed)
def test_a_track_record_has_no_nan(sums, elapsed):
    found = track_record(sums, TODAY, elapsed, 3)

    if found is not None:
        assert all(math.isfinite(each) and each >= 0 for each in found.errors)
        assert 0 <= found.within <= len(found.errors)


@given(st.integers(0, 10**15), st.integers(7, 60), elapsed, st.integers(0, 27))
def test_any_constant_is_foretold_to_the_unit(value, before, elapsed, later):
    today = date(2026, 11, 1) + timedelta(days=later)
    value *= elapsed.denominator  # so that the day's part is whole
    sums = {today - timedelta(days=ago): value for ago in range(1, before + 1)}
    sums[today] = int(value * elapsed)

    found = forecast(sums, today, elapsed)

    if value:
        known_of_month = min(before, today.day - 1)
        assert found.low == found.expected == found.high == value * (known_of_month + 30 - today.day + 1)


def test_eight_of_ten_intervals_contain_what_came():
    """Days with a weekly rhythm and noise around it, a thousand months of them."""
    chance, within, made = random.Random(7), 0, 0
    for _ in range(1000):
        month = {
            day: max(0, round(chance.gauss(10_000 if day.weekday() < 5 else 2000, 1500)))
            for day in days(date(2026, 10, 1), date(2026, 12, 1))
        }
        known = {day: value for day, value in month.items() if day < TODAY}
        found = forecast(known, TODAY, MIDNIGHT)
        came = sum(value for day, value in month.items() if day.month == 11)
        within, made = within + (found.low <= came <= found.high), made + 1
    assert 0.76 <= within / made <= 0.84
