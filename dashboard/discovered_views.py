"""The models that a provider says it has, to pick from. Asked for by a press."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods, require_POST

from dashboard import discovered
from dashboard.operators import operators
from dashboard.providers_forms import PickByHand
from dashboard.providers_views import found_provider
from gateway import picking, probing
from gateway.inputs import Unusable
from gateway.models import Provider
from gateway.picking import Picked

SHOWN: Final = 100
"""Of those that match; a search finds the others."""
MOST_PICKED: Final = 100
"""At once: each is a route, a target and its prices."""


@dataclass(frozen=True, slots=True)
class Line:
    """One model of the list."""

    name: str
    is_picked: bool
    routes: Sequence[str]
    """Model names that lead there already."""


@operators("view_provider", "add_target")
@require_http_methods(["GET", "HEAD", "POST"])
def models(request: HttpRequest, provider_id: int) -> HttpResponse:
    """What there is, searched; a POST asks the provider anew."""
    found = found_provider(provider_id)
    if request.method == "POST":
        discovered.ask(found)
        return redirect("provider_models", found.pk)
    return render(request, "dashboard/providers/models.html", _context(request, found, PickByHand()))


def _context(request: HttpRequest, found: Provider, form: PickByHand) -> dict[str, Any]:
    answer = discovered.remembered(found)
    there: dict[str, list[str]] = {}
    for upstream_model, model_name in found.targets.values_list("upstream_model", "route__model_name"):
        there.setdefault(upstream_model, []).append(model_name)
    query, picked = request.GET.get("q", "").strip()[:200], request.GET.getlist("pick")
    matching = matches(answer.names if answer else (), query, picked)
    return {
        "provider": found,
        "discovered": answer,
        "query": query,
        "lines": [Line(each, each in picked, there.get(each, [])) for each in matching[:SHOWN]],
        "more": max(0, len(matching) - SHOWN),
        "found": len(matching),
        "form": form,
        "timeout_s": probing.TIMEOUT_S,
    }


def matches(names: Sequence[str], query: str, picked: Sequence[str]) -> list[str]:
    """Those with every word of the query in them; what was picked already comes first. Pure."""
    words = query.lower().split()
    chosen = [each for each in names if each in picked]
    return chosen + [
        each for each in names if each not in picked and all(word in each.lower() for word in words)
    ]


@operators("add_route", "add_target")
@require_POST
def pick(request: HttpRequest, provider_id: int) -> HttpResponse:
    """Add a target for each that was ticked, or for the one that was typed in."""
    found = found_provider(provider_id)
    wanted = dict.fromkeys(request.POST.getlist("pick")[:MOST_PICKED], "")
    if "upstream_model" in request.POST:
        form = PickByHand(request.POST)
        if not form.is_valid():
            context = _context(request, found, form)
            return render(request, "dashboard/providers/models.html", context, status=422)
        wanted[form.cleaned_data["upstream_model"]] = form.cleaned_data["model_name"]
    if not wanted:
        messages.warning(request, _("Nothing was picked: tick the models that clients may ask for."))
        return redirect("provider_models", found.pk)
    _pick(request, found, wanted)
    return redirect("provider", found.pk)


def _pick(request: HttpRequest, found: Provider, wanted: Mapping[str, str]) -> None:
    """Each by itself, and what is refused is said of each."""
    added: list[Picked] = []
    there = 0
    for upstream_model, model_name in wanted.items():
        try:
            done = picking.pick(found, picking.preset_of(found, upstream_model, model_name))
        except Unusable as why:
            messages.error(request, f"{upstream_model[:100]}: {why}")
            continue
        if done is None:
            there += 1
        else:
            added.append(done)
    _tell(request, added, there)


def _tell(request: HttpRequest, added: Sequence[Picked], there: int) -> None:
    """Of all together; `there`: how many were targets already."""
    if added:
        told = ngettext(
            "{count} target is added: {names}.", "{count} targets are added: {names}.", len(added)
        )
        messages.success(request, told.format(count=len(added), names=_shortened(_names(added))))
    if there:
        told = ngettext("{count} target was there already.", "{count} targets were there already.", there)
        messages.warning(request, told.format(count=there))
    if unpriced := [each for each in added if not each.has_price]:
        told = _(
            "No price is known for {names}: enter one. Their routes say what becomes of calls until then."
        )
        messages.warning(request, told.format(names=_shortened(_names(unpriced))))


def _names(picked: Sequence[Picked]) -> list[str]:
    return [each.target.route.model_name for each in picked]


def _shortened(names: Sequence[str]) -> str:
    more = len(names) - 5
    told = ", ".join(names[:5])
    return _("{names} and {more} more").format(names=told, more=more) if more > 0 else told
