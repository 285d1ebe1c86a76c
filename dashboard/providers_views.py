"""Pages of providers, for operators: their list, adding one from a preset, one provider, and its test."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from dashboard import discovered
from dashboard import upstream_figures as figures
from dashboard.operators import operators
from dashboard.providers_forms import (
    ABOUT,
    CredentialFields,
    NewProvider,
    OneCall,
    ProviderSettings,
    choice_called,
    first_model_name,
)
from gateway import picking, probes, probing, services
from gateway.inputs import Unusable
from gateway.models import Probe, Provider, Target
from gateway.presets import CHOICES, COMPATIBLE, RESOURCE, Choice
from gateway.probing import Listed

PROBES_SHOWN = 10
"""In the table; the chart has CHARTED."""
CHARTED = 100
ADD = ("add_provider", "add_route", "add_target")


@dataclass(frozen=True, slots=True)
class Row:
    """One provider of the list."""

    provider: Provider
    host: str
    targets: int
    breakers: list[tuple[int, figures.Sign]]
    credential: figures.Sign
    probe: Probe | None


@operators("view_provider")
@require_safe
def providers(request: HttpRequest) -> HttpResponse:
    """Four queries: providers with credentials, targets, the last probes, and the breakers' timelines."""
    found = list(_providers())
    now, why = figures.now_of(list(Target.objects.select_related("provider", "route")))
    probed = figures.last_probes(each.pk for each in found)
    rows = [_row(each, now, probed.get(each.pk)) for each in found]
    return render(request, "dashboard/providers/list.html", {"rows": rows, "not_live": why})


def _row(provider: Provider, now: Iterable[figures.Now], probe: Probe | None) -> Row:
    own = [each for each in now if each.target.provider_id == provider.pk]
    credential = figures.credential_of(provider)
    return Row(provider, figures.host_of(provider), len(own), figures.summary(own), credential, probe)


def _providers() -> QuerySet[Provider]:
    return Provider.objects.select_related("credential")


def found_provider(provider_id: int) -> Provider:
    return get_object_or_404(_providers(), pk=provider_id)


# Adding one


@operators(*ADD)
@require_http_methods(["GET", "POST"])
def add_provider(request: HttpRequest) -> HttpResponse:
    """Choose a preset, then fill in what it needs."""
    choice = choice_called(request.GET.get("preset", ""))
    if choice is None:
        if request.method == "POST":
            return render(request, "dashboard/providers/presets.html", {"choices": _choices()}, status=422)
        return render(request, "dashboard/providers/presets.html", {"choices": _choices()})
    form = NewProvider(choice, request.POST if request.method == "POST" else None)
    if form.is_valid():
        try:
            return _added(request, form)
        except (Unusable, IntegrityError) as why:
            form.add_error(None, str(why) if isinstance(why, Unusable) else _("There is one of that name."))
    context = {
        "form": form,
        "choice": choice,
        "about": ABOUT.get(choice.slug, ""),
        "is_local": choice.base_url.startswith("http://") or choice.slug == COMPATIBLE,
        "private_allowed": settings.ENV.allow_private_upstreams,
    }
    return render(request, "dashboard/providers/new.html", context, status=422 if form.errors else 200)


def _choices() -> list[tuple[Choice, str, str]]:
    """Each preset, its address as it is shown, and what else there is to say."""
    return [
        (each, each.base_url.replace(RESOURCE, "…") or _("an address of your own"), ABOUT.get(each.slug, ""))
        for each in CHOICES
    ]


@transaction.atomic
def _added(request: HttpRequest, form: NewProvider) -> HttpResponse:
    """Raises Unusable, IntegrityError; nothing is added then."""
    given = form.cleaned_data
    provider = services.add_provider(given["slug"], given["name"], form.address())
    _place_credential(provider, given)
    picked = [picking.pick(provider, each) for each in form.choice.routes if given.get("usual")]
    done = _("{name} is added. Test it before calls go there.").format(name=provider)
    if any(picked):
        done = _("{name} is added, and calls can go there. Test it.").format(name=provider)
    messages.success(request, done)
    return redirect("provider", provider.pk)


def _place_credential(provider: Provider, given: dict[str, Any]) -> None:
    """Raises Unusable."""
    if given["place"] == "kept":
        services.keep_credential(provider, given["secret"], settings.CREDENTIAL_KEYS)
    elif given["place"] == "environment":
        services.refer_to_credential(provider, given["env_var"])
    else:
        services.forget_credential(provider)


# One provider


@operators("view_provider")
@require_safe
def provider(request: HttpRequest, provider_id: int) -> HttpResponse:
    """Its targets and their breakers, its credential's state, its test, and its probes."""
    found = found_provider(provider_id)
    return render(request, "dashboard/providers/provider.html", _context(found, None))


def _context(found: Provider, test: "Result | None", form: OneCall | None = None) -> dict[str, Any]:
    """Five queries: targets, timelines, prices, exchange rates, probes."""
    targets = list(found.targets.select_related("provider", "route").order_by("route__model_name", "order"))
    now, why = figures.now_of(targets)
    prices = figures.prices_now(targets)
    rows = list(found.probes.all()[:CHARTED])
    names = [each.route.model_name for each in targets]
    return {
        "provider": found,
        "host": figures.host_of(found),
        "credential": figures.credential_of(found),
        "targets": [(each, prices.get(each.target.pk)) for each in now],
        "not_live": why,
        "form": form or OneCall(initial={"model_name": first_model_name(names)}),
        "model_names": dict.fromkeys(names),
        "test": test,
        "probes": [(each, probes.failures_of(each)) for each in rows[:PROBES_SHOWN]],
        "chart": _chart(rows),
        "every_s": settings.ENV.probe_interval_s,
        "timeout_s": probing.TIMEOUT_S,
        "kept": probes.KEPT,
        "currency": settings.LEDGER_CURRENCY,
    }


def _chart(rows: Sequence[Probe]) -> dict[str, Any] | None:
    """Of the model that was probed last, oldest first, in ms; None where no probe of it was answered."""
    probed = [each for each in rows if each.cause != Probe.Cause.TEST]
    own = [each for each in reversed(probed) if each.upstream_model == probed[0].upstream_model]
    if not any(each.answered for each in own):
        return None
    return {
        "upstream_model": own[-1].upstream_model,
        "at": [each.at.astimezone(UTC).isoformat(timespec="seconds") for each in own],
        "avg": [_ms(each.avg_us) for each in own],
        "min": [_ms(each.min_us) for each in own],
        "max": [_ms(each.max_us) for each in own],
    }


def _ms(us: int | None) -> float | None:
    return None if us is None else round(us / 1000, 1)


@operators("change_provider")
@require_http_methods(["GET", "POST"])
def change_provider(request: HttpRequest, provider_id: int) -> HttpResponse:
    """Its name, address and certificates."""
    found = found_provider(provider_id)
    first = {"name": found.name, "base_url": found.base_url, "ca_pem": found.ca_pem}
    form = ProviderSettings(request.POST if request.method == "POST" else None, initial=first)
    if form.is_valid():
        try:
            services.update_provider(found, form.cleaned_data)
        except ValidationError as why:
            form.add_error(None, why)
        else:
            messages.success(request, _("The settings of {name} are saved.").format(name=found))
            return redirect("provider", found.pk)
    context = {"provider": found_provider(provider_id), "form": form}
    status = 422 if form.errors else 200
    return render(request, "dashboard/providers/settings.html", context, status=status)


@operators("change_provider")
@require_POST
def switch_provider(request: HttpRequest, provider_id: int) -> HttpResponse:
    """On or off, as the form says; all its targets with it."""
    found = found_provider(provider_id)
    on = request.POST.get("to") == "on"
    services.enable_provider(found, on)
    told = (
        _("{name} is switched on: calls may go there.")
        if on
        else _("{name} is switched off: no call goes there.")
    )
    messages.success(request, told.format(name=found))
    return redirect("providers") if request.POST.get("back") == "list" else redirect("provider", found.pk)


@operators("change_provider")
@require_http_methods(["GET", "POST"])
def change_credential(request: HttpRequest, provider_id: int) -> HttpResponse:
    """Replace the credential, or leave it to the environment, or send none. What there was is never shown."""
    found = found_provider(provider_id)
    row = getattr(found, "credential", None)
    place = "none" if row is None else ("kept" if row.encrypted else "environment")
    first = {"place": place, "env_var": row.env_var if row else ""}
    form = CredentialFields(request.POST if request.method == "POST" else None, initial=first)
    if form.is_valid():
        try:
            _place_credential(found, form.cleaned_data)
        except Unusable as why:
            form.add_error(None, str(why))
        else:
            messages.success(request, _("The credential of {name} is changed. Test it.").format(name=found))
            return redirect("provider", found.pk)
    context = {"provider": found, "form": form, "credential": figures.credential_of(found)}
    status = 422 if form.errors else 200
    return render(request, "dashboard/providers/credential.html", context, status=status)


# Its test


@dataclass(frozen=True, slots=True)
class Result:
    """What a test found; its sentences are for a person, and hold no credential."""

    asked: str
    """`POST /chat/completions` or `GET /models`"""
    latency_us: int
    failure: str = ""
    model: str = ""
    probe: Probe | None = None
    listed: Listed | None = None


@operators("change_provider")
@require_POST
def test_provider(request: HttpRequest, provider_id: int) -> HttpResponse:
    """One real call, or the question for its models: answered with a part of the page, or all of it."""
    found = found_provider(provider_id)
    form = OneCall(request.POST)
    if request.POST.get("what") == "models":
        form = OneCall(initial={"model_name": request.POST.get("model_name")})
        result = _asked_for_models(found)
    elif form.is_valid():
        result = _called(found, form.cleaned_data["model_name"])
    else:
        result = Result("POST /chat/completions", 0, failure=_("Say which model name to call."))
    status = 422 if form.errors else 200
    if getattr(request, "htmx", False):
        context = {"test": result, "currency": settings.LEDGER_CURRENCY, "provider": found}
        return render(request, "dashboard/providers/test_result.html", context)
    context = _context(found_provider(provider_id), result, form)
    return render(request, "dashboard/providers/provider.html", context, status=status)


def _called(found: Provider, model_name: str) -> Result:
    [(_provider, run, row)] = probes.probe([found], model_name, 1, Probe.Cause.TEST)
    [tried] = run.tries
    failure = probing.said(tried.failure) if tried.failure else ""
    return Result("POST /chat/completions", tried.latency_us, failure, run.upstream_model, row)


def _asked_for_models(found: Provider) -> Result:
    listed = discovered.ask(found)
    failure = probing.said(listed.failure) if listed.failure else ""
    return Result("GET /models", listed.latency_us, failure, listed=listed)
