"""Pages of routes, for operators: their list, and one with its targets in the order of their turns."""

from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from dashboard import upstream_figures as figures
from dashboard.operators import operators
from dashboard.routes_forms import NewRoute, NewTarget, RouteSettings
from gateway import services
from gateway.inputs import Unusable
from gateway.models import Route, Target

SHOWN = 200
"""Routes of a page of the list."""


@operators("view_route")
@require_safe
def routes(request: HttpRequest) -> HttpResponse:
    """Those whose name has what is searched for. Five queries: routes, targets, timelines, prices, rates."""
    query = request.GET.get("q", "").strip()[:200]
    found = _routes().filter(model_name__icontains=query) if query else _routes()
    rows = list(found[: SHOWN + 1])
    targets = [target for each in rows[:SHOWN] for target in each.targets.all()]
    now, why = figures.now_of(targets)
    prices = figures.prices_now(targets)
    by_route: dict[int, list[figures.Now]] = {}
    for each in now:
        by_route.setdefault(each.target.route_id, []).append(each)
    context = {
        "rows": [(each, by_route.get(each.pk, []), _unpriced(each, prices)) for each in rows[:SHOWN]],
        "more": len(rows) > SHOWN,
        "query": query,
        "not_live": why,
    }
    return render(request, "dashboard/providers/routes.html", context)


def _routes() -> QuerySet[Route]:
    targets = Target.objects.select_related("provider", "route")
    return Route.objects.prefetch_related(Prefetch("targets", targets))


def _unpriced(route: Route, prices: dict[int, figures.PriceNow]) -> int:
    """How many of its targets have no price that can be used."""
    found = [prices.get(each.pk) for each in route.targets.all()]
    return sum(each is None or not each.usable for each in found)


@operators("add_route")
@require_http_methods(["GET", "POST"])
def add_route(request: HttpRequest) -> HttpResponse:
    form = NewRoute(request.POST if request.method == "POST" else None)
    if form.is_valid():
        given = form.cleaned_data
        try:
            made = services.add_route(given["model_name"], unpriced=given["unpriced"])
        except (Unusable, IntegrityError) as why:
            told = str(why) if isinstance(why, Unusable) else _("There is a route of that name already.")
            form.add_error("model_name", told)
        else:
            messages.success(request, _("The route {name} is added. Now add its targets.").format(name=made))
            return redirect("route", made.pk)
    status = 422 if form.errors else 200
    return render(request, "dashboard/providers/new_route.html", {"form": form}, status=status)


@operators("view_route")
@require_safe
def route(request: HttpRequest, route_id: int) -> HttpResponse:
    """Its targets with prices, what they do now, and its settings."""
    found = get_object_or_404(_routes(), pk=route_id)
    return render(request, "dashboard/providers/route.html", _context(found, NewTarget()))


def _context(found: Route, form: NewTarget) -> dict[str, Any]:
    targets = list(found.targets.all())
    now, why = figures.now_of(targets)
    prices = figures.prices_now(targets)
    orders = [each.order for each in targets]
    return {
        "route": found,
        "rows": [
            {
                "now": each,
                "target": each.target,
                "price": prices.get(each.target.pk),
                "shares": orders.count(each.target.order) > 1,
                "share": _share(each.target, targets),
                "is_first": number == 0 and orders.count(each.target.order) == 1,
                "is_last": number == len(now) - 1 and orders.count(each.target.order) == 1,
            }
            for number, each in enumerate(now)
        ],
        "now": now,
        "not_live": why,
        "form": form,
        "settings": RouteSettings(found),
    }


def _share(target: Target, targets: list[Target]) -> float | None:
    """Of the calls among the targets of its order that are switched on; None where it shares with none."""
    peers = [each for each in targets if each.order == target.order and each.enabled]
    total = sum(each.weight for each in peers)
    return target.weight / total if len(peers) > 1 and target.enabled and total else None


@operators("view_target")
@require_safe
def route_now(request: HttpRequest, route_id: int) -> HttpResponse:
    """The part of the page that is asked for again and again."""
    found = get_object_or_404(_routes(), pk=route_id)
    now, why = figures.now_of(list(found.targets.all()))
    return render(request, "dashboard/providers/now.html", {"now": now, "not_live": why})


@operators("change_route")
@require_http_methods(["GET", "POST"])
def change_route(request: HttpRequest, route_id: int) -> HttpResponse:
    """All that can be set of it."""
    found = get_object_or_404(Route, pk=route_id)
    form = RouteSettings(found, request.POST if request.method == "POST" else None)
    if form.is_valid():
        try:
            services.update_route(found, form.cleaned_data)
        except ValidationError as why:
            form.add_error(None, why)
        else:
            messages.success(request, _("The settings of {name} are saved.").format(name=found))
            return redirect("route", found.pk)
    context = {"route": get_object_or_404(Route, pk=route_id), "form": form}
    status = 422 if form.errors else 200
    return render(request, "dashboard/providers/route_settings.html", context, status=status)


@operators("add_target")
@require_POST
def add_target(request: HttpRequest, route_id: int) -> HttpResponse:
    """At the end of the route."""
    found = get_object_or_404(_routes(), pk=route_id)
    form = NewTarget(request.POST)
    if form.is_valid():
        given = form.cleaned_data
        last = max((each.order for each in found.targets.all()), default=-1)
        try:
            made = services.add_target(found, given["provider"], given["upstream_model"], order=last + 1)
        except IntegrityError:
            form.add_error("upstream_model", _("The route has this target already."))
        except (Unusable, ValidationError) as why:
            form.add_error("upstream_model", str(why))
        else:
            messages.success(request, _("{target} is added as the last to be tried.").format(target=made))
            return redirect("route", found.pk)
    found = get_object_or_404(_routes(), pk=route_id)
    return render(request, "dashboard/providers/route.html", _context(found, form), status=422)
