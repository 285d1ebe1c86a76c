"""One door for every operation of the management API: a session of our pages, or an access token.

`door(scope)` is a router's `auth`. A token needs the scope "read" to look, and the room's own to change.
What a person may do in a team is decided afterwards, by `queries`.
"""

from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, cast

from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone
from ninja.errors import AuthenticationError, AuthorizationError
from ninja.security.base import AuthBase
from ninja.utils import check_csrf

from accounts import queries, tokens
from accounts.actor import Actor, ActorKind, acting_as, actor
from accounts.models import AccessToken, Team, User
from accounts.refusals import REFUSALS

LOOKS = ("GET", "HEAD")
NO_TOKEN = ""
"""The scope of operations that no access token may use."""

_REMEMBERED = "_penstock_access"


@dataclass(frozen=True, slots=True)
class Access:
    """Who asks, and the access token they asked with, if any."""

    user: User
    token: AccessToken | None = None

    def actor(self, where: Actor) -> Actor:
        """The same place, with who it is for the audit."""
        kind: ActorKind = "person" if self.token is None else "token"
        return replace(where, kind=kind, name=self.user.email, user_id=self.user.pk)


class TokenAuth(AuthBase):
    """`Authorization: Bearer pat_…`. Lets whoever brings none through to the next way in."""

    openapi_type = "http"
    openapi_scheme = "bearer"
    openapi_description = (
        "An access token, made on the page of one's account or by `POST /api/access-tokens`."
    )

    def __init__(self, scope: str) -> None:
        self.scope = scope
        super().__init__()

    def __call__(self, request: HttpRequest) -> Access | None:
        if presented(request) is None:
            return None
        access = known(request)
        require_scope(access, "read" if request.method in LOOKS else self.scope)
        return access


class SessionAuth(AuthBase):
    """The cookie of our pages, and for a change their CSRF token as `X-CSRFToken`."""

    openapi_type = "apiKey"
    openapi_in = "cookie"
    openapi_name = settings.SESSION_COOKIE_NAME
    csrf = True  # the page of the documentation then sends the token along
    openapi_description = "The session of a person who is signed in. Changes need the header `X-CSRFToken`."

    def __call__(self, request: HttpRequest) -> Access:
        access = known(request)
        if check_csrf(request) is not None:
            raise AuthorizationError(message="Send the CSRF token as X-CSRFToken, from a page of this site.")
        return access


def door(scope: str) -> list[AuthBase]:
    """Both ways in. `scope` is what a token needs for a change; NO_TOKEN: a person has to do it."""
    return [TokenAuth(scope), SessionAuth()]


def known(request: HttpRequest) -> Access:
    """Who asks, looked up once a request. Raises AuthenticationError."""
    if not hasattr(request, _REMEMBERED):
        setattr(request, _REMEMBERED, _look_up(request))
    return cast(Access, getattr(request, _REMEMBERED))


def presented(request: HttpRequest) -> str | None:
    """The access token in clear, if one was brought."""
    kind, _, text = request.headers.get("Authorization", "").partition(" ")
    return text.strip() if kind.lower() == "bearer" else None


def _look_up(request: HttpRequest) -> Access:
    text = presented(request)
    if text is not None:
        token = tokens.token_owner(text, timezone.now(), actor().address)
        if token is None:
            raise AuthenticationError(message="The access token is wrong, expired or revoked.")
        return Access(token.user, token)
    if not isinstance(request.user, User):
        raise AuthenticationError(message="Sign in first.")
    return Access(request.user)


def require_scope(access: Access, scope: str) -> None:
    """A person in a session may do all that is theirs. Raises AuthorizationError."""
    if access.token is None or scope in access.token.scopes:
        return
    if scope == NO_TOKEN:
        raise AuthorizationError(message="A person has to do this, signed in on a page of this site.")
    raise AuthorizationError(message=f"The access token needs the scope '{scope}' for this.")


def on_their_behalf(operation: Any) -> Any:
    """A decorator of every operation: its changes are audited as made by whoever asked."""

    @wraps(operation)
    def run(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        with acting_as(known(request).actor(actor())):
            return operation(request, *args, **kwargs)

    return run


def me(request: HttpRequest) -> User:
    """The person who asks; operations are reached by known people only."""
    return known(request).user


def require(request: HttpRequest, team: Team, action: queries.Action) -> None:
    """Raises AuthorizationError. That the person may see the team was decided before."""
    if not queries.may(me(request), team, action):
        raise AuthorizationError(message=str(REFUSALS[action]))


def refusal(action: queries.Action) -> AuthorizationError:
    """For somebody whose role does not allow this."""
    return AuthorizationError(message=str(REFUSALS[action]))
