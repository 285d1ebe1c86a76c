"""One currency in another, by dated rates: fractions of whole numbers, so that nothing is lost.

Pure. A rate is entered in one direction and read in both.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from math import gcd
from typing import NamedTuple

from gateway.relay.catalog import PAR, Exchange, Price

NANOS = 10**9
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Quoted(NamedTuple):
    """From a day on, one unit of `base` is `rate_nanos` nano-units of `quote`."""

    base: str
    quote: str
    valid_from: date
    rate_nanos: int


class Rates:
    """All that is known, in the order in which it was entered: of two rates of a day the later one wins."""

    def __init__(self, quoted: Iterable[Quoted] = ()) -> None:
        self._by_pair: dict[frozenset[str], list[Quoted]] = {}
        for each in quoted:
            self._by_pair.setdefault(frozenset((each.base, each.quote)), []).append(each)
        for found in self._by_pair.values():
            found.sort(key=lambda each: each.valid_from)  # stable: the later entered stays behind

    def __repr__(self) -> str:
        return f"<Rates of {len(self._by_pair)} pairs of currencies>"

    def exchange(self, base: str, quote: str, day: date) -> Exchange | None:
        """What one unit of `base` is in `quote` on a day in UTC; None where no rate holds."""
        if base == quote:
            return PAR
        quoted = self._of(base, quote)
        begun = bisect_right(quoted, day, key=lambda each: each.valid_from)
        return _fraction(quoted[begun - 1], base) if begun else None

    def days(self, one: str, other: str) -> Sequence[date]:
        """From which days on a rate between two currencies holds, the oldest first, each once."""
        return sorted({each.valid_from for each in self._of(one, other)})

    def currencies(self, other: str) -> list[str]:
        """Those that have a rate with another one, by name."""
        return sorted(each for pair in self._by_pair if other in pair for each in pair - {other})

    def _of(self, one: str, other: str) -> Sequence[Quoted]:
        return self._by_pair.get(frozenset((one, other)), ())


def _fraction(quoted: Quoted, base: str) -> Exchange:
    numerator, denominator = quoted.rate_nanos, NANOS
    if quoted.base != base:
        numerator, denominator = denominator, numerator
    common = gcd(numerator, denominator)
    return Exchange(numerator // common, denominator // common)


def converted(nanos: int, exchange: Exchange) -> int:
    """An amount in another currency, rounded half up; a negative one like its opposite."""
    if nanos < 0:
        return -converted(-nanos, exchange)
    return (2 * nanos * exchange.numerator + exchange.denominator) // (2 * exchange.denominator)


def in_ledger(prices: Sequence[Price], rates: Rates, currency: str) -> tuple[Price, ...]:
    """Prices of one target, with the exchange rates of their days into the ledger's currency.

    `prices` are in the order of `valid_from_us`, and where that is the same in the order of their entry.
    A price in another currency becomes one for each span between two rates;
    while no rate is known it is not usable, and its calls have no price.
    """
    found: list[Price] = []
    for place, price in enumerate(prices):
        until_us = prices[place + 1].valid_from_us if place + 1 < len(prices) else None
        if until_us == price.valid_from_us:
            continue
        spans = _spans(price, rates, currency)
        found.extend(each for each in spans if until_us is None or each.valid_from_us < until_us)
    return tuple(found)


def _spans(price: Price, rates: Rates, currency: str) -> Iterable[Price]:
    if price.currency in ("", currency):
        yield price
        return
    days = [day for day in rates.days(price.currency, currency) if midnight_us(day) > price.valid_from_us]
    first = (EPOCH + price.valid_from_us * MICROSECOND).date()
    for valid_from_us, day in ((price.valid_from_us, first), *((midnight_us(day), day) for day in days)):
        exchange = rates.exchange(price.currency, currency, day)
        yield replace(
            price, valid_from_us=valid_from_us, exchange=exchange or PAR, usable=exchange is not None
        )


def midnight_us(day: date) -> int:
    """When a day begins in UTC, in microseconds since the Unix epoch."""
    return int(datetime.combine(day, time(), UTC).timestamp()) * 1_000_000
