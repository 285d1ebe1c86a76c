"""A call explained from its rows alone: who, when, where the time went, why each fallback, what it costs."""

import re
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from accounts.models import ApiKey, Team
from gateway import errors
from gateway.ledger import explain, reasons
from gateway.ledger.writer import book
from gateway.models import BreakerChange, Correction, Price, Provider, Refusal, Repricing, Route, Target
from gateway.relay import pricing
from gateway.relay.catalog import Exchange, Rates
from gateway.relay.catalog import Price as Applicable
from gateway.relay.lifeline import Cut
from gateway.relay.records import AttemptEnded, Refusals, Seen, Skipped, Usage
from tests.gateway.records import AT_US, opened, refused, settled

pytestmark = pytest.mark.django_db(transaction=True)

RELAY = Path(reasons.__file__).parents[1] / "relay"


@pytest.fixture
def team() -> Team:
    return Team.objects.create(name="Tide", slug="tide")


@pytest.fixture
def key(team) -> ApiKey:
    return ApiKey.objects.create(team=team, name="nightly")


@pytest.fixture
def price() -> Price:
    target = Target.objects.create(
        route=Route.objects.create(model_name="gpt-4o"),
        provider=Provider.objects.create(slug="openai", name="OpenAI", base_url="https://openai.example/v1"),
        upstream_model="gpt-4o",
    )
    return Price.objects.create(
        target=target,
        valid_from=datetime(2026, 1, 1, tzinfo=UTC),
        currency="CNY",
        input_nanos=18_000_000_000,
        cached_input_nanos=9_000_000_000,
        output_nanos=73_000_000_000,
        source="the contract",
    )


def applicable(price):
    rates = Rates(price.input_nanos, price.cached_input_nanos, price.output_nanos)
    return Applicable(price.pk, 0, rates, currency=price.currency, exchange=Exchange(10, 73))


def attempt(attempt_no=1, **changes):
    made = AttemptEnded(
        attempt_no, 7, "openai", "gpt-4o", "answered", 200, AT_US + 50, 400_000, None, Usage(), None, 0
    )
    return msgspec.structs.replace(made, **changes)


def failed(attempt_no=1, **changes):
    wrong = {"outcome": "failed", "status": 503, "code": "status_503", "latency_us": 80_000}
    return attempt(attempt_no, **{**wrong, **changes})


@pytest.fixture
def booked(team, key):
    """Books a call of the team's, and explains it."""

    def do(*attempts, **changes):
        call = opened(team_id=team.pk, key_id=key.pk, tags={"app": "tide"})
        usage = attempts[-1].usage if attempts else Usage()
        cost_nanos = sum(each.cost_nanos for each in attempts)
        book([settled(call, attempts=attempts, usage=usage, **{"cost_nanos": cost_nanos, **changes})])
        return explain.explain(UUID(call.call_id), None, "USD")

    return do


def test_it_tells_who_called_and_what_became_of_it(booked, team, key):
    told = booked(attempt(), priority="urgent")

    assert (told.team, told.key, told.route, told.priority) == ("Tide", "nightly", "gpt-4o", "urgent")
    assert (told.tags, told.outcome, told.status) == ({"app": "tide"}, "answered", 200)
    assert told.summary[0] == "The call was answered by openai/gpt-4o."


def test_a_call_of_another_team_is_none(booked, team):
    told = booked(attempt())

    with pytest.raises(explain.NotOnTheBooks, match="a call of another team is not shown"):
        explain.explain(told.call_id, [team.pk + 1], "USD")
    assert explain.explain(told.call_id, [team.pk], "USD") == told


def test_a_call_that_is_not_booked_may_be_under_way():
    with pytest.raises(explain.NotOnTheBooks, match="still under way"):
        explain.explain(UUID(opened().call_id), None, "USD")


def test_limits_are_told_with_their_figures_at_that_moment(booked):
    quota = Seen("team", "money", "month", 10**12, 9 * 10**11, 12_000_000, hard=True)
    rate = Seen("key", "requests", "minute", 100, 99, 1)

    told = booked(attempt(), limits=(rate, quota))

    assert [(each.owner, each.kind, each.period) for each in told.limits] == [
        ("key", "requests", "minute"),
        ("team", "money", "month"),
    ]
    assert (told.limits[0].amount, told.limits[0].used, told.limits[0].asked) == (100, 99, 1)
    assert (told.limits[1].used, told.limits[1].hard) == (9 * 10**11, True)


def test_the_parts_of_its_time_add_up_and_the_longest_is_said_first(booked):
    told = booked(
        failed(queued_us=3_000_000, pool_wait_us=200_000),
        attempt(
            2, started_at_us=AT_US + 4_000_000, backoff_us=900_000, latency_us=500_000, first_byte_us=100_000
        ),
        latency_us=4_500_500,
    )

    parts = {each.where: each.duration_us for each in told.time}
    assert sum(parts.values()) == told.latency_us == 4_500_500
    assert parts == {
        "gate": 2_800_000,
        "connection": 200_000,
        "backoff": 900_000,
        "failed": 80_000,
        "first": 100_000,
        "writing": 400_000,
        "gateway": 20_500,
    }
    assert (told.gate_us, told.pool_wait_us, told.backoff_us) == (2_800_000, 200_000, 900_000)
    assert told.summary[1] == (
        "Of its 4.50 s, 2.80 s went into waiting at the gate for a place; "
        "900 ms went into waiting before the same target was asked again."
    )


def test_each_attempt_says_what_became_of_it_and_what_was_done_next(booked):
    told = booked(
        failed(1, provider="acme", status=429, code="throttled"),
        failed(2, provider="acme", backoff_us=1_250_000, probe=True),
        attempt(3, trimmed=4),
    )

    first, second, third = told.attempts
    assert first.why == "The provider throttled the gateway (status 429 Too Many Requests)."
    assert first.then == "The same target was asked again after a wait of 1.25 s."
    assert second.why == (
        "The provider answered with status 503 Service Unavailable. It was the probe of a half-open breaker."
    )
    assert second.then == "So the call fell back to openai/gpt-4o."
    assert (first.breaker, second.breaker) == ("closed", "half-open")
    assert third.why.endswith("4 of the oldest messages were left out, because all of them were too long.")
    assert third.then == ""
    assert told.summary[0].startswith("The call was answered by openai/gpt-4o, at attempt 3.")


def test_a_call_that_nobody_answered_says_so(booked):
    told = booked(failed(), outcome="failed", status=502, code="upstream_error")

    assert told.attempts[0].then == "Nothing further was tried."
    assert told.summary[0] == (
        "The call failed: no target gave an answer. "
        "openai/gpt-4o: The provider answered with status 503 Service Unavailable."
    )


def test_a_word_of_the_providers_is_not_taken_for_ours():
    assert reasons.of_call("rejected", "invalid_api_key") == reasons.OUTCOMES["rejected"]
    assert "revoked" in reasons.of_call("truncated", "invalid_api_key")


def test_the_plan_says_what_came_of_each_target(booked):
    BreakerChange.objects.create(
        target_id=9,
        provider="acme",
        upstream_model="gpt-4o",
        at=datetime(2026, 9, 21, 14, 0, tzinfo=UTC),
        before="closed",
        after="open",
        cause="5 failures in a row",
    )
    skipped = (Skipped(9, "acme", "gpt-4o", "open"), Skipped(10, "busy", "gpt-4o", "full"))

    told = booked(
        attempt(), skipped=skipped, plan=("acme/gpt-4o", "busy/gpt-4o", "openai/gpt-4o", "spare/gpt-4o")
    )

    assert [(each.target, each.attempts, each.passed_over) for each in told.plan] == [
        ("acme/gpt-4o", 0, "open"),
        ("busy/gpt-4o", 0, "full"),
        ("openai/gpt-4o", 1, ""),
        ("spare/gpt-4o", 0, ""),
    ]
    assert told.plan[0].why == (
        "Its breaker was open, so it was passed over. "
        "It opened at 2026-09-21 14:00:00 UTC: 5 failures in a row."
    )
    assert told.plan[3].why == "Not needed, or not allowed to take the call."


def test_the_bill_has_a_line_for_each_kind_and_comes_to_the_cost(booked, price):
    usage = Usage(1000, 300, 800, "reported")
    how = applicable(price)
    cost_nanos = pricing.cost_nanos(usage, how)

    told = booked(
        attempt(usage=usage, price_id=price.pk, cost_nanos=cost_nanos, price=pricing.told(usage, how))
    )

    bill = told.attempts[0].bill
    assert [(each.kind, each.quantity, each.rate_nanos, each.amount) for each in bill.lines] == [
        ("cached_input", 800, 9_000_000_000, "0.0072"),
        ("input", 200, 18_000_000_000, "0.0036"),
        ("output", 300, 73_000_000_000, "0.0219"),
    ]
    assert (bill.total, bill.currency, bill.exchange_numerator, bill.exchange_denominator) == (
        *("0.0327", "CNY"),
        *(10, 73),
    )
    assert bill.cost_nanos == told.cost_nanos == 4_479_452  # 32,700,000 * 10 / 73, rounded half up
    assert bill.adds_up
    assert told.adds_up
    assert (bill.price_source, bill.price_valid_from) == ("the contract", price.valid_from)
    assert told.summary[2] == (
        "It costs 0.004479452 USD, 67% of it for 300 output tokens at 73.00 CNY a million."
    )


def test_a_cost_that_is_not_what_its_bill_comes_to_is_said_to_be_wrong(booked, price):
    usage, how = Usage(1000, 300, 800, "reported"), applicable(price)

    told = booked(attempt(usage=usage, price_id=price.pk, cost_nanos=1, price=pricing.told(usage, how)))

    assert not told.attempts[0].bill.adds_up
    assert not told.adds_up


def test_a_bill_outlives_the_row_of_its_price(booked, price):
    usage, how = Usage(1000, 0, 0, "reported"), applicable(price)
    text, cost_nanos = pricing.told(usage, how), pricing.cost_nanos(usage, how)
    Price.objects.all().delete()

    bill = booked(attempt(usage=usage, cost_nanos=cost_nanos, price=text)).attempts[0].bill

    assert bill.price_source is None
    assert bill.adds_up


def test_an_attempt_from_before_bills_were_kept_says_so(booked):
    told = booked(attempt(usage=Usage(10, 10, 0, "reported"), price_id=3, cost_nanos=22_500))

    assert told.attempts[0].bill is None
    assert told.attempts[0].bill_missing == "It was booked before the lines were kept; the sum alone is."
    assert told.adds_up


def test_a_late_price_is_told_with_the_old_figure_when_and_why(booked, team, price):
    usage, how = Usage(1000, 300, 0, "estimated"), applicable(price)
    before = booked(attempt(usage=usage), unpriced=True)
    assert before.unpriced
    assert before.attempts[0].bill_missing.startswith("The target had no price")
    repricing = Repricing.objects.create(
        target_id=7, from_at=before.started_at, until_at=before.ended_at, cause="A price was entered."
    )
    cost_nanos = pricing.cost_nanos(usage, how)
    Correction.objects.create(
        call_id=before.call_id,
        attempt_no=1,
        repricing=repricing,
        team_id=team.pk,
        started_at=before.started_at,
        before_nanos=0,
        after_nanos=cost_nanos,
        prices=True,
        price=pricing.told(usage, how),
    )

    told = explain.explain(before.call_id, None, "USD")

    assert (told.booked_nanos, told.cost_nanos, told.unpriced) == (0, cost_nanos, False)
    assert [(each.before_nanos, each.after_nanos, each.why) for each in told.corrections] == [
        (0, cost_nanos, "A price was entered.")
    ]
    assert told.attempts[0].cost_nanos == cost_nanos
    assert told.attempts[0].bill.adds_up
    assert told.adds_up


def test_a_refused_call_is_explained_beside_the_calls(team, key):
    limit = Seen("key", "requests", "minute", 100, 100, 1)
    row = refused(team_id=team.pk, key_id=key.pk, code="rate_limit_exceeded", status=429, limits=(limit,))
    book([], [Refusals(row.call_id, AT_US, (), (row,))])
    call_id = Refusal.objects.get().pk

    told = explain.explain_refusal(call_id, [team.pk])

    assert (told.team, told.key, told.status, told.message) == ("Tide", "nightly", 429, "Try again later.")
    assert told.limits[0].used == 100
    with pytest.raises(explain.NotOnTheBooks, match="last 1,000"):
        explain.explain_refusal(call_id, [team.pk + 1])
    with pytest.raises(explain.NotOnTheBooks, match=f"GET /api/refusals/{call_id}"):
        explain.explain(call_id, None, "USD")


def test_an_explanation_takes_as_many_queries_however_many_attempts(booked, django_assert_num_queries):
    told = booked(*(failed(number) for number in range(1, 9)), attempt(9))

    # entry, attempts, corrections, team's name, key's name; and prices, where there are some
    with django_assert_num_queries(5):
        explain.explain(told.call_id, None, "USD")


def causes():
    """Every word that the relay gives an attempt that fails, as far as it is written out there."""
    found = {each.name.lower() for each in Cut} | {"cancelled", "internal_error"}
    found |= {each.cause for each in kinds_of(errors.UpstreamFailed)}
    for path in RELAY.rglob("*.py"):
        told = re.findall(r"\.cause\b[^=\n]*= (.*)", path.read_text())
        found |= {word for each in told for word in re.findall(r"\"([a-z_]+)\"", each)}
    return found - {"no_target_available"}  # which is said where nothing was tried


def kinds_of(kind):
    return {kind}.union(*(kinds_of(each) for each in kind.__subclasses__()))


def test_every_word_that_the_relay_has_for_a_failed_attempt_has_a_sentence():
    assert len(causes()) > 15
    assert causes() <= set(reasons.ATTEMPTS)


@pytest.mark.parametrize(
    ("took_us", "words"),
    [
        (0, "0"),
        (12, "12 µs"),
        (1_500, "1.5 ms"),
        (99_949, "99.9 ms"),
        (340_400, "340 ms"),
        (4_203_000, "4.20 s"),
    ],
)
def test_a_duration_is_told_as_people_read_it(took_us, words):
    assert reasons.lasting(took_us) == words
