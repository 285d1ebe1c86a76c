"""API keys: their settings, their secrets, and who uses which."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from django.db.models import Prefetch, Q, QuerySet
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from django.utils import timezone
from ninja import Body, Query, Router, Schema
from ninja.responses import Status
from pydantic import Field, with_config
from typing_extensions import TypedDict

from accounts import queries, services
from accounts.api import found
from accounts.api.auth import door, me, require
from accounts.api.found import email_of, picked
from accounts.api.shapes import Line, Moment, Name, Page, Whole, Window, page, shown, taken
from accounts.keys import prefix_of
from accounts.models import ApiKey, KeySecret, KeyUse
from accounts.searching import with_part

Ceiling = Literal["urgent", "normal", "batch"]
Kind = Literal["service", "personal"]
Listed = dict[str, Any]

PROGRAM_COUNTS_FOR = timedelta(hours=24)
"""A program that has not used a secret for longer is taken to have moved on."""

keys = Router(tags=["keys"], auth=door("keys"))


class KeyOut(Schema):
    model_config = shown(
        id=11,
        team_id=3,
        team="search",
        name="nightly index",
        kind="service",
        state="active",
        prefix="pst_0aB1cD2eF3gH",
        overlapping=1,
        priority_ceiling="normal",
        routes=["gpt-4o"],
        networks=["198.51.100.0/24"],
        tags={"project": "index"},
        created_by="alice@example.com",
        created_at="2030-01-01T00:00:00Z",
        expires_at=None,
        revoked_at=None,
        last_used_at="2030-02-01T08:30:00Z",
    )

    id: int
    team_id: int
    team: str
    """The slug of its team."""
    name: str
    kind: Literal["service", "personal", "playground"]
    """One of the playground is made by its page, lives for an hour, and is not listed."""
    state: Literal["active", "expired", "revoked"]
    prefix: str
    """How its current secret begins."""
    overlapping: int
    """How many older secrets still work."""
    priority_ceiling: Ceiling
    routes: list[str] | None
    """The model names that it may use; null: all."""
    networks: list[str]
    """Where its calls may come from; empty: from anywhere."""
    tags: dict[str, str]
    """Stamped on every entry of its calls."""
    created_by: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class MadeKey(KeyOut):
    model_config = shown(
        id=11,
        team_id=3,
        team="search",
        name="nightly index",
        kind="service",
        state="active",
        prefix="pst_0aB1cD2eF3gH",
        overlapping=0,
        priority_ceiling="normal",
        routes=None,
        networks=[],
        tags={},
        created_by="alice@example.com",
        created_at="2030-01-01T00:00:00Z",
        expires_at=None,
        revoked_at=None,
        last_used_at=None,
        api_key="pst_0aB1cD2eF3gH_…",
    )

    api_key: str
    """Shown this once."""


Routes = Annotated[list[Line], Field(max_length=1000)]
Networks = Annotated[list[Line], Field(max_length=100)]
Tags = Annotated[dict[Line, Line], Field(max_length=100)]


class NewKey(Schema):
    model_config = taken(
        name="nightly index",
        kind="service",
        expires_at="2031-01-01T00:00:00Z",
        priority_ceiling="batch",
        routes=["gpt-4o"],
        networks=["198.51.100.0/24"],
        tags={"project": "index"},
    )

    name: Name
    kind: Kind = "service"
    expires_at: Moment | None = None
    priority_ceiling: Ceiling = "normal"
    routes: Routes | None = None
    networks: Networks = []
    tags: Tags = {}


@with_config(taken(name="nightly index", priority_ceiling="batch", tags={"project": "index"}))
class KeyChanges(TypedDict, total=False):
    """What is absent stays as it is."""

    name: Name
    kind: Kind
    expires_at: Moment | None
    priority_ceiling: Ceiling
    routes: Routes | None
    networks: Networks
    tags: Tags


class ProgramOut(Schema):
    model_config = shown(
        address="198.51.100.7",
        user_agent="openai-python/2.1",
        first_used_at="2030-01-01T00:00:00Z",
        last_used_at="2030-02-01T08:30:00Z",
        uses=1200,
    )

    address: str
    user_agent: str
    first_used_at: datetime
    last_used_at: datetime
    uses: int


_SECRET: dict[str, Any] = {
    "id": 21,
    "prefix": "pst_0aB1cD2eF3gH",
    "state": "current",
    "created_at": "2030-01-01T00:00:00Z",
    "ends_at": None,
    "last_used_at": None,
    "last_used_from": "",
    "last_user_agent": "",
    "uses": 0,
    "programs": [],
}


class SecretOut(Schema):
    model_config = shown(
        id=21,
        prefix="pst_0aB1cD2eF3gH",
        state="overlapping",
        created_at="2030-01-01T00:00:00Z",
        ends_at="2030-02-02T08:30:00Z",
        last_used_at="2030-02-01T08:30:00Z",
        last_used_from="198.51.100.7",
        last_user_agent="openai-python/2.1",
        uses=1200,
        programs=[
            {
                "address": "198.51.100.7",
                "user_agent": "openai-python/2.1",
                "first_used_at": "2030-01-01T00:00:00Z",
                "last_used_at": "2030-02-01T08:30:00Z",
                "uses": 1200,
            }
        ],
    )

    id: int
    prefix: str
    state: Literal["current", "overlapping", "ended"]
    created_at: datetime
    ends_at: datetime | None
    last_used_at: datetime | None
    last_used_from: str
    last_user_agent: str
    uses: int
    programs: list[ProgramOut]
    """Who used it in the last 24 hours, the latest first."""


class Rotation(Schema):
    model_config = taken(overlap_s=86400)

    overlap_s: int = Field(int(services.USUAL_OVERLAP.total_seconds()), ge=0, le=30 * 86400)
    """How long the secret before it still works, in seconds."""


class Rotated(Schema):
    model_config = shown(secret=_SECRET, api_key="pst_0aB1cD2eF3gH_…")

    secret: SecretOut
    api_key: str
    """The API key with its new secret. Shown this once."""


class OverlapEnd(Schema):
    model_config = taken(ends_at="2030-02-10T00:00:00Z")

    ends_at: Moment


class KeyFilter(Window):
    team: Whole | None = Field(None, description="The id of a team.")
    state: Literal["active", "expired", "revoked"] | None = None
    name: str = Field("", max_length=100, description="Part of the name, among the 10,000 newest keys.")


@keys.get("/keys", response=Page[KeyOut])
def list_keys(request: HttpRequest, asked: Query[KeyFilter]) -> Listed:
    """The API keys of your teams, the newest first."""
    rows = found.keys(request).exclude(kind=ApiKey.Kind.PLAYGROUND)
    if asked.team is not None:
        rows = rows.filter(team=asked.team)
    if asked.state is not None:
        rows = rows.filter(_in_state(asked.state, timezone.now()))
    if asked.name:
        rows = with_part(rows, "name", asked.name)
    listed, after = page(rows, asked)
    return {"items": [_key(each) for each in listed], "next": after}


@keys.post("/teams/{int:team_id}/keys", response={201: MadeKey})
def make_key(request: HttpRequest, team_id: int, new: NewKey) -> Status[Listed]:
    """Make an API key. Its text is in this answer and nowhere else."""
    team = found.team_of(request, team_id, "make_keys")
    if new.priority_ceiling == "urgent":
        require(request, team, "allow_urgent")
    given = new.model_dump(exclude={"name", "expires_at"})
    key, text = services.create_key(team, new.name, me(request), new.expires_at, **given)
    return Status(201, {**_shown_key(request, key.pk), "api_key": text})


@keys.get("/keys/{int:key_id}", response=KeyOut)
def get_key(request: HttpRequest, key_id: int) -> Listed:
    """One API key. Nothing of a secret but how it begins."""
    return _shown_key(request, key_id)


@keys.patch("/keys/{int:key_id}", response=KeyOut)
def change_key(request: HttpRequest, key_id: int, changes: Body[KeyChanges]) -> Listed:
    """Change an API key's settings. Every serving process goes by them at once."""
    key = found.own_key(request, key_id)
    if changes.get("priority_ceiling") == "urgent" != key.priority_ceiling:
        require(request, key.team, "allow_urgent")
    services.update_key(key, dict(changes))
    return _shown_key(request, key_id)


@keys.post("/keys/{int:key_id}/rotate", response={201: Rotated})
def rotate_key(request: HttpRequest, key_id: int, how: Rotation) -> Status[Listed]:
    """Give an API key a new secret, while the one before works on for the overlap.

    Send an `Idempotency-Key`: where the answer was lost, the same request shows it again.
    """
    key = found.own_key(request, key_id)
    secret, text = services.rotate_key(key, me(request), timedelta(seconds=how.overlap_s))
    return Status(201, {"secret": _shown_secret(key, secret.pk), "api_key": text})


@keys.post("/keys/{int:key_id}/revoke", response=KeyOut)
def revoke_key(request: HttpRequest, key_id: int) -> Listed:
    """Refuse all calls with this API key from now on, for good. Open streams of it end within 2 seconds."""
    services.revoke_key(found.own_key(request, key_id), by=me(request))
    return _shown_key(request, key_id)


@keys.get("/keys/{int:key_id}/secrets", response=Page[SecretOut])
def list_secrets(request: HttpRequest, key_id: int, window: Query[Window]) -> Listed:
    """An API key's secrets, the newest first, and the programs that use each."""
    key = found.visible_key(request, key_id)
    listed, after = page(_secrets(key), window)
    return {"items": [_secret(each) for each in listed], "next": after}


@keys.patch("/keys/{int:key_id}/secrets/{int:secret_id}", response=SecretOut)
def move_overlap_end(request: HttpRequest, key_id: int, secret_id: int, end: OverlapEnd) -> Listed:
    """Let an overlapping secret work until another moment, at most 30 days from now."""
    key = found.own_key(request, key_id)
    services.extend_overlap(get_object_or_404(_secrets(key), pk=secret_id), end.ends_at)
    return _shown_secret(key, secret_id)


@keys.post("/keys/{int:key_id}/secrets/{int:secret_id}/end", response=SecretOut)
def end_overlap(request: HttpRequest, key_id: int, secret_id: int) -> Listed:
    """End an overlapping secret at once."""
    key = found.own_key(request, key_id)
    services.end_overlap(get_object_or_404(_secrets(key), pk=secret_id))
    return _shown_secret(key, secret_id)


def _in_state(state: str, now: datetime) -> Q:
    if state == "revoked":
        return Q(revoked_at__isnull=False)
    over = Q(expires_at__isnull=False, expires_at__lte=now)
    return Q(revoked_at=None) & (over if state == "expired" else ~over)


def _secrets(key: ApiKey) -> QuerySet[KeySecret]:
    """With the programs that use them: two queries."""
    recent = KeyUse.objects.filter(last_used_at__gt=timezone.now() - PROGRAM_COUNTS_FOR)
    rows = KeySecret.objects.filter(key=key).select_related("key__team")
    return rows.prefetch_related(Prefetch("programs", recent))


def _shown_key(request: HttpRequest, key_id: int) -> Listed:
    return _key(found.visible_key(request, key_id))


def _key(key: ApiKey) -> Listed:
    now, secrets = timezone.now(), list(key.secrets.all())
    used = [each.last_used_at for each in secrets if each.last_used_at is not None]
    current = next((each for each in secrets if each.ends_at is None), None)
    fields = ("id", "team_id", "name", "kind", "priority_ceiling", "routes", "networks", "tags")
    return {
        **picked(key, (*fields, "created_at", "expires_at", "revoked_at")),
        "team": key.team.slug,
        "state": queries.state_of(key, now),
        "prefix": prefix_of(current.public_id) if current else "",
        "overlapping": sum(each.ends_at is not None and each.ends_at > now for each in secrets),
        "created_by": email_of(key.created_by),
        "last_used_at": max(used, default=None),
    }


def _shown_secret(key: ApiKey, secret_id: int) -> Listed:
    return _secret(get_object_or_404(_secrets(key), pk=secret_id))


def _secret(row: KeySecret) -> Listed:
    fields = [each for each in SecretOut.model_fields if each not in ("prefix", "state", "programs")]
    programs = [picked(each, ProgramOut.model_fields) for each in row.programs.all()]
    now = timezone.now()
    state = "current" if row.ends_at is None else "overlapping" if row.ends_at > now else "ended"
    own = {"prefix": prefix_of(row.public_id), "state": state, "programs": programs}
    return {**picked(row, fields), **own}
