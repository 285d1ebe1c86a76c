"""The playground: a chat through the relay from the browser, with a key of the person's own for an hour.

The pages make the key and say what may be asked for.
The calls are the browser's, to `/v1/` at the same address.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe

from accounts import queries, services
from accounts.models import Team, User
from accounts.refusals import REFUSALS
from accounts.services.keys import PLAYGROUND_FOR, PlaygroundsUsedUp
from dashboard import rounded
from gateway import exchange, snapshot
from gateway.models import Price, Route, Target
from gateway.queries import example_model_name
from gateway.relay import catalog

HOTTEST: Final = 2.0
MOST_TOKENS: Final = 10**9


@dataclass(frozen=True, slots=True)
class Offer:
    """A model name that can be asked for, and what it costs at the target that is tried first."""

    model_name: str
    price: catalog.Price | None

    @property
    def said(self) -> str:
        """For a person: `$0.15 in, $0.60 out`."""
        if self.price is None:
            return _("no price")
        nanos = self.nanos()
        amounts = {each: rounded.money(nanos[each], settings.LEDGER_CURRENCY) for each in ("input", "output")}
        return _("%(input)s in, %(output)s out") % amounts

    def nanos(self) -> dict[str, int]:
        """For a million tokens, and for one request: whole nano-units of the ledger currency."""
        if self.price is None:
            return {}
        rates, rate = self.price.rates, self.price.exchange
        own = {
            "input": rates.input_nanos,
            "cached": rates.cached_input_nanos,
            "output": rates.output_nanos,
            "request": self.price.request_nanos,
        }
        return {name: nanos * rate.numerator // rate.denominator for name, nanos in own.items()}


@require_safe
@login_required
def playground(request: HttpRequest) -> HttpResponse:
    """The page of one team. The address holds what is asked for; what is said stays in the browser."""
    user = cast(User, request.user)
    teams = [each for each in queries.teams_of(user) if each.archived_at is None]
    roles = queries.roles_of(user)
    team = _chosen(request.GET.get("team", ""), teams, roles, user)
    if team is None:
        return render(request, "dashboard/playground_no_team.html")
    offers = _offers(timezone.now())
    context = {
        "teams": teams,
        "team": team,
        "may_call": "make_keys" in queries.rights(user, roles.get(team.pk)),
        "offers": offers,
        "currency": settings.LEDGER_CURRENCY,
        "lasts_min": int(PLAYGROUND_FOR.total_seconds()) // 60,
        "facts": _facts(request, offers),
        **_asked(request, [each.model_name for each in offers]),
    }
    return render(request, "dashboard/playground.html", context)


@require_POST
@login_required
def open_playground(request: HttpRequest, slug: str) -> HttpResponse:
    """A key for the page that asks, in the only answer that ever has it: JSON, never stored by anybody."""
    user = cast(User, request.user)
    team = get_object_or_404(queries.teams_of(user), slug=slug)
    if not queries.may(user, team, "make_keys"):
        return JsonResponse({"message": str(REFUSALS["make_keys"])}, status=403)
    try:
        _key, text = services.open_playground(team, user)
    except services.NotPossible as why:
        status = 429 if isinstance(why, PlaygroundsUsedUp) else 409
        return JsonResponse({"message": str(why)}, status=status)
    return JsonResponse({"api_key": text, "lasts_s": int(PLAYGROUND_FOR.total_seconds())})


def _chosen(slug: str, teams: Sequence[Team], roles: Mapping[int, str], user: User) -> Team | None:
    """The team of the address, else the first in which they may call, else the first. Raises Http404."""
    if slug:
        for team in teams:
            if team.slug == slug:
                return team
        raise Http404
    own = [each for each in teams if "make_keys" in queries.RIGHTS.get(roles.get(each.pk, ""), ())]
    return next(iter([*own, *teams]), None)


def _asked(request: HttpRequest, names: Sequence[str]) -> dict[str, Any]:
    """What the address says, where it makes sense; the browser keeps it up to date."""
    model_name, other = request.GET.get("model", ""), request.GET.get("with", "")
    return {
        "model_name": model_name if model_name in names else example_model_name(names),
        "other": other if other in names else "",
        "temperature": _number(request.GET.get("temperature", ""), HOTTEST),
        "max_tokens": _number(request.GET.get("max_tokens", ""), MOST_TOKENS).partition(".")[0],
    }


def _number(text: str, most: float) -> str:
    """The text again, if it is a plain number that is not larger; else empty."""
    is_plain = text.isascii() and text.replace(".", "", 1).isdigit() and len(text) < 12
    return text if is_plain and float(text) <= most else ""


def _facts(request: HttpRequest, offers: Sequence[Offer]) -> dict[str, Any]:
    """For the page's script."""
    return {
        "currency": settings.LEDGER_CURRENCY,
        "base_url": request.build_absolute_uri("/v1"),
        "prices": {each.model_name: each.nanos() for each in offers},
    }


def _offers(now: datetime) -> list[Offer]:
    """Four queries: routes, their first targets, prices, exchange rates."""
    routes = list(Route.objects.filter(enabled=True).only("model_name"))
    rows = Target.objects.filter(enabled=True, provider__enabled=True).order_by("-order", "-id")
    first = dict(rows.values_list("route_id", "pk"))
    prices = _prices(list(first.values()), snapshot.exchange_rates(), now)
    return [Offer(each.model_name, prices.get(first.get(each.pk, 0))) for each in routes]


def _prices(target_ids: Sequence[int], rates: exchange.Rates, now: datetime) -> dict[int, catalog.Price]:
    """What holds now, by target, in the ledger currency; without those that have none."""
    rows = Price.objects.filter(target__in=target_ids, valid_from__lte=now).order_by("valid_from", "id")
    now_us = int(now.timestamp() * 1_000_000)
    found = {}
    for target_id, prices in snapshot.prices_of(rows, rates).items():
        begun = [each for each in prices if each.valid_from_us <= now_us]
        if begun and begun[-1].usable:
            found[target_id] = begun[-1]
    return found
