"""Webhooks, for owners and administrators: who knows one knows its secret."""

from datetime import datetime
from typing import Annotated, Any

from django.db.models import QuerySet
from django.http import Http404, HttpRequest
from ninja import Body, Query, Router, Schema
from ninja.errors import AuthorizationError
from ninja.responses import Status
from pydantic import Field, StringConstraints, with_config
from typing_extensions import TypedDict

from accounts import webhooks as hooks
from accounts.api import found
from accounts.api.auth import LOOKS, door, known, me, require_scope
from accounts.api.found import email_of, picked
from accounts.api.shapes import Page, Whole, Window, also, page, shown, taken
from accounts.models import Membership, Webhook

Listed = dict[str, Any]

SCOPE = "teams"
OF_THE_SYSTEM = "operate"
"""The scope that changes of a webhook of no team need too: it reaches private networks."""

webhooks = Router(tags=["webhooks"], auth=door(SCOPE))


class WebhookOut(Schema):
    model_config = shown(
        id=2,
        team_id=3,
        url="https://hooks.example.com/penstock",
        enabled=True,
        secret="whsec_…",  # noqa: S106
        created_by="alice@example.com",
        created_at="2030-01-01T00:00:00Z",
    )

    id: int
    team_id: int | None
    """null: it is told of every team's notices."""
    url: str
    enabled: bool
    secret: str | None
    """What its messages are signed with; null: to an access token that may only look."""
    created_by: str | None
    created_at: datetime


Url = Annotated[str, StringConstraints(min_length=8, max_length=500, pattern=r"^[\x21-\x7e]*$")]


class NewWebhook(Schema):
    model_config = taken(team_id=3, url="https://hooks.example.com/penstock")

    team_id: int | None
    """null: for every team's notices; for administrators."""
    url: Url


@with_config(taken(enabled=False))
class WebhookChanges(TypedDict, total=False):
    """What is absent stays as it is."""

    url: Url
    enabled: bool


class WebhookFilter(Window):
    team: Whole | None = Field(None, description="The id of a team.")


@webhooks.get("/webhooks", response=Page[WebhookOut])
def list_webhooks(request: HttpRequest, asked: Query[WebhookFilter]) -> Listed:
    """The webhooks of the teams that you own; to an administrator, all."""
    rows = _webhooks(request)
    if asked.team is not None:
        rows = rows.filter(team=asked.team)
    listed, after = page(rows, asked, "id")
    return {"items": [_webhook(request, each) for each in listed], "next": after}


@webhooks.post("/webhooks", response={201: WebhookOut}, openapi_extra=also(404))
def make_webhook(request: HttpRequest, new: NewWebhook) -> Status[Listed]:
    """Have an address told of a team's notices."""
    if new.team_id is None:
        found.require_administrator(request)
        require_scope(known(request), OF_THE_SYSTEM)
        team = None
    else:
        team = found.team_of(request, new.team_id, "manage_members")
    return Status(201, _webhook(request, hooks.add_webhook(team, new.url, me(request))))


@webhooks.get("/webhooks/{int:webhook_id}", response=WebhookOut)
def get_webhook(request: HttpRequest, webhook_id: int) -> Listed:
    """One webhook, with the secret that its messages are signed with for whoever may change it."""
    return _webhook(request, _own_webhook(request, webhook_id))


@webhooks.patch("/webhooks/{int:webhook_id}", response=WebhookOut)
def change_webhook(request: HttpRequest, webhook_id: int, changes: Body[WebhookChanges]) -> Listed:
    """Move a webhook to another address, or switch it on or off."""
    webhook = _own_webhook(request, webhook_id)
    hooks.change_webhook(webhook, changes)
    return _webhook(request, webhook)


@webhooks.delete("/webhooks/{int:webhook_id}", response={204: None})
def remove_webhook(request: HttpRequest, webhook_id: int) -> Status[None]:
    """Tell this address of nothing any more, also of what waits to be sent."""
    hooks.remove_webhook(_own_webhook(request, webhook_id))
    return Status(204, None)


def _webhooks(request: HttpRequest) -> QuerySet[Webhook]:
    """Those whose secret the person may know."""
    rows = Webhook.objects.select_related("team", "created_by")
    if me(request).is_superuser:
        return rows
    return rows.filter(team__memberships__user=me(request), team__memberships__role=Membership.Role.OWNER)


def _own_webhook(request: HttpRequest, webhook_id: int) -> Webhook:
    """A 403 to people of its team, a 404 to everybody else."""
    own = _webhooks(request).filter(pk=webhook_id).first()
    if own is not None:
        if own.team_id is None and request.method not in LOOKS:
            require_scope(known(request), OF_THE_SYSTEM)
        return own
    if Webhook.objects.filter(pk=webhook_id, team__in=found.teams(request)).exists():
        raise AuthorizationError(message="A team's webhooks are for its owners.")
    raise Http404


def _webhook(request: HttpRequest, row: Webhook) -> Listed:
    token, needed = known(request).token, {SCOPE} if row.team_id else {SCOPE, OF_THE_SYSTEM}
    may_change = token is None or needed <= set(token.scopes)
    fields = ("id", "team_id", "url", "enabled", "created_at")
    return {
        **picked(row, fields),
        "created_by": email_of(row.created_by),
        "secret": hooks.secret_of(row) if may_change else None,
    }
