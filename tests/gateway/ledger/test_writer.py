import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from django.conf import settings
from django.db import connection

from accounts.models import ApiKey, Team
from gateway.errors import Unavailable
from gateway.ledger.journal import Journal
from gateway.ledger.sweeper import read
from gateway.ledger.writer import Writer, book, book_left
from gateway.models import Attempt, Entry, Kept
from gateway.relay.records import Refusals, RefusedCount, Released, Settled
from tests.gateway.records import AT_US, dispatched, opened, settled
from tests.served import eventually

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def call_of_alice() -> dict[str, int]:
    team = Team.objects.create(name="Tide", slug="tide")
    key = ApiKey.objects.create(team=team, name="alice's")
    return {"team_id": team.pk, "key_id": key.pk}


@pytest.fixture
def writer(journal: Journal, journals: Path) -> Iterator[Writer]:
    made = Writer(journal, journals, pause_s=0.01)
    yield made
    if made.running:
        made.stop()


def test_a_call_is_booked_with_its_attempts(call_of_alice: dict[str, int]) -> None:
    call = opened(**call_of_alice, tags={"app": "tide"})

    book([settled(call)])

    entry = Entry.objects.get()
    assert str(entry.call_id) == call.call_id
    assert (entry.team.name, entry.key.name, entry.route) == ("Tide", "alice's", "gpt-4o")
    assert (entry.outcome, entry.status, entry.code) == ("answered", 200, "")
    assert (entry.input_tokens, entry.output_tokens, entry.usage_basis) == (10, 35, "reported")
    assert (entry.cost_nanos, entry.latency_us, entry.tags) == (22_500, 400_100, {"app": "tide"})
    assert entry.ended_at.isoformat() == "2026-09-21T14:13:20.400100+00:00"
    [attempt] = entry.attempts.all()
    assert (attempt.attempt_no, attempt.provider, attempt.cost_nanos) == (1, "openai", 22_500)


def test_a_replay_changes_nothing(call_of_alice: dict[str, int]) -> None:
    call = opened(**call_of_alice)
    book([settled(call)])

    book([settled(call), settled(call, cost_nanos=1)])

    assert Entry.objects.get().cost_nanos == 22_500
    assert Attempt.objects.count() == 1


@pytest.mark.parametrize("cost", [2**64, 2**200, None])
def test_what_cannot_be_booked_is_set_aside_and_holds_up_nothing(
    call_of_alice: dict[str, int], cost: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = settled(opened(**call_of_alice)), settled(opened(**call_of_alice), cost_nanos=cost)

    book([good, bad])

    assert [str(each.call_id) for each in Entry.objects.all()] == [good.call_id]
    aside = settings.VAR_DIR / "unbookable" / f"{bad.call_id}.json"
    assert bad.call_id in aside.read_text()
    assert str(aside) in caplog.text


def test_the_journal_is_carried_over_and_forgotten(
    writer: Writer, journal: Journal, call_of_alice: dict[str, int]
) -> None:
    for _ in range(300):
        call = opened(**call_of_alice)
        journal.settle(journal.open(call), settled(call))
    assert len(journal.segments) > 1

    writer.carry_over()

    assert Entry.objects.count() == 300
    assert len(journal.segments) == 1


def test_no_more_is_held_in_memory_than_it_may_while_the_database_takes_nothing(
    journal: Journal, call_of_alice: dict[str, int]
) -> None:
    """What is not booked stays where it is, in the journal."""
    writer = Writer(journal, journal.folder.parent, most_gathered=10)
    for _ in range(35):
        call = opened(**call_of_alice)
        journal.settle(journal.open(call), settled(call))

    assert writer._gather()
    assert writer._gather()
    assert len(writer._settled) == 10

    writer.carry_over()
    assert Entry.objects.count() == 35


def test_a_segment_with_an_open_call_is_kept(
    writer: Writer, journal: Journal, call_of_alice: dict[str, int]
) -> None:
    still_open = opened(**call_of_alice)
    ticket = journal.open(still_open)
    for _ in range(300):
        call = opened(**call_of_alice)
        journal.settle(journal.open(call), settled(call))
    segments = len(journal.segments)

    writer.carry_over()
    assert len(journal.segments) == segments > 1

    journal.dispatch(ticket, dispatched(still_open))
    journal.settle(ticket, settled(still_open))
    writer.carry_over()
    assert len(journal.segments) == 1
    assert Entry.objects.count() == 301


def test_what_is_booked_is_forgotten_after_a_turn_and_never_booked_again(
    writer: Writer, journal: Journal, call_of_alice: dict[str, int]
) -> None:
    call = opened(**call_of_alice)
    journal.settle(journal.open(call), settled(call))
    writer.carry_over()
    assert read(journal.folder) == [call, settled(call)]

    journal.turn()
    writer.carry_over()

    assert read(journal.folder) == []


@pytest.mark.sqlite
def test_a_locked_database_makes_the_journal_longer_and_nothing_else(
    writer: Writer, journal: Journal, call_of_alice: dict[str, int]
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout")
        assert cursor.fetchone()[0] == 5000
    locker = sqlite3.connect(settings.DATABASES["default"]["NAME"], isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    writer.start()
    call = opened(**call_of_alice)
    journal.settle(journal.open(call), settled(call))

    eventually(lambda: writer.behind, within_s=20, what="the writer's failure")
    assert Entry.objects.count() == 0

    locker.execute("ROLLBACK")
    locker.close()
    eventually(lambda: Entry.objects.count() == 1, within_s=20, what="the entry")
    eventually(lambda: not writer.behind, what="the writer's recovery")


def test_stopping_carries_over_what_there_is(
    writer: Writer, journal: Journal, call_of_alice: dict[str, int]
) -> None:
    writer.start()
    call = opened(**call_of_alice)
    journal.settle(journal.open(call), settled(call))

    writer.stop()

    assert Entry.objects.count() == 1
    assert "ledger-writer" not in [each.name for each in threading.enumerate()]


def test_a_dead_process_beside_us_is_booked(
    writer: Writer, journals: Path, call_of_alice: dict[str, int]
) -> None:
    other = Journal(journals / "other", max_bytes=1 << 20, segment_bytes=1 << 16)
    other.open(opened(**call_of_alice))
    other.close()

    writer.start()

    eventually(lambda: Entry.objects.filter(outcome="abandoned").count() == 1, what="the adopted entry")
    eventually(lambda: not other.folder.exists(), what="the adopted journal's end")


def test_a_dead_process_is_told_of_until_somebody_takes_it(
    journal: Journal, journals: Path, call_of_alice: dict[str, int]
) -> None:
    """While counters are away its journal stays, and our own books go on."""
    away = threading.Event()
    away.set()
    taken: list[tuple[str, list[str]]] = []

    def adopted(process: str, found: list[Settled]) -> None:
        if away.is_set():
            raise Unavailable("the counters are away")
        taken.append((process, [each.call_id for each in found]))

    dead = Journal(journals / "dead", max_bytes=1 << 20, segment_bytes=1 << 16)
    lost, ours = opened(**call_of_alice), opened(**call_of_alice)
    dead.open(lost)
    dead.close()
    writer = Writer(journal, journals, adopted=adopted, pause_s=0.001)
    writer.start()
    journal.settle(journal.open(ours), settled(ours))

    eventually(lambda: Entry.objects.count() == 2, what="the two entries")
    assert dead.folder.exists()
    assert not writer.behind

    away.clear()
    eventually(lambda: not dead.folder.exists(), what="the adopted journal's end")
    writer.stop()
    assert taken == [("dead", [lost.call_id])]


# What is left at the end


def stopped(journal: Journal, journals: Path) -> Writer:
    """A writer of this journal that has carried over what it could."""
    journal.seal()
    writer = Writer(journal, journals, pause_s=0.01)
    writer.start()
    writer.stop()
    return writer


def test_a_journal_whose_calls_are_all_on_the_ledger_is_booked(
    journal: Journal, journals: Path, call_of_alice: dict[str, int]
) -> None:
    first, second = opened(**call_of_alice), opened(**call_of_alice)
    journal.settle(journal.open(first), settled(first))
    journal.turn()
    journal.release(journal.open(second), Released(second.call_id, AT_US))

    assert stopped(journal, journals).has_booked_all


def test_a_journal_without_a_call_is_booked(journal: Journal, journals: Path) -> None:
    assert stopped(journal, journals).has_booked_all


def test_a_journal_with_an_open_call_is_not_booked(
    journal: Journal, journals: Path, call_of_alice: dict[str, int]
) -> None:
    call = opened(**call_of_alice)
    ticket = journal.open(call)

    writer = stopped(journal, journals)
    assert not writer.has_booked_all

    journal.settle(ticket, settled(call))  # after the last look
    assert not writer.has_booked_all


def test_a_journal_is_not_booked_before_its_writer_has_read_it(
    journal: Journal, journals: Path, call_of_alice: dict[str, int]
) -> None:
    call = opened(**call_of_alice)
    journal.settle(journal.open(call), settled(call))
    journal.seal()

    assert not Writer(journal, journals).has_booked_all


def test_a_journal_that_may_still_grow_is_not_booked(journal: Journal, journals: Path) -> None:
    assert not Writer(journal, journals).has_booked_all


@pytest.mark.sqlite
@pytest.mark.parametrize("what", ["calls", "refusals"])
def test_a_journal_whose_batch_the_database_did_not_take_is_not_booked(
    journal: Journal, journals: Path, call_of_alice: dict[str, int], what: str
) -> None:
    call = opened(**call_of_alice)
    if what == "calls":
        journal.settle(journal.open(call), settled(call))
    else:
        count = RefusedCount(
            AT_US // 60_000_000, call.team_id, call.key_id, "gpt-4o", "overloaded", "normal", 3
        )
        journal.note(Refusals(str(uuid4()), AT_US, (count,)))
    locker = sqlite3.connect(settings.DATABASES["default"]["NAME"], isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")

    writer = stopped(journal, journals)

    locker.execute("ROLLBACK")
    locker.close()
    assert not writer.has_booked_all
    writer.carry_over()
    assert writer.has_booked_all


def test_who_replays_what_the_ledger_has_deleted_is_warned(
    call_of_alice: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    Kept.objects.create(pk=1, from_minute=AT_US // 60_000_000 + 1)
    old, young = opened(**call_of_alice), opened(**call_of_alice, started_at_us=AT_US + 60_000_000)

    book_left([settled(young)], [])
    assert caplog.messages == []

    book_left([settled(old), settled(young)], [])
    [said] = caplog.messages
    assert "1 calls" in said
    assert Entry.objects.count() == 2
