"""The audit: who did what, when, from where, before and after. Append only."""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from django.db import models

from accounts.actor import actor
from accounts.models import AuditEvent, Team

UNSAID = "(set)"
"""What the audit says of a secret: that there is one."""


def record(
    action: str,
    subject: models.Model,
    *,
    team: Team | None = None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    name: str = "",
) -> AuditEvent:
    """Note a change in its own transaction. `action` is a noun and a verb, such as `key.rotated`.

    `before` and `after` hold what changed, JSON-ready or moments; secrets never.
    """
    who = actor()
    return AuditEvent.objects.create(
        actor_kind=who.kind,
        actor_id=who.user_id,
        actor_name=who.name[:254],
        address=who.address[:45],
        user_agent=who.user_agent[:200],
        action=action,
        team_id=None if team is None else team.pk,
        subject_kind=subject._meta.model_name or "",
        subject_id=str(subject.pk),
        subject_name=(name or str(subject))[:200],
        before=_plain(before),
        after=_plain(after),
    )


def changed(row: models.Model, changes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `changes` would replace on a row, and with what: only fields that differ."""
    differing = {name: value for name, value in changes.items() if getattr(row, name) != value}
    return {name: getattr(row, name) for name in differing}, differing


def _plain(values: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: _said(value) for name, value in (values or {}).items()}


def _said(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, tuple | frozenset | set | list):
        return [_said(each) for each in value]
    if isinstance(value, Mapping):
        return {str(name): _said(each) for name, each in value.items()}
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
