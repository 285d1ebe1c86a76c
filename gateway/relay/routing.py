"""Which targets, in which order, at what price: a pure decision."""

from collections.abc import Callable, Sequence
from math import inf, log

from msgspec import Raw, Struct

from accounts.caller import Caller
from gateway.errors import ContextTooLong, ParameterRefused, RouteNotAllowed, Unpriced
from gateway.relay import bounds, overflow, parameters
from gateway.relay.call import Call
from gateway.relay.catalog import Catalog, Price, Route, Target
from gateway.relay.tokenizer import Counts

NO_TOOLS = Raw(b"")


class Step(Struct, frozen=True):
    """One target of a plan, the price in force when the plan was made, and what is sent there."""

    target: Target
    price: Price | None
    fields: dict[str, Raw]
    """The call's top-level values as this target takes them."""
    trimmed: int = 0
    """Messages that were left out, the oldest first."""
    dropped: tuple[str, ...] = ()
    """Parameters that were left out, because the target does not take them."""
    media: bounds.Media = bounds.NO_MEDIA
    """Of the messages that are sent; counted only under a hard quota."""


class Plan(Struct, frozen=True):
    """Targets in order for one call. Never empty."""

    route: Route
    steps: tuple[Step, ...]
    max_tokens: int
    """Output tokens over all choices: the bound that goes up, or what is probable where there is none."""
    asked: str = ""
    """The route that was asked for, where the messages were too long for it and `route` is the one
    that it names for that."""

    @property
    def model_name(self) -> str:
        """Under which the call is on the books: as it was asked for."""
        return self.asked or self.route.model_name

    @property
    def simulated(self) -> bool:
        return self.steps[0].target.simulated


Draw = Callable[[], float]
"""A random number from 0 up to 1."""


def plan(call: Call, caller: Caller, catalog: Catalog, now_us: int, draw: Draw) -> Plan:
    """Raises RouteNotAllowed where there is no such route for this caller, Unpriced where none of its targets
    has a price, ParameterRefused, ParameterTooLarge and ContextTooLong where none takes the call as it is."""
    route = _open_to(caller, catalog, call.model_name)
    if route is None:
        raise RouteNotAllowed(call.model_name)
    made = _plan(route, call, caller, now_us, draw)
    return made or rerouted(route, call, caller, catalog, now_us, draw)


def rerouted(route: Route, call: Call, caller: Caller, catalog: Catalog, now_us: int, draw: Draw) -> Plan:
    """The plan on the route that this one names for long messages. Raises what `plan` raises.

    One change of route is all: what is too long there as well is refused.
    """
    named = route.overflow_route if route.overflow == "reroute" else ""
    other = _open_to(caller, catalog, named)
    if other is None or other is route:
        raise ContextTooLong(route.model_name)
    made = _plan(other, call, caller, now_us, draw, route.model_name)
    if made is None:
        raise ContextTooLong(route.model_name)
    return made


def _open_to(caller: Caller, catalog: Catalog, name: str) -> Route | None:
    """The route of a name that has targets and that this caller may use; whatever alias it is called by."""
    route = catalog.routes.get(name)
    if route is None or not route.targets or not caller.may_use(route.model_name):
        return None
    return route


class _Sizes(Struct, frozen=True):
    """What is sent of the call's top-level values, and how large the answer may be."""

    fields: dict[str, Raw]
    max_tokens: int
    media: bounds.Media
    bounded: bool
    """Only targets that hear of the bound, and know how much an image counts as."""
    priced: bool
    """Only targets with a price."""


def _sizes(route: Route, call: Call, caller: Caller) -> _Sizes:
    """Raises ParameterTooLarge, and InvalidCall where a hard quota must know what cannot be read."""
    bounds.check(call, route)
    if not caller.quotas:
        return _Sizes(call.fields, call.max_tokens, bounds.NO_MEDIA, False, not route.unpriced_allowed)
    priced = not route.unpriced_allowed or any(each.kind == "money" for each in caller.quotas)
    if not any(each.hard for each in caller.quotas):
        return _Sizes(call.fields, call.max_tokens, bounds.NO_MEDIA, False, priced)
    bound = bounds.usual_bound(route) if call.bound is None else call.bound
    fields = bounds.filled(call, route)
    return _Sizes(fields, bound * call.choices, bounds.media_of(fields), True, priced)


def _plan(route: Route, call: Call, caller: Caller, now_us: int, draw: Draw, asked: str = "") -> Plan | None:
    """The targets that can be asked, in order; None where the messages are too long for all of them."""
    sizes = _sizes(route, call, caller)
    steps = _priced(route, sizes, now_us)
    steps = steps if len(steps) == 1 else in_order(steps, draw)
    steps = _taking(steps, call, sizes)
    counts = Counts()  # targets with the same vocabulary share them
    fitting = [each for each in steps if _fits(each, sizes, counts)]
    chosen = tuple(fitting or _shortened(route, steps, counts))
    return Plan(route, chosen, sizes.max_tokens, asked) if chosen else None


def _priced(route: Route, sizes: _Sizes, now_us: int) -> list[Step]:
    steps = [Step(each, each.price_at(now_us), sizes.fields, media=sizes.media) for each in route.targets]
    if sizes.priced:
        steps = [each for each in steps if each.price is not None]
    if not steps:
        raise Unpriced(route.model_name)
    return steps


def in_order(steps: Sequence[Step], draw: Draw) -> list[Step]:
    """By order; within one order at random, each target first as often as its weight says.

    Weighted random sampling by Efraimidis and Spirakis (2006): the largest u^(1/w) goes first,
    which is the smallest -log(u)/w. A weight of 0 goes last.
    """
    return sorted(steps, key=lambda each: (each.target.order, _lot(each.target.weight, draw)))


def _lot(weight: int, draw: Draw) -> float:
    return -log(1.0 - draw()) / weight if weight else inf


def _taking(steps: list[Step], call: Call, sizes: _Sizes) -> list[Step]:
    """The targets that take the call's parameters, each with its own version of them."""
    if sizes.bounded:
        return _bounded(_adjusted(steps, call), call, sizes)
    return _adjusted(steps, call)


def _bounded(steps: list[Step], call: Call, sizes: _Sizes) -> list[Step]:
    """The targets whose worst case is known. Raises ParameterRefused where there is none."""
    unknown = sizes.media.count > 0
    known = [each for each in steps if not unknown or each.target.media_tokens is not None]
    if not known:
        raise ParameterRefused(
            "messages",
            call.model_name,
            "a hard quota applies, and no target says how many tokens an image, a recording or a file is.",
        )
    sure = [each for each in known if bounds.priced_apart(each.fields) is None]
    if not sure:
        name = bounds.priced_apart(known[0].fields) or ""
        raise ParameterRefused(
            name, call.model_name, f"a hard quota applies, and what '{name}' adds to the price is not known."
        )
    heard = [each for each in sure if bounds.is_bounded(each.fields)]
    if not heard:
        raise ParameterRefused(
            "max_tokens", call.model_name, "a hard quota applies, and no target takes a bound of its answer."
        )
    return heard


def _adjusted(steps: list[Step], call: Call) -> list[Step]:
    if not any(each.target.parameters for each in steps):
        return steps
    found: list[Step] = []
    refusals: list[ParameterRefused] = []
    for step in steps:
        try:
            made = parameters.adjusted(step.fields, step.target.parameters)
        except parameters.ParameterNotTaken as why:
            refusals.append(ParameterRefused(why.param, call.model_name, str(why)))
        else:
            found.append(Step(step.target, step.price, made.fields, dropped=made.dropped, media=step.media))
    if not found and refusals:
        raise refusals.pop(0)  # held by nothing here, or it and this frame would hold each other
    return found


def _fits(step: Step, sizes: _Sizes, counts: Counts) -> bool:
    window = step.target.context_window
    if window is None:
        return True
    fields = step.fields
    size = len(memoryview(fields["messages"])) + len(memoryview(fields.get("tools", NO_TOOLS)))
    if overflow.fits(size, sizes.max_tokens, window):
        return True
    model = step.target.upstream_model
    return not overflow.exceeds(fields, model, overflow.answer_tokens(fields), window, counts)


def _shortened(route: Route, steps: list[Step], counts: Counts) -> list[Step]:
    """The targets whose window the messages fit once the oldest are left out, if the route says so."""
    if route.overflow != "trim":
        return []
    found = []
    for step in steps:
        window = step.target.context_window
        assert window is not None  # who has none fits
        fields, model = step.fields, step.target.upstream_model
        room = overflow.room(fields, model, overflow.answer_tokens(fields), window, counts)
        shorter = overflow.trimmed(fields["messages"], model, room, counts)
        if shorter is not None and shorter.fits:
            found.append(with_messages(step, shorter.messages, shorter.dropped))
    return found


def with_messages(step: Step, messages: Raw, dropped: int) -> Step:
    """The step with fewer messages; `dropped` more than were left out before.

    An image that is left out counts no more, or its bytes would be taken off what is left.
    """
    fields = {**step.fields, "messages": messages}
    media = bounds.media_of(fields) if step.media.count else step.media
    return Step(step.target, step.price, fields, step.trimmed + dropped, step.dropped, media)


def repriced(step: Step, now_us: int) -> Step:
    """The step at the price that is in force now: waits and earlier attempts may have taken a while."""
    price = step.target.price_at(now_us)
    if price is step.price:
        return step
    return Step(step.target, price, step.fields, step.trimmed, step.dropped, step.media)
