"""Amounts of quotas as people read and write them: requests, tokens, or money in the ledger currency."""

from decimal import Decimal

NANOS = 10**9
"""Nano-units in one unit of the ledger currency."""


def units(kind: str, amount: int) -> Decimal:
    """An amount as it is kept, in whole requests or tokens, or in units of the currency."""
    return Decimal(amount) / NANOS if kind == "money" else Decimal(amount)


def worded(kind: str, amount: int, currency: str) -> str:
    """An amount with its unit, such as `12.50 USD`, `1,000 tokens` or `1 request`.

    Money has two decimals, and more only where they say something.
    """
    if kind == "money":
        return f"{_money(units(kind, amount))} {currency}"
    return f"{amount:,} {kind.removesuffix('s') if amount == 1 else kind}"


def _money(value: Decimal) -> str:
    whole, _, rest = f"{value:,.9f}".partition(".")
    return f"{whole}.{rest.rstrip('0').ljust(2, '0')}"
