"""What `savings` compares: usage from rollups, prices from our routes and from price books. Reads only."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cache, lru_cache
from itertools import pairwise
from typing import Final

from django.conf import settings
from django.utils.translation import gettext as _

from gateway.exchange import Rates, in_ledger
from gateway.ledger import queries
from gateway.ledger.queries import Scope, Sums
from gateway.ledger.savings import (
    Comparison,
    Offer,
    Shown,
    Used,
    WhatIf,
    as_booked,
    cheapest_of_each,
    compare,
    what_if,
    yearly,
)
from gateway.models import Price as PriceRow
from gateway.price_books import Book, books
from gateway.relay.catalog import Exchange, Price
from gateway.relay.records import Usage
from gateway.snapshot import exchange_rates, prices_of

MOST_ROUTES: Final = 500
MOST_DAYS: Final = 366


def used(team_ids: tuple[int, ...] | None, since: date, until: date, route: str = "") -> list[Used]:
    """Each UTC day and route with usage, `until` outside; `route` empty: all. None: every team's."""
    where: dict[queries.Dimension, tuple[str, ...]] = {"route": (route,)} if route else {}
    edges = [_midnight(since + timedelta(days=number)) for number in range((until - since).days + 1)]
    found = queries.series_by(Scope(team_ids, where), edges, "route", most=MOST_ROUTES)
    days = [begin.date() for begin, _ in pairwise(edges)]
    return [_used(day, name, sums) for name, series in found for day, sums in zip(days, series, strict=True)
            if sums.attempts or sums.cost_nanos]  # fmt: skip


def _used(day: date, route: str, sums: Sums) -> Used:
    usage = Usage(
        sums.input_tokens,
        sums.output_tokens,
        sums.cached_tokens,
        "reported",
        sums.cache_write_tokens,
        sums.reasoning_tokens,
        sums.audio_input_tokens,
        sums.audio_output_tokens,
    )
    return Used(
        *(day, route, usage, sums.attempts, sums.cost_nanos, sums.unpriced),
        billed_attempts=sums.billed_attempts,
    )


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


@dataclass(frozen=True, slots=True)
class OwnTarget:
    """One of our targets, by what it is called in rollups, with its dated prices."""

    upstream_model: str
    offer: Offer


@dataclass(frozen=True)
class Shelf:
    """All that could be bought: our own targets by route, and price books. As it was when it was read."""

    rates: Rates
    currency: str
    """The ledger's."""
    targets: Mapping[str, Sequence[OwnTarget]] = field(default_factory=dict)
    """In the order in which they are tried."""

    def of_route(self, model_name: str) -> Offer | None:
        """The first target of another route that has a price; None: there is none."""
        own = self.targets.get(model_name)
        return Offer(model_name, own[0].offer.prices) if own else None

    def of_book(self, book: Book, route: str, model_name: str = "") -> Offer | None:
        """What a book asks for a route's model, or for another one of its own; None: it does not have it.

        The book may know the route by its name, or by what its targets call it.
        """
        own = [each.upstream_model for each in self.targets.get(route, ())]
        for name in (model_name,) if model_name else dict.fromkeys((route, *own)):
            if found := _asked_for(book.slug, name):
                return Offer(book.name, in_ledger(found, self.rates, self.currency))
        return None

    def all_for(self, route: str, slugs: Collection[str]) -> list[Offer]:
        """The route's own targets, and what each of these books asks for it; without slugs, every book."""
        found = [each.offer for each in self.targets.get(route, ())]
        asked = (self.of_book(book, route) for slug, book in books().items() if not slugs or slug in slugs)
        return [*found, *(each for each in asked if each is not None)]

    def currencies(self) -> list[str]:
        """Into which the ledger's has an exchange rate at some time."""
        return self.rates.currencies(self.currency)

    def shown_in(self, currency: str) -> Shown:
        """What the ledger's currency is in another one, day by day; empty: the ledger's own."""
        if currency in ("", self.currency):
            return as_booked

        @cache
        def exchange(day: date) -> Exchange | None:
            return self.rates.exchange(self.currency, currency, day)

        return exchange


@lru_cache(maxsize=8192)
def _asked_for(slug: str, model_name: str) -> tuple[Price, ...]:
    """What a book asks for a model name: books do not change while a process runs, and look-ups take time."""
    return books()[slug].prices_of(model_name)


def shelf() -> Shelf:
    """Two queries: prices with their targets, exchange rates. A target without a price offers nothing."""
    rates = exchange_rates()
    rows = PriceRow.objects.select_related("target__provider", "target__route").filter(
        target__enabled=True, target__provider__enabled=True, target__route__enabled=True
    )
    known = list(rows.order_by("target__order", "target_id", "valid_from", "id"))
    prices = prices_of(known, rates)
    found: dict[str, list[OwnTarget]] = {}
    for target in {each.target_id: each.target for each in known}.values():
        offer = Offer(str(target), prices[target.pk])
        found.setdefault(target.route.model_name, []).append(OwnTarget(target.upstream_model, offer))
    return Shelf(rates, settings.LEDGER_CURRENCY, found)


# One question, as pages and the API ask it


class Unknown(ValueError):
    """What was asked for is not there; the message is a sentence about `field`."""

    def __init__(self, field: str, sentence: str) -> None:
        self.field = field
        super().__init__(sentence)


@dataclass(frozen=True, slots=True)
class Question:
    """Whose usage of which UTC days, and what to compare it with."""

    team_ids: tuple[int, ...] | None
    """None: every team's."""
    since: date
    until: date
    """Outside."""
    today: date
    """In UTC: what is later does not count as a day of the period."""
    route: str = ""
    """This one's usage; empty: all."""
    other: str = ""
    """`book:` and a price book's slug, or `route:` and a model name; empty: the cheapest for each route."""
    model_name: str = ""
    """Another one of the book, for all of it; empty: each route's own."""
    books: tuple[str, ...] = ()
    """Slugs of price books among which the cheapest is looked for; none: of all. Own targets count too."""
    currency: str = ""
    """Empty: the ledger's."""


@dataclass(frozen=True, slots=True)
class Savings:
    """The answer, in nano-units of the currency asked for."""

    name: str
    """Of the other side."""
    comparison: Comparison
    yearly_nanos: int | None
    """What the difference comes to in a year; None: the period has no whole day."""
    routes: tuple[WhatIf, ...]


def savings(asked: Question, goods: Shelf) -> Savings:
    """Three queries. Raises Unknown."""
    if not 0 < (asked.until - asked.since).days <= MOST_DAYS:
        raise Unknown("until", _("Choose a period of 1 to %(most)s days.") % {"most": MOST_DAYS})
    name, offer_of = _other(asked, goods)
    rows = used(asked.team_ids, asked.since, asked.until, asked.route)
    shown = goods.shown_in(asked.currency)
    routes = what_if(rows, lambda route: goods.all_for(route, asked.books), shown)
    compared = compare(rows, offer_of, shown) if offer_of else cheapest_of_each(routes)
    return Savings(name, compared, _yearly(compared, rows, asked), tuple(routes))


def _other(asked: Question, goods: Shelf) -> tuple[str, Callable[[str], Offer | None] | None]:
    """What the other side is called, and what it offers for a route. Raises Unknown."""
    kind, _colon, name = asked.other.partition(":")
    if not asked.other:
        return _("the cheapest for each route"), None
    if kind == "book" and (book := books().get(name)):
        label = f"{book.name}, {asked.model_name}" if asked.model_name else book.name
        return label, cache(lambda route: goods.of_book(book, route, asked.model_name))
    if kind == "route" and name in goods.targets:
        offer = goods.of_route(name)
        return name, lambda route: offer
    raise Unknown(
        "other",
        _("There is no such price book, or no such route with a price: write book:openai or route:gpt-4o."),
    )


def _yearly(compared: Comparison, rows: Sequence[Used], asked: Question) -> int | None:
    until = min(asked.until, asked.today + timedelta(days=1))
    first_used = min((each.day for each in rows), default=None)
    return yearly(compared.difference_nanos, asked.since, until, first_used)
