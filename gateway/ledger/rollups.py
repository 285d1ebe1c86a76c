"""Sums of the ledger by minute, quarter-hour and day, worked out where marks ask for it.

    marked minutes: from entries | over quarter-hours: from minutes | over days: from quarter-hours

A minute is worked out at every run, a quarter-hour or day when it is over; each is replaced whole,
so it is all one in which order calls arrive, and how often a run is killed or repeated.
Reads in one view, without SQLite's write lock, and writes in short transactions.
Does not delete what is old, see `retention`, and does not look for what has no mark, see `rebuilding`.
"""

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import connection, transaction
from django.db.models import Model, Q

from gateway import histograms
from gateway.ledger import marks, rebuilding
from gateway.ledger.cover import DAY, MINUTE, QUARTER, floor
from gateway.ledger.marks import Bucket
from gateway.ledger.marks import behind_since as behind_since
from gateway.ledger.marks import marks_in as marks_in
from gateway.ledger.measuring import SUMMED, Key, Measure, Measured, Span, measure, minute_of, moment_of
from gateway.ledger.reading import one_view
from gateway.ledger.repricing import LONGEST_CALL
from gateway.ledger.retention import delete_calls, kept_from
from gateway.models import Repricing, Rollup, Stale, TagName, TagRollup
from gateway.patience import is_postgresql

BUDGET_S = 5.0
"""Of one run; marks that are left are for the next one. Other tasks wait for it in the same worker."""
MOST_MINUTES = 500
"""Marked minutes of teams that are looked at for one transaction."""
MOST_ROWS = 2000
"""Written in one transaction, once there are so many: some 50 ms of SQLite's write lock."""
MOST_READ = 20_000
"""Rows of finer rollups that are put together for one transaction, once there are so many."""
WRITING = 0x726F6C6C
"""PostgreSQL's advisory lock of whoever writes rollups."""
SETTLED_AFTER = DAY
"""Minutes of quarter-hours that are younger are never deleted for their age."""

_FINER = {QUARTER: MINUTE, DAY: QUARTER}
_DIMENSIONS = ("team_id", "start", "key_id", "route", "target", "outcome", "code", "priority")
_COLUMNS = ("size", *_DIMENSIONS, *SUMMED, "latency", "first_token")
_TAG_COLUMNS = (*_COLUMNS, "value", "name")

Tags = Mapping[str, Measured]
"""By tag name."""


@dataclass
class Draft:
    """What one transaction will write."""

    marks: list[int] = field(default_factory=list)
    """Ids of marks that are done with it."""
    replaced: set[Bucket] = field(default_factory=set)
    """Buckets whose rows give way to the new ones."""
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    """In the order of _COLUMNS."""
    tag_rows: list[tuple[Any, ...]] = field(default_factory=list)
    """In the order of _TAG_COLUMNS."""
    renewed: set[Bucket] = field(default_factory=set)
    """Coarser buckets that are to be worked out next."""
    seen: set[int] = field(default_factory=set)
    """Ids of the marks that these had. Whoever changes one of their minutes, marked or not, renews them."""
    moved: list[Span] = field(default_factory=list)
    """Of which the calls are deleted, because they are older than the ledger is kept."""
    tag_names: dict[int, list[str]] = field(default_factory=dict)
    """That the teams of replaced buckets declare."""

    @property
    def full(self) -> bool:
        return len(self.rows) + len(self.tag_rows) >= MOST_ROWS

    def take_in(self, size: int, measured: Measured, tags: Tags) -> None:
        self.rows += _rows(size, measured)
        for name, each in tags.items():
            self.tag_rows += [
                (*row, key.value, name) for key, row in zip(each, _rows(size, each), strict=True)
            ]


def work(now: datetime, *, budget_s: float | None = BUDGET_S) -> bool:
    """Work out what is marked; True: nothing is left that can be done by now. Raises DatabaseError.

    Where there never were rollups, everything that is on the ledger is marked first.
    """
    rebuilding.begin()
    ends = float("inf") if budget_s is None else time.monotonic() + budget_s
    while time.monotonic() < ends:
        if not _step(minute_of(now)):
            return True
    return False


def _step(now: int) -> bool:
    """One transaction, of what matters most; False: there is nothing to do."""
    with one_view():
        draft = _minutes(now) or _coarser(QUARTER, now) or _coarser(DAY, now)
    if draft is None:
        return rebuilding.mark_a_day()
    try:
        _write(draft)
    except marks.Overtaken:
        return True  # its work was done, or is asked for by newer marks
    return True


# Minutes, from entries


def _minutes(now: int) -> Draft | None:
    """The newest first, so that a long backlog does not keep what is looked at now."""
    marked = Stale.objects.filter(size=MINUTE).order_by("-start").values_list("start", "team_id")
    pairs = list(marked.distinct()[:MOST_MINUTES])
    if not pairs:
        return None
    draft, oldest = Draft(), kept_from()
    kept = {pair for pair in pairs if pair[0] >= oldest}
    for each in marks.spans_of(_whole(kept, now, oldest)):
        _measure(draft, each, is_kept=True)
        if draft.full:
            return draft
    for each in marks.spans_of(_priced(set(pairs) - kept)):
        _measure(draft, each, is_kept=False)
    return draft if draft.marks else None


def _priced(pairs: Collection[tuple[int, int]]) -> set[tuple[int, int]]:
    """Those with calls that no price is being worked on for: a correction needs the call's entry."""
    if not pairs:
        return set()
    spans = [
        (minute_of(from_at - LONGEST_CALL), until_at)
        for from_at, until_at in Repricing.objects.filter(finished_at=None).values_list("from_at", "until_at")
    ]
    return {
        (minute, team_id)
        for minute, team_id in pairs
        if not any(first <= minute and moment_of(minute) < until_at for first, until_at in spans)
    }


def _whole(pairs: Collection[tuple[int, int]], now: int, oldest: int) -> set[tuple[int, int]]:
    """With all minutes of old hours: those of a quarter-hour may be deleted and are to be put together again,
    and many at a time are sooner done than each by itself."""
    found = set(pairs)
    old = {(floor(minute, marks.HOUR), team_id) for minute, team_id in pairs if minute < now - SETTLED_AFTER}
    for start, team_id in old:
        found |= {(each, team_id) for each in range(max(start, oldest), start + marks.HOUR)}
    return found


def _measure(draft: Draft, span: Span, *, is_kept: bool) -> None:
    """Work out the minutes of a span, or add what came after the rest of it was deleted."""
    buckets = _buckets_of(span)
    draft.marks += marks.ids_of(buckets)
    names = _tag_names(span.team_ids)
    measured = measure(span)
    tags = {name: measure(span._replace(team_ids=of), name) for name, of in _teams_by_name(names).items()}
    draft.take_in(MINUTE, measured, tags)
    if is_kept:
        draft.replaced.update(buckets)
        draft.tag_names.update(names)
        for size in (QUARTER, DAY):
            starts = range(floor(span.start, size), span.stop, size)
            coarser = {Bucket(size, start, each) for each in span.team_ids for start in starts}
            draft.renewed |= coarser
            draft.seen.update(marks.ids_of(coarser))
        return
    draft.moved.append(span)
    for size in (QUARTER, DAY):
        draft.take_in(
            size, _coarse(size, measured), {name: _coarse(size, each) for name, each in tags.items()}
        )


def _buckets_of(span: Span) -> list[Bucket]:
    return [Bucket(MINUTE, start, each) for each in span.team_ids for start in range(span.start, span.stop)]


def _tag_names(team_ids: Iterable[int]) -> dict[int, list[str]]:
    """That teams declare, by team."""
    found: dict[int, list[str]] = defaultdict(list)
    for team_id, name in TagName.objects.filter(team_id__in=team_ids).values_list("team_id", "name"):
        found[team_id].append(name)
    return dict(found)


def _teams_by_name(names: Mapping[int, Sequence[str]]) -> dict[str, tuple[int, ...]]:
    found: dict[str, list[int]] = defaultdict(list)
    for team_id, of in names.items():
        for name in of:
            found[name].append(team_id)
    return {name: tuple(of) for name, of in found.items()}


def _coarse(size: int, measured: Measured) -> Measured:
    """The same in larger buckets."""
    found: defaultdict[Key, Measure] = defaultdict(Measure)
    for key, each in measured.items():
        found[key._replace(start=floor(key.start, size))].merge(each)
    return found


# Quarter-hours and days, from what is finer


def _coarser(size: int, now: int) -> Draft | None:
    """The oldest of those that are over, and whose parts are worked out."""
    over = Stale.objects.filter(size=size, start__lte=now - size)
    pairs = list(over.order_by("start").values_list("start", "team_id").distinct()[:MOST_MINUTES])
    draft = Draft()
    read = 0
    for start, team_id in pairs:
        if size == DAY and _has_marked_quarters(start, team_id):
            continue
        read += _put_together(draft, Bucket(size, start, team_id))
        if draft.full or read >= MOST_READ:
            break
    return draft if draft.replaced else None


def _has_marked_quarters(start: int, team_id: int) -> bool:
    rows = Stale.objects.filter(size=QUARTER, team_id=team_id, start__gte=start, start__lt=start + DAY)
    return rows.exists()


def _put_together(draft: Draft, bucket: Bucket) -> int:
    """Gives how many rows were read for it."""
    finer = Q(
        size=_FINER[bucket.size],
        team_id=bucket.team_id,
        start__gte=bucket.start,
        start__lt=bucket.start + bucket.size,
    )
    draft.marks += marks.ids_of([bucket])
    draft.replaced.add(bucket)
    draft.tag_names.update(_tag_names([bucket.team_id]))
    names = draft.tag_names.get(bucket.team_id, [])
    wanted = (*_DIMENSIONS, *SUMMED, "latency", "first_token")
    rows = list(Rollup.objects.filter(finer).values_list(*wanted))
    tag_rows = list(TagRollup.objects.filter(finer, name__in=names).values_list(*wanted, "value", "name"))
    tags: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for row in tag_rows:
        tags[row[-1]].append(row[:-1])
    draft.take_in(
        bucket.size,
        _merged(bucket.size, rows),
        {name: _merged(bucket.size, of) for name, of in tags.items()},
    )
    return len(rows) + len(tag_rows)


def _merged(size: int, rows: Iterable[Sequence[Any]]) -> Measured:
    """Rows of dimensions, sums and histograms, with a tag's value or without, in larger buckets."""
    found: defaultdict[Key, Measure] = defaultdict(Measure)
    dimensions, summed = len(_DIMENSIONS), len(_DIMENSIONS) + len(SUMMED)
    for row in rows:
        team_id, start, *others = row[:dimensions]
        into = found[Key(team_id, floor(start, size), *others, *row[summed + 2 :])]
        into.sums = [mine + theirs for mine, theirs in zip(into.sums, row[dimensions:summed], strict=True)]
        histograms.add_packed(into.latency, bytes(row[summed]))
        histograms.add_packed(into.first_token, bytes(row[summed + 1]))
    return found


# Writing


def _write(draft: Draft) -> None:
    """Raises Overtaken, DatabaseError."""
    with transaction.atomic():
        _wait_for_others()
        marks.take(draft.marks)
        if set(marks.ids_of(draft.renewed)) != draft.seen:
            raise marks.Overtaken
        _delete(draft)
        _insert(Rollup, _COLUMNS, draft.rows)
        _insert(TagRollup, _TAG_COLUMNS, draft.tag_rows)
        marks.renew(draft.renewed)
        for span in draft.moved:
            delete_calls(span.start, span.stop, span.team_ids)
            if marks.ids_of(_buckets_of(span)):
                raise marks.Overtaken  # a call came after it was read what the others add up to


def _wait_for_others() -> None:
    """One worker writes at a time, until the end of the transaction; on SQLite that is so anyway."""
    if is_postgresql():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [WRITING])


def _delete(draft: Draft) -> None:
    ordered = sorted(draft.replaced)
    tagged = [(*each, name) for each in ordered for name in sorted(draft.tag_names.get(each.team_id, ()))]
    where = "WHERE size = %s AND start = %s AND team_id = %s"
    with connection.cursor() as cursor:
        if ordered:
            cursor.executemany(f"DELETE FROM {Rollup._meta.db_table} {where}", ordered)  # noqa: S608
        if tagged:
            table = TagRollup._meta.db_table
            cursor.executemany(f"DELETE FROM {table} {where} AND name = %s", tagged)  # noqa: S608


def _insert(model: type[Model], columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    if not rows:
        return
    places = ", ".join(["%s"] * len(columns))
    into = f"INSERT INTO {model._meta.db_table} ({', '.join(columns)})"
    with connection.cursor() as cursor:
        cursor.executemany(f"{into} VALUES ({places})", rows)


def _rows(size: int, measured: Measured) -> Iterator[tuple[Any, ...]]:
    """In the order of _COLUMNS."""
    for key, each in measured.items():
        yield (
            size,
            *key[: len(_DIMENSIONS)],
            *each.sums,
            histograms.packed(each.latency),
            histograms.packed(each.first_token),
        )
