"""Deleting what is old, as far as rollups tell of it: sums stay for ever.

In short transactions that each say how far the ledger goes back now. Nothing is deleted of a time
that has a mark: what it adds up to is not in the rollups yet. Nor of a time of which a process may still
book a call, or may book one again: the ledger takes a call once by its id, which it must have for that.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import Min, QuerySet

from accounts.models import Team
from gateway.ledger import partitions
from gateway.ledger.cover import DAY, MINUTE, QUARTER, floor
from gateway.ledger.marks import AGAIN, UNBUILT
from gateway.ledger.measuring import minute_of, moment_of
from gateway.ledger.repricing import LONGEST_CALL
from gateway.models import (
    Attempt,
    Correction,
    Entry,
    Kept,
    Refusal,
    RefusalCount,
    Repricing,
    Rollup,
    Stale,
    TagName,
    TagRollup,
)
from gateway.patience import is_postgresql, with_short_locks

BUDGET_S = 5.0
"""Of one run; the next one goes on."""
MOST_ROWS = 2000
"""Deleted in one transaction, unless a single quarter-hour has more; some 50 ms of SQLite's write lock."""
MOST_TEAMS = 500
REFUSALS_KEPT = 1000
"""Explained refusals of each team."""


_LINGERS = 2 * LONGEST_CALL
"""How much longer than asked for calls stay: a process that is killed has its journal booked again.

A call in it may have ended so long after it began, and lies there while a call beside it is open for as long.
That the journal turns but once an hour is covered by the day that calls are kept at least.
"""


class Unworked(Exception):
    """A mark is in the way: its time is not in the rollups yet."""


def kept_from() -> int:
    """The first minute of which the ledger has all calls; 0: nothing was ever deleted."""
    return Kept.objects.values_list("from_minute", flat=True).first() or 0


def retain(
    now: datetime,
    *,
    entries_days: int,
    minutes_days: int,
    journals_from_us: int | None = None,
    budget_s: float = BUDGET_S,
) -> None:
    """Delete calls and minute rollups of before so many days, and all but the newest explained refusals.

    0 days of calls: they are kept for ever; else some days longer, so that none is booked twice.
    `journals_from_us`: when the oldest was written that journals on this host may have left to book.
    Goes on where the last run ended. Raises DatabaseError.
    """
    ends = time.monotonic() + budget_s
    until = calls_until(now, entries_days, journals_from_us)
    for _ in _transactions(until, floor(minute_of(now) - minutes_days * DAY, DAY)):
        if time.monotonic() > ends:
            return


def calls_until(now: datetime, days: int, journals_from_us: int | None) -> int:
    """The minute before which calls may go: that of a midnight in UTC; 0: none may."""
    if not days:
        return 0
    until = now - timedelta(days=days) - _LINGERS
    if journals_from_us is not None:
        until = min(until, datetime.fromtimestamp(journals_from_us / 1e6, UTC) - LONGEST_CALL)
    return floor(minute_of(until), DAY)


def _transactions(calls_until: int, minutes_until: int) -> Iterator[None]:
    """What is to be done, a transaction at a time."""
    yield from _delete_refusals()
    yield from _delete_minutes(minutes_until)
    if calls_until:
        yield from _delete_entries(calls_until)


def _require_worked(until: int, sizes: Sequence[int]) -> None:
    """Raises Unworked where something of before a minute is marked.

    Asked after the deletion and in its transaction: it sees the mark of whatever was written until then.
    """
    if Stale.objects.filter(size__in=sizes, start__lt=until).exists():
        raise Unworked


# Calls


def delete_calls(start: int, stop: int, team_ids: Iterable[int]) -> None:
    """Those of some minutes, with all that belongs to them, inside the caller's transaction."""
    teams = list(team_ids)
    for some in _by_chunks(teams):
        calls = Entry.objects.filter(team_id__in=some, **_began(start, stop)).order_by()
        _delete(Attempt.objects.filter(entry__in=calls.values("pk")))
        _delete(calls)
    _delete_of_calls(start, stop, teams)


def _delete_of_calls(start: int, stop: int, teams: Sequence[int]) -> None:
    """What belongs to calls and is kept for itself."""
    for some in _by_chunks(teams):
        _delete(Correction.objects.filter(team_id__in=some, **_began(start, stop)))
        _delete(RefusalCount.objects.filter(team_id__in=some, minute__gte=start, minute__lt=stop))


def _began(start: int, stop: int) -> dict[str, datetime]:
    return {"started_at__gte": moment_of(start), "started_at__lt": moment_of(stop)}


def _by_chunks(teams: Sequence[int]) -> Iterator[Sequence[int]]:
    for place in range(0, len(teams), MOST_TEAMS):
        yield teams[place : place + MOST_TEAMS]


def _delete(rows: QuerySet[Any]) -> int:
    """By one statement, without looking for what refers to them; gives how many there were."""
    return int(rows._raw_delete(rows.db) or 0)


def _delete_entries(until: int) -> Iterator[None]:
    """From where the ledger begins up to a minute, or up to the first mark."""
    teams = list(Team.objects.values_list("pk", flat=True))
    if is_postgresql():
        yield from _drop_months(until, teams)
    else:
        yield from _delete_spans(until, teams)


def _drop_months(until: int, teams: Sequence[int]) -> Iterator[None]:
    """Whole months, so that the youngest calls that go are some weeks older than they need be."""
    month = partitions.month_of(moment_of(until))
    if any(each.end <= partitions.first_id(month) for each in partitions.parts(partitions.ENTRIES)):
        with contextlib.suppress(Unworked):
            with_short_locks(lambda: _drop_before(month, teams))
            yield


def _drop_before(month: datetime, teams: Sequence[int]) -> None:
    """In a transaction, the locks that hold up others last. Raises Unworked."""
    stop = minute_of(month)
    _delete_of_calls(0, stop, teams)
    with connection.cursor() as cursor:
        cursor.execute(
            f"LOCK TABLE {Attempt._meta.db_table}, {Entry._meta.db_table} IN ACCESS EXCLUSIVE MODE"
        )
    partitions.drop_before(month)
    _keep_from(stop)


def _delete_spans(until: int, teams: Sequence[int]) -> Iterator[None]:
    def count(start: int, stop: int) -> int:
        return (
            Entry.objects.filter(team_id__in=teams, **_began(start, stop)).order_by()[: MOST_ROWS + 1].count()
        )

    for _, stop in _spans(_oldest_call(teams), until, count):
        try:
            _delete_calls_before(stop, teams)
        except Unworked:
            return
        yield


def _oldest_call(teams: Sequence[int]) -> int | None:
    """The minute of the oldest call, let in or refused; None: there is none."""
    found = []
    for each in teams:
        entry = Entry.objects.filter(team_id=each).aggregate(at=Min("started_at"))["at"]
        refusal = RefusalCount.objects.filter(team_id=each).aggregate(minute=Min("minute"))["minute"]
        found += [] if entry is None else [minute_of(entry)]
        found += [] if refusal is None else [refusal]
    return min(found, default=None)


def _delete_calls_before(stop: int, teams: Sequence[int]) -> None:
    """Raises Unworked."""
    with transaction.atomic():
        delete_calls(0, stop, teams)
        _keep_from(stop)


def _keep_from(stop: int) -> None:
    """Raises Unworked."""
    Kept.objects.update_or_create(pk=1, defaults={"from_minute": stop})
    _require_worked(stop, (UNBUILT, MINUTE, AGAIN, QUARTER, DAY))
    # Of attempts from then on; their calls began earlier.
    if Repricing.objects.filter(finished_at=None, from_at__lt=moment_of(stop) + LONGEST_CALL).exists():
        raise Unworked


# Minute rollups


def _delete_minutes(until: int) -> Iterator[None]:
    """The oldest first, whole quarter-hours, up to a minute or the first mark."""
    minutes = Rollup.objects.filter(size=MINUTE)

    def count(start: int, stop: int) -> int:
        return minutes.filter(start__gte=start, start__lt=stop).order_by()[: MOST_ROWS + 1].count()

    oldest = minutes.aggregate(start=Min("start"))["start"]
    for start, stop in _spans(oldest, until, count):
        try:
            _delete_minutes_of(start, stop)
        except Unworked:
            return
        yield


def _delete_minutes_of(start: int, stop: int) -> None:
    """Raises Unworked."""
    span = {"size": MINUTE, "start__gte": start, "start__lt": stop}
    with transaction.atomic():
        _delete(Rollup.objects.filter(**span))
        for team_id, name in TagName.objects.values_list("team_id", "name"):
            _delete(TagRollup.objects.filter(team_id=team_id, name=name, **span))
        _keep_from_marking()
        _require_worked(stop, (UNBUILT, MINUTE, AGAIN, QUARTER))


def _keep_from_marking() -> None:
    """Until the end of the transaction, so that nobody works out a quarter-hour whose minutes go.

    SQLite has one writer at a time anyway.
    """
    if is_postgresql():
        with connection.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {Stale._meta.db_table} IN SHARE MODE")


# Explained refusals


def _delete_refusals() -> Iterator[None]:
    for team_id in Refusal.objects.order_by().values_list("team_id", flat=True).distinct():
        of_team = Refusal.objects.filter(team_id=team_id)
        kept = of_team.order_by("-at", "-pk").values_list("at", flat=True)
        oldest = kept[REFUSALS_KEPT - 1 : REFUSALS_KEPT].first()
        while oldest is not None:
            older = of_team.filter(at__lt=oldest).order_by()[:MOST_ROWS].values("pk")
            with transaction.atomic():
                if not _delete(Refusal.objects.filter(pk__in=older)):
                    break
            yield


# Spans


def _spans(oldest: int | None, until: int, count: Callable[[int, int], int]) -> Iterator[tuple[int, int]]:
    """From the quarter-hour of the oldest on: neighbours of so many quarter-hours that not too many rows
    are in each, and of one where that has more."""
    start, width = until if oldest is None else floor(oldest, QUARTER), DAY
    while start < until:
        rows = count(start, min(start + width, until))
        if rows > MOST_ROWS and width > QUARTER:
            width = max(floor(width // 2, QUARTER), QUARTER)
            continue
        yield start, min(start + width, until)
        start += width
        if rows < MOST_ROWS // 4:
            width = min(width * 2, DAY)
