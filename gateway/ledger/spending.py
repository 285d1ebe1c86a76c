"""What calls of a span used, exactly: from rollups, and from the ledger itself where these do not tell all.

Ask in one view: then it is as of one moment, whatever the writer and the rollups' job do meanwhile.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from django.db.models import Count, F, Sum
from msgspec import Struct

from accounts.caller import QuotaKind
from gateway.ledger import marks
from gateway.ledger.cover import Run, cover
from gateway.ledger.measuring import moment_of
from gateway.ledger.retention import kept_from
from gateway.models import Correction, Entry, Rollup


class Used(Struct, frozen=True):
    """What some calls used, or may use."""

    requests: int = 0
    tokens: int = 0
    cost_nanos: int = 0

    def of(self, kind: QuotaKind) -> int:
        """In a quota's unit."""
        if kind == "requests":
            return self.requests
        return self.tokens if kind == "tokens" else self.cost_nanos

    def __add__(self, other: "Used") -> "Used":
        return Used(
            self.requests + other.requests, self.tokens + other.tokens, self.cost_nanos + other.cost_nanos
        )


def used(team_id: int, key_id: int | None, start: int, stop: int) -> Used:
    """Of a team, or of one key, in calls that began in a span; money with its corrections.

    Moments are minutes since the Unix epoch. Raises DatabaseError.
    Refused calls used nothing. Where there are no rollups yet, all is read from the ledger.
    """
    if not Rollup.objects.exists():
        return _booked(team_id, key_id, start, stop)
    inexact = marks.inexact(start, stop, team_id)
    total = sum((_booked(team_id, key_id, first, last) for first, last in inexact), Used())
    # Of before the ledger begins, rollups know all but what is on the ledger.
    replaced = _after(inexact, kept_from()) if inexact else []
    runs = _runs(start, stop, replaced, marks.marks_in(start, stop, [team_id]))
    return sum((_rolled_up(team_id, key_id, each) for each in runs), total)


def _after(spans: list[tuple[int, int]], minute: int) -> list[tuple[int, int]]:
    """What of them is not before a minute."""
    return [(max(first, minute), last) for first, last in spans if last > minute]


def _runs(
    start: int, stop: int, without: list[tuple[int, int]], marked: set[tuple[int, int]]
) -> Iterator[Run]:
    """Buckets that add up to what is left of a span without some."""
    edges = [start, *(edge for span in without for edge in span), stop]
    for first, last in list(pairwise(edges))[::2]:
        yield from cover(first, last, marked)


def _rolled_up(team_id: int, key_id: int | None, run: Run) -> Used:
    rows = Rollup.objects.filter(
        team_id=team_id, size=run.size, start__gte=run.start, start__lt=run.stop
    ).exclude(outcome="refused")
    return _sum(rows if key_id is None else rows.filter(key_id=key_id), Sum("calls", default=0))


def _booked(team_id: int, key_id: int | None, start: int, stop: int) -> Used:
    """Goes through the index by team and start."""
    began = {"team_id": team_id, "started_at__gte": moment_of(start), "started_at__lt": moment_of(stop)}
    entries, corrections = Entry.objects.filter(**began), Correction.objects.filter(**began)
    if key_id is not None:
        entries = entries.filter(key_id=key_id)
        corrections = corrections.filter(call_id__in=entries.order_by().values("pk"))
    changes = corrections.aggregate(sum=Sum(F("after_nanos") - F("before_nanos"), default=0))
    return _sum(entries, Count("pk")) + Used(cost_nanos=changes["sum"])


def _sum(rows: Any, requests: Sum | Count) -> Used:
    found: Mapping[str, int] = rows.aggregate(
        requests=requests,
        tokens=Sum(F("input_tokens") + F("output_tokens"), default=0),
        cost_nanos_=Sum("cost_nanos", default=0),
    )
    return Used(*found.values())
