"""Usage on the books against prices of ours and of price books."""

from datetime import UTC, date, datetime

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import ApiKey, Team
from gateway import services
from gateway.exchange import NANOS
from gateway.ledger import comparing
from gateway.ledger.comparing import Question, Unknown, shelf, used
from gateway.ledger.savings import Comparison
from gateway.ledger.writer import book
from gateway.models import ExchangeRate, Provider, Route, Target
from gateway.relay.records import Settled, Usage
from tests.gateway.ledger.priced import Books
from tests.gateway.ledger.usages import work_out
from tests.gateway.past_calls import call, keep, reads

pytestmark = pytest.mark.django_db(transaction=True)

OCTOBER, NOVEMBER, TODAY = date(2026, 10, 1), date(2026, 11, 1), date(2026, 11, 16)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def at(day, hour=12):
    return datetime(2026, 10, day, hour, tzinfo=UTC)


@pytest.fixture
def team():
    return Team.objects.create(name="Hydro", slug="hydro")


@pytest.fixture
def key(team):
    return ApiKey.objects.create(team=team, name="nightly")


@pytest.fixture
def target():
    """Of the route gpt-4o: 1 unit a million tokens in, 8 out."""
    provider = Provider.objects.create(slug="sheep", name="Sheep", base_url="https://sheep.example/v1")
    return add_target(Route.objects.create(model_name="gpt-4o"), provider, "gpt-4o", 1, 8)


def add_target(route, provider, upstream_model, input_, output, currency=""):
    made = Target.objects.create(route=route, provider=provider, upstream_model=upstream_model)
    services.add_price(
        made,
        LONG_AGO,
        input_nanos=input_ * NANOS,
        cached_input_nanos=input_ * NANOS,
        output_nanos=output * NANOS,
        currency=currency,
    )
    return made


@pytest.fixture
def month(team, key):
    """50 million output tokens in October, for 400 units."""
    of = {"team_id": team.pk, "key_id": key.pk, "target": "sheep/gpt-4o"}
    keep(call(at(1), 0, 30_000_000, 240, **of), call(at(20), 0, 20_000_000, 160, **of))


def savings(question):
    return comparing.savings(question, shelf())


def asked(**changes):
    return Question(**{"team_ids": None, "since": OCTOBER, "until": NOVEMBER, "today": TODAY, **changes})


def test_usage_is_by_utc_day_and_route(team, key, month):
    keep(call(at(1, 23), 7, 5, 1, team_id=team.pk, key_id=key.pk, route="other"))

    found = sorted(used((team.pk,), OCTOBER, NOVEMBER), key=lambda each: each[:2])

    assert [each[:2] for each in found] == [
        (OCTOBER, "gpt-4o"),
        (OCTOBER, "other"),
        (date(2026, 10, 20), "gpt-4o"),
    ]
    assert found[0].usage == Usage(0, 30_000_000, 0, "reported")
    assert (found[1].attempts, found[1].cost_nanos) == (1, NANOS)
    assert used((team.pk + 1,), OCTOBER, NOVEMBER) == []
    assert [each.route for each in used(None, OCTOBER, NOVEMBER, "other")] == ["other"]


def test_a_month_against_a_price_book_in_another_currency(month, target):
    """400 units of the ledger's against 10 dollars a million."""
    found = savings(asked(other="book:openai"))

    assert found.name == "OpenAI"
    assert found.comparison.actual_nanos == 400 * NANOS
    assert found.comparison.other_nanos == 500 * NANOS
    assert found.yearly_nanos == 1200 * NANOS


def test_the_fields_own_sum_comes_out_of_the_books(month, target, settings):
    """In yen: 400 booked at 8 a million, against 10 dollars a million at 7.3 to the dollar."""
    settings.LEDGER_CURRENCY = "JPY"
    ExchangeRate.objects.create(base="USD", quote="JPY", valid_from=OCTOBER, rate_nanos=7_300_000_000)

    found = savings(asked(other="book:openai"))

    assert found.comparison.actual_nanos == 400 * NANOS
    assert found.comparison.other_nanos == 3650 * NANOS
    assert f"{found.comparison.share_saved:.1%}" == "89.0%"
    assert found.yearly_nanos == 39_000 * NANOS


def test_a_month_against_another_route(month, target):
    cheap = Route.objects.create(model_name="cheap")
    add_target(cheap, target.provider, "cheap", 1, 2)

    found = savings(asked(other="route:cheap"))

    assert found.comparison.other_nanos == 100 * NANOS
    assert found.comparison.share_saved == -0.75
    assert found.yearly_nanos == -3600 * NANOS


def test_a_book_knows_a_route_by_what_its_target_calls_it(team, key, target):
    nice = Route.objects.create(model_name="nice name")
    add_target(nice, target.provider, "gpt-4o-mini", 1, 1)
    keep(call(at(1), 0, 1_000_000, 5, team_id=team.pk, key_id=key.pk, route="nice name"))

    assert savings(asked(other="book:openai")).comparison.other_nanos == 600_000_000


def test_another_model_of_a_book_for_all_usage(month, target):
    found = savings(asked(other="book:openai", model_name="gpt-4o-mini"))

    assert found.name == "OpenAI, gpt-4o-mini"
    assert found.comparison.other_nanos == 30 * NANOS


def test_a_book_without_an_exchange_rate_is_told_and_then_counts(month, target):
    found = savings(asked(other="book:holysheep")).comparison
    assert (found.actual_nanos, found.other_nanos) == (0, 0)
    assert [(each.why, each.cost_nanos) for each in found.left_out] == [("no_rate", 400 * NANOS)]

    ExchangeRate.objects.create(base="USD", quote="JPY", valid_from=OCTOBER, rate_nanos=7_300_000_000)
    found = savings(asked(other="book:holysheep", currency="JPY")).comparison

    assert found.left_out == ()
    assert found.actual_nanos == 2920 * NANOS
    assert found.other_nanos == pytest.approx(500 * NANOS, abs=20)  # two days, in dollars and back


def with_a_fee(target):
    services.add_price(
        target, LONG_AGO, input_nanos=0, cached_input_nanos=0, output_nanos=0, request_nanos=NANOS
    )


def tried_twice(at: datetime) -> Settled:
    """A call whose first attempt could not connect, and whose second was answered. Each has a fee of 1."""
    house = Books()
    with_a_fee(house.target)
    with_a_fee(house.other)
    failed = house.attempt(at, Usage())
    answered = house.attempt(at, Usage(10, 5, 0, "reported"), known=house.list_of(house.other), no=2)
    return house.call(failed, answered)


def test_an_attempt_that_was_not_billed_has_no_fee_elsewhere_either(db):
    book([tried_twice(at(1))])
    work_out()

    found = savings(asked(other="route:gpt-4o"))

    assert found.comparison == Comparison(NANOS, NANOS)
    assert [(each.attempts, each.actual_nanos) for each in found.routes] == [(2, NANOS)]


def test_without_another_side_each_route_goes_where_it_is_cheapest(month, target):
    dear = add_target(target.route, Provider.objects.create(slug="dear", name="Dear"), "gpt-4o", 1, 9)

    found = savings(asked(books=("openai",)))

    (route,) = found.routes
    assert [name for name, _ in route.offers] == ["sheep/gpt-4o", str(dear), "OpenAI"]
    assert route.cheapest[0] == "sheep/gpt-4o"
    assert found.comparison.difference_nanos == 0


def test_a_running_month_is_a_year_by_the_days_that_were(team, key, target):
    keep(call(datetime(2026, 11, 7, 12, tzinfo=UTC), 0, 1_000_000, 8, team_id=team.pk, key_id=key.pk))

    found = savings(asked(since=NOVEMBER, until=date(2026, 12, 1), other="book:openai"))

    assert found.comparison.difference_nanos == 2 * NANOS
    assert found.yearly_nanos == 73 * NANOS  # ten days, from the 7th to the 16th


@pytest.mark.parametrize("other", ["book:nobody", "route:nowhere", "nonsense"])
def test_what_is_not_there_is_told(other, db):
    with pytest.raises(Unknown) as caught:
        savings(asked(other=other))

    assert caught.value.field == "other"


def test_a_period_is_a_day_at_least_and_a_year_at_most(db):
    for until in (OCTOBER, date(2027, 10, 3)):
        with pytest.raises(Unknown, match="1 to 366 days"):
            savings(asked(until=until))


def test_a_question_costs_five_queries(month, target):
    """Three of rollups: marks, the largest routes, their sums. Two of prices and exchange rates."""
    savings(asked(books=("openai",)))

    with CaptureQueriesContext(connection) as made:
        savings(asked(books=("openai",)))

    assert len(reads(made)) == 5
    assert not any("gateway_entry" in sql or "gateway_attempt" in sql for sql in reads(made))
