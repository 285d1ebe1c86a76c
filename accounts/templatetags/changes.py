"""Events of the audit in words."""

from datetime import datetime
from typing import Any, NamedTuple

from django import template
from django.conf import settings

from accounts.amounts import worded
from accounts.models import AuditEvent

register = template.Library()

NOTHING = "nothing"
_NO: tuple[Any, ...] = (None, "", [], {})


class Difference(NamedTuple):
    """One thing that an event tells of. `before` is None where nothing was said of it, `after` too."""

    name: str
    before: str | None
    after: str | None


@register.filter
def differences(event: AuditEvent) -> list[Difference]:
    """What was before and after, name by name. What a new thing does not have is left out."""
    names = [*event.before, *(each for each in event.after if each not in event.before)]
    told = [name for name in names if name in event.before or event.after[name] not in _NO]
    return [
        Difference(_words(name), _side(event, event.before, name), _side(event, event.after, name))
        for name in told
    ]


@register.filter
def subject(event: AuditEvent) -> str:
    """What was changed. Of a quota its kind and period, because its amount may be what changed."""
    said = event.before | event.after
    if event.subject_kind == "quota" and {"kind", "period"} <= said.keys():
        return f"{said['kind']} a {said['period']}"
    return event.subject_name


@register.filter
def in_words(action: str) -> str:
    """`key.overlap_ended` as “Key overlap ended”."""
    return _words(action).capitalize()


@register.filter
def found_in(names: dict[Any, str], key: Any) -> str:
    """Empty where there is none."""
    return names.get(key, "") if names else ""


def _words(name: str) -> str:
    return name.replace(".", " ").replace("_", " ")


def _side(event: AuditEvent, values: dict[str, Any], name: str) -> str | None:
    if name not in values:
        return None
    value = values[name]
    if name == "amount" and event.subject_kind == "quota" and isinstance(value, int):
        kind = (event.before | event.after).get("kind", "")
        return worded(kind, value, settings.LEDGER_CURRENCY)
    return _moment(value) if name.endswith("_at") else _said(value)


def _moment(value: Any) -> str:
    """A moment to the second, in UTC as it is kept; what is none, as it is."""
    try:
        return f"{datetime.fromisoformat(value):%Y-%m-%d %H:%M:%S} UTC"
    except (TypeError, ValueError):  # `warn_at` is a list of shares
        return _said(value)


def _said(value: Any) -> str:
    if value in _NO:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_said, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}={_said(each)}" for name, each in value.items())
    return str(value)
