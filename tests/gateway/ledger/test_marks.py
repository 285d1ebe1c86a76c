"""Marks: what is behind, what must not be read, and what is worked out together."""

import pytest

from gateway.ledger import marks
from gateway.ledger.cover import DAY, MINUTE, QUARTER
from gateway.ledger.marks import AGAIN, UNBUILT, Bucket
from gateway.ledger.measuring import Span, moment_of
from gateway.models import Stale

MIDNIGHT = 20_000 * DAY


@pytest.mark.parametrize(
    ("pairs", "spans"),
    [
        ([], []),
        ([(7, 1), (8, 1), (10, 1)], [Span(10, 11, (1,)), Span(7, 9, (1,))]),
        ([(14, 1), (15, 1)], [Span(14, 16, (1,))]),
        ([(59, 1), (60, 1)], [Span(60, 61, (1,)), Span(59, 60, (1,))]),
        ([(7, 1), (8, 1), (7, 2), (8, 2), (8, 3)], [Span(8, 9, (3,)), Span(7, 9, (1, 2))]),
        ([(7, team) for team in range(60)], [Span(7, 8, tuple(range(50))), Span(7, 8, tuple(range(50, 60)))]),
    ],
)
def test_marked_minutes_are_worked_out_in_few_spans(pairs: list[tuple[int, int]], spans: list[Span]) -> None:
    assert marks.spans_of(pairs) == spans


@pytest.mark.django_db
def test_inexact_are_marked_minutes_and_days_that_were_never_worked_out() -> None:
    marks.add(
        [
            Bucket(MINUTE, MIDNIGHT + 5, 1),
            Bucket(MINUTE, MIDNIGHT + 6, 1),
            Bucket(MINUTE, MIDNIGHT + 9, 1),
            Bucket(MINUTE, MIDNIGHT + 7, 2),
            Bucket(UNBUILT, MIDNIGHT + DAY, 1),
            Bucket(AGAIN, MIDNIGHT + 2 * DAY, 1),
            Bucket(QUARTER, MIDNIGHT + 2 * DAY, 1),
        ]
    )

    assert marks.inexact(MIDNIGHT + 6, MIDNIGHT + 3 * DAY, 1) == [
        (MIDNIGHT + 6, MIDNIGHT + 7),
        (MIDNIGHT + 9, MIDNIGHT + 10),
        (MIDNIGHT + DAY, MIDNIGHT + 2 * DAY),
    ]
    assert marks.inexact(MIDNIGHT + DAY + 7, MIDNIGHT + DAY + 9, 1) == [
        (MIDNIGHT + DAY + 7, MIDNIGHT + DAY + 9)
    ]
    assert marks.inexact(MIDNIGHT + 2 * DAY, MIDNIGHT + 3 * DAY, 1) == []


@pytest.mark.django_db
def test_what_must_not_be_read_are_marked_buckets_that_reach_into_a_span() -> None:
    marks.add([Bucket(QUARTER, MIDNIGHT, 1), Bucket(DAY, MIDNIGHT, 1), Bucket(DAY, MIDNIGHT + DAY, 2)])

    assert marks.marks_in(MIDNIGHT + 10, MIDNIGHT + DAY, None) == {(QUARTER, MIDNIGHT), (DAY, MIDNIGHT)}
    assert (DAY, MIDNIGHT) in marks.marks_in(MIDNIGHT + DAY - 1, MIDNIGHT + DAY + 1, [1])
    assert marks.marks_in(MIDNIGHT + DAY, MIDNIGHT + 2 * DAY, [1]) == set()


@pytest.mark.django_db
def test_what_was_never_worked_out_is_behind_too() -> None:
    marks.add(
        [Bucket(MINUTE, MIDNIGHT + 9, 1), Bucket(UNBUILT, MIDNIGHT, 1), Bucket(AGAIN, MIDNIGHT - DAY, 1)]
    )

    assert marks.behind_since([1]) == moment_of(MIDNIGHT)


@pytest.mark.django_db
def test_a_renewed_mark_takes_the_place_of_older_ones() -> None:
    bucket = Bucket(DAY, MIDNIGHT, 1)
    marks.add([bucket, bucket._replace(team_id=2)])
    [old] = marks.ids_of([bucket])

    marks.renew([bucket])

    [new] = marks.ids_of([bucket])
    assert new != old
    assert Stale.objects.count() == 2
    with pytest.raises(marks.Overtaken):
        marks.take([old])
    marks.take([new])
    assert marks.ids_of([bucket]) == []
