from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from gateway.relay.catalog import Price
from gateway.relay.pricing import cost_nanos
from gateway.relay.records import Usage

GPT_4O_MINI = Price(1, 0, input_nanos=150_000_000, cached_input_nanos=75_000_000, output_nanos=600_000_000)


def test_an_everyday_call() -> None:
    # 10 x 0.15 + 35 x 0.60 dollars per million = 0.0000225 dollars
    assert cost_nanos(Usage(10, 35, 0, "reported"), GPT_4O_MINI) == 22_500


def test_cached_tokens_are_a_part_of_the_input_and_cheaper() -> None:
    # 4 x 0.15 + 6 x 0.075 dollars per million
    assert cost_nanos(Usage(10, 0, 6, "reported"), GPT_4O_MINI) == 1_050


def test_more_cached_than_input_tokens_are_taken_at_the_smaller_word() -> None:
    assert cost_nanos(Usage(10, 0, 99, "reported"), GPT_4O_MINI) == 750


def test_half_a_nano_is_rounded_up_once() -> None:
    assert cost_nanos(Usage(1, 0, 0, "reported"), Price(1, 0, 500_000, 0, 0)) == 1
    assert cost_nanos(Usage(1, 0, 0, "reported"), Price(1, 0, 499_999, 0, 0)) == 0
    assert cost_nanos(Usage(1, 1, 0, "reported"), Price(1, 0, 400_000, 0, 400_000)) == 1


def test_no_price_costs_nothing_here_and_is_flagged_elsewhere() -> None:
    assert cost_nanos(Usage(10, 10, 0, "reported"), None) == 0


TOKENS = st.integers(0, 10**9)
NANOS = st.integers(0, 10**15)


@given(TOKENS, TOKENS, TOKENS, NANOS, NANOS, NANOS)
def test_the_cost_is_within_half_a_nano_of_the_exact_one(
    a: int, b: int, c: int, x: int, y: int, z: int
) -> None:
    cached = min(a, c)
    exact = Fraction((a - cached) * x + cached * y + b * z, 10**6)

    cost = cost_nanos(Usage(a, b, c, "reported"), Price(1, 0, x, y, z))

    assert -Fraction(1, 2) < cost - exact <= Fraction(1, 2)
