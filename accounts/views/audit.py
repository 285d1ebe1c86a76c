"""The audit: who did what, when, from where, before and after."""

from urllib.parse import urlencode

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_GET

from accounts import queries
from accounts.forms.audit import AuditQuestion
from accounts.models import Team
from accounts.refusals import REFUSALS
from accounts.views.common import me, team_to

EVENTS_A_PAGE = 50


@login_required
@require_GET
def audit(request: HttpRequest) -> HttpResponse:
    """Owners see their teams', administrators all.

    A page begins after an event, so that new ones shift nothing.
    """
    teams = _audited_teams(request)
    if slug := request.GET.get("team"):
        team_to(request, slug, "see_audit")
    form = AuditQuestion(request.GET, teams=teams)
    asked = form.asked()
    events = queries.audit_events(me(request), form.chosen_team(), asked)
    before = request.GET.get("before", "")
    if before.isdecimal():
        events = events.filter(pk__lt=int(before[:18]))
    rows = list(events[: EVENTS_A_PAGE + 1])
    context = {
        "form": form,
        "events": rows[:EVENTS_A_PAGE],
        "team_names": {team.pk: team.name for team in teams},
        "next": _link(request, before=rows[EVENTS_A_PAGE - 1].pk) if len(rows) > EVENTS_A_PAGE else "",
        "first": _link(request) if before else "",
        "export": f"{reverse('api:export_audit')}?{urlencode(form.for_export())}",
        "is_filtered": form.is_asking(),
    }
    return render(request, "accounts/audit.html", context, status=422 if form.errors else 200)


def _audited_teams(request: HttpRequest) -> list[Team]:
    """Whose audit the reader may see. Raises PermissionDenied where there is none."""
    roles = queries.roles_of(me(request))
    found = [
        team
        for team in queries.teams_of(me(request))
        if "see_audit" in queries.rights(me(request), roles.get(team.pk))
    ]
    if not found and not me(request).is_superuser:
        raise PermissionDenied(str(REFUSALS["see_audit"]))
    return found


def _link(request: HttpRequest, **more: object) -> str:
    """This page with the same question, further on."""
    kept = {name: value for name, value in request.GET.items() if name != "before" and value}
    return f"{request.path}?{urlencode(kept | more)}"
