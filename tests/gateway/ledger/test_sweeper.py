import os
import zlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Unavailable
from gateway.ledger.journal import HEAD, Journal, hold
from gateway.ledger.sweeper import Book, ends, oldest_us, sweep
from gateway.relay.records import Record, Refusals, RefusedCount, Released, Settled
from tests.gateway.records import AT_US, WORST, dispatched, opened, refused, settled


def dead(journals: Path, name: str) -> list[Settled]:
    """The journal of a process that died with one call settled, one sent and one just let in."""
    journal = Journal(journals / name, max_bytes=1 << 20, segment_bytes=1 << 16)
    done, sent, fresh = opened(), opened(), opened()
    journal.settle(journal.open(done), settled(done))
    journal.dispatch(journal.open(sent), dispatched(sent))
    journal.open(fresh)
    journal.close()
    return ends([done, settled(done), sent, dispatched(sent), fresh])


def keep(booked: list[Settled]) -> Book:
    """Books that are a list."""
    return lambda found, refusals: booked.extend(found)


def test_a_settled_call_keeps_its_own_end() -> None:
    call = opened()
    assert ends([call, dispatched(call), settled(call)]) == [settled(call)]


def test_an_end_stands_alone_where_its_opening_is_forgotten() -> None:
    assert ends([settled(opened(call_id="x"))]) == [settled(opened(call_id="x"))]


def test_a_call_that_was_sent_is_booked_at_its_worst_case() -> None:
    call = opened()
    [end] = ends([call, dispatched(call), dispatched(call, attempt_no=2)])

    assert (end.outcome, end.status) == ("abandoned", 499)
    assert (end.usage.input_tokens, end.usage.output_tokens) == (
        2 * WORST.input_tokens,
        2 * WORST.output_tokens,
    )
    assert end.usage.basis == "estimated"
    assert end.cost_nanos == 2 * 999_000 == sum(each.cost_nanos for each in end.attempts)
    assert [each.outcome for each in end.attempts] == ["abandoned", "abandoned"]


def test_a_call_that_was_not_sent_costs_nothing() -> None:
    [end] = ends([opened()])
    assert (end.cost_nanos, end.usage.basis, end.attempts) == (0, "none", ())


def test_an_abandoned_call_ended_when_its_journal_last_spoke() -> None:
    lost, later = opened(), opened(started_at_us=AT_US + 9_000_000)
    assert ends([lost, later])[0].ended_at_us == AT_US + 9_000_000


def test_a_call_sent_without_a_price_is_flagged() -> None:
    call = opened()
    assert ends([call, dispatched(call, price_id=None)])[0].unpriced


@given(st.permutations(range(5)))
def test_the_order_of_calls_does_not_change_their_ends(order: list[int]) -> None:
    calls = [opened(call_id=str(each), started_at_us=AT_US) for each in range(5)]
    sent = [dispatched(each, started_at_us=AT_US) for each in calls]

    def key(end: Settled) -> str:
        return end.call_id

    shuffled = ends([*(calls[each] for each in order), *(sent[each] for each in order)])
    assert sorted(shuffled, key=key) == sorted(ends([*calls, *sent]), key=key)


def test_dead_journals_are_booked_and_put_away(journals: Path) -> None:
    expected = dead(journals, "one") + dead(journals, "two")
    booked: list[Settled] = []

    assert sweep(journals, keep(booked)) == 6
    assert [each.outcome for each in booked] == [each.outcome for each in expected]
    assert list(journals.iterdir()) == []


def test_what_a_dead_process_refused_is_booked_too(journals: Path) -> None:
    journal = Journal(journals / "one", max_bytes=1 << 20, segment_bytes=1 << 16)
    count = RefusedCount(AT_US // 60_000_000, 1, 1, "gpt-4o", "overloaded", "normal", 3)
    record = Refusals("0199", AT_US, (count,), (refused(),))
    journal.note(record)
    journal.close()
    booked: list[Refusals] = []

    assert sweep(journals, lambda _, refusals: booked.extend(refusals)) == 0
    assert booked == [record]


def test_a_living_process_keeps_its_journal(journals: Path, journal: Journal) -> None:
    journal.open(opened())

    assert sweep(journals, lambda *_: None) == 0
    assert journal.folder.exists()


def test_a_journal_that_cannot_be_booked_stays(journals: Path) -> None:
    dead(journals, "one")

    def away(*_: object) -> None:
        raise ConnectionError("the database is away")

    with pytest.raises(ConnectionError):
        sweep(journals, away)

    booked: list[Settled] = []
    assert sweep(journals, keep(booked)) == 3


class Ears:
    """Hears of dead processes; away at first where so made."""

    def __init__(self, *, away: int = 0) -> None:
        self.away = away
        self.told: list[tuple[str, list[Settled]]] = []

    def __call__(self, process: str, found: list[Settled]) -> None:
        self.told.append((process, found))
        if self.away:
            self.away -= 1
            raise Unavailable("counters are away")


def test_who_adopts_is_told_of_every_end_once_it_is_on_the_books(journals: Path) -> None:
    expected = [each.outcome for each in dead(journals, "one")]
    booked: list[Settled] = []
    told: list[tuple[str, list[Settled], list[Settled]]] = []

    sweep(journals, keep(booked), lambda process, found: told.append((process, found, list(booked))))

    [(process, found, booked_by_then)] = told
    assert (process, [each.outcome for each in found]) == ("one", expected)
    assert booked_by_then == found


def test_who_adopts_is_told_of_a_process_that_died_without_a_call(journals: Path) -> None:
    Journal(journals / "idle", max_bytes=1 << 20, segment_bytes=1 << 16).close()
    ears = Ears()
    assert sweep(journals, lambda *_: None, ears) == 0
    assert ears.told == [("idle", [])]


def test_a_journal_stays_until_it_was_adopted_and_is_booked_once_and_told_of_again(journals: Path) -> None:
    dead(journals, "one")
    ears = Ears(away=2)
    booked: list[Settled] = []

    assert [sweep(journals, keep(booked), ears) for _ in range(4)] == [3, 0, 0, 0]

    assert [process for process, _ in ears.told] == ["one"] * 3
    assert ears.told[0] == ears.told[1] == ears.told[2]
    assert booked == ears.told[0][1]
    assert list(journals.iterdir()) == []


def test_a_journal_that_was_not_adopted_holds_up_no_other(journals: Path) -> None:
    dead(journals, "one")
    dead(journals, "two")
    ears = Ears(away=1)

    assert sweep(journals, lambda *_: None, ears) == 6
    assert [each.name for each in journals.iterdir()] == ["one"]


def test_a_folder_that_vanishes_meanwhile_is_no_trouble(journals: Path) -> None:
    dead(journals, "one")
    lock = hold(journals / "one")
    assert sweep(journals, lambda *_: None) == 0
    os.close(lock)


def test_no_journal_at_all_is_no_trouble(tmp_path: Path) -> None:
    assert sweep(tmp_path / "none", lambda *_: None) == 0


def test_journals_tell_the_oldest_that_may_be_left_to_book(journals: Path) -> None:
    for name, started_at_us in (("one", AT_US + 5), ("two", AT_US), ("done", AT_US - 9)):
        made = Journal(journals / name, max_bytes=1 << 20, segment_bytes=1 << 16)
        made.open(opened(started_at_us=started_at_us))
        made.open(opened(started_at_us=AT_US + 99))
        made.close(is_booked=name == "done")

    assert oldest_us(journals) == AT_US


def test_a_later_segment_tells_too_where_the_first_is_damaged(journals: Path) -> None:
    made = Journal(journals / "one", max_bytes=1 << 20, segment_bytes=1 << 16)
    made.open(opened(started_at_us=AT_US))
    made.turn()
    made.open(opened(started_at_us=AT_US + 5))
    made.close()
    with made.segments[0].path.open("r+b") as file:
        file.write(b"\xff" * 64)

    assert oldest_us(journals) == AT_US + 5


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (Refusals("0199", AT_US + 1, ()), AT_US + 1),
        (Released("0199", AT_US + 2), AT_US + 2),
        (dispatched(opened(), started_at_us=AT_US + 3), AT_US + 3),
        (settled(opened(started_at_us=AT_US + 4)), AT_US + 4),
    ],
)
def test_every_record_has_its_moment(journals: Path, record: Record, expected: int) -> None:
    path = journals / "one" / "00000001.seg"
    path.parent.mkdir(parents=True)
    payload = msgspec.msgpack.encode(record)
    path.write_bytes(HEAD.pack(len(payload), zlib.crc32(payload)) + payload)

    assert oldest_us(journals) == expected


def test_journals_with_nothing_in_them_tell_nothing(journals: Path) -> None:
    assert oldest_us(journals) is None
    Journal(journals / "idle", max_bytes=1 << 20, segment_bytes=1 << 16).close()
    assert oldest_us(journals) is None
