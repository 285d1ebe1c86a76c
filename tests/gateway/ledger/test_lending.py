from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as some

from gateway.ledger.cover import DAY, Run
from gateway.ledger.lending import Lent, plan

START = 20_000 * DAY
QUARTERS = some.integers(0, 6 * 96).map(lambda each: START + 15 * each)
MARKS = some.sets(
    some.one_of(
        some.tuples(some.just(DAY), some.integers(0, 6).map(lambda each: START + DAY * each)),
        some.tuples(some.just(15), QUARTERS),
    ),
    max_size=4,
)


def counted(bounds: list[int], marked: set[tuple[int, int]]) -> list[Counter[int]]:
    """How often each minute counts in each span."""
    found = [Counter[int]() for _ in pairwise(bounds)]
    made = plan(bounds, marked)
    for run in made.plain:
        for minute in range(run.start, run.stop):
            found[[first <= minute < last for first, last in pairwise(bounds)].index(True)][minute] += 1
    for run in made.days:
        for minute in range(run.start, run.stop):
            found[made.lent[minute // DAY].whole][minute] += 1
    for run in made.parts:
        for minute in range(run.start, run.stop):
            lent = made.lent[minute // DAY]
            found[lent.part][minute] += 1
            found[lent.whole][minute] -= 1
    return found


@given(some.sets(QUARTERS, min_size=2, max_size=9).map(sorted), MARKS)
def test_every_minute_counts_once_in_its_span_and_in_no_other(
    bounds: list[int], marked: set[tuple[int, int]]
) -> None:
    for counts, (first, last) in zip(counted(bounds, marked), pairwise(bounds), strict=True):
        assert +counts == Counter(range(first, last))
        assert not -counts


@given(some.sets(QUARTERS, min_size=2, max_size=9).map(sorted), MARKS)
def test_no_bucket_with_a_mark_is_read(bounds: list[int], marked: set[tuple[int, int]]) -> None:
    made = plan(bounds, marked)

    for run in (*made.plain, *made.days, *made.parts):
        assert not [each for each in marked if each[0] == run.size and run.start <= each[1] < run.stop]


def test_a_day_is_given_to_the_span_that_has_more_of_it() -> None:
    evening = [START + 22 * 60 + DAY * each for each in range(4)]
    morning = [START + 5 * 60 + DAY * each for each in range(4)]

    east, west = plan(evening, set()), plan(morning, set())

    first = START // DAY
    assert east.lent == {first + 1: Lent(0, 1), first + 2: Lent(1, 2)}
    assert west.lent == {first + 1: Lent(1, 0), first + 2: Lent(2, 1)}
    assert east.days == [Run(DAY, START + DAY, START + 3 * DAY)]
    assert sum(run.stop - run.start for run in east.parts) == 2 * 2 * 60


class Read(list[tuple[int, int]]):
    """Marks that count how often they are all read."""

    times = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        self.times += 1
        return super().__iter__()


def test_marks_are_read_as_often_for_many_spans_as_for_one() -> None:
    marked, times = Read([(15, START), (DAY, START + DAY)]), []

    for spans in (1, 50):
        plan([START + 90 * each for each in range(spans + 1)], marked)
        times.append(marked.times)

    assert times[1] == 2 * times[0]


def test_spans_of_whole_days_in_utc_lend_nothing() -> None:
    made = plan([START, START + DAY, START + 3 * DAY], set())

    assert made.plain == [Run(DAY, START, START + 3 * DAY)]
    assert not made.lent
