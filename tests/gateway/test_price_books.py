from datetime import UTC, datetime

import pytest

from gateway.presets import VENDORS, simulator
from gateway.price_books import HOLYSHEEP_BOOK, books, list_prices
from gateway.relay.catalog import PAR

HOLYSHEEP = {
    "gpt-4.1": (2_000_000_000, 8_000_000_000),
    "gpt-4o": (2_500_000_000, 10_000_000_000),
    "gpt-4o-mini": (150_000_000, 600_000_000),
    "claude-sonnet-4-5": (1_500_000_000, 15_000_000_000),
    "gemini-2.5-flash": (70_000_000, 2_500_000_000),
    "deepseek-v3.2": (70_000_000, 420_000_000),
}


@pytest.mark.parametrize("model_name", HOLYSHEEP)
def test_holysheeps_book_is_in_yen_at_one_yen_to_the_dollar_figure(model_name):
    price = books()["holysheep"].price_of(model_name)

    assert (price.rates.input_nanos, price.rates.output_nanos) == HOLYSHEEP[model_name]
    assert price.rates.cached_input_nanos == price.rates.input_nanos
    assert (price.currency, price.exchange, price.id) == ("JPY", PAR, 0)


def test_a_book_knows_a_vendors_other_names():
    assert HOLYSHEEP_BOOK.price_of("claude-sonnet-4.5") == HOLYSHEEP_BOOK.price_of("claude-sonnet-4-5")


@pytest.mark.parametrize("slug", ["holysheep", "openai"])
def test_a_model_name_that_is_not_in_a_book_has_no_price(slug):
    assert books()[slug].price_of("no-such-model-name") is None
    assert books()[slug].prices_of("no-such-model-name") == ()


def test_a_vendors_book_has_its_list_prices_in_dollars_with_their_tiers():
    price = books()["google"].price_of("gemini-2.5-pro")

    assert (price.currency, price.rates.input_nanos) == ("USD", 1_250_000_000)
    assert [each.above_tokens for each in price.tiers] == [200_000]


def test_the_price_of_a_book_is_the_last_of_its_dated_ones():
    book = books()["openrouter"]
    dated = book.prices_of("openai/gpt-4o")

    assert len(dated) > 1
    assert book.price_of("openai/gpt-4o") == dated[-1]
    assert datetime.fromtimestamp(dated[0].valid_from_us / 10**6, UTC).year == 2020


def test_every_vendor_with_a_book_is_one_that_the_package_knows():
    from genai_prices.data_snapshot import get_snapshot

    known = {each.id for each in get_snapshot().providers}

    assert {each.vendor for each in books().values() if each is not HOLYSHEEP_BOOK} <= known


def test_a_book_goes_by_its_slug():
    assert all(slug == each.slug and each.name for slug, each in books().items())


@pytest.mark.parametrize("registration", [*VENDORS, simulator("http://127.0.0.1:9/v1")])
def test_every_preset_route_has_a_price(registration):
    unpriced = [
        each.model_name
        for each in registration.routes
        if not list_prices(registration, each.upstream_model)[0]
    ]

    assert unpriced == []


def test_a_presets_prices_say_where_they_are_from():
    holysheep, openai, *_ = VENDORS

    assert list_prices(holysheep, "gpt-4o")[1] == "HolySheep's price book"
    assert list_prices(openai, "gpt-4o")[1].startswith("genai-prices ")
