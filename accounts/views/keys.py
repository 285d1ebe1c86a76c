"""Pages of API keys and of their secrets."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django_htmx.http import push_url

from accounts import key_list, paging, queries, served, services
from accounts.forms.key_question import KeyQuestion
from accounts.forms.keys import LENGTHS, Extension, KeySettings, NewKey, Rotation
from accounts.models import ApiKey, KeySecret, Team, User
from accounts.refusals import REFUSALS
from accounts.views.common import (
    close_form,
    key_or_404,
    key_to_manage,
    me,
    open_form,
    refuse,
    rights_in,
    sent_already,
    tell,
)
from accounts.views.limits import panel

EVENTS_SHOWN = 10
MOST_TEAMS = 500
"""To choose from, of those that an administrator sees."""


@login_required
@require_GET
def keys(request: HttpRequest) -> HttpResponse:
    """A page of the keys of the reader's teams, as the address asks."""
    places = queries.places_of(me(request), MOST_TEAMS)
    form = KeyQuestion(request.GET, [team for team, _role in places])
    if form.holds_secret:
        return redirect(form.address())
    now, asked = timezone.now(), form.asked()
    found = key_list.page(queries.teams_of(me(request)), asked, now)
    weeks = served.weeks_of([(each.key.pk, each.key.team_id) for each in found.rows], now)
    rights = {team.pk: queries.rights(me(request), role) for team, role in places}
    of_all = queries.rights(me(request), None)
    context = {
        "form": form,
        "found": found,
        "rows": [
            KeyLine(each, weeks.get(each.key.pk), me(request), rights.get(each.key.team_id, of_all))
            for each in found.rows
        ],
        "makes": [team for team, _role in places if not team.archived_at and "make_keys" in rights[team.pk]],
        "has_team": bool(places),
        "pages": paging.Pages(found.number, found.pages, form.address),
    }
    page = render(request, "accounts/keys.html", context)
    return push_url(page, form.address(found.number)) if getattr(request, "htmx", False) else page


@login_required
@require_GET
def key(request: HttpRequest, key_id: int) -> HttpResponse:
    """One key: its settings, its secrets and who uses them, its limits, and what was done with it."""
    found = key_or_404(request, key_id)
    rights = rights_in(request, found.team)
    now = timezone.now()
    row = queries.key_row(found, now)
    is_live = row.state != "revoked" and found.team.archived_at is None
    context = {
        "key": found,
        "row": row,
        "team": found.team,
        "secrets": [Secret(each, now) for each in row.secrets],
        "old": max((each for each in row.secrets if each.state == "overlapping"), key=_end_of, default=None),
        "week": served.weeks_of([(found.pk, found.team_id)], now).get(found.pk),
        "lengths": LENGTHS,
        "manages": is_live and queries.revokes(rights, is_own=found.created_by_id == me(request).pk),
        "limits": panel(request, found, rights, is_live=is_live),
        "events": _events(me(request), found) if "see_audit" in rights else None,
    }
    return render(request, "accounts/key.html", context)


@login_required
@require_http_methods(["GET", "POST"])
def new_key(request: HttpRequest) -> HttpResponse:
    """Make a key. The answer to the POST is the only page that ever shows it."""
    teams = _teams_with(me(request), "make_keys")
    if not teams:
        raise PermissionDenied(str(REFUSALS["make_keys"]))
    if request.method == "GET":
        first = {"team": request.GET.get("team", teams[0].slug), "once": open_form(request)}
        return render(request, "accounts/new_key.html", {"form": NewKey(initial=first, teams=teams)})
    form = NewKey(request.POST, teams=teams)
    if not form.is_valid():
        return render(request, "accounts/new_key.html", {"form": form}, status=422)
    if not close_form(request, form.cleaned_data["once"]):
        sent_already(request, _("A key"))
        return redirect("keys")
    return _made(request, form)


@login_required
@require_http_methods(["GET", "POST"])
def change_key(request: HttpRequest, key_id: int) -> HttpResponse:
    """A key's name, expiry and scopes."""
    found = key_to_manage(request, key_id)
    may_be_urgent = "allow_urgent" in rights_in(request, found.team)
    form = KeySettings(
        request.POST or None, key=found, model_names=served.model_names(), may_be_urgent=may_be_urgent
    )
    if form.is_valid():
        try:
            services.update_key(found, form.changes())
        except services.NotPossible as why:
            refuse(form, why, "expires_at" if isinstance(why, services.ExpiryPassed) else "name")
        else:
            messages.success(request, _("The settings of %(name)s hold from now on.") % {"name": found.name})
            return redirect("key", key_id=found.pk)
    context = {"form": form, "key": key_or_404(request, key_id)}
    return render(request, "accounts/change_key.html", context, status=422 if form.errors else 200)


@login_required
@require_http_methods(["GET", "POST"])
def rotate_key(request: HttpRequest, key_id: int) -> HttpResponse:
    """Give a key a new secret. The answer to the POST is the only page that ever shows it."""
    found = key_to_manage(request, key_id)
    form = Rotation(request.POST) if request.method == "POST" else Rotation(initial=_once(request))
    if form.is_valid():
        if not close_form(request, form.cleaned_data["once"]):
            sent_already(request, _("A new secret"))
            return redirect("key", key_id=found.pk)
        try:
            text = services.rotate_key(found, me(request), form.overlap())[1]
        except services.NotPossible as why:
            messages.error(request, str(why))
            return redirect("key", key_id=found.pk)
        ends_at = timezone.now() + form.overlap() if form.overlap() else None
        return _shown_once(request, found, text, rotated=True, old_ends_at=ends_at)
    context = {"form": form, "key": found}
    return render(request, "accounts/rotate_key.html", context, status=422 if form.errors else 200)


@login_required
@require_POST
def extend_overlap(request: HttpRequest, key_id: int, secret_id: int) -> HttpResponse:
    """Let an overlapping secret work for longer, counted from now."""
    found = key_to_manage(request, key_id)
    secret = _secret(found, secret_id)
    form = Extension(request.POST)
    if not form.is_valid():
        messages.error(request, _("Choose how long the old secret shall go on working."))
        return redirect("key", key_id=found.pk)
    until = timezone.now() + form.length()
    done = _("%(secret)s works until %(until)s UTC.") % {"secret": secret, "until": f"{until:%Y-%m-%d %H:%M}"}
    tell(request, lambda: services.extend_overlap(secret, until), done)
    return redirect("key", key_id=found.pk)


@login_required
@require_http_methods(["GET", "POST"])
def end_overlap(request: HttpRequest, key_id: int, secret_id: int) -> HttpResponse:
    """Ask, then end an overlapping secret at once."""
    found = key_to_manage(request, key_id)
    secret = _secret(found, secret_id)
    if request.method == "GET":
        row = queries.key_row(found, timezone.now())
        shown = next(each for each in row.secrets if each.id == secret.pk)
        return render(request, "accounts/end_overlap.html", {"key": found, "secret": shown})
    tell(
        request,
        lambda: services.end_overlap(secret),
        _("Calls with %(secret)s are refused from now on.") % {"secret": secret},
    )
    return redirect("key", key_id=found.pk)


@login_required
@require_http_methods(["GET", "POST"])
def revoke_key(request: HttpRequest, key_id: int) -> HttpResponse:
    """Ask, then revoke."""
    found = key_to_manage(request, key_id)
    if request.method == "GET":
        row = queries.key_row(found, timezone.now())
        week = served.weeks_of([(found.pk, found.team_id)], timezone.now()).get(found.pk)
        return render(request, "accounts/revoke_key.html", {"key": row, "team": found.team, "week": week})
    try:
        services.revoke_key(found, by=me(request))
    except services.AlreadyRevoked as why:
        messages.info(request, str(why))
    else:
        messages.success(
            request,
            _("The key %(name)s is revoked; calls with it are refused from now on.") % {"name": found.name},
        )
    return redirect("keys")


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret on the page of its key."""

    row: queries.SecretRow
    now: datetime

    @property
    def left(self) -> timedelta | None:
        """Of its overlap; None: it is not overlapping."""
        if self.row.state != "overlapping" or self.row.ends_at is None:
            return None
        return self.row.ends_at - self.now


@dataclass(frozen=True, slots=True)
class KeyLine:
    """A key on the page of keys, with what this reader may do with it."""

    listed: key_list.Listed
    week: served.Week | None
    """None: not known."""
    reader: User
    rights: frozenset[queries.Action]

    @property
    def manages(self) -> bool:
        key = self.listed.key
        return key.revoked_at is None and queries.revokes(
            self.rights, is_own=key.created_by_id == self.reader.pk
        )


def _end_of(secret: queries.SecretRow) -> datetime:
    """Of an overlapping one."""
    return secret.ends_at or secret.created_at


def _teams_with(me: User, action: queries.Action) -> list[Team]:
    """Archived ones are left out: nothing is made in them."""
    roles = queries.roles_of(me)
    teams = queries.teams_of(me).filter(archived_at=None)
    return [team for team in teams if action in queries.rights(me, roles.get(team.pk))]


def _once(request: HttpRequest) -> dict[str, str]:
    return {"once": open_form(request)}


def _made(request: HttpRequest, form: NewKey) -> HttpResponse:
    try:
        made, text = services.create_key(
            form.cleaned_data["team"],
            form.cleaned_data["name"],
            me(request),
            form.expires_at(),
            priority_ceiling=form.ceiling(),
            kind=form.kind_of_key(),
        )
    except services.NotPossible as why:
        refuse(form, why, "name")
        form.open_again(open_form(request))
        return render(request, "accounts/new_key.html", {"form": form}, status=422)
    return _shown_once(request, made, text)


def _shown_once(request: HttpRequest, key: ApiKey, text: str, **more: Any) -> HttpResponse:
    base_url = request.build_absolute_uri("/v1")
    context = {"key": key, "text": text, "base_url": base_url, **more}
    return render(request, "accounts/made_key.html", context)


def _secret(key: ApiKey, secret_id: int) -> KeySecret:
    return get_object_or_404(KeySecret.objects.select_related("key__team"), pk=secret_id, key=key)


def _events(reader: User, key: ApiKey) -> list[Any]:
    """What was done with the key of late, latest first."""
    asked = queries.AuditFilter(subject_kind="apikey", subject_id=str(key.pk))
    return list(queries.audit_events(reader, key.team, asked)[:EVENTS_SHOWN])
