"""Prices and exchange rates from CSV onto the books, all or none, and from the books to CSV.

A file is first only looked at: what it would add, what is there already, and what is wrong with which line.
How a line is written is left to `gateway.price_csv`, what may be on the books to `gateway.services`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Generic, TypeVar

from django.conf import settings
from django.utils.translation import gettext as _

from gateway import price_csv, services, snapshot
from gateway.exchange import Quoted
from gateway.inputs import Unusable
from gateway.models import ExchangeRate, Price, Target
from gateway.price_csv import PRICE_COLUMNS, RATE_COLUMNS, PriceLine, RateLine, Unreadable, Wrong
from gateway.relay import catalog

T = TypeVar("T")
WRITTEN_AT_ONCE = 200
"""Rows between two looks at the database."""


@dataclass(slots=True)
class Findings(Generic[T]):
    """What a file holds."""

    fresh: list[T] = field(default_factory=list)
    """Rows that are not saved yet."""
    known: int = 0
    """How many are on the books already, as they are here."""
    wrong: list[str] = field(default_factory=list)
    """Sentences, each with the number of its line; of very many the first."""


class FileRefused(Exception):
    """Nothing was added, because some of the file is wrong; `wrong` says what, line by line."""

    def __init__(self, wrong: list[str]) -> None:
        super().__init__(
            _("Nothing was added: %(count)s of the lines cannot be used.") % {"count": len(wrong)}
        )
        self.wrong = wrong


def look_at_prices(parts: Iterable[bytes]) -> Findings[Price]:
    """Reads a file of prices. Four queries, however long it is."""
    return _looked_at(parts, price_csv.read_prices, _prices)


def look_at_rates(parts: Iterable[bytes]) -> Findings[ExchangeRate]:
    """Reads a file of exchange rates. Two queries, however long it is."""
    return _looked_at(parts, price_csv.read_rates, _rates)


def add_prices(parts: Iterable[bytes]) -> Findings[Price]:
    """Put what is new in a file on the books, in one transaction, which begins when all of it was read.

    Raises FileRefused, with nothing written.
    """
    found = _right(look_at_prices(parts))
    services.enter_prices(found.fresh)
    return found


def add_rates(parts: Iterable[bytes]) -> Findings[ExchangeRate]:
    """The same for exchange rates. Raises FileRefused, with nothing written."""
    found = _right(look_at_rates(parts))
    services.enter_exchange_rates(found.fresh)
    return found


def _right(found: Findings[T]) -> Findings[T]:
    if found.wrong:
        raise FileRefused(found.wrong)
    return found


Line = TypeVar("Line", PriceLine, RateLine)


def _looked_at(
    parts: Iterable[bytes],
    read: Callable[[Iterable[str]], Iterator[Line | Wrong]],
    sort: Callable[[list[Line], list[Wrong]], Findings[T]],
) -> Findings[T]:
    try:
        lines, wrong = price_csv.apart(read(price_csv.decoded(parts)))
    except Unreadable as why:
        return Findings(wrong=[str(why)])
    found = sort(lines, wrong)
    found.wrong = [str(each) for each in sorted(wrong)[: price_csv.MOST_WRONG]]
    return found


def _prices(lines: list[PriceLine], wrong: list[Wrong]) -> Findings[Price]:
    """What is new. To `wrong` is added what cannot be on the books."""
    found: Findings[Price] = Findings()
    targets = {_name(each): each for each in Target.objects.select_related("route", "provider")}
    held = _held()
    rates = snapshot.exchange_rates()
    for line in lines:
        target = targets.get((line.route, line.provider, line.upstream_model))
        if target is None:
            wrong.append(Wrong(line.line_no, _no_target(line)))
        elif held.get((target.pk, line.price.valid_from_us)) == _plain(line.price):
            found.known += 1
        else:
            row = services.price_row(target, line.price, line.source)
            _check(partial(services.check_new_price, row, rates), line, wrong)
            found.fresh.append(row)
    return found


def _check(check: Callable[[], None], line: PriceLine | RateLine, wrong: list[Wrong]) -> None:
    try:
        check()
    except Unusable as why:
        wrong.append(Wrong(line.line_no, str(why)))


def _name(target: Target) -> tuple[str, str, str]:
    return target.route.model_name, target.provider.slug, target.upstream_model


def _no_target(line: PriceLine) -> str:
    return _("The route %(route)s has no target %(provider)s/%(upstream_model)s.") % {
        "route": line.route,
        "provider": line.provider,
        "upstream_model": line.upstream_model,
    }


def _held() -> dict[tuple[int, int], catalog.Price]:
    """The prices that hold from their moment on, by target and moment: the later entered of two."""
    seen = ((row.target_id, snapshot.price_of(row)) for row in Price.objects.order_by("id"))
    return {(target_id, price.valid_from_us): _plain(price) for target_id, price in seen}


def _plain(price: catalog.Price) -> catalog.Price:
    """As it can be compared: the ledger's currency may be named or not."""
    return replace(price, id=0, currency=price.currency or settings.LEDGER_CURRENCY)


def _rates(lines: list[RateLine], wrong: list[Wrong]) -> Findings[ExchangeRate]:
    found: Findings[ExchangeRate] = Findings()
    held = {each.name: each.quoted for each in map(_rate_line, ExchangeRate.objects.order_by("id"))}
    rows = [_rate_row(line) for line in lines]
    priced = services.priced_in(rows)
    for line, row in zip(lines, rows, strict=True):
        if held.get(line.name) == line.quoted:
            found.known += 1
        else:
            _check(partial(services.check_new_rate, row, priced), line, wrong)
            found.fresh.append(row)
    return found


def _rate_row(line: RateLine) -> ExchangeRate:
    base, quote, day, rate_nanos = line.quoted
    return ExchangeRate(base=base, quote=quote, valid_from=day, rate_nanos=rate_nanos, source=line.source)


# To files


def prices_file() -> Iterator[str]:
    """Every price that holds from its moment on, part by part, by target; the replaced ones are left out."""
    yield price_csv.written(PRICE_COLUMNS)
    for target in Target.objects.select_related("route", "provider").order_by("route__model_name", "id"):
        rows = {row.valid_from: row for row in Price.objects.filter(target=target).order_by("id")}
        lines = (_line(target, rows[moment]) for moment in sorted(rows))
        if text := "".join(price_csv.written(*price_csv.price_rows(each)) for each in lines):
            yield text


def _line(target: Target, row: Price) -> PriceLine:
    return PriceLine(0, *_name(target), price=snapshot.price_of(row), source=row.source)


def rates_file() -> Iterator[str]:
    """Every exchange rate that holds from its day on, part by part; the replaced ones are left out."""
    yield price_csv.written(RATE_COLUMNS)
    held = {line.name: line for line in map(_rate_line, ExchangeRate.objects.order_by("id"))}
    lines = sorted(held.values(), key=lambda each: (sorted(each.name[0]), each.name[1]))
    for start in range(0, len(lines), WRITTEN_AT_ONCE):
        part = lines[start : start + WRITTEN_AT_ONCE]
        yield price_csv.written(*map(price_csv.rate_row, part))


def _rate_line(row: ExchangeRate) -> RateLine:
    return RateLine(0, Quoted(row.base, row.quote, row.valid_from, row.rate_nanos), row.source)
