"""A provider's file against the books, and the calls behind a difference."""

from datetime import UTC, date, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import ApiKey, Team
from gateway.exchange import NANOS
from gateway.ledger import evidence
from gateway.ledger.evidence import lowest_id, reconciled
from gateway.ledger.provider_csv import Unreadable
from gateway.ledger.reconciliation import Compared
from gateway.models import Correction, ExchangeRate, Repricing, Stale
from gateway.relay.call import new_call_id
from tests.gateway.past_calls import call, keep, us

pytestmark = pytest.mark.django_db(transaction=True)

UTC_ZONE = ZoneInfo("UTC")
FIRST = date(2026, 10, 1)


def at(day=1, hour=12, minute=0):
    return datetime(2026, 10, day, hour, minute, tzinfo=UTC)


@pytest.fixture
def of():
    """Whose calls they are."""
    team = Team.objects.create(name="Hydro", slug="hydro")
    return {"team_id": team.pk, "key_id": ApiKey.objects.create(team=team, name="k").pk}


def answer(*lines, zone=UTC_ZONE, **changes):
    text = "day,model,input_tokens,output_tokens,cost\n" + "\n".join(lines)
    return reconciled(text.encode(), "openai", zone, **changes)


def reasons(found, day=FIRST, model="gpt-4o"):
    return {each.kind: each for each in found.explained.reasons.get((day, model), ())}


def test_a_bill_that_is_right_needs_no_explanation(of):
    keep(call(at(), cost=1, **of), call(at(2), cost=2, **of), call(at(), target="sheep/gpt-4o", cost=9, **of))

    found = answer("2026-10-01,gpt-4o,100,20,1.00", "2026-10-02,gpt-4o,100,20,2.00")

    assert all(row.is_even for row in found.found.rows)
    assert found.found.total("cost_nanos") == Compared(3 * NANOS, 3 * NANOS)
    assert found.explained.reasons == {}
    assert (found.first, found.last) == (FIRST, date(2026, 10, 2))


def test_the_attempts_behind_a_difference_are_found(of):
    keep(
        call(at(), cost=1, **of),
        hung := call(at(), 50, 5, 0.5, basis="estimated", attempt_outcome="cancelled", **of),
        gone := call(at(), 70, 700, 7, basis="estimated", attempt_outcome="abandoned", **of),
        late := call(at(), 0, 0, 0, basis="none", attempt_outcome="timed_out", **of),
        free := call(at(), 10, 10, 0, price_id=None, unpriced=True, **of),
        call(at(), 999, 99, 9, basis="estimated", target="sheep/gpt-4o", **of),
        call(at(2), 888, 88, 8, basis="estimated", **of),
    )

    found = reasons(answer("2026-10-01,gpt-4o,5000,900,9.00"))

    assert {kind: each[1:4] for kind, each in found.items()} == {
        "estimated": (2, 825, 7_500_000_000),
        "hung_up": (1, 55, 500_000_000),
        "abandoned": (1, 770, 7 * NANOS),
        "timed_out": (1, 0, 0),
        "unpriced": (1, 20, 0),
    }
    assert found["estimated"].examples == (gone.call_id, hung.call_id)
    assert found["timed_out"].examples == (late.call_id,)
    assert found["unpriced"].examples == (free.call_id,)


def test_calls_around_midnight_are_told_of(of):
    """Billed to the day after, as a provider does that counts where calls end."""
    keep(
        early := call(at(1, 0, 9), cost=1, **of),
        call(at(1, 0, 10), cost=1, **of),
        call(at(1, 23, 49), cost=1, **of),
        late := call(at(1, 23, 50), cost=2, **of),
        call(at(2, 0, 1), cost=1, **of),
    )

    found = answer("2026-10-01,gpt-4o,300,60,3.00", "2026-10-02,gpt-4o,200,40,3.00")

    assert reasons(found)["midnight"].examples == (late.call_id, early.call_id)
    assert reasons(found)["midnight"].cost_nanos == 3 * NANOS
    assert reasons(found, date(2026, 10, 2))["midnight"].attempts == 1
    quiet = answer("2026-10-01,gpt-4o,300,60,3.00", midnight_minutes=0)
    assert reasons(quiet) == {}


def test_days_are_those_of_the_zone(of):
    """23:30 in UTC on the 1st is the 2nd in Berlin."""
    keep(call(at(1, 23, 30), cost=1, **of))

    found = answer("2026-10-02,gpt-4o,100,20,2.00", zone=ZoneInfo("Europe/Berlin"))

    (row,) = found.found.rows
    assert row.day == date(2026, 10, 2)
    assert row.compared("cost_nanos") == Compared(NANOS, 2 * NANOS)


def test_corrections_count_and_are_told_of(of):
    keep(call(at(), cost=1, **of), corrected := call(at(), cost=0, price_id=None, unpriced=True, **of))
    late = Repricing.objects.create(target_id=7, from_at=at(), until_at=at(2), cause="late")
    correction = {
        "call_id": corrected.call_id,
        "attempt_no": 1,
        "team_id": of["team_id"],
        "started_at": at(),
        "price": "",
    }
    Correction.objects.create(
        repricing=late, before_nanos=0, after_nanos=4 * NANOS, prices=True, **correction
    )
    again = Repricing.objects.create(target_id=7, from_at=at(), until_at=at(2), cause="later")
    Correction.objects.create(repricing=again, before_nanos=4 * NANOS, after_nanos=3 * NANOS, **correction)
    Stale.objects.create(size=1, start=us(at()) // 60_000_000, team_id=of["team_id"])
    keep(call(at(3), **of))

    found = answer("2026-10-01,gpt-4o,200,40,5.00")

    (row,) = found.found.rows
    assert row.compared("cost_nanos") == Compared(4 * NANOS, 5 * NANOS)
    assert reasons(found).keys() == {"corrected"}
    assert reasons(found)["corrected"][1:] == (1, 120, 3 * NANOS, (corrected.call_id,))


def test_a_day_names_five_calls_of_each_kind_and_model(of):
    keep(
        *[call(at(), cost=number, basis="estimated", **of) for number in range(1, 8)],
        *[call(at(), cost=number, basis="estimated", target="openai/o1", **of) for number in (1, 2)],
    )

    found = answer("2026-10-01,gpt-4o,1,1,1", "2026-10-01,o1,1,1,1")

    assert len(reasons(found)["estimated"].examples) == 5
    assert reasons(found)["estimated"].attempts == 7
    assert len(reasons(found, model="o1")["estimated"].examples) == 2


def test_only_the_days_that_differ_most_are_looked_at(of):
    keep(*[call(at(day), cost=day, basis="estimated", **of) for day in range(1, 13)])

    found = answer(*[f"2026-10-{day:02},gpt-4o,100,20,0.5" for day in range(1, 13)])

    assert found.explained.not_looked_at == (FIRST, date(2026, 10, 2))
    assert {day.day for day, _ in found.explained.reasons} == set(range(3, 13))


def test_lines_in_another_currency_are_converted(of):
    keep(call(at(), cost=2, **of))
    ExchangeRate.objects.create(base="USD", quote="EUR", valid_from=FIRST, rate_nanos=500_000_000)

    found = answer("2026-10-01,gpt-4o,100,20,1", currency="EUR")

    assert found.found.total("cost_nanos") == Compared(2 * NANOS, 2 * NANOS)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (("2026-01-01,a,1,1,1", "2026-04-04,a,1,1,1"), "The file covers 94 days: send 93 at most."),
        (("0001-01-01,a,1,1,1",), "Line 2: 0001-01-01 is too far from now to be right."),
    ],
)
def test_a_span_that_cannot_be_compared_is_refused(lines, sentence, db):
    with pytest.raises(Unreadable) as caught:
        answer(*lines)

    assert str(caught.value) == sentence


def test_the_lowest_id_comes_before_all_of_its_moment():
    moment = at()

    assert lowest_id(moment) <= UUID(new_call_id(us(moment) * 1000))
    assert UUID(new_call_id((us(moment) - 1000) * 1000)) < lowest_id(moment)


@pytest.mark.sqlite  # whose plan it reads
def test_the_ledger_is_read_by_ranges_of_call_ids(of):
    keep(call(at(), cost=1, basis="estimated", **of))

    with CaptureQueriesContext(connection) as made:
        answer("2026-10-01,gpt-4o,1,1,1")

    of_attempts = [each["sql"] for each in made if 'FROM "gateway_attempt"' in each["sql"]]
    assert len(of_attempts) == 2  # the sums, and the largest that were estimated
    for sql in of_attempts:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}")
            plan = [row[-1] for row in cursor.fetchall()]
        assert any("SEARCH gateway_attempt USING INDEX" in each and "entry_id>" in each for each in plan)
        assert not any(each.startswith("SCAN") for each in plan)


def test_the_books_of_a_provider_are_its_own(of):
    keep(call(at(), **of), call(at(), target="openai-eu/gpt-4o", **of), call(at() + timedelta(days=3), **of))

    found = evidence.ours("openai", FIRST, date(2026, 10, 2), UTC_ZONE)

    assert [(each.day, each.upstream_model, each.input_tokens) for each in found] == [(FIRST, "gpt-4o", 100)]
