"""A provider's figures against ours, day by day and model by model."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.exchange import NANOS
from gateway.ledger.provider_csv import BillLine
from gateway.ledger.reconciliation import Compared, Ours, Side, matched, reconcile
from gateway.relay.catalog import PAR, Exchange

FIRST, SECOND = date(2026, 10, 1), date(2026, 10, 2)


def line(number=2, day=FIRST, model="gpt-4o", tokens_in=100, tokens_out=20, cost=None, currency=""):
    both = None if tokens_in is None or tokens_out is None else tokens_in + tokens_out
    nanos = None if cost is None else int(cost * NANOS)
    return BillLine(number, day, model, tokens_in, tokens_out, both, nanos, currency)


def ours(day=FIRST, model="gpt-4o", tokens_in=100, tokens_out=20, cost=0):
    return Ours(day, model, tokens_in, tokens_out, int(cost * NANOS))


def at_par(currency, day):
    return PAR if currency in ("", "USD") else None


def test_the_same_on_both_sides_is_even():
    found = reconcile([line(cost=1)], [ours(cost=1)], at_par)

    (row,) = found.rows
    assert row.is_even
    assert row.numbers == (2,)
    assert found.total("tokens") == Compared(120, 120)
    assert found.total("cost_nanos").share == 1.0
    assert found.uneven() == []


def test_what_is_missing_on_our_books_is_below_nothing():
    found = reconcile([line(tokens_in=400, cost=4)], [ours(tokens_in=380, cost=3)], at_par)

    (row,) = found.uneven()
    assert row.compared("input_tokens").difference == -20
    assert row.compared("cost_nanos").difference == -NANOS
    assert found.total("cost_nanos").share == 0.75


def test_half_a_cent_is_no_difference_and_one_token_is():
    assert reconcile([line(cost=1)], [ours(cost=1.005)], at_par).uneven() == []
    assert len(reconcile([line(cost=1)], [ours(cost=1.0051)], at_par).uneven()) == 1
    assert len(reconcile([line(tokens_in=101)], [ours()], at_par).uneven()) == 1


def test_several_lines_of_a_day_and_model_are_added_up():
    found = reconcile([line(2, tokens_in=60), line(3, tokens_in=40, tokens_out=0)], [ours()], at_par)

    (row,) = found.rows
    assert row.is_even
    assert row.numbers == (2, 3)


def test_what_one_line_does_not_tell_their_sum_does_not():
    found = reconcile([line(2), line(3, tokens_in=None)], [ours()], at_par)

    (row,) = found.rows
    assert row.theirs == Side(None, 40, None, None)
    assert found.total("input_tokens") is None


def test_what_is_on_our_books_alone_counts():
    found = reconcile([line()], [ours(), ours(SECOND)], at_par)

    assert [(row.day, row.numbers, row.is_even) for row in found.rows] == [
        (FIRST, (2,), True),
        (SECOND, (), False),
    ]
    assert found.rows[1].theirs == Side(0, 0, 0, None)
    assert found.total("tokens") == Compared(240, 120)


def test_what_is_on_their_bill_alone_counts_and_is_named():
    found = reconcile([line(), line(3, model="dall-e-3")], [ours()], at_par)

    (row,) = found.unknown()
    assert (row.upstream_model, row.ours, row.numbers) == ("dall-e-3", Side(0, 0, 0, 0), (3,))
    assert found.total("tokens").share == 0.5
    assert found.uneven() == []


def test_a_day_without_usage_of_a_known_model_is_uneven():
    found = reconcile([line(), line(3, SECOND)], [ours()], at_par)

    assert [row.day for row in found.uneven()] == [SECOND]


def test_their_cost_is_converted_at_the_rate_of_the_day_or_told():
    def yen(currency, day):
        return Exchange(10, 73) if currency == "JPY" and day == FIRST else None

    bill = [line(2, cost=73, currency="JPY"), line(3, SECOND, cost=73, currency="JPY")]

    found = reconcile(bill, [ours(cost=10), ours(SECOND, cost=10)], yen)

    assert [row.theirs.cost_nanos for row in found.rows] == [10 * NANOS, None]
    assert found.no_rate == ((SECOND, "JPY"),)
    assert found.total("cost_nanos") == Compared(10 * NANOS, 10 * NANOS)


def test_lines_without_a_currency_are_in_the_files():
    found = reconcile([line(cost=2, currency="")], [ours(cost=1)], lambda code, day: Exchange(1, 2), "EUR")

    assert found.rows[0].theirs.cost_nanos == NANOS


def test_a_file_without_cost_compares_tokens_alone():
    found = reconcile([line()], [ours(cost=9)], at_par)

    assert found.total("cost_nanos") is None
    assert found.rows[0].is_even


@pytest.mark.parametrize(
    ("theirs", "known", "expected"),
    [
        ("gpt-4o", {"gpt-4o", "gpt-4o-2024-08-06"}, "gpt-4o"),
        ("gpt-4o-2024-08-06", {"gpt-4o", "gpt-4o-2024-08-06"}, "gpt-4o-2024-08-06"),
        ("gpt-4o-2024-11-20", {"gpt-4o"}, "gpt-4o"),
        ("gpt-4-0613", {"gpt-4"}, "gpt-4"),
        ("claude-sonnet-4@20250514", {"claude-sonnet-4"}, "claude-sonnet-4"),
        ("claude-sonnet-4", {"claude-sonnet-4-20250514"}, "claude-sonnet-4-20250514"),
        ("gpt-4o-2024-11-20", {"gpt-4o-2024-08-06"}, "gpt-4o-2024-08-06"),
        ("gpt-4o", {"gpt-4o-2024-05-13", "gpt-4o-2024-08-06"}, None),  # either could be meant
        ("gpt-4o-mini", {"gpt-4o"}, None),
        ("o1", {"gpt-4o"}, None),
    ],
)
def test_a_name_is_matched_exactly_or_without_the_date_of_a_version(theirs, known, expected):
    assert matched([theirs], known).get(theirs) == expected


amounts = st.none() | st.integers(0, 10**12)
names = st.sampled_from(["a", "b", "b-2026-01-01", "c"])
days = st.sampled_from([FIRST, SECOND])
bill_lines = st.builds(
    BillLine, st.integers(2, 99), days, names, amounts, amounts, amounts, amounts, st.just("")
)
books = st.lists(st.builds(Ours, days, names, *[st.integers(0, 10**12)] * 3), unique_by=lambda each: each[:2])


@given(st.lists(bill_lines, min_size=1), books)
def test_nothing_is_lost_on_either_side(bill, books):
    found = reconcile(bill, books, at_par)

    assert sum(row.ours.tokens for row in found.rows) == sum(each.side().tokens for each in books)
    assert sum(len(row.numbers) for row in found.rows) == len(bill)
    for figure in ("input_tokens", "output_tokens", "tokens", "cost_nanos"):
        if all(getattr(line, figure) is not None for line in bill):
            assert found.total(figure).theirs == sum(getattr(line, figure) for line in bill)
