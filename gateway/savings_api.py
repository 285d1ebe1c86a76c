"""The management API of savings, forecasts, and the reconciliation with a provider's bill.

A person sees the usage of their teams, and an administrator everybody's. A provider's bill is of all teams
together, so only an administrator compares it.
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Annotated, Any, cast

from django.conf import settings
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from django.utils import timezone
from ninja import Query, Router, Schema
from pydantic import Field, StringConstraints

from accounts.api.auth import door, me
from accounts.api.found import require_administrator, team_of, teams
from accounts.api.shapes import Line, Whole, also, shown
from accounts.services import WrongValue
from gateway.ledger import comparing, evidence, outlook, queries
from gateway.ledger.comparing import MOST_DAYS, Question
from gateway.ledger.evidence import Answer
from gateway.ledger.forecast import Forecast, NotEnough
from gateway.ledger.outlook import Foretold, Outlook
from gateway.ledger.provider_csv import Unreadable
from gateway.ledger.reconciliation import FIGURES, Compared, Kind, Reason, Row
from gateway.ledger.savings import Comparison, LeftOut, WhatIf, Why
from gateway.models import Provider
from gateway.price_books import books
from gateway.usage_api import zone_of

Shown = dict[str, Any]
Currency = Annotated[str, StringConstraints(pattern=r"^([A-Z]{3})?$")]
Day = Annotated[date, Field(ge=date(2000, 1, 1), lt=date(2200, 1, 1))]

USUAL_DAYS = 30
LEFT_OUT: dict[Why, str] = {
    "unpriced": "These calls had no price themselves.",
    "no_offer": "The other side does not have this model name.",
    "no_price": "The other side had no price on these days.",
    "no_rate": "There is no exchange rate from the other side's currency on these days.",
    "not_shown": "There is no exchange rate into the currency asked for on these days.",
}

savings = Router(tags=["savings"], auth=door("read"))

_LEFT_OUT: Shown = {
    "why": "no_price",
    "sentence": LEFT_OUT["no_price"],
    "route": "gpt-4o",
    "days": ["2030-01-01"],
    "cost_nanos": 12_000_000_000,
}
_COMPARISON: Shown = {
    "name": "OpenAI",
    "actual_nanos": 400_000_000_000,
    "other_nanos": 3_650_000_000_000,
    "difference_nanos": 3_250_000_000_000,
    "share_saved": 0.8904109589041096,
    "left_out": [],
}
_ROUTE: Shown = {
    "route": "gpt-4o",
    "input_tokens": 0,
    "output_tokens": 50_000_000,
    "attempts": 41_000,
    "actual_nanos": 400_000_000_000,
    "cheapest": None,
    "offers": [_COMPARISON],
}


class LeftOutOut(Schema):
    """Usage that is on neither side, because one of them is not known."""

    model_config = shown(**_LEFT_OUT)

    why: Why
    sentence: str
    route: str
    days: list[date]
    cost_nanos: int
    """What it did cost, in the ledger's currency."""


class ComparisonOut(Schema):
    model_config = shown(**_COMPARISON)

    name: str
    actual_nanos: int
    other_nanos: int
    """What the same usage would have cost there."""
    difference_nanos: int
    """What was saved against it; below 0: what it would have saved."""
    share_saved: float | None
    """The difference as a share of the dearer side, from -1 to 1; null: nothing could be compared."""
    left_out: list[LeftOutOut]


class RouteSavingsOut(Schema):
    model_config = shown(**_ROUTE)

    route: str
    input_tokens: int
    output_tokens: int
    attempts: int
    actual_nanos: int
    """Of all its usage, in the ledger's currency."""
    cheapest: str | None
    """The name of an offer; null: none could price all of it."""
    offers: list[ComparisonOut]
    """The cheapest first, those that could not price all of it last."""


class SavingsOut(Schema):
    model_config = shown(
        since="2030-01-01",
        until="2030-02-01",
        currency="JPY",
        behind_since=None,
        comparison=_COMPARISON,
        yearly_nanos=39_000_000_000_000,
        routes=[_ROUTE],
    )

    since: date
    until: date
    """Outside."""
    currency: str
    behind_since: datetime | None
    """Calls that started after this moment may not be in yet; null: all that are on the books are."""
    comparison: ComparisonOut
    yearly_nanos: int | None
    """The difference in a year: whole months as twelfths, else by the period's days; null: no whole day."""
    routes: list[RouteSavingsOut]


class AskedSavings(Schema):
    since: Day | None = Field(None, description="A day in UTC; 30 days before `until`, unless said.")
    until: Day | None = Field(None, description="Before this day in UTC; tomorrow, unless said.")
    team: Whole | None = Field(None, description="The id of a team; none: all that you may see.")
    route: Line = Field("", description="The usage of this model name only.")
    other: Line = Field(
        "",
        description="What to compare with: `book:` and a price book, or `route:` and a model name. "
        "The cheapest for each route, unless said.",
    )
    model_name: Line = Field(
        "", description="Of the price book, for all usage; each route's own, unless said."
    )
    book: Annotated[list[Line], Field(max_length=50)] = Field(
        [],
        description="Price books among which the cheapest is looked for, beside each route's own targets; "
        "all, unless said.",
    )
    currency: Currency = Field("", description="At the exchange rate of each day; the ledger's, unless said.")


@savings.get("/savings", response=SavingsOut, openapi_extra=also(404))
def get_savings(request: HttpRequest, asked: Query[AskedSavings]) -> Shown:
    """What real usage would have cost on another route or price book.

    Tokens are priced day by day, at the rates for the smallest prompts, because a sum of calls has no prompt
    size. What has no price or exchange rate is left out of both sides and told.
    """
    question = _question(request, asked)
    try:
        found = comparing.savings(question, comparing.shelf())
    except comparing.Unknown as why:
        raise WrongValue(why.field, str(why)) from None
    return {
        "since": question.since,
        "until": question.until,
        "currency": question.currency or settings.LEDGER_CURRENCY,
        "behind_since": queries.watermark(question.team_ids),
        "comparison": _comparison(found.name, found.comparison),
        "yearly_nanos": found.yearly_nanos,
        "routes": [_route(each) for each in found.routes],
    }


def _question(request: HttpRequest, asked: AskedSavings) -> Question:
    """Raises Http404 for a team that is not there for the person, WrongValue."""
    today = timezone.now().date()
    until = asked.until or today + timedelta(days=1)
    since = asked.since or until - timedelta(days=USUAL_DAYS)
    if not 0 < (until - since).days <= MOST_DAYS:
        raise WrongValue("until", f"Choose a period of 1 to {MOST_DAYS} days.")
    if unknown := set(asked.book) - set(books()):
        raise WrongValue("book", f"There is no price book {min(unknown)!r}.")
    return Question(
        team_ids=team_ids(request, asked.team),
        since=since,
        until=until,
        today=today,
        route=asked.route,
        other=asked.other,
        model_name=asked.model_name,
        books=tuple(asked.book),
        currency=asked.currency,
    )


def team_ids(request: HttpRequest, team_id: int | None) -> tuple[int, ...] | None:
    """Whose usage is asked for; None: everybody's. Raises Http404 for a team that is not the person's."""
    if team_id is not None:
        return (team_of(request, team_id).pk,)
    return None if me(request).is_superuser else tuple(teams(request).values_list("pk", flat=True))


def _comparison(name: str, found: Comparison) -> Shown:
    return {
        "name": name,
        "actual_nanos": found.actual_nanos,
        "other_nanos": found.other_nanos,
        "difference_nanos": found.difference_nanos,
        "share_saved": found.share_saved,
        "left_out": [_left_out(each) for each in found.left_out],
    }


def _left_out(found: LeftOut) -> Shown:
    return {**found._asdict(), "sentence": LEFT_OUT[found.why]}


def _route(found: WhatIf) -> Shown:
    return {
        "route": found.route,
        "input_tokens": found.usage.input_tokens,
        "output_tokens": found.usage.output_tokens,
        "attempts": found.attempts,
        "actual_nanos": found.actual_nanos,
        "cheapest": found.cheapest[0] if found.cheapest else None,
        "offers": [_comparison(*each) for each in found.offers],
    }


# Forecast

_FORETOLD: Shown = {
    "so_far": 1_500_000_000,
    "expected": 3_000_000_000,
    "low": 2_800_000_000,
    "high": 3_200_000_000,
    "history_days": 28,
    "mean_error": 0.06,
    "months_tried": 3,
    "months_within": 2,
}
_OUTLOOK: Shown = {"cost_nanos": _FORETOLD, "calls": _FORETOLD, "no_rate_on": []}


class ForetoldOut(Schema):
    model_config = shown(**_FORETOLD)

    so_far: int
    expected: int | None
    """At the end of the month; null, here and below: there are less than seven days of history."""
    low: int | None
    high: int | None
    """Eight of ten times the month ends from `low` to `high`."""
    history_days: int
    mean_error: float | None
    """How far forecasts of this day of earlier months were off, as a share; null: there are none."""
    months_tried: int
    months_within: int
    """How many of these ended from `low` to `high`."""


class OutlookOut(Schema):
    model_config = shown(**_OUTLOOK)

    cost_nanos: ForetoldOut | None
    """Null: days have no exchange rate into the currency asked for."""
    calls: ForetoldOut
    no_rate_on: list[date]


class TeamOutlookOut(OutlookOut):
    model_config = shown(team="3", name="Search", **_OUTLOOK)

    team: str
    """The team's id; `(other)`: all beyond the 200 dearest."""
    name: str


class ForecastOut(Schema):
    model_config = shown(
        month="2030-01",
        today="2030-01-16",
        zone="Europe/Berlin",
        currency="USD",
        behind_since=None,
        together=_OUTLOOK,
        teams=[{"team": "3", "name": "Search", **_OUTLOOK}],
    )

    month: str
    today: date
    zone: str
    currency: str
    behind_since: datetime | None
    """Calls that started after this moment may not be in yet; null: all that are on the books are."""
    together: OutlookOut
    teams: list[TeamOutlookOut]


class AskedForecast(Schema):
    team: Whole | None = Field(None, description="The id of a team; none: all that you may see.")
    zone: Line = Field("UTC", description="Whose midnights count, such as Europe/Berlin.")
    currency: Currency = Field("", description="At the exchange rate of each day; the ledger's, unless said.")


@savings.get("/forecast", response=ForecastOut, openapi_extra=also(404))
def get_forecast(request: HttpRequest, asked: Query[AskedForecast]) -> Shown:
    """What the present month will come to, with an interval, and how such forecasts did in earlier months."""
    ids, zone = team_ids(request, asked.team), zone_of(asked.zone)
    found = outlook.outlooks(ids, timezone.now(), zone, asked.currency)
    names = queries.names_of("team", [value for value, _ in found.by_team])
    return {
        "month": f"{found.today:%Y-%m}",
        "today": found.today,
        "zone": asked.zone,
        "currency": asked.currency or settings.LEDGER_CURRENCY,
        "behind_since": queries.watermark(ids),
        "together": _outlook(found.together),
        "teams": [
            {"team": value, "name": names.get(value, value), **_outlook(each)}
            for value, each in found.by_team
        ],
    }


def _outlook(found: Outlook) -> Shown:
    return {
        "cost_nanos": _foretold(found.cost) if found.cost else None,
        "calls": _foretold(found.calls),
        "no_rate_on": found.no_rate_on,
    }


def _foretold(found: Foretold) -> Shown:
    made, record = found
    return {
        "so_far": made.so_far,
        "history_days": made.history_days,
        **_interval(made),
        "mean_error": record.mean_error if record else None,
        "months_tried": len(record.errors) if record else 0,
        "months_within": record.within if record else 0,
    }


def _interval(made: Forecast | NotEnough) -> Shown:
    if isinstance(made, NotEnough):
        return dict.fromkeys(("expected", "low", "high"))
    return {"expected": made.expected, "low": made.low, "high": made.high}


# Reconciliation

_COMPARED: Shown = {"ours": 990_000, "theirs": 1_000_000, "difference": -10_000, "share": 0.99}
_FIGURES: Shown = dict.fromkeys(FIGURES, _COMPARED)
_REASON: Shown = {
    "kind": "estimated",
    "sentence": "Usage was estimated by us, because the provider reported none.",
    "attempts": 12,
    "tokens": 9_400,
    "cost_nanos": 31_000_000,
    "examples": ["01958a2c-6f00-7abc-8def-0123456789ab"],
}
_ROW: Shown = {
    "day": "2030-01-01",
    "upstream_model": "gpt-4o",
    "lines": [2],
    "is_known": True,
    "is_even": False,
    **_FIGURES,
    "reasons": [_REASON],
}


class ComparedOut(Schema):
    """Both sides of one figure."""

    model_config = shown(**_COMPARED)

    ours: int
    theirs: int
    difference: int
    """Below 0: it is missing on our books."""
    share: float | None
    """How much of theirs is on our books; null: theirs is nothing."""


class FiguresOut(Schema):
    """Money in the ledger's currency. Null: one side does not tell it."""

    model_config = shown(**_FIGURES)

    input_tokens: ComparedOut | None
    output_tokens: ComparedOut | None
    tokens: ComparedOut | None
    cost_nanos: ComparedOut | None


class ReasonOut(Schema):
    """Attempts that may be why the sides differ; one attempt may be in several of these."""

    model_config = shown(**_REASON)

    kind: Kind
    sentence: str
    attempts: int
    tokens: int
    cost_nanos: int
    examples: list[str]
    """Ids of their calls, the largest first."""


class DayOut(FiguresOut):
    model_config = shown(**_ROW)

    day: date
    upstream_model: str
    lines: list[int]
    """Of the file; none: it is on our books alone."""
    is_known: bool
    """False: no model of this name is on our books in all these days."""
    is_even: bool
    """Nothing differs that both sides tell, but for half a cent."""
    reasons: list[ReasonOut]


class NoRateOut(Schema):
    model_config = shown(day="2030-01-01", currency="EUR")

    day: date
    currency: str


class ReconciliationOut(Schema):
    model_config = shown(
        provider="openai",
        first="2030-01-01",
        last="2030-01-31",
        zone="UTC",
        currency="USD",
        behind_since=None,
        totals=_FIGURES,
        rows=[_ROW],
        not_read=["project_id"],
        no_rate=[],
        not_looked_at=[],
    )

    provider: str
    first: date
    last: date
    zone: str
    currency: str
    """The ledger's, in which both sides are told."""
    behind_since: datetime | None
    """Calls that started after this moment may not be in yet; null: all that are on the books are."""
    totals: FiguresOut
    rows: list[DayOut]
    not_read: list[str]
    """Columns of the file that are not known."""
    no_rate: list[NoRateOut]
    """Days whose cost is not compared, because there is no exchange rate."""
    not_looked_at: list[date]
    """Days that differ less than the ten whose calls were looked for; send them in a file of their own."""


class AskedReconciliation(Schema):
    provider: int = Field(description="The id of the provider that the file is from.")
    zone: Line = Field("UTC", description="Whose days the file counts, such as America/Los_Angeles.")
    currency: Currency = Field("", description="Of lines that do not name one; the ledger's, unless said.")
    midnight_minutes: int = Field(
        evidence.NEAR_MINUTES, ge=0, le=180, description="How close to a day's border a call is told of."
    )


TAKES_CSV = {
    "requestBody": {
        "required": True,
        "content": {
            "text/csv": {
                "schema": {"type": "string"},
                "example": "day,model,input_tokens,output_tokens,cost\n"
                "2030-01-01,gpt-4o,1000000,200000,4.50\n",
            }
        },
    }
}


@savings.post(
    "/reconciliation",
    response=ReconciliationOut,
    auth=door("operate"),
    openapi_extra={**TAKES_CSV, **also(404)},
)
def reconcile_bill(request: HttpRequest, asked: Query[AskedReconciliation]) -> Shown:
    """Compare a provider's usage with our books, day by day and model by model.

    The body is a CSV file with a line of headings: a day, a model, and any of input_tokens, output_tokens,
    tokens and cost, and if need be a currency. Nothing of it is kept.
    """
    require_administrator(request)
    provider = get_object_or_404(Provider, pk=asked.provider)
    try:
        found = evidence.reconciled(
            request.body, provider.slug, zone_of(asked.zone), asked.currency, asked.midnight_minutes
        )
    except Unreadable as why:
        raise ValidationError(cast(Any, in_fields(why))) from None
    return {
        "provider": provider.slug,
        "zone": asked.zone,
        "currency": settings.LEDGER_CURRENCY,
        "behind_since": queries.watermark(None),
        **_answer(found),
    }


def in_fields(why: Unreadable) -> dict[str, list[str]]:
    """What is wrong with a file, by its lines."""
    found: dict[str, list[str]] = {}
    for line, sentence in why.errors:
        found.setdefault(f"line {line}" if line else "file", []).append(sentence)
    return found


def _answer(answer: Answer) -> Shown:
    found, explained = answer.found, answer.explained
    return {
        "first": answer.first,
        "last": answer.last,
        "totals": {figure: _compared(found.total(figure)) for figure in FIGURES},
        "rows": [_row(row, explained.reasons.get((row.day, row.upstream_model), ())) for row in found.rows],
        "not_read": list(answer.not_read),
        "no_rate": [{"day": day, "currency": currency} for day, currency in found.no_rate],
        "not_looked_at": list(explained.not_looked_at),
    }


def _row(row: Row, reasons: Sequence[Reason]) -> Shown:
    return {
        "day": row.day,
        "upstream_model": row.upstream_model,
        "lines": list(row.numbers),
        "is_known": row.is_known,
        "is_even": row.is_even,
        **{figure: _compared(row.compared(figure)) for figure in FIGURES},
        "reasons": [{**each._asdict(), "sentence": each.sentence} for each in reasons],
    }


def _compared(found: Compared | None) -> Shown | None:
    if found is None:
        return None
    return {**found._asdict(), "difference": found.difference, "share": found.share}
