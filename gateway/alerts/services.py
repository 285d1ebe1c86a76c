"""The writes of alerts: made, changed, removed and tested, each audited. Who may is decided before."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

from django.db import connection, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts import audit, notices
from accounts.models import ApiKey, Channel, Milestone, Outbox, Team, User
from accounts.services import WrongValue, milestones
from accounts.services.common import live, named
from gateway import delivery
from gateway.alerts import trying, wording
from gateway.alerts.evaluating import data_of, people_of
from gateway.models import Alert

MOST_ALERTS: Final = 50
"""Of one team, and of the system: each is looked at every minute."""
MOST_TESTED: Final = 10
"""Messages of a test that are sent at once, each in a thread; others wait for the next delivery."""
WINDOWS: Final[Mapping[str, Sequence[int]]] = {
    Alert.Kind.SPEND: (60, 1440, 43_200),
    Alert.Kind.ERROR_RATE: (5, 15, 60),
    Alert.Kind.LATENCY: (5, 15, 60),
}
"""In minutes. The other kinds have none."""
OF_CALLS: Final = (Alert.Kind.ERROR_RATE, Alert.Kind.LATENCY)
OF_ROUTES: Final = (*WINDOWS, Alert.Kind.BREAKER)
"""That can be asked of one model name. A quota counts the calls of every one."""
SYSTEM_ONLY: Final = (Alert.Kind.BREAKER,)
MOST_THRESHOLD: Final[Mapping[str, int]] = {
    Alert.Kind.SPEND: 10**18,
    Alert.Kind.ERROR_RATE: 9_999,
    Alert.Kind.LATENCY: 3_600_000,
    Alert.Kind.BREAKER: 86_400,
    Alert.Kind.QUOTA: 1000,
}
"""An alert fires above its threshold, and no rate is above 100 percent."""
FIELDS: Final = (
    *("name", "route", "key", "threshold", "window_minutes", "least_calls"),
    *("hold_minutes", "pause_minutes", "tell_owners", "enabled"),
)
"""That a change may have, beside `channels`. Kind and team stay."""
MOST_MINUTES: Final = 10_080


def add_alert(
    team: Team | None, kind: str, values: Mapping[str, Any], channels: Iterable[Channel], by: User | None
) -> Alert:
    """`values` has some of FIELDS. Raises WrongValue, NoName, Archived."""
    if kind in SYSTEM_ONLY and team is not None:
        raise WrongValue("kind", _("Breakers are the system's: its alert belongs to no team."))
    alert = Alert(team=team, kind=kind, created_by=by, threshold=-1)
    _take(alert, values)
    chosen = _own(team, channels)
    with transaction.atomic():
        _check_live(team)
        if Alert.objects.filter(team=team).count() >= MOST_ALERTS:
            said = _("There are %(most)d alerts already: remove one first.") % {"most": MOST_ALERTS}
            raise WrongValue("name", said)
        alert.save()
        alert.channels.set(chosen)
        audit.record("alert.added", alert, team=team, after={"kind": kind} | _audited(alert, chosen))
    return alert


def change_alert(alert: Alert, values: Mapping[str, Any], channels: Iterable[Channel] | None = None) -> None:
    """What is absent stays. One that is switched off is not firing any more.

    Of an archived team it can only be switched off. Raises WrongValue, NoName, Archived.
    """
    with transaction.atomic():
        if channels is not None or values != {"enabled": False}:
            _check_live(alert.team)
        row = Alert.objects.select_for_update(of=("self",)).select_related("team", "key").get(pk=alert.pk)
        before = _audited(row, list(row.channels.all()))
        _take(row, values)
        if not row.enabled:
            _forget(row)
        row.save()
        if channels is not None:
            row.channels.set(_own(row.team, channels))
        after = _audited(row, list(row.channels.all()))
        changed = [name for name in after if before[name] != after[name]]
        if changed:
            audit.record(
                "alert.changed",
                row,
                team=row.team,
                before={name: before[name] for name in changed},
                after={name: after[name] for name in changed},
            )
    alert.refresh_from_db()


def remove_alert(alert: Alert) -> None:
    """Its history goes with it."""
    with transaction.atomic():
        audit.record(
            "alert.removed", alert, team=alert.team, before={"kind": alert.kind, "threshold": alert.threshold}
        )
        alert.delete()


def try_alert(alert: Alert, by: User) -> list[Outbox]:
    """Send a marked message the way that a real one goes, now; gives what became of each.

    Without anybody to tell, nothing is sent. Raises TooManyTests, Archived.
    """
    with trying.alone(f"alert:{alert.pk}"):
        trying.count(by.pk, int(time.time()))
        return _sent_now(_test_of_alert(alert, by))


def try_channel(channel: Channel, by: User) -> list[Outbox]:
    """The same of one channel, also where it is used by no alert."""
    with trying.alone(f"channel:{channel.pk}"):
        trying.count(by.pk, int(time.time()))
        return _sent_now(_test_of_channel(channel, by))


def _test_of_alert(alert: Alert, by: User) -> list[Outbox]:
    """Written, not sent. Raises Archived."""
    mark = uuid4().hex
    with transaction.atomic():
        _check_live(alert.team)
        messages = notices.tell_places(
            "alert.tested",
            people=people_of(alert),
            channels=alert.channels.filter(enabled=True),
            words=wording.tested(alert, by.email),
            data=data_of(alert) | {"test": True},
            about=f"alert:{alert.pk}",
            dedupe=f"alert:test:{mark}",
        )
        audit.record("alert.tested", alert, team=alert.team, after={"messages": len(messages)})
    if messages:
        milestones.reach(by, Milestone.Name.ALERT_TESTED)
    return messages


def _test_of_channel(channel: Channel, by: User) -> list[Outbox]:
    """Written, not sent. Raises Archived."""

    def words() -> notices.Words:
        said = {"name": channel.name, "by": by.email}
        subject = _("[Test] %(name)s") % said
        text = _("This is a test of the channel “%(name)s” by %(by)s. Nothing has happened.") % said
        return notices.Words(subject, f"{text}\n")

    with transaction.atomic():
        _check_live(channel.team)
        messages = notices.tell_places(
            "channel.tested",
            people=[],
            channels=[channel],
            words=words,
            data={"channel": {"id": channel.pk, "name": channel.name}, "test": True},
            about=f"channel:{channel.pk}",
            dedupe=f"channel:test:{uuid4().hex}",
        )
        audit.record("channel.tested", channel, team=channel.team, after={"messages": len(messages)})
    return messages


def _sent_now(messages: Sequence[Outbox]) -> list[Outbox]:
    if connection.in_atomic_block:
        # As of a POST with an Idempotency-Key: it would stay open as long as the far side takes, and may
        # still be taken back. The next delivery sends them.
        return list(messages)
    return [*delivery.deliver_now(messages[:MOST_TESTED]), *messages[MOST_TESTED:]]


def _check_live(team: Team | None) -> None:
    """Inside a transaction. Raises Archived."""
    if team is not None:
        live(team.pk)


def _take(alert: Alert, values: Mapping[str, Any]) -> None:
    """Raises WrongValue, NoName."""
    assert values.keys() <= set(FIELDS)
    for name, value in values.items():
        setattr(alert, name, value)
    alert.name = named(alert.name)
    if alert.kind not in Alert.Kind.values:
        raise WrongValue("kind", _("There is no such kind of alert."))
    _check_key(alert, alert.key)
    _take_route(alert, values.get("route", ""))
    # One that was kept when more was taken can still be switched off.
    is_asked = alert.pk is None or "threshold" in values
    if is_asked and not 0 <= alert.threshold <= MOST_THRESHOLD[alert.kind]:
        raise WrongValue("threshold", _("This threshold cannot be reached."))
    windows = WINDOWS.get(alert.kind)
    if windows is None:
        alert.window_minutes = 0
    elif alert.window_minutes not in windows:
        said = ", ".join(map(str, windows))
        raise WrongValue("window_minutes", _("Choose one of these: %(minutes)s.") % {"minutes": said})
    if alert.kind not in OF_CALLS:
        alert.least_calls = 0
    for field in ("hold_minutes", "pause_minutes"):
        if not 0 <= getattr(alert, field) <= MOST_MINUTES:
            raise WrongValue(field, _("At most a week, in minutes."))


def _take_route(alert: Alert, wanted: str) -> None:
    """Raises WrongValue for one that would be shown, and change nothing."""
    if alert.kind in OF_ROUTES:
        return
    if wanted:
        raise WrongValue("route", _("A quota counts the calls of every model name: leave it empty."))
    alert.route = ""


def _check_key(alert: Alert, key: ApiKey | None) -> None:
    if key is not None and key.team_id != alert.team_id:
        raise WrongValue("key", _("The API key is not one of this team."))


def _own(team: Team | None, channels: Iterable[Channel]) -> list[Channel]:
    """An alert tells channels of its own team, so that figures stay there. Raises WrongValue."""
    chosen = list(channels)
    if any(each.team_id != (team.pk if team else None) for each in chosen):
        raise WrongValue("channels", _("A channel is not one of this team."))
    return chosen


def _forget(alert: Alert) -> None:
    """What was firing is over, and nobody is told: whoever switched it off knows."""
    alert.events.filter(resolved_at=None).update(resolved_at=timezone.now())
    alert.state, alert.since_at, alert.calm_since_at = Alert.State.WAITING, None, None
    alert.figure, alert.detail = None, ""


def _audited(alert: Alert, channels: Sequence[Channel]) -> dict[str, Any]:
    fields = {name: getattr(alert, name) for name in FIELDS if name != "key"}
    return fields | {
        "key": None if alert.key is None else alert.key.name,
        "channels": [each.name for each in channels],
    }
