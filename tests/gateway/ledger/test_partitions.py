"""One part of the ledger for each month, on PostgreSQL."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.db import IntegrityError, connection

from accounts.models import ApiKey, Team
from gateway.ledger import partitions
from gateway.ledger.partitions import ATTEMPTS, ENTRIES, drop_before, first_id, make_ahead, month_of, parts
from gateway.ledger.writer import book
from gateway.models import Attempt, Entry
from gateway.relay.call import new_call_id
from tests.gateway.records import opened, settled

NOW = datetime(2026, 11, 22, 14, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("moment", "later", "month"),
    [
        (NOW, 0, datetime(2026, 11, 1, tzinfo=UTC)),
        (NOW, 1, datetime(2026, 12, 1, tzinfo=UTC)),
        (NOW, 2, datetime(2027, 1, 1, tzinfo=UTC)),
        (NOW, -11, datetime(2025, 12, 1, tzinfo=UTC)),
        (datetime.fromisoformat("2026-12-01T00:30+01:00"), 0, datetime(2026, 11, 1, tzinfo=UTC)),
    ],
)
def test_months_are_of_utc(moment, later, month):
    assert month_of(moment, later) == month


def test_the_first_id_of_a_moment_parts_calls_before_it_from_calls_after_it():
    at_ns = int(NOW.timestamp()) * 1_000_000_000
    before, after = UUID(new_call_id(at_ns - 1_000_000)), UUID(new_call_id(at_ns))
    assert before < first_id(NOW) <= after


def test_there_are_no_parts_on_sqlite(db):
    if connection.vendor == "sqlite":
        assert make_ahead(NOW) == drop_before(NOW) == 0


def names(table: partitions.Parted) -> list[str]:
    return [each.name for each in parts(table)]


def where(call_id: str) -> str:
    """The part that a call's entry is in."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT tableoid::regclass::text FROM gateway_entry WHERE call_id = %s", [call_id])
        return str(cursor.fetchone()[0])


@pytest.fixture
def whose(db) -> dict[str, int]:
    """Whose calls are booked. What a test does to the parts is taken back with its transaction."""
    team = Team.objects.create(name="Hydro", slug="hydro")
    return {"team_id": team.pk, "key_id": ApiKey.objects.create(team=team, name="nightly").pk}


def call_at(moment: datetime, whose: dict[str, int]) -> str:
    """A call of that moment on the books."""
    call_id = new_call_id(int(moment.timestamp() * 1_000_000_000))
    book([settled(opened(**whose, call_id=call_id))])
    return call_id


@pytest.mark.postgresql
def test_the_months_ahead_have_their_parts_from_the_beginning(db):
    now = datetime.now(UTC)
    for table in (ENTRIES, ATTEMPTS):
        assert len(parts(table)) >= partitions.AHEAD
        assert parts(table)[-1].end >= first_id(month_of(now, partitions.AHEAD))


@pytest.mark.postgresql
def test_parts_are_made_once(db):
    far = datetime.now(UTC) + timedelta(days=400)
    made = make_ahead(far)
    assert made == 2 * 13, "every month until then, of entries and attempts"
    assert make_ahead(far) == 0
    assert names(ENTRIES)[-1] == f"gateway_entry_{month_of(far, 3):%Y_%m}"
    assert names(ATTEMPTS)[-1] == f"gateway_attempt_{month_of(far, 3):%Y_%m}"


@pytest.mark.postgresql
def test_a_call_of_a_month_without_a_part_moves_to_it_when_it_is_made(whose):
    far = datetime.now(UTC) + timedelta(days=800)
    call_id = call_at(far, whose)
    assert where(call_id) == "gateway_entry_rest"

    make_ahead(far)

    assert where(call_id) == f"gateway_entry_{far:%Y_%m}"
    assert Attempt.objects.filter(entry_id=call_id).count() == 1
    assert Entry.objects.filter(call_id=call_id).count() == 1


@pytest.mark.postgresql
def test_whole_months_are_dropped_with_all_their_calls(whose):
    """Of a month that is not over nothing goes, nor of the months after it."""
    now = datetime.now(UTC)
    make_ahead(now + timedelta(days=400))
    calls = [call_at(month_of(now, later) + timedelta(days=3), whose) for later in range(13)]
    moment = month_of(now, 6) + timedelta(days=20)

    assert drop_before(moment) == 6

    left = {str(each) for each in Entry.objects.values_list("call_id", flat=True)}
    assert left == set(calls[6:])
    assert Attempt.objects.count() == len(calls[6:])
    assert drop_before(moment) == 0


@pytest.mark.postgresql
def test_what_came_after_its_month_was_dropped_goes_with_the_next_drop(whose):
    """A journal of then was found late."""
    now = datetime.now(UTC)
    drop_before(month_of(now, 2))
    late, later = call_at(now, whose), call_at(month_of(now, 2), whose)
    assert where(late) == "gateway_entry_rest"

    drop_before(month_of(now, 2))

    assert [str(each) for each in Entry.objects.values_list("call_id", flat=True)] == [later]
    assert Attempt.objects.count() == 1


@pytest.mark.postgresql
def test_a_call_is_looked_up_in_its_own_part_alone(whose):
    call_id = call_at(datetime.now(UTC), whose)
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN SELECT cost_nanos FROM gateway_entry WHERE call_id = %s", [call_id])
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert plan.count("Scan") == 1


@pytest.mark.postgresql
def test_an_attempt_has_its_name_once_in_all_parts(whose):
    call_id = call_at(datetime.now(UTC), whose)
    row = Attempt.objects.get(entry_id=call_id)
    row.pk = None
    with pytest.raises(IntegrityError):
        row.save(force_insert=True)
