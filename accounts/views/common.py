"""What every page here needs: who reads it, what is there for them, and what their role allows.

What is in another team does not exist here: 404.
What one's role does not allow is a 403 with a sentence.
"""

import secrets
from collections.abc import Callable
from typing import cast

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.shortcuts import get_object_or_404

from accounts import queries, services
from accounts.models import ApiKey, Team, User
from accounts.refusals import REFUSALS

FORMS_REMEMBERED = 20
"""How many open forms of one session can each still be sent once."""


def me(request: HttpRequest) -> User:
    """The reader; the pages are for signed-in people only."""
    return cast(User, request.user)


def team_or_404(request: HttpRequest, slug: str) -> Team:
    return get_object_or_404(queries.teams_of(me(request)), slug=slug)


def key_or_404(request: HttpRequest, key_id: int) -> ApiKey:
    keys = ApiKey.objects.select_related("team", "created_by")
    return get_object_or_404(keys, pk=key_id, team__in=queries.teams_of(me(request)))


def rights_in(request: HttpRequest, team: Team) -> frozenset[queries.Action]:
    """What the reader may do in a team, in one query."""
    return queries.rights(me(request), queries.roles_of(me(request)).get(team.pk))


def require(request: HttpRequest, team: Team, action: queries.Action) -> None:
    """Raises PermissionDenied."""
    if not queries.may(me(request), team, action):
        raise PermissionDenied(str(REFUSALS[action]))


def team_to(request: HttpRequest, slug: str, action: queries.Action) -> Team:
    """A team in which the reader may do this. Raises Http404 or PermissionDenied."""
    team = team_or_404(request, slug)
    require(request, team, action)
    return team


def key_to_manage(request: HttpRequest, key_id: int) -> ApiKey:
    """A key that the reader may change. Raises Http404 or PermissionDenied."""
    key = key_or_404(request, key_id)
    if not queries.may_manage_key(me(request), key):
        raise PermissionDenied(str(REFUSALS["manage_keys"]))
    return key


def tell(request: HttpRequest, change: Callable[[], object], done: str) -> bool:
    """Make a change, and say on the next page that it is done, or why it cannot be."""
    try:
        change()
    except services.NotPossible as why:
        messages.error(request, str(why))
        return False
    messages.success(request, done)
    return True


def refuse(form: forms.Form, why: services.NotPossible, field: str | None = None) -> None:
    """Say it beside the field that it is about, else above the form."""
    field = getattr(why, "field", field)
    form.add_error(field if field in form.fields else None, str(why))


def open_form(request: HttpRequest) -> str:
    """A mark for a form that may be sent once, so that a reload of its answer makes no second secret."""
    mark = secrets.token_urlsafe(12)
    request.session["open_forms"] = [*request.session.get("open_forms", []), mark][-FORMS_REMEMBERED:]
    return mark


def close_form(request: HttpRequest, mark: str) -> bool:
    """Whether the form was still open; it is closed now."""
    still_open = request.session.get("open_forms", [])
    if mark not in still_open:
        return False
    request.session["open_forms"] = [each for each in still_open if each != mark]
    return True


def sent_already(request: HttpRequest, what: str) -> None:
    """For the next page, where a form came a second time."""
    sentence = f"That form was sent already. {what} is shown only once; make another if it is lost."
    messages.warning(request, sentence)
