"""Pages of teams: who is in them, who is invited, what they may spend, and who is told."""

from typing import Final
from urllib.parse import urlencode

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django_htmx.http import push_url

from accounts import queries, services
from accounts.forms.teams import HandOver, NewMember, NewName, NewRole
from accounts.models import Membership, Team, User
from accounts.paging import Pages, page_number
from accounts.searching import LONGEST, with_part
from accounts.views.common import me, require, rights_in, team_or_404, team_to, tell
from accounts.views.limits import panel
from accounts.webhooks import secret_of

PER_PAGE: Final = 50


@login_required
@require_GET
def teams(request: HttpRequest) -> HttpResponse:
    """The reader's teams, some on each page."""
    text = request.GET.get("q", "").strip()[:LONGEST]
    mine = queries.teams_of(me(request))
    found = with_part(mine, "name", text) if text else mine
    pages = _pages(found, text, page_number(request.GET.get("page", "")))
    begin = (pages.number - 1) * PER_PAGE
    shown = queries.with_counts(found.order_by("name")[begin : begin + PER_PAGE], timezone.now())
    roles = queries.roles_of(me(request))
    context = {
        "rows": [(team, Membership.Role(roles[team.pk]).label if team.pk in roles else "") for team in shown],
        "sees_audit": any(
            "see_audit" in queries.rights(me(request), role) for role in [None, *roles.values()]
        ),
        "q": text,
        "pages": pages,
    }
    page = render(request, "accounts/teams.html", context)
    return push_url(page, pages.address(pages.number)) if getattr(request, "htmx", False) else page


def _pages(found: QuerySet[Team], text: str, number: int) -> Pages:
    count = max(1, -(-found.count() // PER_PAGE))

    def address(page: int) -> str:
        asked = {name: value for name, value in (("q", text), ("page", page if page > 1 else "")) if value}
        return f"{reverse('teams')}?{urlencode(asked)}" if asked else reverse("teams")

    return Pages(min(number, count), count, address)


@login_required
@require_http_methods(["GET", "POST"])
def team(request: HttpRequest, slug: str) -> HttpResponse:
    """One team, whole; a POST adds somebody who has an account."""
    found = team_or_404(request, slug)
    form = NewMember(request.POST or None)
    if request.method == "POST":
        require(request, found, "manage_members")
        if form.is_valid() and _add(request, found, form):
            return redirect("team", slug=slug)
    return _team_page(request, found, form, status=422 if form.errors else 200)


@login_required
@require_POST
def rename_team(request: HttpRequest, slug: str) -> HttpResponse:
    """Give a team another name; its address stays."""
    found = team_to(request, slug, "manage_members")
    form = NewName(request.POST)
    if form.is_valid():
        name = form.cleaned_data["name"]
        tell(
            request,
            lambda: services.rename_team(found, name),
            _("The team is called %(name)s now.") % {"name": name},
        )
    else:
        messages.error(request, _("A team's name has 1 to 100 characters."))
    return redirect("team", slug=slug)


@login_required
@require_http_methods(["GET", "POST"])
def archive_team(request: HttpRequest, slug: str) -> HttpResponse:
    """Ask, then archive."""
    found = team_to(request, slug, "manage_members")
    if request.method == "GET":
        return render(request, "accounts/archive_team.html", {"team": found})
    done = _("%(team)s is archived; its keys are refused from now on.") % {"team": found.name}
    tell(request, lambda: services.archive_team(found, me(request)), done)
    return redirect("team", slug=slug)


@login_required
@require_POST
def restore_team(request: HttpRequest, slug: str) -> HttpResponse:
    """Take an archived team back into use."""
    found = team_to(request, slug, "manage_members")
    done = _("%(team)s is in use again, and so are its keys.") % {"team": found.name}
    tell(request, lambda: services.restore_team(found), done)
    return redirect("team", slug=slug)


@login_required
@require_http_methods(["GET", "POST"])
def leave_team(request: HttpRequest, slug: str) -> HttpResponse:
    """Ask, then leave."""
    found = team_or_404(request, slug)
    if not Membership.objects.filter(team=found, user=me(request)).exists():
        raise PermissionDenied(
            _("You are not a member of %(team)s, so there is nothing to leave.") % {"team": found.name}
        )
    if request.method == "GET":
        return render(request, "accounts/leave_team.html", {"team": found})
    if tell(
        request,
        lambda: services.leave_team(found, me(request)),
        _("You left %(team)s.") % {"team": found.name},
    ):
        return redirect("teams")
    return redirect("team", slug=slug)


@login_required
@require_http_methods(["GET", "POST"])
def hand_over(request: HttpRequest, slug: str) -> HttpResponse:
    """Make another member owner in one's own place."""
    found = team_or_404(request, slug)
    if not Membership.objects.filter(team=found, user=me(request), role=Membership.Role.OWNER).exists():
        raise PermissionDenied(_("Only an owner of the team can hand it over."))
    form = HandOver(request.POST or None, team=found, giver=me(request))
    if form.is_valid():
        taker = form.cleaned_data["to"]
        done = _("%(email)s owns %(team)s now; you are a member.") % {
            "email": taker.email,
            "team": found.name,
        }
        tell(request, lambda: services.hand_over(found, me(request), taker), done)
        return redirect("team", slug=slug)
    context = {"team": found, "form": form}
    return render(request, "accounts/hand_over.html", context, status=422 if form.errors else 200)


@login_required
@require_POST
def change_role(request: HttpRequest, slug: str, user_id: int) -> HttpResponse:
    """Give a member another role."""
    found, person = _team_and_member(request, slug, user_id)
    form = NewRole(request.POST)
    if not form.is_valid():
        messages.error(request, _("A role is owner, member or viewer."))
        return redirect("team", slug=slug)
    role = form.cleaned_data["role"]
    done = _("%(email)s is %(role)s now.") % {
        "email": person.email,
        "role": Membership.Role(role).label.lower(),
    }
    tell(request, lambda: services.set_role(found, person, role, by=me(request)), done)
    return redirect("team", slug=slug)


@login_required
@require_http_methods(["GET", "POST"])
def remove_member(request: HttpRequest, slug: str, user_id: int) -> HttpResponse:
    """Ask, then take somebody off the team."""
    found, person = _team_and_member(request, slug, user_id)
    if request.method == "GET":
        return render(request, "accounts/remove_member.html", {"team": found, "person": person})
    done = _("%(email)s is not in %(team)s any more.") % {"email": person.email, "team": found.name}
    if not tell(request, lambda: services.remove_member(found, person), done):
        return redirect("team", slug=slug)
    return redirect("teams") if person == me(request) else redirect("team", slug=slug)


def _team_and_member(request: HttpRequest, slug: str, user_id: int) -> tuple[Team, User]:
    found = team_to(request, slug, "manage_members")
    return found, get_object_or_404(User, memberships__team=found, pk=user_id)


def _add(request: HttpRequest, team: Team, form: NewMember) -> bool:
    person = form.user()
    try:
        services.add_member(team, person, form.cleaned_data["role"])
    except services.NotPossible as why:
        form.add_error("email", str(why))
        return False
    said = _("%(email)s is in %(team)s now, as %(role)s.")
    role = Membership.Role(form.cleaned_data["role"]).label.lower()
    messages.success(request, said % {"email": person.email, "team": team.name, "role": role})
    return True


def _team_page(request: HttpRequest, team: Team, form: NewMember, status: int) -> HttpResponse:
    rights = rights_in(request, team)
    members = list(team.memberships.select_related("user").order_by("user__email"))
    is_live = team.archived_at is None
    context = {
        "team": team,
        "members": members,
        "own_place": next((each for each in members if each.user_id == me(request).pk), None),
        "form": form,
        "roles": Membership.Role.choices,
        "is_live": is_live,
        "manages": "manage_members" in rights,
        "invites": is_live and "invite" in rights,
        "sees_audit": "see_audit" in rights,
        "invitations": _invitations(team) if "invite" in rights else [],
        "limits": panel(request, team, rights, is_live=is_live),
        "webhooks": _webhooks(team) if "manage_members" in rights else [],
    }
    return render(request, "accounts/team.html", context, status=status)


def _invitations(team: Team) -> list[object]:
    return list(queries.open_invitations(team, timezone.now()))


def _webhooks(team: Team) -> list[tuple[object, str]]:
    """Each with the secret that its messages are signed with: for owners only."""
    return [(each, secret_of(each)) for each in team.webhooks.all()]
