"""What the ledger's rows of some minutes add up to, as rollups keep it.

Reads entries, attempts, corrections and refusal counts, grouped by the database.
Does not know which minutes are wanted, or where the sums are kept.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from django.db.models import (
    Case,
    CharField,
    Count,
    Exists,
    Expression,
    F,
    FloatField,
    Func,
    IntegerField,
    OuterRef,
    Q,
    Subquery,
    Sum,
    Value,
    When,
)
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast, Ceil, Coalesce, Concat, Ln

from gateway import histograms
from gateway.histograms import Histogram
from gateway.models import Attempt, Correction, Entry, RefusalCount

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LONGEST_VALUE = 256
"""Of a tag; what is longer is cut, and counts together with what is cut to the same."""

SUMMED = (
    "calls",
    "simulated",
    "unpriced",
    "estimated",
    "attempts",
    "billed_attempts",
    "input_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "audio_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "audio_output_tokens",
    "cost_nanos",
    "queued_us",
    "latency_us",
)
"""The columns of `models.Measures` that add up, in the order of `Measure.sums`."""
_PLACE = {name: place for place, name in enumerate(SUMMED)}
_OF_CALLS = ("calls", "simulated", "unpriced", "estimated", "latency_us")
_OF_BOTH = tuple(each for each in SUMMED if each.endswith(("_tokens", "_nanos")))
"""An entry has them, and its attempts have them at their own targets."""
_TRIED = ("attempts", "billed_attempts", "queued_us")
"""Attempts alone have these; the numbers in the order of `_tried`."""
_OF_ATTEMPTS = (*_TRIED, *_OF_BOTH)


class Key(NamedTuple):
    """Of whom a row tells. `start` is in minutes since the Unix epoch."""

    team_id: int
    start: int
    key_id: int
    route: str
    target: str
    outcome: str
    code: str
    priority: str
    value: str = ""
    """Of the tag that is asked for."""


class Measure:
    """What one row adds up."""

    __slots__ = ("first_token", "latency", "sums")

    def __init__(self) -> None:
        self.sums = [0] * len(SUMMED)
        self.latency: Histogram = {}
        self.first_token: Histogram = {}

    def add(self, names: Iterable[str], amounts: Iterable[int]) -> None:
        for name, amount in zip(names, amounts, strict=True):
            self.sums[_PLACE[name]] += amount

    def merge(self, other: "Measure") -> None:
        self.sums = [mine + theirs for mine, theirs in zip(self.sums, other.sums, strict=True)]
        histograms.add(self.latency, other.latency)
        histograms.add(self.first_token, other.first_token)

    def __bool__(self) -> bool:
        return any(self.sums)

    def __repr__(self) -> str:
        said = ", ".join(f"{count} {name}" for name, count in zip(SUMMED, self.sums, strict=True) if count)
        return f"<Measure of {said or 'nothing'}>"


Measured = Mapping[Key, Measure]


class Span(NamedTuple):
    """Neighbouring minutes of some teams."""

    start: int
    stop: int
    """Outside."""
    team_ids: tuple[int, ...]


def moment_of(minute: int) -> datetime:
    return EPOCH + timedelta(minutes=minute)


def minute_of(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(minutes=1)


def measure(span: Span, tag: str | None = None) -> Measured:
    """By minute and all else that rollups tell apart; of calls with a tag of this name, where one is given.

    A call counts at the target of its last attempt; attempts, tokens, cost and queue time at the target of
    theirs. Should an entry say more or less than its attempts together, the difference is at its own.
    """
    found: defaultdict[Key, Measure] = defaultdict(Measure)
    corrected = Correction.objects.filter(**_within(span, "")).exists()
    _add_calls(found, span, tag)
    _add_first_tokens(found, span, tag)
    _add_attempts(found, span, tag)
    if corrected:
        _add_changes(found, span, tag)
        _take_priced(found, span, tag)
    if tag is None:
        _add_refusals(found, span)
    return {key: each for key, each in found.items() if each}


def _add_calls(found: defaultdict[Key, Measure], span: Span, tag: str | None) -> None:
    """With their tokens and cost, and the attempt of calls that had one: it is at the same target."""
    one = Q(attempts_made=1)
    rows = _entries(span, tag).annotate(
        bucket=Case(When(outcome="abandoned", then=None), default=_bucket("latency_us")),
    )
    rows = rows.values_list(*_DIMENSIONS, "bucket").annotate(
        _calls=Count("*"),
        _simulated=_count(simulated=True),
        _unpriced=_count(unpriced=True),
        _estimated=_count(usage_basis="estimated"),
        _latency_us=Sum("latency_us", filter=~Q(outcome="abandoned"), default=0),
        **_tried(one),
        _queued_us=Sum("queued_us", filter=one, default=0),
        **{f"_{name}": Sum(name) for name in _OF_BOTH},
    )
    size = len(_DIMENSIONS)
    for row in rows:
        into = found[_key(row[:size])]
        into.add((*_OF_CALLS, *_OF_ATTEMPTS), row[size + 1 :])
        if row[size] is not None:
            histograms.add(into.latency, {row[size]: row[size + 1]})


def _add_first_tokens(found: defaultdict[Key, Measure], span: Span, tag: str | None) -> None:
    rows = _entries(span, tag).filter(first_token_us__isnull=False).exclude(outcome="abandoned")
    rows = rows.annotate(bucket=_bucket("first_token_us"))
    for *dimensions, bucket, count in rows.values_list(*_DIMENSIONS, "bucket").annotate(_calls=Count("*")):
        histograms.add(found[_key(dimensions)].first_token, {bucket: count})


def _add_attempts(found: defaultdict[Key, Measure], span: Span, tag: str | None) -> None:
    """Of calls that had several, each at its own target, and off the target of its call.

    And of entries of older versions, which do not say how many they had.
    """
    rows = _attempts(span, tag).exclude(entry__attempts_made=1)
    rows = rows.values_list(*_DIMENSIONS, "own").annotate(
        **_tried(Q()), **{f"_{name}": Sum(name) for name in ("queued_us", *_OF_BOTH)}
    )
    size = len(_DIMENSIONS)
    for row in rows:
        key, own, amounts = _key(row[:size]), row[size], row[size + 1 :]
        found[key._replace(target=own)].add(_OF_ATTEMPTS, amounts)
        found[key].add(_OF_BOTH, [-each for each in amounts[len(_TRIED) :]])


def _add_changes(found: defaultdict[Key, Measure], span: Span, tag: str | None) -> None:
    """What corrections changed, at the target of the attempt that they are of."""
    own = Correction.objects.filter(call_id=OuterRef("entry_id"), attempt_no=OuterRef("attempt_no"))
    changes = own.order_by().values("call_id").annotate(sum=Sum(F("after_nanos") - F("before_nanos")))
    rows = _attempts(span, tag).filter(Exists(own)).annotate(change=Subquery(changes.values("sum")))
    for *dimensions, target, change in rows.values_list(*_DIMENSIONS, "own").annotate(_sum=Sum("change")):
        found[_key(dimensions)._replace(target=target)].add(("cost_nanos",), (change,))


def _take_priced(found: defaultdict[Key, Measure], span: Span, tag: str | None) -> None:
    """Calls whose every attempt has a price by now are no longer unpriced."""
    priced = Correction.objects.filter(call_id=OuterRef("entry_id"), attempt_no=OuterRef("attempt_no"))
    left = Attempt.objects.filter(~Exists(priced.filter(prices=True)), entry=OuterRef("pk"), price_id=None)
    corrected = Correction.objects.filter(call_id=OuterRef("pk"))
    rows = _entries(span, tag).filter(Exists(corrected), ~Exists(left), unpriced=True)
    for *dimensions, count in rows.values_list(*_DIMENSIONS).annotate(_calls=Count("*")):
        found[_key(dimensions)].add(("unpriced",), (-count,))


def _add_refusals(found: defaultdict[Key, Measure], span: Span) -> None:
    rows = RefusalCount.objects.filter(
        team_id__in=span.team_ids, minute__gte=span.start, minute__lt=span.stop
    ).order_by()
    grouped = rows.values_list("team_id", "minute", "key_id", "route", "code", "priority")
    for team_id, minute, key_id, route, code, priority, calls in grouped.annotate(_calls=Sum("calls")):
        key = Key(team_id, minute, key_id, route, "", "refused", code, priority)
        found[key].add(("calls",), (calls,))


# Expressions


class Minute(Func):
    """Whole minutes since the Unix epoch of a moment."""

    output_field = IntegerField()

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        # Without its seconds: SQLite's own functions round a moment to milliseconds.
        template = "(CAST(strftime('%%%%s', substr(%(expressions)s, 1, 16)) AS INTEGER) / 60)"
        return self.as_sql(compiler, connection, template=template, **context)

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = "CAST(FLOOR(EXTRACT(EPOCH FROM %(expressions)s) / 60) AS INTEGER)"
        return self.as_sql(compiler, connection, template=template, **context)


_DIMENSIONS = ("of_team", "minute", "of_key", "of_route", "at", "of_outcome", "of_code", "of_priority", "tag")
"""As `_told_apart` names them, in the order of `Key`."""


def _entries(span: Span, tag: str | None) -> Any:
    return _told_apart(Entry.objects.filter(**_within(span, "")).order_by(), "", tag)


def _attempts(span: Span, tag: str | None) -> Any:
    """Told apart by their calls, and by their own targets."""
    rows = _told_apart(Attempt.objects.filter(**_within(span, "entry__")).order_by(), "entry__", tag)
    return rows.annotate(own=Concat("provider", Value("/"), "upstream_model", output_field=CharField()))


def _within(span: Span, entry: str) -> dict[str, Any]:
    return {
        f"{entry}team_id__in": span.team_ids,
        f"{entry}started_at__gte": moment_of(span.start),
        f"{entry}started_at__lt": moment_of(span.stop),
    }


def _told_apart(rows: Any, entry: str, tag: str | None) -> Any:
    """With what rollups tell calls apart by; `entry` is the way to the entry."""
    value: Expression | KeyTextTransform = Value("")
    if tag is not None:
        rows = rows.filter(**{f"{entry}tags__has_key": tag})
        value = KeyTextTransform(tag, f"{entry}tags")
    return rows.annotate(
        of_team=F(f"{entry}team_id"),
        minute=Minute(F(f"{entry}started_at")),
        of_key=F(f"{entry}key_id"),
        of_route=F(f"{entry}route"),
        at=_target(entry),
        of_outcome=F(f"{entry}outcome"),
        of_code=F(f"{entry}code"),
        of_priority=F(f"{entry}priority"),
        tag=value,
    )


def _target(entry: str) -> Case:
    """Of the last attempt; entries of older versions do not say."""
    attempts = Attempt.objects.filter(entry=OuterRef(f"{entry}pk")).order_by("-attempt_no")
    last = attempts.annotate(name=Concat("provider", Value("/"), "upstream_model")).values("name")[:1]
    return Case(
        When(**{f"{entry}target": ""}, then=Coalesce(Subquery(last), Value(""), output_field=CharField())),
        default=F(f"{entry}target"),
        output_field=CharField(),
    )


def _bucket(name: str) -> Case:
    """As `histograms.bucket_of`."""
    return Case(
        When(**{f"{name}__lte": 1}, then=Value(0)),
        default=Cast(Ceil(Ln(Cast(name, FloatField())) * histograms.PER_LOG), IntegerField()),
        output_field=IntegerField(),
    )


def _count(**condition: Any) -> Count:
    return Count("pk", filter=Q(**condition))


def _tried(which: Q) -> dict[str, Count]:
    """Of rows that tell of one attempt each: how many there are, and how many with a fee for the request.

    A fee is taken where there is usage, as in `relay.pricing.lines`.
    """
    return {
        "_attempts": Count("pk", filter=which),
        "_billed_attempts": Count("pk", filter=which & ~Q(usage_basis="none")),
    }


def _key(dimensions: Sequence[Any]) -> Key:
    *others, value = dimensions
    return Key._make([*others, value[:LONGEST_VALUE]])
