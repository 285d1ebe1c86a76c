"""The management API of calls without a price, and of the work that prices them afterwards."""

from datetime import datetime
from typing import Any

from django.http import HttpRequest
from django.utils import timezone
from ninja import Query, Router, Schema
from pydantic import Field

from accounts.api.auth import door, me
from accounts.api.found import picked, team_of, teams
from accounts.api.shapes import Page, Whole, Window, also, page, shown
from gateway.api import require_operator
from gateway.ledger import unpriced as lacking
from gateway.models import Repricing

Shown = dict[str, Any]

unpriced = Router(tags=["prices"], auth=door("read"))

_LACKING: Shown = {"target_id": 5, "name": "acme/llama-4", "currency": ""}
_UNPRICED: Shown = {
    "route": "llama-4",
    "target": "acme/llama-4",
    "calls": 1240,
    "input_tokens": 800_000,
    "output_tokens": 120_000,
    "is_mixed": False,
    "since": "2030-01-01T08:15:00Z",
    "until": "2030-01-03T00:00:00Z",
    "lacking": [_LACKING],
    "is_gone": False,
    "is_in_work": False,
}


class LackingOut(Schema):
    """A target without a price that could be used for the first or the last of these calls."""

    model_config = shown(**_LACKING)

    target_id: int
    name: str
    """Provider and upstream model."""
    currency: str
    """It has a price in this currency, and no exchange rate for it; empty: it has no price."""


class UnpricedOut(Schema):
    """Calls of one route that ended at one target, at least one attempt of each without a price."""

    model_config = shown(**_UNPRICED)

    route: str
    target: str
    """Provider and upstream model, as they were called."""
    calls: int
    input_tokens: int
    output_tokens: int
    is_mixed: bool
    """The tokens are those of other calls too, made within the same quarter-hour or day."""
    since: datetime
    """At most a quarter-hour before the first of them."""
    until: datetime
    """When the quarter-hour or the day of the last of them begins."""
    lacking: list[LackingOut]
    """That a price, or an exchange rate, has to be entered for; empty: it was, or they are gone."""
    is_gone: bool
    """Nothing is called like this any more."""
    is_in_work: bool
    """A price was entered, and what it changes is being worked out."""


class RepricingOut(Schema):
    model_config = shown(
        id=3,
        target_id=5,
        from_at="2030-01-01T08:15:00Z",
        until_at="2030-01-03T10:00:10Z",
        cause="A price was entered for the time from 2030-01-01 08:15 UTC.",
        created_at="2030-01-03T10:00:00Z",
        place="2030-01-02T00:00:00Z",
        finished_at=None,
        corrected=610,
    )

    id: int
    target_id: int
    from_at: datetime
    until_at: datetime
    """Attempts that began in this span are priced again, when it is over."""
    cause: str
    created_at: datetime
    place: datetime | None
    """Calls that began before this moment are done; null: it has not begun."""
    finished_at: datetime | None
    corrected: int
    """How many attempts cost something else by now than they did."""


class Question(Schema):
    team: Whole | None = Field(None, description="The id of a team.")


@unpriced.get("/unpriced", response=list[UnpricedOut], openapi_extra=also(404))
def list_unpriced(request: HttpRequest, asked: Query[Question]) -> list[lacking.Unpriced]:
    """Calls of the last year that have no price yet, by route and target, the most calls first.

    What was called within the last seconds may be missing.
    """
    return lacking.found(_team_ids(request, asked.team), timezone.now())


@unpriced.get("/repricings", response=Page[RepricingOut])
def list_repricings(request: HttpRequest, window: Query[Window]) -> Shown:
    """What is, or was, priced again because a price or an exchange rate came late; the latest first."""
    require_operator(request, "view_price")
    found, after = page(Repricing.objects.all(), window)
    return {"items": [picked(each, RepricingOut.model_fields) for each in found], "next": after}


def _team_ids(request: HttpRequest, team_id: int | None) -> list[int] | None:
    """None: all. Raises Http404."""
    if team_id is not None:
        return [team_of(request, team_id).pk]
    if me(request).is_superuser:
        return None
    return list(teams(request).values_list("pk", flat=True))
