"""Figures of tables as people read them, rounded; a file or the API has them exact.

Written as the language of the page writes numbers, and as charts do, which ask the browser for the same.
"""

from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from django.utils.formats import get_format
from django.utils.translation import get_language

from accounts.amounts import NANOS

NONE = "\u2013"
"""What is not known is never 0."""
DIGITS = 3
"""That mean something, of an amount below one unit."""
WITHOUT_CENTS: Final = frozenset(("CLP", "ISK", "JPY", "KRW", "PYG", "UGX", "VND", "XAF", "XOF"))
SYMBOLS: Final = {
    "AUD": "A$",
    "BRL": "R$",
    "CAD": "CA$",
    "CNY": "CN¥",
    "EUR": "€",
    "GBP": "£",
    "HKD": "HK$",
    "INR": "₹",
    "JPY": "¥",
    "KRW": "₩",
    "MXN": "MX$",
    "NZD": "NZ$",
    "TWD": "NT$",
    "USD": "$",
    "VND": "₫",
}
"""Of a currency in English; any other is written by its three letters."""
SYMBOLS_OF: Final = {"ja": {"CNY": "元", "JPY": "\uffe5"}}
"""Where another language has its own."""

SHORT_FROM: Final = 1_000_000
UNITS: Final = ((10**12, "\u202fT"), (10**9, "\u202fB"), (10**6, "\u202fM"))
UNITS_OF: Final = {"ja": ((10**12, "兆"), (10**8, "億"), (10**4, "万"))}


def money(nanos: int | None, currency: str) -> str:
    """As many decimals as the currency has; below one unit, as many as three digits need."""
    if nanos is None:
        return NONE
    value = Decimal(nanos) / NANOS
    usual = 0 if currency in WITHOUT_CENTS else 2
    small = value and abs(value) < 1
    places = min(9, max(usual, DIGITS - 1 - value.adjusted())) if small else usual
    rounded = value.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
    return f"{_minus(rounded)}{_symbol(currency)}{_grouped(abs(rounded))}"


def _symbol(currency: str) -> str:
    own = SYMBOLS_OF.get((get_language() or "")[:2], {})
    return own.get(currency) or SYMBOLS.get(currency) or f"{currency}\u00a0"


def gain(nanos: int | None, currency: str) -> str:
    """With its sign, also where it is above nothing."""
    text = money(nanos, currency)
    return f"+{text}" if nanos is not None and nanos > 0 else text


def share(value: float | None) -> str:
    """Of 1, in percent with one decimal."""
    if value is None:
        return NONE
    percent = Decimal(value * 100).quantize(Decimal("0.1"), ROUND_HALF_UP)
    return f"{_signed(percent)}\u202f%"


def count(value: int | None) -> str:
    return NONE if value is None else _signed(Decimal(value))


def short(value: int | None) -> str:
    """Three digits that mean something, and a unit: thousands are written out, as they are read at once."""
    if value is None or abs(value) < SHORT_FROM:
        return count(value)
    units = UNITS_OF.get((get_language() or "")[:2], UNITS)
    size, unit = next(each for each in units if abs(value) >= each[0])
    scaled = Decimal(value) / size
    places = max(0, DIGITS - 1 - scaled.adjusted())
    return f"{_signed(scaled.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP))}{unit}"


def _signed(value: Decimal) -> str:
    return _minus(value) + _grouped(abs(value))


def _minus(value: Decimal) -> str:
    """A true one, which is as wide as the plus."""
    return "\u2212" if value < 0 else ""


def _grouped(value: Decimal) -> str:
    """With the separators of the language."""
    text = f"{value:,f}"
    thousands, decimals = get_format("THOUSAND_SEPARATOR"), get_format("DECIMAL_SEPARATOR")
    if (thousands, decimals) == (",", "."):
        return text
    return text.translate({ord(","): thousands, ord("."): decimals})
