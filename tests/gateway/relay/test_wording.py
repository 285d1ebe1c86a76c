from math import inf

from accounts.caller import Owner, Period, Quota, QuotaKind, RateLimit
from gateway.relay.limits import UNDER_WAY_RETRY_S, Exceeded
from gateway.relay.wording import says

KEY = Owner("key", 1, "ci")
TEAM = Owner("team", 2, "Search")
USD = 1_000_000_000
NOON_US = 1_795_435_200_000_000
"""2026-11-23 12:00 UTC."""


def quota(
    amount: int,
    kind: QuotaKind = "money",
    period: Period = "day",
    zone: str = "Europe/Berlin",
    *,
    hard: bool = True,
) -> Quota:
    return Quota(1, TEAM, kind, amount, period, zone, hard)


def rate_refusal(limit: RateLimit, asked: int = 1, used: int = 100, retry_after_s: float = 11.2) -> str:
    return says(Exceeded(limit, asked, used, 0, retry_after_s), "USD", NOON_US)


def test_a_rate_limit_names_its_owner_its_figures_and_when_to_come_back() -> None:
    assert rate_refusal(RateLimit(1, KEY, "requests", 100)) == (
        "The API key 'ci' may make 100 requests a minute and made 100 in the last one. Try again in 12 s."
    )
    assert rate_refusal(RateLimit(1, TEAM, "tokens", 100_000, "gpt-4o"), 1200, 99_500, 0.1) == (
        "The team 'Search' may use 100,000 tokens a minute to the model 'gpt-4o' "
        "and used 99,500 in the last one; this call asks for 1,200. Try again in 1 s."
    )
    assert rate_refusal(RateLimit(1, KEY, "concurrent", 1), used=1) == (
        "The API key 'ci' may have 1 call under way at once and has 1. Try again when one of them has ended."
    )


def test_a_call_that_never_fits_is_told_so() -> None:
    assert rate_refusal(RateLimit(1, KEY, "tokens", 1000), 5000, 0, inf) == (
        "The API key 'ci' may use 1,000 tokens a minute, and this call alone asks for 5,000, "
        "so it can never be let in. Shorten the messages or ask for fewer tokens."
    )


def quota_refusal(of: Quota, asked: int, used: int, held: int, retry_after_s: float = 5000.0) -> str:
    return says(Exceeded(of, asked, used, held, retry_after_s), "USD", NOON_US)


def test_a_quota_names_its_owner_its_figures_and_when_it_begins_anew() -> None:
    cent = USD // 100
    assert quota_refusal(quota(USD), 3 * cent, 98 * cent, cent) == (
        "The team 'Search' has a hard quota of 1.00 USD a day: 0.98 is spent, "
        "0.01 is held by calls under way, and this call could cost up to 0.03. "
        "It begins anew at 2026-11-24 00:00 Europe/Berlin."
    )
    assert quota_refusal(quota(1000, "tokens", "month", "UTC", hard=False), 9, 992, 0) == (
        "The team 'Search' has a quota of 1,000 tokens a month: 992 are used, "
        "0 are held by calls under way, and this call is expected to use 9. "
        "It begins anew at 2026-12-01 00:00 UTC."
    )
    assert quota_refusal(quota(1, "requests", zone="UTC"), 1, 1, 0) == (
        "The team 'Search' has a hard quota of 1 request a day: 1 made and 0 under way. "
        "It begins anew at 2026-11-24 00:00 UTC."
    )


def test_a_quota_that_calls_under_way_hold_says_that_they_may_give_back() -> None:
    assert "Calls under way may give some back. It begins anew" in quota_refusal(
        quota(USD), 3, 0, USD, UNDER_WAY_RETRY_S
    )


def test_a_call_that_costs_more_than_the_whole_quota_is_told_so() -> None:
    assert quota_refusal(quota(USD), 3 * USD, 0, 0, inf).endswith(
        "this call could cost up to 3.00, so it can never be let in. "
        "Shorten the messages or ask for fewer tokens."
    )


def test_a_quota_of_nothing_says_so() -> None:
    assert quota_refusal(quota(0, "requests"), 1, 0, 0, inf) == (
        "The team 'Search' has a hard quota of 0 requests a day, so nothing that counts against it is let in."
    )
