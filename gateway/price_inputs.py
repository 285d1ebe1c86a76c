"""Prices and exchange rates as an operator writes them: amounts in text, and what can be on the books.

Pure: a value in, the clean value or a sentence out.
"""

import re
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, date, datetime

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from gateway.inputs import Unusable
from gateway.relay.catalog import Exchange, Price, Rates

NANOS = 10**9
MAX_PRICE_NANOS = 10**15
"""At this price a billion tokens cost 10**18, which the ledger's 64-bit columns still hold."""
PRICE_TOO_HIGH = gettext_lazy("A price is at most 1,000,000 for a million tokens or for one request.")
MIN_RATE_NANOS, MAX_RATE_NANOS = 100, 10**16
"""A ten-millionth and ten million: wider apart no two currencies are."""
MAX_TIERS = 20
MAX_TIER_TOKENS = 10**9
FIRST_DAY, LAST_DAY = date(2000, 1, 1), date(2199, 12, 31)

_AMOUNT = re.compile(r"\d{1,9}(\.\d{1,9})?", re.ASCII)
_CURRENCY = re.compile("[A-Z]{3}")
KINDS = tuple(each.name for each in fields(Rates) if each.name != "above_tokens")
"""What a price may name, by the names of the fields."""


def nanos_of(text: str) -> int:
    """`0.15` in nano-units. Raises Unusable."""
    if not _AMOUNT.fullmatch(text):
        raise Unusable(
            _("'%(text)s' is no amount: write it like 0.15, with at most 9 decimals.")
            % {"text": shortened(text)}
        )
    whole, _point, rest = text.partition(".")
    return int(whole) * NANOS + int(rest.ljust(9, "0"))


def amount_of(nanos: int) -> str:
    """Nano-units as plain text, with no more decimals than it has; what `nanos_of` reads."""
    if nanos < 0:
        return f"-{amount_of(-nanos)}"
    whole, rest = divmod(nanos, NANOS)
    return f"{whole}.{rest:09}".rstrip("0").removesuffix(".")


def clean_currency(text: str) -> str:
    """A code as in ISO 4217. Raises Unusable."""
    if not _CURRENCY.fullmatch(text):
        raise Unusable(
            _("'%(text)s' is no currency: write three capital letters, such as USD.")
            % {"text": shortened(text)}
        )
    return text


def clean_moment(text: str) -> datetime:
    """In UTC: a day, which begins at midnight there, or a moment with its offset. Raises Unusable."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Unusable(
            _("'%(text)s' is no moment: write 2026-01-31 or 2026-01-31T12:00:00Z.")
            % {"text": shortened(text)}
        ) from None
    is_day = len(text) <= 10
    if found.tzinfo is None and not is_day:
        raise Unusable(
            _("'%(text)s' has no offset: end it in Z for UTC, or in one such as +09:00.")
            % {"text": shortened(text)}
        )
    _check_year(found.date())
    return found.replace(tzinfo=UTC) if is_day else found.astimezone(UTC)


def clean_day(text: str) -> date:
    """Raises Unusable."""
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise Unusable(
            _("'%(text)s' is no day: write it like 2026-01-31.") % {"text": shortened(text)}
        ) from None
    return check_day(found)


def check_day(day: date) -> date:
    """The same day. Raises Unusable for one that nobody can mean."""
    _check_year(day)
    return day


def _check_year(day: date) -> None:
    if not FIRST_DAY < day < LAST_DAY:  # a day apart, so that no offset leads out of these years
        raise Unusable(_("Choose a day from 2000 to 2199."))


def check_price(price: Price) -> None:
    """Raises Unusable where it cannot be on the books. Of its target, date and exchange it says nothing."""
    if price.currency:
        clean_currency(price.currency)
    _check_amount(price.request_nanos)
    for rates in (price.rates, *price.tiers):
        for name in KINDS:
            if (nanos := getattr(rates, name)) is not None:
                _check_amount(nanos)
    if price.rates.above_tokens:
        raise Unusable(_("The first rates of a price hold for every prompt, so they are above 0 tokens."))
    check_tiers([each.above_tokens for each in price.tiers])


def _check_amount(nanos: int) -> None:
    if nanos < 0:
        raise Unusable(_("A price is not negative."))
    if nanos > MAX_PRICE_NANOS:
        raise Unusable(str(PRICE_TOO_HIGH))


def check_tiers(bounds: Sequence[int]) -> None:
    """They go up, so that the last one that a prompt is above is the one that it costs. Raises Unusable."""
    if len(bounds) > MAX_TIERS:
        raise Unusable(_("A price has at most %(most)s tiers.") % {"most": MAX_TIERS})
    if [0, *bounds] != sorted({0, *bounds}):
        raise Unusable(_("Tiers go up: each begins above more tokens than the one before it."))
    if bounds and bounds[-1] > MAX_TIER_TOKENS:
        raise Unusable(_("A tier begins above at most %(most)s tokens.") % {"most": f"{MAX_TIER_TOKENS:,}"})


def check_rate(base: str, quote: str, rate_nanos: int) -> None:
    """Raises Unusable where no exchange rate can be so."""
    if clean_currency(base) == clean_currency(quote):
        raise Unusable(_("An exchange rate is between two currencies."))
    if not MIN_RATE_NANOS <= rate_nanos <= MAX_RATE_NANOS:
        least, most = amount_of(MIN_RATE_NANOS), amount_of(MAX_RATE_NANOS)
        raise Unusable(
            _("An exchange rate is from %(least)s to %(most)s: turn it round, or check its currencies.")
            % {"least": least, "most": most}
        )


def fits(nanos: int, exchange: Exchange) -> bool:
    """Whether what a rate comes to in the ledger's currency is within the ledger's bounds too."""
    return nanos * exchange.numerator <= MAX_PRICE_NANOS * exchange.denominator


def dearest_of(price: Price) -> int:
    """The highest of all rates of a price."""
    amounts = [getattr(rates, name) or 0 for rates in (price.rates, *price.tiers) for name in KINDS]
    return max(price.request_nanos, *amounts)


def shortened(text: str) -> str:
    """What somebody wrote, fit to be repeated to them."""
    plain = "".join(each if each.isprintable() else "?" for each in text)
    return plain if len(plain) <= 40 else plain[:39] + "…"
