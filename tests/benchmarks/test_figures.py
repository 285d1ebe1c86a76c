"""What is made of figures."""

import pytest

from benchmarks.figures import Beside, Books, Figure, Load, Sample, percentile, why_wrong


def test_a_percentile_is_a_value_that_was_measured():
    assert percentile([5, 1, 4, 2, 3], 0.5) == 3
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile(range(1, 101), 1) == 100
    assert percentile([7], 0.99) == 7
    assert percentile([1, 2], 0) == 1


def test_a_percentile_does_not_slip_by_a_rounding_error():
    assert percentile(range(1, 101), 0.07) == 7  # 100 * 0.07 is a little more than 7


@pytest.mark.parametrize(
    ("values", "at_least", "reached"),
    [
        ((1.0, 2.0, 9.0), False, True),
        ((1.0, 3.0, 9.0), False, True),
        ((1.0, 3.1, 9.0), False, False),
        ((1.0, 3.1, 9.0), True, True),
        ((1.0, 2.9, 9.0), True, False),
    ],
)
def test_a_bound_is_kept_by_the_median(values, at_least, reached):
    assert Figure("what", "µs", values, 3, at_least).reached is reached


def test_a_figure_without_a_bound_reaches_nothing():
    assert Figure("what", "µs", (1.0,)).reached is None


def test_a_ratio_is_of_a_pair():
    def sample(cpu_us):
        return Sample(10, cpu_us, cpu_us, 100, 1, 1)

    pairs = Beside(Load(False, 64), (sample(200), sample(600)), (sample(50), sample(100)))

    assert pairs.ratios == (4, 6)


def test_books_that_agree_are_not_wrong():
    assert why_wrong(Books(10, 10, 0, 10 * 57_600), calls=10, cost_nanos=57_600) is None


@pytest.mark.parametrize(
    ("books", "says"),
    [
        (Books(9, 9, 0, 0), "10 calls were answered and 9 are on the ledger"),
        (Books(11, 11, 0, 0), "10 calls were answered and 11 are on the ledger"),
        (Books(10, 9, 0, 0), "1 entries have another outcome"),
        (Books(10, 10, 3, 0), "3 entries are unpriced"),
        (Books(10, 10, 0, 10 * 57_600 + 1), "the ledger says 576001 nano-units and the calls cost 576000"),
    ],
)
def test_books_that_differ_are_wrong(books, says):
    assert says in (why_wrong(books, calls=10, cost_nanos=57_600) or "")
