"""Looks at every alert, writes down how it is, and tells of what happened.

    measure | lock | decide | write down and tell

The figure is asked before the row is locked; what follows is one transaction, so that of two processes
that look in the same minute one writes and tells, and a killed one leaves all or nothing.
"""

import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import cache
from typing import Final

from django.db import DatabaseError, transaction
from django.db.models import Q

from accounts import notices
from accounts.models import Membership, Outbox, User
from accounts.notices import Words
from gateway.alerts import wording
from gateway.alerts.measuring import Measured, Quotas, measure, quotas_at
from gateway.alerts.rules import Rule, Standing, State, Step, step
from gateway.models import Alert, AlertEvent

log = logging.getLogger(__name__)

KEPT: Final = timedelta(days=90)
"""How long what happened is listed."""


def evaluate(now: datetime) -> int:
    """Look at every alert that is switched on. Gives how many fired or were over.

    One that cannot be measured, such as for a database that is busy, is looked at the next time.
    """
    happened = 0
    _end_archived(now)
    quotas: Quotas = cache(quotas_at)
    for alert in Alert.objects.filter(_live(), enabled=True).select_related("team", "key"):
        try:
            happened += look(alert, now, quotas)
        except DatabaseError:
            log.exception("alert %d was not looked at", alert.pk)
    AlertEvent.objects.filter(resolved_at__lt=now - KEPT).delete()
    return happened


def look(alert: Alert, now: datetime, quotas: Quotas = quotas_at) -> bool:
    """Whether it fired or was over. Raises DatabaseError."""
    measured = measure(alert, now, quotas)
    with transaction.atomic():
        locked = Alert.objects.select_for_update(of=("self",)).select_related("team", "key")
        row = locked.filter(pk=alert.pk, enabled=True).first()
        if row is None or (row.checked_at is not None and row.checked_at >= now):
            return False  # removed, switched off, or looked at by another process
        done = step(rule_of(row), _standing(row), measured.figure, now)
        _write_down(row, done, measured, now)
        if done.happened == "fired":
            _fire(row, measured, now, is_told=done.is_told)
        elif done.happened == "resolved":
            _resolve(row, measured, now)
    return done.happened is not None


def rule_of(alert: Alert) -> Rule:
    return Rule(
        threshold=alert.threshold,
        hold=timedelta(minutes=alert.hold_minutes),
        pause=timedelta(minutes=alert.pause_minutes),
        least_calls=alert.least_calls,
    )


def people_of(alert: Alert) -> Iterable[User]:
    """Whom it mails beside its channels."""
    if not alert.tell_owners:
        return []
    if alert.team_id is None:
        return User.objects.filter(is_superuser=True, is_active=True).order_by("pk")
    owners = Membership.objects.filter(team=alert.team_id, role=Membership.Role.OWNER)
    return User.objects.filter(pk__in=owners.values("user"), is_active=True).order_by("pk")


def about(event: AlertEvent) -> str:
    """By which the messages of an event are found in the outbox."""
    return f"alert_event:{event.pk}"


def _end_archived(now: datetime) -> None:
    """What was firing of an archived team is over, and nobody is told. Raises DatabaseError."""
    archived = Alert.objects.filter(team__archived_at__isnull=False).exclude(state=Alert.State.WAITING)
    with transaction.atomic():
        AlertEvent.objects.filter(alert__in=archived, resolved_at=None).update(resolved_at=now)
        archived.update(state=Alert.State.WAITING, since_at=None, calm_since_at=None, figure=None, detail="")


def _live() -> Q:
    return Q(team=None) | Q(team__archived_at=None)


def _standing(row: Alert) -> Standing:
    state: State = row.state  # type: ignore[assignment]  # one of its choices
    return Standing(state, row.since_at, row.calm_since_at, row.told_at)


def _write_down(row: Alert, done: Step, measured: Measured, now: datetime) -> None:
    was = done.standing
    row.state, row.since_at, row.calm_since_at, row.told_at = (
        *(was.state, was.since_at, was.calm_since_at, was.told_at),
    )
    row.figure, row.detail = measured.figure.value, measured.figure.detail
    row.figure_until, row.checked_at = measured.until, now
    row.save(
        update_fields=[
            *("state", "since_at", "calm_since_at", "told_at"),
            *("figure", "detail", "figure_until", "checked_at"),
        ]
    )


def _fire(row: Alert, measured: Measured, now: datetime, *, is_told: bool) -> None:
    event = AlertEvent.objects.create(
        alert=row,
        fired_at=now,
        threshold=row.threshold,
        figure=measured.figure.value or 0,
        detail=measured.figure.detail,
        told=is_told,
    )
    if is_told:
        _tell(row, event, "fired", wording.fired(row, event))


def _resolve(row: Alert, measured: Measured, now: datetime) -> None:
    """Whoever was told that it fired is told that it is over."""
    event = row.events.filter(resolved_at=None).first()
    if event is None:
        return
    event.resolved_at, event.last_figure = now, measured.figure.value
    event.save(update_fields=["resolved_at", "last_figure"])
    if event.told:
        _tell(row, event, "resolved", wording.resolved(row, event, now))


def _tell(row: Alert, event: AlertEvent, what: str, words: Callable[[], Words]) -> list[Outbox]:
    return notices.tell_places(
        f"alert.{what}",
        people=people_of(row),
        channels=row.channels.filter(enabled=True),
        words=words,
        data=data_of(row) | {"event": event.pk, "fired_at": event.fired_at.isoformat()},
        about=about(event),
        dedupe=f"alert:{event.pk}:{what}",
    )


def data_of(alert: Alert) -> dict[str, object]:
    """An alert as programs are told of it. Figures are in the unit of the threshold."""
    return {
        "alert": {"id": alert.pk, "name": alert.name, "kind": alert.kind},
        "team": None if alert.team is None else {"id": alert.team.pk, "name": alert.team.name},
        "route": alert.route or None,
        "key": None if alert.key is None else {"id": alert.key.pk, "name": alert.key.name},
        "threshold": alert.threshold,
        "figure": alert.figure,
        "detail": alert.detail,
        "url": wording.page(alert),
    }
