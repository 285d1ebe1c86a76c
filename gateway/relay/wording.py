"""Rate limits and quotas in words: why a call is refused, and what a quota is.

Pure, and in English. What is so is decided in `limits.py`.
"""

from datetime import datetime
from math import ceil, inf
from zoneinfo import ZoneInfo

from accounts.amounts import counted, figure, worded
from accounts.caller import Quota, RateLimit
from gateway.relay.limits import UNDER_WAY_RETRY_S, Exceeded, counter_of


def says(exceeded: Exceeded, currency: str, started_at_us: int) -> str:
    """The refusal in words: whose limit, the figures, and when to come back.

    `started_at_us` is the call's, and decides the quota's period.
    """
    bound = exceeded.bound
    if isinstance(bound, Quota):
        return _of_quota(exceeded, bound, currency, started_at_us)
    return _of_rate_limit(exceeded, bound)


def _of_rate_limit(exceeded: Exceeded, limit: RateLimit) -> str:
    whose, to = limit.owner.leading, f" to the model '{limit.model_name}'" if limit.model_name else ""
    again = _again(exceeded.retry_after_s)
    if limit.kind == "concurrent":
        may = f"{whose} may have {counted(limit.amount, 'call')}{to} under way at once"
        return f"{may} and has {exceeded.used:,}. Try again when one of them has ended."
    verb, past, noun = ("use", "used", "token") if limit.kind == "tokens" else ("make", "made", "request")
    may = f"{whose} may {verb} {counted(limit.amount, noun)} a minute{to}"
    if exceeded.retry_after_s == inf:
        return f"{may}, and this call alone asks for {exceeded.asked:,}, so it can never be let in. {again}"
    asks = f"; this call asks for {exceeded.asked:,}" if limit.kind == "tokens" else ""
    return f"{may} and {past} {exceeded.used:,} in the last one{asks}. {again}"


def _of_quota(exceeded: Exceeded, quota: Quota, currency: str, started_at_us: int) -> str:
    hard = "hard " if quota.hard else ""
    has = f"{quota.owner.leading} has a {hard}quota of {amount_of(quota, currency)}"
    if quota.amount == 0:
        return f"{has}, so nothing that counts against it is let in."
    figures = _figures(exceeded, quota)
    if exceeded.retry_after_s == inf:
        return f"{has}: {figures}, so it can never be let in. {_again(inf)}"
    _, _, end_us = counter_of(quota, started_at_us)
    sooner = "Calls under way may give some back. " if exceeded.retry_after_s <= UNDER_WAY_RETRY_S else ""
    return f"{has}: {figures}. {sooner}{begins_anew(quota, end_us)}"


def amount_of(quota: Quota, currency: str) -> str:
    """All of a quota: `1.00 USD a day`."""
    return f"{worded(quota.kind, quota.amount, currency)} a {quota.period}"


def begins_anew(quota: Quota, end_us: int) -> str:
    """When a period that ends then is over, in the quota's time zone."""
    anew = datetime.fromtimestamp(end_us // 1_000_000, ZoneInfo(quota.zone))
    return f"It begins anew at {anew:%Y-%m-%d %H:%M} {quota.zone}."


def _figures(exceeded: Exceeded, quota: Quota) -> str:
    if quota.kind == "requests":
        return f"{exceeded.used:,} made and {exceeded.held:,} under way"
    amounts = (exceeded.used, exceeded.held, exceeded.asked)
    spent, held, asked = (figure(quota.kind, each) for each in amounts)
    used, are, verb = ("are used", "are", "use") if quota.kind == "tokens" else ("is spent", "is", "cost")
    call = f"could {verb} up to" if quota.hard else f"is expected to {verb}"
    return f"{spent} {used}, {held} {are} held by calls under way, and this call {call} {asked}"


def _again(retry_after_s: float) -> str:
    if retry_after_s == inf:
        return "Shorten the messages or ask for fewer tokens."
    return f"Try again in {max(1, ceil(retry_after_s))} s."
