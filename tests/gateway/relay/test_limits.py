"""Rate limits and quotas as plain arithmetic."""

from datetime import datetime
from math import inf
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from accounts.caller import Caller, Owner, Period, Quota, QuotaKind, RateLimit
from gateway.relay.limits import (
    UNDER_WAY_RETRY_S,
    Admitted,
    Amounts,
    Exceeded,
    Figures,
    QuotaAsk,
    RateAsk,
    Standing,
    Stood,
    Window,
    ask_of,
    counter_of,
    give_back,
    period_of,
    quota_retry_after,
    rate_counter,
    seen,
    share_of,
    worst_of,
)
from gateway.relay.records import Seen

KEY = Owner("key", 1, "ci")
TEAM = Owner("team", 2, "Search")
USD = 1_000_000_000
NOON_US = 1_795_435_200_000_000
"""2026-11-23 12:00 UTC."""
HOUR_US = 3_600_000_000


def quota(
    amount: int = 100,
    kind: QuotaKind = "money",
    period: Period = "day",
    zone: str = "Europe/Berlin",
    *,
    hard: bool = True,
    number: int = 1,
) -> Quota:
    return Quota(number, TEAM, kind, amount, period, zone, hard)


def us(zone: str, *moment: int) -> int:
    year, month, day, *clock = moment
    return int(datetime(year, month, day, *clock, tzinfo=ZoneInfo(zone)).timestamp()) * 1_000_000


# As the books keep them


def test_the_books_keep_every_bound_of_a_call_with_its_figures_in_the_order_of_the_asking() -> None:
    rate = RateLimit(1, KEY, "tokens", 5000, "gpt-4o")
    places = RateLimit(2, TEAM, "concurrent", 8)
    money, tokens = quota(), quota(70, "tokens", "month", hard=False, number=2)
    covered_again = Admitted(quotas=(Stood(money, 9, 40),))

    found = seen(
        [
            Admitted(
                (Standing(rate, 900, 1100, 3000), Standing(places, 0, 1, 7)),
                (Stood(money, 5, 30), Stood(tokens, 6, 0)),
            ),
            covered_again,
        ]
    )

    assert found == (
        Seen("key", "tokens", "minute", 5000, 3000, 1100, False, "gpt-4o"),
        Seen("team", "concurrent", "call", 8, 7, 1, False, ""),
        Seen("team", "money", "day", 100, 30, 5, True),
        Seen("team", "tokens", "month", 70, 0, 6, False),
        Seen("team", "money", "day", 100, 40, 9, True),
    )


def test_the_books_keep_nothing_of_a_call_without_bounds() -> None:
    assert seen([]) == seen([Admitted()]) == ()


# Which limits apply, and how much is asked


def test_a_call_asks_for_a_request_a_place_and_its_tokens() -> None:
    limits = (
        RateLimit(1, KEY, "requests", 5),
        RateLimit(2, KEY, "tokens", 5000),
        RateLimit(3, TEAM, "concurrent", 5),
        RateLimit(4, TEAM, "requests", 5, "another"),
    )
    caller = Caller(1, 2, rate_limits=limits)

    ask = ask_of("a-call", caller, "gpt-4o", NOON_US, 660.0, 100, 1000, Amounts(), Amounts())

    assert (ask.call_id, ask.lives_s, ask.quotas) == ("a-call", 660.0, ())
    assert ask.rates == (RateAsk(limits[0], 1), RateAsk(limits[1], 1100), RateAsk(limits[2], 1))


@pytest.mark.parametrize(
    ("kind", "hard", "amount"),
    [
        ("money", True, 900),
        ("money", False, 90),
        ("tokens", True, 500),
        ("tokens", False, 50),
        ("requests", True, 1),
        ("requests", False, 1),
    ],
)
def test_a_hard_quota_is_asked_for_the_worst_and_a_soft_one_for_what_is_expected(
    kind: QuotaKind, hard: bool, amount: int
) -> None:
    of = quota(kind=kind, hard=hard)
    ask = ask_of(
        "a-call",
        Caller(1, 2, quotas=(of,)),
        "gpt-4o",
        NOON_US,
        660.0,
        1,
        1,
        Amounts(50, 90),
        Amounts(500, 900),
    )

    name, _, end_us = counter_of(of, NOON_US)
    assert ask.quotas == (QuotaAsk(of, name, amount, end_us),)


# Periods


def test_counters_are_named_for_what_they_count() -> None:
    assert rate_counter(RateLimit(7, KEY, "tokens", 5)) == "l7:tokens"
    start_us = us("Europe/Berlin", 2026, 11, 23)
    assert counter_of(quota(number=9), NOON_US) == (
        f"q9:money:day:{start_us // 1_000_000}",
        start_us,
        us("Europe/Berlin", 2026, 11, 24),
    )


def test_a_quota_that_changes_its_kind_has_another_counter() -> None:
    assert counter_of(quota(number=9), NOON_US)[0].startswith("q9:money:")
    assert counter_of(quota(number=9, kind="tokens"), NOON_US)[0].startswith("q9:tokens:")


def test_a_month_is_one_of_the_calendar() -> None:
    assert period_of("month", "Asia/Tokyo", us("Asia/Tokyo", 2028, 2, 29, 23, 59)) == (
        us("Asia/Tokyo", 2028, 2, 1),
        us("Asia/Tokyo", 2028, 3, 1),
    )
    assert period_of("month", "UTC", us("UTC", 2026, 12, 31, 23, 59))[1] == us("UTC", 2027, 1, 1)


def test_the_zone_decides_which_day_it_is() -> None:
    late = us("UTC", 2026, 11, 23, 23, 30)

    assert period_of("day", "Europe/Berlin", late)[0] == us("Europe/Berlin", 2026, 11, 24)
    assert period_of("day", "America/New_York", late)[0] == us("America/New_York", 2026, 11, 23)


@pytest.mark.parametrize(
    ("zone", "moment", "hours"),
    [
        ("Europe/Berlin", (2026, 3, 29, 12), 23),
        ("Europe/Berlin", (2026, 10, 25, 12), 25),
        ("Europe/Berlin", (2026, 11, 23, 12), 24),
        ("Australia/Lord_Howe", (2026, 4, 5, 12), 24.5),
        ("America/Sao_Paulo", (2018, 11, 4, 12), 23),  # midnight itself was skipped
        ("America/Havana", (2026, 11, 1, 12), 25),  # midnight came twice
    ],
)
def test_a_day_is_as_long_as_the_clocks_make_it(zone: str, moment: tuple[int, ...], hours: float) -> None:
    start_us, end_us = period_of("day", zone, us(zone, *moment))

    assert (end_us - start_us) / HOUR_US == hours


def test_a_day_that_has_begun_goes_on_when_clocks_are_set_back_over_midnight() -> None:
    """At a minute past midnight it was 23:01 of the day before again."""
    zone = "America/St_Johns"
    begin, end = us(zone, 2010, 11, 7), us(zone, 2010, 11, 8)
    half_an_hour_later = begin + HOUR_US // 2  # 23:30 on the clock

    assert period_of("day", zone, half_an_hour_later) == (begin, end)
    assert end - begin == 25 * HOUR_US


def test_a_first_of_the_month_at_midnight_is_the_new_month() -> None:
    start_us = us("Europe/Berlin", 2026, 12, 1)

    assert period_of("month", "Europe/Berlin", start_us)[0] == start_us
    assert period_of("month", "Europe/Berlin", start_us - 1)[1] == start_us


ZONES = st.sampled_from(
    [
        *("UTC", "Europe/Berlin", "America/New_York", "America/St_Johns", "America/Havana", "Asia/Kolkata"),
        *("Pacific/Apia", "Pacific/Kiritimati", "Africa/Cairo", "Asia/Gaza", "America/Sao_Paulo"),
        *("Australia/Lord_Howe", "Asia/Beirut", "Antarctica/Troll", "Africa/Casablanca"),
    ]
)
PERIODS: st.SearchStrategy[Period] = st.sampled_from(["day", "month"])
MOMENTS_US = st.integers(us("UTC", 1990, 1, 1), us("UTC", 2060, 1, 1))


@given(PERIODS, ZONES, MOMENTS_US)
@example("day", "America/St_Johns", us("UTC", 1995, 10, 29, 2, 35))  # set back over midnight, at 00:01
@example("day", "Pacific/Apia", us("UTC", 2011, 12, 30, 10, 0))  # a date that never was
def test_periods_hold_their_moments_and_follow_each_other_without_a_gap(
    period: Period, zone: str, at_us: int
) -> None:
    start_us, end_us = period_of(period, zone, at_us)

    assert start_us <= at_us < end_us
    assert period_of(period, zone, start_us) == (start_us, end_us)
    assert period_of(period, zone, end_us - 1) == (start_us, end_us)
    assert period_of(period, zone, end_us)[0] == end_us


@given(st.lists(st.tuples(st.integers(1, 3), PERIODS, ZONES, MOMENTS_US), max_size=20))
def test_what_was_told_of_a_quota_before_does_not_matter(asked: list[tuple[int, Period, str, int]]) -> None:
    for number, period, zone, at_us in asked:
        name, start_us, end_us = counter_of(quota(number=number, period=period, zone=zone), at_us)

        assert (start_us, end_us) == period_of(period, zone, at_us)
        assert name == f"q{number}:money:{period}:{start_us // 1_000_000}"


# Windows


def test_a_window_forgets_a_second_when_all_of_it_is_a_minute_old() -> None:
    window = Window()
    window.advance(100.9)
    window.take(5)
    window.advance(160.99)
    assert window.used == 5

    window.advance(161.0)

    assert window.used == 0


def test_a_window_that_was_idle_for_long_is_empty() -> None:
    window = Window()
    window.advance(100.0)
    window.take(5)

    window.advance(1_000_000.0)

    assert window.used == 0
    assert window.retry_after(5, 5, 1_000_000.0) == 0.0


def test_a_moment_before_the_newest_changes_nothing() -> None:
    window = Window()
    window.advance(100.0)
    window.take(5)

    window.advance(30.0)

    assert (window.used, window.second) == (5, 100)


def test_a_correction_stays_in_its_second() -> None:
    window = Window()
    window.advance(100.0)
    second = window.take(50)
    window.advance(130.0)
    window.take(1)
    window.correct(second, -20)
    assert window.used == 31

    window.advance(161.0)

    assert window.used == 1


def test_a_second_that_has_left_the_window_is_not_corrected() -> None:
    window = Window()
    window.advance(100.0)
    second = window.take(50)
    window.advance(160.0)
    window.correct(second, 1)
    assert window.used == 51

    window.advance(161.0)
    window.correct(second, 7)

    assert window.used == 0


def test_more_than_the_whole_amount_never_fits() -> None:
    assert Window().retry_after(6, 5, 0.0) == inf


AMOUNTS = st.integers(0, 40)
STEPS_S = st.floats(0.0, 90.0) | st.sampled_from([0.0, 1.0, 59.0, 60.0, 61.0])


@given(st.lists(st.tuples(STEPS_S, AMOUNTS, st.integers(-40, 40), st.integers(0, 20)), max_size=40))
def test_a_window_is_the_sum_of_what_was_taken_in_the_last_61_seconds(
    steps: list[tuple[float, int, int, int]],
) -> None:
    window, taken, now_s = Window(), [], 1_000.0
    window.advance(now_s)
    for passes_s, amount, by, which in steps:
        now_s += passes_s
        window.advance(now_s)
        taken.append([window.take(amount), amount])
        corrected = taken[which % len(taken)]
        window.correct(corrected[0], by)
        if corrected[0] > int(now_s) - 61:
            corrected[1] += by

        assert window.used == sum(each for second, each in taken if second > int(now_s) - 61)


@given(
    st.lists(st.tuples(STEPS_S, st.integers(0, 10)), min_size=1, max_size=30),
    st.integers(0, 30),
    st.integers(1, 30),
)
def test_the_wait_is_the_shortest_after_which_so_much_fits(
    steps: list[tuple[float, int]], asked: int, amount: int
) -> None:
    window, now_s = Window(), 1_000.0
    for passes_s, taken in steps:
        now_s += passes_s
        window.advance(now_s)
        window.take(taken)

    wait_s = window.retry_after(asked, amount, now_s)

    if asked > amount:
        assert wait_s == inf
        return
    assert 0.0 <= wait_s <= 61.0
    if wait_s > 0:
        window.advance(round(now_s + wait_s) - 1)
        assert window.used + asked > amount
    window.advance(round(now_s + wait_s) if wait_s else now_s)
    assert window.used + asked <= amount


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 100)), min_size=1, max_size=5), st.integers(0, 600)
)
def test_giving_back_leaves_what_was_used_and_no_second_below_nothing(
    taken: list[tuple[int, int]], used: int
) -> None:
    taken = sorted(taken)
    changes = give_back(taken, used)

    seconds = {second: sum(amount for at, amount in taken if at == second) for second, _ in taken}
    for second, by in changes:
        seconds[second] += by
    assert sum(seconds.values()) == used
    assert min(seconds.values()) >= 0


def test_what_was_taken_last_is_given_back_first() -> None:
    assert give_back([(1, 100), (2, 50)], 120) == [(2, -30)]
    assert give_back([(1, 100), (2, 50)], 20) == [(1, -80), (2, -50)]
    assert give_back([(1, 100), (2, 50)], 200) == [(2, 50)]
    assert give_back([(1, 100), (2, 50)], 150) == []


@given(st.integers(1, 10**18), st.integers(1, 64))
def test_shares_add_up_to_the_amount_and_differ_by_one_at_most(amount: int, live: int) -> None:
    shares = [share_of(amount, rank, live) for rank in range(live)]

    assert sum(shares) == amount
    assert max(shares) - min(shares) <= 1


# When to come back


def test_a_quota_begins_anew_when_its_period_ends() -> None:
    of = quota(100)
    ask = QuotaAsk(of, *_ask(of, 30))

    assert quota_retry_after(ask, 71, 0, NOON_US) == (ask.ends_at_us - NOON_US) / 1e6
    assert quota_retry_after(ask, 0, 71, NOON_US) == (ask.ends_at_us - NOON_US) / 1e6
    assert quota_retry_after(ask, 71, 0, ask.ends_at_us + 1) == 0.0


def test_where_only_calls_under_way_are_in_the_way_it_may_be_sooner() -> None:
    of = quota(100)

    assert quota_retry_after(QuotaAsk(of, *_ask(of, 30)), 70, 0, NOON_US) == UNDER_WAY_RETRY_S


def test_more_than_the_whole_quota_never_fits() -> None:
    of = quota(100)

    assert quota_retry_after(QuotaAsk(of, *_ask(of, 101)), 0, 0, NOON_US) == inf
    assert quota_retry_after(QuotaAsk(of, *_ask(of, 100)), 1, 0, NOON_US) < inf


def _ask(of: Quota, amount: int) -> tuple[str, int, int]:
    name, _, ends_at_us = counter_of(of, NOON_US)
    return name, amount, ends_at_us


def test_the_longest_wait_is_named_and_the_first_of_equals() -> None:
    limits = [RateLimit(number, KEY, "requests", 5) for number in range(3)]
    found = [Exceeded(each, 1, 5, 0, wait) for each, wait in zip(limits, (1.0, 7.0, 7.0), strict=True)]

    assert worst_of(found).bound == limits[1]


def test_all_three_figures_stand_against_the_amount() -> None:
    assert Figures(1, 20, 300).total == 321
