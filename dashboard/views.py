"""Pages that show usage. The live page is drawn once here; its figures come by socket."""

from typing import cast

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from accounts.models import Team, User
from accounts.queries import teams_of
from dashboard import breaker_history
from dashboard.chosen import chosen_team, key_names
from dashboard.frames import ALL
from dashboard.live import current
from gateway.queries import example_model_name, model_names


@require_safe
@login_required
def live(request: HttpRequest) -> HttpResponse:
    """Calls, latency, errors and spend as they happen, for one team or, to an administrator, for all."""
    user = cast(User, request.user)
    teams = list(teams_of(user))
    team = chosen_team(teams, request.GET.get("team", ""), user)
    shown = teams if team is None else [team]
    routes = model_names()
    now = timezone.now()
    targets, story = breaker_history.told(now, sees_all=team is None)
    context = {
        "teams": teams,
        "team": team,
        "may_see_all": user.is_superuser,
        "base_url": request.build_absolute_uri("/v1"),
        "model_name": example_model_name(routes),
        "currency": settings.LEDGER_CURRENCY,
        "names": {
            "routes": routes,
            "keys": key_names(shown),
            "teams": {each.pk: each.name for each in shown} if team is None else {},
        },
        "targets": targets,
        "calm": breaker_history.calm(story, targets, now),
        "breakers": story,
        "is_busy": _is_busy(team),
    }
    return render(
        request, "dashboard/live.html" if team or user.is_superuser else "dashboard/no_team.html", context
    )


def _is_busy(team: Team | None) -> bool:
    """Whether there is anything to draw, as far as is known here: the page begins with its charts then."""
    hub = current()
    return hub is not None and hub.has_frames(ALL if team is None else team.pk)
