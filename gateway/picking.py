"""A model of a provider becomes a target of the route of its name, with its list price where one is known."""

from dataclasses import dataclass
from datetime import UTC

from django.conf import settings
from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from gateway import presets, price_books, services, snapshot
from gateway.models import Provider, Route, Target
from gateway.presets import Registration, RoutePreset


@dataclass(frozen=True, slots=True)
class Picked:
    """What a pick made."""

    target: Target
    is_new_route: bool
    has_price: bool
    """One that can be used today."""


@transaction.atomic
def pick(provider: Provider, wanted: RoutePreset) -> Picked | None:
    """A target at the end of the route of that model name, which is made where there is none.

    None: the route has the target already. Raises Unusable.
    A route that is new lets calls through where no price is known, as at the first start; they are flagged.
    """
    route = services.route_called(wanted.model_name)
    if route and route.targets.filter(provider=provider, upstream_model=wanted.upstream_model).exists():
        return None
    prices, source = price_books.list_prices(_registration(provider), wanted.upstream_model)
    rates, today = snapshot.exchange_rates(), timezone.now().astimezone(UTC).date()
    currency = settings.LEDGER_CURRENCY
    has_price = any(rates.exchange(each.currency or currency, currency, today) for each in prices)
    is_new = route is None
    if route is None:
        unpriced = Route.Unpriced.REFUSED if has_price else Route.Unpriced.ALLOWED
        route = services.add_route(wanted.model_name, unpriced=unpriced)
    services.add_aliases(route, wanted.aliases)
    target = services.add_target(
        route, provider, wanted.upstream_model, order=_after_the_last(route), parameters=wanted.parameters
    )
    services.fill_in_prices([services.price_row(target, each, source) for each in prices])
    return Picked(target, is_new, has_price)


def preset_of(provider: Provider, upstream_model: str, model_name: str = "") -> RoutePreset:
    """What a pick is to be: with what the vendor's models are known not to take, where that is known."""
    known = presets.usual_routes(provider.slug)
    usual = next((each for each in known if each.upstream_model == upstream_model), None)
    if usual and model_name in ("", usual.model_name):
        return usual
    parameters = usual.parameters if usual else {}
    return RoutePreset(model_name or upstream_model, upstream_model, parameters=parameters)


def _registration(provider: Provider) -> Registration:
    """The provider as price books know it."""
    price_list = presets.price_list_of(provider.base_url, simulated=provider.simulated)
    return Registration(provider.slug, provider.name, provider.base_url, (), 0, price_list)


def _after_the_last(route: Route) -> int:
    last = route.targets.aggregate(last=Max("order"))["last"]
    return 0 if last is None else min(last + 1, 32_767)
