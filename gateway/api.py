"""The management API's upstream side, for operators: providers, routes, targets and their breakers.

Names are the catalog's. A change is validated whole, and heard of by every serving process at commit.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from ninja import Body, Query, Router, Schema
from ninja.errors import AuthorizationError, HttpError
from ninja.responses import Status
from pydantic import Field, FiniteFloat, JsonValue, StringConstraints, with_config
from typing_extensions import TypedDict

from accounts.api.auth import door, me
from accounts.api.found import picked
from accounts.api.shapes import Line, Moment, Name, Page, Window, also, page, shown, taken
from accounts.models import User
from gateway import services, upstreams
from gateway.inputs import Unusable, clean_name
from gateway.models import BreakerChange, Credential, Price, Provider, Route, Target
from gateway.price_inputs import MAX_PRICE_NANOS, MAX_TIER_TOKENS, MAX_TIERS
from gateway.relay.catalog import Lever, Overflow, Rates, Rule, TransportName
from gateway.relay.ports import BreakerState

Shown = dict[str, Any]
Nanos = Annotated[int, Field(ge=0, le=MAX_PRICE_NANOS)]


class Taken(Exception):
    """What was to be made is there already; the message says what."""


upstream = Router(tags=["upstream"], auth=door("operate"))


_CREDENTIAL: Shown = {"kept": "encrypted", "env_var": "", "refused_at": None, "refused_status": None}
_PROVIDER: Shown = {
    "id": 1,
    "slug": "openai",
    "name": "OpenAI",
    "base_url": "https://api.openai.com/v1",
    "enabled": True,
    "simulated": False,
    "ca_pem": "",
    "credential": _CREDENTIAL,
}
_POOL: Shown = {
    "max_connections": 100,
    "max_keepalive_connections": 20,
    "keepalive_expiry_s": 30.0,
    "connect_timeout_s": 10.0,
    "read_timeout_s": 60.0,
    "write_timeout_s": 10.0,
    "pool_timeout_s": 5.0,
    "http2": False,
}
_TARGET: Shown = {
    "id": 5,
    "route": "gpt-4o",
    "provider": "openai",
    "upstream_model": "gpt-4o-2024-11-20",
    "enabled": True,
    "order": 0,
    "weight": 1,
    "transport": "http1",
    "pool": _POOL,
    "max_concurrency": 50,
    "max_waiting": 1000,
    "context_window": 128_000,
    "media_tokens": None,
    "parameters": {"logprobs": "drop"},
    "lever": "automatic",
    "closed_at": None,
}
_ROUTE: Shown = {
    "id": 2,
    "model_name": "gpt-4o",
    "aliases": ["gpt4o"],
    "enabled": True,
    "unpriced": "refused",
    "timeout_s": None,
    "overflow": "refuse",
    "overflow_route": "",
    "hang_up_drain_s": 0.0,
    "max_tokens": 16_384,
    "usual_max_tokens": 1000,
    "max_choices": 8,
    "targets": [_TARGET],
}
_TIER: Shown = {
    "above_tokens": 200_000,
    "input_nanos": 5_000_000_000,
    "cached_input_nanos": 2_500_000_000,
    "output_nanos": 15_000_000_000,
}
_PRICE: Shown = {
    "id": 9,
    "target_id": 5,
    "valid_from": "2030-01-01T00:00:00Z",
    "currency": "USD",
    "input_nanos": 2_500_000_000,
    "cached_input_nanos": 1_250_000_000,
    "output_nanos": 10_000_000_000,
    "cache_write_nanos": None,
    "reasoning_nanos": None,
    "audio_input_nanos": 40_000_000_000,
    "audio_output_nanos": 80_000_000_000,
    "request_nanos": 0,
    "tiers": [_TIER],
    "source": "operator",
    "created_at": "2030-01-01T00:00:00Z",
}


class CredentialOut(Schema):
    model_config = shown(**_CREDENTIAL)

    kept: Literal["none", "encrypted", "environment"]
    env_var: str
    """The variable's name, where it is kept in the environment."""
    refused_at: datetime | None
    """When the provider last did not take it; null: it takes it, as far as is known."""
    refused_status: int | None


class ProviderOut(Schema):
    model_config = shown(**_PROVIDER)

    id: int
    slug: str
    name: str
    base_url: str
    enabled: bool
    simulated: bool
    ca_pem: str
    credential: CredentialOut


class PoolOut(Schema):
    model_config = shown(**_POOL)

    max_connections: int
    max_keepalive_connections: int
    keepalive_expiry_s: float
    connect_timeout_s: float
    read_timeout_s: float
    write_timeout_s: float
    pool_timeout_s: float
    http2: bool


class TargetOut(Schema):
    model_config = shown(**_TARGET)

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
    model_config = shown(**_ROUTE)

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
    model_config = shown(
        id=77,
        at="2030-01-01T00:00:00Z",
        before="closed",
        after="open",
        cause="5 failures in a row.",
        until="2030-01-01T00:01:00Z",
        by_user=None,
    )

    id: int
    at: datetime
    before: BreakerState
    after: BreakerState
    cause: str
    until: datetime | None
    by_user: str | None
    """The e-mail address of whoever did it by hand."""


class TierOut(Schema):
    """Other rates, for prompts of more tokens. What is null costs as what it is a part of."""

    model_config = shown(**_TIER)

    above_tokens: int
    input_nanos: int
    cached_input_nanos: int
    output_nanos: int
    cache_write_nanos: int | None = None
    reasoning_nanos: int | None = None
    audio_input_nanos: int | None = None
    audio_output_nanos: int | None = None


class PriceOut(Schema):
    model_config = shown(**_PRICE)

    id: int
    target_id: int
    valid_from: datetime
    currency: str
    """Empty: the ledger's own."""
    input_nanos: int
    """Whole nano-units of the price's currency per million tokens."""
    cached_input_nanos: int
    output_nanos: int
    cache_write_nanos: int | None
    """null, here and below: as the input or the output that it is a part of."""
    reasoning_nanos: int | None
    audio_input_nanos: int | None
    audio_output_nanos: int | None
    request_nanos: int
    """Of each attempt with usage, beside its tokens."""
    tiers: list[TierOut]
    source: str
    created_at: datetime | None


@with_config(taken(max_connections=200, read_timeout_s=120.0))
class PoolChanges(TypedDict, total=False):
    max_connections: int
    max_keepalive_connections: int
    keepalive_expiry_s: FiniteFloat
    connect_timeout_s: FiniteFloat
    read_timeout_s: FiniteFloat
    write_timeout_s: FiniteFloat
    pool_timeout_s: FiniteFloat
    http2: bool


@with_config(taken(weight=2, pool={"max_connections": 200}, parameters={"logprobs": "drop"}))
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
    parameters: dict[Line, Line]


Text = Annotated[str, StringConstraints(max_length=100_000, pattern=r"^[^\x00]*$")]


class NewProvider(Schema):
    model_config = taken(slug="openai", name="OpenAI", base_url="https://api.openai.com/v1")

    slug: Annotated[str, StringConstraints(pattern=r"^[-a-zA-Z0-9_]{1,50}$")]
    name: Name
    base_url: Annotated[Line, Field(max_length=200)]


@with_config(taken(enabled=False))
class ProviderChanges(TypedDict, total=False):
    """What is absent stays as it is. An encrypted credential does not go along to another address."""

    name: Name
    base_url: Annotated[Line, Field(max_length=200)]
    enabled: bool
    ca_pem: Text


class NewCredential(Schema):
    """One of the two."""

    model_config = taken(env_var="OPENAI_API_KEY")

    credential: Annotated[str, StringConstraints(max_length=4096)] = ""
    """Kept encrypted, and never shown again."""
    env_var: Line = ""
    """The name of an environment variable of the serving process that holds it."""


class NewRoute(Schema):
    model_config = taken(model_name="gpt-4o", aliases=["gpt4o"], unpriced="refused")

    model_name: Line
    aliases: Annotated[list[Line], Field(max_length=100)] = []
    unpriced: Literal["refused", "allowed"] = "refused"


class NewTarget(Schema):
    model_config = taken(provider="openai", upstream_model="gpt-4o-2024-11-20", order=0)

    provider: Line
    """Its slug."""
    upstream_model: Line
    order: int = Field(0, ge=0, le=32_767)


class NewTier(Schema):
    """Rates for prompts of more tokens."""

    model_config = taken(above_tokens=200_000, input_nanos=5_000_000_000, output_nanos=15_000_000_000)

    above_tokens: int = Field(ge=1, le=MAX_TIER_TOKENS)
    input_nanos: Nanos
    cached_input_nanos: Nanos | None = None
    output_nanos: Nanos
    cache_write_nanos: Nanos | None = None
    reasoning_nanos: Nanos | None = None
    audio_input_nanos: Nanos | None = None
    audio_output_nanos: Nanos | None = None


class NewPrice(Schema):
    model_config = taken(
        valid_from="2030-01-01T00:00:00Z", input_nanos=2_500_000_000, output_nanos=10_000_000_000
    )

    valid_from: Moment
    currency: Annotated[str, StringConstraints(pattern=r"^([A-Z]{3})?$")] = ""
    """As in ISO 4217; empty: the ledger's own."""
    input_nanos: Nanos
    """Whole nano-units of that currency per million tokens."""
    cached_input_nanos: Nanos | None = None
    """null, here and below: as the input or the output that it is a part of."""
    output_nanos: Nanos
    cache_write_nanos: Nanos | None = None
    reasoning_nanos: Nanos | None = None
    audio_input_nanos: Nanos | None = None
    audio_output_nanos: Nanos | None = None
    request_nanos: Nanos = 0
    """Of each attempt with usage, beside its tokens."""
    tiers: Annotated[list[NewTier], Field(max_length=MAX_TIERS)] = []
    """By `above_tokens`, the least first."""


@with_config(taken(timeout_s=30.0, overflow="trim"))
class RouteChanges(TypedDict, total=False):
    """What is absent stays as it is."""

    model_name: Line
    aliases: Annotated[list[Line], Field(max_length=100)]
    enabled: bool
    unpriced: Literal["refused", "allowed"]
    timeout_s: FiniteFloat | None
    overflow: Overflow
    overflow_route: Line
    hang_up_drain_s: FiniteFloat
    max_tokens: int
    usual_max_tokens: int
    max_choices: int


class Pull(Schema):
    """What to do with a breaker, and why, for the timeline."""

    model_config = taken(lever="open", why="The provider moves house.")

    lever: Literal["open", "automatic", "close"]
    why: Line = ""


@upstream.get("/providers", response=Page[ProviderOut])
def list_providers(request: HttpRequest, window: Query[Window]) -> Shown:
    """Providers by their slug. No credential is ever shown."""
    require_operator(request, "view_provider")
    found, after = page(_providers(), window, "slug")
    return {"items": [_provider(each) for each in found], "next": after}


@upstream.post("/providers", response={201: ProviderOut})
def add_provider(request: HttpRequest, new: NewProvider) -> Status[Shown]:
    """Add an account at a vendor. Its credential comes after it."""
    require_operator(request, "add_provider")
    with _unless_taken(f"There is a provider {new.slug} already."):
        made = services.add_provider(new.slug, new.name, new.base_url)
    return Status(201, _shown_provider(made.pk))


@upstream.get("/providers/{int:provider_id}", response=ProviderOut)
def get_provider(request: HttpRequest, provider_id: int) -> Shown:
    """One provider."""
    require_operator(request, "view_provider")
    return _shown_provider(provider_id)


@upstream.patch("/providers/{int:provider_id}", response=ProviderOut)
def change_provider(request: HttpRequest, provider_id: int, changes: Body[ProviderChanges]) -> Shown:
    """Rename or move a provider, or switch all its targets on or off."""
    require_operator(request, "change_provider")
    services.update_provider(get_object_or_404(Provider, pk=provider_id), changes)
    return _shown_provider(provider_id)


@upstream.put("/providers/{int:provider_id}/credential", response=ProviderOut)
def replace_credential(request: HttpRequest, provider_id: int, new: NewCredential) -> Shown:
    """Give a provider a credential in place of the one before: itself, or where it is kept."""
    require_operator(request, "change_provider")
    provider = get_object_or_404(Provider, pk=provider_id)
    if bool(new.credential) == bool(new.env_var):
        raise Unusable("Give a credential or the name of a variable: one of the two.")
    if new.credential:
        services.keep_credential(provider, new.credential, settings.CREDENTIAL_KEYS)
    else:
        services.refer_to_credential(provider, new.env_var)
    return _shown_provider(provider_id)


@upstream.delete("/providers/{int:provider_id}/credential", response={204: None})
def forget_credential(request: HttpRequest, provider_id: int) -> Status[None]:
    """Send none from now on."""
    require_operator(request, "change_provider")
    services.forget_credential(get_object_or_404(Provider, pk=provider_id))
    return Status(204, None)


@upstream.get("/routes", response=Page[RouteOut])
def list_routes(request: HttpRequest, window: Query[Window]) -> Shown:
    """Routes by their model name, each with its targets in the order in which they are tried."""
    require_operator(request, "view_route")
    found, after = page(_routes(), window, "model_name")
    return {"items": [_route(each) for each in found], "next": after}


@upstream.post("/routes", response={201: RouteOut})
def add_route(request: HttpRequest, new: NewRoute) -> Status[Shown]:
    """Add a model name that clients may ask for. Its targets come after it."""
    require_operator(request, "add_route")
    _require_free([new.model_name, *new.aliases])
    with _unless_taken(f"There is a route {new.model_name} already."):
        made = services.add_route(new.model_name, new.aliases, unpriced=new.unpriced)
    return Status(201, _shown_route(made.pk))


@upstream.get("/routes/{int:route_id}", response=RouteOut)
def get_route(request: HttpRequest, route_id: int) -> Shown:
    """One route, with its targets."""
    require_operator(request, "view_route")
    return _shown_route(route_id)


@upstream.patch("/routes/{int:route_id}", response=RouteOut)
def change_route(request: HttpRequest, route_id: int, changes: Body[RouteChanges]) -> Shown:
    """Change a route. A renamed one is another to the API keys and limits that name it."""
    require_operator(request, "change_route")
    services.update_route(get_object_or_404(Route, pk=route_id), changes)
    return _shown_route(route_id)


@upstream.post("/routes/{int:route_id}/targets", response={201: TargetOut})
def add_target(request: HttpRequest, route_id: int, new: NewTarget) -> Status[Shown]:
    """Add a target to a route, at its place among the others."""
    require_operator(request, "add_target")
    found = get_object_or_404(Route, pk=route_id)
    provider = Provider.objects.filter(slug=new.provider).first()
    if provider is None:
        raise ValidationError({"provider": f"There is no provider {new.provider}."})
    with _unless_taken(f"The route has the target {provider.slug}/{new.upstream_model} already."):
        made = services.add_target(found, provider, new.upstream_model, order=new.order)
    return Status(201, _target(_found(made.pk)))


@upstream.get("/targets/{int:target_id}", response=TargetOut)
def get_target(request: HttpRequest, target_id: int) -> Shown:
    """One target."""
    require_operator(request, "view_target")
    return _target(_found(target_id))


@upstream.patch("/targets/{int:target_id}", response=TargetOut)
def change_target(request: HttpRequest, target_id: int, changes: Body[TargetChanges]) -> Shown:
    """Change how a target is called, how much it is given, and whether it is."""
    require_operator(request, "change_target")
    services.update_target(_found(target_id), _flat(changes))
    return _target(_found(target_id))


@upstream.delete("/targets/{int:target_id}", response={204: None})
def remove_target(request: HttpRequest, target_id: int) -> Status[None]:
    """Remove a target and its prices. What calls to it cost stays on the books."""
    require_operator(request, "delete_target")
    services.remove_target(_found(target_id))
    return Status(204, None)


@upstream.get("/targets/{int:target_id}/prices", response=Page[PriceOut])
def list_prices(request: HttpRequest, target_id: int, window: Query[Window]) -> Shown:
    """A target's prices, the last entered first.

    The one that holds is the latest that has begun; of two from the same moment, the one with the higher id.
    """
    require_operator(request, "view_price")
    found, after = page(Price.objects.filter(target=_found(target_id)), window)
    return {"items": [picked(each, PriceOut.model_fields) for each in found], "next": after}


@upstream.post("/targets/{int:target_id}/prices", response={201: PriceOut})
def add_price(request: HttpRequest, target_id: int, new: NewPrice) -> Status[Shown]:
    """Add a price from a moment on. One that was is not changed: calls were booked by it.

    A wrong one is put right by another from the same moment, which takes its place.
    Calls since then are priced again, with the old figure kept beside the new one.
    """
    require_operator(request, "add_price")
    figures = new.model_dump(exclude={"valid_from", "cached_input_nanos", "tiers"})
    made = services.add_price(
        _found(target_id),
        new.valid_from,
        cached_input_nanos=_cached(new),
        tiers=[_tier(each) for each in new.tiers],
        **figures,
    )
    return Status(201, picked(made, PriceOut.model_fields))


def _tier(new: NewTier) -> Rates:
    return Rates(**new.model_dump(exclude={"cached_input_nanos"}), cached_input_nanos=_cached(new))


def _cached(new: NewPrice | NewTier) -> int:
    """As any input, where nothing is said of it."""
    return new.input_nanos if new.cached_input_nanos is None else new.cached_input_nanos


@upstream.post("/targets/{int:target_id}/breaker", response=TargetOut)
def pull_lever(request: HttpRequest, target_id: int, pull: Pull) -> Shown:
    """Hold the breaker open, let it decide by itself again, or close it once."""
    user = require_operator(request, "change_target")
    why = clean_name(pull.why, "The reason") if pull.why else ""
    _LEVERS[pull.lever](_found(target_id), user, why)
    return _target(_found(target_id))


_LEVERS = {
    "open": services.hold_breaker_open,
    "automatic": services.let_breaker_go,
    "close": services.close_breaker,
}


@upstream.get("/targets/{int:target_id}/breaker/timeline", response=Page[ChangeOut])
def list_breaker_changes(request: HttpRequest, target_id: int, window: Query[Window]) -> Shown:
    """What the breaker did, the latest first."""
    require_operator(request, "view_breakerchange")
    changes = BreakerChange.objects.filter(target_id=_found(target_id).pk).select_related("by_user")
    found, after = page(changes, window)
    return {"items": [_change(each) for each in found], "next": after}


@upstream.get("/targets/{int:target_id}/state", response=dict[str, JsonValue], openapi_extra=also(503))
def get_target_state(request: HttpRequest, target_id: int) -> Shown:
    """Breaker, gate and pool as this process sees them now. What it does not know is null."""
    require_operator(request, "view_target")
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


def require_operator(request: HttpRequest, permission: str) -> User:
    """The operator, where the operator pages would let them do the same. Raises AuthorizationError."""
    user = me(request)
    if not user.is_staff:
        raise AuthorizationError(message="This is for administrators.")
    if not user.has_perm(f"gateway.{permission}"):
        raise AuthorizationError(message="An administrator may do this.")
    return user


@contextmanager
def _unless_taken(sentence: str) -> Iterator[None]:
    """The database decides, so that two who ask at once are not both told yes. Raises Taken."""
    try:
        yield
    except IntegrityError:
        raise Taken(sentence) from None


def _require_free(names: Iterable[str]) -> None:
    """Raises Taken."""
    for name in names:
        if other := services.route_called(name.strip(" ")):
            raise Taken(f"The route {other} answers to {name.strip(' ')} already.")


def _providers() -> QuerySet[Provider]:
    return Provider.objects.select_related("credential")


def _shown_provider(provider_id: int) -> Shown:
    return _provider(get_object_or_404(_providers(), pk=provider_id))


def _shown_route(route_id: int) -> Shown:
    return _route(get_object_or_404(_routes(), pk=route_id))


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


def _provider(row: Provider) -> Shown:
    fields = ("id", "slug", "name", "base_url", "enabled", "simulated", "ca_pem")
    return {**picked(row, fields), "credential": _credential(getattr(row, "credential", None))}


def _credential(row: Credential | None) -> Shown:
    if row is None:
        return {"kept": "none", "env_var": "", "refused_at": None, "refused_status": None}
    kept = "encrypted" if row.encrypted else "environment"
    return {"kept": kept, **picked(row, ("env_var", "refused_at", "refused_status"))}


def _route(row: Route) -> Shown:
    own = picked(row, [each for each in RouteOut.model_fields if each != "targets"])
    return {**own, "targets": [_target(each) for each in row.targets.all()]}


def _target(row: Target) -> Shown:
    own = picked(row, [each for each in TargetOut.model_fields if each not in ("route", "provider", "pool")])
    return {
        **own,
        "route": row.route.model_name,
        "provider": row.provider.slug,
        "pool": picked(row, PoolOut.model_fields),
    }


def _change(row: BreakerChange) -> Shown:
    own = picked(row, ("id", "at", "before", "after", "cause", "until"))
    return {**own, "by_user": row.by_user.email if row.by_user else None}


def _known(value: Any) -> Any:
    """JSON has no infinity: what lasts until somebody ends it is null."""
    if isinstance(value, dict):
        return {name: _known(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_known(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
