"""Figures as people read them."""

import pytest
from django.utils import translation

from dashboard import rounded


@pytest.mark.parametrize(
    ("nanos", "expected"),
    [
        (0, "$0.00"),
        (3_650_000_000_000, "$3,650.00"),
        (1_005_000_000, "$1.01"),
        (-40_000_000_000, "\u2212$40.00"),
        (999_999_999, "$1.000"),
        (123_456_789, "$0.123"),
        (1_234_567, "$0.00123"),
        (1, "$0.000000001"),
        (None, "\u2013"),
    ],
)
def test_money_keeps_what_says_something(nanos, expected):
    assert rounded.money(nanos, "USD") == expected


def test_yen_have_no_decimals_until_there_is_less_than_one():
    amounts = (8_000_400_000_000, 0, 34_500_000)
    assert [rounded.money(each, "JPY") for each in amounts] == ["¥8,000", "¥0", "¥0.0345"]


def test_a_currency_without_a_sign_of_its_own_is_written_out():
    assert rounded.money(12_500_000_000, "CHF") == "CHF\u00a012.50"


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("en", ["$1,234.50", "¥1,235", "CN¥1,234.50", "1,234,567"]),
        ("ja", ["$1,234.50", "\uffe51,235", "元1,234.50", "1,234,567"]),
        ("de", ["$1.234,50", "¥1.235", "CN¥1.234,50", "1.234.567"]),
    ],
)
def test_figures_are_written_as_the_language_does(language, expected):
    with translation.override(language):
        amounts = [rounded.money(1_234_500_000_000, each) for each in ("USD", "JPY", "CNY")]
        assert [*amounts, rounded.count(1_234_567)] == expected


def test_a_gain_has_a_sign():
    amounts = [rounded.gain(each * 10**9, "USD") for each in (1, 0, -1)]
    assert amounts == ["+$1.00", "$0.00", "\u2212$1.00"]


def test_shares_are_percents():
    assert [rounded.share(each) for each in (0.8904, -0.5, None)] == [
        "89.0\u202f%",
        "\u221250.0\u202f%",
        "\u2013",
    ]


def test_counts_have_separators():
    assert [rounded.count(each) for each in (1_234_567, None)] == ["1,234,567", "\u2013"]


@pytest.mark.parametrize(
    ("value", "english", "japanese"),
    [
        (999_999, "999,999", "999,999"),
        (1_480_000, "1.48\u202fM", "148万"),
        (402_345_678, "402\u202fM", "4.02億"),
        (1_234_567_890_123, "1.23\u202fT", "1.23兆"),
        (None, "\u2013", "\u2013"),
    ],
)
def test_large_counts_can_be_short(value, english, japanese):
    assert rounded.short(value) == english
    with translation.override("ja"):
        assert rounded.short(value) == japanese
