"""Pages of calls: the list, what was refused, and each call explained."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast
from urllib.parse import urlencode
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import OperationalError
from django.forms import BoundField
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from accounts import keys
from accounts.models import Team, User
from accounts.queries import teams_of
from dashboard import patience
from dashboard.calls_form import CallQuestion, RefusalQuestion
from dashboard.chosen import KEY_NAMES, chosen_team, key_names
from dashboard.timeline import timeline
from gateway.ledger import calls as lists
from gateway.ledger import explain, seeking
from gateway.ledger.calls import Asked, Page, Place
from gateway.ledger.explain import Explanation, NotOnTheBooks

A_PAGE: Final = 50
MOST_TAILED: Final = 100
"""New calls in one answer of the live tail."""
TAIL_BACK: Final = timedelta(seconds=60)
"""The longest that a tail may have slept; after that the page is asked for anew."""
BOOKED_WITHIN: Final = timedelta(seconds=10)
"""Of its end a call is on the books, so a tail looks so far back, and its page leaves out what it has."""
AROUND: Final = timedelta(minutes=15)
"""Calls like one, before and after it."""
NOT_ASKED: Final = ("after", "tail")
"""In an address, but no part of the question."""
IN_FILES: Final = ("route", "target", "outcome", "code", "priority")


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads, and what of."""

    teams: list[Team]
    team: Team | None
    """That is shown; None: all."""
    may_see_all: bool
    names: Mapping[int, str]
    """Of the team's API keys; none where all teams are shown."""

    @property
    def ids(self) -> tuple[int, ...] | None:
        return None if self.team is None else (self.team.pk,)

    @property
    def all_names(self) -> Mapping[int, str] | None:
        """Of every key that there may be; None: they have to be looked up."""
        return self.names if self.team and len(self.names) < KEY_NAMES else None


@dataclass(frozen=True, slots=True)
class Chip:
    """Something that is asked, and the page without it."""

    title: str
    value: str
    without: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a list shows."""

    rows: Sequence[Any] = ()
    next: Place | None = None
    took_too_long: bool = False


@require_safe
@login_required
def calls(request: HttpRequest) -> HttpResponse:
    """Calls on the books, the newest first; a page begins after a call, so that new ones shift nothing.

    Eight queries, and up to four more for what is rare.
    """
    reader = _reader(request)
    if reader is None:
        return render(request, "dashboard/calls_no_team.html")
    if shorter := _without_secret(request):
        return redirect(shorter)
    form = CallQuestion(request.GET, currency=settings.LEDGER_CURRENCY, **_offered(reader))
    asked = form.asked(reader.ids, reader.all_names)
    if "tail" in request.GET:
        return _tail(request, reader, form, asked)
    found = _within_patience(lambda: _page(request, reader, form, asked))
    more = {"export": _file(request, reader, form, asked), "tail_from": timezone.now()}
    return _listed(request, "dashboard/calls.html", reader, form, found, more)


@require_safe
@login_required
def refusals(request: HttpRequest) -> HttpResponse:
    """The last calls that were not let in. Nine queries at most."""
    reader = _reader(request)
    if reader is None:
        return render(request, "dashboard/calls_no_team.html")
    if shorter := _without_secret(request):
        return redirect(shorter)
    form = RefusalQuestion(request.GET, **_offered(reader))
    asked = form.asked(reader.ids, reader.all_names)
    found = Found() if form.errors else _within_patience(lambda: _refusals(request, asked))
    return _listed(request, "dashboard/refusals.html", reader, form, found, {})


@require_safe
@login_required
def call(request: HttpRequest, call_id: UUID) -> HttpResponse:
    """One call explained, or one refusal; `?go=` leads to the one before or after. Up to twelve queries."""
    user = cast(User, request.user)
    own = None if user.is_superuser else dict(teams_of(user).values_list("pk", "slug"))
    try:
        told = explain.explain(call_id, own, settings.LEDGER_CURRENCY)
    except NotOnTheBooks as why:
        return _refused(request, call_id, own, str(why))
    if way := request.GET.get("go"):
        return _beside(request, told, way)
    slug = _slug(told.team_id) if own is None else own[told.team_id]
    context = {"call": told, "timeline": timeline(told), "alike": _alike(told, slug)}
    return render(request, "dashboard/call.html", context)


def _refused(request: HttpRequest, call_id: UUID, own: Mapping[int, str] | None, why: str) -> HttpResponse:
    try:
        told = explain.explain_refusal(call_id, own)
    except NotOnTheBooks:
        return render(request, "dashboard/no_call.html", {"why": why, "call_id": call_id}, status=404)
    return render(request, "dashboard/refusal.html", {"refusal": told})


# One call's surroundings


def _beside(request: HttpRequest, told: Explanation, way: str) -> HttpResponse:
    """To the call of the same team before or after this one, or back to it where there is none."""
    looks: Mapping[str, Callable[[int, Place], UUID | None]] = {
        "earlier": lists.earlier,
        "later": lists.later,
    }
    if way not in looks:
        raise Http404
    found = looks[way](told.team_id, Place(told.started_at, told.call_id))
    if found is None:
        last, first = _("This is the team's last call on the books."), _("This is the team's first call.")
        messages.info(request, last if way == "later" else first)
    return redirect("call", found or told.call_id)


def _alike(told: Explanation, slug: str) -> str:
    """The list of calls with the same key, model name and outcome around that time."""
    asked = {
        "team": slug,
        "key": told.key_id,
        "route": told.route,
        "outcome": told.outcome,
        "code": "" if told.outcome == "answered" else told.code,
        "since": _iso(told.started_at - AROUND),
        "until": _iso(told.started_at + AROUND),
    }
    return f"{reverse('calls')}?{urlencode({name: value for name, value in asked.items() if value})}"


def _slug(team_id: int) -> str:
    return Team.objects.filter(pk=team_id).values_list("slug", flat=True).first() or ""


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# Lists


def _reader(request: HttpRequest) -> Reader | None:
    """None where there is nothing to show. Raises Http404."""
    user = cast(User, request.user)
    teams = list(teams_of(user))
    team = chosen_team(teams, request.GET.get("team", ""), user)
    if team is None and not user.is_superuser:
        return None
    return Reader(teams, team, user.is_superuser, key_names([team]) if team else {})


def _offered(reader: Reader) -> dict[str, Any]:
    return {
        "teams": reader.teams,
        "team": reader.team,
        "may_see_all": reader.may_see_all,
        "keys": reader.names,
    }


def _without_secret(request: HttpRequest) -> str:
    """This page without the secret, where somebody searched with a whole API key; empty: nobody did."""
    text = request.GET.get("q", "").strip()
    shorter = keys.without_secret(text)
    return _link(request, q=shorter) if shorter != text else ""


def _within_patience(look: Callable[[], Found]) -> Found:
    try:
        return look()
    except OperationalError as why:
        if not patience.ran_out(why):
            raise
        return Found(took_too_long=True)


def _page(request: HttpRequest, reader: Reader, form: CallQuestion, asked: Asked) -> Found:
    if form.errors:
        return Found()
    try:
        page: Page = lists.page(asked, A_PAGE, _place(request), reader.all_names)
    except lists.NotDeclared as why:
        form.add_error("tag" if form.cleaned_data.get("tag") else "q", str(why))
        return Found()
    return Found(page.lines, page.next)


def _refusals(request: HttpRequest, asked: Asked) -> Found:
    found, after = lists.refusals(asked, A_PAGE, _place(request))
    return Found(explain.told_refusals(found), after)


def _tail(request: HttpRequest, reader: Reader, form: CallQuestion, asked: Asked) -> HttpResponse:
    """Rows of what ended since a moment, and the moment to ask with next; 205: it is too long ago."""
    now, since = timezone.now(), _moment(request.GET["tail"])
    if form.errors or since < now - TAIL_BACK:
        return HttpResponse(status=205)
    rows = lists.booked_of_late(asked, since - BOOKED_WITHIN, MOST_TAILED, reader.all_names)
    answer = render(request, "dashboard/calls_rows.html", {"rows": rows, **_names(reader)})
    answer["X-Tail-From"] = now.isoformat()
    return answer


def _moment(text: str) -> datetime:
    """Raises Http404."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Http404 from None


def _names(reader: Reader) -> dict[str, Any]:
    return {"team": reader.team, "team_names": {each.pk: each.name for each in reader.teams}}


def _place(request: HttpRequest) -> Place | None:
    """Raises Http404."""
    after = request.GET.get("after", "")
    try:
        return lists.place(after) if after else None
    except lists.NoSuchPlace as why:
        raise Http404(str(why)) from None


def _listed(
    request: HttpRequest,
    template: str,
    reader: Reader,
    form: RefusalQuestion,
    found: Found,
    more: Mapping[str, Any],
) -> HttpResponse:
    """For htmx a question that cannot be read is an answer too: the part says what is wrong with it."""
    context = {
        **_names(reader),
        "form": form,
        "is_filtered": form.is_asking,
        "chips": _chips(request, form),
        "looked_for_id": seeking.ids(form.said("q")),
        "found": found,
        "rows": found.rows,
        "next": _link(request, after=found.next) if found.next else "",
        "next_at": found.next.started_at if found.next else None,
        "first": _link(request) if request.GET.get("after") else "",
        "query": urlencode({"team": reader.team.slug} if reader.team else {}),
        "here": _link(request, after=request.GET.get("after")),
        **more,
    }
    htmx = getattr(request, "htmx", False)
    answer = render(request, template, context, status=422 if form.errors and not htmx else 200)
    if htmx and "after" not in request.GET:
        answer["HX-Push-Url"] = _link(request)
    return answer


def _chips(request: HttpRequest, form: RefusalQuestion) -> list[Chip]:
    search = [form["q"]] if form.said("q") else []
    return [
        Chip(str(each.label), _shown(each), _link(request, **{each.name: ""}))
        for each in (*search, *form.narrowing)
    ]


def _shown(field: BoundField) -> str:
    """A value as its reader chose it."""
    value = str(field.value() or "")
    choices = {str(key): str(title) for key, title in getattr(field.field, "choices", ())}
    return "" if field.name == "unpriced" else choices.get(value, value.replace("T", " "))


def _link(request: HttpRequest, **more: object) -> str:
    """This page with the same question, further on, or with a field changed; empty ones are left out."""
    kept = {name: value for name, value in request.GET.items() if name not in NOT_ASKED}
    asked = {name: value for name, value in (kept | more).items() if value}
    return f"{request.path}?{urlencode(asked)}" if asked else request.path


def _file(request: HttpRequest, reader: Reader, form: CallQuestion, asked: Asked) -> str:
    """The same calls as a file; empty where the question is one that files cannot be narrowed by."""
    if form.errors or asked.ids or asked.unpriced or asked.is_sifting:
        return ""
    like = asked.like
    if like and (like.words or not like.key_ids or asked.key_id):
        return ""
    keys = like.key_ids if like else [asked.key_id] if asked.key_id else []
    wanted: list[tuple[str, object]] = [("team", each) for each in reader.ids or ()]
    wanted += [("key", each) for each in keys]
    wanted += [(name, getattr(asked, name)) for name in IN_FILES if getattr(asked, name)]
    wanted += [("tag", "=".join(asked.tag))] if asked.tag else []
    bounds = {"since": asked.since, "until": asked.until}
    wanted += [(name, _iso(moment)) for name, moment in bounds.items() if moment]
    return f"{reverse('api:export_calls')}?{urlencode(wanted)}"
