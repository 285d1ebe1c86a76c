"""What usage costs: whole nano-units of the ledger currency, rounded half up once.

Pure. A price is applied whole: the rates of the prompt's size, a fee for the request,
and the exchange rate of the call's day, in one fraction of whole numbers.
"""

from dataclasses import astuple
from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from gateway.relay.catalog import Price, Rates
from gateway.relay.records import Usage

PER = 1_000_000
"""Prices are per million tokens."""

Kind = Literal[
    "cached_input", "cache_write", "audio_input", "input", "reasoning", "audio_output", "output", "request"
]


class Line(NamedTuple):
    """One line of a bill."""

    kind: Kind
    quantity: int
    """Tokens, or requests."""
    rate_nanos: int
    """In the price's currency: for a million tokens, or for one request."""


class Applied(Struct, frozen=True, array_like=True):
    """A price as it was applied to one attempt: all that its cost came about by, kept beside the cost."""

    price_id: int
    currency: str
    rates: tuple[int, int, int, int | None, int | None, int | None, int | None, int]
    """The fields of `catalog.Rates`, in their order."""
    request_nanos: int = 0
    numerator: int = 1
    denominator: int = 1


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Applied).decode


def cost_nanos(usage: Usage, price: Price | None) -> int:
    """Cost of one attempt in nano-units of the ledger currency; 0 where there is no price."""
    return 0 if price is None else cost_at(usage, price.rates_for(usage.input_tokens), price)


def cost_at(usage: Usage, rates: Rates, price: Price) -> int:
    """The same with rates that are chosen already."""
    exchange = price.exchange
    return _rounded(_total(usage, rates, price.request_nanos), exchange.numerator, exchange.denominator)


def lines(usage: Usage, rates: Rates, request_nanos: int = 0) -> list[Line]:
    """What is billed, kind by kind; kinds with nothing to bill are left out.

    A provider that reports parts that are larger than the whole is taken at the smaller word,
    in the order in which the kinds are named here.
    """
    return [Line(*each) for each in _lines(usage, rates, request_nanos)]


def _lines(usage: Usage, rates: Rates, request_nanos: int) -> list[tuple[Kind, int, int]]:
    """The same as bare tuples: every call is priced several times, and only a bill needs names."""
    found: list[tuple[Kind, int, int]] = []
    left = usage.input_tokens
    left -= _part(found, "cached_input", usage.cached_tokens, left, rates.cached_input_nanos)
    left -= _part(found, "cache_write", usage.cache_write_tokens, left, rates.cache_write_nanos)
    left -= _part(found, "audio_input", usage.audio_input_tokens, left, rates.audio_input_nanos)
    if left:
        found.append(("input", left, rates.input_nanos))
    left = usage.output_tokens
    left -= _part(found, "reasoning", usage.reasoning_tokens, left, rates.reasoning_nanos)
    left -= _part(found, "audio_output", usage.audio_output_tokens, left, rates.audio_output_nanos)
    if left:
        found.append(("output", left, rates.output_nanos))
    if request_nanos and usage.basis != "none":
        found.append(("request", 1, request_nanos))
    return found


def _part(
    found: list[tuple[Kind, int, int]], kind: Kind, tokens: int, left: int, rate_nanos: int | None
) -> int:
    """Bill so many of what is left; returns how many. Without a rate of their own they are not told apart."""
    if rate_nanos is None or not tokens or not left:
        return 0
    part = min(tokens, left)
    found.append((kind, part, rate_nanos))
    return part


def applied(usage: Usage, price: Price) -> Applied:
    """How the price applies to this usage."""
    return _applied(price, price.rates_for(usage.input_tokens))


def cost_of(usage: Usage, how: Applied) -> int:
    """The cost again, from what was kept: what `cost_nanos` said with the price itself."""
    total = _total(usage, Rates(*how.rates), how.request_nanos)
    return _rounded(total, how.numerator, how.denominator)


def told(usage: Usage, price: Price | None) -> str:
    """`applied` as JSON text, for the books; empty where there is no price."""
    return "" if price is None else told_at(price.rates_for(usage.input_tokens), price)


def read(text: str) -> Applied | None:
    """What `told` wrote. Raises msgspec.DecodeError."""
    return _decode(text) if text else None


def _applied(price: Price, rates: Rates) -> Applied:
    exchange = price.exchange
    return Applied(
        price.id,
        price.currency,
        astuple(rates),
        price.request_nanos,
        exchange.numerator,
        exchange.denominator,
    )


@lru_cache(maxsize=4096)
def told_at(rates: Rates, price: Price) -> str:
    """The same with rates that are chosen already, as `cost_at`."""
    return _encode(_applied(price, rates)).decode()


def _total(usage: Usage, rates: Rates, request_nanos: int) -> int:
    """Nano-units of the price's currency, times a million."""
    if not _has_parts(usage):
        request = request_nanos * PER if request_nanos and usage.basis != "none" else 0
        return usage.input_tokens * rates.input_nanos + usage.output_tokens * rates.output_nanos + request
    total = 0
    for kind, quantity, rate_nanos in _lines(usage, rates, request_nanos):
        total += quantity * rate_nanos * (PER if kind == "request" else 1)
    return total


def _has_parts(usage: Usage) -> bool:
    """Some of its tokens may have a rate of their own."""
    return bool(
        usage.cached_tokens
        or usage.cache_write_tokens
        or usage.reasoning_tokens
        or usage.audio_input_tokens
        or usage.audio_output_tokens
    )


def _rounded(total: int, numerator: int, denominator: int) -> int:
    """In the ledger's currency, rounded half up."""
    whole = PER * denominator
    return (2 * total * numerator + whole) // (2 * whole)
