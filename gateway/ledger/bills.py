"""How a cost came about: one line for each kind of tokens, and the sum as it was rounded.

Pure, and made from what is kept beside the cost alone. Amounts in the price's currency are exact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.utils.translation import gettext_lazy

from gateway.relay import pricing
from gateway.relay.catalog import Rates
from gateway.relay.pricing import PER, Applied, Kind
from gateway.relay.records import Usage

UNITS = Decimal(10) ** 9
"""Nano-units in one unit of a currency."""
KINDS = {
    "input": gettext_lazy("input"),
    "cached_input": gettext_lazy("cached input"),
    "cache_write": gettext_lazy("cache write"),
    "audio_input": gettext_lazy("audio input"),
    "output": gettext_lazy("output"),
    "reasoning": gettext_lazy("reasoning"),
    "audio_output": gettext_lazy("audio output"),
}
"""What kinds of tokens are called, before the word “tokens”."""


@dataclass(frozen=True, slots=True)
class BillLine:
    """So much of one kind, at its rate."""

    kind: Kind
    quantity: int
    """Tokens, or requests."""
    per: int
    """Of how many the rate is the price: a million tokens, or one request."""
    rate_nanos: int
    amount: str
    """In units of the price's currency, exact."""


@dataclass(frozen=True, slots=True)
class Bill:
    """One attempt's cost. Money is in the price's currency up to `total`, then in the ledger's."""

    price_id: int
    price_source: str | None
    """Who said so; null: the row of the price is gone. What it said is kept here."""
    price_valid_from: datetime | None
    currency: str
    above_tokens: int
    """The rates are those for prompts above so many tokens; 0: those for all others."""
    lines: list[BillLine]
    total: str
    """The sum of the lines, exact."""
    exchange_numerator: int
    """One nano-unit of the price's currency is numerator / denominator of the ledger's."""
    exchange_denominator: int
    cost_nanos: int
    """The total in the ledger's currency, rounded half up once."""
    adds_up: bool
    """It is what the books say."""


@dataclass(frozen=True, slots=True)
class PriceRow:
    """What a bill tells of the row of its price."""

    source: str
    valid_from: datetime


def bill(
    usage: Usage, text: str, cost_nanos: int, currency: str, prices: Mapping[int, PriceRow]
) -> Bill | None:
    """The bill of an attempt that costs so much; None where the price was not kept with it.

    `text` is `Attempt.price`; `currency` is the ledger's.
    """
    how = pricing.read(text)
    if how is None:
        return None
    row = prices.get(how.price_id)
    found = lines(usage, how)
    again = pricing.cost_of(usage, how)
    return Bill(
        price_id=how.price_id,
        price_source=row.source if row else None,
        price_valid_from=row.valid_from if row else None,
        currency=how.currency or currency,
        above_tokens=how.rates[-1],
        lines=found,
        total=_plain(sum((Decimal(each.amount) for each in found), Decimal(0))),
        exchange_numerator=how.numerator,
        exchange_denominator=how.denominator,
        cost_nanos=again,
        adds_up=again == cost_nanos,
    )


def lines(usage: Usage, how: Applied) -> list[BillLine]:
    """What is billed, kind by kind."""
    found = []
    for kind, quantity, rate_nanos in pricing.lines(usage, Rates(*how.rates), how.request_nanos):
        per = 1 if kind == "request" else PER
        amount = _plain(Decimal(quantity * rate_nanos) / (UNITS * per))
        found.append(BillLine(kind, quantity, per, rate_nanos, amount))
    return found


def dearest(bills: Sequence[Bill]) -> tuple[BillLine, Bill, float] | None:
    """The line that most of a call's cost comes from, its bill, and its share; None where nothing costs.

    Shares are close, not exact: they are for words.
    """
    total = sum(each.cost_nanos for each in bills)
    if not total:
        return None
    shares = [(line, of, _in_ledger(line, of) / total) for of in bills for line in of.lines]
    return max(shares, key=lambda each: each[2])


def _in_ledger(line: BillLine, of: Bill) -> float:
    """Nano-units, nearly."""
    return float(Decimal(line.amount) * UNITS) * of.exchange_numerator / of.exchange_denominator


def _plain(amount: Decimal) -> str:
    """Without an exponent; two decimals, and more only where they say something."""
    whole, _, rest = f"{amount:.15f}".partition(".")
    return f"{whole}.{rest.rstrip('0').ljust(2, '0')}"
