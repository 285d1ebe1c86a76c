"""Amounts of limits and quotas as people read and write them.

Requests and tokens are whole, money is in the ledger currency. No Django, so that the relay can import it.
"""

from decimal import Decimal

NANOS = 10**9
"""Nano-units in one unit of the ledger currency."""


def units(kind: str, amount: int) -> Decimal:
    """An amount as it is kept, in whole requests or tokens, or in units of the currency."""
    return Decimal(amount) / NANOS if kind == "money" else Decimal(amount)


def worded(kind: str, amount: int, currency: str) -> str:
    """An amount with its unit, such as `12.50 USD`, `1,000 tokens` or `1 request`."""
    if kind == "money":
        return f"{figure(kind, amount)} {currency}"
    return counted(amount, kind.removesuffix("s"))


def figure(kind: str, amount: int) -> str:
    """An amount without its unit. Money is exact: two decimals, and more only where they say something."""
    if kind != "money":
        return f"{amount:,}"
    whole, _, rest = f"{units(kind, amount):,.9f}".partition(".")
    return f"{whole}.{rest.rstrip('0').ljust(2, '0')}"


def counted(number: int, noun: str) -> str:
    """So many of a thing: `1 request`, `1,000 requests`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
