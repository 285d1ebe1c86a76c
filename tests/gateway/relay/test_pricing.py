from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.relay import pricing
from gateway.relay.bounds import worst_cost_nanos
from gateway.relay.catalog import Exchange, Price, Rates
from gateway.relay.pricing import Line, cost_nanos, cost_of, lines, told
from gateway.relay.records import Usage

GPT_4O_MINI = Price(
    1, 0, Rates(input_nanos=150_000_000, cached_input_nanos=75_000_000, output_nanos=600_000_000)
)


def test_an_everyday_call() -> None:
    # 10 x 0.15 + 35 x 0.60 dollars per million = 0.0000225 dollars
    assert cost_nanos(Usage(10, 35, 0, "reported"), GPT_4O_MINI) == 22_500


def test_cached_tokens_are_a_part_of_the_input_and_cheaper() -> None:
    # 4 x 0.15 + 6 x 0.075 dollars per million
    assert cost_nanos(Usage(10, 0, 6, "reported"), GPT_4O_MINI) == 1_050


def test_more_cached_than_input_tokens_are_taken_at_the_smaller_word() -> None:
    assert cost_nanos(Usage(10, 0, 99, "reported"), GPT_4O_MINI) == 750


def test_half_a_nano_is_rounded_up_once() -> None:
    assert cost_nanos(Usage(1, 0, 0, "reported"), Price(1, 0, Rates(500_000, 0, 0))) == 1
    assert cost_nanos(Usage(1, 0, 0, "reported"), Price(1, 0, Rates(499_999, 0, 0))) == 0
    assert cost_nanos(Usage(1, 1, 0, "reported"), Price(1, 0, Rates(400_000, 0, 400_000))) == 1


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

    cost = cost_nanos(Usage(a, b, c, "reported"), Price(1, 0, Rates(x, y, z)))

    assert -Fraction(1, 2) < cost - exact <= Fraction(1, 2)


BIGGEST = 2**63 - 1
"""Of a column."""
DEAREST = 10**15
"""The most that an operator may enter."""
counts = st.one_of(st.integers(0, 9), st.integers(0, 10**9))
nanos = st.one_of(st.integers(0, 9), st.integers(0, DEAREST))
kinds_of_their_own = st.one_of(st.none(), nanos)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Reported or estimated, with parts that may be larger than their wholes."""
    tokens = [draw(counts) for _ in range(7)]
    basis = draw(st.sampled_from(["reported", "estimated"]))
    return Usage(*tokens[:3], basis, *tokens[3:])  # type: ignore[arg-type]


@st.composite
def rates(draw: st.DrawFn, above_tokens: int = 0) -> Rates:
    own = [draw(kinds_of_their_own) for _ in range(4)]
    return Rates(draw(nanos), draw(nanos), draw(nanos), *own, above_tokens)


@st.composite
def prices(draw: st.DrawFn) -> Price:
    """Every price that may be entered: tiers that may be cheaper, a fee, and an exchange rate."""
    above = sorted(draw(st.sets(st.integers(1, 10**9), max_size=3)))
    exchange = Exchange(draw(st.integers(1, BIGGEST)), draw(st.integers(1, BIGGEST)))
    tiers = tuple(draw(rates(each)) for each in above)
    return Price(draw(st.integers(1, BIGGEST)), 0, draw(rates()), tiers, draw(nanos), "JPY", exchange)


def exact(bill: list[Line], exchange: Exchange) -> Fraction:
    """What a bill comes to, in the ledger's currency and not rounded."""
    per = {"request": 1}
    total = sum(Fraction(each.quantity * each.rate_nanos, per.get(each.kind, 10**6)) for each in bill)
    return total * Fraction(exchange.numerator, exchange.denominator)


EVERY_KIND = Rates(
    10_000_000,
    1_000_000,
    40_000_000,
    cache_write_nanos=12_000_000,
    reasoning_nanos=30_000_000,
    audio_input_nanos=50_000_000,
    audio_output_nanos=80_000_000,
)


def test_a_bill_has_a_line_for_each_kind() -> None:
    usage = Usage(100, 60, 30, "reported", 20, 25, 10, 5)

    assert lines(usage, EVERY_KIND, 7) == [
        Line("cached_input", 30, 1_000_000),
        Line("cache_write", 20, 12_000_000),
        Line("audio_input", 10, 50_000_000),
        Line("input", 40, 10_000_000),
        Line("reasoning", 25, 30_000_000),
        Line("audio_output", 5, 80_000_000),
        Line("output", 30, 40_000_000),
        Line("request", 1, 7),
    ]
    # 30x1 + 20x12 + 10x50 + 40x10 + 25x30 + 5x80 + 30x40, and 7 for the request
    assert cost_nanos(usage, Price(1, 0, EVERY_KIND, request_nanos=7)) == 3527


def test_kinds_without_a_rate_of_their_own_cost_as_what_they_are_a_part_of() -> None:
    usage = Usage(100, 60, 30, "reported", 20, 25, 10, 5)

    assert lines(usage, Rates(10, 1, 40)) == [
        Line("cached_input", 30, 1),
        Line("input", 70, 10),
        Line("output", 60, 40),
    ]


def test_parts_that_are_larger_than_the_whole_are_taken_in_order() -> None:
    usage = Usage(50, 20, 30, "reported", 99, 15, 99, 99)

    assert lines(usage, EVERY_KIND) == [
        Line("cached_input", 30, 1_000_000),
        Line("cache_write", 20, 12_000_000),
        Line("reasoning", 15, 30_000_000),
        Line("audio_output", 5, 80_000_000),
    ]


@pytest.mark.parametrize(
    ("tokens", "nanos_a_token"), [(200_000, 10), (200_001, 20), (400_000, 20), (400_001, 15)]
)
def test_all_of_a_long_prompt_has_the_rates_of_its_tier(tokens: int, nanos_a_token: int) -> None:
    tiers = (
        Rates(20_000_000, 0, 0, above_tokens=200_000),
        Rates(15_000_000, 0, 0, above_tokens=400_000),
    )

    cost = cost_nanos(Usage(tokens, 0, 0, "reported"), Price(1, 0, Rates(10_000_000, 0, 0), tiers))

    assert cost == tokens * nanos_a_token


def test_a_request_costs_its_fee_only_where_there_was_usage() -> None:
    price = Price(1, 0, Rates(0, 0, 0), request_nanos=5_000_000)

    assert cost_nanos(Usage(0, 0, 0, "reported"), price) == 5_000_000
    assert cost_nanos(Usage(0, 0, 0, "estimated"), price) == 5_000_000
    assert cost_nanos(Usage(), price) == 0


def test_another_currency_is_exchanged_before_the_one_rounding() -> None:
    yen = Price(1, 0, Rates(1_000_000, 0, 1_000_000), currency="JPY", exchange=Exchange(1, 3))

    assert cost_nanos(Usage(1, 0, 0, "reported"), yen) == 0  # a third
    assert cost_nanos(Usage(1, 1, 0, "reported"), yen) == 1  # two thirds
    assert cost_nanos(Usage(2, 2, 0, "reported"), yen) == 1  # four thirds, not twice what is above


@given(usages(), prices())
def test_the_cost_can_be_worked_out_again_from_what_was_kept(usage: Usage, price: Price) -> None:
    cost = cost_nanos(usage, price)
    kept = pricing.read(told(usage, price))

    assert kept is not None
    assert kept == pricing.applied(usage, price)
    assert cost_of(usage, kept) == cost
    assert (kept.price_id, kept.currency) == (price.id, "JPY")


@given(usages(), prices())
def test_the_lines_of_a_bill_add_up_to_the_cost_rounded_half_up_once(usage: Usage, price: Price) -> None:
    bill = lines(usage, price.rates_for(usage.input_tokens), price.request_nanos)

    difference = cost_nanos(usage, price) - exact(bill, price.exchange)
    assert -Fraction(1, 2) < difference <= Fraction(1, 2)
    assert all(each.quantity > 0 and each.rate_nanos >= 0 for each in bill)


@given(usages(), prices())
def test_the_tokens_of_a_bill_are_those_of_the_usage(usage: Usage, price: Price) -> None:
    given = {"cached_input", "cache_write", "audio_input", "input"}
    bill = lines(usage, price.rates_for(usage.input_tokens))

    assert sum(each.quantity for each in bill if each.kind in given) == usage.input_tokens
    assert sum(each.quantity for each in bill if each.kind not in given) == usage.output_tokens


@given(usages(), rates(), st.integers(0, 1000), st.integers(0, 1000))
def test_more_tokens_never_cost_less_at_the_same_rates(usage: Usage, at: Rates, more: int, said: int) -> None:
    price = Price(1, 0, at)
    _, _, *parts = (getattr(usage, name) for name in usage.__struct_fields__)
    longer = Usage(usage.input_tokens + more, usage.output_tokens + said, *parts)

    assert 0 <= cost_nanos(usage, price) <= cost_nanos(longer, price)


@given(usages(), prices(), nanos)
def test_a_dearer_price_never_costs_less(usage: Usage, price: Price, more: int) -> None:
    at = price.rates_for(usage.input_tokens)
    for name in ("input_nanos", "cached_input_nanos", "output_nanos"):
        dearer = replace(at, **{name: getattr(at, name) + more})
        assert pricing.cost_at(usage, at, price) <= pricing.cost_at(usage, dearer, price)
    assert cost_nanos(usage, price) <= cost_nanos(
        usage, replace(price, request_nanos=price.request_nanos + more)
    )


@given(usages(), prices(), st.integers(0, 10**9), st.integers(0, 10**9))
def test_no_usage_within_the_worst_case_costs_more_than_that(
    usage: Usage, price: Price, more: int, said: int
) -> None:
    worst = Usage(usage.input_tokens + more, usage.output_tokens + said, 0, "estimated")

    assert worst_cost_nanos(worst, price) >= cost_nanos(usage, price)


def test_at_worst_every_kind_and_every_tier_in_reach_is_thought_of() -> None:
    million = Usage(1_000_000, 1_000_000, 0, "estimated")
    plain = Rates(10, 1, 40)

    def worst(rates: Rates, *tiers: Rates) -> int:
        return worst_cost_nanos(million, Price(1, 0, rates, tiers))

    assert worst(plain) == 50
    assert worst(replace(plain, cache_write_nanos=12)) == 52
    assert worst(replace(plain, audio_input_nanos=90)) == 130
    assert worst(replace(plain, reasoning_nanos=60)) == 70
    assert worst(replace(plain, audio_output_nanos=80)) == 90
    assert worst(plain, replace(plain, input_nanos=20, above_tokens=999_999)) == 60
    assert worst(plain, replace(plain, input_nanos=20, above_tokens=1_000_000)) == 50
    dear_between = (replace(plain, input_nanos=20, above_tokens=9), replace(plain, above_tokens=99))
    assert worst(plain, *dear_between) == 60


def test_the_longest_price_that_the_database_can_hold_fits_its_column() -> None:
    most = Rates(*[BIGGEST] * 8)
    price = Price(BIGGEST, 0, most, (), BIGGEST, "XXX", Exchange(10**19 - 1, 10**19 - 1))
    usage = Usage(1, 1, 0, "reported")
    kept = pricing.read(told(usage, price))

    assert len(told(usage, price)) <= 300
    assert kept == pricing.applied(usage, price)


@given(usages(), prices())
def test_no_price_is_longer_than_its_column(usage: Usage, price: Price) -> None:
    assert len(told(usage, price)) <= 300


def test_without_a_price_nothing_is_told() -> None:
    assert told(Usage(1, 1, 0, "reported"), None) == ""
    assert pricing.read("") is None
