import pytest

from gateway.relay.window import Window


@pytest.fixture
def window() -> Window:
    return Window(10)


def test_an_empty_window_holds_nothing(window: Window) -> None:
    assert window.total(0.0) == 0
    assert window.total(1_000_000.5) == 0


def test_it_counts_what_came_in_its_ten_seconds(window: Window) -> None:
    for second in range(100, 110):
        window.add(second + 0.5)
    assert window.total(109.9) == 10


def test_each_second_falls_out_ten_seconds_after_it_began(window: Window) -> None:
    window.add(100.0)
    window.add(100.9)
    window.add(101.0)
    assert window.total(109.99) == 3
    assert window.total(110.0) == 1
    assert window.total(111.0) == 0


def test_asking_for_this_second_also_moves_it_on(window: Window) -> None:
    window.add(100.2)
    window.add(100.4)
    assert window.this_second(100.9) == 2
    assert window.this_second(101.0) == 0
    assert window.total(101.0) == 2


@pytest.mark.parametrize("idle_s", [10, 11, 15, 20, 1_000, 10_000_000])
def test_after_a_long_idle_time_nothing_of_before_is_left(window: Window, idle_s: int) -> None:
    for second in range(100, 110):
        window.add(second)
    window.add(109 + idle_s)
    assert window.total(109 + idle_s) == 1
    assert window.this_second(109 + idle_s) == 1


def test_a_short_idle_time_drops_only_what_is_too_old(window: Window) -> None:
    for second in range(100, 110):
        window.add(second)
    assert window.total(113.0) == 6


def test_a_moment_read_a_little_earlier_belongs_to_the_current_second(window: Window) -> None:
    window.add(101.0)
    window.add(100.999)
    assert window.this_second(100.999) == 2
    assert window.total(100.999) == 2
    assert window.this_second(101.5) == 2
    assert window.total(110.5) == 2
    assert window.total(111.0) == 0


def test_what_is_cleared_does_not_come_back(window: Window) -> None:
    window.add(100.0)
    window.clear()
    assert window.total(100.0) == 0
    window.add(100.0)
    assert window.total(109.0) == 1
    assert window.total(110.0) == 0
