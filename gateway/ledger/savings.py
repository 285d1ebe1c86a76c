"""What real usage would have cost elsewhere. Pure: sums and prices in, figures out.

Usage comes as sums of a UTC day and route, and is priced once each: at the price that held at the end of
that day, with that day's exchange rate, at the rates of the smallest prompts, because a sum of calls has
no prompt size. A fee for the request counts once for each attempt that one is taken for on the books.
What cannot be priced is left out of both sides and told, never taken as nothing.
Reading the sums and the prices is left to `comparing`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Literal, NamedTuple

import msgspec

from gateway.exchange import converted, midnight_us
from gateway.relay.catalog import PAR, Exchange, Price
from gateway.relay.pricing import cost_at
from gateway.relay.records import Usage, total_of

DAYS_A_YEAR = 365
MONTHS_A_YEAR = 12

Why = Literal["unpriced", "no_offer", "no_price", "no_rate", "not_shown"]
"""The calls themselves had no price; the other side does not have such a model name, had no price yet,
or no exchange rate on that day; there is no exchange rate into the currency that is shown."""


class Used(NamedTuple):
    """What one route used on one UTC day, over all attempts."""

    day: date
    route: str
    usage: Usage
    attempts: int
    cost_nanos: int
    """In the ledger's currency, corrections included."""
    unpriced: int = 0
    """Calls without a price."""
    billed_attempts: int = 0
    """That a fee for the request is taken for."""


class Offer(NamedTuple):
    """Somewhere else to buy the same: dated prices in the ledger's currency, the oldest first."""

    name: str
    prices: tuple[Price, ...]

    def on(self, day: date) -> Price | None:
        """The price that held when a UTC day ended; it may be one without an exchange rate."""
        end_us = midnight_us(day + timedelta(days=1))
        held = [price for price in self.prices if price.valid_from_us < end_us]
        return held[-1] if held else None


class LeftOut(NamedTuple):
    """What is on neither side, because one of them is not known."""

    why: Why
    route: str
    days: tuple[date, ...]
    cost_nanos: int
    """What it did cost, in the ledger's currency."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The same usage on both sides, in nano-units of the currency that is shown."""

    actual_nanos: int = 0
    other_nanos: int = 0
    left_out: tuple[LeftOut, ...] = ()

    @property
    def difference_nanos(self) -> int:
        """What was saved against the other side; below 0: what it would have saved."""
        return self.other_nanos - self.actual_nanos

    @property
    def share_saved(self) -> float | None:
        """The difference as a share of the dearer side, from -1 to 1; None where both are nothing."""
        dearer = max(self.actual_nanos, self.other_nanos)
        return self.difference_nanos / dearer if dearer > 0 else None

    @property
    def is_whole(self) -> bool:
        """The other side could price all that has a price."""
        return all(each.why == "unpriced" for each in self.left_out)


Shown = Callable[[date], Exchange | None]
"""What one nano-unit of the ledger's currency is in the one that is shown, on a UTC day; None: not known."""


def as_booked(day: date) -> Exchange:
    """For the ledger's own currency."""
    return PAR


def compare(
    used: Iterable[Used], offer_of: Callable[[str], Offer | None], shown: Shown = as_booked
) -> Comparison:
    """Usage against what it would have cost. `offer_of` knows what would have been bought for a route.

    One rounding for each day and route on each side, and one more where another currency is shown.
    """
    actual_nanos = other_nanos = 0
    left: dict[tuple[Why, str], list[Used]] = {}
    for each in used:
        found = _both(each, offer_of(each.route), shown(each.day))
        if isinstance(found, str):
            left.setdefault((found, each.route), []).append(each)
        else:
            actual_nanos += found[0]
            other_nanos += found[1]
    return Comparison(actual_nanos, other_nanos, tuple(_left(*key, rows) for key, rows in left.items()))


def _both(each: Used, offer: Offer | None, exchange: Exchange | None) -> tuple[int, int] | Why:
    """What it cost and would have cost, or why that is not known."""
    if each.unpriced:
        return "unpriced"
    if offer is None:
        return "no_offer"
    price = offer.on(each.day)
    if price is None:
        return "no_price"
    if not price.usable:
        return "no_rate"
    if exchange is None:
        return "not_shown"
    return converted(each.cost_nanos, exchange), converted(priced(each, price), exchange)


def priced(each: Used, price: Price) -> int:
    """What the day's usage costs at this price, in the ledger's currency."""
    usage = msgspec.structs.replace(each.usage, basis="reported")
    fees = replace(price, request_nanos=price.request_nanos * each.billed_attempts)
    return cost_at(usage, price.rates, fees)


def _left(why: Why, route: str, rows: Sequence[Used]) -> LeftOut:
    days = tuple(sorted({each.day for each in rows}))
    return LeftOut(why, route, days, sum(each.cost_nanos for each in rows))


@dataclass(frozen=True, slots=True)
class WhatIf:
    """One route's usage against every offer for it."""

    route: str
    usage: Usage
    attempts: int
    actual_nanos: int
    """Of all its usage, in the ledger's currency."""
    offers: tuple[tuple[str, Comparison], ...]
    """The cheapest first, those that could not price everything last."""
    days: tuple[date, ...] = ()
    """With usage."""

    @property
    def cheapest(self) -> tuple[str, Comparison] | None:
        """Of those that could price everything; None: there is none, or nothing to compare."""
        whole = [each for each in self.offers if each[1].is_whole and each[1].share_saved is not None]
        return whole[0] if whole else None

    def as_left_out(self) -> LeftOut:
        """All of it, for where no offer is the cheapest: with the first reason that any has."""
        reasons = [left.why for _, compared in self.offers for left in compared.left_out]
        return LeftOut(reasons[0] if reasons else "no_offer", self.route, self.days, self.actual_nanos)


def what_if(
    used: Sequence[Used], offers_of: Callable[[str], Iterable[Offer]], shown: Shown = as_booked
) -> list[WhatIf]:
    """Every route against all that could be bought for it; the dearest route first."""
    by_route: dict[str, list[Used]] = {}
    for each in used:
        by_route.setdefault(each.route, []).append(each)
    found = [_what_if(route, rows, offers_of(route), shown) for route, rows in by_route.items()]
    return sorted(found, key=lambda each: (-each.actual_nanos, each.route))


def _what_if(route: str, rows: Sequence[Used], offers: Iterable[Offer], shown: Shown) -> WhatIf:
    compared = [(offer.name, compare(rows, {route: offer}.get, shown)) for offer in offers]
    compared.sort(key=lambda each: (not each[1].is_whole, each[1].other_nanos, each[0]))
    usage = total_of([each.usage for each in rows], "reported")
    attempts, actual_nanos = sum(each.attempts for each in rows), sum(each.cost_nanos for each in rows)
    days = tuple(sorted({each.day for each in rows}))
    return WhatIf(route, usage, attempts, actual_nanos, tuple(compared), days)


def cheapest_of_each(routes: Sequence[WhatIf]) -> Comparison:
    """If each route had been bought where it is cheapest; what is cheapest nowhere is left out and told."""
    chosen = [each.cheapest[1] for each in routes if each.cheapest]
    rest = tuple(each.as_left_out() for each in routes if not each.cheapest)
    return Comparison(
        sum(each.actual_nanos for each in chosen),
        sum(each.other_nanos for each in chosen),
        sum((each.left_out for each in chosen), rest),
    )


def yearly(nanos: int, since: date, until: date, first_used: date | None = None) -> int | None:
    """What a period's amount comes to in a year, rounded half up; None for no whole day.

    `since` to `until`, which is outside. Whole calendar months count as twelfths of a year, because
    bills come by the month; any other span by its days, from the first on which anything was used.
    """
    months = _whole_months(since, until)
    if months:
        return _times(nanos, MONTHS_A_YEAR, months)
    days = (until - max(since, first_used or since)).days
    return _times(nanos, DAYS_A_YEAR, days) if days > 0 else None


def _whole_months(since: date, until: date) -> int:
    """How many calendar months a span is; 0: it is not of whole ones."""
    if since.day != 1 or until.day != 1:
        return 0
    return max(0, (until.year - since.year) * MONTHS_A_YEAR + until.month - since.month)


def _times(nanos: int, factor: int, divisor: int) -> int:
    return converted(nanos, Exchange(factor, divisor))
