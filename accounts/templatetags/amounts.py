from django import template
from django.conf import settings

from accounts import amounts
from accounts.models import RateLimit

register = template.Library()


@register.filter
def of_kind(amount: int, kind: str) -> str:
    """An amount of a quota of this kind, with its unit."""
    return amounts.worded(kind, amount, settings.LEDGER_CURRENCY)


@register.filter
def rate(limit: RateLimit) -> str:
    """A rate limit in words, such as `1,000 tokens a minute of gpt-4o`."""
    of = f" of {limit.model_name}" if limit.model_name else ""
    return f"{limit.amount:,} {limit.get_kind_display().lower()}{of}"
