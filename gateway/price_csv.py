"""Prices and exchange rates as CSV, RFC 4180: a line of headings, amounts as plain decimals. Pure.

What is written is read again as the same. A price with tiers has a line for each of them below its own,
with `above_tokens`. Lines are read and written one by one.
What becomes of them is left to `gateway.price_files`.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, NamedTuple, TypeVar, cast

from django.utils.translation import gettext as _

from accounts.formulas import guarded, unguarded
from gateway.exchange import EPOCH, MICROSECOND, Quoted
from gateway.inputs import NAME_LENGTH, Unusable, clean_name
from gateway.price_inputs import (
    MAX_TIER_TOKENS,
    amount_of,
    check_day,
    check_price,
    check_rate,
    clean_currency,
    clean_day,
    clean_moment,
    nanos_of,
    shortened,
)
from gateway.relay.catalog import Price, Rates

MOST_BYTES = 1_000_000
"""Of a file. A form with it is let in, too."""
MOST_LINES = 10_000
MOST_WRONG = 100
"""A file with more wrong lines is not read further: something is wrong with all of it."""
LONGEST_CELL = 2 * NAME_LENGTH
SOURCE = "CSV"
"""Where a price is from whose line does not say."""

_AMOUNTS: Mapping[str, str] = {
    "input": "input_nanos",
    "cached_input": "cached_input_nanos",
    "output": "output_nanos",
    "cache_write": "cache_write_nanos",
    "reasoning": "reasoning_nanos",
    "audio_input": "audio_input_nanos",
    "audio_output": "audio_output_nanos",
}
_OF = ("route", "provider", "upstream_model", "valid_from")
PRICE_COLUMNS = (*_OF, "currency", "above_tokens", *_AMOUNTS, "request", "source")
RATE_COLUMNS = ("base", "quote", "valid_from", "rate", "source")
_NEEDED = {PRICE_COLUMNS: (*_OF, "input", "output"), RATE_COLUMNS: ("base", "quote", "valid_from", "rate")}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PriceLine:
    """A price as a file has it."""

    line_no: int
    """Of its first line, the headings being 1."""
    route: str
    """The model name."""
    provider: str
    """Its slug."""
    upstream_model: str
    price: Price
    """Without an id, and without an exchange rate."""
    source: str

    @property
    def name(self) -> tuple[str, str, str, int]:
        """No two prices of a file have the same."""
        return self.route, self.provider, self.upstream_model, self.price.valid_from_us


@dataclass(frozen=True, slots=True)
class RateLine:
    """An exchange rate as a file has it."""

    line_no: int
    quoted: Quoted
    source: str

    @property
    def name(self) -> tuple[frozenset[str], date]:
        """The two currencies in any order: a rate is read in both directions."""
        return frozenset((self.quoted.base, self.quoted.quote)), self.quoted.valid_from


class Wrong(NamedTuple):
    """What is wrong with a line, in a sentence."""

    line_no: int
    why: str

    def __str__(self) -> str:
        return _("Line %(line_no)s: %(why)s") % {"line_no": self.line_no, "why": self.why}


class Unreadable(Exception):
    """The file cannot be read at all, or no further; the message says from which line on and why."""


class _Row(NamedTuple):
    line_no: int
    cells: Mapping[str, str]


# Reading


def decoded(parts: Iterable[bytes]) -> Iterator[str]:
    """The lines of a file in UTF-8, with or without a byte order mark, as its bytes come.

    Raises Unreadable for other bytes, and for more than MOST_BYTES.
    """
    raw = _Bounded(parts)
    try:
        with io.TextIOWrapper(io.BufferedReader(raw), "utf-8-sig", newline="") as text:
            yield from text
    except UnicodeDecodeError:
        raise Unreadable(_("The file is not in UTF-8: save it as “CSV UTF-8”.")) from None


class _Bounded(io.RawIOBase):
    """Parts of a file as a file, so long as they are not too many."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts = iter(parts)
        self._rest = b""
        self._left = MOST_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            part = next(self._parts, None)
            if part is None:
                return 0
            self._rest = part
        taken, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        self._left -= len(taken)
        if self._left < 0:
            raise Unreadable(
                _("The file is longer than %(most)s bytes: send it in parts.") % {"most": f"{MOST_BYTES:,}"}
            )
        buffer[: len(taken)] = taken
        return len(taken)


def read_prices(lines: Iterable[str]) -> Iterator[PriceLine | Wrong]:
    """Every price, or what is wrong with its line. Raises Unreadable."""
    below: list[_Row] = []
    for row in _rows(lines, PRICE_COLUMNS):
        if below and not _is_tier_of(row, below[0]):
            yield _price(below)
            below.clear()
        below.append(row)
    if below:
        yield _price(below)


def read_rates(lines: Iterable[str]) -> Iterator[RateLine | Wrong]:
    """Every exchange rate, or what is wrong with its line. Raises Unreadable."""
    for row in _rows(lines, RATE_COLUMNS):
        try:
            yield _rate(row)
        except Unusable as why:
            yield Wrong(row.line_no, str(why))


def apart(found: Iterable[T | Wrong]) -> tuple[list[T], list[Wrong]]:
    """What can be used, and what is wrong; two lines for the same are wrong too. Raises Unreadable."""
    good: list[T] = []
    wrong: list[Wrong] = []
    first: dict[Any, int] = {}
    for each in found:
        if (why := _why_not(each, first)) is None:
            good.append(cast(T, each))
        else:
            wrong.append(why)
        if len(wrong) == MOST_WRONG:
            break
    return good, wrong


def _why_not(found: Any, first: dict[Any, int]) -> Wrong | None:
    """`first` has the line on which each name was read first, and is added to."""
    if isinstance(found, Wrong):
        return found
    line_no = first.setdefault(found.name, found.line_no)
    if line_no == found.line_no:
        return None
    return Wrong(
        found.line_no, _("Line %(line_no)s is for the same from the same time on.") % {"line_no": line_no}
    )


def _rows(lines: Iterable[str], columns: Sequence[str]) -> Iterator[_Row]:
    """Lines that are not empty, by the names of their columns, which may stand in any order."""
    reader = csv.reader(_short(lines), strict=True)
    try:
        names = _headings(next(reader, []), columns)
        line_no = reader.line_num + 1
        for cells in reader:
            if len(cells) > len(names):
                raise Unreadable(
                    _("Line %(line_no)s has more cells than there are headings.") % {"line_no": line_no}
                )
            if any(each.strip() for each in cells):
                yield _Row(line_no, dict(zip(names, map(unguarded, cells), strict=False)))
            line_no = reader.line_num + 1
            if line_no > MOST_LINES + 1:
                raise Unreadable(
                    _("The file has more than %(most)s lines: send it in parts.")
                    % {"most": f"{MOST_LINES:,}"}
                )
    except csv.Error as why:
        raise Unreadable(
            _("Line %(line_num)s is no CSV: %(why)s.") % {"line_num": reader.line_num, "why": why}
        ) from None


def _short(lines: Iterable[str]) -> Iterator[str]:
    """Cells that are much too long are not kept until they end."""
    for line in lines:
        if len(line) > LONGEST_CELL * len(PRICE_COLUMNS):
            raise Unreadable(_("There is a line that is too long for prices: is this the right file?"))
        yield line


def _headings(found: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Raises Unreadable where one is missing, unknown or doubled."""
    names = [each.strip().lower() for each in found]
    missing = [each for each in _NEEDED[tuple(columns)] if each not in names]
    if missing:
        raise Unreadable(
            _("Line 1 names the columns, with commas between them. %(missing)s is not among them.")
            % {"missing": ", ".join(missing)}
        )
    unknown = [shortened(each) for each in names if each not in columns]
    if unknown:
        raise Unreadable(
            _("Line 1 has the column '%(unknown)s'; known are %(columns)s.")
            % {"unknown": unknown[0], "columns": ", ".join(columns)}
        )
    if len(set(names)) < len(names):
        raise Unreadable(_("Line 1 has a column twice."))
    return names


def _is_tier_of(row: _Row, first: _Row) -> bool:
    """A tier repeats what its price is of, and says above how many tokens it begins."""
    same = all(row.cells.get(name, "") == first.cells.get(name, "") for name in _OF)
    return same and row.cells.get("above_tokens", "") not in ("", "0")


def _price(rows: Sequence[_Row]) -> PriceLine | Wrong:
    """One price with its tiers. What is wrong is said of the line that it is in."""
    row = rows[0]
    try:
        line = _without_tiers(row)
        tiers: list[Rates] = []
        for row in rows[1:]:
            tiers.append(_tier(row, rows[0]))
            check_price(replace(line.price, tiers=tuple(tiers)))
        return replace(line, price=replace(line.price, tiers=tuple(tiers)))
    except Unusable as why:
        return Wrong(row.line_no, str(why))


def _without_tiers(row: _Row) -> PriceLine:
    cells = row.cells
    if cells.get("above_tokens", "") not in ("", "0"):
        raise Unusable(_("This is a tier: the line of its price, with above_tokens empty, comes before it."))
    currency = cells.get("currency", "")
    valid_from = clean_moment(_needed(cells, "valid_from"))
    price = Price(
        0,
        (valid_from - EPOCH) // MICROSECOND,
        _rates(cells, 0),
        (),
        nanos_of(cells["request"]) if cells.get("request") else 0,
        clean_currency(currency) if currency else "",
    )
    check_price(price)
    route, provider, upstream_model = (clean_name(_needed(cells, name), name) for name in _OF[:3])
    return PriceLine(row.line_no, route, provider, upstream_model, price, _source(cells))


def _tier(row: _Row, first: _Row) -> Rates:
    for name in ("currency", "request", "source"):
        if row.cells.get(name, "") not in ("", first.cells.get(name, "")):
            raise Unusable(
                _("A tier has the %(name)s of its price: leave it empty, or repeat it.") % {"name": name}
            )
    above = row.cells["above_tokens"]
    if not (above.isascii() and above.isdigit() and len(above) <= len(str(MAX_TIER_TOKENS))):
        raise Unusable(
            _("'%(above)s' is no number of tokens: write it like 200000.") % {"above": shortened(above)}
        )
    return _rates(row.cells, int(above))


def _rates(cells: Mapping[str, str], above_tokens: int) -> Rates:
    _needed(cells, "input")
    _needed(cells, "output")
    found = {ours: nanos_of(cells[name]) for name, ours in _AMOUNTS.items() if cells.get(name)}
    found.setdefault("cached_input_nanos", found["input_nanos"])
    return Rates(**found, above_tokens=above_tokens)


def _rate(row: _Row) -> RateLine:
    cells = row.cells
    base, quote = (clean_currency(_needed(cells, name)) for name in ("base", "quote"))
    rate_nanos = nanos_of(_needed(cells, "rate"))
    check_rate(base, quote, rate_nanos)
    day = check_day(clean_day(_needed(cells, "valid_from")))
    return RateLine(row.line_no, Quoted(base, quote, day, rate_nanos), _source(cells))


def _needed(cells: Mapping[str, str], name: str) -> str:
    if not cells.get(name):
        raise Unusable(_("The column %(name)s is empty.") % {"name": name})
    return cells[name]


def _source(cells: Mapping[str, str]) -> str:
    source = clean_name(cells.get("source") or SOURCE, "source")
    if len(source) > 100:
        raise Unusable(_("source is longer than 100 characters."))
    return source


# Writing


def written(*rows: Iterable[str]) -> str:
    """Lines of CSV."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def price_rows(line: PriceLine) -> Iterator[list[str]]:
    """The line of a price and those of its tiers."""
    price = line.price
    moment = (EPOCH + price.valid_from_us * MICROSECOND).isoformat().replace("+00:00", "Z")
    of = [guarded(line.route), guarded(line.provider), guarded(line.upstream_model), moment]
    request = amount_of(price.request_nanos) if price.request_nanos else ""
    yield [*of, price.currency, "", *_amounts(price.rates), request, guarded(line.source)]
    for tier in price.tiers:
        yield [*of, price.currency, str(tier.above_tokens), *_amounts(tier), request, guarded(line.source)]


def _amounts(rates: Rates) -> list[str]:
    found = (getattr(rates, name) for name in _AMOUNTS.values())
    return ["" if nanos is None else amount_of(nanos) for nanos in found]


def rate_row(line: RateLine) -> list[str]:
    base, quote, day, rate_nanos = line.quoted
    return [base, quote, day.isoformat(), amount_of(rate_nanos), guarded(line.source)]
