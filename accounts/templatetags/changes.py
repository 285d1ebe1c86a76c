"""Events of the audit in words."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from django import template
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext_lazy

from accounts.models import AuditEvent, Quota
from accounts.templatetags.amounts import of_kind

register = template.Library()

NOTHING: Final = gettext_lazy("nothing")
_NO: tuple[Any, ...] = (None, "", [], {})
ACTIONS: Final[Mapping[str, Promise]] = {
    "key.created": gettext_lazy("Key created"),
    "key.changed": gettext_lazy("Key changed"),
    "key.rotated": gettext_lazy("Key rotated"),
    "key.revoked": gettext_lazy("Key revoked"),
    "key.overlap_extended": gettext_lazy("Key overlap extended"),
    "key.overlap_ended": gettext_lazy("Key overlap ended"),
    "team.created": gettext_lazy("Team created"),
    "team.renamed": gettext_lazy("Team renamed"),
    "team.archived": gettext_lazy("Team archived"),
    "team.restored": gettext_lazy("Team restored"),
    "team.tag_names_changed": gettext_lazy("Team tag names changed"),
    "member.added": gettext_lazy("Member added"),
    "member.role_changed": gettext_lazy("Member role changed"),
    "member.removed": gettext_lazy("Member removed"),
    "member.left": gettext_lazy("Member left"),
    "invitation.made": gettext_lazy("Invitation made"),
    "invitation.accepted": gettext_lazy("Invitation accepted"),
    "invitation.withdrawn": gettext_lazy("Invitation withdrawn"),
    "user.created": gettext_lazy("User created"),
    "user.profile_changed": gettext_lazy("User profile changed"),
    "user.password_set": gettext_lazy("User password set"),
    "session.ended": gettext_lazy("Session ended"),
    "access_token.created": gettext_lazy("Access token created"),
    "access_token.revoked": gettext_lazy("Access token revoked"),
    "rate_limit.set": gettext_lazy("Rate limit set"),
    "rate_limit.changed": gettext_lazy("Rate limit changed"),
    "rate_limit.removed": gettext_lazy("Rate limit removed"),
    "quota.set": gettext_lazy("Quota set"),
    "quota.changed": gettext_lazy("Quota changed"),
    "quota.removed": gettext_lazy("Quota removed"),
    "quota.corrected": gettext_lazy("Quota corrected"),
    "webhook.added": gettext_lazy("Webhook added"),
    "webhook.changed": gettext_lazy("Webhook changed"),
    "webhook.removed": gettext_lazy("Webhook removed"),
    "channel.added": gettext_lazy("Channel added"),
    "channel.changed": gettext_lazy("Channel changed"),
    "channel.removed": gettext_lazy("Channel removed"),
    "channel.tested": gettext_lazy("Channel tested"),
    "alert.added": gettext_lazy("Alert added"),
    "alert.changed": gettext_lazy("Alert changed"),
    "alert.removed": gettext_lazy("Alert removed"),
    "alert.tested": gettext_lazy("Alert tested"),
    "provider.added": gettext_lazy("Provider added"),
    "provider.changed": gettext_lazy("Provider changed"),
    "provider.removed": gettext_lazy("Provider removed"),
    "credential.replaced": gettext_lazy("Credential replaced"),
    "credential.forgotten": gettext_lazy("Credential forgotten"),
    "credential.encrypted_anew": gettext_lazy("Credential encrypted anew"),
    "route.added": gettext_lazy("Route added"),
    "route.changed": gettext_lazy("Route changed"),
    "route.removed": gettext_lazy("Route removed"),
    "target.added": gettext_lazy("Target added"),
    "target.changed": gettext_lazy("Target changed"),
    "target.removed": gettext_lazy("Target removed"),
    "price.added": gettext_lazy("Price added"),
    "exchange_rate.added": gettext_lazy("Exchange rate added"),
    "breaker.held_open": gettext_lazy("Breaker held open"),
    "breaker.let_go": gettext_lazy("Breaker let go"),
    "breaker.closed": gettext_lazy("Breaker closed"),
}
"""What the audit notes, for people; what is not here is shown as it is written."""
NAMES: Final[Mapping[str, Promise]] = {
    "name": pgettext_lazy("a setting", "name"),
    "role": pgettext_lazy("a setting", "role"),
    "amount": pgettext_lazy("a setting", "amount"),
    "kind": pgettext_lazy("a setting", "kind"),
    "period": pgettext_lazy("a setting", "period"),
    "hard": pgettext_lazy("a setting", "hard"),
    "zone": pgettext_lazy("a setting", "zone"),
    "warn_at": pgettext_lazy("a setting", "warn at"),
    "owner": pgettext_lazy("a setting", "owner"),
    "email": pgettext_lazy("a setting", "email"),
    "url": pgettext_lazy("a setting", "url"),
    "address": pgettext_lazy("a setting", "address"),
    "enabled": pgettext_lazy("a setting", "enabled"),
    "tags": pgettext_lazy("a setting", "tags"),
    "networks": pgettext_lazy("a setting", "networks"),
    "routes": pgettext_lazy("a setting", "routes"),
    "expires_at": pgettext_lazy("a setting", "expires at"),
    "revoked_at": pgettext_lazy("a setting", "revoked at"),
    "archived_at": pgettext_lazy("a setting", "archived at"),
    "withdrawn_at": pgettext_lazy("a setting", "withdrawn at"),
    "ends_at": pgettext_lazy("a setting", "ends at"),
    "model_name": pgettext_lazy("a setting", "model name"),
    "aliases": pgettext_lazy("a setting", "aliases"),
    "base_url": pgettext_lazy("a setting", "base url"),
    "slug": pgettext_lazy("a setting", "slug"),
    "order": pgettext_lazy("a setting", "order"),
    "weight": pgettext_lazy("a setting", "weight"),
    "threshold": pgettext_lazy("a setting", "threshold"),
    "window_minutes": pgettext_lazy("a setting", "window minutes"),
    "hold_minutes": pgettext_lazy("a setting", "hold minutes"),
    "pause_minutes": pgettext_lazy("a setting", "pause minutes"),
    "least_calls": pgettext_lazy("a setting", "least calls"),
    "channels": pgettext_lazy("a setting", "channels"),
    "key": pgettext_lazy("a setting", "key"),
    "route": pgettext_lazy("a setting", "route"),
    "team": pgettext_lazy("a setting", "team"),
    "priority_ceiling": pgettext_lazy("a setting", "priority ceiling"),
    "names": pgettext_lazy("a setting", "names"),
    "scopes": pgettext_lazy("a setting", "scopes"),
    "why": pgettext_lazy("a setting", "why"),
    "messages": pgettext_lazy("a setting", "messages"),
    "language": pgettext_lazy("a setting", "language"),
    "currency": pgettext_lazy("a setting", "currency"),
    "valid_from": pgettext_lazy("a setting", "valid from"),
    "secret": pgettext_lazy("a setting", "secret"),
    "tell_owners": pgettext_lazy("a setting", "tell owners"),
    "by_administrator": pgettext_lazy("a setting", "by administrator"),
    "earlier_one_ends_at": pgettext_lazy("a setting", "earlier one ends at"),
    "source": pgettext_lazy("a setting", "source"),
}
"""What changes, as an event names it."""


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
        Difference(
            str(NAMES.get(name) or _words(name)),
            _side(event, event.before, name),
            _side(event, event.after, name),
        )
        for name in told
    ]


@register.filter
def subject(event: AuditEvent) -> str:
    """What was changed. Of a quota its kind and period, because its amount may be what changed."""
    said = event.before | event.after
    if event.subject_kind == "quota" and {"kind", "period"} <= said.keys():
        return _quota(said["kind"], said["period"])
    return event.subject_name


@register.filter
def in_words(action: str) -> str:
    """`key.overlap_ended` as “Key overlap ended”."""
    return str(ACTIONS.get(action) or _words(action).capitalize())


@register.filter
def found_in(names: dict[Any, str], key: Any) -> str:
    """Empty where there is none."""
    return names.get(key, "") if names else ""


def _quota(kind: str, period: str) -> str:
    what = dict(Quota.Kind.choices).get(kind, kind).lower()
    if period == Quota.Period.MONTH:
        return _("%(kind)s a month") % {"kind": what}
    return _("%(kind)s a day") % {"kind": what}


def _words(name: str) -> str:
    return name.replace(".", " ").replace("_", " ")


def _side(event: AuditEvent, values: dict[str, Any], name: str) -> str | None:
    if name not in values:
        return None
    value = values[name]
    if name == "amount" and event.subject_kind == "quota" and isinstance(value, int):
        kind = (event.before | event.after).get("kind", "")
        return of_kind(value, kind)
    return _moment(value) if name.endswith("_at") else _said(value)


def _moment(value: Any) -> str:
    """A moment to the second, in UTC as it is kept; what is none, as it is."""
    try:
        return f"{datetime.fromisoformat(value):%Y-%m-%d %H:%M:%S} UTC"
    except (TypeError, ValueError):  # `warn_at` is a list of shares
        return _said(value)


def _said(value: Any) -> str:
    if value in _NO:
        return str(NOTHING)
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if isinstance(value, list):
        return ", ".join(map(_said, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}={_said(each)}" for name, each in value.items())
    return str(value)
