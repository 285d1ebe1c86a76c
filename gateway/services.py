"""Writes of providers, credentials, routes, targets and prices, and of the levers of breakers.

Each counts as a change that every serving process hears of at commit.
Whether somebody may make it is decided by who calls.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from accounts.changes import note_change
from accounts.models import User
from gateway import credentials
from gateway.inputs import Unusable, clean_base_url, clean_name, clean_parameters
from gateway.models import BreakerChange, Credential, LedgerCurrency, Price, Provider, Route, Target

MAX_PRICE_NANOS = 10**15
"""At this price a billion tokens cost 10**18, which the ledger's 64-bit columns still hold."""
PRICE_TOO_HIGH = "A price is at most 1,000,000 for a million tokens."


TARGET_SETTINGS = frozenset(
    {
        *("order", "enabled", "weight", "transport", "http2", "parameters"),
        *("max_connections", "max_keepalive_connections", "keepalive_expiry_s"),
        *("connect_timeout_s", "read_timeout_s", "write_timeout_s", "pool_timeout_s"),
        *("max_concurrency", "max_waiting", "context_window", "media_tokens"),
    }
)
"""What `update_target` takes."""
ROUTE_SETTINGS = frozenset(
    {
        *("enabled", "unpriced", "timeout_s", "overflow", "overflow_route", "hang_up_drain_s"),
        *("max_tokens", "usual_max_tokens", "max_choices"),
    }
)
"""What `update_route` takes."""


class WrongCurrency(Exception):
    """The books are in another currency than the configured one; the message says what would help."""


def check_currency(currency: str) -> None:
    """Record the ledger's currency at the first start, and hold later ones to it. Raises WrongCurrency."""
    kept, _ = LedgerCurrency.objects.get_or_create(pk=1, defaults={"code": currency})
    if kept.code != currency:
        raise WrongCurrency(
            f"the books of this VAR_DIR are in {kept.code}, not {currency}: "
            f"set LEDGER_CURRENCY to {kept.code}, or start on another VAR_DIR."
        )


@transaction.atomic
def add_provider(slug: str, name: str, base_url: str, *, simulated: bool = False) -> Provider:
    """A provider without a credential yet. Raises Unusable, IntegrityError where the slug is taken."""
    note_change()
    return Provider.objects.create(
        slug=slug,
        name=clean_name(name, "The provider's name"),
        base_url=clean_base_url(base_url, "The base URL"),
        simulated=simulated,
    )


@transaction.atomic
def move_provider(provider: Provider, base_url: str) -> None:
    """Calls go to another address from now on. Raises Unusable."""
    provider.base_url = clean_base_url(base_url, "The base URL")
    provider.save(update_fields=["base_url"])
    note_change()


@transaction.atomic
def enable_provider(provider: Provider, enabled: bool) -> None:
    """Switch all targets of a provider on or off."""
    provider.enabled = enabled
    provider.save(update_fields=["enabled"])
    note_change()


@transaction.atomic
def keep_credential(provider: Provider, plain: str, keys: Sequence[str]) -> None:
    """Encrypt it under the newest key and forget what was there. Raises Unusable."""
    encrypted = credentials.encrypt(plain, keys)
    _replace_credential(provider, encrypted=encrypted, env_var="")


@transaction.atomic
def refer_to_credential(provider: Provider, env_var: str) -> None:
    """Read it from the environment of the serving process and forget what was there. Raises Unusable."""
    _replace_credential(provider, encrypted="", env_var=clean_variable(env_var))


def _replace_credential(provider: Provider, *, encrypted: str, env_var: str) -> None:
    """That the one before was refused says nothing of this one."""
    fresh = {"encrypted": encrypted, "env_var": env_var, "refused_at": None, "refused_status": None}
    Credential.objects.update_or_create(provider=provider, defaults=fresh)
    note_change()


@transaction.atomic
def forget_credential(provider: Provider) -> None:
    """Calls carry none from now on."""
    Credential.objects.filter(provider=provider).delete()
    note_change()


@transaction.atomic
def rotate_credentials(keys: Sequence[str]) -> int:
    """Encrypt every kept credential anew; how many. All or, where CredentialUnreadable is raised, none."""
    kept = list(Credential.objects.exclude(encrypted="").select_for_update())
    for each in kept:
        each.encrypted = credentials.rotate(each.encrypted, keys)
        each.save(update_fields=["encrypted", "updated_at"])
    if kept:
        note_change()
    return len(kept)


@transaction.atomic
def add_route(
    model_name: str, aliases: Iterable[str] = (), *, unpriced: str = Route.Unpriced.REFUSED
) -> Route:
    """A route without targets yet. Raises Unusable, also where another route answers to the model name."""
    name = clean_name(model_name, "The model name")
    if taken := route_called(name):
        raise Unusable(f"The route {taken} answers to {name} already.")
    route = Route.objects.create(model_name=name, unpriced=unpriced)
    add_aliases(route, aliases)
    note_change()
    return route


@transaction.atomic
def add_aliases(route: Route, aliases: Iterable[str]) -> None:
    """Other names for a route. One that another route answers to is left with that route."""
    wanted = dict.fromkeys(clean_name(each, "The alias") for each in aliases)
    fresh = [each for each in wanted if route_called(each) is None]
    if fresh:
        route.aliases = [*route.aliases, *fresh]
        route.save(update_fields=["aliases"])
        note_change()


@transaction.atomic
def update_route(route: Route, changes: Mapping[str, Any]) -> None:
    """Change some of ROUTE_SETTINGS. Raises ValidationError with a sentence for each field that is wrong."""
    _set(route, changes, ROUTE_SETTINGS)
    check_overflow(route.overflow, route.overflow_route, names_of(route))
    route.full_clean()
    route.save(update_fields=changes.keys())
    note_change()


def check_overflow(overflow: str, overflow_route: str, own_names: set[str]) -> None:
    """Raises ValidationError where a route would go on with nothing, with itself, or with an unknown one."""
    if overflow_route in own_names:
        raise ValidationError({"overflow_route": "A route cannot go on with itself."})
    if overflow == Route.Overflow.REROUTE and not overflow_route:
        raise ValidationError({"overflow_route": "Say with which model name to go on."})
    if overflow_route and route_called(overflow_route) is None:
        raise ValidationError({"overflow_route": f"No route answers to {overflow_route}."})


@transaction.atomic
def add_target(
    route: Route,
    provider: Provider,
    upstream_model: str,
    *,
    order: int = 0,
    parameters: Mapping[str, str] | None = None,
) -> Target:
    """A target at its place among the route's. Raises Unusable, IntegrityError where it is there already."""
    note_change()
    return Target.objects.create(
        route=route,
        provider=provider,
        upstream_model=clean_name(upstream_model, "The upstream model"),
        order=order,
        parameters=clean_parameters(dict(parameters or {})),
    )


@transaction.atomic
def update_target(target: Target, changes: Mapping[str, Any]) -> None:
    """Change some of TARGET_SETTINGS. Raises ValidationError with a sentence for each field that is wrong."""
    _set(target, changes, TARGET_SETTINGS)
    target.full_clean()
    target.save(update_fields=changes.keys())
    note_change()


def _set(row: Route | Target, changes: Mapping[str, Any], known: frozenset[str]) -> None:
    """Set what is to be changed on the row as it is now, locked so that nobody else changes it meanwhile."""
    assert changes.keys() <= known
    type(row)._default_manager.select_for_update().get(pk=row.pk)
    row.refresh_from_db()
    for name, value in changes.items():
        setattr(row, name, value)


@transaction.atomic
def hold_breaker_open(target: Target, by: User, why: str = "") -> bool:
    """No call goes to the target until its breaker is let go. False: it was held already."""
    if _locked(target).lever == Target.Lever.OPEN:
        return False
    _pull(target, Target.Lever.OPEN)
    _note_by_hand(target, BreakerChange.State.OPEN, by, why or "Held open by hand.")
    return True


@transaction.atomic
def let_breaker_go(target: Target, by: User, why: str = "") -> bool:
    """The breaker decides for itself again, and begins closed. False: it did already."""
    if _locked(target).lever == Target.Lever.AUTOMATIC:
        return False
    _pull(target, Target.Lever.AUTOMATIC)
    _note_by_hand(target, BreakerChange.State.CLOSED, by, why or "Let go by hand.")
    return True


@transaction.atomic
def close_breaker(target: Target, by: User, why: str = "") -> None:
    """Calls go to the target from now on, also where its breaker was held open; what failed is forgotten."""
    _locked(target)
    target.closed_at = timezone.now()
    _pull(target, Target.Lever.AUTOMATIC)
    _note_by_hand(target, BreakerChange.State.CLOSED, by, why or "Closed by hand.")


def _locked(target: Target) -> Target:
    """The row as it is now, locked, so that two hands pull one after the other."""
    target.refresh_from_db(
        from_queryset=Target.objects.select_for_update(of=("self",)).select_related("provider")
    )
    return target


def _pull(target: Target, lever: str) -> None:
    target.lever = lever
    target.save(update_fields=["lever", "closed_at"])
    note_change()


def _note_by_hand(target: Target, after: str, by: User, cause: str) -> None:
    """On the timeline. What the breaker was before is what the timeline says last: no process is asked."""
    earlier = BreakerChange.objects.filter(target_id=target.pk)
    before = earlier.values_list("after", flat=True).first() or BreakerChange.State.CLOSED
    BreakerChange.objects.create(
        target_id=target.pk,
        provider=target.provider.slug,
        upstream_model=target.upstream_model,
        at=timezone.now(),
        before=before,
        after=after,
        cause=cause,
        by_user=by,
    )


@transaction.atomic
def add_price(
    target: Target,
    valid_from: datetime,
    *,
    input_nanos: int,
    cached_input_nanos: int,
    output_nanos: int,
    source: str = "operator",
) -> Price:
    """A dated price in whole nano-units of the ledger currency per million tokens.

    Raises Unusable for one above MAX_PRICE_NANOS,
    IntegrityError for a negative one, or where the target has one from that moment.
    """
    if max(input_nanos, cached_input_nanos, output_nanos) > MAX_PRICE_NANOS:
        raise Unusable(PRICE_TOO_HIGH)
    note_change()
    return Price.objects.create(
        target=target,
        valid_from=valid_from,
        input_nanos=input_nanos,
        cached_input_nanos=cached_input_nanos,
        output_nanos=output_nanos,
        source=source,
    )


def route_called(name: str) -> Route | None:
    """The route that answers to a name, as its model name or as an alias."""
    return next((route for route in Route.objects.all() if name in names_of(route)), None)


def names_of(route: Route) -> set[str]:
    """Every name that a route answers to."""
    return {route.model_name, *route.aliases}


def clean_variable(raw: str) -> str:
    """The name of an environment variable with an API key. Raises Unusable.

    Its value is sent to a provider, so a name that may be another secret's, such as SECRET_KEY, is refused.
    """
    name = raw.strip()
    is_name = name.isascii() and name.isidentifier() and len(name) <= 100
    if not is_name or not name.endswith("_API_KEY"):
        raise Unusable(
            "The name of an environment variable has only letters, digits and underscores, "
            "and ends in _API_KEY."
        )
    return name
