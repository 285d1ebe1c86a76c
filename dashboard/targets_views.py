"""Pages of targets, for operators: what each does now, its breaker's lever and timeline, and its settings."""

from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from dashboard import upstream_figures as figures
from dashboard.operators import me, operators
from dashboard.routes_forms import Lever, TargetSettings
from gateway import services
from gateway.models import BreakerChange, Target

CHANGES_SHOWN = 20


def _found(target_id: int) -> Target:
    return get_object_or_404(Target.objects.select_related("provider", "route"), pk=target_id)


@operators("view_target", "view_breakerchange")
@require_safe
def target(request: HttpRequest, target_id: int) -> HttpResponse:
    """Its breaker, pool and gate, the lever, and the timeline."""
    found = _found(target_id)
    context = {**_now(found), "price": figures.prices_now([found]).get(found.pk), "form": Lever()}
    return render(request, "dashboard/providers/target.html", context)


def _now(found: Target) -> dict[str, Any]:
    [now], why = figures.now_of([found])
    changes = BreakerChange.objects.filter(target_id=found.pk).select_related("by_user")[:CHANGES_SHOWN]
    return {"target": found, "each": now, "not_live": why, "changes": changes}


@operators("view_target", "view_breakerchange")
@require_safe
def target_now(request: HttpRequest, target_id: int) -> HttpResponse:
    """The part of the page that is asked for again and again."""
    return render(request, "dashboard/providers/target_now.html", _now(_found(target_id)))


@operators("change_target")
@require_http_methods(["GET", "POST"])
def change_target(request: HttpRequest, target_id: int) -> HttpResponse:
    """All that can be set of it."""
    found = _found(target_id)
    form = TargetSettings(found, request.POST if request.method == "POST" else None)
    if form.is_valid():
        try:
            services.update_target(found, form.cleaned_data)
        except ValidationError as why:
            form.add_error(None, why)
        else:
            messages.success(request, _("The settings of {name} are saved.").format(name=found))
            return redirect("target", found.pk)
    context = {"target": _found(target_id), "form": form}
    status = 422 if form.errors else 200
    return render(request, "dashboard/providers/target_settings.html", context, status=status)


@operators("change_target")
@require_POST
def switch_target(request: HttpRequest, target_id: int) -> HttpResponse:
    found = _found(target_id)
    on = request.POST.get("to") == "on"
    services.update_target(found, {"enabled": on})
    told = _("{name} is switched on.") if on else _("{name} is switched off.")
    messages.success(request, told.format(name=found))
    return redirect("route", found.route_id)


@operators("change_target")
@require_POST
def move_target(request: HttpRequest, target_id: int) -> HttpResponse:
    """One place earlier or later among its route's."""
    found = _found(target_id)
    earlier = request.POST.get("to") == "earlier"
    if services.move_target(found, -1 if earlier else 1):
        told = _("{name} is tried earlier now.") if earlier else _("{name} is tried later now.")
        messages.success(request, told.format(name=found))
    return redirect("route", found.route_id)


@operators("delete_target")
@require_http_methods(["GET", "POST"])
def remove_target(request: HttpRequest, target_id: int) -> HttpResponse:
    """With its prices. What calls to it cost stays on the books."""
    found = _found(target_id)
    if request.method == "POST":
        name, route_id = str(found), found.route_id
        services.remove_target(found)
        messages.success(request, _("{name} is removed.").format(name=name))
        return redirect("route", route_id)
    context = {"target": found, "price": figures.prices_now([found]).get(found.pk)}
    return render(request, "dashboard/providers/remove_target.html", context)


LEVERS = {
    "open": services.hold_breaker_open,
    "automatic": services.let_breaker_go,
    "close": services.close_breaker,
}


@operators("change_target")
@require_POST
def pull_lever(request: HttpRequest, target_id: int) -> HttpResponse:
    """Hold the breaker open, let it decide by itself again, or close it once."""
    found = _found(target_id)
    form = Lever(request.POST)
    if not form.is_valid():
        context = {**_now(found), "price": figures.prices_now([found]).get(found.pk), "form": form}
        return render(request, "dashboard/providers/target.html", context, status=422)
    lever = form.cleaned_data["lever"]
    done = LEVERS[lever](found, me(request), form.cleaned_data["why"])
    if done is False:
        messages.info(request, _("The breaker of {name} was so already.").format(name=found))
    else:
        messages.success(request, _told(lever).format(name=found))
    return redirect("target", found.pk)


def _told(lever: str) -> str:
    return {
        "open": _("The breaker of {name} is held open: no call goes there."),
        "automatic": _("The breaker of {name} decides by itself again."),
        "close": _("The breaker of {name} is closed: calls go there."),
    }[lever]
