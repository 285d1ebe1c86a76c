"""Who you are here, and your access tokens."""

from datetime import datetime
from typing import Any, Literal

from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from ninja import Query, Router, Schema
from ninja.responses import Status
from pydantic import Field

from accounts import tokens
from accounts.api.auth import NO_TOKEN, door, known, me
from accounts.api.found import picked
from accounts.api.shapes import Moment, Name, Page, Role, Window, page, shown, taken
from accounts.models import AccessToken, Membership

Listed = dict[str, Any]

people = Router(tags=["people"], auth=door(NO_TOKEN))


class PlaceOut(Schema):
    model_config = shown(id=3, slug="search", name="Search", role="owner")

    id: int
    slug: str
    name: str
    role: Role


class TokenOut(Schema):
    model_config = shown(
        id=7,
        name="terraform",
        prefix="pat_0aB1cD2eF3gH",
        scopes=["read", "keys"],
        created_at="2030-01-01T00:00:00Z",
        expires_at="2031-01-01T00:00:00Z",
        revoked_at=None,
        last_used_at="2030-02-01T08:30:00Z",
        last_used_from="198.51.100.7",
    )

    id: int
    name: str
    prefix: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    last_used_from: str


class MeOut(Schema):
    model_config = shown(
        id=1,
        email="alice@example.com",
        administrator=False,
        teams=[{"id": 3, "slug": "search", "name": "Search", "role": "owner"}],
        access_token=None,
    )

    id: int
    email: str
    administrator: bool
    teams: list[PlaceOut]
    """Where the person has a role; an administrator sees other teams too."""
    access_token: TokenOut | None
    """What this request came with; null: a session."""


class MadeToken(TokenOut):
    model_config = shown(
        id=7,
        name="terraform",
        prefix="pat_0aB1cD2eF3gH",
        scopes=["read", "keys"],
        created_at="2030-01-01T00:00:00Z",
        expires_at=None,
        revoked_at=None,
        last_used_at=None,
        last_used_from="",
        access_token="pat_0aB1cD2eF3gH_…",  # noqa: S106
    )

    access_token: str
    """Shown this once."""


class NewToken(Schema):
    model_config = taken(name="terraform", scopes=["read", "keys"], expires_at="2031-01-01T00:00:00Z")

    name: Name
    scopes: list[Literal["read", "keys", "teams", "limits", "operate"]] = Field(min_length=1, max_length=10)
    expires_at: Moment | None = None


@people.get("/me", response=MeOut)
def get_me(request: HttpRequest) -> Listed:
    """Who you are here: your teams, your roles in them, and what your access token may do."""
    access = known(request)
    places = Membership.objects.filter(user=access.user).select_related("team").order_by("team__name")
    return {
        "id": access.user.pk,
        "email": access.user.email,
        "administrator": access.user.is_superuser,
        "teams": [_place(each) for each in places],
        "access_token": access.token and _token(access.token),
    }


@people.get("/access-tokens", response=Page[TokenOut])
def list_access_tokens(request: HttpRequest, window: Query[Window]) -> Listed:
    """Your own access tokens, revoked and expired ones too, the newest first."""
    listed, after = page(AccessToken.objects.filter(user=me(request)), window)
    return {"items": [_token(each) for each in listed], "next": after}


@people.post("/access-tokens", response={201: MadeToken})
def make_access_token(request: HttpRequest, new: NewToken) -> Status[Listed]:
    """Make an access token. Its text is in this answer and nowhere else."""
    token, text = tokens.make_token(me(request), new.name, new.scopes, new.expires_at)
    return Status(201, {**_token(token), "access_token": text})


@people.post("/access-tokens/{int:token_id}/revoke", response=TokenOut)
def revoke_access_token(request: HttpRequest, token_id: int) -> Listed:
    """Revoke one of your access tokens, for good."""
    token = get_object_or_404(AccessToken, user=me(request), pk=token_id)
    tokens.revoke_token(token)
    return _token(token)


def _place(membership: Membership) -> Listed:
    return {**picked(membership.team, ("id", "slug", "name")), "role": membership.role}


def _token(row: AccessToken) -> Listed:
    fields = [each for each in TokenOut.model_fields if each != "prefix"]
    return {**picked(row, fields), "prefix": f"pat_{row.public_id}"}
