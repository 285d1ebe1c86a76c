"""Pages that show usage. The live page is drawn once here; its figures come by socket."""

from typing import cast

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from accounts.models import ApiKey, Team, User
from accounts.queries import teams_of
from gateway.queries import example_model_name, model_names

KEY_NAMES = 1000
"""As many names as a page carries; a key beyond them is shown by its number."""


@require_safe
@login_required
def live(request: HttpRequest) -> HttpResponse:
    """Calls, latency, errors and spend as they happen, for one team or, to an administrator, for all."""
    user = cast(User, request.user)
    teams = list(teams_of(user))
    team = _chosen(teams, request.GET.get("team", ""), user)
    shown = teams if team is None else [team]
    routes = model_names()
    context = {
        "teams": teams,
        "team": team,
        "may_see_all": user.is_superuser,
        "base_url": request.build_absolute_uri("/v1"),
        "model_name": example_model_name(routes),
        "currency": settings.LEDGER_CURRENCY,
        "names": {
            "routes": routes,
            "keys": _key_names(shown),
            "teams": {each.pk: each.name for each in shown} if team is None else {},
        },
    }
    return render(
        request, "dashboard/live.html" if team or user.is_superuser else "dashboard/no_team.html", context
    )


def _chosen(teams: list[Team], slug: str, user: User) -> Team | None:
    """The team of the address, else all for an administrator, else the first. Raises Http404."""
    if slug:
        for team in teams:
            if team.slug == slug:
                return team
        raise Http404
    return None if user.is_superuser or not teams else teams[0]


def _key_names(teams: list[Team]) -> dict[int, str]:
    keys = ApiKey.objects.filter(team__in=teams).order_by("-id").values_list("id", "name")
    return dict(keys[:KEY_NAMES])
