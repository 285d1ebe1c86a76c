"""What usage costs: whole nano-units, rounded half up once."""

from gateway.relay.catalog import Price
from gateway.relay.records import Usage

PER = 1_000_000
"""Prices are per million tokens."""


def cost_nanos(usage: Usage, price: Price | None) -> int:
    """Cost of one attempt in nano-units of the ledger currency; 0 where there is no price.

    Cached tokens are a part of the input tokens and have a price of their own.
    A provider that reports more cached than input tokens is taken at the smaller word.
    """
    if price is None:
        return 0
    cached = min(usage.cached_tokens, usage.input_tokens)
    total = (
        (usage.input_tokens - cached) * price.input_nanos
        + cached * price.cached_input_nanos
        + usage.output_tokens * price.output_nanos
    )
    return (2 * total + PER) // (2 * PER)
