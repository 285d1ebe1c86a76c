"""A month's running sum as lines: what has been, where it goes, and the room for error."""

from datetime import date

from dashboard.month_chart import month_chart
from gateway.ledger.forecast import Forecast

NOVEMBER = date(2026, 11, 1)


def test_the_line_runs_to_now_and_on_to_the_end():
    sums = [(NOVEMBER, 10), (date(2026, 11, 2), 20), (date(2026, 11, 3), 0)]

    drawn = month_chart(sums, Forecast(30, 300, 150, 328, 28))

    assert (drawn.days[0], drawn.days[-1], len(drawn.days)) == ("2026-11-01", "2026-11-30", 30)
    assert drawn.so_far == [10, 30, 30, *[None] * 27]
    for line, end in ((drawn.expected, 300), (drawn.low, 150), (drawn.high, 328)):
        assert line[:3] == [None, None, 30]
        assert (line[-1], len(line)) == (end, 30)
    assert drawn.expected[3] == 40


def test_on_the_last_day_the_forecast_is_a_point():
    sums = [(date(2026, 11, day), 10) for day in range(1, 31)]

    drawn = month_chart(sums, Forecast(300, 310, 305, 320, 28))

    assert drawn.expected == [*[None] * 29, 310]


def test_nothing_is_drawn_of_nothing():
    assert month_chart([], Forecast(0, 1, 0, 2, 28)) is None
    assert month_chart([(NOVEMBER, 0)], Forecast(0, 0, 0, 0, 28)) is None
