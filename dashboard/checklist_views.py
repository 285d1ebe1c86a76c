"""Getting started: the checklist as a page, and as a part of others that is fetched by itself."""

from typing import Any, cast

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from accounts.models import Milestone, User
from accounts.services import milestones
from dashboard.checklist import Checklist, checklist
from dashboard.checklist_facts import facts_of

PART = "getting-started"
"""The id of the small panel on other pages, as htmx says which part it asks for."""


@login_required
@require_http_methods(["GET", "POST"])
def getting_started(request: HttpRequest) -> HttpResponse:
    """The ten items; a POST puts the small panel away, or back."""
    user = cast(User, request.user)
    if request.method == "POST":
        put = milestones.forget if request.POST.get("shown") == "yes" else milestones.reach
        put(user, Milestone.Name.CHECKLIST_CLOSED)
        return redirect("live" if request.POST.get("from") == "live" else "getting_started")
    found = checklist(facts_of(user, timezone.now()))
    if _asks_for_part(request):
        return _part(request, user, found)
    context = {"checklist": found, "is_shown": is_shown_to(user), "on_page": True}
    return render(request, "dashboard/getting_started.html", context)


def is_shown_to(user: User) -> bool:
    """Whether other pages show the small panel; one query."""
    return not Milestone.objects.filter(user=user, name=Milestone.Name.CHECKLIST_CLOSED).exists()


def _asks_for_part(request: HttpRequest) -> bool:
    htmx: Any = getattr(request, "htmx", None)
    return bool(htmx) and htmx.target == PART


def _part(request: HttpRequest, user: User, found: Checklist) -> HttpResponse:
    """Nothing once all is done, from then on without being asked for."""
    if found.is_done:
        milestones.reach(user, Milestone.Name.CHECKLIST_CLOSED)
        return HttpResponse()
    return render(request, "dashboard/checklist.html", {"checklist": found})
