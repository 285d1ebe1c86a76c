"""The pages of alerts and of the channels that they tell: a team sees its alerts, its owners change them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts import channels as channels_
from accounts import queries, services, webhooks
from accounts.models import Channel, Membership, Outbox, Team, User
from accounts.views.common import me, refuse, tell
from dashboard.alerts_forms import AlertForm, ChannelForm
from gateway.alerts import services as alerts_
from gateway.alerts import wording
from gateway.alerts.evaluating import about
from gateway.models import Alert, AlertEvent

FOR_OWNERS: Final = gettext_lazy("Only an owner of the team may change its alerts and see its channels.")
MOST_EVENTS: Final = 50
MOST_MESSAGES: Final = 20
SYSTEM: Final = "system"
"""Stands for the whole system where an address names a team."""
BADGES: Final = {"ok": "good", "firing": "bad", "rising": "warn", "waiting": ""}
ABOUT: Final = {
    Alert.Kind.SPEND: gettext_lazy("More money than expected in an hour, a day or 30 days."),
    Alert.Kind.ERROR_RATE: gettext_lazy("Too large a share of the calls failed or broke off."),
    Alert.Kind.LATENCY: gettext_lazy("Calls take too long: the 95th percentile is above a bound."),
    Alert.Kind.QUOTA: gettext_lazy(
        "A quota is nearly used up. Owners are mailed at 50, 80 and 100 percent in any case."
    ),
    Alert.Kind.BREAKER: gettext_lazy("A target's breaker stays open, so its calls go elsewhere or fail."),
}
CHANNELS_ABOUT: Final = {
    Channel.Kind.MAIL: gettext_lazy("Mail to addresses, of people here or elsewhere."),
    Channel.Kind.WEBHOOK: gettext_lazy("A signed POST with JSON to a program of yours."),
    Channel.Kind.SLACK: gettext_lazy(
        "A line of text in a channel of Slack, Mattermost, or what takes the same."
    ),
}


@dataclass(frozen=True, slots=True)
class Shown:
    """An alert as pages show it."""

    alert: Alert
    figure: str
    detail: str
    threshold: str
    rule: str
    scope: str
    badge: str
    level: int | None
    """How much of the threshold the figure is, in percent, 100 at most; None: there is no figure."""
    may_change: bool


@dataclass(frozen=True, slots=True)
class Happened:
    """One time that it fired, with what was sent of it."""

    event: AlertEvent
    figure: str
    last_figure: str
    detail: str
    messages: Sequence[Outbox]


@dataclass(frozen=True, slots=True)
class Place:
    """Whose alerts somebody may make: a team, or the whole system."""

    slug: str
    name: str
    team: Team | None


# Alerts


@login_required
@require_safe
def alerts(request: HttpRequest) -> HttpResponse:
    """Every alert that the reader may see, those that fire first."""
    places = _places(me(request))
    owned = {each.team.pk if each.team else None for each in places}
    rows = sorted(_seen(me(request)), key=lambda row: (row.state != "firing", row.team_id or 0, row.name))
    chosen = request.GET.get("team", "")
    shown = [_shown(each, each.team_id in owned) for each in rows if chosen in ("", _slug(each.team))]
    context = {
        "alerts": shown,
        "firing": sum(_is_firing(each.alert) for each in shown),
        "own_places": places,
        "teams": _teams(rows),
        "chosen": chosen,
    }
    return render(request, "dashboard/alerts/list.html", context)


@login_required
@require_http_methods(["GET", "POST"])
def add_alert(request: HttpRequest) -> HttpResponse:
    """First of what kind and for whom, then the form of that kind."""
    places = _places(me(request))
    if not places:
        raise PermissionDenied(FOR_OWNERS)
    place, kind = _chosen(request, places), request.GET.get("kind", "")
    kinds = {each: words for each, words in ABOUT.items() if place.team is None or each != Alert.Kind.BREAKER}
    if kind not in kinds:
        shown = [(each, Alert.Kind(each).label, words) for each, words in kinds.items()]
        context = {"own_places": places, "place": place, "kinds": shown}
        return render(request, "dashboard/alerts/kinds.html", context)
    form = AlertForm(kind, place.team, request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            made = alerts_.add_alert(
                place.team, kind, form.wish(), form.cleaned_data["channels"], me(request)
            )
        except services.NotPossible as why:
            refuse(form, why)
        else:
            messages.success(request, _("The alert is made. It is looked at every minute."))
            return redirect("alert", made.pk)
    context = {"form": form, "place": place, "kind": Alert.Kind(kind).label, "about": ABOUT[Alert.Kind(kind)]}
    return render(request, "dashboard/alerts/new.html", context, status=422 if form.errors else 200)


@login_required
@require_safe
def alert(request: HttpRequest, alert_id: int) -> HttpResponse:
    """How it is, when it fired, and what was sent."""
    row = _visible(request, alert_id)
    may_change = _may(me(request), row.team)
    context = {
        "shown": _shown(row, may_change),
        "channels": row.channels.all() if may_change else [],
        "history": _history(row, may_change=may_change),
        "tests": Outbox.objects.filter(about=f"alert:{row.pk}").select_related("to").order_by("-id")[:5]
        if may_change
        else [],
    }
    return render(request, "dashboard/alerts/alert.html", context)


@login_required
@require_http_methods(["GET", "POST"])
def change_alert(request: HttpRequest, alert_id: int) -> HttpResponse:
    """Its threshold, its pace, and whom it tells."""
    row = _own(request, alert_id)
    form = AlertForm(row.kind, row.team, request.POST or None, row)
    if request.method == "POST" and form.is_valid():
        try:
            alerts_.change_alert(row, form.wish(), form.cleaned_data["channels"])
        except services.NotPossible as why:
            refuse(form, why)
        else:
            messages.success(request, _("The alert is changed."))
            return redirect("alert", row.pk)
    context = {"form": form, "alert": row}
    return render(request, "dashboard/alerts/change.html", context, status=422 if form.errors else 200)


@login_required
@require_POST
def switch_alert(request: HttpRequest, alert_id: int) -> HttpResponse:
    """On where it is off, and off where it is on, as the button said."""
    row = _own(request, alert_id)
    enabled = request.POST.get("enabled") == "on"
    done = _("The alert is switched on.") if enabled else _("The alert is switched off.")
    tell(request, lambda: alerts_.change_alert(row, {"enabled": enabled}), done)
    return redirect("alert", row.pk)


@login_required
@require_POST
def try_alert(request: HttpRequest, alert_id: int) -> HttpResponse:
    """Send a marked message to everybody whom it tells."""
    row = _own(request, alert_id)
    _try(request, lambda: alerts_.try_alert(row, me(request)))
    return redirect("alert", row.pk)


@login_required
@require_http_methods(["GET", "POST"])
def remove_alert(request: HttpRequest, alert_id: int) -> HttpResponse:
    """Asks first: its history goes with it."""
    row = _own(request, alert_id)
    if request.method == "POST":
        tell(request, lambda: alerts_.remove_alert(row), _("The alert is removed."))
        return redirect("alerts")
    return render(request, "dashboard/alerts/remove.html", {"alert": row, "scope": wording.scope(row)})


# Channels


@login_required
@require_safe
def channels(request: HttpRequest) -> HttpResponse:
    """The channels of the teams that the reader owns; an administrator's are all."""
    places = _places(me(request))
    if not places:
        raise PermissionDenied(FOR_OWNERS)
    rows = (
        _channels(places).annotate(used=Count("alerts")).select_related("team").order_by("team__name", "name")
    )
    return render(request, "dashboard/alerts/channels.html", {"channels": rows, "own_places": places})


@login_required
@require_http_methods(["GET", "POST"])
def add_channel(request: HttpRequest) -> HttpResponse:
    """First of what kind and for whom, then where."""
    places = _places(me(request))
    if not places:
        raise PermissionDenied(FOR_OWNERS)
    place, kind = _chosen(request, places), request.GET.get("kind", "")
    if kind not in Channel.Kind.values:
        shown = [(each, each.label, words) for each, words in CHANNELS_ABOUT.items()]
        context: dict[str, Any] = {"own_places": places, "place": place, "kinds": shown, "is_channel": True}
        return render(request, "dashboard/alerts/kinds.html", context)
    form = ChannelForm(kind, request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            made = channels_.add_channel(place.team, kind, by=me(request), **form.cleaned_data)
        except services.NotPossible as why:
            refuse(form, why)
        else:
            messages.success(request, _("The channel is made. Send a test to see that it arrives."))
            return redirect("channel", made.pk)
    context = {"form": form, "place": place, "kind": Channel.Kind(kind).label, "is_channel": True}
    return render(request, "dashboard/alerts/new.html", context, status=422 if form.errors else 200)


@login_required
@require_http_methods(["GET", "POST"])
def channel(request: HttpRequest, channel_id: int) -> HttpResponse:
    """Where it leads, a form to change that, and what was sent there last."""
    row = _own_channel(request, channel_id)
    form = ChannelForm(row.kind, request.POST or None, row)
    if request.method == "POST" and form.is_valid():
        try:
            channels_.change_channel(row, form.wish())
        except services.NotPossible as why:
            refuse(form, why)
        else:
            messages.success(request, _("The channel is changed."))
            return redirect("channel", row.pk)
    context = {
        "channel": row,
        "form": form,
        "secret": webhooks.secret_of(row) if row.kind == Channel.Kind.WEBHOOK else "",
        "deliveries": row.messages.order_by("-id")[:MOST_MESSAGES],
        "alerts": row.alerts.order_by("name"),
    }
    return render(request, "dashboard/alerts/channel.html", context, status=422 if form.errors else 200)


@login_required
@require_POST
def switch_channel(request: HttpRequest, channel_id: int) -> HttpResponse:
    """On or off, as the button said."""
    row = _own_channel(request, channel_id)
    enabled = request.POST.get("enabled") == "on"
    done = _("The channel is switched on.") if enabled else _("The channel is switched off.")
    tell(request, lambda: channels_.change_channel(row, {"enabled": enabled}), done)
    return redirect("channel", row.pk)


@login_required
@require_POST
def try_channel(request: HttpRequest, channel_id: int) -> HttpResponse:
    """Send a marked message there, and say what was answered."""
    row = _own_channel(request, channel_id)
    _try(request, lambda: alerts_.try_channel(row, me(request)))
    return redirect("channel", row.pk)


@login_required
@require_POST
def remove_channel(request: HttpRequest, channel_id: int) -> HttpResponse:
    """Tell it of nothing any more."""
    row = _own_channel(request, channel_id)
    tell(request, lambda: channels_.remove_channel(row), _("The channel is removed."))
    return redirect("channels")


# Who sees and changes what


def _seen(user: User) -> QuerySet[Alert]:
    """Of the reader's teams; of the system and of every team for administrators."""
    rows = Alert.objects.select_related("team", "key")
    return rows if user.is_superuser else rows.filter(team__in=queries.teams_of(user))


def _visible(request: HttpRequest, alert_id: int) -> Alert:
    return get_object_or_404(_seen(me(request)), pk=alert_id)


def _own(request: HttpRequest, alert_id: int) -> Alert:
    row = _visible(request, alert_id)
    if not _may(me(request), row.team):
        raise PermissionDenied(FOR_OWNERS)
    return row


def _own_channel(request: HttpRequest, channel_id: int) -> Channel:
    """A 403 to people of its team, a 404 to everybody else."""
    row = get_object_or_404(Channel.objects.select_related("team"), pk=channel_id)
    user = me(request)
    if _may(user, row.team):
        return row
    if row.team is not None and queries.may(user, row.team, "see"):
        raise PermissionDenied(FOR_OWNERS)
    raise Http404


def _may(user: User, team: Team | None) -> bool:
    return user.is_superuser if team is None else queries.may(user, team, "manage_limits")


def _places(user: User) -> list[Place]:
    """For whom the reader may make alerts and channels. One query."""
    teams = queries.teams_of(user).filter(archived_at=None)
    if not user.is_superuser:
        owned = Membership.objects.filter(user=user, role=Membership.Role.OWNER)
        teams = teams.filter(pk__in=owned.values("team"))
    found = [Place(each.slug, each.name, each) for each in teams.order_by("name")]
    return [*found, Place(SYSTEM, _("The whole system"), None)] if user.is_superuser else found


def _chosen(request: HttpRequest, places: Sequence[Place]) -> Place:
    """Raises Http404 for a team that is not the reader's to change."""
    slug = request.GET.get("team") or places[0].slug
    found = next((each for each in places if each.slug == slug), None)
    if found is None:
        team = queries.teams_of(me(request)).filter(slug=slug).first()
        if team is not None and team.archived_at is None:
            raise PermissionDenied(FOR_OWNERS)
        raise Http404
    return found


def _channels(places: Sequence[Place]) -> QuerySet[Channel]:
    teams = [each.team for each in places if each.team is not None]
    theirs = Q(team__in=teams)
    if any(each.team is None for each in places):
        theirs |= Q(team=None)
    return Channel.objects.filter(theirs)


# As pages show it


def _shown(row: Alert, may_change: bool) -> Shown:
    return Shown(
        alert=row,
        figure=wording.figure(row.kind, row.figure),
        detail=wording.detail(row.kind, row.detail),
        threshold=wording.figure(row.kind, row.threshold),
        rule=wording.rule(row),
        scope=wording.scope(row),
        badge=BADGES[row.state] if row.enabled else "",
        level=_level(row),
        may_change=may_change,
    )


def _is_firing(row: Alert) -> bool:
    """Of an archived team none is: it is not looked at any more."""
    return row.state == "firing" and row.enabled and (row.team is None or row.team.archived_at is None)


def _level(row: Alert) -> int | None:
    if row.figure is None:
        return None
    return min(100, 100 * row.figure // row.threshold) if row.threshold else 100 * (row.figure > 0)


def _history(row: Alert, *, may_change: bool) -> list[Happened]:
    """The latest first. Who was told is shown to who may change it. Two queries, or three."""
    events = list(row.events.all()[:MOST_EVENTS])
    sent: dict[str, list[Outbox]] = {about(each): [] for each in events}
    if may_change:
        for message in Outbox.objects.filter(about__in=sent).select_related("to").order_by("id"):
            sent[message.about].append(message)
    return [
        Happened(
            each,
            wording.figure(row.kind, each.figure),
            wording.figure(row.kind, each.last_figure),
            wording.detail(row.kind, each.detail),
            sent[about(each)],
        )
        for each in events
    ]


def _slug(team: Team | None) -> str:
    return SYSTEM if team is None else team.slug


def _teams(rows: Sequence[Alert]) -> list[tuple[str, str]]:
    """Those that have alerts, to choose one."""
    found = {_slug(row.team): row.team.name if row.team else _("The whole system") for row in rows}
    return sorted(found.items(), key=lambda each: each[1]) if len(found) > 1 else []


def _try(request: HttpRequest, test: Callable[[], Sequence[Outbox]]) -> None:
    """Send a test, and say on the next page what became of it, or why it is not sent."""
    try:
        sent = test()
    except services.NotPossible as why:
        messages.error(request, str(why))
    else:
        _say(request, sent)


def _say(request: HttpRequest, sent: Sequence[Outbox]) -> None:
    """What became of each message of a test."""
    if not sent:
        messages.warning(request, _("Nobody is told: choose a channel, or have the owners mailed."))
    for each in sent:
        where = each.email or (each.to.name if each.to else "")
        if each.sent_at is not None:
            messages.success(
                request, _("Sent to %(where)s: %(answer)s.") % {"where": where, "answer": each.answer}
            )
        else:
            why = each.last_error or _("it waits its turn")
            messages.error(request, _("Not sent to %(where)s: %(why)s.") % {"where": where, "why": why})
