"""List prices that come with the `genai-prices` package, as rows of ours.

Pure: no database, no network. An operator's own price, entered later, wins by its date.
A price by time of day is taken at its dearest, and a price by context size at its first
tier, because a row of ours has neither; so a default is a list price, not a bill.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time
from decimal import ROUND_HALF_UP, Decimal
from importlib.metadata import version
from typing import TYPE_CHECKING

from gateway.presets import BY_ADDRESS, BY_MODEL_NAME

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

CURRENCY = "USD"
NANOS = Decimal(10**9)
SOURCE = f"genai-prices {version('genai-prices')}"
ALWAYS = datetime(2020, 1, 1, tzinfo=UTC)
"""From when a price holds whose beginning is not known: before any call of ours."""


@dataclass(frozen=True, slots=True)
class ListPrice:
    """Whole nano-units of US dollars per million tokens, from a moment on."""

    valid_from: datetime
    input_nanos: int
    cached_input_nanos: int
    output_nanos: int


def list_prices(model_name: str, price_list: str, base_url: str) -> tuple[ListPrice, ...]:
    """Dated prices, oldest first; none where none is known.

    `price_list` is a vendor's id in genai-prices, or `presets.BY_MODEL_NAME` or `BY_ADDRESS`.
    """
    model = _find(model_name, price_list, base_url)
    if model is None:
        return ()
    rows = {row.valid_from: row for row in _rows(model)}
    return tuple(rows[moment] for moment in sorted(rows))


def _find(model_name: str, price_list: str, base_url: str) -> "ModelInfo | None":
    # Imported late: its data takes most of a second to load, and only a first run needs it.
    from genai_prices.data_snapshot import get_snapshot

    vendor = None if price_list in (BY_MODEL_NAME, BY_ADDRESS) else price_list
    address = base_url if price_list == BY_ADDRESS else None
    try:
        return get_snapshot().find_provider_model(model_name, None, vendor, address)[1]
    except LookupError:
        return None


def _rows(model: "ModelInfo") -> Iterable[ListPrice]:
    from genai_prices.types import ModelPrice, StartDateConstraint

    if isinstance(model.prices, ModelPrice):
        undated, dated = [model.prices], []
    else:
        dated = [each for each in model.prices if isinstance(each.constraint, StartDateConstraint)]
        undated = [each.prices for each in model.prices if each not in dated]
    rows = [row for row in (_row(ALWAYS, each) for each in undated) if row]
    if rows:
        yield max(rows, key=lambda row: (row.output_nanos, row.input_nanos))
    for each in dated:
        assert isinstance(each.constraint, StartDateConstraint)
        row = _row(datetime.combine(each.constraint.start_date, time(), UTC), each.prices)
        if row:
            yield row


def _row(valid_from: datetime, price: "ModelPrice") -> ListPrice | None:
    """None where the vendor does not charge by tokens. Cached input without its own price costs full."""
    input_nanos, output_nanos = _nanos(price, "input_mtok"), _nanos(price, "output_mtok")
    if input_nanos is None or output_nanos is None:
        return None
    cached_nanos = _nanos(price, "cache_read_mtok")
    return ListPrice(
        valid_from, input_nanos, input_nanos if cached_nanos is None else cached_nanos, output_nanos
    )


def _nanos(price: "ModelPrice", name: str) -> int | None:
    value = getattr(price, name, None)
    base = getattr(value, "base", value)
    return None if base is None else int((base * NANOS).to_integral_value(ROUND_HALF_UP))
