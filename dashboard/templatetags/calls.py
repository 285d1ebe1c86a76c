"""Words about calls, in the reader's language."""

from django import template
from django.utils.translation import gettext_lazy

from dashboard.calls_form import OUTCOMES, PRIORITIES
from gateway.ledger.bills import KINDS
from gateway.ledger.calls import CallLine, Place
from gateway.ledger.explain import Limit

register = template.Library()

LIMITS = {
    ("requests", "minute"): gettext_lazy("requests a minute"),
    ("requests", "day"): gettext_lazy("requests a day"),
    ("requests", "month"): gettext_lazy("requests a month"),
    ("tokens", "minute"): gettext_lazy("tokens a minute"),
    ("tokens", "day"): gettext_lazy("tokens a day"),
    ("tokens", "month"): gettext_lazy("tokens a month"),
    ("money", "day"): gettext_lazy("money a day"),
    ("money", "month"): gettext_lazy("money a month"),
    ("concurrent", "call"): gettext_lazy("calls at once"),
}


@register.filter
def outcome_name(outcome: str) -> str:
    """Of a call or an attempt; one that is not known is shown as it is written."""
    return str(dict(OUTCOMES).get(outcome) or outcome.replace("_", " ").capitalize())


@register.filter
def place(line: CallLine) -> Place:
    """Where a list goes on after this call."""
    return Place(line.started_at, line.call_id)


@register.filter
def priority_name(priority: str) -> str:
    return str(dict(PRIORITIES).get(priority) or priority)


@register.filter
def limit_name(limit: Limit) -> str:
    """What it counts, and for how long."""
    return str(LIMITS.get((limit.kind, limit.period)) or f"{limit.kind} a {limit.period}")


@register.filter
def token_kind(kind: str) -> str:
    """Of tokens, before that word."""
    return str(KINDS[kind])
