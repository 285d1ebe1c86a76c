"""A provider's usage as a file: days, models, tokens and cost, as most of their exports can be made to be.

Pure: bytes in, lines out, or every reason why not with its line number. Nothing is guessed: a figure that
could be read in two ways, such as 1,234, is refused with a sentence.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from typing import NamedTuple

from django.utils.translation import gettext as _

from accounts.amounts import NANOS

MOST_BYTES = 1_000_000
MOST_LINES = 20_000
MOST_ERRORS = 20
"""More are not told: a file with so many is wrong as a whole."""
MOST_DIGITS = 30

NAMES: Mapping[str, Sequence[str]] = {
    "day": ("day", "date", "usage_date", "start_date", "billing_date"),
    "model": ("model", "model_name", "model_id", "upstream_model"),
    "tokens": ("tokens", "total_tokens"),
    "input_tokens": ("input_tokens", "prompt_tokens", "tokens_in"),
    "output_tokens": ("output_tokens", "completion_tokens", "generated_tokens", "tokens_out"),
    "cost": ("cost", "amount", "spend", "total_cost", "price"),
    "currency": ("currency", "currency_code", "amount_currency"),
}
"""What each column may be called, in any case, with blanks or hyphens for underscores."""
_COLUMNS = {alias: column for column, aliases in NAMES.items() for alias in aliases}
_DELIMITERS = ",;\t"
_DAY = re.compile(r"(\d{4}-\d{2}-\d{2})(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d{1,2})?")
_CURRENCY = re.compile("[A-Z]{3}")


class BillLine(NamedTuple):
    """One line of the provider's. None: it does not say."""

    number: int
    """In the file, from 1."""
    day: date
    upstream_model: str
    input_tokens: int | None
    output_tokens: int | None
    tokens: int | None
    """Both together."""
    cost_nanos: int | None
    """In nano-units of its currency; below 0 for a credit."""
    currency: str
    """Empty where it does not say."""


class Bill(NamedTuple):
    """A file that could be read."""

    lines: tuple[BillLine, ...]
    not_read: tuple[str, ...]
    """Columns that are not known, as the file calls them."""


class Unreadable(ValueError):
    """The file cannot be used: what is wrong, with the line where it is; line 0 stands for the whole file."""

    def __init__(self, *errors: tuple[int, str]) -> None:
        self.errors = errors
        super().__init__(
            " ".join(
                _("Line %(line)s: %(why)s") % {"line": line, "why": why} if line else why
                for line, why in errors
            )
        )


def read(raw: bytes) -> Bill:
    """Raises Unreadable."""
    if len(raw) > MOST_BYTES:
        raise Unreadable(
            (
                0,
                _("The file is larger than %(most)s bytes: send it in parts, by month.")
                % {"most": f"{MOST_BYTES:,}"},
            )
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unreadable((0, _("The file is not text in UTF-8: save it as CSV in UTF-8."))) from None
    rows = _rows(text)
    number, head = next(rows, (1, []))
    columns, not_read = _columns(head, number)
    return Bill(tuple(_lines(rows, columns)), not_read)


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Each line that says anything, with the number of its last line in the file."""
    if not text.strip():
        raise Unreadable((0, _("The file is empty.")))
    first = next(line for line in text.splitlines() if line.strip())
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for found, row in enumerate(reader):
            if found > MOST_LINES:
                raise Unreadable(
                    (
                        0,
                        _("The file has more than %(most)s lines: send it in parts.")
                        % {"most": f"{MOST_LINES:,}"},
                    )
                )
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield reader.line_num, cells
    except csv.Error as why:
        raise Unreadable((reader.line_num, _("This is no CSV: %(why)s.") % {"why": why})) from None


def _columns(head: Sequence[str], number: int) -> tuple[dict[str, int], tuple[str, ...]]:
    """Where each column is, and which are not known. Raises Unreadable."""
    found: dict[str, int] = {}
    not_read: list[str] = []
    for place, name in enumerate(head):
        column = _COLUMNS.get(re.sub(r"[\s-]+", "_", name.lower()))
        if column is None:
            not_read.append(name)
        elif column in found:
            raise Unreadable(
                (
                    number,
                    _("Two columns are the %(column)s: %(head)s and %(name)s.")
                    % {"column": column, "head": head[found[column]], "name": name},
                )
            )
        else:
            found[column] = place
    _check_columns(found, number)
    return found, tuple(not_read)


def _check_columns(found: Mapping[str, int], number: int) -> None:
    for needed in ("day", "model"):
        if needed not in found:
            aliases = " or ".join(NAMES[needed][:2])
            raise Unreadable(
                (
                    number,
                    _("There is no column with the %(needed)s: call it %(aliases)s.")
                    % {"needed": needed, "aliases": aliases},
                )
            )
    if not found.keys() & {"tokens", "input_tokens", "output_tokens", "cost"}:
        names = _("tokens, input_tokens, output_tokens or cost")
        raise Unreadable(
            (
                number,
                _("There is nothing to compare: a column is needed called %(names)s.") % {"names": names},
            )
        )


def _lines(rows: Iterator[tuple[int, list[str]]], columns: Mapping[str, int]) -> list[BillLine]:
    """Raises Unreadable with all that is wrong, up to MOST_ERRORS."""
    found: list[BillLine] = []
    errors: list[tuple[int, str]] = []
    for number, row in rows:
        try:
            found.append(_line(number, row, columns))
        except Unreadable as why:
            errors.extend(why.errors)
        if len(errors) >= MOST_ERRORS:
            break
    if errors:
        raise Unreadable(*errors)
    if not found:
        raise Unreadable((0, _("The file has a line of headings and nothing below it.")))
    return found


def _line(number: int, row: Sequence[str], columns: Mapping[str, int]) -> BillLine:
    if len(row) <= max(columns.values()):
        raise Unreadable(
            (number, _("It has %(count)s values, and the line of headings more.") % {"count": len(row)})
        )
    said = {column: row[place] for column, place in columns.items()}
    tokens = {each: _tokens(number, said, each) for each in ("input_tokens", "output_tokens", "tokens")}
    if (
        tokens["tokens"] is None
        and tokens["input_tokens"] is not None
        and tokens["output_tokens"] is not None
    ):
        tokens["tokens"] = tokens["input_tokens"] + tokens["output_tokens"]
    if not said["model"]:
        raise Unreadable((number, _("It names no model.")))
    return BillLine(
        number,
        _day(number, said["day"]),
        said["model"],
        **tokens,
        cost_nanos=_cost(number, said.get("cost", "")),
        currency=_currency(number, said.get("currency", "")),
    )


def _day(number: int, text: str) -> date:
    match = _DAY.fullmatch(text)
    try:
        return date.fromisoformat(match[1] if match else "")
    except ValueError:
        raise Unreadable(
            (number, _("%(text)s is no day: write it as 2026-10-31.") % {"text": _quoted(text)})
        ) from None


def _tokens(number: int, said: Mapping[str, str], column: str) -> int | None:
    text = said.get(column, "")
    if not text:
        return None
    value = _decimal(number, text, column.replace("_", " "))
    if value < 0 or value != value.to_integral_value():
        raise Unreadable((number, _("%(text)s is no number of tokens.") % {"text": _quoted(text)}))
    return int(value)


def _cost(number: int, text: str) -> int | None:
    if not text:
        return None
    return int((_decimal(number, text, "cost") * NANOS).to_integral_value(ROUND_HALF_UP))


def _decimal(number: int, text: str, what: str) -> Decimal:
    if not _NUMBER.fullmatch(text) or len(text) > MOST_DIGITS:
        hint = _(" without thousands separators, and with a point before decimals") if "," in text else ""
        sentence = _(
            "%(text)s is no %(what)s that can be read: write plain digits%(hint)s, such as 1234.56."
        ) % {"text": _quoted(text), "what": what, "hint": hint}
        raise Unreadable((number, sentence))
    value = Decimal(text)
    if value.adjusted() > 15:
        raise Unreadable((number, _("%(text)s is too large to be right.") % {"text": _quoted(text)}))
    return value


def _currency(number: int, text: str) -> str:
    code = text.upper()
    if code and not _CURRENCY.fullmatch(code):
        raise Unreadable(
            (
                number,
                _("%(text)s is no currency: write its three letters, such as USD.") % {"text": _quoted(text)},
            )
        )
    return code


def _quoted(text: str) -> str:
    """A cell in a sentence, cut where it is long."""
    return f"“{text[:40]}…”" if len(text) > 40 else f"“{text}”"
