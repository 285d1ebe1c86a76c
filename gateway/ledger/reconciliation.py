"""A provider's own figures against our books, day by day and model by model. Pure: both in, a comparison out.

Theirs come from a file (`provider_csv`), ours from the sums of attempts at the provider's targets.
A figure that one side does not tell is not compared: it is never taken as nothing. What is only on one side
is nothing on the other, and counts: a call that went past the gateway is on their bill alone.
Reading our books, and finding the calls behind a difference, is left to `evidence`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal, NamedTuple

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy

from gateway.exchange import converted
from gateway.ledger.provider_csv import BillLine
from gateway.relay.catalog import Exchange

EVEN_NANOS = 5_000_000
"""Bills are made of cents: a difference of half a one is none."""
_DATED = re.compile(r"[-@](?:\d{4}-\d{2}-\d{2}|\d{8}|\d{4})$")
"""How providers name a version: gpt-4o-2024-08-06, claude-sonnet-4@20250514, gpt-4-0613."""

Figure = Literal["input_tokens", "output_tokens", "tokens", "cost_nanos"]
FIGURES: tuple[Figure, ...] = ("input_tokens", "output_tokens", "tokens", "cost_nanos")


class Side(NamedTuple):
    """What one side says of a day and model, money in the ledger's currency. None: it does not say."""

    input_tokens: int | None = 0
    output_tokens: int | None = 0
    tokens: int | None = 0
    cost_nanos: int | None = 0


NOTHING = Side()


class Ours(NamedTuple):
    """The attempts of one day at one upstream model, by our books."""

    day: date
    upstream_model: str
    input_tokens: int
    output_tokens: int
    cost_nanos: int

    def side(self) -> Side:
        both = self.input_tokens + self.output_tokens
        return Side(self.input_tokens, self.output_tokens, both, self.cost_nanos)


class Compared(NamedTuple):
    """One figure of both sides."""

    ours: int
    theirs: int

    @property
    def difference(self) -> int:
        """Below 0: it is missing on our books."""
        return self.ours - self.theirs

    @property
    def share(self) -> float | None:
        """How much of theirs is on our books; above 1: we have more. None: they have nothing."""
        return self.ours / self.theirs if self.theirs > 0 else None


@dataclass(frozen=True, slots=True)
class Row:
    """One day and model."""

    day: date
    upstream_model: str
    ours: Side
    theirs: Side
    numbers: tuple[int, ...]
    """The lines of the file; none: it is on our books alone."""
    is_known: bool = True
    """False: no model of this name is on our books in the whole span."""

    def compared(self, figure: Figure) -> Compared | None:
        """None: one side does not tell."""
        ours, theirs = getattr(self.ours, figure), getattr(self.theirs, figure)
        return None if ours is None or theirs is None else Compared(ours, theirs)

    @property
    def is_even(self) -> bool:
        """Nothing that both sides tell differs, but for half a cent."""
        return all(_is_even(figure, self.compared(figure)) for figure in FIGURES)


def _is_even(figure: Figure, found: Compared | None) -> bool:
    if found is None:
        return True
    return abs(found.difference) <= (EVEN_NANOS if figure == "cost_nanos" else 0)


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """Both sides of the days that a file covers."""

    rows: tuple[Row, ...]
    """By day and model."""
    no_rate: tuple[tuple[date, str], ...]
    """Days and currencies whose cost cannot be compared: no exchange rate is known."""

    def total(self, figure: Figure) -> Compared | None:
        """Over all rows where both sides tell it; None: there is none."""
        found = [each for row in self.rows if (each := row.compared(figure)) is not None]
        if not any(row.numbers for row in self.rows if row.compared(figure) is not None):
            return None
        return Compared(sum(each.ours for each in found), sum(each.theirs for each in found))

    def uneven(self) -> list[Row]:
        """What differs and may have its reasons on our books."""
        return [row for row in self.rows if not row.is_even and row.is_known]

    def unknown(self) -> list[Row]:
        """What only the provider knows of."""
        return [row for row in self.rows if not row.is_known]


def reconcile(
    bill: Sequence[BillLine],
    ours: Iterable[Ours],
    exchange_of: Callable[[str, date], Exchange | None],
    currency: str = "",
) -> Reconciliation:
    """`exchange_of` says what one unit of a currency is in the ledger's on a UTC day; None: it is not known.

    Lines that name no currency are in `currency`; empty: the ledger's.
    """
    books = {(each.day, each.upstream_model): each.side() for each in ours}
    names = matched({line.upstream_model for line in bill}, {model for _, model in books})
    tells = _told(bill)
    theirs: dict[tuple[date, str], list[BillLine]] = {}
    for line in bill:
        key = (line.day, names.get(line.upstream_model, line.upstream_model))
        theirs.setdefault(key, []).append(line)
    known = {model for _, model in books}
    no_rate: set[tuple[date, str]] = set()
    rows = []
    for day, model in sorted({*books, *theirs}):
        lines = theirs.get((day, model), ())
        side = _their_side(lines, exchange_of, currency, no_rate) if lines else tells
        numbers = tuple(line.number for line in lines)
        rows.append(Row(day, model, books.get((day, model), NOTHING), side, numbers, model in known))
    return Reconciliation(tuple(rows), tuple(sorted(no_rate)))


def matched(theirs: Iterable[str], ours: Iterable[str]) -> dict[str, str]:
    """Which of our upstream models each of their names means; one that means none is not in it.

    The same name; else without the date of a version on their side; else without one on ours, where
    that leaves one only.
    """
    own = set(ours)
    undated: dict[str, set[str]] = {}
    for name in own:
        undated.setdefault(_DATED.sub("", name), set()).add(name)
    found: dict[str, str] = {}
    for name in theirs:
        plain = _DATED.sub("", name)
        candidates = [each for each in (name, plain) if each in own] or list(undated.get(plain, ()))
        if candidates and (candidates[0] in (name, plain) or len(candidates) == 1):
            found[name] = candidates[0]
    return found


def _told(bill: Sequence[BillLine]) -> Side:
    """What their nothing looks like: 0 in each figure that the file tells anywhere."""
    return Side(
        *(0 if any(getattr(line, figure) is not None for line in bill) else None for figure in FIGURES)
    )


def _their_side(
    lines: Sequence[BillLine],
    exchange_of: Callable[[str, date], Exchange | None],
    currency: str,
    no_rate: set[tuple[date, str]],
) -> Side:
    """The sum of a day's lines. What one of them does not tell, their sum does not."""
    costs: list[int | None] = []
    for line in lines:
        code = line.currency or currency
        exchange = exchange_of(code, line.day)
        if line.cost_nanos is None or exchange is None:
            costs.append(None)
        else:
            costs.append(converted(line.cost_nanos, exchange))
        if exchange is None and line.cost_nanos is not None:
            no_rate.add((line.day, code))
    return Side(
        _sum(line.input_tokens for line in lines),
        _sum(line.output_tokens for line in lines),
        _sum(line.tokens for line in lines),
        _sum(costs),
    )


def _sum(values: Iterable[int | None]) -> int | None:
    found = list(values)
    told = [each for each in found if each is not None]
    return sum(told) if len(told) == len(found) else None


Kind = Literal["estimated", "hung_up", "abandoned", "timed_out", "unpriced", "corrected", "midnight"]
KINDS: Mapping[Kind, Promise] = {
    "estimated": gettext_lazy("Usage was estimated by us, because the provider reported none."),
    "hung_up": gettext_lazy(
        "The attempt was cancelled because the client went away: the provider may bill more or less."
    ),
    "abandoned": gettext_lazy("Our process ended before the attempt did: it is booked at its worst case."),
    "timed_out": gettext_lazy(
        "The provider did not answer in time: it may have worked, and billed, all the same."
    ),
    "unpriced": gettext_lazy("No price was known: there are tokens and no cost."),
    "corrected": gettext_lazy("A price that was entered late changed the cost."),
    "midnight": gettext_lazy(
        "It started close to the day's border: the provider may count it to the other day."
    ),
}


class Reason(NamedTuple):
    """Attempts of a day and model that may be why the sides differ. One attempt may be in several."""

    kind: Kind
    attempts: int
    tokens: int
    cost_nanos: int
    examples: tuple[str, ...]
    """Ids of their calls, the largest first."""

    @property
    def sentence(self) -> str:
        return str(KINDS[self.kind])
