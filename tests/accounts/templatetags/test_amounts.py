import pytest

from accounts.models import RateLimit
from accounts.templatetags.amounts import of_kind, rate


@pytest.mark.parametrize(
    ("amount", "kind", "words"),
    [
        (1, "requests", "1 request"),
        (1_234_567, "tokens", "1,234,567 tokens"),
        (0, "calls", "0 calls"),
        (12_500_000_000, "money", "12.50 USD"),
    ],
)
def test_an_amount_comes_with_its_unit(amount, kind, words):
    assert of_kind(amount, kind) == words


@pytest.mark.parametrize(
    ("kind", "model_name", "words"),
    [
        ("tokens", "gpt-4o", "1,000 tokens a minute of gpt-4o"),
        ("requests", "", "1,000 requests a minute"),
        ("concurrent", "100% Human", "1,000 calls at once of 100% Human"),
    ],
)
def test_a_rate_limit_is_told_in_words(kind, model_name, words):
    assert rate(RateLimit(kind=kind, model_name=model_name, amount=1000)) == words
