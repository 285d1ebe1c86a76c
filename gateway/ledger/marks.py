"""Which buckets must be worked out again: rows of `models.Stale`.

A mark is written in the transaction that changes what its bucket adds up.
Whoever works a bucket out deletes the marks that it saw before it read, and undoes its work where one of
them is gone: then somebody else did the same work. So nobody is kept from writing, and no change is missed.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from django.db import connection
from django.db.models import Min, QuerySet

from gateway.ledger.cover import DAY, MINUTE, QUARTER, floor
from gateway.ledger.measuring import Span, moment_of
from gateway.models import Stale

UNBUILT = 0
"""Mark of a day whose minutes were never worked out: they were on the ledger before there were rollups."""
AGAIN = 2
"""Mark of a day that is worked out anew, though nothing is known to be wrong with it."""

AT_ONCE = 500
"""Ids a query; SQLite's oldest bound on the variables of one is 999."""
HOUR = 60
MOST_TEAMS = 50
"""That are measured together."""

_TABLE = Stale._meta.db_table


class Overtaken(Exception):
    """A mark is gone: somebody else did the same work meanwhile."""


class Bucket(NamedTuple):
    """A bucket of one team, or a day, as its mark names it."""

    size: int
    start: int
    team_id: int


def marks_in(start: int, stop: int, team_ids: Iterable[int] | None) -> set[tuple[int, int]]:
    """Size and start of quarter-hours and days in a span that must not be read; None: of any team.

    Moments are minutes since the Unix epoch. Raises DatabaseError.
    """
    rows = _of(team_ids).filter(size__in=(QUARTER, DAY), start__gt=start - DAY, start__lt=stop)
    return set(rows.values_list("size", "start").distinct())


def behind_since(team_ids: Iterable[int] | None) -> datetime | None:
    """What began from this moment on may be missing from rollups; None: nothing is. Raises DatabaseError."""
    oldest = _of(team_ids).filter(size__in=(UNBUILT, MINUTE)).aggregate(oldest=Min("start"))["oldest"]
    return None if oldest is None else moment_of(oldest)


def inexact(start: int, stop: int, team_id: int) -> list[tuple[int, int]]:
    """Spans of a team, in their order, of which rollups do not tell all that the ledger does."""
    rows = Stale.objects.filter(team_id=team_id, start__gt=start - DAY, start__lt=stop)
    minutes = rows.filter(size=MINUTE, start__gte=start).values_list("start", flat=True).distinct()
    days = rows.filter(size=UNBUILT).values_list("start", flat=True).distinct()
    spans = [(each, each + MINUTE) for each in minutes] + [(each, each + DAY) for each in days]
    return list(_joined(sorted((max(start, first), min(stop, last)) for first, last in spans)))


def _joined(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Spans in their order as few that do not touch."""
    joined: tuple[int, int] | None = None
    for start, stop in spans:
        if joined is not None and start <= joined[1]:
            joined = joined[0], max(joined[1], stop)
            continue
        if joined is not None:
            yield joined
        joined = start, stop
    if joined is not None:
        yield joined


def _of(team_ids: Iterable[int] | None) -> QuerySet[Stale]:
    rows = Stale.objects.order_by()
    return rows if team_ids is None else rows.filter(team_id__in=list(team_ids))


def ids_of(buckets: Iterable[Bucket]) -> list[int]:
    """Of all their marks."""
    wanted = set(buckets)
    found: list[int] = []
    for size in {each.size for each in wanted}:
        starts = [each.start for each in wanted if each.size == size]
        rows = Stale.objects.filter(size=size, start__gte=min(starts), start__lte=max(starts)).order_by()
        for number, start, team_id in rows.values_list("pk", "start", "team_id"):
            if Bucket(size, start, team_id) in wanted:
                found.append(number)
    return found


def take(ids: Sequence[int]) -> None:
    """Delete marks, inside the transaction that does what they ask for. Raises Overtaken."""
    ordered = sorted(ids)  # two that do the same wait for each other and not in a circle
    for place in range(0, len(ordered), AT_ONCE):
        some = ordered[place : place + AT_ONCE]
        deleted, _ = Stale.objects.filter(pk__in=some).delete()
        if deleted != len(some):
            raise Overtaken


def add(buckets: Collection[Bucket]) -> None:
    """Mark buckets, as a writer does."""
    with connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO {_TABLE} (size, start, team_id) VALUES (%s, %s, %s)",  # noqa: S608
            sorted(buckets),
        )


def renew(buckets: Collection[Bucket]) -> None:
    """Mark buckets in place of the marks that they have, so that these do not pile up.

    Whoever is working one out by an older mark finds it gone.
    """
    with connection.cursor() as cursor:
        cursor.executemany(
            f"DELETE FROM {_TABLE} WHERE size = %s AND start = %s AND team_id = %s",  # noqa: S608
            sorted(buckets),
        )
    add(buckets)


def spans_of(pairs: Iterable[tuple[int, int]]) -> list[Span]:
    """Minutes, each with a team, as few spans, the newest first; none reaches over an hour."""
    of_team: dict[int, list[int]] = defaultdict(list)
    for minute, team_id in sorted(pairs):
        of_team[team_id].append(minute)
    teams: dict[tuple[int, int], list[int]] = defaultdict(list)
    for team_id, minutes in of_team.items():
        for run in _runs(minutes):
            teams[run].append(team_id)
    return [
        Span(start, stop, tuple(of[place : place + MOST_TEAMS]))
        for (start, stop), of in sorted(teams.items(), reverse=True)
        for place in range(0, len(of), MOST_TEAMS)
    ]


def _runs(minutes: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Neighbours of one hour together."""
    start: int | None = None
    stop = 0
    for each in minutes:
        if start is not None and each == stop and floor(each, HOUR) == floor(start, HOUR):
            stop = each + 1
            continue
        if start is not None:
            yield start, stop
        start, stop = each, each + 1
    if start is not None:
        yield start, stop
