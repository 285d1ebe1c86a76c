"""What a team used in a month, line by line, so that the lines add up to the sum to the nano-unit.

Lines of usage say what was known when the month was over: a correction that was made later is a line of its
own, so that a statement that was sent out is not wrong afterwards, but added to.
Corrections of calls that are kept no more are in the lines of their days.
One that rollups do not have yet is on no line: it comes with the sums that it changes.
In another currency each line is its calls' cost at the exchange rates of their days in UTC, each rounded
half up, and the sum is the sum of the lines.
Reads only. How lines are written is left to `gateway.usage_csv`.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

from django.db.models import Count, F, Max, OuterRef, Subquery, Sum

from gateway.ledger import marks, queries, spans
from gateway.ledger.queries import RateOn, Scope, Sums
from gateway.models import Correction, Entry


class Month(NamedTuple):
    """A calendar month of a time zone."""

    first: date
    zone: ZoneInfo

    @classmethod
    def read(cls, text: str, zone: ZoneInfo) -> "Month":
        """Of a text such as 2030-01. Raises ValueError."""
        return cls(date.fromisoformat(f"{text}-01"), zone)

    @property
    def days(self) -> list[date]:
        """Each date of it, and the one after the last."""
        following = spans.following(self.first, "month")
        return [self.first + timedelta(days=each) for each in range((following - self.first).days + 1)]

    @property
    def utc_days(self) -> list[date]:
        """The days in UTC that parts of it are in."""
        first = spans.midnight(self.first, self.zone).date()
        last = (self.ends_at - spans.MINUTE).date()
        return [first + timedelta(days=each) for each in range((last - first).days + 1)]

    @property
    def ends_at(self) -> datetime:
        """Outside, in UTC."""
        return spans.midnight(self.days[-1], self.zone)


@dataclass(slots=True)
class Line:
    """One line: what an API key used of a model name on a day, or how that was corrected later."""

    kind: Literal["usage", "correction"]
    day: date
    route: str
    key_id: str
    sums: Sums
    """`cost_nanos` is in the statement's currency; days without an exchange rate are told beside it."""
    cause: str = ""
    made_at: datetime | None = None
    """When it was corrected, the last time."""


class Late(NamedTuple):
    """A correction that was made after the month, of the calls of one part of a day."""

    key_id: str
    route: str
    repricing_id: int
    cause: str
    calls: int
    nanos: int
    """In the ledger's currency."""
    made_at: datetime

    def joined(self, other: "Late") -> "Late":
        """With more of the same, of other calls."""
        return self._replace(
            calls=self.calls + other.calls,
            nanos=self.nanos + other.nanos,
            made_at=max(self.made_at, other.made_at),
        )


def lines(team_id: int, month: Month, rate: RateOn | None) -> Iterator[Line]:
    """Day by day, in the order of model names and keys. A few queries a day. Raises DatabaseError."""
    scope = Scope((team_id,))
    corrected = is_corrected_later(team_id, month)
    for day, following in pairwise(month.days):
        parts = list(_parts(spans.midnight(day, month.zone), spans.midnight(following, month.zone)))
        with queries.view():  # sums, and what of the corrections is in them already
            late = {part: _corrections(team_id, *part, month.ends_at) if corrected else [] for part in parts}
            usage = _usage(scope, day, late, rate)
        yield from _sorted(usage)
        yield from _sorted(_corrected(day, late, rate))


def is_corrected_later(team_id: int, month: Month) -> bool:
    """Whether calls of the month were corrected after its end. One query. Raises DatabaseError."""
    return bool(_late(team_id, *_ends(month), month.ends_at).exists())


def _ends(month: Month) -> tuple[datetime, datetime]:
    return spans.midnight(month.first, month.zone), month.ends_at


def _parts(since: datetime, until: datetime) -> Iterable[tuple[datetime, datetime]]:
    """A day of a zone, cut where the day changes in UTC: so each part has one exchange rate."""
    cuts = [spans.midnight(since.date() + timedelta(days=each), UTC) for each in (1, 2)]
    return pairwise([since, *(each for each in cuts if each < until), until])


Span = tuple[datetime, datetime]


def _usage(scope: Scope, day: date, late: Mapping[Span, list[Late]], rate: RateOn | None) -> list[Line]:
    found: dict[tuple[str, str], Line] = {}
    for part, corrections in late.items():
        later: dict[tuple[str, ...], int] = defaultdict(int)
        for each in corrections:
            later[each.key_id, each.route] += each.nanos
        for (key_id, route), sums in queries.every_here(scope, *part, ("key", "route")):
            if sums.calls or sums.attempts:  # refused calls cost nothing
                line = found.setdefault((key_id, route), Line("usage", day, route, key_id, Sums()))
                nanos = sums.cost_nanos - later[key_id, route]
                queries.add_up(line.sums, sums, queries.exchanged(nanos, part[0].date(), rate))
    return list(found.values())


def _corrected(day: date, late: Mapping[Span, list[Late]], rate: RateOn | None) -> list[Line]:
    found: dict[tuple[str, str, int], Line] = {}
    for part, corrections in late.items():
        for each in corrections:
            new = Line("correction", day, each.route, each.key_id, Sums(), each.cause, each.made_at)
            line = found.setdefault((each.key_id, each.route, each.repricing_id), new)
            line.made_at = max(line.made_at or each.made_at, each.made_at)
            queries.add_up(
                line.sums, Sums(calls=each.calls), queries.exchanged(each.nanos, part[0].date(), rate)
            )
    return list(found.values())


def _sorted(found: Iterable[Line]) -> list[Line]:
    return sorted(found, key=lambda line: (line.route, int(line.key_id)))


def _late(team_id: int, since: datetime, until: datetime, made_from: datetime) -> Any:
    return Correction.objects.filter(
        team_id=team_id, started_at__gte=since, started_at__lt=until, created_at__gte=made_from
    ).order_by()


def _corrections(team_id: int, since: datetime, until: datetime, made_from: datetime) -> list[Late]:
    """That are in the rollups: those of minutes that are to be worked out again come with their sums."""
    inexact = marks.inexact(spans.minute_of(since), spans.minute_of(until), team_id)
    sure = pairwise([since, *(spans.moment_of(each) for span in inexact for each in span), until])
    found: dict[tuple[str, str, int], Late] = {}
    for first, last in islice(sure, 0, None, 2):
        for each in _corrections_within(team_id, first, last, made_from):
            key = each.key_id, each.route, each.repricing_id
            found[key] = each.joined(found[key]) if key in found else each
    return list(found.values())


def _corrections_within(team_id: int, since: datetime, until: datetime, made_from: datetime) -> list[Late]:
    if since == until:
        return []
    entry = Entry.objects.filter(call_id=OuterRef("call_id")).order_by()
    rows = (
        _late(team_id, since, until, made_from)
        .annotate(key_id=Subquery(entry.values("key_id")), route=Subquery(entry.values("route")))
        .values_list("key_id", "route", "repricing_id", "repricing__cause")
        .annotate(
            calls=Count("call_id", distinct=True),
            nanos=Sum(F("after_nanos") - F("before_nanos")),
            last=Max("created_at"),
        )
    )
    return [Late(str(key_id), *more) for key_id, *more in rows]
