"""What lacks a price, as rollups tell it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext

from gateway.ledger import repricing, rollups, unpriced
from gateway.ledger.spans import minute_of
from gateway.ledger.unpriced import Lacking, found
from gateway.ledger.writer import book
from gateway.models import ExchangeRate, Price, Provider, Repricing, Rollup, Route, Stale, Target
from tests.gateway.ledger.priced import Books

pytestmark = pytest.mark.django_db(transaction=True)

DAY = datetime(2026, 9, 21, tzinfo=UTC)
NOW = DAY + timedelta(hours=18, minutes=7)


@pytest.fixture
def books() -> Books:
    return Books()


@pytest.fixture
def target(books: Books) -> Target:
    return books.target


def rollup(at: datetime, size: int = 15, calls: int = 1, **changes: Any) -> Rollup:
    """A bucket of unpriced calls."""
    start = minute_of(at) // size * size
    values = {
        **{"team_id": 1, "key_id": 1, "route": "gpt-4o", "target": "acme/gpt-4o-2024", "outcome": "answered"},
        **{"code": "", "priority": "normal", "calls": calls, "unpriced": calls},
        **{"input_tokens": 100 * calls, "output_tokens": 10 * calls},
    }
    return Rollup.objects.create(size=size, start=start, **values | changes)


def a_price(target: Target, valid_from: datetime = DAY, **changes: Any) -> Price:
    figures = {"input_nanos": 2, "cached_input_nanos": 1, "output_nanos": 3}
    return Price.objects.create(target=target, valid_from=valid_from, **figures | changes)


def test_where_every_call_has_a_price_nothing_is_told(target: Target) -> None:
    rollup(DAY + timedelta(hours=3), unpriced=0)

    assert found(None, NOW) == []


def test_calls_without_a_price_are_told_with_what_they_lack(target: Target) -> None:
    rollup(DAY + timedelta(hours=3), calls=2)
    rollup(DAY + timedelta(hours=4), calls=3)

    [told] = found(None, NOW)

    assert (told.route, told.target) == ("gpt-4o", "acme/gpt-4o-2024")
    assert (told.calls, told.input_tokens, told.output_tokens, told.is_mixed) == (5, 500, 50, False)
    assert (told.since, told.until) == (DAY + timedelta(hours=3), DAY + timedelta(hours=4))
    assert told.lacking == (Lacking(target.pk, "acme/gpt-4o-2024", ""),)
    assert (told.is_gone, told.is_in_work) == (False, False)


def test_of_a_day_that_is_over_the_quarter_hour_of_the_first_call_is_told(target: Target) -> None:
    yesterday = DAY - timedelta(days=1)
    rollup(yesterday, size=1440, calls=4)
    rollup(yesterday + timedelta(hours=9, minutes=15), calls=4)
    rollup(DAY + timedelta(hours=3))

    [told] = found(None, NOW)

    assert (told.calls, told.since) == (5, yesterday + timedelta(hours=9, minutes=15))


def test_a_bucket_that_is_to_be_worked_out_again_is_not_read(target: Target) -> None:
    yesterday = DAY - timedelta(days=1)
    rollup(yesterday, size=1440, calls=4)
    rollup(yesterday + timedelta(hours=9), calls=3)
    Stale.objects.create(size=1440, start=minute_of(yesterday), team_id=1)

    assert [each.calls for each in found(None, NOW)] == [3]


def test_tokens_of_priced_calls_in_the_same_bucket_are_said_to_be_there(target: Target) -> None:
    rollup(DAY, calls=5, unpriced=2)

    [told] = found(None, NOW)

    assert (told.calls, told.is_mixed) == (2, True)


def test_a_team_sees_its_own(target: Target) -> None:
    rollup(DAY, calls=5)
    rollup(DAY, calls=7, team_id=2)

    assert [each.calls for each in found([2], NOW)] == [7]
    assert [each.calls for each in found(None, NOW)] == [12]
    assert found([], NOW) == []


def test_where_the_last_target_has_a_price_the_one_before_it_lacks_it(books: Books) -> None:
    a_price(books.target)
    rollup(DAY)

    [told] = found(None, NOW)

    assert told.lacking == (Lacking(books.other.pk, "acme/gpt-4o-mini", ""),)


def test_a_price_that_begins_later_is_none_for_the_first_call(target: Target) -> None:
    a_price(target, DAY + timedelta(hours=5))
    rollup(DAY + timedelta(hours=3))

    assert [each.target_id for each in found(None, NOW)[0].lacking] == [target.pk]


def test_a_price_without_an_exchange_rate_is_told_apart(target: Target) -> None:
    a_price(target, currency="EUR")
    rollup(DAY + timedelta(hours=3))
    assert [each.currency for each in found(None, NOW)[0].lacking] == ["EUR"]

    ExchangeRate.objects.create(
        base="EUR", quote=settings.LEDGER_CURRENCY, valid_from=DAY.date(), rate_nanos=10**9
    )
    Target.objects.exclude(pk=target.pk).delete()
    assert found(None, NOW)[0].lacking == ()


@pytest.mark.parametrize("hour", [5, 9])
def test_a_price_that_cannot_be_used_for_a_while_is_told_whenever_that_was(target: Target, hour: int) -> None:
    Target.objects.exclude(pk=target.pk).delete()
    for since, currency in ((0, ""), (hour, "EUR"), (hour + 2, "")):
        a_price(target, DAY - timedelta(days=1) + timedelta(hours=since), currency=currency)
    rollup(DAY - timedelta(days=1), size=1440, calls=4)
    rollup(DAY - timedelta(days=1) + timedelta(hours=3))

    [told] = found(None, NOW)

    assert [each.currency for each in told.lacking] == ["EUR"]


def test_what_cannot_be_used_after_the_last_of_them_is_not_lacking(target: Target) -> None:
    Target.objects.exclude(pk=target.pk).delete()
    a_price(target)
    a_price(target, DAY + timedelta(hours=3, minutes=15), currency="EUR")
    rollup(DAY + timedelta(hours=3))

    assert found(None, NOW)[0].lacking == ()


def test_what_is_being_corrected_is_told(books: Books) -> None:
    a_price(books.target)
    a_price(books.other)
    rollup(DAY)
    Repricing.objects.create(target_id=books.target.pk, from_at=DAY, until_at=NOW, cause="A late price.")

    [told] = found(None, NOW)

    assert (told.lacking, told.is_in_work, told.is_gone) == ((), True, False)


def test_a_removed_target_lacks_nothing(books: Books) -> None:
    rollup(DAY)
    Target.objects.all().delete()

    [told] = found(None, NOW)

    assert (told.lacking, told.is_gone) == ((), True)


def test_a_renamed_route_is_found_by_its_target(target: Target) -> None:
    rollup(DAY)
    Route.objects.update(model_name="renamed")

    assert [each.target_id for each in found(None, NOW)[0].lacking] == [target.pk]


def test_the_price_is_missing_from_the_first_call_on(target: Target) -> None:
    rollup(DAY + timedelta(hours=4))
    rollup(DAY + timedelta(hours=3), route="another", target="acme/gpt-4o-2024")

    assert unpriced.lacking_since(target.pk, NOW) == DAY + timedelta(hours=3)
    a_price(target)
    assert unpriced.lacking_since(target.pk, NOW) is None


def test_the_look_takes_as_many_queries_for_many_targets_as_for_one(target: Target) -> None:
    provider = Provider.objects.get()
    for number in range(30):
        route = Route.objects.create(model_name=f"route-{number}")
        made = Target.objects.create(route=route, provider=provider, upstream_model=f"m-{number}")
        rollup(DAY - timedelta(days=1 + number), size=1440, route=route.model_name, target=str(made))

    with CaptureQueriesContext(connection) as queries:
        assert len(found(None, NOW)) == 30

    # marks, sums, quarter-hours, targets, prices, exchange rates, repricings
    assert len(queries) == 7
    assert not any("gateway_entry" in each["sql"] for each in queries)


def test_from_a_call_to_its_correction(books: Books) -> None:
    """As the jobs do it: the writer, the rollups, the price, the corrections, the rollups again."""
    at = DAY + timedelta(hours=3, minutes=4)
    book([books.call(books.attempt(at)), books.call(books.attempt(at + timedelta(hours=1)))])
    rollups.work(NOW)
    [told] = found(None, NOW)
    assert (told.calls, told.since) == (2, DAY + timedelta(hours=3))

    books.price(told.since, now=NOW)
    assert repricing.work(NOW + timedelta(minutes=1), pause_s=0) == 2
    rollups.work(NOW + timedelta(minutes=1))

    assert found(None, NOW + timedelta(minutes=1)) == []
    assert sum(each.cost_nanos for each in Rollup.objects.filter(size=1)) == 7_000_000
