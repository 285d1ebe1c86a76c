import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Unavailable
from gateway.ledger.journal import Journal, hold
from gateway.ledger.sweeper import ends, sweep
from gateway.relay.records import Settled
from tests.gateway.records import AT_US, WORST, dispatched, opened, settled


def dead(journals: Path, name: str) -> list[Settled]:
    """The journal of a process that died with one call settled, one sent and one just let in."""
    journal = Journal(journals / name, max_bytes=1 << 20, segment_bytes=1 << 16)
    done, sent, fresh = opened(), opened(), opened()
    journal.settle(journal.open(done), settled(done))
    journal.dispatch(journal.open(sent), dispatched(sent))
    journal.open(fresh)
    journal.close()
    return ends([done, settled(done), sent, dispatched(sent), fresh])


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

    assert sweep(journals, booked.extend) == 6
    assert [each.outcome for each in booked] == [each.outcome for each in expected]
    assert list(journals.iterdir()) == []


def test_a_living_process_keeps_its_journal(journals: Path, journal: Journal) -> None:
    journal.open(opened())

    assert sweep(journals, lambda _: None) == 0
    assert journal.folder.exists()


def test_a_journal_that_cannot_be_booked_stays(journals: Path) -> None:
    dead(journals, "one")

    def away(_: list[Settled]) -> None:
        raise ConnectionError("the database is away")

    with pytest.raises(ConnectionError):
        sweep(journals, away)

    booked: list[Settled] = []
    assert sweep(journals, booked.extend) == 3


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

    sweep(journals, booked.extend, lambda process, found: told.append((process, found, list(booked))))

    [(process, found, booked_by_then)] = told
    assert (process, [each.outcome for each in found]) == ("one", expected)
    assert booked_by_then == found


def test_who_adopts_is_told_of_a_process_that_died_without_a_call(journals: Path) -> None:
    Journal(journals / "idle", max_bytes=1 << 20, segment_bytes=1 << 16).close()
    ears = Ears()
    assert sweep(journals, lambda _: None, ears) == 0
    assert ears.told == [("idle", [])]


def test_a_journal_stays_until_it_was_adopted_and_is_told_of_again(journals: Path) -> None:
    dead(journals, "one")
    ears = Ears(away=2)
    booked: list[Settled] = []

    assert [sweep(journals, booked.extend, ears) for _ in range(4)] == [3, 3, 3, 0]

    assert [process for process, _ in ears.told] == ["one"] * 3
    assert ears.told[0] == ears.told[1] == ears.told[2]
    assert booked == ears.told[0][1] * 3
    assert list(journals.iterdir()) == []


def test_a_journal_that_was_not_adopted_holds_up_no_other(journals: Path) -> None:
    dead(journals, "one")
    dead(journals, "two")
    ears = Ears(away=1)

    assert sweep(journals, lambda _: None, ears) == 6
    assert [each.name for each in journals.iterdir()] == ["one"]


def test_a_folder_that_vanishes_meanwhile_is_no_trouble(journals: Path) -> None:
    dead(journals, "one")
    lock = hold(journals / "one")
    assert sweep(journals, lambda _: None) == 0
    os.close(lock)


def test_no_journal_at_all_is_no_trouble(tmp_path: Path) -> None:
    assert sweep(tmp_path / "none", lambda _: None) == 0
