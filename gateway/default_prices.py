"""List prices that come with the `genai-prices` package, as prices of ours.

Pure: no database, no network. An operator's own price, entered later, wins by its date.
A price by time of day is taken at its dearest, because a row of ours has none; one for input that was
cached for an hour, or for pictures, is left out; so a default is a list price, not a bill.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, time
from decimal import ROUND_HALF_UP, Decimal
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from gateway.presets import BY_ADDRESS, BY_MODEL_NAME
from gateway.relay.catalog import Price, Rates

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

CURRENCY = "USD"
NANOS = Decimal(10**9)
SOURCE = f"genai-prices {version('genai-prices')}"
ALWAYS = datetime(2020, 1, 1, tzinfo=UTC)
"""From when a price holds whose beginning is not known: before any call of ours."""
KINDS: Mapping[str, str] = {
    "input_nanos": "input_mtok",
    "cached_input_nanos": "cache_read_mtok",
    "output_nanos": "output_mtok",
    "cache_write_nanos": "cache_write_mtok",
    "reasoning_nanos": "output_reasoning_mtok",
    "audio_input_nanos": "input_audio_mtok",
    "audio_output_nanos": "output_audio_mtok",
}
"""Our names of what is billed by the million tokens, and the package's."""


def list_prices(model_name: str, price_list: str, base_url: str) -> tuple[Price, ...]:
    """Dated prices in US dollars, oldest first and without an id; none where none is known.

    `price_list` is a vendor's id in genai-prices, or `presets.BY_MODEL_NAME` or `BY_ADDRESS`.
    """
    model = _find(model_name, price_list, base_url)
    if model is None:
        return ()
    prices = {price.valid_from_us: price for price in _prices(model)}
    return tuple(prices[moment] for moment in sorted(prices))


def _find(model_name: str, price_list: str, base_url: str) -> "ModelInfo | None":
    # Imported late: its data takes most of a second to load, and only few processes need it.
    from genai_prices.data_snapshot import get_snapshot

    vendor = None if price_list in (BY_MODEL_NAME, BY_ADDRESS) else price_list
    address = base_url if price_list == BY_ADDRESS else None
    try:
        return get_snapshot().find_provider_model(model_name, None, vendor, address)[1]
    except LookupError:
        return None


def _prices(model: "ModelInfo") -> Iterable[Price]:
    from genai_prices.types import ModelPrice, StartDateConstraint

    if isinstance(model.prices, ModelPrice):
        undated, dated = [model.prices], []
    else:
        dated = [each for each in model.prices if isinstance(each.constraint, StartDateConstraint)]
        undated = [each.prices for each in model.prices if each not in dated]
    always = [price for each in undated if (price := _price(ALWAYS, each))]
    if always:
        yield max(always, key=lambda price: (price.rates.output_nanos, price.rates.input_nanos))
    for each in dated:
        assert isinstance(each.constraint, StartDateConstraint)
        price = _price(datetime.combine(each.constraint.start_date, time(), UTC), each.prices)
        if price:
            yield price


def _price(valid_from: datetime, listed: "ModelPrice") -> Price | None:
    """None where the vendor does not charge by tokens."""
    rates = _rates(listed, 0)
    if rates is None:
        return None
    tiers = tuple(tier for start in _starts(listed) if (tier := _rates(listed, start)))
    valid_from_us = int(valid_from.timestamp()) * 1_000_000
    return Price(0, valid_from_us, rates, tiers, _request_nanos(listed), CURRENCY)


def _starts(listed: "ModelPrice") -> list[int]:
    """Where any of the rates changes with the size of the prompt."""
    values = (getattr(listed, name, None) for name in KINDS.values())
    return sorted({tier.start for value in values for tier in getattr(value, "tiers", ()) if tier.start})


def _rates(listed: "ModelPrice", above_tokens: int) -> Rates | None:
    """Those above so many tokens. Cached input without a price of its own costs as any input."""
    found = {ours: _nanos(getattr(listed, theirs, None), above_tokens) for ours, theirs in KINDS.items()}
    input_nanos, output_nanos = found.pop("input_nanos"), found.pop("output_nanos")
    if input_nanos is None or output_nanos is None:
        return None
    cached_nanos = found.pop("cached_input_nanos")
    cached_nanos = input_nanos if cached_nanos is None else cached_nanos
    return Rates(input_nanos, cached_nanos, output_nanos, above_tokens=above_tokens, **found)


def _nanos(value: Any, above_tokens: int) -> int | None:
    """A rate is one amount, or one for each size of the prompt."""
    amount = getattr(value, "base", value)
    for tier in getattr(value, "tiers", ()):
        if tier.start <= above_tokens:
            amount = tier.price
    return None if amount is None else _rounded(amount)


def _request_nanos(listed: "ModelPrice") -> int:
    """The package has it for a thousand requests."""
    value = getattr(listed, "requests_kcount", None)
    amount = getattr(value, "base", value)
    return 0 if amount is None else _rounded(amount / 1000)


def _rounded(amount: Decimal) -> int:
    return int((amount * NANOS).to_integral_value(ROUND_HALF_UP))
