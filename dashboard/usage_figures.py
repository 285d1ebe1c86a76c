"""The figures of the usage page, from one question to the books: totals, rows of a table, charts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from django.utils.translation import gettext as _
from msgspec.structs import fields

from dashboard import rounded
from dashboard.usage_question import Span
from gateway import histograms
from gateway.ledger import spans
from gateway.ledger.queries import OTHER, Sums

DRAWN: Final = 7
"""Values with a line of their own in a chart; the others are drawn together."""
SHARES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
Step = Literal["minute", "5 minutes", "quarter-hour"] | spans.Step
LABELS: Final[Mapping[Step, str]] = {
    "minute": "%Y-%m-%d %H:%M",
    "5 minutes": "%Y-%m-%d %H:%M",
    "quarter-hour": "%Y-%m-%d %H:%M",
    "hour": "%Y-%m-%d %H:%M",
    "day": "%Y-%m-%d",
    "week": "%Y-%m-%d",
    "month": "%Y-%m",
}
_SHORT: Final[tuple[tuple[Step, timedelta, timedelta], ...]] = (
    ("minute", timedelta(minutes=1), timedelta(minutes=90)),
    ("5 minutes", timedelta(minutes=5), timedelta(hours=6)),
    ("quarter-hour", timedelta(minutes=15), timedelta(hours=12)),
)
"""Steps of spans that hours are too long for, and up to which length."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Where the points of a span begin, and last where the last one ends."""

    step: Step
    edges: Sequence[datetime]

    @classmethod
    def of(cls, span: Span, zone: ZoneInfo, step: Step | None = None) -> "Steps":
        """`step` None: one that makes a good picture."""
        step = step or step_of(span)
        lengths = {name: length for name, length, _ in _SHORT}
        if step in lengths:
            return cls(step, _short_edges(span, lengths[step]))
        return cls(step, spans.edges(span.since, span.until, zone, step))  # type: ignore[arg-type]

    @property
    def points(self) -> int:
        return len(self.edges) - 1


def step_of(span: Span) -> Step:
    length = span.until - span.since
    found = (step for step, _, longest in _SHORT if length <= longest)
    return next(found, spans.step_for(span.since, span.until))


def _short_edges(span: Span, length: timedelta) -> list[datetime]:
    """On full steps, so that a bar is of the same minutes whenever the page is loaded."""
    first = spans.minute_of(span.since) // (length // spans.MINUTE) + 1
    at = spans.moment_of(first * (length // spans.MINUTE))
    found = [span.since]
    while at < span.until:
        found.append(at)
        at += length
    return [*found, span.until]


def joined(before: Steps | None, now: Steps) -> tuple[list[datetime], int]:
    """The edges of both as one question to the books, and at which place the later one begins."""
    if before is None:
        return list(now.edges), 0
    if before.edges[-1] >= now.edges[0]:
        return [*before.edges[:-1], *now.edges], before.points
    return [*before.edges, *now.edges], before.points + 1  # between them is a gap that is not looked at


@dataclass(frozen=True, slots=True)
class Change:
    """How a figure differs from the one before."""

    text: str
    direction: Literal["up", "down", "same"]
    is_bad: bool | None = None
    """None: it may be either."""


def change(now: float | None, before: float | None, *, more_is_bad: bool | None = None) -> Change | None:
    """None where one of them is not known, or both are nothing."""
    if now is None or before is None or now == before == 0:
        return None
    if not before:
        return Change(_("none before"), "up", more_is_bad)
    share = (now - before) / before
    percent = rounded.share(abs(share))
    if percent == rounded.share(0.0):
        return Change(_("the same"), "same")
    if share > 0:
        return Change(_("%(percent)s more") % {"percent": percent}, "up", more_is_bad)
    return Change(
        _("%(percent)s less") % {"percent": percent}, "down", None if more_is_bad is None else False
    )


def change_of_rate(now: float | None, before: float | None) -> Change | None:
    """Of a share of 1, in words that do not make a percentage of percents."""
    if now is None or before is None:
        return None
    earlier = rounded.share(before)
    if rounded.share(now) == earlier:
        return Change(_("%(percent)s before too") % {"percent": earlier}, "same")
    text = _("from %(percent)s") % {"percent": earlier}
    return Change(text, "up", True) if now > before else Change(text, "down", False)


@dataclass(frozen=True, slots=True)
class Row:
    """What one value, or one span, adds up to."""

    name: str
    sums: Sums
    value: str = ""
    before: Sums | None = None
    """The same of the period before; None: it is not compared."""
    share: float | None = None
    """Of the cost, or where nothing costs anything, of the calls."""
    link: str = ""
    """The page for this value alone."""
    calls: str = ""
    """The list of calls behind it."""

    @property
    def tokens(self) -> int:
        return self.sums.input_tokens + self.sums.output_tokens

    @property
    def latency(self) -> list[int | None]:
        return [self.sums.latency_at(each) for each in SHARES.values()]

    @property
    def first_token(self) -> list[int | None]:
        return [self.sums.first_token_at(each) for each in SHARES.values()]

    @property
    def share_pct(self) -> int:
        """Of the widest bar that there can be."""
        return round(100 * (self.share or 0))

    @property
    def cost_change(self) -> Change | None:
        return change(self.sums.cost_nanos, self.before.cost_nanos) if self.before else None

    @property
    def calls_change(self) -> Change | None:
        return change(self.sums.calls, self.before.calls) if self.before else None

    @property
    def tokens_change(self) -> Change | None:
        if self.before is None:
            return None
        return change(self.tokens, self.before.input_tokens + self.before.output_tokens)

    @property
    def error_change(self) -> Change | None:
        return change_of_rate(self.sums.error_rate, self.before.error_rate) if self.before else None

    @property
    def latency_change(self) -> Change | None:
        if self.before is None:
            return None
        return change(self.sums.latency_at(0.95), self.before.latency_at(0.95), more_is_bad=True)

    @property
    def first_token_change(self) -> Change | None:
        if self.before is None:
            return None
        return change(self.sums.first_token_at(0.95), self.before.first_token_at(0.95), more_is_bad=True)


def together(found: Iterable[Sums]) -> Sums:
    """Everything added up. A histogram that one of them has not is not known of all."""
    total = Sums()
    measured: dict[str, list[Any]] = {"latency": [], "first_token": []}
    days: dict[Any, None] = {}
    for each in found:
        for name in _NUMBERS:
            setattr(total, name, getattr(total, name) + getattr(each, name))
        for name, those in measured.items():
            those.append(getattr(each, name))
        days |= dict.fromkeys(each.no_rate_on)
    total.latency, total.first_token = (_merged(each) for each in measured.values())
    total.no_rate_on = tuple(sorted(days))
    return total


_NUMBERS: Final = [each.name for each in fields(Sums) if each.type is int]


def _merged(found: Sequence[histograms.Histogram | None]) -> histograms.Histogram | None:
    whole: histograms.Histogram = {}
    for each in found:
        if each is None:
            return None
        histograms.add(whole, each)
    return whole


def across(told: Sequence[Sequence[Sums]], points: int) -> list[Sums]:
    """All values of each point together."""
    return [together(each) for each in zip(*told, strict=True)] if told else [Sums() for _ in range(points)]


def share_of(sums: Sums, total: Sums) -> float | None:
    """Of the total's cost; of its calls where nothing costs anything."""
    part, whole = (
        (sums.cost_nanos, total.cost_nanos)
        if total.cost_nanos
        else (sums.calls + sums.refused, total.calls + total.refused)
    )
    return part / whole if whole else None


def sorted_rows(rows: Sequence[Row], column: str) -> list[Row]:
    """A minus before the column: the largest first. What is not known, and what is all others, comes last."""
    key, is_falling = _KEYS[column.removeprefix("-")], column.startswith("-")
    known = [each for each in rows if each.value != OTHER and key(each) is not None]
    unknown = [each for each in rows if each.value != OTHER and key(each) is None]
    others = [each for each in rows if each.value == OTHER]
    known.sort(key=lambda each: (-each.sums.cost_nanos, -each.sums.calls, each.name))
    known.sort(key=key, reverse=is_falling)
    return [*known, *unknown, *others]


def _sum(name: str) -> Callable[[Row], Any]:
    return lambda row: getattr(row.sums, name)


_KEYS: Final[Mapping[str, Callable[[Row], Any]]] = {
    "name": lambda row: row.name.casefold(),
    "cost": _sum("cost_nanos"),
    "change": lambda row: row.sums.cost_nanos - row.before.cost_nanos if row.before else None,
    "calls": _sum("calls"),
    "refused": _sum("refused"),
    "failed": _sum("error_rate"),
    "input_tokens": _sum("input_tokens"),
    "output_tokens": _sum("output_tokens"),
    "p50": lambda row: row.sums.latency_at(0.5),
    "p95": lambda row: row.sums.latency_at(0.95),
    "p99": lambda row: row.sums.latency_at(0.99),
    "first_token": lambda row: row.sums.first_token_at(0.95),
}


def labels(steps: Steps, zone: ZoneInfo) -> list[str]:
    """What each point is called: where it begins, in the zone."""
    return [each.astimezone(zone).strftime(LABELS[steps.step]) for each in steps.edges[:-1]]


# Charts


@dataclass(frozen=True, slots=True)
class Line:
    """One line or kind of bar: a value for each point, None where there is none."""

    name: str
    data: Sequence[float | None]
    calls: str = ""
    """The list of calls of the value; empty: of all."""
    kind: Literal["", "rate", "before"] = ""
    """A rate has an axis of its own; what was before is faint and behind."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One value of the breakdown, with what each of its points adds up to."""

    name: str
    sums: Sequence[Sums]
    calls: str = ""


@dataclass(frozen=True, slots=True)
class Drawing:
    """What charts are made of."""

    told: Sequence[Drawn]
    """Values, the largest first."""
    points: Sequence[Sums]
    """All of them together."""
    before: Sequence[Sums] = field(default=())
    """Points of the period before; there may be fewer, or more."""

    def behind(self, of: Callable[[Sums], float | None], what: str = "") -> list[Line]:
        """The period before as one line, point beside point."""
        if not self.before:
            return []
        found = [of(each) for each in self.before[: len(self.points)]]
        missing = [None] * (len(self.points) - len(found))
        return [Line(what or _("before"), [*found, *missing], kind="before")]


CHARTS: Final = ("spend", "calls", "errors", "tokens", "latency", "first_token")


def charts(drawing: Drawing) -> dict[str, list[Line]]:
    """Lines by chart, in the order in which they stand on each other."""
    shown = _few(drawing.told)
    return {
        "spend": [
            *(Line(each.name, [one.cost_nanos for one in each.sums], each.calls) for each in shown),
            *drawing.behind(lambda sums: sums.cost_nanos),
        ],
        "calls": [
            *(Line(each.name, [one.calls + one.refused for one in each.sums], each.calls) for each in shown),
            *drawing.behind(lambda sums: sums.calls + sums.refused),
        ],
        "errors": [
            Line(_("failed or truncated"), [each.failed for each in drawing.points]),
            Line(_("of all calls"), [each.error_rate for each in drawing.points], kind="rate"),
            *drawing.behind(lambda sums: sums.failed),
        ],
        "tokens": [
            Line(_("input"), [each.input_tokens for each in drawing.points]),
            Line(_("output"), [each.output_tokens for each in drawing.points]),
            *drawing.behind(lambda sums: sums.input_tokens + sums.output_tokens),
        ],
        "latency": _percentiles(drawing, Sums.latency_at),
        "first_token": _percentiles(drawing, Sums.first_token_at),
    }


def _percentiles(drawing: Drawing, at: Callable[[Sums, float], int | None]) -> list[Line]:
    lines = [Line(name, [at(each, share) for each in drawing.points]) for name, share in SHARES.items()]
    return [*lines, *drawing.behind(lambda sums: at(sums, SHARES["p95"]), _("p95 before"))]


def _few(told: Sequence[Drawn]) -> list[Drawn]:
    if len(told) <= DRAWN + 1:
        return list(told)
    rest = [together(each) for each in zip_longest(*(each.sums for each in told[DRAWN:]), fillvalue=Sums())]
    return [*told[:DRAWN], Drawn(OTHER, rest)]
