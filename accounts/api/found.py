"""What is there for whoever asks, and what of it they may change.

What is in a team that the person is not in does not exist for them: 404, whatever they ask.
What their role does not allow is a 403 with a sentence.
"""

from collections.abc import Iterable
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from ninja.errors import AuthorizationError

from accounts import queries, services
from accounts.api.auth import me, refusal, require
from accounts.models import ApiKey, Team, User


def team_of(request: HttpRequest, team_id: int, action: queries.Action | None = None) -> Team:
    """A team of the person's, in which they may do this. Raises Http404, AuthorizationError."""
    team = get_object_or_404(teams(request), pk=team_id)
    if action is not None:
        require(request, team, action)
    return team


def own_key(request: HttpRequest, key_id: int) -> ApiKey:
    """An API key that the person may change. Raises Http404, AuthorizationError."""
    key = get_object_or_404(keys(request), pk=key_id)
    if not queries.may_manage_key(me(request), key):
        raise refusal("manage_keys")
    return key


def visible_key(request: HttpRequest, key_id: int) -> ApiKey:
    """An API key of one of the person's teams. Raises Http404."""
    return get_object_or_404(keys(request), pk=key_id)


def teams(request: HttpRequest) -> QuerySet[Team]:
    return queries.teams_of(me(request))


def keys(request: HttpRequest) -> QuerySet[ApiKey]:
    """With their secrets: two queries."""
    rows = ApiKey.objects.filter(team__in=teams(request)).select_related("team", "created_by")
    return rows.prefetch_related("secrets")


def person(field: str, email: str) -> User:
    """Raises WrongValue."""
    found = User.objects.filter(email=User.objects.normalize_email(email), is_active=True).first()
    if found is None:
        raise services.WrongValue(field, "Nobody has this address here; invite them.")
    return found


def require_administrator(request: HttpRequest) -> None:
    if not me(request).is_superuser:
        raise AuthorizationError(message="Only an administrator may do this.")


def email_of(person: User | None) -> str | None:
    return person.email if person else None


def picked(row: Any, names: Iterable[str]) -> dict[str, Any]:
    """Some of a row's fields, by name."""
    return {name: getattr(row, name) for name in names}
