"""The management API of the names of tags that teams tell their usage apart by."""

from django.http import HttpRequest
from ninja import Router, Schema
from pydantic import Field

from accounts.api.auth import door
from accounts.api.found import team_of
from accounts.api.shapes import Line, shown, taken
from gateway import tag_names

tags = Router(tags=["teams"], auth=door("teams"))


class TagNamesOut(Schema):
    model_config = shown(names=["environment", "project"])

    names: list[str]
    """In the order of the alphabet."""


class TagNamesIn(Schema):
    model_config = taken(names=["environment", "project"])

    names: list[Line] = Field(max_length=100)


@tags.get("/teams/{int:team_id}/tag-names", response=TagNamesOut)
def list_tag_names(request: HttpRequest, team_id: int) -> dict[str, list[str]]:
    """The names of tags by which a team's usage is told apart."""
    return {"names": tag_names.names_of(team_of(request, team_id))}


@tags.put("/teams/{int:team_id}/tag-names", response=TagNamesOut)
def set_tag_names(request: HttpRequest, team_id: int, new: TagNamesIn) -> dict[str, list[str]]:
    """Tell a team's usage apart by these names of tags and no others, at most 10; kept calls too."""
    team = team_of(request, team_id, "manage_members")
    return {"names": tag_names.declare(team, new.names)}
