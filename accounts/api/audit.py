"""The audit to read and to export: owners see their teams', administrators all."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest, StreamingHttpResponse
from ninja import Query, Router, Schema
from pydantic import Field

from accounts import queries
from accounts.api.auth import door, me
from accounts.api.exports import as_file, lines, spreadsheet
from accounts.api.found import picked, team_of
from accounts.api.shapes import Line, Moment, Page, Window, also, page, shown
from accounts.models import AuditEvent

audit = Router(tags=["audit"], auth=door("read"))

EXPORTED_AT_ONCE = 500
"""Events between two looks at the database: no transaction stays open for as long as a reader is slow."""
COLUMNS = [
    *("id", "at", "actor_kind", "actor_name", "address", "user_agent", "action", "team_id"),
    *("subject_kind", "subject_id", "subject_name", "before", "after"),
]


class EventOut(Schema):
    model_config = shown(
        id=99,
        at="2030-01-01T00:00:00Z",
        actor_kind="person",
        actor_id=1,
        actor_name="alice@example.com",
        address="198.51.100.7",
        user_agent="Firefox",
        action="key.rotated",
        team_id=3,
        subject_kind="apikey",
        subject_id="11",
        subject_name="nightly index",
        before={"secret": "pst_0aB1cD2eF3gH…"},
        after={"secret": "pst_9zY8xW7vU6tS…"},
    )

    id: int
    at: datetime
    actor_kind: str
    """person, token (a person's access token), command or system."""
    actor_id: int | None
    actor_name: str
    address: str
    user_agent: str
    action: str
    """A noun and a verb."""
    team_id: int | None
    subject_kind: str
    subject_id: str
    subject_name: str
    before: dict[str, Any]
    after: dict[str, Any]


class EventFilter(Schema):
    team: int | None = Field(None, description="The id of a team.")
    actor: Line = Field("", description="An e-mail address, or what did it where nobody did.")
    action: Line = Field(
        "", description="One action, such as `key.rotated`, or all of a noun, such as `key`."
    )
    subject_kind: Line = ""
    subject_id: Line = ""
    since: Moment | None = None
    until: Moment | None = Field(None, description="Before this moment.")


class EventPage(EventFilter, Window):
    pass


@audit.get("/audit", response=Page[EventOut], openapi_extra=also(404))
def list_audit_events(request: HttpRequest, asked: Query[EventPage]) -> dict[str, Any]:
    """Who did what, when, from where, before and after; the latest first."""
    found, after = page(_events(request, asked), asked)
    return {"items": [picked(each, EventOut.model_fields) for each in found], "next": after}


@audit.get("/audit.csv", openapi_extra=spreadsheet(404))
def export_audit(request: HttpRequest, asked: Query[EventFilter]) -> StreamingHttpResponse:
    """The same as a file for a spreadsheet, whole, in UTF-8 with a line of headings."""
    return as_file(request, _parts(_events(request, asked)), "penstock-audit.csv")


def _events(request: HttpRequest, asked: EventFilter) -> QuerySet[AuditEvent]:
    """Raises Http404 for a team that is not there for the person, AuthorizationError for one not theirs."""
    team = None if asked.team is None else team_of(request, asked.team, "see_audit")
    fields = asked.model_dump(include=set(queries.AuditFilter.__dataclass_fields__))
    return queries.audit_events(me(request), team, queries.AuditFilter(**fields))


def _parts(events: QuerySet[AuditEvent]) -> Iterator[str]:
    """The file, some hundred lines at a time."""
    yield lines([COLUMNS])
    rows, last = events.order_by("-id"), None
    while found := list((rows if last is None else rows.filter(pk__lt=last))[:EXPORTED_AT_ONCE]):
        last = found[-1].pk
        yield lines([getattr(each, name) for name in COLUMNS] for each in found)
