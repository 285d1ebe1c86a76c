"""Marks for what nobody marked: the ledger of before there were rollups, what is asked for again, and
what code of an older version wrote.

Goes back to the oldest call that is kept and no further: older rollups stay as they are.
Only marks; the job of `rollups` does the work, while calls go on.
"""

import logging
from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from django.db import transaction
from django.db.models import Count, Max, Min, Sum

from accounts.models import Team
from gateway.ledger import marks
from gateway.ledger.cover import DAY, MINUTE, floor
from gateway.ledger.marks import AGAIN, UNBUILT, Bucket
from gateway.ledger.measuring import Minute, minute_of, moment_of
from gateway.ledger.reading import one_view
from gateway.ledger.retention import kept_from
from gateway.models import Entry, RefusalCount, Rollup, Stale

log = logging.getLogger(__name__)

VERIFIED_DAYS = 2
"""How far back `verify` looks. Code of an older version runs beside the new one for minutes."""


def begin() -> None:
    """Mark every day of the ledger where there are no rollups yet. Raises DatabaseError."""
    if Rollup.objects.exists() or Stale.objects.filter(size=UNBUILT).exists():
        return
    if days := _days(None, 0):
        with transaction.atomic():
            marks.add([Bucket(UNBUILT, start, team_id) for start, team_id in days])
        log.info("rollups of %d days are worked out for the first time", len(days))


def again(team_ids: Iterable[int] | None, since: datetime | None) -> int:
    """Mark days to be worked out anew, of these teams or of all; gives how many. Raises DatabaseError.

    Until then rollups show what they did; a day with a call of before `since` is worked out whole.
    """
    days = _days(team_ids, 0 if since is None else minute_of(since))
    with transaction.atomic():
        marks.renew([Bucket(AGAIN, start, team_id) for start, team_id in days])
    return len(days)


def days_left() -> int:
    """Days of teams whose minutes are yet to be marked."""
    return Stale.objects.filter(size__in=(UNBUILT, AGAIN)).count()


def mark_a_day() -> bool:
    """Mark the minutes of the newest day that is to be worked out whole; False: there is none."""
    with one_view():
        day = Stale.objects.filter(size__in=(UNBUILT, AGAIN)).order_by("-start", "team_id").first()
        if day is None:
            return False
        done = marks.ids_of(Bucket(size, day.start, day.team_id) for size in (UNBUILT, AGAIN))
        minutes = _minutes_of(day.start, day.team_id)
    try:
        with transaction.atomic():
            marks.take(done)
            marks.add([Bucket(MINUTE, each, day.team_id) for each in minutes])
    except marks.Overtaken:
        log.debug("the minutes of a day were marked by somebody else meanwhile")
    return True


def verify(now: datetime) -> int:
    """Compare how many calls the ledger and the rollups have in each minute of the last days.

    Marks the minutes that differ and gives how many: code of an older version leaves no marks.
    Raises DatabaseError.
    """
    start = max(floor(minute_of(now), DAY) - (VERIFIED_DAYS - 1) * DAY, kept_from())
    found: set[Bucket] = set()
    for team_id in Team.objects.values_list("pk", flat=True):
        with one_view():
            found |= {Bucket(MINUTE, each, team_id) for each in _differing(team_id, start)}
    if found:
        log.warning("rollups of %d minutes lacked calls and are worked out again", len(found))
        with transaction.atomic():
            marks.add(found)
    return len(found)


def _differing(team_id: int, start: int) -> set[int]:
    """Minutes from one on, and not marked, of which rollups tell otherwise than the ledger."""
    entries = Entry.objects.filter(team_id=team_id, started_at__gte=moment_of(start)).order_by()
    booked = Counter(dict(entries.values_list(Minute("started_at")).annotate(_calls=Count("*"))))
    rows = Rollup.objects.filter(team_id=team_id, size=MINUTE, start__gte=start).exclude(outcome="refused")
    known = Counter(dict(rows.order_by().values_list("start").annotate(_calls=Sum("calls"))))
    differing = {each for each in booked.keys() | known.keys() if booked[each] != known[each]}
    if not differing:
        return differing
    inexact = marks.inexact(start, max(differing) + 1, team_id)
    return {each for each in differing if not any(first <= each < last for first, last in inexact)}


def _days(team_ids: Iterable[int] | None, since: int) -> list[tuple[int, int]]:
    """First minute and team of each day, from a minute on, between the oldest and the newest call kept."""
    since = max(since, kept_from())
    teams = Team.objects.values_list("pk", flat=True) if team_ids is None else team_ids
    found: list[tuple[int, int]] = []
    for team_id in teams:
        span = Entry.objects.filter(team_id=team_id, started_at__gte=moment_of(since)).aggregate(
            oldest=Min("started_at"), newest=Max("started_at")
        )
        if span["oldest"] is not None:
            first, last = floor(minute_of(span["oldest"]), DAY), minute_of(span["newest"])
            found += [(start, team_id) for start in range(first, last + 1, DAY)]
    return found


def _minutes_of(start: int, team_id: int) -> set[int]:
    """Of a day: those that have calls or refusals, and those whose rollup may have too much."""
    since, until = max(start, kept_from()), start + DAY
    entries = Entry.objects.filter(
        team_id=team_id, started_at__gte=moment_of(since), started_at__lt=moment_of(until)
    )
    rollups = Rollup.objects.filter(team_id=team_id, size=MINUTE, start__gte=since, start__lt=until)
    refusals = RefusalCount.objects.filter(team_id=team_id, minute__gte=since, minute__lt=until)
    return {
        *entries.order_by().values_list(Minute("started_at"), flat=True).distinct(),
        *rollups.order_by().values_list("start", flat=True).distinct(),
        *refusals.order_by().values_list("minute", flat=True).distinct(),
    }
