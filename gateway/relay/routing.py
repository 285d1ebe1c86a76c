"""Which targets, in which order, at what price: a pure decision."""

from msgspec import Struct

from accounts.caller import Caller
from gateway.errors import RouteNotAllowed, Unpriced
from gateway.relay.catalog import Catalog, Price, Route, Target


class Step(Struct, frozen=True):
    """One target of a plan and the price in force when the plan was made."""

    target: Target
    price: Price | None


class Plan(Struct, frozen=True):
    """Targets in order for one call. Never empty."""

    route: Route
    steps: tuple[Step, ...]

    @property
    def simulated(self) -> bool:
        return self.steps[0].target.simulated


def plan(model_name: str, caller: Caller, catalog: Catalog, now_us: int) -> Plan:
    """Raises RouteNotAllowed where there is no such route, Unpriced where none of its targets has a price."""
    route = catalog.routes.get(model_name)
    if route is None or not route.targets:
        raise RouteNotAllowed(model_name)
    steps = tuple(Step(each, each.price_at(now_us)) for each in route.targets)
    if not route.unpriced_allowed:
        steps = tuple(each for each in steps if each.price is not None)
    if not steps:
        raise Unpriced(model_name)
    return Plan(route, steps)
