"""Rows into a table, as many as are not there yet. On both databases."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from django.db import DatabaseError, DataError, connection, transaction

from gateway.ledger import inserting
from gateway.ledger.inserting import Row, Table, insert_new
from gateway.models import Refusal, Stale

REFUSALS = Table(Refusal._meta.db_table, tuple(str(each.column) for each in Refusal._meta.concrete_fields))
MARKS = Table(Stale._meta.db_table, ("size", "start", "team_id"))


def refusal(call_id: UUID, message: str = "Too many.", status: int = 429) -> Row:
    at = str(datetime(2026, 11, 22, 14, 5, tzinfo=UTC))
    return (call_id.hex, at, 1, 2, "gpt-4o", status, "rate_limit_exceeded", "normal", message, '{"a": [1]}')


def insert(table: Table, rows: list[Row]) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        insert_new(cursor, table, rows)


def messages() -> list[str]:
    return sorted(Refusal.objects.values_list("message", flat=True))


def test_rows_come_into_their_columns(transactional_db):
    one = uuid4()
    insert(REFUSALS, [refusal(one, 'tabs\t, lines\n, \\ and "quotes", Δ')])

    found = Refusal.objects.get()
    assert (found.call_id, found.team_id, found.status) == (one, 1, 429)
    assert found.at == datetime(2026, 11, 22, 14, 5, tzinfo=UTC)
    assert found.message == 'tabs\t, lines\n, \\ and "quotes", Δ'
    assert found.facts == {"a": [1]}


def test_what_is_there_stays_as_it_is(transactional_db):
    one, other = uuid4(), uuid4()
    insert(REFUSALS, [refusal(one, "first")])
    insert(REFUSALS, [refusal(one, "second"), refusal(other, "other")])
    assert messages() == ["first", "other"]


def test_twice_in_one_transaction_is_twice_what_was_given(db):
    with connection.cursor() as cursor:
        insert_new(cursor, MARKS, [(1, 7, 1)])
        insert_new(cursor, MARKS, [(1, 8, 1)])
    assert sorted(Stale.objects.values_list("start", flat=True)) == [7, 8]


def test_a_number_that_the_table_counts_itself_goes_on(transactional_db):
    insert(MARKS, [(1, 7, 1), (1, 8, 1)])
    first, second = Stale.objects.order_by("pk").values_list("pk", flat=True)
    assert second == first + 1


def test_nothing_is_left_of_a_transaction_that_failed(transactional_db):
    with transaction.atomic(), connection.cursor() as cursor:
        insert_new(cursor, REFUSALS, [refusal(uuid4(), "gone")])
        transaction.set_rollback(True)
    insert(REFUSALS, [refusal(uuid4(), "kept")])
    assert messages() == ["kept"]


@pytest.mark.postgresql
@pytest.mark.parametrize(
    "row",
    [
        refusal(uuid4(), "a\0b"),
        refusal(uuid4(), status=40_000),
        (*refusal(uuid4())[:-1], '"\\u0000"'),
        (*refusal(uuid4())[:4], "x" * 201, *refusal(uuid4())[5:]),
        ("no id", *refusal(uuid4())[1:]),
    ],
    ids=["a zero byte", "a number too large", "a zero byte in JSON", "a text too long", "no id"],
)
def test_what_can_never_be_written_is_told_from_a_database_that_is_away(transactional_db, row):
    with pytest.raises(DataError):
        insert(REFUSALS, [refusal(uuid4(), "good"), row])
    assert messages() == []
    insert(REFUSALS, [refusal(uuid4(), "good")])
    assert messages() == ["good"]


@pytest.mark.postgresql
def test_text_that_is_no_unicode_can_never_be_written_either(transactional_db):
    with pytest.raises(ValueError, match="surrogates"):
        insert(REFUSALS, [refusal(uuid4(), "\ud800")])


@pytest.fixture
def others() -> Iterator[list[threading.Thread]]:
    started: list[threading.Thread] = []
    yield started
    for each in started:
        each.join(60)
        assert not each.is_alive()


def test_two_who_insert_the_same_the_other_way_round_do_not_wait_for_each_other(transactional_db, others):
    """Without an order each has what the other wants: a deadlock in most of these rounds."""
    failures: list[DatabaseError] = []

    def work(turned: bool, ids: list[list[UUID]], meet: threading.Barrier) -> None:
        try:
            for some in ids:
                meet.wait(30)
                insert(REFUSALS, [refusal(each) for each in (reversed(some) if turned else some)])
        except DatabaseError as why:
            failures.append(why)
            meet.abort()
        finally:
            connection.close()

    ids = [[uuid4() for _ in range(2000)] for _ in range(5)]
    meet = threading.Barrier(2)
    for turned in (False, True):
        others.append(threading.Thread(target=work, args=(turned, ids, meet)))
        others[-1].start()
    for each in others:
        each.join(120)

    assert failures == []
    assert Refusal.objects.count() == 10_000


@pytest.mark.postgresql
def test_the_temporary_table_is_made_once_a_connection(transactional_db, django_assert_num_queries):
    insert(MARKS, [(1, 7, 1)])
    assert f"incoming_{MARKS.name}" in inserting._made[connection.connection]
    with transaction.atomic(), django_assert_num_queries(3) as seen, connection.cursor() as cursor:
        insert_new(cursor, MARKS, [(1, 8, 1)])
    assert [each["sql"].split()[0] for each in seen] == ["COPY", "INSERT", "DELETE"]
