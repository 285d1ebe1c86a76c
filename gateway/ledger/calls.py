"""Lists of calls and of refusals, the newest first, a page at a time.

A list of all calls of a team follows an index. What is rare among them is looked for in the rollups first:

    days ──► quarter-hours ──► minutes that hold such calls ──► the entries of these minutes alone

so that no question looks through the ledger, whatever it asks for.
What rollups do not tell apart, such as a least latency, is sifted out of a bounded number of calls; the page
says how far back it looked.
Who may see which teams is decided by those who ask.
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.db.models import CharField, Count, Exists, F, Func, OuterRef, Q, QuerySet, Sum, Value
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import ApiKey
from gateway.ledger.cover import DAY, MINUTE, QUARTER, floor
from gateway.ledger.marks import AGAIN, UNBUILT
from gateway.models import Correction, Entry, Refusal, Rollup, Stale, TagName, TagRollup

MOST_BUCKETS: Final = 64
"""Of one size, in which one page looks. A page that finds too little there goes on from where it stopped."""
MOST_MARKS: Final = 20_000
"""Buckets to be worked out again of which one page knows."""
MOST_SIFTED: Final = 4_000
"""Calls that one page looks at for what rollups do not know."""
MOST_SELECTS: Final = 100
"""In one query; SQLite takes 500."""
ALIKE: Final = ("route", "target", "outcome", "code", "priority")
"""Questions that rollups answer by a column of the same name, as entries do."""


class NoSuchPlace(ValueError):
    """The text is no place of a list."""


class NotDeclared(ValueError):
    """Usage is not told apart by this tag, so calls with it cannot be found quickly."""


class Likeness(NamedTuple):
    """Words that a call may be found by, in any of its names."""

    words: str
    """Part of its model name or target, or the beginning of its code; empty: of its API key alone."""
    key_ids: tuple[int, ...]
    """API keys that are meant by the words."""

    @property
    def is_of_nothing(self) -> bool:
        """A key was meant, and there is none."""
        return not self.words and not self.key_ids

    @property
    def condition(self) -> Q:
        """Entries, rollups and refusals have these columns alike; no refusal has a target."""
        found = Q(key_id__in=self.key_ids)
        if not self.words:
            return found
        return found | Q(route__icontains=self.words) | Q(code__istartswith=self.words)

    @property
    def condition_with_target(self) -> Q:
        return self.condition | Q(target__icontains=self.words) if self.words else self.condition


@dataclass(frozen=True, slots=True)
class Asked:
    """Which calls are asked for; empty or None: any."""

    team_ids: tuple[int, ...] | None
    """None: of every team."""
    key_id: int | None = None
    route: str = ""
    target: str = ""
    """Provider and upstream model of the last attempt."""
    outcome: str = ""
    code: str = ""
    priority: str = ""
    tag: tuple[str, str] | None = None
    """A name that the team has declared, and its value."""
    unpriced: bool = False
    """Those alone that have no price."""
    like: Likeness | None = None
    ids: tuple[UUID, UUID] | None = None
    """The first and the last that are meant."""
    streamed: bool | None = None
    """None: streamed and whole answers."""
    min_latency_us: int = 0
    min_cost_nanos: int = 0
    """As it was booked; corrections are not looked at."""
    since: datetime | None = None
    """Calls belong where they started."""
    until: datetime | None = None
    """Before this moment."""

    @property
    def is_picky(self) -> bool:
        """Few of a team's calls may be meant."""
        named = self.key_id is not None or self.like is not None or self.tag is not None
        return named or self.unpriced or any(self.alike.values())

    @property
    def is_sifting(self) -> bool:
        """Something is asked that rollups do not know."""
        return self.streamed is not None or self.min_latency_us > 0 or self.min_cost_nanos > 0

    @property
    def alike(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in ALIKE if getattr(self, name)}

    def within_ids(self) -> "Asked":
        """The same, within the time that its ids were made in: an id has the millisecond it began in."""
        if self.ids is None:
            return self
        first, last = (EPOCH + timedelta(milliseconds=min(each.int >> 80, LAST_MS)) for each in self.ids)
        since = first if self.since is None else max(self.since, first)
        until = last + timedelta(milliseconds=1)
        return replace(self, since=since, until=until if self.until is None else min(self.until, until))


class Place(NamedTuple):
    """Where a page ends: the next one has what started before, and at the same moment has a lesser id."""

    started_at: datetime
    call_id: UUID

    def __str__(self) -> str:
        at_us = (self.started_at - EPOCH) // timedelta(microseconds=1)
        packed = at_us.to_bytes(8, "big") + self.call_id.bytes
        return urlsafe_b64encode(packed).decode()


EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
LAST: Final = datetime(2200, 1, 1, tzinfo=UTC)
"""No call is so late; a moment before it can be added to."""
LAST_MS: Final = (LAST - EPOCH) // timedelta(milliseconds=1)
TICK: Final = timedelta(microseconds=1)
"""So that a moment itself is found by being before another. On SQLite moments are text, in which the writer
gives every second a fraction and Django does not: there is no being equal."""


@dataclass(frozen=True, slots=True)
class CallLine:
    """A call as lists show it. Money in nano-units of the ledger currency, durations in µs."""

    call_id: UUID
    team_id: int
    key_id: int
    key: str
    """The API key's name."""
    route: str
    target: str
    """Of the last attempt; empty: nothing was sent."""
    outcome: str
    status: int
    code: str
    priority: str
    streamed: bool
    simulated: bool
    tags: dict[str, str]
    started_at: datetime
    latency_us: int
    first_token_us: int | None
    queued_us: int
    """At gates and for connections."""
    attempts: int
    input_tokens: int
    output_tokens: int
    usage_basis: str
    """reported, estimated, or none"""
    cost_nanos: int
    """With all corrections."""
    unpriced: bool


class Page(NamedTuple):
    """Part of a list; it may be short, or even empty, and still not be the last."""

    lines: list[CallLine]
    next: Place | None
    """None: there is no more."""


class Bucket(NamedTuple):
    """Calls that may be worth reading, in minutes since the Unix epoch."""

    team_id: int
    start: int
    size: int
    calls: int | None
    """How many are there; None: it is to be worked out again, so nobody knows."""
    is_unbuilt: bool = False
    """Nothing in it was ever worked out, so finer buckets do not help."""

    def is_in(self, bounds: "Bounds") -> bool:
        """It has a minute within."""
        return self.start < bounds.stop and self.start + self.size > bounds.start


class Bounds(NamedTuple):
    """Minutes that are asked about; the end is outside."""

    start: int
    stop: int


class Span(NamedTuple):
    """Minutes of one team whose entries are read; the end is outside."""

    team_id: int
    start: int
    stop: int


def place(text: str) -> Place:
    """The other way of `str(place)`. Raises NoSuchPlace."""
    try:
        packed = urlsafe_b64decode(text.encode("ascii"))
        at_us, call_id = int.from_bytes(packed[:8], "big"), UUID(bytes=packed[8:])
        found = Place(EPOCH + timedelta(microseconds=at_us), call_id)
    except (ValueError, OverflowError, binascii.Error):
        raise NoSuchPlace(str(_NO_PLACE)) from None
    if found.started_at >= LAST:
        raise NoSuchPlace(str(_NO_PLACE))
    return found


_NO_PLACE: Final = gettext_lazy("Give `next` of a page of this list, as it was given.")


Names = Mapping[int, str]


def page(
    asked: Asked,
    most: int,
    after: Place | None = None,
    key_names: Names | None = None,
    *,
    most_sifted: int = MOST_SIFTED,
) -> Page:
    """The next calls, at most so many. Raises NotDeclared.

    `key_names` None: they are looked up. Three queries, and four more for a picky question, five for a tag,
    one for a sifting one.
    """
    if asked.team_ids == () or (asked.like and asked.like.is_of_nothing):
        return Page([], None)
    asked = asked.within_ids()
    if not asked.is_picky:
        asked, end = _sifted(asked, after, most_sifted) if asked.is_sifting else (asked, None)
        found = _read(_plain_selects(asked, most + 1, after), most + 1)
        return _page(found, most, end, key_names)
    need = most_sifted if asked.is_sifting else most + 1
    spans, reached, is_known = _worth_reading(asked, need, after)
    found = _read(_selects(asked, spans, most + 1, after), most + 1)
    if not found and is_known and not asked.is_sifting:
        return Page([], None)  # the rollups know of calls whose entries are kept no more
    return _page(found, most, None if reached is None else _before(_moment(reached)), key_names)


def _page(found: list[Entry], most: int, reached: Place | None, key_names: Names | None) -> Page:
    is_full = len(found) > most
    shown = found[:most]
    end = Place(shown[-1].started_at, shown[-1].call_id) if is_full else reached
    return Page(_lines(shown, key_names), end)


def booked_of_late(asked: Asked, ended_since: datetime, most: int, key_names: Names | None) -> list[CallLine]:
    """Calls that ended at this moment or later, at most so many, the newest first. Two or three queries.

    By the index of ends, so what is asked must be of the last minute or so. A call that comes to the books
    long after its end, as when the database was away, is not among them.
    """
    rows = _matching(asked.within_ids()).filter(ended_at__gte=ended_since)
    if asked.team_ids is not None:
        rows = rows.filter(team_id__in=asked.team_ids)
    found = list(rows.order_by("-ended_at")[:most])
    return _lines(sorted(found, key=_newest, reverse=True), key_names)


def earlier(team_id: int, place: Place) -> UUID | None:
    """The call of a team before this one, in the order of their lists."""
    rows = _of_team(Asked((team_id,)), team_id, 1, place)
    return next((each.call_id for each in rows), None)


def later(team_id: int, place: Place) -> UUID | None:
    """The one after it."""
    at, call_id = place
    rows = Entry.objects.filter(team_id=team_id, started_at__gte=at).exclude(call_id=call_id)
    rows = rows.filter(Q(started_at__gt=at) | Q(call_id__gt=call_id))
    return next((each.call_id for each in rows.order_by("started_at", "call_id")[:1]), None)


# Entries


def _sifted(asked: Asked, after: Place | None, most: int) -> tuple[Asked, Place | None]:
    """The question, as far back as one page looks, and where the next one goes on; None: it is all."""
    plain = replace(asked, streamed=None, min_latency_us=0, min_cost_nanos=0)
    each_last = [rows[most - 1 : most] for rows in _plain_rows(plain, after)]
    last = _read(each_last, 1)
    if not last:
        return asked, None
    at = last[0].started_at
    at = at.replace(microsecond=at.microsecond // 1000 * 1000)  # as exact as ids are
    return replace(asked, since=at), _before(at)


def _plain_selects(asked: Asked, most: int, after: Place | None) -> list[QuerySet[Entry]]:
    return [rows[:most] for rows in _plain_rows(asked, after)]


def _plain_rows(asked: Asked, after: Place | None) -> list[QuerySet[Entry]]:
    """Of every team the calls follow their ids, which are made as calls come in; else each team's index."""
    if asked.team_ids is not None:
        return [_rows_of_team(asked, each, after) for each in asked.team_ids]
    rows = _matching(asked)
    before = after.call_id if after else first_id(asked.until or timezone.now() + timedelta(days=1))
    rows = rows.filter(call_id__lt=before)
    if asked.since:
        rows = rows.filter(call_id__gte=first_id(asked.since))
    return [rows.order_by("-call_id")]


def _selects(asked: Asked, spans: Sequence[Span], most: int, after: Place | None) -> list[QuerySet[Entry]]:
    return [_of_team(asked, each.team_id, most, after, each) for each in spans]


def _of_team(
    asked: Asked, team_id: int, most: int, after: Place | None, span: Span | None = None
) -> QuerySet[Entry]:
    return _rows_of_team(asked, team_id, after, span)[:most]


def _rows_of_team(
    asked: Asked, team_id: int, after: Place | None, span: Span | None = None
) -> QuerySet[Entry]:
    rows = _matching(asked).filter(team_id=team_id)
    if span is not None:
        rows = rows.filter(started_at__gte=_moment(span.start), started_at__lt=_moment(span.stop))
    if after is not None:
        at, call_id = after
        rows = rows.filter(Q(started_at__lt=at) | Q(call_id__lt=call_id), started_at__lt=at + TICK)
    return rows.order_by("-started_at", "-call_id")


def _matching(asked: Asked) -> QuerySet[Entry]:
    rows = Entry.objects.filter(**asked.alike)
    if asked.key_id is not None:
        rows = rows.filter(key_id=asked.key_id)
    if asked.since:
        rows = rows.filter(started_at__gte=asked.since)
    if asked.until:
        rows = rows.filter(started_at__lt=asked.until)
    if asked.unpriced:
        rows = rows.filter(~Exists(_prices_of(OuterRef("call_id"))), unpriced=True)
    if asked.tag:
        name, value = asked.tag
        rows = rows.alias(tag=_Tag(name)).filter(tag=value)
    if asked.like:
        rows = rows.filter(asked.like.condition_with_target)
    if asked.ids:
        rows = rows.filter(call_id__gte=asked.ids[0], call_id__lte=asked.ids[1])
    return _sifting(rows, asked)


def _sifting(rows: QuerySet[Entry], asked: Asked) -> QuerySet[Entry]:
    if asked.streamed is not None:
        rows = rows.filter(streamed=asked.streamed)
    if asked.min_latency_us:
        rows = rows.filter(latency_us__gte=asked.min_latency_us)
    if asked.min_cost_nanos:
        rows = rows.filter(cost_nanos__gte=asked.min_cost_nanos)
    return rows


def _prices_of(call_id: Any) -> QuerySet[Correction]:
    """Prices that came for a call that had none."""
    return Correction.objects.filter(call_id=call_id, prices=True)


class _Tag(Func):
    """The value of a tag, whatever its name is made of."""

    output_field = CharField()

    def __init__(self, name: str) -> None:
        super().__init__(F("tags"), Value(name))

    def as_sqlite(self, compiler: Any, connection: Any, **more: Any) -> Any:
        template = "(SELECT value FROM JSON_EACH(%(expressions)s))"
        return self.as_sql(compiler, connection, template=template, arg_joiner=") WHERE key = (", **more)

    def as_postgresql(self, compiler: Any, connection: Any, **more: Any) -> Any:
        return self.as_sql(compiler, connection, function="jsonb_extract_path_text", **more)


def _read(selects: Sequence[QuerySet[Entry]], most: int) -> list[Entry]:
    """The newest of what these find, each by itself: one query for every hundred."""
    found: list[Entry] = []
    for at in range(0, len(selects), MOST_SELECTS):
        sql, values = _together(selects[at : at + MOST_SELECTS], most)
        found += Entry.objects.raw(sql, values)
    return sorted(found, key=_newest, reverse=True)[:most]


def _newest(entry: Entry) -> tuple[datetime, UUID]:
    return entry.started_at, entry.call_id


def _together(selects: Sequence[QuerySet[Entry]], most: int) -> tuple[str, tuple[Any, ...]]:
    """One statement; Django's own union takes no LIMIT within it on SQLite."""
    parts: list[str] = []
    values: list[Any] = []
    for number, each in enumerate(selects):
        sql, some = each.query.sql_with_params()
        parts.append(f"SELECT * FROM ({sql}) AS part_{number}")  # noqa: S608 - Django's own
        values += some
    together = " UNION ALL ".join(parts)
    return f"{together} ORDER BY started_at DESC, call_id DESC LIMIT {most:d}", tuple(values)


def _lines(rows: Sequence[Entry], key_names: Names | None) -> list[CallLine]:
    """With what was corrected and the names of their keys: two queries."""
    if not rows:
        return []
    ids = [each.call_id for each in rows]
    summed = Correction.objects.filter(call_id__in=ids).order_by().values("call_id")
    summed = summed.annotate(
        more=Sum(F("after_nanos") - F("before_nanos")), priced=Count("pk", filter=Q(prices=True))
    )
    changed = {each["call_id"]: (int(each["more"]), each["priced"]) for each in summed}
    if key_names is None:
        keys = ApiKey.objects.filter(pk__in={each.key_id for each in rows})
        key_names = dict(keys.values_list("pk", "name"))
    return [_line(each, key_names, *changed.get(each.call_id, (0, 0))) for each in rows]


def _line(row: Entry, keys: Names, more_nanos: int, priced: int) -> CallLine:
    return CallLine(
        call_id=row.call_id,
        team_id=row.team_id,
        key_id=row.key_id,
        key=keys.get(row.key_id, f"API key {row.key_id}"),
        route=row.route,
        target=row.target,
        outcome=row.outcome,
        status=row.status,
        code=row.code,
        priority=row.priority,
        streamed=row.streamed,
        simulated=row.simulated,
        tags=row.tags,
        started_at=row.started_at,
        latency_us=row.latency_us,
        first_token_us=row.first_token_us,
        queued_us=row.queued_us,
        attempts=row.attempts_made,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        usage_basis=row.usage_basis,
        cost_nanos=row.cost_nanos + more_nanos,
        unpriced=row.unpriced and not priced,
    )


# Where to look


def _worth_reading(asked: Asked, need: int, after: Place | None) -> tuple[list[Span], int | None, bool]:
    """Minutes to read, how far back all is looked at (None: all of it), and whether calls are known there."""
    bounds = _bounds(asked, after)
    rollups, stale = _rollups(asked), _stale(asked, bounds)
    marks = list(stale.values_list("size", "start", "team_id").order_by("-start").distinct()[:MOST_MARKS])
    horizon = marks[-1][1] if len(marks) == MOST_MARKS else None
    reached = [] if horizon is None else [horizon]
    buckets: list[Bucket] = []
    for size in (DAY, QUARTER, MINUTE):
        within = None if size == DAY else buckets
        known = _known(rollups, size, within, bounds)
        found = [each for each in _with_marks(known, marks, size, within) if each.is_in(bounds)]
        if size == MINUTE:
            found = finest(buckets, found)
        buckets, ended_at = chosen(found, need, bounds.stop)
        if ended_at is not None:
            reached.append(ended_at)
    back_to = max(reached, default=None)
    return clipped(spans(buckets), back_to), back_to, any(each.calls for each in buckets)


def _rollups(asked: Asked) -> QuerySet[Any]:
    """Raises NotDeclared."""
    rows: QuerySet[Any] = Rollup.objects.all()
    if asked.tag:
        name, value = asked.tag
        declared = TagName.objects.filter(name=name)
        if asked.team_ids is not None:
            declared = declared.filter(team_id__in=asked.team_ids)
        if not declared.exists():
            raise NotDeclared(
                _("The tag '%(name)s' is not declared: usage is not told apart by it.") % {"name": name}
            )
        rows = TagRollup.objects.filter(name=name, value=value)
    rows = _of_teams(rows, asked).filter(calls__gt=0, **asked.alike).exclude(outcome="refused")
    if asked.key_id is not None:
        rows = rows.filter(key_id=asked.key_id)
    if asked.like:
        rows = rows.filter(asked.like.condition_with_target)
    return rows.filter(unpriced__gt=0) if asked.unpriced else rows


def _stale(asked: Asked, bounds: Bounds) -> QuerySet[Stale]:
    rows = _of_teams(Stale.objects.exclude(size=AGAIN), asked)
    return rows.filter(start__gt=bounds.start - DAY, start__lt=bounds.stop)


def _of_teams(rows: QuerySet[Any], asked: Asked) -> QuerySet[Any]:
    return rows if asked.team_ids is None else rows.filter(team_id__in=asked.team_ids)


def _known(
    rollups: QuerySet[Any], size: int, within: Sequence[Bucket] | None, bounds: Bounds
) -> list[Bucket]:
    """The newest buckets of a size that hold such calls; `within` larger ones, or wherever they are."""
    rows = rollups.filter(size=size)
    if within is None:
        rows = rows.filter(start__gt=bounds.start - size, start__lt=bounds.stop)
        newest = rows.order_by("-start").values("start").distinct()[: MOST_BUCKETS + 1]
        rows = rows.filter(start__in=newest)
    else:
        starts = {at for each in within for at in range(each.start, each.start + each.size, size)}
        rows = rows.filter(start__in=starts)
    summed = rows.order_by().values_list("team_id", "start").annotate(Sum("calls"))
    return [Bucket(team_id, start, size, calls) for team_id, start, calls in summed]


def _with_marks(
    known: Iterable[Bucket],
    marks: Iterable[tuple[int, int, int]],
    size: int,
    within: Sequence[Bucket] | None,
) -> list[Bucket]:
    """Those too of which nobody knows what they hold: something in them is to be worked out again."""
    unknown = {(team_id, floor(start, size)): False for of, start, team_id in marks if MINUTE <= of <= size}
    days = [(start, team_id) for of, start, team_id in marks if of == UNBUILT and size != MINUTE]
    unknown |= {(team_id, at): True for start, team_id in days for at in range(start, start + DAY, size)}
    if within is not None:
        larger = {(each.team_id, each.start) for each in within}
        of = within[0].size if within else DAY
        unknown = {key: value for key, value in unknown.items() if (key[0], floor(key[1], of)) in larger}
    rest = [each for each in known if (each.team_id, each.start) not in unknown]
    return rest + [Bucket(team, start, size, None, unbuilt) for (team, start), unbuilt in unknown.items()]


def chosen(found: Iterable[Bucket], need: int, stop: int) -> tuple[list[Bucket], int | None]:
    """The newest buckets, until they hold as many calls as are needed, or are many.

    Also the minute down to which nothing is left out; None: nothing is at all. Pure.
    A bucket that `stop` cuts counts for nothing: its calls may be those that were shown already.
    """
    taken: list[Bucket] = []
    calls = 0
    newest_first = sorted(found, key=lambda each: -each.start)
    by_start = groupby(newest_first, key=lambda each: each.start)
    for number, (start, group) in enumerate(by_start):
        if calls >= need or number == MOST_BUCKETS:
            return taken, taken[-1].start
        for each in group:
            taken.append(each)
            calls += 0 if start + each.size > stop else each.calls or 0
    return taken, None


def finest(quarters: Sequence[Bucket], minutes: Iterable[Bucket]) -> list[Bucket]:
    """The minutes of quarter-hours; the whole quarter-hour where its minutes are kept no more. Pure."""
    by_quarter: dict[tuple[int, int], list[Bucket]] = defaultdict(list)
    for each in minutes:
        by_quarter[each.team_id, floor(each.start, QUARTER)].append(each)
    found: list[Bucket] = []
    for quarter in quarters:
        own = by_quarter[quarter.team_id, quarter.start]
        is_known = bool(own) and not quarter.is_unbuilt
        are_all = is_known and quarter.calls in (None, sum(each.calls or 0 for each in own))
        found += own if are_all else [quarter]
    return found


def spans(buckets: Iterable[Bucket]) -> list[Span]:
    """Neighbours of a team as one, the newest first. Pure."""
    found: list[Span] = []
    for each in sorted(buckets, key=lambda each: (each.team_id, each.start)):
        last = found[-1] if found else None
        if last and last.team_id == each.team_id and last.stop == each.start:
            found[-1] = last._replace(stop=each.start + each.size)
        else:
            found.append(Span(each.team_id, each.start, each.start + each.size))
    return sorted(found, key=lambda each: -each.start)


def clipped(found: Iterable[Span], back_to: int | None) -> list[Span]:
    """Without what is before a minute. Pure."""
    if back_to is None:
        return list(found)
    return [each._replace(start=max(each.start, back_to)) for each in found if each.stop > back_to]


def first_id(moment: datetime) -> UUID:
    """No call that started at this moment or later has a lesser id: they are UUIDv7 (RFC 9562, 5.7)."""
    return UUID(int=max(0, (moment - EPOCH) // timedelta(milliseconds=1)) << 80)


def _before(moment: datetime) -> Place:
    return Place(moment, first_id(moment))


def _bounds(asked: Asked, after: Place | None) -> Bounds:
    """A place's own moment may be shared by calls that were not shown, unless it is before all of them."""
    ends = [timezone.now() + timedelta(days=1) if asked.until is None else asked.until]
    if after is not None:
        ends.append(after.started_at if after == _before(after.started_at) else after.started_at + TICK)
    return Bounds(0 if asked.since is None else _minute(asked.since), _minute(min(ends) - TICK) + 1)


def _minute(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(minutes=1)


def _moment(minute: int) -> datetime:
    return EPOCH + timedelta(minutes=minute)


# Refusals


def refusals(asked: Asked, most: int, after: Place | None = None) -> tuple[list[Refusal], Place | None]:
    """The newest refusals that are explained: the last 1,000 of each team.

    Of what is asked, they have no tags, targets and outcomes. One query, and one more for a picky question.
    """
    asked = asked.within_ids()
    by_id = asked.team_ids is None
    everything = _refusals_after(_of_teams(Refusal.objects.all(), asked), after, by_id=by_id)
    rows, end = _refusals_asked(everything, asked), None
    if asked.is_picky and (last := everything[MOST_SIFTED - 1 : MOST_SIFTED].first()):
        end = Place(last.at, last.call_id)
        rows = rows.filter(call_id__gte=last.call_id) if by_id else rows.filter(at__gte=last.at)
    found = list(rows[: most + 1])
    shown = found[:most]
    return shown, Place(shown[-1].at, shown[-1].call_id) if len(found) > most else end


def _refusals_asked(rows: QuerySet[Refusal], asked: Asked) -> QuerySet[Refusal]:
    rows = rows.filter(**{each: value for each, value in asked.alike.items() if each in REFUSED_BY})
    if asked.key_id is not None:
        rows = rows.filter(key_id=asked.key_id)
    if asked.like:
        rows = rows.filter(asked.like.condition)
    if asked.ids:
        rows = rows.filter(call_id__gte=asked.ids[0], call_id__lte=asked.ids[1])
    if asked.since:
        rows = rows.filter(at__gte=asked.since)
    return rows.filter(at__lt=asked.until) if asked.until else rows


def _refusals_after(rows: QuerySet[Refusal], after: Place | None, *, by_id: bool) -> QuerySet[Refusal]:
    """In the order of an index: that of ids for all teams together, else each team's."""
    if by_id:
        return (rows if after is None else rows.filter(call_id__lt=after.call_id)).order_by("-call_id")
    if after is not None:
        at, call_id = after
        rows = rows.filter(Q(at__lt=at) | Q(call_id__lt=call_id), at__lt=at + TICK)
    return rows.order_by("-at", "-call_id")


REFUSED_BY: Final = ("route", "code", "priority")
