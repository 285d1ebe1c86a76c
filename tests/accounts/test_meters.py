from datetime import UTC, datetime, timedelta

import pytest

from accounts.meters import Meter, used_up_at

BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
END = datetime(2026, 12, 1, tzinfo=UTC)


def test_what_is_left_is_neither_used_nor_reserved():
    meter = Meter(amount=200, used=50, reserved=30)
    assert (meter.left, meter.percent) == (120, 40)
    assert (meter.used_width, meter.reserved_width) == ("25", "15")


def test_what_was_passed_fills_the_bar_and_leaves_nothing():
    meter = Meter(amount=200, used=230, reserved=30)
    assert (meter.left, meter.percent) == (0, 130)
    assert (meter.used_width, meter.reserved_width) == ("100", "0")


def test_of_nothing_all_is_used():
    meter = Meter(amount=0, used=0, reserved=0)
    assert (meter.left, meter.percent, meter.used_width, meter.level()) == (0, 100, "100", "bad")


@pytest.mark.parametrize(
    ("used", "level"), [(49, "good"), (50, "warn"), (99, "warn"), (100, "bad"), (101, "bad")]
)
def test_it_warns_from_a_share_and_is_bad_when_full(used, level):
    assert Meter(amount=100, used=used - 10, reserved=10).level(50) == level


def test_at_an_even_rate_half_of_it_lasts_as_long_again():
    at = used_up_at(Meter(100, 50, 0), BEGIN, END, BEGIN + timedelta(days=10))
    assert at == BEGIN + timedelta(days=20)


@pytest.mark.parametrize(
    ("meter", "days"),
    [
        (Meter(100, 50, 0), 6),  # a week says more than six days
        (Meter(100, 30, 0), 10),  # it lasts
        (Meter(100, 100, 0), 10),  # it is used up already
        (Meter(100, 90, 10), 10),  # so it is with what calls under way hold
        (Meter(100, 0, 0), 10),  # nobody uses it
    ],
)
def test_nothing_is_foretold_that_would_not_be_honest(meter, days):
    assert used_up_at(meter, BEGIN, END, BEGIN + timedelta(days=days)) is None


def test_a_day_is_too_short_to_foretell():
    end = BEGIN + timedelta(days=1)
    assert used_up_at(Meter(100, 90, 0), BEGIN, end, BEGIN + timedelta(hours=12)) is None
