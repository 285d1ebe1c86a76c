"""Figures as pages show them. What is not known is a dash, never 0."""

from django import template
from django.conf import settings

from accounts import amounts
from accounts.templatetags.amounts import of_kind
from dashboard import rounded
from gateway.ledger import reasons
from gateway.ledger.explain import Limit

register = template.Library()

BADGES = {"answered": "good", "failed": "bad", "truncated": "bad", "refused": "bad"}


@register.filter
def money(nanos: int | None, currency: str = "") -> str:
    """An amount in a currency, rounded; without one in the ledger's."""
    return rounded.money(nanos, currency or settings.LEDGER_CURRENCY)


@register.filter
def exactly(nanos: int, currency: str = "") -> str:
    """The same to the nano-unit."""
    return amounts.worded("money", nanos, currency or settings.LEDGER_CURRENCY)


@register.filter
def lasting_us(duration_us: int | None) -> str:
    """A duration, such as `340 ms`."""
    return rounded.NONE if duration_us is None else reasons.lasting(duration_us)


@register.filter
def whole(number: int | None) -> str:
    """A count, with separators between thousands."""
    return rounded.count(number)


@register.filter
def short(number: int | None) -> str:
    """A count as short as it can be and still mean something: `1.48 M`."""
    return rounded.short(number)


@register.filter
def percent(share: float | None) -> str:
    """A share of 1."""
    return rounded.share(share)


@register.filter
def in_words(name: str) -> str:
    """A name of the code as people write it: `hung_up` is “hung up”."""
    return name.replace("_", " ")


@register.filter
def quiet(title: str) -> str:
    """A title within a sentence: `Model name` is “model name”, `API key` stays."""
    return title if title[:2].isupper() else title[:1].lower() + title[1:]


@register.filter
def badge(outcome: str) -> str:
    """The class of an outcome's badge."""
    return f"badge-{BADGES.get(outcome, 'warn')}"


@register.filter
def of_limit(amount: int, kind: str) -> str:
    """An amount of a rate limit or quota of this kind, as short as it can be."""
    return rounded.money(amount, settings.LEDGER_CURRENCY) if kind == "money" else rounded.count(amount)


@register.filter
def of_quota(amount: int, kind: str) -> str:
    """An amount of a quota of this kind, with its unit."""
    return rounded.money(amount, settings.LEDGER_CURRENCY) if kind == "money" else of_kind(amount, kind)


@register.filter
def level(limit: Limit) -> int:
    """How full a limit is with the call, in percent."""
    return -(-100 * (limit.used + limit.asked) // limit.amount) if limit.amount else 101


@register.filter
def of_basis(basis: str) -> str:
    """Where the figures of a usage come from."""
    return str(reasons.BASES[basis])
