import pytest

from accounts.amounts import figure, units, worded
from accounts.forms.limits import whole


@pytest.mark.parametrize(
    ("kind", "amount", "words"),
    [
        ("money", 0, "0.00 USD"),
        ("money", 12_500_000_000, "12.50 USD"),
        ("money", 1_234_567_000_000_000, "1,234,567.00 USD"),
        ("money", 1, "0.000000001 USD"),
        ("money", 10**18, "1,000,000,000.00 USD"),
        ("tokens", 1_000_000, "1,000,000 tokens"),
        ("tokens", 1, "1 token"),
        ("requests", 1, "1 request"),
        ("requests", 0, "0 requests"),
    ],
)
def test_an_amount_is_written_with_its_unit(kind, amount, words):
    assert worded(kind, amount, "USD") == words


@pytest.mark.parametrize(
    ("kind", "amount", "words"),
    [("money", 10**9, "1.00"), ("money", 22_500, "0.0000225"), ("tokens", 1_000_000, "1,000,000")],
)
def test_a_figure_has_no_unit_and_is_exact(kind, amount, words):
    assert figure(kind, amount) == words


@pytest.mark.parametrize(("kind", "amount"), [("money", 1), ("money", 10**18), ("tokens", 2**53 - 1)])
def test_an_amount_survives_the_way_into_a_form_and_back(kind, amount):
    assert whole(kind, units(kind, amount)) == amount
