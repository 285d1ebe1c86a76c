"""Refusals are added up, written down once a second, and booked once."""

from dataclasses import dataclass, field

import msgspec
import pytest

from gateway.errors import JournalFull
from gateway.ledger.writer import book
from gateway.models import Refusal, RefusalCount, Stale
from gateway.refusals import MOST_COUNTS, MOST_EXPLAINED, MOST_TEAMS, RefusalRecorder
from gateway.relay.records import Refusals, RefusedCount, Seen
from tests.gateway.records import AT_US, refused
from tests.gateway.relay.carried import Books

MINUTE = AT_US // 60_000_000


@dataclass
class Paper:
    """A journal that takes what it is given, while it is not full."""

    records: list[Refusals] = field(default_factory=list)
    full: bool = False

    def note(self, record: Refusals, /) -> None:
        if self.full:
            raise JournalFull
        self.records.append(record)

    @property
    def calls(self) -> int:
        return sum(each.calls for record in self.records for each in record.counts)


@pytest.fixture
def paper() -> Paper:
    return Paper()


@pytest.fixture
def floor() -> Books:
    return Books()


@pytest.fixture
def recorder(floor: Books, paper: Paper) -> RefusalRecorder:
    return RefusalRecorder(floor, paper, lambda: AT_US * 1000)


def test_refusals_that_are_alike_are_one_count(recorder: RefusalRecorder, paper: Paper) -> None:
    for _ in range(3):
        recorder.refused(refused())
    recorder.refused(refused(key_id=2))
    recorder.write_down()

    [record] = paper.records
    assert record.counts == (
        RefusedCount(MINUTE, 1, 1, "gpt-4o", "overloaded", "normal", 3),
        RefusedCount(MINUTE, 1, 2, "gpt-4o", "overloaded", "normal", 1),
    )
    assert len(record.samples) == 4


def test_each_is_handed_on(recorder: RefusalRecorder, floor: Books) -> None:
    call = refused()
    recorder.refused(call)
    assert floor.refused_calls == [call]


def test_nothing_is_written_where_nothing_was_refused(recorder: RefusalRecorder, paper: Paper) -> None:
    recorder.refused(refused())
    recorder.write_down()
    recorder.write_down()
    assert len(paper.records) == 1


def test_names_that_anybody_can_make_up_do_not_multiply_counts(
    recorder: RefusalRecorder, paper: Paper
) -> None:
    for number in range(50):
        recorder.refused(refused(route=f"made-up-{number}", code="model_not_found"))
    recorder.write_down()

    [record] = paper.records
    [count] = record.counts
    assert (count.route, count.calls) == ("", 50)
    assert record.samples[7].route == "made-up-7"


def test_only_the_last_of_a_team_are_explained(recorder: RefusalRecorder, paper: Paper) -> None:
    calls = [refused() for _ in range(MOST_EXPLAINED + 10)]
    for each in calls:
        recorder.refused(each)
    for team_id in range(2, MOST_TEAMS + 9):
        recorder.refused(refused(team_id=team_id))
    recorder.write_down()

    [record] = paper.records
    assert [each for each in record.samples if each.team_id == 1] == calls[10:]
    assert {each.team_id for each in record.samples} == set(range(1, MOST_TEAMS + 1))
    assert paper.calls == MOST_EXPLAINED + 10 + MOST_TEAMS + 7


def test_a_full_journal_gets_them_later(recorder: RefusalRecorder, paper: Paper) -> None:
    paper.full = True
    recorder.refused(refused())
    recorder.write_down()
    recorder.refused(refused())
    paper.full = False
    recorder.write_down()

    assert paper.calls == 2
    assert len(paper.records[0].samples) == 2


def test_a_record_has_a_bounded_size(recorder: RefusalRecorder, paper: Paper) -> None:
    for key_id in range(MOST_COUNTS + 1):
        recorder.refused(refused(key_id=key_id))
    recorder.write_down()

    assert [len(each.counts) for each in paper.records] == [MOST_COUNTS, 1]
    assert [bool(each.samples) for each in paper.records] == [True, False]
    assert len({each.batch_id for each in paper.records}) == 2


@pytest.mark.django_db(transaction=True)
def test_they_are_booked_once_with_their_reasons(recorder: RefusalRecorder, paper: Paper) -> None:
    limit = Seen("key", "requests", "minute", 100, 100, 1)
    call = refused(limits=(limit,), message="too many")
    recorder.refused(call)
    recorder.refused(refused(team_id=2))
    recorder.write_down()

    book([], paper.records)
    book([], paper.records)

    assert [(each.team_id, each.minute, each.calls) for each in RefusalCount.objects.order_by("number")] == [
        (1, MINUTE, 1),
        (2, MINUTE, 1),
    ]
    row = Refusal.objects.get(pk=call.call_id)
    assert (row.message, row.status, row.code) == ("too many", 503, "overloaded")
    assert msgspec.convert(row.facts["limits"], tuple[Seen, ...]) == (limit,)
    assert set(Stale.objects.values_list("size", "start", "team_id")) == {(1, MINUTE, 1), (1, MINUTE, 2)}
