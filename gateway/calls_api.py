"""The management API of calls and refusals: lists of them, and each explained."""

from dataclasses import replace
from typing import Annotated, Any, Final
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest
from ninja import Query, Router, Schema
from ninja.errors import HttpError
from pydantic import Field

from accounts.api.auth import door, me
from accounts.api.found import team_of, teams
from accounts.api.shapes import Line, Moment, Page, Whole, Window, also, shown
from accounts.caller import Priority
from accounts.services import WrongValue
from gateway import calls_examples as examples
from gateway.ledger import bills, explain, seeking
from gateway.ledger import calls as lists
from gateway.ledger.calls import CallLine
from gateway.ledger.explain import Explanation, NotOnTheBooks, Refused
from gateway.relay.records import CallOutcome

MOST: Final = 2**63 - 1
"""What a database keeps of a whole number."""

calls = Router(tags=["calls"], auth=door("read"))


EXAMPLES: dict[type, dict[str, Any]] = {
    Explanation: examples.EXPLANATION,
    Refused: examples.REFUSED,
    CallLine: examples.CALL,
    explain.Limit: examples.LIMIT,
    explain.Tokens: examples.TOKENS,
    explain.Planned: examples.PLANNED,
    explain.Tried: examples.TRIED,
    explain.Corrected: examples.CORRECTED,
    explain.Share: examples.SHARE,
    bills.Bill: examples.BILL,
    bills.BillLine: examples.BILL_LINE,
}
for _shape, _example in EXAMPLES.items():  # values of the ledger, which knows nothing of schemas
    setattr(_shape, "__pydantic_config__", shown(**_example))  # noqa: B010 - no type declares it


class RefusalFilter(Schema):
    team: Whole | None = Field(None, description="The id of a team.")
    search: Annotated[Line, Field(max_length=seeking.LONGEST)] = Field(
        "",
        description="A call id or its beginning, an API key's name or prefix, a model name or part of it, "
        "the beginning of a code; of calls also a tag as name=value.",
    )
    key: Whole | None = Field(None, description="The id of an API key.")
    route: Line = Field("", description="A model name.")
    code: Line = Field("", description="What went wrong, in a word.")
    priority: Priority | None = None
    since: Moment | None = None
    until: Moment | None = Field(None, description="Before this moment.")


class CallFilter(RefusalFilter):
    target: Line = Field("", description="Provider and upstream model of the last attempt: `openai/gpt-4o`.")
    outcome: CallOutcome | None = None
    tag: Line = Field("", description="A tag that the team has declared, with its value: `project=apollo`.")
    unpriced: bool = Field(False, description="Only calls that have no price.")
    streamed: bool | None = Field(None, description="Only streamed answers, or only whole ones.")
    min_latency_us: Annotated[int, Field(ge=0, le=MOST)] = Field(
        0, description="Only calls that took so long."
    )
    min_cost_nanos: Annotated[int, Field(ge=0, le=MOST)] = Field(
        0, description="Only calls that were booked at so much, in nano-units of the ledger currency."
    )


class CallPage(CallFilter, Window):
    pass


class RefusalPage(RefusalFilter, Window):
    pass


@calls.get("/calls", response=Page[CallLine], openapi_extra=also(404))
def list_calls(request: HttpRequest, asked: Query[CallPage]) -> dict[str, Any]:
    """Calls that are on the books, the newest first.

    A page may hold less than `limit`, or nothing, and still have a `next`: then the search goes on there.
    """
    question = replace(
        _asked(request, asked),
        target=asked.target,
        outcome=asked.outcome or "",
        tag=_tag(asked.tag),
        unpriced=asked.unpriced,
        streamed=asked.streamed,
        min_latency_us=asked.min_latency_us,
        min_cost_nanos=asked.min_cost_nanos,
    )
    question = _sought(question, asked.search)
    try:
        found = lists.page(question, asked.limit, _place(asked.after))
    except lists.NotDeclared as why:
        raise WrongValue("tag" if asked.tag else "search", str(why)) from None
    return {"items": found.lines, "next": _told(found.next)}


@calls.get("/calls/{uuid:call_id}", response=Explanation)
def explain_call(request: HttpRequest, call_id: UUID) -> Explanation:
    """One call, and why it went as it did.

    Who called, its limits at that moment, its plan and attempts, where its time went, and how its cost came
    about line by line. A client finds the id in the header `X-Request-Id` of its answer.
    """
    try:
        return explain.explain(call_id, team_ids(request), settings.LEDGER_CURRENCY)
    except NotOnTheBooks as why:
        raise HttpError(404, str(why)) from None


@calls.get("/refusals", response=Page[Refused], openapi_extra=also(404))
def list_refusals(request: HttpRequest, asked: Query[RefusalPage]) -> dict[str, Any]:
    """Calls that were not let in, the newest first: of each team the last 1,000 are kept."""
    question = _sought(_asked(request, asked), asked.search)
    found, after = lists.refusals(question, asked.limit, _place(asked.after))
    return {"items": explain.told_refusals(found), "next": _told(after)}


@calls.get("/refusals/{uuid:refusal_id}", response=Refused)
def explain_refusal(request: HttpRequest, refusal_id: UUID) -> Refused:
    """One call that was not let in, and why. Its id is that of the call, from the header `X-Request-Id`."""
    try:
        return explain.explain_refusal(refusal_id, team_ids(request))
    except NotOnTheBooks as why:
        raise HttpError(404, str(why)) from None


def team_ids(request: HttpRequest) -> tuple[int, ...] | None:
    """Whose calls the person may see; None: everybody's."""
    return None if me(request).is_superuser else tuple(teams(request).values_list("pk", flat=True))


def _asked(request: HttpRequest, asked: RefusalFilter) -> lists.Asked:
    """Raises Http404 for a team that is not there for the person."""
    own = team_ids(request) if asked.team is None else (team_of(request, asked.team).pk,)
    return lists.Asked(
        team_ids=own,
        key_id=asked.key,
        route=asked.route,
        code=asked.code,
        priority=asked.priority or "",
        since=asked.since,
        until=asked.until,
    )


def _sought(asked: lists.Asked, text: str) -> lists.Asked:
    """Raises WrongValue."""
    try:
        return seeking.sought(asked, text)
    except seeking.Unreadable as why:
        raise WrongValue("search", str(why)) from None


def _tag(text: str) -> tuple[str, str] | None:
    """Raises WrongValue."""
    name, equals, value = text.partition("=")
    if text and not (name and equals):
        raise WrongValue("tag", "Write a tag as name=value.")
    return (name, value) if text else None


def _place(after: str) -> lists.Place | None:
    """Raises WrongValue."""
    try:
        return lists.place(after) if after else None
    except lists.NoSuchPlace as why:
        raise WrongValue("after", str(why)) from None


def _told(place: lists.Place | None) -> str | None:
    return None if place is None else str(place)
