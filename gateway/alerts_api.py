"""The management API of alerts and of the channels that they tell.

Whoever is in a team sees its alerts; its owners change them and know its channels. What is of the whole
system is for administrators.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from django.db.models import Prefetch, QuerySet
from django.http import Http404, HttpRequest
from django.shortcuts import get_object_or_404
from ninja import Body, Query, Router, Schema
from ninja.errors import AuthorizationError
from ninja.responses import Status
from pydantic import Field, StringConstraints, with_config
from typing_extensions import TypedDict

from accounts import channels, queries
from accounts.api import found
from accounts.api.auth import LOOKS, door, known, me, require_scope
from accounts.api.found import email_of, picked
from accounts.api.shapes import Name, Page, Whole, Window, also, page, shown, taken
from accounts.models import ApiKey, Channel, Membership, Outbox, Team, User
from accounts.services import WrongValue
from accounts.webhooks import secret_of
from gateway.alerts import services
from gateway.alerts.evaluating import about
from gateway.models import Alert, AlertEvent

Shown = dict[str, Any]
SCOPE = "teams"
OF_THE_SYSTEM = "operate"
"""The scope that changes of what belongs to no team need too: its channels reach private networks."""
FOR_OWNERS = "Only an owner of the team may change its alerts and see its channels."
FOR_ADMINISTRATORS = "Alerts and channels of the whole system are for administrators."

alerts = Router(tags=["alerts"], auth=door(SCOPE))

Kind = Literal["spend", "error_rate", "latency", "breaker", "quota"]
ChannelKind = Literal["mail", "webhook", "slack"]
Address = Annotated[str, StringConstraints(min_length=3, max_length=2000, pattern=r"^[\x20-\x7e]*$")]
RouteName = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Threshold = Annotated[int, Field(ge=0, le=10**15)]
Minutes = Annotated[int, Field(ge=0, le=43_200)]
Calls = Annotated[int, Field(ge=0, le=10**6)]
Ids = Annotated[list[Whole], Field(max_length=20)]

_ALERT: Shown = {
    "name": "Spend of a day",
    "route": "",
    "key_id": None,
    "threshold": 50_000_000_000,
    "window_minutes": 1440,
    "least_calls": 0,
    "hold_minutes": 0,
    "pause_minutes": 60,
    "tell_owners": True,
    "channel_ids": [],
}
_MESSAGE: Shown = {
    "channel_id": 4,
    "email": None,
    "event": "alert.tested",
    "created_at": "2030-01-01T00:00:00Z",
    "sent_at": "2030-01-01T00:00:01Z",
    "given_up_at": None,
    "next_try_at": None,
    "tries": 1,
    "answer": "it answered 200",
    "error": "",
}


class MessageOut(Schema):
    """One message, and how far it has come."""

    model_config = shown(**_MESSAGE)

    channel_id: int | None
    email: str | None
    event: str
    created_at: datetime
    sent_at: datetime | None
    given_up_at: datetime | None
    next_try_at: datetime | None
    """null: it is sent, or given up."""
    tries: int
    answer: str
    """What the far side said when it took the message."""
    error: str
    """Why the last try did not succeed."""


class AlertOut(Schema):
    model_config = shown(
        id=5,
        team_id=3,
        kind="spend",
        **_ALERT,
        enabled=True,
        state="ok",
        since_at="2030-01-01T00:00:00Z",
        figure=12_500_000_000,
        figure_until="2030-01-01T00:04:50Z",
        detail="",
        checked_at="2030-01-01T00:05:00Z",
        created_by="alice@example.com",
        created_at="2030-01-01T00:00:00Z",
    )

    id: int
    team_id: int | None
    """null: of the whole system."""
    kind: Kind
    name: str
    route: str
    key_id: int | None
    threshold: int
    """Nano-units of spend, hundredths of a percent of errors, milliseconds of latency, seconds that a breaker
    is open, or percent of a quota."""
    window_minutes: int
    least_calls: int
    hold_minutes: int
    pause_minutes: int
    tell_owners: bool
    channel_ids: list[int] | None
    """null: to who may not change it."""
    enabled: bool
    state: Literal["waiting", "ok", "rising", "firing"]
    since_at: datetime | None
    figure: int | None
    """In the unit of the threshold."""
    figure_until: datetime | None
    """What ended before this is in the figure."""
    detail: str
    checked_at: datetime | None
    created_by: str | None
    created_at: datetime


class NewAlert(Schema):
    model_config = taken(team_id=3, kind="spend", **_ALERT)

    team_id: int | None
    """null: of the whole system; for administrators."""
    kind: Kind
    name: Name
    route: RouteName = ""
    """Only calls of this model name; empty: of every one."""
    key_id: Whole | None = None
    threshold: Threshold
    """In the unit of the kind, as it is shown."""
    window_minutes: Minutes = 60
    """Of spend 60, 1440 or 43200; of error rate and latency 5, 15 or 60."""
    least_calls: Calls = 0
    hold_minutes: Minutes = 0
    pause_minutes: Minutes = 60
    tell_owners: bool = True
    channel_ids: Ids = []


@with_config(taken(threshold=75_000_000_000))
class AlertChanges(TypedDict, total=False):
    """What is absent stays as it is."""

    name: Name
    route: RouteName
    key_id: Whole | None
    threshold: Threshold
    window_minutes: Minutes
    least_calls: Calls
    hold_minutes: Minutes
    pause_minutes: Minutes
    tell_owners: bool
    channel_ids: Ids
    enabled: bool


class AlertEventOut(Schema):
    """One time that an alert fired."""

    model_config = shown(
        id=8,
        fired_at="2030-01-01T00:00:00Z",
        resolved_at="2030-01-01T00:30:00Z",
        threshold=50_000_000_000,
        figure=50_100_000_000,
        last_figure=0,
        detail="",
        told=True,
        messages=[_MESSAGE | {"event": "alert.fired"}],
    )

    id: int
    fired_at: datetime
    resolved_at: datetime | None
    """null: it is not over."""
    threshold: int
    figure: int
    last_figure: int | None
    detail: str
    told: bool
    """false: it fired within the pause after an earlier message."""
    messages: list[MessageOut]
    """None to who may not change the alert."""


class Tested(Schema):
    model_config = shown(messages=[_MESSAGE])

    messages: list[MessageOut]


class ChannelOut(Schema):
    model_config = shown(
        id=4,
        team_id=3,
        kind="slack",
        name="#llm-spend",
        address="https://hooks.example.com/…",
        enabled=True,
        secret=None,
        created_by="alice@example.com",
        created_at="2030-01-01T00:00:00Z",
    )

    id: int
    team_id: int | None
    kind: ChannelKind
    name: str
    address: str
    """E-mail addresses with commas, or an address; of a Slack-compatible one without its path."""
    enabled: bool
    secret: str | None
    """What a webhook's messages are signed with; null of other kinds, and to a token that may only look."""
    created_by: str | None
    created_at: datetime


class NewChannel(Schema):
    model_config = taken(team_id=3, kind="mail", name="On call", address="oncall@example.com")

    team_id: int | None
    """null: for alerts of the whole system; for administrators."""
    kind: ChannelKind
    name: Name
    address: Address
    """Up to ten e-mail addresses, or one that begins with https://."""


@with_config(taken(enabled=False))
class ChannelChanges(TypedDict, total=False):
    """What is absent stays as it is."""

    name: Name
    address: Address
    enabled: bool


class TeamFilter(Window):
    team: Whole | None = Field(None, description="The id of a team.")


# Alerts


@alerts.get("/alerts", response=Page[AlertOut])
def list_alerts(request: HttpRequest, asked: Query[TeamFilter]) -> Shown:
    """The alerts of your teams; to an administrator, all."""
    rows = _alerts(request)
    if asked.team is not None:
        rows = rows.filter(team=asked.team)
    listed, after = page(rows, asked, "id")
    owned = _owned(me(request))
    return {
        "items": [_alert(each, may_change=_is_own(request, each, owned)) for each in listed],
        "next": after,
    }


@alerts.post("/alerts", response={201: AlertOut}, openapi_extra=also(404))
def make_alert(request: HttpRequest, new: NewAlert) -> Status[Shown]:
    """Be told when a figure goes beyond a threshold."""
    team = _team(request, new.team_id)
    values = new.model_dump(exclude={"team_id", "kind", "key_id", "channel_ids"})
    values["key"] = _key(team, new.key_id)
    chosen = _chosen(team, new.channel_ids)
    made = services.add_alert(team, new.kind, values, chosen, me(request))
    return Status(201, _alert(made, may_change=True))


@alerts.get("/alerts/{int:alert_id}", response=AlertOut)
def get_alert(request: HttpRequest, alert_id: int) -> Shown:
    """One alert, with its figure when it was last looked at."""
    row = get_object_or_404(_alerts(request), pk=alert_id)
    return _alert(row, may_change=_is_own(request, row, _owned(me(request))))


@alerts.patch("/alerts/{int:alert_id}", response=AlertOut)
def change_alert(request: HttpRequest, alert_id: int, changes: Body[AlertChanges]) -> Shown:
    """Change an alert, or switch it on or off."""
    row = _own_alert(request, alert_id)
    values: Shown = {name: value for name, value in changes.items() if name not in ("key_id", "channel_ids")}
    if "key_id" in changes:
        values["key"] = _key(row.team, changes["key_id"])
    chosen = _chosen(row.team, changes["channel_ids"]) if "channel_ids" in changes else None
    services.change_alert(row, values, chosen)
    return _alert(get_object_or_404(_alerts(request), pk=alert_id), may_change=True)


@alerts.delete("/alerts/{int:alert_id}", response={204: None})
def remove_alert(request: HttpRequest, alert_id: int) -> Status[None]:
    """Remove an alert with its history."""
    services.remove_alert(_own_alert(request, alert_id))
    return Status(204, None)


@alerts.post("/alerts/{int:alert_id}/test", response=Tested, openapi_extra=also(429))
def try_alert(request: HttpRequest, alert_id: int) -> Shown:
    """Send a marked message to everybody whom the alert tells, and say what became of each."""
    sent = services.try_alert(_own_alert(request, alert_id), me(request))
    return {"messages": [_message(each) for each in sent]}


@alerts.get("/alerts/{int:alert_id}/events", response=Page[AlertEventOut])
def list_alert_events(request: HttpRequest, alert_id: int, window: Query[Window]) -> Shown:
    """When an alert fired, the latest first."""
    row = get_object_or_404(_alerts(request), pk=alert_id)
    listed, after = page(row.events.all(), window)
    sent: dict[str, list[Shown]] = {about(each): [] for each in listed}
    if _is_own(request, row, _owned(me(request))):
        for message in Outbox.objects.filter(about__in=sent).order_by("id"):
            sent[message.about].append(_message(message))
    return {"items": [_event(each, sent[about(each)]) for each in listed], "next": after}


# Channels


@alerts.get("/channels", response=Page[ChannelOut])
def list_channels(request: HttpRequest, asked: Query[TeamFilter]) -> Shown:
    """The channels of the teams that you own; to an administrator, all."""
    rows = _channels(request)
    if asked.team is not None:
        rows = rows.filter(team=asked.team)
    listed, after = page(rows, asked, "id")
    return {"items": [_channel(request, each) for each in listed], "next": after}


@alerts.post("/channels", response={201: ChannelOut}, openapi_extra=also(404))
def make_channel(request: HttpRequest, new: NewChannel) -> Status[Shown]:
    """Add a place that alerts can be sent to."""
    team = _team(request, new.team_id)
    made = channels.add_channel(team, new.kind, new.name, new.address, me(request))
    return Status(201, _channel(request, made))


@alerts.get("/channels/{int:channel_id}", response=ChannelOut)
def get_channel(request: HttpRequest, channel_id: int) -> Shown:
    """One channel."""
    return _channel(request, _own_channel(request, channel_id))


@alerts.patch("/channels/{int:channel_id}", response=ChannelOut)
def change_channel(request: HttpRequest, channel_id: int, changes: Body[ChannelChanges]) -> Shown:
    """Rename a channel, lead it elsewhere, or switch it on or off."""
    row = _own_channel(request, channel_id)
    channels.change_channel(row, changes)
    return _channel(request, row)


@alerts.delete("/channels/{int:channel_id}", response={204: None})
def remove_channel(request: HttpRequest, channel_id: int) -> Status[None]:
    """Remove a channel, with what waits to be sent to it."""
    channels.remove_channel(_own_channel(request, channel_id))
    return Status(204, None)


@alerts.post("/channels/{int:channel_id}/test", response=Tested, openapi_extra=also(429))
def try_channel(request: HttpRequest, channel_id: int) -> Shown:
    """Send a marked message there now, and say what was answered."""
    sent = services.try_channel(_own_channel(request, channel_id), me(request))
    return {"messages": [_message(each) for each in sent]}


# Whose they are


def _alerts(request: HttpRequest) -> QuerySet[Alert]:
    ids = Prefetch("channels", Channel.objects.order_by("id"))
    rows = Alert.objects.select_related("team", "key", "created_by").prefetch_related(ids)
    return rows if me(request).is_superuser else rows.filter(team__in=found.teams(request))


def _owned(user: User) -> set[int]:
    """Ids of the teams that the person owns."""
    owned = Membership.objects.filter(user=user, role=Membership.Role.OWNER)
    return set(owned.values_list("team_id", flat=True))


def _is_own(request: HttpRequest, row: Alert, owned: set[int]) -> bool:
    return me(request).is_superuser or row.team_id in owned


def _own_alert(request: HttpRequest, alert_id: int) -> Alert:
    """A 403 to people of its team, a 404 to everybody else."""
    row = get_object_or_404(_alerts(request), pk=alert_id)
    if not _is_own(request, row, _owned(me(request))):
        raise AuthorizationError(message=FOR_OWNERS)
    _require_scope(request, row.team_id)
    return row


def _require_scope(request: HttpRequest, team_id: int | None) -> None:
    """Raises AuthorizationError."""
    if team_id is None and request.method not in LOOKS:
        require_scope(known(request), OF_THE_SYSTEM)


def _channels(request: HttpRequest) -> QuerySet[Channel]:
    rows = Channel.objects.select_related("team", "created_by")
    return rows if me(request).is_superuser else rows.filter(team__in=_owned(me(request)))


def _own_channel(request: HttpRequest, channel_id: int) -> Channel:
    """The same of a channel."""
    row = _channels(request).filter(pk=channel_id).first()
    if row is not None:
        _require_scope(request, row.team_id)
        return row
    if Channel.objects.filter(pk=channel_id, team__in=found.teams(request)).exists():
        raise AuthorizationError(message=FOR_OWNERS)
    raise Http404


def _team(request: HttpRequest, team_id: int | None) -> Team | None:
    """A team that is theirs to change; None for an administrator. Raises AuthorizationError, Http404."""
    if team_id is None:
        if not me(request).is_superuser:
            raise AuthorizationError(message=FOR_ADMINISTRATORS)
        _require_scope(request, None)
        return None
    team = found.team_of(request, team_id)
    if not queries.may(me(request), team, "manage_limits"):
        raise AuthorizationError(message=FOR_OWNERS)
    return team


def _key(team: Team | None, key_id: int | None) -> ApiKey | None:
    """Raises WrongValue."""
    if key_id is None:
        return None
    key = ApiKey.objects.filter(pk=key_id, team=team).first()
    if key is None:
        raise WrongValue("key_id", "The API key is not one of this team.")
    return key


def _chosen(team: Team | None, ids: list[int]) -> list[Channel]:
    """Raises WrongValue."""
    rows = list(Channel.objects.filter(pk__in=ids, team=team))
    if len(rows) != len(set(ids)):
        raise WrongValue("channel_ids", "A channel is not one of this team.")
    return rows


# As they are shown


def _alert(row: Alert, *, may_change: bool) -> Shown:
    names = [name for name in AlertOut.model_fields if name not in ("channel_ids", "created_by")]
    return {
        **picked(row, names),
        "channel_ids": sorted(each.pk for each in row.channels.all()) if may_change else None,
        "created_by": email_of(row.created_by),
    }


def _event(row: AlertEvent, messages: list[Shown]) -> Shown:
    names = [name for name in AlertEventOut.model_fields if name != "messages"]
    return {**picked(row, names), "messages": messages}


def _message(row: Outbox) -> Shown:
    is_over = row.sent_at is not None or row.given_up_at is not None
    return {
        **picked(row, ("event", "created_at", "sent_at", "given_up_at", "tries", "answer")),
        "channel_id": row.to_id,
        "email": row.email or None,
        "next_try_at": None if is_over else row.next_try_at,
        "error": row.last_error,
    }


def _channel(request: HttpRequest, row: Channel) -> Shown:
    token, needed = known(request).token, {SCOPE} if row.team_id else {SCOPE, OF_THE_SYSTEM}
    may_change = token is None or needed <= set(token.scopes)
    return {
        **picked(row, ("id", "team_id", "kind", "name", "address", "enabled", "created_at")),
        "created_by": email_of(row.created_by),
        "secret": secret_of(row) if may_change and row.kind == Channel.Kind.WEBHOOK else None,
    }
