from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.inputs import Unusable
from gateway.price_inputs import (
    MAX_PRICE_NANOS,
    amount_of,
    check_price,
    check_rate,
    clean_currency,
    clean_day,
    clean_moment,
    dearest_of,
    fits,
    nanos_of,
    shortened,
)
from gateway.relay.catalog import Exchange, Price, Rates


def price(*, tiers=(), **figures):
    rates = Rates(**({"input_nanos": 1, "cached_input_nanos": 1, "output_nanos": 1} | figures))
    return Price(0, 0, rates, tuple(Rates(1, 1, 1, above_tokens=each) for each in tiers))


@given(some.integers(0, 10**17))
def test_an_amount_is_read_as_it_was_written(nanos):
    assert nanos_of(amount_of(nanos)) == nanos


@pytest.mark.parametrize(
    ("nanos", "text"),
    [(0, "0"), (150_000_000, "0.15"), (10**10, "10"), (1, "0.000000001"), (-(10**9) // 2, "-0.5")],
)
def test_an_amount_has_no_more_decimals_than_it_needs(nanos, text):
    assert amount_of(nanos) == text


@pytest.mark.parametrize(
    "text",
    ["", "-1", "1e3", "0,15", "1,000", " 1", "1.", ".5", "0.0000000001", "NaN", "٣", "1" * 10, "$1"],
)
def test_what_is_no_plain_decimal_is_refused(text):
    with pytest.raises(Unusable, match=r"is no amount: write it like 0\.15"):
        nanos_of(text)


@pytest.mark.parametrize("text", ["usd", "US", "USDT", "U$D", "\uff35\uff33\uff24", ""])
def test_a_currency_is_three_capital_letters(text):
    assert clean_currency("JPY") == "JPY"
    with pytest.raises(Unusable, match="is no currency"):
        clean_currency(text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T12:00:00.000001+09:00", datetime(2026, 1, 31, 3, 0, 0, 1, tzinfo=UTC)),
    ],
)
def test_a_moment_is_a_day_in_utc_or_has_its_offset(text, moment):
    assert clean_moment(text) == moment


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("31.01.2026", "is no moment"),
        ("2026-13-01", "is no moment"),
        ("2026-01-31T12:00:00", "has no offset"),
        ("1999-01-01", "from 2000 to 2199"),
        ("9999-12-31T23:59:59-12:00", "from 2000 to 2199"),
        ("0001-01-01T00:00:00+12:00", "from 2000 to 2199"),
    ],
)
def test_a_moment_that_nobody_can_mean_is_refused(text, why):
    with pytest.raises(Unusable, match=why):
        clean_moment(text)


def test_a_day_is_written_as_in_iso_8601():
    assert clean_day("2026-01-31") == date(2026, 1, 31)
    for text in ("31/1/2026", "2026-02-30", "2200-01-01"):
        with pytest.raises(Unusable):
            clean_day(text)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (price(input_nanos=-1), "not negative"),
        (price(audio_output_nanos=-1), "not negative"),
        (price(reasoning_nanos=MAX_PRICE_NANOS + 1), "at most 1,000,000"),
        (Price(0, 0, Rates(1, 1, 1), request_nanos=-1), "not negative"),
        (Price(0, 0, Rates(1, 1, 1), currency="yen"), "is no currency"),
        (Price(0, 0, Rates(1, 1, 1, above_tokens=5)), "hold for every prompt"),
        (price(tiers=[0]), "Tiers go up"),
        (price(tiers=[5, 5]), "Tiers go up"),
        (price(tiers=[9, 5]), "Tiers go up"),
        (price(tiers=[10**9 + 1]), "at most 1,000,000,000 tokens"),
        (price(tiers=range(1, 22)), "at most 20 tiers"),
    ],
)
def test_a_price_that_cannot_be_on_the_books_is_refused(wrong, why):
    with pytest.raises(Unusable, match=why):
        check_price(wrong)


def test_a_price_at_the_bounds_is_taken():
    check_price(price(input_nanos=MAX_PRICE_NANOS, output_nanos=0, tiers=[1, 2, 10**9]))


@pytest.mark.parametrize(
    ("base", "quote", "rate_nanos"),
    [("USD", "USD", 10**9), ("USD", "JPY", 99), ("USD", "JPY", 10**16 + 1), ("usd", "JPY", 1)],
)
def test_an_exchange_rate_that_cannot_be_is_refused(base, quote, rate_nanos):
    with pytest.raises(Unusable):
        check_rate(base, quote, rate_nanos)


def test_the_dearest_rate_is_looked_for_everywhere():
    tiers = (Rates(1, 2, 3, reasoning_nanos=9, above_tokens=1),)

    assert dearest_of(Price(0, 0, Rates(4, 5, 6, audio_input_nanos=7), tiers, request_nanos=8)) == 9
    assert dearest_of(Price(0, 0, Rates(4, 5, 6), request_nanos=8)) == 8


def test_what_is_repeated_to_somebody_is_short_and_printable():
    assert shortened("a\x00b\n") == "a?b?"
    assert len(shortened("x" * 1000)) == 40


def test_a_price_fits_where_it_is_within_the_ledgers_bounds_after_the_exchange():
    assert fits(MAX_PRICE_NANOS, Exchange(1, 1))
    assert not fits(MAX_PRICE_NANOS, Exchange(1_000_001, 1_000_000))
    assert fits(MAX_PRICE_NANOS // 150, Exchange(150, 1))
