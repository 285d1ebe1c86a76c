"""The management API of prices and exchange rates as files, of exchange rates, and of price books.

A target's prices, one by one, are beside the target in `gateway.api`.
"""

from collections.abc import Callable, Iterator
from datetime import date, datetime
from typing import Annotated, Any

from django.http import HttpRequest, StreamingHttpResponse
from ninja import Query, Router, Schema
from ninja.responses import Status
from pydantic import Field, StringConstraints

from accounts.api.auth import door
from accounts.api.exports import as_file, spreadsheet
from accounts.api.found import picked
from accounts.api.shapes import Line, Page, Window, page, shown, taken
from gateway import price_files, services
from gateway.api import TierOut, require_operator
from gateway.exchange import EPOCH, MICROSECOND
from gateway.models import ExchangeRate
from gateway.price_books import Book, books
from gateway.price_files import Findings
from gateway.price_inputs import KINDS, MAX_RATE_NANOS, MIN_RATE_NANOS, clean_day
from gateway.relay.catalog import Price

Shown = dict[str, Any]
Currency = Annotated[str, StringConstraints(pattern="^[A-Z]{3}$")]
PART_BYTES = 64 * 1024

prices = Router(tags=["prices"], auth=door("operate"))

_RATE: Shown = {
    "base": "USD",
    "quote": "JPY",
    "valid_from": "2030-01-01",
    "rate_nanos": 150_250_000_000,
}
_BOOK_PRICE: Shown = {
    "valid_from": "2020-01-01T00:00:00Z",
    "input_nanos": 2_000_000_000,
    "cached_input_nanos": 2_000_000_000,
    "output_nanos": 8_000_000_000,
    "cache_write_nanos": None,
    "reasoning_nanos": None,
    "audio_input_nanos": None,
    "audio_output_nanos": None,
    "request_nanos": 0,
    "tiers": [],
}


class ExchangeRateOut(Schema):
    model_config = shown(id=3, **_RATE, source="operator", created_at="2030-01-01T00:00:00Z")

    id: int
    base: str
    quote: str
    valid_from: date
    """A day in UTC."""
    rate_nanos: int
    """Nano-units of the quote for one unit of the base."""
    source: str
    created_at: datetime


class NewExchangeRate(Schema):
    model_config = taken(**_RATE)

    base: Currency
    quote: Currency
    valid_from: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    """A day in UTC."""
    rate_nanos: int = Field(ge=MIN_RATE_NANOS, le=MAX_RATE_NANOS)
    """Nano-units of the quote for one unit of the base."""


class Added(Schema):
    """What became of a file."""

    model_config = shown(added=12, known=240)

    added: int
    known: int
    """What was on the books already, just so."""


class BookPriceOut(Schema):
    """A price in a book, from a moment on; the last one may not have begun yet."""

    model_config = shown(**_BOOK_PRICE)

    valid_from: datetime
    input_nanos: int
    cached_input_nanos: int
    output_nanos: int
    cache_write_nanos: int | None
    reasoning_nanos: int | None
    audio_input_nanos: int | None
    audio_output_nanos: int | None
    request_nanos: int
    tiers: list[TierOut]


class BookOut(Schema):
    model_config = shown(slug="holysheep", name="HolySheep", currency="JPY", prices=[_BOOK_PRICE])

    slug: str
    name: str
    currency: str
    prices: list[BookPriceOut]
    """Of the model name that was asked for, the oldest first; empty where the vendor does not have it."""


class BookQuestion(Schema):
    model_name: Line = Field("", max_length=200, description="As the vendor calls it; empty: without prices.")


FILE: Shown = {
    "requestBody": {
        "required": True,
        "content": {"text/csv": {"schema": {"type": "string"}, "example": "base,quote,valid_from,rate\r\n"}},
    }
}
"""An operation's `openapi_extra`: it takes a file, which is read as it comes and not by the schema."""


@prices.get("/prices.csv", openapi_extra=spreadsheet())
def export_prices(request: HttpRequest) -> StreamingHttpResponse:
    """Every price of every target as a file for a spreadsheet, in UTF-8 with a line of headings.

    What was replaced from the same moment on is left out. The file can be changed and sent back.
    """
    require_operator(request, "view_price")
    return as_file(request, price_files.prices_file(), "penstock-prices.csv")


@prices.post("/prices.csv", response=Added, openapi_extra=FILE)
def import_prices(request: HttpRequest) -> Shown:
    """Add the prices of a file, all of them or none. What is there already is left alone.

    The columns are those of the export; `route`, `provider`, `upstream_model`, `valid_from`, `input` and
    `output` are needed. Amounts are plain decimals of the price's currency for a million tokens.
    """
    require_operator(request, "add_price")
    return _added(price_files.add_prices, request)


@prices.get("/exchange-rates.csv", openapi_extra=spreadsheet())
def export_exchange_rates(request: HttpRequest) -> StreamingHttpResponse:
    """Every exchange rate as a file for a spreadsheet. What was replaced on the same day is left out."""
    require_operator(request, "view_exchangerate")
    return as_file(request, price_files.rates_file(), "penstock-exchange-rates.csv")


@prices.post("/exchange-rates.csv", response=Added, openapi_extra=FILE)
def import_exchange_rates(request: HttpRequest) -> Shown:
    """Add the exchange rates of a file, all of them or none. What is there already is left alone.

    The columns are `base`, `quote`, `valid_from`, `rate` and, if you like, `source`.
    """
    require_operator(request, "add_exchangerate")
    return _added(price_files.add_rates, request)


@prices.get("/exchange-rates", response=Page[ExchangeRateOut])
def list_exchange_rates(request: HttpRequest, window: Query[Window]) -> Shown:
    """Exchange rates, the last entered first.

    On a day the latest that has begun holds, in both directions; of two from the same day, the higher id.
    """
    require_operator(request, "view_exchangerate")
    found, after = page(ExchangeRate.objects.all(), window)
    return {"items": [picked(each, ExchangeRateOut.model_fields) for each in found], "next": after}


@prices.post("/exchange-rates", response={201: ExchangeRateOut})
def add_exchange_rate(request: HttpRequest, new: NewExchangeRate) -> Status[Shown]:
    """Add an exchange rate from a day on. One that was is not changed: calls were booked by it.

    A wrong one is put right by another of the same day, which takes its place.
    Calls since then are priced again, with the old figure kept beside the new one.
    """
    require_operator(request, "add_exchangerate")
    made = services.add_exchange_rate(new.base, new.quote, clean_day(new.valid_from), new.rate_nanos)
    return Status(201, picked(made, ExchangeRateOut.model_fields))


@prices.get("/price-books", response=list[BookOut])
def list_price_books(request: HttpRequest, asked: Query[BookQuestion]) -> list[Shown]:
    """What vendors ask for a model name, each in the currency of its book, to compare bills by."""
    require_operator(request, "view_price")
    return [_book(each, asked.model_name) for each in books().values()]


def _book(book: Book, model_name: str) -> Shown:
    found = book.prices_of(model_name) if model_name else ()
    return {**picked(book, ("slug", "name", "currency")), "prices": list(map(_book_price, found))}


def _book_price(price: Price) -> Shown:
    return {
        **picked(price.rates, KINDS),
        "valid_from": EPOCH + price.valid_from_us * MICROSECOND,
        "request_nanos": price.request_nanos,
        "tiers": [picked(each, TierOut.model_fields) for each in price.tiers],
    }


def _added(add: Callable[[Iterator[bytes]], Findings[Any]], request: HttpRequest) -> Shown:
    """Raises FileRefused."""
    found = add(_parts(request))
    return {"added": len(found.fresh), "known": found.known}


def _parts(request: HttpRequest) -> Iterator[bytes]:
    """The body as it comes."""
    while part := request.read(PART_BYTES):
        yield part
