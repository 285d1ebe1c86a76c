from datetime import UTC, date, datetime

import pytest

from accounts.changes import change_number
from accounts.models import AuditEvent
from gateway import services
from gateway.models import ExchangeRate, Price, Repricing, Route
from gateway.price_files import (
    FileRefused,
    add_prices,
    add_rates,
    look_at_prices,
    look_at_rates,
    prices_file,
    rates_file,
)
from gateway.relay.catalog import Rates

pytestmark = pytest.mark.django_db

HEADINGS = "route,provider,upstream_model,valid_from,currency,input,output\n"
OF = "gpt-4o,acme,@cf/gpt-4o"


@pytest.fixture
def target():
    provider = services.add_provider("acme", "Acme", "https://acme.example/v1")
    route = services.add_route("gpt-4o")
    Route.objects.update(created_at=datetime(2025, 1, 1, tzinfo=UTC))
    return services.add_target(route, provider, "@cf/gpt-4o")


def file(text, headings=HEADINGS):
    return [(headings + text).encode()]


def whole(parts):
    return ["".join(parts).encode()]


def rows():
    """What holds, without what a second entry differs in."""
    return list(
        Price.objects.order_by("target_id", "valid_from").values_list(
            *("target_id", "valid_from", "currency", "input_nanos", "cached_input_nanos", "output_nanos"),
            *("cache_write_nanos", "reasoning_nanos", "audio_input_nanos", "audio_output_nanos"),
            *("request_nanos", "tiers", "source"),
        )
    )


def test_a_file_of_what_there_is_adds_nothing(target):
    tiers = [Rates(9, 9, 9, above_tokens=5), Rates(8, 8, 8, reasoning_nanos=7, above_tokens=6)]
    moment = datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
    figures = {"input_nanos": 1, "cached_input_nanos": 2, "output_nanos": 3, "tiers": tiers}
    services.add_price(target, moment, **figures, audio_input_nanos=4, request_nanos=5, currency="JPY")
    services.add_price(target, datetime(2026, 2, 1, tzinfo=UTC), **figures)

    found = add_prices(whole(prices_file()))

    assert (found.fresh, found.known) == ([], 2)


def test_what_was_exported_is_the_same_after_it_was_imported(target):
    tiers = [Rates(9, 9, 9, cache_write_nanos=2, above_tokens=5)]
    figures = {"input_nanos": 1, "cached_input_nanos": 2, "output_nanos": 3, "tiers": tiers}
    services.add_price(target, datetime(2026, 1, 1, tzinfo=UTC), **figures, source="=the contract")
    services.add_price(target, datetime(2026, 2, 1, tzinfo=UTC), **figures, reasoning_nanos=0)
    before, exported = rows(), whole(prices_file())
    Price.objects.all().delete()

    add_prices(exported)

    assert rows() == before


def test_a_price_that_was_replaced_is_not_exported(target):
    figures = {"input_nanos": 1, "cached_input_nanos": 1}
    for output_nanos in (10**9, 2 * 10**9):
        services.add_price(target, datetime(2026, 1, 1, tzinfo=UTC), **figures, output_nanos=output_nanos)

    _, line, *more = "".join(prices_file()).splitlines()

    assert line.endswith(",0.000000001,0.000000001,2,,,,,,operator")
    assert more == []


def test_the_ledgers_own_currency_may_be_named_or_not(target):
    add_prices(file(f"{OF},2026-01-01,,1,2\n"))

    assert look_at_prices(file(f"{OF},2026-01-01,USD,1,2\n")).known == 1


def test_an_import_is_one_change_and_every_price_is_audited(target):
    before = change_number()
    found = add_prices(file(f"{OF},2026-01-01,,1,2\n{OF},2026-02-01,,3,4\n"))

    assert (len(found.fresh), Price.objects.count()) == (2, 2)
    assert AuditEvent.objects.filter(action="price.added").count() == 2
    assert change_number() > before


def test_prices_for_the_past_are_one_repricing_for_each_target(target):
    add_prices(file(f"{OF},2026-01-01,,1,2\n{OF},2026-02-01,,3,4\n"))

    [work] = Repricing.objects.all()
    assert (work.target_id, work.from_at) == (target.pk, datetime(2026, 1, 1, tzinfo=UTC))


def test_one_wrong_line_leaves_nothing_of_the_file(target):
    with pytest.raises(FileRefused) as refused:
        add_prices(file(f"{OF},2026-01-01,,1,2\n{OF},2026-02-01,,x,4\nother,acme,m,2026-01-01,,1,1\n"))

    assert [each.partition(":")[0] for each in refused.value.wrong] == ["Line 3", "Line 4"]
    assert not Price.objects.exists()


def test_a_price_that_an_exchange_rate_makes_too_dear_is_wrong(target):
    services.add_exchange_rate("JPY", "USD", date(2026, 1, 1), 10**10)

    found = look_at_prices(file(f"{OF},2026-01-01,JPY,1,100001\n"))

    assert found.wrong == [
        "Line 2: At a known exchange rate this is above 1,000,000 USD for a million tokens."
    ]


def test_of_very_many_wrong_lines_the_first_are_told(target):
    text = "".join(f"gpt-4o,acme,m{number},2026-01-01,,1,1\n" for number in range(300))

    wrong = look_at_prices(file(text)).wrong

    assert len(wrong) == 100
    assert wrong[0].startswith("Line 2: The route gpt-4o has no target acme/m0.")


def test_a_long_file_is_looked_at_with_few_queries(target, django_assert_num_queries):
    text = "".join(f"{OF},2026-01-01T00:{minute:02}:00Z,,1,1\n" for minute in range(60))

    with django_assert_num_queries(3):  # targets, prices, exchange rates
        assert len(look_at_prices(file(text)).fresh) == 60


def test_an_empty_file_says_what_it_lacks(target):
    assert look_at_prices([]).wrong[0].startswith("Line 1 names the columns")


# Exchange rates

RATES = "base,quote,valid_from,rate\n"


def test_exchange_rates_that_were_exported_are_the_same_after_they_were_imported():
    services.add_exchange_rate("USD", "JPY", date(2026, 1, 1), 150_250_000_000, "the bank")
    services.add_exchange_rate("EUR", "USD", date(2026, 1, 1), 1_080_000_000)
    services.add_exchange_rate("JPY", "USD", date(2026, 1, 1), 6_700_000, "-a correction")
    exported = whole(rates_file())
    kept = list(ExchangeRate.objects.order_by("base").values_list("base", "quote", "rate_nanos", "source"))
    ExchangeRate.objects.all().delete()

    found = add_rates(exported)

    again = list(ExchangeRate.objects.order_by("base").values_list("base", "quote", "rate_nanos", "source"))
    assert len(found.fresh) == 2
    assert again == [each for each in kept if each[0] != "USD"]
    assert add_rates(exported).known == 2


def test_a_rate_that_makes_a_price_too_dear_is_wrong(target):
    add_prices(file(f"{OF},2026-01-01,JPY,1,1000\n"))

    found = look_at_rates(file("JPY,USD,2026-01-01,1500\n", RATES))

    assert found.wrong == [
        "Line 2: It brings a price above 1,000,000 USD for a million tokens. Is it turned round?"
    ]


def test_one_wrong_rate_leaves_nothing_of_the_file():
    with pytest.raises(FileRefused):
        add_rates(file("USD,JPY,2026-01-01,150\nUSD,JPY,2026-01-02,0\n", RATES))

    assert not ExchangeRate.objects.exists()


def test_many_rates_are_exported_in_parts():
    ExchangeRate.objects.bulk_create(
        ExchangeRate(base="USD", quote="JPY", valid_from=date(2026, 1, 1 + day), rate_nanos=10**9)
        for day in range(31)
    )
    ExchangeRate.objects.bulk_create(
        ExchangeRate(
            base="USD",
            quote=f"A{chr(65 + number // 26)}{chr(65 + number % 26)}",
            valid_from=date(2026, 1, 1),
            rate_nanos=10**9,
        )
        for number in range(400)
    )

    parts = list(rates_file())

    assert len(parts) > 2
    assert len("".join(parts).splitlines()) == 432
