"""The management API's upstream side, for operators: providers, routes, targets and their breakers.

Names are the catalog's. A change is validated whole, and heard of by every serving process at commit.
"""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from django.conf import settings
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from ninja import Body, Query, Router, Schema
from ninja.errors import AuthenticationError, AuthorizationError, HttpError
from ninja.security.apikey import APIKeyCookie
from ninja.utils import check_csrf
from pydantic import ConfigDict, FiniteFloat, JsonValue, with_config
from typing_extensions import TypedDict

from accounts.models import User
from gateway import services, upstreams
from gateway.inputs import clean_name
from gateway.models import BreakerChange, Credential, Provider, Route, Target
from gateway.relay.catalog import Lever, Overflow, Rule, TransportName
from gateway.relay.ports import BreakerState

MOST_CHANGES = 500
STRICT = ConfigDict(strict=True, extra="forbid")


class OperatorSession(APIKeyCookie):
    """Whom the operator pages let in too, by the same cookie, and from our own pages alone (CSRF)."""

    param_name = settings.SESSION_COOKIE_NAME

    def __call__(self, request: HttpRequest) -> User:
        user = request.user
        if not isinstance(user, User):
            raise AuthenticationError(message="Sign in first.")
        if not (user.is_active and user.is_staff):
            raise AuthorizationError(message="This is for administrators.")
        if check_csrf(request) is not None:
            raise AuthorizationError(message="Send the CSRF token as X-CSRFToken, from a page of this site.")
        return user

    def authenticate(self, request: HttpRequest, key: str | None) -> User:
        return self(request)


router = Router(tags=["upstream"])


class CredentialOut(Schema):
    kept: Literal["none", "encrypted", "environment"]
    env_var: str
    """The variable's name, where it is kept in the environment."""
    refused_at: datetime | None
    """When the provider last did not take it; null: it takes it, as far as is known."""
    refused_status: int | None


class ProviderOut(Schema):
    id: int
    slug: str
    name: str
    base_url: str
    enabled: bool
    simulated: bool
    ca_pem: str
    credential: CredentialOut


class PoolOut(Schema):
    max_connections: int
    max_keepalive_connections: int
    keepalive_expiry_s: float
    connect_timeout_s: float
    read_timeout_s: float
    write_timeout_s: float
    pool_timeout_s: float
    http2: bool


class TargetOut(Schema):
    id: int
    route: str
    provider: str
    upstream_model: str
    enabled: bool
    order: int
    weight: int
    transport: TransportName
    pool: PoolOut
    max_concurrency: int
    max_waiting: int
    context_window: int | None
    media_tokens: int | None
    parameters: dict[str, Rule]
    lever: Lever
    closed_at: datetime | None


class RouteOut(Schema):
    id: int
    model_name: str
    aliases: list[str]
    enabled: bool
    unpriced: Literal["refused", "allowed"]
    timeout_s: float | None
    overflow: Overflow
    overflow_route: str
    hang_up_drain_s: float
    max_tokens: int
    usual_max_tokens: int
    max_choices: int
    targets: list[TargetOut]


class ChangeOut(Schema):
    at: datetime
    before: BreakerState
    after: BreakerState
    cause: str
    until: datetime | None
    by_user: str | None
    """The e-mail address of whoever did it by hand."""


@with_config(STRICT)
class PoolChanges(TypedDict, total=False):
    max_connections: int
    max_keepalive_connections: int
    keepalive_expiry_s: FiniteFloat
    connect_timeout_s: FiniteFloat
    read_timeout_s: FiniteFloat
    write_timeout_s: FiniteFloat
    pool_timeout_s: FiniteFloat
    http2: bool


@with_config(STRICT)
class TargetChanges(TypedDict, total=False):
    """What is absent stays as it is."""

    enabled: bool
    order: int
    weight: int
    transport: TransportName
    pool: PoolChanges
    max_concurrency: int
    max_waiting: int
    context_window: int | None
    media_tokens: int | None
    parameters: dict[str, str]


@with_config(STRICT)
class RouteChanges(TypedDict, total=False):
    """What is absent stays as it is."""

    enabled: bool
    unpriced: Literal["refused", "allowed"]
    timeout_s: FiniteFloat | None
    overflow: Overflow
    overflow_route: str
    hang_up_drain_s: FiniteFloat
    max_tokens: int
    usual_max_tokens: int
    max_choices: int


class Pull(Schema):
    """What to do with a breaker, and why, for the timeline."""

    model_config = STRICT

    lever: Literal["open", "automatic", "close"]
    why: str = ""


@router.get("/providers", response=list[ProviderOut])
def providers(request: HttpRequest) -> list[dict[str, Any]]:
    """Every provider, by its slug. No credential is ever shown."""
    _require(request, "view_provider")
    return [_provider(each) for each in Provider.objects.select_related("credential")]


@router.get("/routes", response=list[RouteOut])
def routes(request: HttpRequest) -> list[dict[str, Any]]:
    """Every route, by its model name, with its targets in the order in which they are tried."""
    _require(request, "view_route")
    return [_route(each) for each in _routes()]


@router.get("/routes/{int:route_id}", response=RouteOut)
def route(request: HttpRequest, route_id: int) -> dict[str, Any]:
    _require(request, "view_route")
    return _route(get_object_or_404(_routes(), pk=route_id))


@router.patch("/routes/{int:route_id}", response=RouteOut)
def change_route(request: HttpRequest, route_id: int, changes: Body[RouteChanges]) -> dict[str, Any]:
    _require(request, "change_route")
    services.update_route(get_object_or_404(Route, pk=route_id), changes)
    return _route(get_object_or_404(_routes(), pk=route_id))


@router.get("/targets/{int:target_id}", response=TargetOut)
def target(request: HttpRequest, target_id: int) -> dict[str, Any]:
    _require(request, "view_target")
    return _target(_found(target_id))


@router.patch("/targets/{int:target_id}", response=TargetOut)
def change_target(request: HttpRequest, target_id: int, changes: Body[TargetChanges]) -> dict[str, Any]:
    _require(request, "change_target")
    services.update_target(_found(target_id), _flat(changes))
    return _target(_found(target_id))


@router.post("/targets/{int:target_id}/breaker", response=TargetOut)
def pull_lever(request: HttpRequest, target_id: int, pull: Pull) -> dict[str, Any]:
    """Hold the breaker open, let it decide by itself again, or close it once."""
    user = _require(request, "change_target")
    why = clean_name(pull.why, "The reason") if pull.why else ""
    _LEVERS[pull.lever](_found(target_id), user, why)
    return _target(_found(target_id))


_LEVERS = {
    "open": services.hold_breaker_open,
    "automatic": services.let_breaker_go,
    "close": services.close_breaker,
}


@router.get("/targets/{int:target_id}/breaker/timeline", response=list[ChangeOut])
def timeline(
    request: HttpRequest,
    target_id: int,
    limit: Annotated[int, Query(ge=1, le=MOST_CHANGES)] = 100,
) -> list[dict[str, Any]]:
    """What the breaker did, the latest first."""
    _require(request, "view_breakerchange")
    changes = BreakerChange.objects.filter(target_id=_found(target_id).pk).select_related("by_user")
    return [_change(each) for each in changes[:limit]]


@router.get("/targets/{int:target_id}/state", response=dict[str, JsonValue])
def state(request: HttpRequest, target_id: int) -> dict[str, Any]:
    """Breaker, gate and pool as this process sees them now. What it does not know is null."""
    _require(request, "view_target")
    _found(target_id)
    try:
        states = {each.target_id: each for each in upstreams.states()}
    except upstreams.NoRelayHere:
        raise HttpError(503, "This process serves no calls, so it has no live figures.") from None
    except TimeoutError:
        raise HttpError(503, "The relay did not answer in time. Ask again.") from None
    if target_id not in states:
        raise HttpError(404, "The target is not in use: it, its route or its provider is switched off.")
    found: dict[str, Any] = _known(msgspec.to_builtins(states[target_id]))
    return found


def _require(request: HttpRequest, permission: str) -> User:
    """The operator, where the operator pages would let them do the same. Raises AuthorizationError."""
    assert isinstance(request.user, User)
    if not request.user.has_perm(f"gateway.{permission}"):
        raise AuthorizationError(message="An administrator may do this.")
    return request.user


def _routes() -> QuerySet[Route]:
    """With their targets: two queries."""
    targets = Target.objects.select_related("provider", "route")
    return Route.objects.prefetch_related(Prefetch("targets", targets))


def _found(target_id: int) -> Target:
    return get_object_or_404(Target.objects.select_related("provider", "route"), pk=target_id)


def _flat(changes: TargetChanges) -> Mapping[str, Any]:
    """Fields of the table: those of the pool stand among the others there."""
    own = {name: value for name, value in changes.items() if name != "pool"}
    return own | changes.get("pool", {})


def _provider(row: Provider) -> dict[str, Any]:
    fields = ("id", "slug", "name", "base_url", "enabled", "simulated", "ca_pem")
    return {**_picked(row, fields), "credential": _credential(getattr(row, "credential", None))}


def _credential(row: Credential | None) -> dict[str, Any]:
    if row is None:
        return {"kept": "none", "env_var": "", "refused_at": None, "refused_status": None}
    kept = "encrypted" if row.encrypted else "environment"
    return {"kept": kept, **_picked(row, ("env_var", "refused_at", "refused_status"))}


def _route(row: Route) -> dict[str, Any]:
    own = _picked(row, [each for each in RouteOut.model_fields if each != "targets"])
    return {**own, "targets": [_target(each) for each in row.targets.all()]}


def _target(row: Target) -> dict[str, Any]:
    own = _picked(row, [each for each in TargetOut.model_fields if each not in ("route", "provider", "pool")])
    return {
        **own,
        "route": row.route.model_name,
        "provider": row.provider.slug,
        "pool": _picked(row, PoolOut.model_fields),
    }


def _change(row: BreakerChange) -> dict[str, Any]:
    own = _picked(row, ("at", "before", "after", "cause", "until"))
    return {**own, "by_user": row.by_user.email if row.by_user else None}


def _picked(row: Any, names: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}


def _known(value: Any) -> Any:
    """JSON has no infinity: what lasts until somebody ends it is null."""
    if isinstance(value, dict):
        return {name: _known(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_known(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
