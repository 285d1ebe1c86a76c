"""Pages of keys, teams and one's own account.

What is in another team does not exist here: 404.
What one's role does not allow is a 403 with a sentence.
"""

import secrets
from typing import cast

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts import queries, services
from accounts.forms import NewKey, NewMember, NewRole
from accounts.models import ApiKey, Membership, Team, User

FORMS_REMEMBERED = 20
"""How many open forms of one session can each still be sent once."""


@login_required
@require_GET
def account(request: HttpRequest) -> HttpResponse:
    """Who I am here, and the way to password and two-factor settings."""
    places = Membership.objects.filter(user=_me(request)).select_related("team").order_by("team__name")
    context = {"memberships": places, "recovery_codes_left": queries.recovery_codes_left(_me(request))}
    return render(request, "accounts/account.html", context)


@require_GET
def not_here(request: HttpRequest) -> HttpResponse:
    """A page of django-allauth that this house does without."""
    raise Http404


@login_required
@require_GET
def keys(request: HttpRequest) -> HttpResponse:
    """Every key of the reader's teams, team by team."""
    me = _me(request)
    teams = list(queries.teams_of(me))
    roles = queries.roles_of(me)
    rows = queries.keys_by_team(teams, timezone.now())
    return render(
        request,
        "accounts/keys.html",
        {"sections": [_section(me, team, roles.get(team.pk), rows[team.pk]) for team in teams]},
    )


@login_required
@require_http_methods(["GET", "POST"])
def new_key(request: HttpRequest) -> HttpResponse:
    """Make a key. The answer to the POST is the only page that ever shows it."""
    teams = _teams_with(_me(request), "make_keys")
    if not teams:
        raise PermissionDenied("Your role does not allow you to make API keys; ask an owner of the team.")
    if request.method == "GET":
        first = {"team": request.GET.get("team", teams[0].slug), "once": _open_form(request)}
        return render(request, "accounts/new_key.html", {"form": NewKey(initial=first, teams=teams)})
    form = NewKey(request.POST, teams=teams)
    if not form.is_valid():
        return render(request, "accounts/new_key.html", {"form": form}, status=422)
    if not _close_form(request, form.cleaned_data["once"]):
        messages.warning(
            request, "That form was sent already. A key is shown only once; make another if it is lost."
        )
        return redirect("keys")
    return _made(request, form)


@login_required
@require_http_methods(["GET", "POST"])
def revoke_key(request: HttpRequest, key_id: int) -> HttpResponse:
    """Ask, then revoke."""
    me = _me(request)
    key = get_object_or_404(ApiKey.objects.select_related("team"), pk=key_id, team__in=queries.teams_of(me))
    if not queries.may_revoke(me, key.team, key.created_by_id):
        raise PermissionDenied("You may revoke the keys that you made; ask an owner of the team for others.")
    if request.method == "GET":
        row = next(row for row in queries.keys_of(key.team, timezone.now()) if row.id == key.pk)
        return render(request, "accounts/revoke_key.html", {"key": row, "team": key.team})
    try:
        services.revoke_key(key, by=me)
    except services.AlreadyRevoked as why:
        messages.info(request, str(why))
    else:
        messages.success(request, f"The key {key.name} is revoked; calls with it are refused from now on.")
    return redirect("keys")


@login_required
@require_GET
def teams(request: HttpRequest) -> HttpResponse:
    """The reader's teams."""
    me = _me(request)
    found = queries.with_counts(queries.teams_of(me), timezone.now())
    roles = queries.roles_of(me)
    rows = [(team, Membership.Role(roles[team.pk]).label if team.pk in roles else "") for team in found]
    return render(request, "accounts/teams.html", {"rows": rows})


@login_required
@require_http_methods(["GET", "POST"])
def team(request: HttpRequest, slug: str) -> HttpResponse:
    """One team and its people; a POST adds somebody."""
    found = _team(request, slug)
    form = NewMember(request.POST or None)
    if request.method == "POST":
        _require_owner(request, found)
        if form.is_valid() and _add(request, found, form):
            return redirect("team", slug=slug)
    return _team_page(request, found, form, status=422 if form.errors else 200)


@login_required
@require_POST
def change_role(request: HttpRequest, slug: str, user_id: int) -> HttpResponse:
    """Give a member another role."""
    found, person = _team_and_member(request, slug, user_id)
    form = NewRole(request.POST)
    if not form.is_valid():
        messages.error(request, "A role is owner, member or viewer.")
        return redirect("team", slug=slug)
    try:
        services.set_role(found, person, form.cleaned_data["role"], by=_me(request))
    except services.NotPossible as why:
        messages.error(request, str(why))
    else:
        messages.success(request, f"{person.email} is {form.cleaned_data['role']} now.")
    return redirect("team", slug=slug)


@login_required
@require_http_methods(["GET", "POST"])
def remove_member(request: HttpRequest, slug: str, user_id: int) -> HttpResponse:
    """Ask, then take somebody off the team."""
    found, person = _team_and_member(request, slug, user_id)
    if request.method == "GET":
        return render(request, "accounts/remove_member.html", {"team": found, "person": person})
    try:
        services.remove_member(found, person)
    except services.NotPossible as why:
        messages.error(request, str(why))
        return redirect("team", slug=slug)
    messages.success(request, f"{person.email} is not in {found.name} any more.")
    return redirect("teams") if person == _me(request) else redirect("team", slug=slug)


def _me(request: HttpRequest) -> User:
    """The reader; the pages are for signed-in people only."""
    return cast(User, request.user)


def _section(me: User, team: Team, role: str | None, rows: list[queries.KeyRow]) -> dict[str, object]:
    """A team's panel on the page of keys. Each row says whether this reader may revoke it."""
    rights = queries.rights(me, role)
    return {
        "team": team,
        "makes": "make_keys" in rights,
        "rows": [(row, queries.revokes(rights, is_own=row.made_by_id == me.pk)) for row in rows],
    }


def _teams_with(me: User, action: queries.Action) -> list[Team]:
    roles = queries.roles_of(me)
    return [team for team in queries.teams_of(me) if action in queries.rights(me, roles.get(team.pk))]


def _open_form(request: HttpRequest) -> str:
    """A mark for a form that may be sent once, so that a reload of its answer makes no second key."""
    mark = secrets.token_urlsafe(12)
    request.session["open_forms"] = [*request.session.get("open_forms", []), mark][-FORMS_REMEMBERED:]
    return mark


def _close_form(request: HttpRequest, mark: str) -> bool:
    """Whether the form was still open; it is closed now."""
    still_open = request.session.get("open_forms", [])
    if mark not in still_open:
        return False
    request.session["open_forms"] = [each for each in still_open if each != mark]
    return True


def _made(request: HttpRequest, form: NewKey) -> HttpResponse:
    try:
        key, text = services.create_key(
            form.cleaned_data["team"],
            form.cleaned_data["name"],
            _me(request),
            form.expires_at(),
            priority_ceiling=form.ceiling(),
        )
    except services.NotPossible as why:
        form.add_error("name", str(why))
        return render(request, "accounts/new_key.html", {"form": form}, status=422)
    base_url = request.build_absolute_uri("/v1")
    return render(request, "accounts/made_key.html", {"key": key, "text": text, "base_url": base_url})


def _team(request: HttpRequest, slug: str) -> Team:
    return get_object_or_404(queries.teams_of(_me(request)), slug=slug)


def _require_owner(request: HttpRequest, team: Team) -> None:
    if not queries.may(_me(request), team, "manage_members"):
        raise PermissionDenied("Only an owner of the team may change who is in it.")


def _team_and_member(request: HttpRequest, slug: str, user_id: int) -> tuple[Team, User]:
    team = _team(request, slug)
    _require_owner(request, team)
    return team, get_object_or_404(User, memberships__team=team, pk=user_id)


def _add(request: HttpRequest, team: Team, form: NewMember) -> bool:
    person = form.user()
    try:
        services.add_member(team, person, form.cleaned_data["role"])
    except services.AlreadyMember as why:
        form.add_error("email", str(why))
        return False
    messages.success(request, f"{person.email} is in {team.name} now, as {form.cleaned_data['role']}.")
    return True


def _team_page(request: HttpRequest, team: Team, form: NewMember, status: int) -> HttpResponse:
    members = team.memberships.select_related("user").order_by("user__email")
    context = {
        "team": team,
        "members": members,
        "form": form,
        "roles": Membership.Role.choices,
        "manages": queries.may(_me(request), team, "manage_members"),
    }
    return render(request, "accounts/team.html", context, status=status)
