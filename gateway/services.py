"""Writes of providers, credentials, routes, targets and prices, and of the levers of breakers.

Each is audited, and counts as a change that every serving process hears of at commit.
Whether somebody may make it is decided by who calls.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from accounts import audit
from accounts.changes import note_change
from accounts.models import User
from gateway import credentials
from gateway.inputs import Unusable, clean_base_url, clean_name, clean_parameters, origin
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
PROVIDER_SETTINGS = frozenset({"name", "base_url", "enabled", "ca_pem"})
"""What `update_provider` takes."""
ROUTE_SETTINGS = frozenset(
    {
        *("enabled", "unpriced", "timeout_s", "overflow", "overflow_route", "hang_up_drain_s"),
        *("max_tokens", "usual_max_tokens", "max_choices"),
    }
)
"""What `update_route` takes, beside its names."""
ROUTE_NAMES = frozenset({"model_name", "aliases"})


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
    provider = Provider.objects.create(
        slug=slug,
        name=clean_name(name, "The provider's name"),
        base_url=clean_base_url(base_url, "The base URL"),
        simulated=simulated,
    )
    audit.record("provider.added", provider, after={"slug": slug, "base_url": provider.base_url})
    return provider


@transaction.atomic
def update_provider(provider: Provider, changes: Mapping[str, Any]) -> None:
    """Change some of PROVIDER_SETTINGS. Raises ValidationError with a sentence for each field that is wrong.

    An encrypted credential does not go along to another address: it has to be taken away first.
    """
    clean = {**changes}
    if "name" in clean:
        clean["name"] = _usable("name", clean_name, clean["name"], "The provider's name")
    if "base_url" in clean:
        clean["base_url"] = _usable("base_url", clean_base_url, clean["base_url"], "The base URL")
    before, after = _set(provider, clean, PROVIDER_SETTINGS)
    if "base_url" in after:
        _keep_credential_at_home(provider, before["base_url"])
    _save(provider, before, after)


def _usable(field: str, clean: Any, raw: str, what: str) -> str:
    try:
        value: str = clean(raw, what)
    except Unusable as why:
        raise ValidationError({field: str(why)}) from None
    return value


def _keep_credential_at_home(provider: Provider, old_url: str) -> None:
    """Whoever answers at a new address would be sent what was never to be shown."""
    kept = Credential.objects.filter(provider=provider).exclude(encrypted="").exists()
    if kept and origin(provider.base_url) != origin(old_url):
        raise ValidationError(
            {"base_url": "Take the credential away first: it is for the old address. Then enter it again."}
        )


@transaction.atomic
def move_provider(provider: Provider, base_url: str) -> None:
    """Calls go to another address from now on, with whatever credential there is. Raises Unusable."""
    _change(provider, {"base_url": clean_base_url(base_url, "The base URL")})


@transaction.atomic
def enable_provider(provider: Provider, enabled: bool) -> None:
    """Switch all targets of a provider on or off."""
    _change(provider, {"enabled": enabled})


def _change(provider: Provider, changes: Mapping[str, Any]) -> None:
    before, after = _set(provider, changes, PROVIDER_SETTINGS)
    provider.save(update_fields=after.keys())
    _note("provider.changed", provider, before, after)


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
    before = _kept(provider)
    fresh = {"encrypted": encrypted, "env_var": env_var, "refused_at": None, "refused_status": None}
    Credential.objects.update_or_create(provider=provider, defaults=fresh)
    _note("credential.replaced", provider, before, _kept(provider))


def _kept(provider: Provider) -> dict[str, str]:
    """Where its credential is kept; never the credential."""
    found = Credential.objects.filter(provider=provider).first()
    if found is None:
        return {"credential": ""}
    return {"credential": audit.UNSAID if found.encrypted else found.env_var}


@transaction.atomic
def forget_credential(provider: Provider) -> None:
    """Calls carry none from now on."""
    before = _kept(provider)
    if Credential.objects.filter(provider=provider).delete()[0]:
        audit.record("credential.forgotten", provider, before=before)
    note_change()


@transaction.atomic
def rotate_credentials(keys: Sequence[str]) -> int:
    """Encrypt every kept credential anew; how many. All or, where CredentialUnreadable is raised, none."""
    own = Credential.objects.select_for_update(of=("self",)).select_related("provider")
    kept = list(own.exclude(encrypted=""))
    for each in kept:
        each.encrypted = credentials.rotate(each.encrypted, keys)
        each.save(update_fields=["encrypted", "updated_at"])
        audit.record("credential.encrypted_anew", each.provider)
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
    _note("route.added", route, {}, {"unpriced": unpriced})
    add_aliases(route, aliases)
    return route


@transaction.atomic
def add_aliases(route: Route, aliases: Iterable[str]) -> None:
    """Other names for a route. One that another route answers to is left with that route."""
    wanted = dict.fromkeys(clean_name(each, "The alias") for each in aliases)
    fresh = [each for each in wanted if route_called(each) is None]
    if fresh:
        before = {"aliases": list(route.aliases)}
        route.aliases = [*route.aliases, *fresh]
        route.save(update_fields=["aliases"])
        _note("route.changed", route, before, {"aliases": route.aliases})


@transaction.atomic
def update_route(route: Route, changes: Mapping[str, Any]) -> None:
    """Change some of ROUTE_SETTINGS and ROUTE_NAMES.

    Raises ValidationError with a sentence for each field that is wrong.
    A renamed route is a new one to the API keys and limits that name it.
    """
    before, after = _set(route, changes, ROUTE_SETTINGS | ROUTE_NAMES)
    if after.keys() & ROUTE_NAMES:
        _clean_names(route)
        after |= {name: getattr(route, name) for name in after.keys() & ROUTE_NAMES}
    check_overflow(route.overflow, route.overflow_route, names_of(route))
    _save(route, before, after)


def _clean_names(route: Route) -> None:
    """Each without outer blanks, once, and no other route's. Raises ValidationError."""
    route.model_name = _own_name(route, "model_name", route.model_name, "The model name")
    aliases = dict.fromkeys(_own_name(route, "aliases", each, "An alias") for each in route.aliases)
    route.aliases = [each for each in aliases if each != route.model_name]


def _own_name(route: Route, field: str, raw: str, what: str) -> str:
    name = _usable(field, clean_name, raw, what)
    taken = route_called(name)
    if taken and taken.pk != route.pk:
        raise ValidationError({field: f"The route {taken} answers to {name} already."})
    return name


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
    target = Target.objects.create(
        route=route,
        provider=provider,
        upstream_model=clean_name(upstream_model, "The upstream model"),
        order=order,
        parameters=clean_parameters(dict(parameters or {})),
    )
    _note("target.added", target, {}, {"route": route.model_name, "order": order})
    return target


@transaction.atomic
def update_target(target: Target, changes: Mapping[str, Any]) -> None:
    """Change some of TARGET_SETTINGS. Raises ValidationError with a sentence for each field that is wrong."""
    before, after = _set(target, changes, TARGET_SETTINGS)
    _save(target, before, after)


@transaction.atomic
def remove_target(target: Target) -> None:
    """With its prices. What calls to it cost stays on the books."""
    _note("target.removed", target, {"route": target.route.model_name}, {})
    target.delete()


def _set(
    row: Provider | Route | Target, changes: Mapping[str, Any], known: frozenset[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Set what is to be changed on the row as it is now, locked so that nobody else changes it meanwhile.

    What differs, as it was and as it is.
    """
    assert changes.keys() <= known
    type(row)._default_manager.select_for_update().get(pk=row.pk)
    row.refresh_from_db()
    before, after = audit.changed(row, changes)
    for name, value in after.items():
        setattr(row, name, value)
    return before, after


def _save(row: Provider | Route | Target, before: dict[str, Any], after: dict[str, Any]) -> None:
    """Validated whole. Nothing is written, or told, where nothing differs. Raises ValidationError."""
    row.full_clean()
    if after:
        row.save(update_fields=after.keys())
        _note(f"{row._meta.model_name}.changed", row, before, after)


def _note(action: str, row: Provider | Route | Target, before: Any, after: Any) -> None:
    """A change, for the audit and for every serving process."""
    audit.record(action, row, before=before, after=after)
    note_change()


@transaction.atomic
def hold_breaker_open(target: Target, by: User, why: str = "") -> bool:
    """No call goes to the target until its breaker is let go. False: it was held already."""
    if _locked(target).lever == Target.Lever.OPEN:
        return False
    _pull(target, Target.Lever.OPEN)
    _note_by_hand(target, BreakerChange.State.OPEN, by, why or "Held open by hand.")
    audit.record("breaker.held_open", target, after={"why": why})
    return True


@transaction.atomic
def let_breaker_go(target: Target, by: User, why: str = "") -> bool:
    """The breaker decides for itself again, and begins closed. False: it did already."""
    if _locked(target).lever == Target.Lever.AUTOMATIC:
        return False
    _pull(target, Target.Lever.AUTOMATIC)
    _note_by_hand(target, BreakerChange.State.CLOSED, by, why or "Let go by hand.")
    audit.record("breaker.let_go", target, after={"why": why})
    return True


@transaction.atomic
def close_breaker(target: Target, by: User, why: str = "") -> None:
    """Calls go to the target from now on, also where its breaker was held open; what failed is forgotten."""
    _locked(target)
    target.closed_at = timezone.now()
    _pull(target, Target.Lever.AUTOMATIC)
    _note_by_hand(target, BreakerChange.State.CLOSED, by, why or "Closed by hand.")
    audit.record("breaker.closed", target, after={"why": why})


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
    figures = {
        "input_nanos": input_nanos,
        "cached_input_nanos": cached_input_nanos,
        "output_nanos": output_nanos,
    }
    price = Price.objects.create(target=target, valid_from=valid_from, source=source, **figures)
    audit.record("price.added", price, after={"valid_from": valid_from, **figures}, name=str(target))
    return price


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
