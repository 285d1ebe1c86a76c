"""Rollups are what a naive sum over the ledger gives, whatever came in which order."""

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from django.db import connection, transaction
from django.db.models import Sum
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from accounts.models import ApiKey, Team
from gateway.ledger import marks, rebuilding, rollups, spending
from gateway.ledger.cover import DAY, MINUTE, QUARTER, floor
from gateway.ledger.marks import Bucket
from gateway.ledger.measuring import minute_of, moment_of
from gateway.ledger.reading import one_view
from gateway.ledger.writer import book
from gateway.models import (
    Attempt,
    Correction,
    Entry,
    Kept,
    RefusalCount,
    Repricing,
    Rollup,
    Stale,
    TagName,
    TagRollup,
)
from gateway.relay.records import AttemptEnded, Refusals, RefusedCount, Settled, Usage, total_of
from tests.gateway.ledger import naive
from tests.gateway.records import AT_US, opened, settled

pytestmark = pytest.mark.django_db(transaction=True)

AT = datetime.fromtimestamp(AT_US / 1e6, UTC)
AT_MINUTE = minute_of(AT)
MIDNIGHT = floor(AT_MINUTE, DAY)
LATER = AT + timedelta(days=10)
"""When all days of these tests are over."""
TEAMS = (1, 2)
OFFSETS = (0, 1, 13, 14, 15, 16, 700, DAY - 1, DAY, DAY + 1, 2 * DAY + 500)
"""Minutes after midnight, where buckets meet."""


@pytest.fixture
def team() -> Team:
    return Team.objects.create(name="Tide", slug="tide")


@pytest.fixture
def call(team: Team) -> dict[str, Any]:
    key = ApiKey.objects.create(team=team, name="alice's")
    return {"team_id": team.pk, "key_id": key.pk}


def at(minute: int) -> dict[str, int]:
    """Some way into that minute."""
    return {"started_at_us": minute * 60_000_000 + 59_999_700}


def begin_anew() -> None:
    """Hypothesis tries many ledgers within one test."""
    for each in (Entry, Attempt, Correction, Repricing, RefusalCount, Rollup, TagRollup, TagName, Stale):
        each.objects.all().delete()
    for pk in TEAMS:
        Team.objects.get_or_create(pk=pk, defaults={"name": f"Team {pk}", "slug": f"team-{pk}"})
    TagName.objects.create(team_id=1, name="env")


def test_a_marked_minute_is_worked_out(call: dict[str, Any]) -> None:
    book([settled(opened(**call)), settled(opened(**call))])

    assert rollups.work(AT)

    [row] = Rollup.objects.filter(size=MINUTE)
    assert (row.start, row.calls, row.target, row.cost_nanos) == (AT_MINUTE, 2, "openai/gpt-4o", 45_000)


def test_quarter_hours_and_days_are_worked_out_when_they_are_over(call: dict[str, Any]) -> None:
    book([settled(opened(**call))])

    rollups.work(AT)
    assert set(Rollup.objects.values_list("size", flat=True)) == {MINUTE}

    rollups.work(moment_of(floor(AT_MINUTE, QUARTER) + QUARTER))
    assert set(Rollup.objects.values_list("size", flat=True)) == {MINUTE, QUARTER}

    rollups.work(moment_of(MIDNIGHT + DAY))
    assert sorted(Rollup.objects.values_list("size", "calls")) == [(1, 1), (15, 1), (1440, 1)]
    assert not Stale.objects.exists()


def test_tokens_and_cost_are_at_the_target_of_their_attempt(call: dict[str, Any]) -> None:
    made = settled(opened(**call))
    [second] = made.attempts
    first = msgspec.structs.replace(
        second, provider="azure", outcome="failed", usage=Usage(3, 0, 0, "estimated"), cost_nanos=500
    )
    second = msgspec.structs.replace(second, attempt_no=2)
    both = Usage(second.usage.input_tokens + 3, second.usage.output_tokens, 0, "estimated")
    book([msgspec.structs.replace(made, attempts=(first, second), usage=both, cost_nanos=23_000)])

    rollups.work(AT)

    rows = Rollup.objects.values_list("target", "calls", "attempts", "input_tokens", "cost_nanos")
    assert sorted(rows) == [("azure/gpt-4o", 0, 1, 3, 500), ("openai/gpt-4o", 1, 1, 10, 22_500)]


def test_an_entry_of_an_older_version_is_at_the_target_of_its_last_attempt(call: dict[str, Any]) -> None:
    book([settled(opened(**call))])
    Entry.objects.update(target="", attempts_made=0)

    rollups.work(AT)

    assert Rollup.objects.get().target == "openai/gpt-4o"
    assert Rollup.objects.get().attempts == 1


def test_the_latency_of_an_abandoned_call_is_not_known(call: dict[str, Any]) -> None:
    book([settled(opened(**call), outcome="abandoned")])

    rollups.work(AT)

    row = Rollup.objects.get()
    assert (row.calls, row.latency_us, bytes(row.latency)) == (1, 0, b"")


def test_coarse_buckets_are_marked_once_however_often_a_minute_is_worked_out(call: dict[str, Any]) -> None:
    for _ in range(3):
        book([settled(opened(**call))])
        rollups.work(AT)

    assert sorted(Stale.objects.values_list("size", flat=True)) == [QUARTER, DAY]


def test_what_is_behind_is_told_by_its_oldest_minute(team: Team, call: dict[str, Any]) -> None:
    book([settled(opened(**call, **at(AT_MINUTE + 1))), settled(opened(**call, **at(AT_MINUTE)))])
    assert rollups.behind_since([team.pk]) == moment_of(AT_MINUTE)
    assert rollups.behind_since(None) == moment_of(AT_MINUTE)
    assert rollups.behind_since([team.pk + 1]) is None

    rollups.work(AT)
    assert rollups.behind_since(None) is None
    assert rollups.marks_in(AT_MINUTE, AT_MINUTE + 1, [team.pk]) == {
        (QUARTER, floor(AT_MINUTE, QUARTER)),
        (DAY, MIDNIGHT),
    }
    assert rollups.marks_in(AT_MINUTE, AT_MINUTE + 1, [team.pk + 1]) == set()


def test_whoever_comes_second_undoes_the_work_that_was_done(call: dict[str, Any]) -> None:
    book([settled(opened(**call))])
    rollups.work(AT)
    book([settled(opened(**call))])
    ids = list(Stale.objects.filter(size=MINUTE).values_list("pk", flat=True))
    rollups.work(AT)

    with pytest.raises(marks.Overtaken):
        rollups._write(rollups.Draft(marks=ids, replaced={Bucket(MINUTE, AT_MINUTE, call["team_id"])}))

    assert Rollup.objects.get().calls == 2


@pytest.fixture
def deleted_until() -> int:
    """The ledger's calls of before this minute were deleted."""
    Kept.objects.create(pk=1, from_minute=AT_MINUTE)
    return AT_MINUTE


def calls_by_size() -> dict[int, int]:
    sums = Rollup.objects.order_by().values_list("size").annotate(sum=Sum("calls"))
    return dict(sums)


def test_a_call_that_comes_while_older_ones_are_moved_is_moved_after_them(
    call: dict[str, Any], deleted_until: int
) -> None:
    book([settled(opened(**call, **at(deleted_until - 10)))])
    with one_view():
        draft = rollups._minutes(AT_MINUTE)
    assert draft is not None
    book([settled(opened(**call, **at(deleted_until - 10)))])

    with pytest.raises(marks.Overtaken):
        rollups._write(draft)
    assert (Entry.objects.count(), calls_by_size()) == (2, {})

    assert rollups.work(AT)
    assert (Entry.objects.count(), calls_by_size()) == (0, {MINUTE: 2, QUARTER: 2, DAY: 2})


@pytest.mark.parametrize(
    ("began", "ended"),
    [(timedelta(0), timedelta(minutes=1)), (timedelta(hours=23), timedelta(days=2))],
    ids=["of the call's time", "of attempts that the call may have had later"],
)
def test_a_late_call_is_not_moved_while_prices_of_its_time_are_worked_on(
    call: dict[str, Any], deleted_until: int, began: timedelta, ended: timedelta
) -> None:
    of_call = moment_of(deleted_until - 10)
    late = Repricing.objects.create(
        target_id=7, from_at=of_call + began, until_at=of_call + ended, cause="late"
    )
    book([settled(opened(**call, **at(deleted_until - 10)))])

    assert rollups.work(AT, budget_s=60)
    assert (Entry.objects.count(), calls_by_size()) == (1, {})

    late.finished_at = AT
    late.save()
    assert rollups.work(AT)
    assert (Entry.objects.count(), calls_by_size()) == (0, {MINUTE: 1, QUARTER: 1, DAY: 1})


def test_prices_of_another_time_keep_no_late_call_from_being_moved(
    call: dict[str, Any], deleted_until: int
) -> None:
    of_call = moment_of(deleted_until - 10)
    before, after = of_call - timedelta(days=2), of_call + timedelta(days=2)
    for start, end in ((before, of_call), (after, after + timedelta(days=1))):
        Repricing.objects.create(target_id=7, from_at=start, until_at=end, cause="late")
    book([settled(opened(**call, **at(deleted_until - 10)))])

    assert rollups.work(AT)

    assert Entry.objects.count() == 0


def test_a_clock_that_jumped_ahead_leaves_buckets_that_are_worked_out_when_it_is_time(
    call: dict[str, Any],
) -> None:
    ahead = AT_MINUTE + 40 * DAY
    book([settled(opened(**call, **at(ahead)))])

    assert rollups.work(AT)
    assert naive.found() == naive.expected([MINUTE])

    rollups.work(moment_of(ahead + 2 * DAY))
    assert naive.found() == naive.expected()


def test_what_was_on_the_ledger_before_there_were_rollups_is_worked_out(call: dict[str, Any]) -> None:
    book([settled(opened(**call, **at(AT_MINUTE - each))) for each in (0, 1, 20, 3 * DAY)])
    Stale.objects.all().delete()

    assert rollups.work(LATER)

    assert naive.found() == naive.expected()
    assert not Stale.objects.exists()


# Any order

amounts = st.integers(0, 9)
bases = st.sampled_from(["reported", "estimated", "none"])


@st.composite
def attempts(draw: st.DrawFn, number: int) -> AttemptEnded:
    usage = Usage(*(draw(amounts) for _ in range(3)), draw(bases), *(draw(amounts) for _ in range(4)))
    price_id = draw(st.sampled_from([3, None]))
    return AttemptEnded(
        number,
        7,
        draw(st.sampled_from(["openai", "azure"])),
        "gpt-4o",
        "answered",
        200,
        AT_US,
        1000,
        None,
        usage,
        price_id,
        0 if price_id is None else draw(st.integers(0, 10**6)),
        queued_us=draw(amounts),
    )


@st.composite
def calls(draw: st.DrawFn) -> Settled:
    tried = tuple(draw(attempts(number)) for number in range(1, draw(st.integers(0, 3)) + 1))
    basis = tried[0].usage.basis if len(tried) == 1 else draw(bases)
    name = draw(st.sampled_from(["", "prod", "x" * 300, "x" * 299]))
    made = opened(
        **at(MIDNIGHT + draw(st.sampled_from(OFFSETS))),
        team_id=draw(st.sampled_from(TEAMS)),
        key_id=draw(st.integers(1, 2)),
        simulated=draw(st.booleans()),
        tags={"env": name, "other": "1"} if name else None,
    )
    return settled(
        made,
        outcome=draw(st.sampled_from(["answered", "failed", "abandoned"])),
        priority=draw(st.sampled_from(["urgent", "batch"])),
        latency_us=draw(st.integers(0, 10**8)),
        first_token_us=draw(st.none() | st.integers(0, 10**6)),
        usage=total_of([each.usage for each in tried], basis),
        cost_nanos=sum(each.cost_nanos for each in tried),
        unpriced=any(each.price_id is None for each in tried),
        attempts=tried,
    )


@st.composite
def refusals(draw: st.DrawFn) -> Refusals:
    counts = [
        RefusedCount(
            MIDNIGHT + draw(st.sampled_from(OFFSETS)),
            draw(st.sampled_from(TEAMS)),
            1,
            draw(st.sampled_from(["gpt-4o", "o1"])),
            "rate_limit_exceeded",
            "normal",
            draw(st.integers(1, 5)),
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    return Refusals(str(uuid.uuid4()), AT_US, tuple(counts))


def correct(place: int, change: int) -> None:
    """As a late price does: the changes of one of the booked attempts, with its mark."""
    found = list(Attempt.objects.select_related("entry").order_by("pk"))
    if not found:
        return
    attempt = found[place % len(found)]
    entry = attempt.entry
    with transaction.atomic():
        Correction.objects.create(
            call_id=entry.pk,
            attempt_no=attempt.attempt_no,
            repricing=Repricing.objects.create(
                target_id=7, from_at=AT, until_at=AT, finished_at=AT, cause="x"
            ),
            team_id=entry.team_id,
            started_at=entry.started_at,
            before_nanos=attempt.cost_nanos,
            after_nanos=attempt.cost_nanos + change,
            prices=attempt.price_id is None,
            price="",
        )
        marks.add([marks.Bucket(MINUTE, minute_of(entry.started_at), entry.team_id)])


def step(hours: int) -> None:
    """One transaction of the job, with a clock that may stand anywhere."""
    rebuilding.begin()
    rollups._step(MIDNIGHT + hours * 60)


Batch = tuple[list[Settled], list[Refusals]]


def play(pool: Batch, moves: list[tuple[str, int, int]], check: Callable[[], None]) -> None:
    """Do these one after the other; what is booked may have been booked before."""
    settled_calls, refused = pool
    for what, place, amount in moves:
        if what == "book":
            start = place % max(len(settled_calls), 1)
            book(settled_calls[start : start + amount], refused[place % 3 : place % 3 + 1])
        elif what == "correct":
            correct(place, amount - 5)
        elif what == "forget":  # as code of an older version would have booked
            Entry.objects.filter(team_id=1).update(target="", attempts_made=0)
        else:
            step(place)
        check()


pools = st.tuples(st.lists(calls(), min_size=1, max_size=8), st.lists(refusals(), max_size=3))
moves = st.lists(
    st.tuples(
        st.sampled_from(["book", "book", "correct", "step", "step", "step", "forget"]),
        st.integers(0, 80),
        st.integers(1, 8),
    ),
    min_size=1,
    max_size=14,
)
some = examples(
    max_examples=25,
    deadline=None,
    phases=[Phase.generate],  # each try is a database's work: a smaller example would take minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@some
@given(pools, moves)
def test_rollups_are_a_naive_sum_in_any_order_with_duplicates_and_late_ones(
    pool: Batch, moves: list[tuple[str, int, int]]
) -> None:
    begin_anew()

    play(pool, moves, lambda: None)
    assert rollups.work(LATER)

    assert naive.found() == naive.expected()
    assert naive.found_of_tags() == naive.expected_of_tags()
    assert not Stale.objects.exists()


def booked(team_id: int, key_id: int | None, start: int, stop: int) -> spending.Used:
    """One by one."""
    found = Entry.objects.filter(
        team_id=team_id, started_at__gte=moment_of(start), started_at__lt=moment_of(stop)
    )
    total = spending.Used()
    for entry in found if key_id is None else found.filter(key_id=key_id):
        changes = sum(
            each.after_nanos - each.before_nanos for each in Correction.objects.filter(call_id=entry.pk)
        )
        tokens = entry.input_tokens + entry.output_tokens
        total += spending.Used(1, tokens, entry.cost_nanos + changes)
    return total


@some
@given(pools, moves, st.sampled_from(OFFSETS), st.sampled_from(OFFSETS))
def test_what_quotas_count_is_exact_at_any_moment_of_the_job(
    pool: Batch, moves: list[tuple[str, int, int]], first: int, last: int
) -> None:
    begin_anew()
    start, stop = MIDNIGHT + min(first, last), MIDNIGHT + max(first, last) + 1

    def check() -> None:
        for team_id, key_id in ((1, None), (2, None), (1, 1), (2, 2)):
            assert spending.used(team_id, key_id, start, stop) == booked(team_id, key_id, start, stop)

    play(pool, moves, check)
    rollups.work(LATER)
    check()


def test_what_quotas_count_does_not_look_at_entries_where_rollups_tell(
    team: Team, call: dict[str, Any]
) -> None:
    book([settled(opened(**call))])
    rollups.work(LATER)

    with CaptureQueriesContext(connection) as queries:
        assert spending.used(team.pk, None, MIDNIGHT - 30 * DAY, MIDNIGHT + 30 * DAY).requests == 1

    assert not [each["sql"] for each in queries if "gateway_entry" in each["sql"]]
    assert len(queries) <= 6


def in_threads(*jobs: Callable[[], None]) -> None:
    """All at once, until each is done; what one raises is raised."""

    def run(job: Callable[[], None]) -> None:
        try:
            job()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(jobs)) as threads:
        for each in [threads.submit(run, job) for job in jobs]:
            each.result()


def test_two_workers_beside_two_writers_and_a_quota_lose_nothing(team: Team, call: dict[str, Any]) -> None:
    batches = [
        [settled(opened(**call, **at(MIDNIGHT + place % 40))) for place in range(start, start + 20)]
        for start in range(0, 600, 20)
    ]
    done = threading.Event()
    seen: list[int] = []

    def write(mine: list[list[Settled]]) -> None:
        for each in mine:
            book(each)

    def write_all() -> None:
        in_threads(lambda: write(batches[::2]), lambda: write(batches[1::2]))
        done.set()

    def roll_up() -> None:
        while not done.is_set():
            rollups.work(LATER)

    def ask() -> None:
        while not done.is_set():
            with one_view():
                seen.append(spending.used(team.pk, None, MIDNIGHT, MIDNIGHT + DAY).requests)

    in_threads(write_all, roll_up, roll_up, ask)
    assert rollups.work(LATER)

    assert seen == sorted(seen), "nothing that was counted is missing later"
    assert naive.found() == naive.expected()
    assert not Stale.objects.exists()
