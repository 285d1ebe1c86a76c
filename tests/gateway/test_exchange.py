from datetime import date, timedelta
from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.exchange import Quoted, Rates, converted, in_ledger, midnight_us
from gateway.relay.catalog import PAR, Exchange, Price
from gateway.relay.catalog import Rates as Figures

FIRST = date(2026, 1, 1)
DAYS = some.integers(0, 40).map(lambda days: FIRST + timedelta(days=days))
CURRENCIES = some.sampled_from(["USD", "JPY", "EUR"])
AMOUNTS = some.integers(-(10**18), 10**18)
FRACTIONS = some.builds(Exchange, some.integers(1, 10**16), some.integers(1, 10**16))


@some.composite
def quoted(draw):
    base, quote = draw(some.permutations(["USD", "JPY", "EUR"]))[:2]
    return Quoted(base, quote, draw(DAYS), draw(some.integers(100, 10**16)))


QUOTED = some.lists(quoted(), max_size=12)


def value(exchange):
    return Fraction(exchange.numerator, exchange.denominator)


def plainly(entered, base, quote, day):
    """The last entered among those of the latest day that has begun, as a fraction."""
    held = [each for each in entered if {each.base, each.quote} == {base, quote} and each.valid_from <= day]
    if not held:
        return None
    latest = max(each.valid_from for each in held)
    last = [each for each in held if each.valid_from == latest][-1]
    rate = Fraction(last.rate_nanos, 10**9)
    return rate if last.base == base else 1 / rate


@given(QUOTED, CURRENCIES, CURRENCIES, DAYS)
def test_the_rate_of_a_day_is_the_last_entered_of_the_latest_day_that_has_begun(entered, base, quote, day):
    found = Rates(entered).exchange(base, quote, day)

    if base == quote:
        assert found == PAR
    else:
        expected = plainly(entered, base, quote, day)
        assert (found and value(found)) == expected


@given(QUOTED, CURRENCIES, CURRENCIES, DAYS)
def test_there_and_back_is_where_one_began(entered, base, quote, day):
    rates = Rates(entered)
    there, back = rates.exchange(base, quote, day), rates.exchange(quote, base, day)

    assert (there is None) == (back is None)
    if there and back:
        assert value(there) * value(back) == 1


@given(AMOUNTS, FRACTIONS)
def test_an_amount_is_rounded_half_up_once_and_a_negative_one_like_its_opposite(nanos, exchange):
    exact = abs(nanos) * value(exchange)
    expected = floor(exact + Fraction(1, 2))

    assert converted(nanos, exchange) == (expected if nanos >= 0 else -expected)


def test_a_half_goes_away_from_zero():
    assert [converted(nanos, Exchange(1, 2)) for nanos in (1, 2, 3, -1, -3)] == [1, 1, 2, -1, -2]


def test_of_two_rates_of_a_day_the_later_entered_one_wins_in_whichever_direction():
    rates = Rates([Quoted("USD", "JPY", FIRST, 150 * 10**9), Quoted("JPY", "USD", FIRST, 10**7)])

    assert rates.exchange("USD", "JPY", FIRST) == Exchange(100, 1)


def test_before_its_first_day_a_rate_is_not_known():
    rates = Rates([Quoted("USD", "JPY", FIRST, 150 * 10**9)])

    assert rates.exchange("USD", "JPY", FIRST - timedelta(days=1)) is None
    assert rates.days("JPY", "USD") == [FIRST]


# Prices in the ledger's currency


@some.composite
def priced(draw):
    moments = sorted(draw(some.lists(some.integers(0, 40 * 24), min_size=1, max_size=5)))
    return [
        Price(
            number,
            midnight_us(FIRST) + hour * 3_600_000_000,
            Figures(number, number, number),
            currency=draw(some.sampled_from(["", "USD", "JPY", "EUR"])),
        )
        for number, hour in enumerate(moments, start=1)
    ]


def at(prices, moment_us):
    held = [each for each in prices if each.valid_from_us <= moment_us]
    return held[-1] if held else None


@given(priced(), QUOTED, some.integers(-24, 42 * 24))
def test_at_any_moment_the_price_is_the_row_of_then_at_the_rate_of_that_day(rows, entered, hour):
    moment_us = midnight_us(FIRST) + hour * 3_600_000_000
    day = FIRST + timedelta(days=hour // 24)
    rates = Rates(entered)

    found, row = at(in_ledger(rows, rates, "USD"), moment_us), at(rows, moment_us)

    if row is None:
        assert found is None
        return
    exchange = rates.exchange(row.currency or "USD", "USD", day)
    assert (found.id, found.usable) == (row.id, exchange is not None)
    if exchange:
        assert found.exchange == exchange


@given(priced(), QUOTED)
def test_spans_begin_one_after_the_other(rows, entered):
    begins = [each.valid_from_us for each in in_ledger(rows, Rates(entered), "USD")]

    assert begins == sorted(set(begins))


@pytest.mark.parametrize("currency", ["", "USD"])
def test_a_price_in_the_ledgers_own_currency_needs_no_rate(currency):
    row = Price(1, midnight_us(FIRST), Figures(1, 1, 1), currency=currency)

    assert in_ledger([row], Rates(), "USD") == (row,)
