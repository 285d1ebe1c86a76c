"""The management API's questions to the books: totals, series, breakdowns, and all of it as files.

A person sees the usage of their teams, and an administrator everybody's.
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Annotated, Any, Literal, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.conf import settings
from django.http import Http404, HttpRequest, StreamingHttpResponse
from django.utils import timezone
from ninja import Query, Router, Schema
from pydantic import Field, StringConstraints

from accounts.api.auth import door, me
from accounts.api.exports import as_file, spreadsheet
from accounts.api.found import picked, team_of, teams
from accounts.api.shapes import Line, Moment, Whole, also, shown
from accounts.services import WrongValue
from gateway import usage_csv
from gateway.ledger import queries, spans
from gateway.ledger.queries import By, Dimension, Scope, Sums
from gateway.ledger.spans import Step
from gateway.ledger.statement import Month

Shown = dict[str, Any]
Ids = Annotated[list[Whole], Field(max_length=100)]
Texts = Annotated[list[Line], Field(max_length=100)]
Outcome = Literal["answered", "rejected", "failed", "truncated", "hung_up", "abandoned", "refused"]
Currency = Annotated[str, StringConstraints(pattern=r"^([A-Z]{3})?$")]
DIMENSION = r"^(team|key|route|target|outcome|code|priority|tag:[^\x00-\x1f\x7f]+)$"
Told = Annotated[str, StringConstraints(max_length=80, pattern=DIMENSION)]
MonthText = Annotated[str, StringConstraints(pattern=r"^2[01]\d\d-(0[1-9]|1[0-2])$")]

USUAL = timedelta(days=30)
MOST_SUMS = 5_000
"""Points of a series times the values that are told apart: more take seconds and much memory."""
PERCENTILES: Shown = {"p50_us": 812_000, "p95_us": 2_410_000, "p99_us": 4_966_000}
SUMS: Shown = {
    "calls": 1200,
    "refused": 14,
    "failed": 3,
    "unpriced": 0,
    "estimated": 2,
    "simulated": 0,
    "attempts": 1231,
    "input_tokens": 1_480_000,
    "cached_tokens": 310_000,
    "cache_write_tokens": 0,
    "audio_input_tokens": 0,
    "output_tokens": 402_000,
    "reasoning_tokens": 51_000,
    "audio_output_tokens": 0,
    "cost_nanos": 7_632_500_000,
    "queued_us": 2_100_000,
    "latency_us": 1_090_000_000,
    "error_rate": 0.0025,
    "latency": PERCENTILES,
    "first_token": PERCENTILES,
    "no_rate_on": [],
}
SPAN: Shown = {
    "since": "2030-01-01T00:00:00Z",
    "until": "2030-01-31T00:00:00Z",
    "currency": "USD",
    "behind_since": None,
}

usage = Router(tags=["usage"], auth=door("read"))


class PercentilesOut(Schema):
    """In microseconds, within 1 %; null: no such call."""

    model_config = shown(**PERCENTILES)

    p50_us: int | None
    p95_us: int | None
    p99_us: int | None


class SumsOut(Schema):
    model_config = shown(**SUMS)

    calls: int
    """That were let in; refused ones are not among them."""
    refused: int
    failed: int
    """Failed or truncated."""
    unpriced: int
    """Calls that had no price; their cost is not known."""
    estimated: int
    """Calls whose usage the provider did not report."""
    simulated: int
    attempts: int
    input_tokens: int
    """With cached, cache write and audio input tokens."""
    cached_tokens: int
    cache_write_tokens: int
    audio_input_tokens: int
    output_tokens: int
    """With reasoning and audio output tokens."""
    reasoning_tokens: int
    audio_output_tokens: int
    cost_nanos: int
    """In whole nano-units of the currency."""
    queued_us: int
    """Time at gates and for connections, of all calls together."""
    latency_us: int
    """Of all calls together."""
    error_rate: float | None
    """`failed` among `calls`, from 0 to 1; null: there were none."""
    latency: PercentilesOut | None
    """Null: more rows than are added up for one question; ask for fewer teams or a shorter span."""
    first_token: PercentilesOut | None
    no_rate_on: list[date]
    """UTC days whose cost is missing, because no exchange rate is known."""


class SpanOut(Schema):
    since: datetime
    until: datetime
    """What was added up: the bounds asked for, in whole minutes, or quarter-hours where it is long ago."""
    currency: str
    behind_since: datetime | None
    """Calls that started after this moment may not be in yet; null: all that are on the books are."""


class TotalsOut(SpanOut):
    model_config = shown(**SPAN, totals=SUMS)

    totals: SumsOut


class LineOut(Schema):
    """One value's sums, span by span."""

    model_config = shown(value="gpt-4o", name="gpt-4o", points=[SUMS])

    value: str
    """Empty where all is told together; `(other)`: all values beyond the largest."""
    name: str
    """The team's or API key's; else as the value."""
    points: list[SumsOut]


class SeriesOut(SpanOut):
    model_config = shown(
        **SPAN,
        step="month",
        edges=["2030-01-01T00:00:00Z", "2030-01-31T00:00:00Z"],
        series=[{"value": "gpt-4o", "name": "gpt-4o", "points": [SUMS]}],
    )

    step: Step
    edges: list[datetime]
    """Where points begin, and where the last one ends: one more than there are points."""
    series: list[LineOut]


class RowOut(Schema):
    model_config = shown(value="gpt-4o", name="gpt-4o", sums=SUMS)

    value: str
    name: str
    sums: SumsOut


class BreakdownOut(SpanOut):
    model_config = shown(**SPAN, rows=[{"value": "gpt-4o", "name": "gpt-4o", "sums": SUMS}])

    rows: list[RowOut]
    """The dearest first; last, what all others add up to, as `(other)`."""


class Asked(Schema):
    """Which calls."""

    since: Moment | None = Field(None, description="30 days before `until`, unless said.")
    until: Moment | None = Field(None, description="Before this moment; now, unless said.")
    team: Ids = Field([], description="Teams by id; none: all that you may see.")
    key: Ids = Field([], description="API keys by id.")
    route: Texts = Field([], description="Model names, as clients ask for them.")
    target: Texts = Field([], description="Provider and upstream model, such as `openai/gpt-4o`.")
    outcome: Annotated[list[Outcome], Field(max_length=10)] = []
    code: Texts = Field([], description="Error codes; for refused calls the reason.")
    priority: Annotated[list[Literal["urgent", "normal", "batch"]], Field(max_length=3)] = []
    tag: Line = Field("", description="A declared tag: `name=value`.")


class AskedSums(Asked):
    currency: Currency = Field(
        "", description="At the exchange rate of each call's day, in UTC; the ledger's, unless said."
    )


class AskedSpans(AskedSums):
    zone: Line = Field("UTC", description="Whose midnights count, such as Europe/Berlin.")
    step: Step | None = Field(
        None, description="A point's length; one that makes a good picture, unless said."
    )
    by: Told | None = Field(None, description="Tell these apart: a dimension, or `tag:` and a declared name.")


class AskedSeries(AskedSpans):
    most: int = Field(10, ge=1, le=50, description="How many values are told apart.")


class AskedBreakdown(AskedSums):
    by: Told = Field("route", description="A dimension, or `tag:` and a declared name.")
    most: int = Field(50, ge=1, le=500, description="How many values are told apart.")


class AskedStatement(Schema):
    month: MonthText = Field(description="Such as 2030-01.")
    zone: Line = Field("UTC", description="Whose midnights count, such as Europe/Berlin.")
    currency: Currency = Field(
        "", description="At the exchange rates of the days; the ledger's, unless said."
    )


@usage.get("/usage", response=TotalsOut, openapi_extra=also(404))
def get_usage(request: HttpRequest, asked: Query[AskedSums]) -> Shown:
    """What a span adds up to: calls, refusals, tokens, cost, latency."""
    scope, since, until = _scope(request, asked), *_span(asked)
    found = queries.totals(scope, since, until, asked.currency, percentiles=True)
    return {**_head(scope, since, until, asked.currency), "totals": _sums(found)}


@usage.get("/usage/series", response=SeriesOut, openapi_extra=also(404))
def get_usage_series(request: HttpRequest, asked: Query[AskedSeries]) -> Shown:
    """The same by hours, days, weeks or months of any time zone, together or by a dimension."""
    scope, (since, until) = _scope(request, asked), _span(asked)
    edges = _edges(since, until, asked)
    if asked.by is not None and (len(edges) - 1) * asked.most > MOST_SUMS:
        raise WrongValue("most", f"Points times `most` may be at most {MOST_SUMS}; ask for fewer of either.")
    return {
        **_head(scope, since, until, asked.currency),
        "step": asked.step or spans.step_for(since, until),
        "edges": edges,
        "series": _series(scope, edges, asked),
    }


@usage.get("/usage/breakdown", response=BreakdownOut, openapi_extra=also(404))
def get_usage_breakdown(request: HttpRequest, asked: Query[AskedBreakdown]) -> Shown:
    """A span by the values of a dimension, the dearest first."""
    by, scope, (since, until) = _by(asked), _scope(request, asked), _span(asked)
    found = queries.breakdown(scope, since, until, by, asked.currency, most=asked.most, percentiles=True)
    names = queries.names_of(by, [value for value, _ in found])
    rows = [{"value": value, "name": names.get(value, value), "sums": _sums(sums)} for value, sums in found]
    return {**_head(scope, since, until, asked.currency), "rows": rows}


@usage.get("/usage.csv", openapi_extra=spreadsheet(404))
def export_usage(request: HttpRequest, asked: Query[AskedSpans]) -> StreamingHttpResponse:
    """A series as a file: a line for each span, or for each value of a dimension in each span.

    Values beyond the 10,000 dearest of a span are one line, `(other)`.
    """
    scope, (since, until) = _scope(request, asked), _span(asked)
    by = None if asked.by is None else _by(asked)
    parts = usage_csv.usage(scope, _edges(since, until, asked), by, asked.currency)
    return as_file(request, parts, "penstock-usage.csv")


@usage.get("/calls.csv", openapi_extra=spreadsheet(404))
def export_calls(request: HttpRequest, asked: Query[Asked]) -> StreamingHttpResponse:
    """Calls as a file, a line each, team by team and the earliest first. Refused calls are not among them."""
    scope, (since, until) = _scope(request, asked), _span(asked)
    return as_file(request, usage_csv.calls(scope, since, until), "penstock-calls.csv")


@usage.get("/teams/{int:team_id}/statement.csv", openapi_extra=spreadsheet(404))
def export_statement(
    request: HttpRequest, team_id: int, asked: Query[AskedStatement]
) -> StreamingHttpResponse:
    """What a team used in a month, by day, model name and API key, with its sum.

    A correction that was made after the month's end is a line of its own.
    """
    team = team_of(request, team_id)
    month = Month.read(asked.month, zone_of(asked.zone))
    parts = usage_csv.statement(team, month, asked.currency)
    return as_file(request, parts, f"penstock-{team.slug}-{asked.month}.csv")


def zone_of(name: str) -> ZoneInfo:
    """Raises WrongValue."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a folder of the database is an OSError
        raise WrongValue("zone", "Nobody knows this time zone; write it like Europe/Berlin.") from None


def _scope(request: HttpRequest, asked: Asked) -> Scope:
    """Raises Http404 for a team that is not there for the person, WrongValue."""
    where = {each: tuple(map(str, values)) for each in DIMENSIONS if (values := getattr(asked, each))}
    return Scope(_team_ids(request, asked.team), where, _tag(asked))


DIMENSIONS: tuple[Dimension, ...] = ("key", "route", "target", "outcome", "code", "priority")


def _team_ids(request: HttpRequest, wanted: Sequence[int]) -> tuple[int, ...] | None:
    if not wanted and me(request).is_superuser:
        return None
    found = teams(request).filter(pk__in=wanted) if wanted else teams(request)
    ids = tuple(found.values_list("pk", flat=True))
    if len(set(wanted)) > len(ids):
        raise Http404
    return ids


def _tag(asked: Asked) -> tuple[str, str] | None:
    if not asked.tag:
        return None
    name, separator, value = asked.tag.partition("=")
    if not name or not separator:
        raise WrongValue("tag", "Write a tag as name=value.")
    return name, value


def _by(asked: AskedSpans | AskedBreakdown) -> By:
    """Raises WrongValue for a tag by another one."""
    assert asked.by is not None
    if not asked.by.startswith("tag:"):
        return cast(Dimension, asked.by)
    name = asked.by.removeprefix("tag:")
    if asked.tag and asked.tag.partition("=")[0] != name:
        raise WrongValue("by", "Calls of one tag cannot be told apart by another: each is added up alone.")
    return "tag", name


def _span(asked: Asked) -> tuple[datetime, datetime]:
    """As far as it can be answered for. Raises WrongValue."""
    until = asked.until or timezone.now() + spans.MINUTE  # with the minute that is not over
    since = asked.since or until - USUAL
    if since >= until:
        raise WrongValue("until", "The span ends before it begins.")
    since, until = queries.bounds_of(since, until)
    if since == until:
        raise WrongValue(
            "until", "The span is shorter than what is added up: a minute, and long ago a quarter-hour."
        )
    return since, until


def _edges(since: datetime, until: datetime, asked: AskedSpans) -> list[datetime]:
    """Raises WrongValue."""
    try:
        return spans.edges(since, until, zone_of(asked.zone), asked.step)
    except spans.TooMany as why:
        raise WrongValue("step", str(why)) from None


def _head(scope: Scope, since: datetime, until: datetime, currency: str) -> Shown:
    return {
        "since": since,
        "until": until,
        "currency": currency or settings.LEDGER_CURRENCY,
        "behind_since": queries.watermark(scope.team_ids),
    }


def _series(scope: Scope, edges: Sequence[datetime], asked: AskedSeries) -> list[Shown]:
    if asked.by is None:
        points = queries.series(scope, edges, asked.currency, percentiles=True)
        return [{"value": "", "name": "", "points": [_sums(each) for each in points]}]
    by = _by(asked)
    found = queries.series_by(scope, edges, by, asked.currency, most=asked.most, percentiles=True)
    names = queries.names_of(by, [value for value, _ in found])
    return [
        {"value": value, "name": names.get(value, value), "points": [_sums(each) for each in points]}
        for value, points in found
    ]


def _sums(sums: Sums) -> Shown:
    alike = set(SumsOut.model_fields) - {"latency", "first_token"}
    latency = None if sums.latency is None else [sums.latency_at(each) for each in SHARES]
    first_token = None if sums.first_token is None else [sums.first_token_at(each) for each in SHARES]
    return {**picked(sums, alike), "latency": _percentiles(latency), "first_token": _percentiles(first_token)}


SHARES = (0.5, 0.95, 0.99)


def _percentiles(found: Sequence[int | None] | None) -> Shown | None:
    return None if found is None else dict(zip(PercentilesOut.model_fields, found, strict=True))
