"""Real usage against what it would have cost elsewhere, with sums worked out by hand."""

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.exchange import NANOS, Quoted, in_ledger, midnight_us
from gateway.exchange import Rates as ExchangeRates
from gateway.ledger import savings
from gateway.ledger.savings import Comparison, LeftOut, Offer, Used
from gateway.relay.catalog import Exchange, Price, Rates
from gateway.relay.pricing import cost_nanos
from gateway.relay.records import Usage, total_of

OCTOBER, NOVEMBER = date(2026, 10, 1), date(2026, 11, 1)
DOLLAR_AT_7_3 = ExchangeRates([Quoted("USD", "JPY", date(2026, 1, 1), 7_300_000_000)])
ALWAYS_US = midnight_us(date(2020, 1, 1))


def price(input_, output, currency="", **changes):
    """Rates in whole units for a million tokens, from long ago."""
    rates = Rates(int(input_ * NANOS), int(input_ * NANOS), int(output * NANOS))
    return Price(**{"id": 1, "valid_from_us": ALWAYS_US, "rates": rates, "currency": currency, **changes})


def offer(*prices, name="other", rates=DOLLAR_AT_7_3, currency="JPY"):
    return Offer(name, in_ledger(prices, rates, currency))


def used(day=OCTOBER, route="gpt-4o", *, tokens_in=0, tokens_out=0, attempts=1, cost=0, **more):
    return Used(day, route, Usage(tokens_in, tokens_out), attempts, int(cost * NANOS), **more)


def against(found):
    return lambda route: found


def test_the_fields_own_sum():
    """50 million output tokens at 8 yen a million, against 10 dollars a million at 7.3 to the dollar."""
    month = [used(tokens_out=50_000_000, attempts=1, cost=400)]

    found = savings.compare(month, against(offer(price(2.5, 10, "USD"))))

    assert found == Comparison(400 * NANOS, 3650 * NANOS)
    assert found.difference_nanos == 3250 * NANOS
    assert f"{found.share_saved:.1%}" == "89.0%"
    assert savings.yearly(found.difference_nanos, OCTOBER, NOVEMBER) == 39_000 * NANOS


def test_what_is_saved_the_other_way_round_is_below_nothing():
    month = [used(tokens_out=50_000_000, cost=3650)]

    found = savings.compare(month, against(offer(price(2, 8, "JPY"))))

    assert found.difference_nanos == -3250 * NANOS
    assert f"{found.share_saved:.1%}" == "-89.0%"


def test_each_kind_of_token_has_its_own_rate_and_each_billed_attempt_its_fee():
    rates = Rates(3, 1, 15, cache_write_nanos=4, reasoning_nanos=60, audio_input_nanos=40)
    usage = Usage(1_000_000, 300_000, 200_000, "none", 100_000, 50_000, 10_000)
    day = Used(OCTOBER, "r", usage, 9, 1, billed_attempts=7)

    found = savings.priced(day, Price(1, 0, rates, request_nanos=11))

    # 200,000 x 1 + 100,000 x 4 + 10,000 x 40 + 690,000 x 3 + 50,000 x 60 + 250,000 x 15 = 9,820,000
    assert found == 7 * 11 + 10  # 9.82 nano-units, and the fees


def test_a_sum_of_calls_is_priced_by_the_first_tier():
    tiered = price(1, 1, tiers=(Rates(9 * NANOS, 9 * NANOS, 9 * NANOS, above_tokens=200_000),))

    assert savings.priced(used(tokens_in=1_000_000), tiered) == NANOS


def test_a_day_is_priced_as_at_its_end():
    changed = offer(price(1, 1), price(2, 2, valid_from_us=midnight_us(date(2026, 10, 2)) + 1))
    days = [used(date(2026, 10, day), tokens_in=1_000_000) for day in (1, 2, 3)]

    assert [savings.compare([day], against(changed)).other_nanos // NANOS for day in days] == [1, 2, 2]


def test_each_day_has_its_own_exchange_rate():
    rates = ExchangeRates(
        [Quoted("USD", "JPY", OCTOBER, 7 * NANOS), Quoted("USD", "JPY", date(2026, 10, 2), 8 * NANOS)]
    )
    days = [used(date(2026, 10, day), tokens_in=1_000_000) for day in (1, 2)]

    found = savings.compare(days, against(offer(price(1, 1, "USD"), rates=rates)))

    assert found.other_nanos == 15 * NANOS


def test_what_is_not_known_is_left_out_of_both_sides_and_told():
    late = offer(price(1, 1, valid_from_us=midnight_us(date(2026, 10, 2))))
    no_rate = offer(price(1, 1, "EUR"))
    offers = {"late": late, "no rate": no_rate, "unpriced": offer(price(1, 1))}
    days = [
        used(OCTOBER, "late", tokens_in=1_000_000, cost=5),
        used(date(2026, 10, 2), "late", tokens_in=1_000_000, cost=6),
        used(OCTOBER, "no rate", tokens_in=1_000_000, cost=7),
        used(OCTOBER, "nowhere", tokens_in=1_000_000, cost=8),
        used(OCTOBER, "unpriced", tokens_in=1_000_000, unpriced=1),
    ]

    found = savings.compare(days, offers.get)

    assert (found.actual_nanos, found.other_nanos) == (6 * NANOS, NANOS)
    assert found.left_out == (
        LeftOut("no_price", "late", (OCTOBER,), 5 * NANOS),
        LeftOut("no_rate", "no rate", (OCTOBER,), 7 * NANOS),
        LeftOut("no_offer", "nowhere", (OCTOBER,), 8 * NANOS),
        LeftOut("unpriced", "unpriced", (OCTOBER,), 0),
    )
    assert not found.is_whole


def test_nothing_compared_is_not_a_share_of_nothing():
    found = savings.compare([used(cost=5)], lambda route: None)

    assert found.share_saved is None
    assert found.difference_nanos == 0


def test_both_sides_are_shown_in_another_currency_at_the_rate_of_the_day():
    def in_dollars(day):
        return Exchange(10, 73) if day == OCTOBER else None

    days = [used(day, tokens_in=1_000_000, cost=7.3) for day in (OCTOBER, date(2026, 10, 2))]

    found = savings.compare(days, against(offer(price(14.6, 0))), in_dollars)

    assert (found.actual_nanos, found.other_nanos) == (NANOS, 2 * NANOS)
    assert [(each.why, each.days) for each in found.left_out] == [("not_shown", (date(2026, 10, 2),))]


def test_what_if_names_the_cheapest_of_each_route():
    month = [
        used(route="dear", tokens_out=1_000_000, cost=10),
        used(route="alone", tokens_out=1_000_000, cost=1),
    ]
    shelf = {
        "dear": [
            offer(price(0, 3), name="three"),
            offer(price(0, 2), name="two"),
            offer(price(0, 1, "EUR"), name="in euros"),
        ],
        "alone": [],
    }

    dear, alone = savings.what_if(month, shelf.__getitem__)

    assert dear.route == "dear"
    assert [name for name, _ in dear.offers] == ["two", "three", "in euros"]
    assert dear.cheapest == ("two", Comparison(10 * NANOS, 2 * NANOS))
    assert alone.cheapest is None
    assert dear.usage.output_tokens == 1_000_000
    assert savings.cheapest_of_each([dear, alone]) == Comparison(
        10 * NANOS, 2 * NANOS, (LeftOut("no_offer", "alone", (OCTOBER,), NANOS),)
    )


def test_a_route_that_no_offer_can_price_whole_is_left_out_with_the_reason():
    late = offer(price(1, 1, valid_from_us=midnight_us(date(2026, 10, 2))))
    days = [used(date(2026, 10, day), tokens_in=1_000_000, cost=5) for day in (1, 2)]

    found = savings.cheapest_of_each(savings.what_if(days, lambda route: [late]))

    assert found == Comparison(
        0, 0, (LeftOut("no_price", "gpt-4o", (OCTOBER, date(2026, 10, 2)), 10 * NANOS),)
    )


@pytest.mark.parametrize(
    ("since", "until", "first_used", "expected"),
    [
        (OCTOBER, NOVEMBER, None, 12 * 100),  # a month
        (OCTOBER, NOVEMBER, date(2026, 10, 9), 12 * 100),  # that began quietly
        (date(2026, 8, 1), NOVEMBER, None, 4 * 100),  # three
        (date(2025, 11, 1), NOVEMBER, None, 100),  # a year
        (date(2026, 10, 2), date(2026, 10, 12), None, 3650),  # ten days
        (date(2026, 10, 2), date(2026, 10, 12), date(2026, 10, 7), 7300),  # five of them used
        (OCTOBER, OCTOBER, None, None),
    ],
)
def test_a_year_is_twelve_months_or_365_days(since, until, first_used, expected):
    assert savings.yearly(100, since, until, first_used) == expected


def test_a_loss_is_rounded_like_a_gain():
    assert savings.yearly(-1, date(2026, 10, 2), date(2026, 10, 4)) == -183  # 182.5
    assert savings.yearly(1, date(2026, 10, 2), date(2026, 10, 4)) == 183


tokens = st.integers(0, 10**9)
rate = st.integers(0, 10**14)


bases = st.sampled_from(["reported", "estimated", "none"])


@given(st.lists(st.tuples(tokens, tokens, st.just(0), bases), max_size=20), rate, rate, rate)
def test_usage_at_the_price_it_was_booked_by_saves_nothing_but_roundings(calls, input_, output, fee):
    own = Price(1, 0, Rates(input_, input_, output), request_nanos=fee)
    usages = [Usage(*each) for each in calls]
    booked = sum(cost_nanos(each, own) for each in usages)
    billed = sum(each.basis != "none" for each in usages)
    everything = total_of(usages, "reported")
    day = Used(OCTOBER, "r", everything, len(calls), booked, billed_attempts=billed)

    found = savings.compare([day], against(Offer("own", (own,))))

    assert abs(found.difference_nanos) <= (len(calls) + 1) / 2


def test_an_offer_is_read_at_the_end_of_the_utc_day():
    end = int(datetime(2026, 10, 1, 23, 59, 59, 999_999, UTC).timestamp()) * 1_000_000
    late = Offer("x", (price(1, 1, valid_from_us=end),))

    assert late.on(OCTOBER) is not None
    assert late.on(date(2026, 9, 30)) is None
