"""Writes of providers, credentials, routes, targets and prices, and of the levers of breakers.

Each is audited, and counts as a change that every serving process hears of at commit.
Whether somebody may make it is decided by who calls.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, time
from typing import Any, NamedTuple

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts import audit
from accounts.changes import note_change
from accounts.models import User
from accounts.turns import Turn, take_turn
from gateway import credentials, exchange, snapshot
from gateway.inputs import Unusable, clean_base_url, clean_name, clean_parameters, origin
from gateway.ledger import repricing
from gateway.models import (
    BreakerChange,
    Credential,
    ExchangeRate,
    LedgerCurrency,
    Price,
    Provider,
    Route,
    Target,
)
from gateway.price_inputs import (
    MAX_PRICE_NANOS,
    check_day,
    check_price,
    check_rate,
    check_tiers,
    dearest_of,
    fits,
)
from gateway.relay import catalog

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
    provider = Provider.objects.create(
        slug=slug,
        name=clean_name(name, _("The provider's name")),
        base_url=clean_base_url(base_url, _("The base URL")),
        simulated=simulated,
    )
    audit.record("provider.added", provider, after={"slug": slug, "base_url": provider.base_url})
    note_change()
    return provider


@transaction.atomic
def update_provider(provider: Provider, changes: Mapping[str, Any]) -> None:
    """Change some of PROVIDER_SETTINGS. Raises ValidationError with a sentence for each field that is wrong.

    An encrypted credential does not go along to another address: it has to be taken away first.
    """
    clean = {**changes}
    if "name" in clean:
        clean["name"] = _usable("name", clean_name, clean["name"], _("The provider's name"))
    if "base_url" in clean:
        clean["base_url"] = _usable("base_url", clean_base_url, clean["base_url"], _("The base URL"))
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
            {"base_url": _("Take the credential away first: it is for the old address. Then enter it again.")}
        )


@transaction.atomic
def move_provider(provider: Provider, base_url: str) -> None:
    """Calls go to another address from now on, with whatever credential there is. Raises Unusable."""
    _change(provider, {"base_url": clean_base_url(base_url, _("The base URL"))})


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
    own = Credential.objects.select_for_update(of=("self",), no_key=True).select_related("provider")
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
    name = clean_name(model_name, _("The model name"))
    take_turn(Turn.ROUTE_NAMES)
    if taken := route_called(name):
        raise Unusable(_("The route %(taken)s answers to %(name)s already.") % {"taken": taken, "name": name})
    route = Route.objects.create(model_name=name, unpriced=unpriced)
    _note("route.added", route, {}, {"unpriced": unpriced})
    add_aliases(route, aliases)
    return route


@transaction.atomic
def add_aliases(route: Route, aliases: Iterable[str]) -> None:
    """Other names for a route. One that another route answers to is left with that route."""
    wanted = dict.fromkeys(clean_name(each, _("The alias")) for each in aliases)
    take_turn(Turn.ROUTE_NAMES)
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
    take_turn(Turn.ROUTE_NAMES)
    before, after = _set(route, changes, ROUTE_SETTINGS | ROUTE_NAMES)
    if after.keys() & ROUTE_NAMES:
        _clean_names(route)
        after |= {name: getattr(route, name) for name in after.keys() & ROUTE_NAMES}
    check_overflow(route.overflow, route.overflow_route, names_of(route))
    _save(route, before, after)


def _clean_names(route: Route) -> None:
    """Each without outer blanks, once, and no other route's. Raises ValidationError."""
    route.model_name = _own_name(route, "model_name", route.model_name, _("The model name"))
    aliases = dict.fromkeys(_own_name(route, "aliases", each, _("An alias")) for each in route.aliases)
    route.aliases = [each for each in aliases if each != route.model_name]


def _own_name(route: Route, field: str, raw: str, what: str) -> str:
    name = _usable(field, clean_name, raw, what)
    taken = route_called(name)
    if taken and taken.pk != route.pk:
        raise ValidationError(
            {field: _("The route %(taken)s answers to %(name)s already.") % {"taken": taken, "name": name}}
        )
    return name


def check_overflow(overflow: str, overflow_route: str, own_names: set[str]) -> None:
    """Raises ValidationError where a route would go on with nothing, with itself, or with an unknown one."""
    if overflow_route in own_names:
        raise ValidationError({"overflow_route": _("A route cannot go on with itself.")})
    if overflow == Route.Overflow.REROUTE and not overflow_route:
        raise ValidationError({"overflow_route": _("Say with which model name to go on.")})
    if overflow_route and route_called(overflow_route) is None:
        raise ValidationError(
            {
                "overflow_route": _("No route answers to %(overflow_route)s.")
                % {"overflow_route": overflow_route}
            }
        )


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
        upstream_model=clean_name(upstream_model, _("The upstream model")),
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
def move_target(target: Target, step: int) -> bool:
    """Try it one place earlier (-1) or later (1). False: it is the first, or the last, already.

    Targets of the same order share their calls; one that leaves them has a place of its own then.
    """
    route = Route.objects.select_for_update(no_key=True).get(pk=target.route_id)
    rows = list(route.targets.select_related("provider"))
    orders = moved([(each.pk, each.order) for each in rows], target.pk, step)
    changed = [each for each in rows if each.order != orders[each.pk]]
    for each in changed:
        update_target(each, {"order": orders[each.pk]})
    return bool(changed)


def moved(orders: Sequence[tuple[int, int]], moving: int, step: int) -> dict[int, int]:
    """The order of every target by its id, after one of them has moved. Pure."""
    before = dict(orders)
    places = [[pk for pk, each in orders if each == order] for order in sorted(set(before.values()))]
    at = next(number for number, place in enumerate(places) if moving in place)
    if len(places[at]) > 1:
        places[at].remove(moving)
        places.insert(at if step < 0 else at + 1, [moving])
    elif 0 <= at + step < len(places):
        places[at], places[at + step] = places[at + step], places[at]
    else:
        return before
    return {pk: number for number, place in enumerate(places) for pk in place}


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
    type(row)._default_manager.select_for_update(no_key=True).get(pk=row.pk)
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
        from_queryset=Target.objects.select_for_update(of=("self",), no_key=True).select_related("provider")
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
    currency: str = "",
    cache_write_nanos: int | None = None,
    reasoning_nanos: int | None = None,
    audio_input_nanos: int | None = None,
    audio_output_nanos: int | None = None,
    request_nanos: int = 0,
    tiers: Sequence[catalog.Rates] = (),
    source: str = "operator",
) -> Price:
    """A dated price in whole nano-units of its currency, per million tokens; empty: the ledger's currency.

    It takes the place of one from the same moment. Calls that it comes too late for are priced again.
    Raises Unusable for one that cannot be on the books.
    """
    price = Price(
        target=target,
        valid_from=valid_from,
        currency=currency,
        input_nanos=input_nanos,
        cached_input_nanos=cached_input_nanos,
        output_nanos=output_nanos,
        cache_write_nanos=cache_write_nanos,
        reasoning_nanos=reasoning_nanos,
        audio_input_nanos=audio_input_nanos,
        audio_output_nanos=audio_output_nanos,
        request_nanos=request_nanos,
        tiers=[_kept_tier(each) for each in tiers],
        source=clean_name(source, _("The source"))[:100],
    )
    return enter_price(price)


def enter_price(price: Price) -> Price:
    """The same for a row that is not saved yet."""
    enter_prices([price])
    return price


@transaction.atomic
def enter_prices(prices: Sequence[Price]) -> None:
    """The same for many, all or none."""
    fill_in_prices(prices)
    by_target: dict[int, list[datetime]] = {}
    for each in prices:
        by_target.setdefault(each.target_id, []).append(each.valid_from)
    for target_id, begins in by_target.items():
        _price_again(target_id, begins)


@transaction.atomic
def fill_in_prices(prices: Sequence[Price]) -> None:
    """The same of targets that were just added, so that no calls can have been too early."""
    rates = snapshot.exchange_rates()
    for each in prices:
        check_new_price(each, rates)
    Price.objects.bulk_create(prices)
    for each in prices:
        audit.record("price.added", each, after=_facts(each), name=str(each.target))
    note_change()


def price_row(target: Target, price: catalog.Price, source: str) -> Price:
    """A price from a list or a file as a row that is not saved yet."""
    figures = asdict(price.rates)
    del figures["above_tokens"]
    return Price(
        target=target,
        valid_from=exchange.EPOCH + price.valid_from_us * exchange.MICROSECOND,
        currency=price.currency,
        request_nanos=price.request_nanos,
        tiers=[_kept_tier(each) for each in price.tiers],
        source=source,
        **figures,
    )


def check_new_price(price: Price, rates: exchange.Rates) -> None:
    """Of its figures, and of what they come to in the ledger's currency. Raises Unusable."""
    check_tiers([each["above_tokens"] for each in price.tiers])
    seen = snapshot.price_of(price)
    check_price(seen)
    spans = exchange.in_ledger([seen], rates, settings.LEDGER_CURRENCY)
    if not all(fits(dearest_of(seen), each.exchange) for each in spans if each.usable):
        raise Unusable(
            _("At a known exchange rate this is above %(most)s for a million tokens.")
            % {"most": _most_in_ledger()}
        )


def _most_in_ledger() -> str:
    return f"{MAX_PRICE_NANOS // 10**9:,} {settings.LEDGER_CURRENCY}"


def _kept_tier(tier: catalog.Rates) -> dict[str, int]:
    return {name: value for name, value in asdict(tier).items() if value is not None}


def _facts(price: Price) -> dict[str, Any]:
    """What the audit tells of a price: all that it names."""
    names = [each.attname for each in Price._meta.concrete_fields]
    told = {name: getattr(price, name) for name in names if name not in ("id", "target_id", "created_at")}
    return {name: value for name, value in told.items() if value not in (None, "", [])}


def _price_again(target_id: int, begins: Sequence[datetime]) -> None:
    """The calls of a target from the first new price to whatever comes after the last."""
    now = timezone.now()
    later = Price.objects.filter(target=target_id, valid_from__gt=max(begins))
    until = later.order_by("valid_from").values_list("valid_from", flat=True).first()
    cause = f"A price was entered for the time from {min(begins).astimezone(UTC):%Y-%m-%d %H:%M} UTC."
    _note_repricing([target_id], min(begins), min(until or now, now), cause)


def _note_repricing(target_ids: Collection[int], from_at: datetime, until_at: datetime, cause: str) -> None:
    """From when on there was a route: a price from years ago is no reason to look through years of calls."""
    routes = Route.objects.filter(targets__in=target_ids)
    first = routes.order_by("created_at").values_list("created_at", flat=True).first()
    if first is not None:
        repricing.note(target_ids, max(from_at, first), until_at, cause)


def add_exchange_rate(
    base: str, quote: str, day: date, rate_nanos: int, source: str = "operator"
) -> ExchangeRate:
    """From a day on in UTC, one unit of `base` is so many nano-units of `quote`.

    It takes the place of one of the same day, in whichever direction that was entered.
    Calls that it comes too late for are priced again. Raises Unusable for one that cannot be.
    """
    source = clean_name(source, _("The source"))[:100]
    rate = ExchangeRate(base=base, quote=quote, valid_from=day, rate_nanos=rate_nanos, source=source)
    return enter_exchange_rate(rate)


def enter_exchange_rate(rate: ExchangeRate) -> ExchangeRate:
    """The same for a row that is not saved yet."""
    enter_exchange_rates([rate])
    return rate


@transaction.atomic
def enter_exchange_rates(rates: Sequence[ExchangeRate]) -> None:
    """The same for many, all or none."""
    priced = priced_in(rates)
    by_pair: dict[frozenset[str], list[date]] = {}
    for each in rates:
        check_new_rate(each, priced)
    ExchangeRate.objects.bulk_create(rates)
    for each in rates:
        facts = {
            name: getattr(each, name) for name in ("base", "quote", "valid_from", "rate_nanos", "source")
        }
        audit.record("exchange_rate.added", each, after=facts)
        by_pair.setdefault(frozenset((each.base, each.quote)), []).append(each.valid_from)
    for pair, days in by_pair.items():
        _price_again_by(pair, days, priced)
    note_change()


class Priced(NamedTuple):
    """What there is in a currency other than the ledger's."""

    target_ids: frozenset[int]
    """Of targets with a price in it."""
    dearest_nanos: int
    """The highest of all their rates, in that currency."""


def priced_in(rates: Iterable[ExchangeRate]) -> Mapping[str, Priced]:
    """By currency, what these rates tell the ledger's figures of. One query."""
    currencies = {name for each in rates for name in (each.base, each.quote)} - {settings.LEDGER_CURRENCY}
    rows: dict[str, list[Price]] = {}
    for row in Price.objects.filter(currency__in=currencies):
        rows.setdefault(row.currency, []).append(row)
    return {
        currency: Priced(
            frozenset(each.target_id for each in found),
            max(dearest_of(snapshot.price_of(each)) for each in found),
        )
        for currency, found in rows.items()
    }


def check_new_rate(rate: ExchangeRate, priced: Mapping[str, Priced]) -> None:
    """Of itself, and of what it makes of prices. Raises Unusable."""
    check_rate(rate.base, rate.quote, rate.rate_nanos)
    check_day(rate.valid_from)
    found = priced.get(_foreign({rate.base, rate.quote}))
    alone = exchange.Rates([exchange.Quoted(rate.base, rate.quote, rate.valid_from, rate.rate_nanos)])
    known = alone.exchange(_foreign({rate.base, rate.quote}), settings.LEDGER_CURRENCY, rate.valid_from)
    if found and known and not fits(found.dearest_nanos, known):
        raise Unusable(
            _("It brings a price above %(most)s for a million tokens. Is it turned round?")
            % {"most": _most_in_ledger()}
        )


def _foreign(pair: Collection[str]) -> str:
    """The other currency of a pair with the ledger's; empty where it is not among them."""
    others = [each for each in pair if each != settings.LEDGER_CURRENCY]
    return others[0] if len(others) == 1 else ""


def _price_again_by(pair: frozenset[str], days: Sequence[date], priced: Mapping[str, Priced]) -> None:
    """The calls to targets with a price in the other currency, until the next rate between the two."""
    found = priced.get(_foreign(pair))
    if found:
        later = [day for day in snapshot.exchange_rates().days(*pair) if day > max(days)]
        until_at = min([timezone.now(), *map(_midnight, later)])
        cause = f"An exchange rate of {' and '.join(sorted(pair))} was entered from {min(days)} on."
        _note_repricing(found.target_ids, _midnight(min(days)), until_at, cause)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


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
            _(
                "The name of an environment variable has only letters, digits and underscores, "
                "and ends in _API_KEY."
            )
        )
    return name
