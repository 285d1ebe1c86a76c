from datetime import UTC, datetime

import pytest

from gateway.default_prices import ALWAYS, SOURCE, list_prices
from gateway.presets import BY_ADDRESS, BY_MODEL_NAME, VENDORS, simulator

OPENAI = "https://api.openai.com/v1"


def figures(price):
    return price.input_nanos, price.cached_input_nanos, price.output_nanos


def test_a_price_is_in_whole_nano_dollars_per_million_tokens():
    [price] = list_prices("gpt-4o", "openai", OPENAI)

    assert figures(price) == (2_500_000_000, 1_250_000_000, 10_000_000_000)
    assert price.valid_from == ALWAYS


def test_a_price_by_context_size_is_taken_at_its_first_tier():
    [price] = list_prices("claude-sonnet-4-5", BY_MODEL_NAME, "")

    assert figures(price) == (3_000_000_000, 300_000_000, 15_000_000_000)


def test_a_price_by_time_of_day_is_taken_at_its_dearest():
    [price] = list_prices("deepseek-chat", "deepseek", "")

    assert figures(price) == (270_000_000, 70_000_000, 1_100_000_000)


def test_a_price_with_a_beginning_is_a_row_from_that_day():
    first, *later = list_prices("openai/gpt-4o", "openrouter", "")

    assert first.valid_from == ALWAYS
    assert [each.valid_from for each in later] == [datetime(2026, 10, 19, tzinfo=UTC)]


def test_cached_input_without_a_price_of_its_own_costs_as_any_input():
    first, *_ = list_prices("openai/gpt-4o", "openrouter", "")

    assert first.cached_input_nanos == first.input_nanos


@pytest.mark.parametrize("registration", [*VENDORS, simulator("http://127.0.0.1:9/v1")])
def test_every_preset_route_has_a_price(registration):
    unpriced = [
        each.model_name
        for each in registration.routes
        if not list_prices(each.upstream_model, registration.price_list, registration.base_url)
    ]

    assert unpriced == []


def test_a_compatible_address_is_priced_only_where_its_vendor_is_known():
    assert list_prices("gpt-4o", BY_ADDRESS, OPENAI)
    assert list_prices("gpt-4o", BY_ADDRESS, "http://127.0.0.1:11434/v1") == ()


def test_an_unknown_model_name_has_no_price():
    assert list_prices("no-such-model-name", BY_MODEL_NAME, "") == ()
    assert list_prices("no-such-model-name", "openai", OPENAI) == ()


def test_the_source_names_the_package_and_its_version():
    name, version = SOURCE.split()

    assert name == "genai-prices"
    assert version[0].isdigit()
