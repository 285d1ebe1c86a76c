from datetime import UTC, datetime

from gateway.default_prices import ALWAYS, KINDS, SOURCE, _prices, list_prices
from gateway.presets import BY_ADDRESS, BY_MODEL_NAME
from gateway.price_inputs import check_price

OPENAI = "https://api.openai.com/v1"


def figures(price):
    return price.rates.input_nanos, price.rates.cached_input_nanos, price.rates.output_nanos


def begins(price):
    return datetime.fromtimestamp(price.valid_from_us // 10**6, UTC)


def test_a_price_is_in_whole_nano_dollars_per_million_tokens():
    [price] = list_prices("gpt-4o", "openai", OPENAI)

    assert figures(price) == (2_500_000_000, 1_250_000_000, 10_000_000_000)
    assert (begins(price), price.currency) == (ALWAYS, "USD")


def test_a_price_by_context_size_has_tiers():
    [price] = list_prices("claude-sonnet-4-5", BY_MODEL_NAME, "")
    [tier] = price.tiers

    assert figures(price) == (3_000_000_000, 300_000_000, 15_000_000_000)
    assert price.rates.cache_write_nanos == 3_750_000_000
    assert (tier.above_tokens, tier.input_nanos, tier.cached_input_nanos, tier.output_nanos) == (
        200_000,
        6_000_000_000,
        600_000_000,
        22_500_000_000,
    )
    assert tier.cache_write_nanos == 7_500_000_000


def test_a_fee_for_the_request_is_of_one_and_not_of_a_thousand():
    [price] = list_prices("sonar", "perplexity", "")

    assert price.request_nanos == 12_000_000


def test_every_list_price_there_is_can_be_on_the_books():
    from genai_prices.data_snapshot import get_snapshot

    kinds = set()
    for vendor in get_snapshot().providers:
        for model in vendor.models:
            for price in _prices(model):
                check_price(price)
                kinds |= {name for name in KINDS if getattr(price.rates, name) is not None}

    assert kinds == set(KINDS)


def test_a_price_by_time_of_day_is_taken_at_its_dearest():
    [price] = list_prices("deepseek-chat", "deepseek", "")

    assert figures(price) == (270_000_000, 70_000_000, 1_100_000_000)


def test_a_price_with_a_beginning_is_a_row_from_that_day():
    first, *later = list_prices("openai/gpt-4o", "openrouter", "")

    assert begins(first) == ALWAYS
    assert [begins(each) for each in later] == [datetime(2026, 10, 19, tzinfo=UTC)]


def test_cached_input_without_a_price_of_its_own_costs_as_any_input():
    first, *_ = list_prices("openai/gpt-4o", "openrouter", "")

    assert first.rates.cached_input_nanos == first.rates.input_nanos


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
