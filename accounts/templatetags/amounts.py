"""Amounts of limits and quotas, with their units."""

from collections.abc import Mapping
from typing import Any, Final

from django import template
from django.conf import settings
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy, ngettext_lazy

from accounts import amounts
from accounts.models import RateLimit

register = template.Library()

_COUNTED: Final[Mapping[str, Any]] = {
    "requests": ngettext_lazy("%(number)s request", "%(number)s requests", "count"),
    "tokens": ngettext_lazy("%(number)s token", "%(number)s tokens", "count"),
    "calls": ngettext_lazy("%(number)s call", "%(number)s calls", "count"),
    "attempts": ngettext_lazy("%(number)s attempt", "%(number)s attempts", "count"),
}
_RATES: Final[Mapping[str, Promise]] = {
    RateLimit.Kind.REQUESTS: gettext_lazy("%(amount)s requests a minute"),
    RateLimit.Kind.TOKENS: gettext_lazy("%(amount)s tokens a minute"),
    RateLimit.Kind.CONCURRENT: gettext_lazy("%(amount)s calls at once"),
}
_RATES_OF: Final[Mapping[str, Promise]] = {
    RateLimit.Kind.REQUESTS: gettext_lazy("%(amount)s requests a minute of %(model_name)s"),
    RateLimit.Kind.TOKENS: gettext_lazy("%(amount)s tokens a minute of %(model_name)s"),
    RateLimit.Kind.CONCURRENT: gettext_lazy("%(amount)s calls at once of %(model_name)s"),
}


@register.filter
def of_kind(amount: int, kind: str) -> str:
    """An amount with its unit; money is exact."""
    if kind not in _COUNTED:
        return amounts.worded(kind, amount, settings.LEDGER_CURRENCY)
    return str(_COUNTED[kind] % {"count": amount, "number": amounts.figure(kind, amount)})


@register.filter
def rate(limit: RateLimit) -> str:
    """A rate limit in words, such as `1,000 tokens a minute of gpt-4o`."""
    words = (_RATES_OF if limit.model_name else _RATES)[limit.kind]
    return str(words) % {"amount": amounts.figure(limit.kind, limit.amount), "model_name": limit.model_name}
