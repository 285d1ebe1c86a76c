from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.cover import DAY, MINUTE, QUARTER, Run, cover, floor

MIDNIGHT = 20_000 * DAY
moments = st.integers(MIDNIGHT, MIDNIGHT + 5 * DAY)
marks = st.sets(
    st.one_of(
        st.tuples(st.just(QUARTER), st.integers(0, 480).map(lambda place: MIDNIGHT + place * QUARTER)),
        st.tuples(st.just(DAY), st.integers(0, 5).map(lambda place: MIDNIGHT + place * DAY)),
    )
)


def test_a_whole_year_is_one_run_of_days() -> None:
    assert cover(MIDNIGHT, MIDNIGHT + 365 * DAY, set()) == (Run(DAY, MIDNIGHT, MIDNIGHT + 365 * DAY),)


def test_the_edges_of_a_span_are_finer() -> None:
    start, stop = MIDNIGHT - QUARTER - 2, MIDNIGHT + DAY + QUARTER + 1

    assert cover(start, stop, set()) == (
        Run(MINUTE, start, start + 2),
        Run(QUARTER, start + 2, MIDNIGHT),
        Run(DAY, MIDNIGHT, MIDNIGHT + DAY),
        Run(QUARTER, MIDNIGHT + DAY, MIDNIGHT + DAY + QUARTER),
        Run(MINUTE, MIDNIGHT + DAY + QUARTER, stop),
    )


def test_a_marked_day_is_its_quarter_hours() -> None:
    noon = MIDNIGHT + DAY // 2

    assert cover(MIDNIGHT, MIDNIGHT + 2 * DAY, {(DAY, MIDNIGHT), (QUARTER, noon)}) == (
        Run(QUARTER, MIDNIGHT, noon),
        Run(MINUTE, noon, noon + QUARTER),
        Run(QUARTER, noon + QUARTER, MIDNIGHT + DAY),
        Run(DAY, MIDNIGHT + DAY, MIDNIGHT + 2 * DAY),
    )


def test_a_mark_at_a_minute_does_not_matter() -> None:
    assert cover(MIDNIGHT, MIDNIGHT + DAY, {(MINUTE, MIDNIGHT + 7)}) == (Run(DAY, MIDNIGHT, MIDNIGHT + DAY),)


def test_nothing_covers_an_empty_span() -> None:
    assert cover(MIDNIGHT, MIDNIGHT, set()) == ()
    assert cover(MIDNIGHT + 1, MIDNIGHT, set()) == ()


@given(moments, moments, marks)
def test_runs_cover_each_minute_once_and_stand_on_whole_buckets_without_a_mark(
    start: int, stop: int, marked: set[tuple[int, int]]
) -> None:
    runs = cover(start, stop, marked)

    assert [minute for run in runs for minute in range(run.start, run.stop)] == list(range(start, stop))
    for run in runs:
        assert run.start == floor(run.start, run.size)
        assert run.stop == floor(run.stop, run.size)
        assert not marked & {(run.size, each) for each in range(run.start, run.stop, run.size)}


@given(moments, moments, marks)
def test_no_coarser_bucket_would_do(start: int, stop: int, marked: set[tuple[int, int]]) -> None:
    for run in cover(start, stop, marked):
        for size in (QUARTER, DAY):
            if run.size < size:
                for minute in range(run.start, run.stop):
                    place = floor(minute, size)
                    whole = start <= place and place + size <= stop
                    assert not whole or (size, place) in marked
