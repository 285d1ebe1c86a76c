"""Teams, their people, and invitations."""

from datetime import datetime
from typing import Annotated, Any, Literal

from django.conf import settings
from django.db.models import QuerySet
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from django.utils import timezone
from ninja import Body, Query, Router, Schema
from ninja.responses import Status
from pydantic import Field, with_config
from typing_extensions import TypedDict

from accounts import queries, services
from accounts.api import found
from accounts.api.auth import door, me
from accounts.api.found import email_of, picked
from accounts.api.shapes import Email, Line, Name, Page, Role, Window, also, page, shown, taken
from accounts.models import Invitation, Membership, Team
from accounts.searching import with_part
from accounts.services.invitations import MOST_DAYS, USUAL_DAYS

Listed = dict[str, Any]

teams = Router(tags=["teams"], auth=door("teams"))


class TeamOut(Schema):
    model_config = shown(
        id=3,
        slug="search",
        name="Search",
        created_at="2030-01-01T00:00:00Z",
        archived_at=None,
        role="owner",
        people=4,
        active_keys=2,
    )

    id: int
    slug: str
    name: str
    created_at: datetime
    archived_at: datetime | None
    role: Role | None
    """Yours; null: you see it as an administrator."""
    people: int
    active_keys: int


class NewTeam(Schema):
    model_config = taken(name="Search", owner="alice@example.com")

    name: Name
    owner: Email | None = None
    """The e-mail address of its first owner; yourself where absent."""


@with_config(taken(name="Search and maps"))
class TeamChanges(TypedDict, total=False):
    """What is absent stays as it is."""

    name: Name


class MemberOut(Schema):
    model_config = shown(user_id=1, email="alice@example.com", role="owner", joined_at="2030-01-01T00:00:00Z")

    user_id: int
    email: str
    role: Role
    joined_at: datetime


class NewMember(Schema):
    model_config = taken(email="bob@example.com", role="member")

    email: Email
    role: Role


class NewRole(Schema):
    model_config = taken(role="viewer")

    role: Role


class HandOver(Schema):
    model_config = taken(user_id=2)

    user_id: int


class InvitationOut(Schema):
    model_config = shown(
        id=5,
        email="bob@example.com",
        role="member",
        state="open",
        created_by="alice@example.com",
        created_at="2030-01-01T00:00:00Z",
        expires_at="2030-01-08T00:00:00Z",
        accepted_by=None,
    )

    id: int
    email: str
    """Whom it is for; empty: anybody with an account and the link."""
    role: Role
    state: Literal["open", "accepted", "withdrawn", "expired"]
    created_by: str | None
    created_at: datetime
    expires_at: datetime
    accepted_by: str | None


class MadeInvitation(InvitationOut):
    model_config = shown(
        id=5,
        email="",
        role="member",
        state="open",
        created_by="alice@example.com",
        created_at="2030-01-01T00:00:00Z",
        expires_at="2030-01-08T00:00:00Z",
        accepted_by=None,
        link="https://llm.example.com/invitations/…/",
    )

    link: str | None
    """Shown this once; null: it was mailed, and is in that mail alone, so that it proves the address."""


class NewInvitation(Schema):
    model_config = taken(role="member", email="bob@example.com", days=7)

    role: Role = "member"
    email: Annotated[Line, Field(max_length=254)] = ""
    """Whom to mail it to; empty: hand the link on yourself."""
    days: int = Field(USUAL_DAYS, ge=1, le=MOST_DAYS)


class Acceptance(Schema):
    model_config = taken(invitation="what-stands-after-invitations-in-the-link")

    invitation: Annotated[Line, Field(min_length=1)]
    """What stands after `/invitations/` in the link."""


class TeamFilter(Window):
    archived: bool | None = Field(None, description="Only archived teams, or only the others.")
    name: str = Field("", max_length=100, description="Part of the name, among the 10,000 newest teams.")


@teams.get("/teams", response=Page[TeamOut])
def list_teams(request: HttpRequest, asked: Query[TeamFilter]) -> Listed:
    """Your teams by name; to an administrator, all."""
    rows = queries.with_counts(found.teams(request), timezone.now())
    if asked.archived is not None:
        rows = rows.filter(archived_at__isnull=not asked.archived)
    if asked.name:
        rows = with_part(rows, "name", asked.name)
    listed, after = page(rows, asked, "name")
    roles = queries.roles_of(me(request))
    return {"items": [_team(each, roles) for each in listed], "next": after}


@teams.post("/teams", response={201: TeamOut})
def make_team(request: HttpRequest, new: NewTeam) -> Status[Listed]:
    """Make a team with its first owner. For administrators."""
    found.require_administrator(request)
    owner = me(request) if new.owner is None else found.person("owner", new.owner)
    return Status(201, _shown_team(request, services.create_team(new.name, owner).pk))


@teams.get("/teams/{int:team_id}", response=TeamOut)
def get_team(request: HttpRequest, team_id: int) -> Listed:
    """One team."""
    return _shown_team(request, team_id)


@teams.patch("/teams/{int:team_id}", response=TeamOut)
def change_team(request: HttpRequest, team_id: int, changes: Body[TeamChanges]) -> Listed:
    """Rename a team. Its slug stays, so that links to it do too."""
    team = found.team_of(request, team_id, "manage_members")
    if "name" in changes:
        services.rename_team(team, changes["name"])
    return _shown_team(request, team_id)


@teams.post("/teams/{int:team_id}/archive", response=TeamOut)
def archive_team(request: HttpRequest, team_id: int) -> Listed:
    """Refuse all calls of a team from now on, and let nothing be made in it. It stays on the books."""
    services.archive_team(found.team_of(request, team_id, "manage_members"), me(request))
    return _shown_team(request, team_id)


@teams.post("/teams/{int:team_id}/restore", response=TeamOut)
def restore_team(request: HttpRequest, team_id: int) -> Listed:
    """Take an archived team back into use, with its API keys."""
    services.restore_team(found.team_of(request, team_id, "manage_members"))
    return _shown_team(request, team_id)


@teams.post("/teams/{int:team_id}/leave", response={204: None})
def leave_team(request: HttpRequest, team_id: int) -> Status[None]:
    """Leave a team. Your personal API keys in it are revoked; its last owner cannot leave."""
    services.leave_team(found.team_of(request, team_id), me(request))
    return Status(204, None)


@teams.post("/teams/{int:team_id}/hand-over", response=TeamOut)
def hand_over_team(request: HttpRequest, team_id: int, to: HandOver) -> Listed:
    """Make another member owner in your place; you are a member from then on."""
    team = found.team_of(request, team_id, "manage_members")
    services.hand_over(team, me(request), _member(team, to.user_id).user)
    return _shown_team(request, team_id)


@teams.get("/teams/{int:team_id}/members", response=Page[MemberOut])
def list_members(request: HttpRequest, team_id: int, window: Query[Window]) -> Listed:
    """A team's people, in the order in which they joined."""
    team = found.team_of(request, team_id)
    listed, after = page(Membership.objects.filter(team=team).select_related("user"), window, "id")
    return {"items": [_membership(each) for each in listed], "next": after}


@teams.post("/teams/{int:team_id}/members", response={201: MemberOut})
def add_member(request: HttpRequest, team_id: int, new: NewMember) -> Status[Listed]:
    """Add somebody who has an account. Others are invited."""
    team = found.team_of(request, team_id, "manage_members")
    return Status(201, _membership(services.add_member(team, found.person("email", new.email), new.role)))


@teams.patch("/teams/{int:team_id}/members/{int:user_id}", response=MemberOut)
def change_member(request: HttpRequest, team_id: int, user_id: int, new: NewRole) -> Listed:
    """Give a member another role. Nobody raises their own, and a team keeps an owner."""
    team = found.team_of(request, team_id, "manage_members")
    services.set_role(team, _member(team, user_id).user, new.role, by=me(request))
    return _membership(_member(team, user_id))


@teams.delete("/teams/{int:team_id}/members/{int:user_id}", response={204: None})
def remove_member(request: HttpRequest, team_id: int, user_id: int) -> Status[None]:
    """Take somebody off a team. Their personal API keys in it are revoked; service keys stay."""
    team = found.team_of(request, team_id, "manage_members")
    services.remove_member(team, _member(team, user_id).user)
    return Status(204, None)


@teams.get("/teams/{int:team_id}/invitations", response=Page[InvitationOut])
def list_invitations(request: HttpRequest, team_id: int, window: Query[Window]) -> Listed:
    """A team's invitations, the newest first. Their links are not shown again."""
    team = found.team_of(request, team_id, "invite")
    listed, after = page(_invitations(team), window)
    return {"items": [_invitation(each) for each in listed], "next": after}


@teams.post("/teams/{int:team_id}/invitations", response={201: MadeInvitation})
def make_invitation(request: HttpRequest, team_id: int, new: NewInvitation) -> Status[Listed]:
    """Invite somebody, by mail or by a link to hand on, which is in this answer and nowhere else."""
    team = found.team_of(request, team_id, "invite")
    made, secret = services.invite(team, me(request), new.role, new.email, new.days)
    # Whoever has a mailed link may make the account of that address.
    link = None if made.email else f"{settings.PUBLIC_URL}/invitations/{secret}/"
    return Status(201, {**_invitation(made), "link": link})


@teams.delete("/teams/{int:team_id}/invitations/{int:invitation_id}", response={204: None})
def withdraw_invitation(request: HttpRequest, team_id: int, invitation_id: int) -> Status[None]:
    """Let nobody accept an invitation any more. One that cannot be accepted now is a 404."""
    team = found.team_of(request, team_id, "invite")
    services.withdraw_invitation(get_object_or_404(_invitations(team), pk=invitation_id))
    return Status(204, None)


@teams.post("/invitations/accept", response=TeamOut, openapi_extra=also(404))
def accept_invitation(request: HttpRequest, what: Acceptance) -> Listed:
    """Join the team that an invitation is for."""
    return _shown_team(request, services.accept_invitation(what.invitation, me(request)).team_id)


def _invitations(team: Team) -> QuerySet[Invitation]:
    return Invitation.objects.filter(team=team).select_related("team", "created_by", "accepted_by")


def _member(team: Team, user_id: int) -> Membership:
    return get_object_or_404(Membership.objects.select_related("user", "team"), team=team, user=user_id)


def _shown_team(request: HttpRequest, team_id: int) -> Listed:
    rows = queries.with_counts(found.teams(request), timezone.now())
    return _team(get_object_or_404(rows, pk=team_id), queries.roles_of(me(request)))


def _team(team: Any, roles: dict[int, str]) -> Listed:
    fields = ("id", "slug", "name", "created_at", "archived_at", "people", "active_keys")
    return {**picked(team, fields), "role": roles.get(team.pk)}


def _membership(row: Membership) -> Listed:
    return {"email": row.user.email, **picked(row, ("user_id", "role", "joined_at"))}


def _invitation(row: Invitation) -> Listed:
    fields = ("id", "email", "role", "created_at", "expires_at")
    people = {"created_by": email_of(row.created_by), "accepted_by": email_of(row.accepted_by)}
    return {**picked(row, fields), **people, "state": _state_of(row, timezone.now())}


def _state_of(row: Invitation, now: datetime) -> str:
    if row.accepted_at is not None:
        return "accepted"
    if row.withdrawn_at is not None:
        return "withdrawn"
    return "expired" if row.expires_at <= now else "open"
