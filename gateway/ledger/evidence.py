"""Our side of a reconciliation: a provider's attempts by day and model, and those behind a difference.

The sums come from rollups. Single attempts are looked for only on days that differ, by the range of call ids
of that day: an id begins with the moment at which its call did, so no more of the ledger is read. Reads only.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any, Final, get_args
from uuid import UUID
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db.models import BigIntegerField, Count, Exists, F, OuterRef, Q, Subquery, Sum, Value
from django.db.models.functions import Coalesce
from django.utils.translation import gettext as _

from gateway.ledger import provider_csv, queries
from gateway.ledger.provider_csv import BillLine, Unreadable
from gateway.ledger.queries import Scope
from gateway.ledger.reconciliation import Compared, Kind, Ours, Reason, Reconciliation, Row, reconcile
from gateway.ledger.spans import edges, midnight
from gateway.models import Attempt, Correction
from gateway.snapshot import exchange_rates

MOST_TARGETS: Final = 1000
MOST_EXPLAINED: Final = 10
"""Days of which the calls are looked for: those that differ most."""
MOST_EXAMPLES: Final = 5
NEAR_MINUTES: Final = 10
MOST_DAYS: Final = 93
FIRST_DAY, LAST_DAY = date(2000, 1, 1), date(2199, 12, 31)
_LOOKED_AT: Final = 200
"""Attempts of a day and kind, among which those of each model are found."""


def ours(provider: str, first: date, last: date, zone: ZoneInfo) -> list[Ours]:
    """What our books have of a provider, by its slug, on each day of a zone; both days are inside."""
    at = edges(midnight(first, zone), midnight(last + timedelta(days=1), zone), zone, "day")
    found = queries.series_by(Scope(None), at, "target", most=MOST_TARGETS)
    days = [begin.astimezone(zone).date() for begin, _ in pairwise(at)]
    prefix = f"{provider}/"
    return [
        Ours(day, target.removeprefix(prefix), sums.input_tokens, sums.output_tokens, sums.cost_nanos)
        for target, series in found
        if target.startswith(prefix)
        for day, sums in zip(days, series, strict=True)
        if sums.attempts or sums.cost_nanos
    ]


@dataclass(frozen=True, slots=True)
class Explained:
    """Why the sides may differ, by day and upstream model."""

    reasons: Mapping[tuple[date, str], tuple[Reason, ...]]
    not_looked_at: tuple[date, ...]
    """Days that differ too, but less than MOST_EXPLAINED others."""


def explain(found: Reconciliation, provider: str, zone: ZoneInfo, midnight_minutes: int) -> Explained:
    """Look for the attempts behind what differs: up to nine queries for each of some days.

    A call counts as being close to a day's border within `midnight_minutes` of it; 0: none does.
    """
    days = _by_weight(found.uneven())
    chosen, rest = days[:MOST_EXPLAINED], days[MOST_EXPLAINED:]
    reasons: dict[tuple[date, str], tuple[Reason, ...]] = {}
    for day in chosen:
        models = {row.upstream_model for row in found.uneven() if row.day == day}
        for model, why in _of_day(provider, day, zone, midnight_minutes).items():
            if model in models:
                reasons[day, model] = why
    return Explained(reasons, tuple(sorted(rest)))


def _by_weight(rows: Iterable[Row]) -> list[date]:
    """Days, those that differ most first: by cost, and by tokens where there is none."""
    weights: dict[date, tuple[int, int]] = {}
    for row in rows:
        cost, tokens = weights.get(row.day, (0, 0))
        of_cost, of_tokens = _gap(row.compared("cost_nanos")), _gap(row.compared("tokens"))
        weights[row.day] = (cost + of_cost, tokens + of_tokens)
    return sorted(weights, key=lambda day: (*(-each for each in weights[day]), day))


def _gap(found: Compared | None) -> int:
    return abs(found.difference) if found else 0


def _of_day(provider: str, day: date, zone: ZoneInfo, midnight_minutes: int) -> dict[str, tuple[Reason, ...]]:
    """By upstream model: attempts of each kind that there are any of."""
    since, until = midnight(day, zone), midnight(day + timedelta(days=1), zone)
    attempts = _attempts(provider, since, until)
    kinds = _kinds(since, until, timedelta(minutes=midnight_minutes))
    sums: list[Any] = list(attempts.values("upstream_model").annotate(**_figures(kinds)))
    seen = [kind for kind in kinds if any(each[f"{kind}_attempts"] for each in sums)]
    examples = {kind: _examples(attempts.filter(kinds[kind])) for kind in seen}
    return {
        each["upstream_model"]: tuple(
            _reason(kind, each, examples[kind].get(each["upstream_model"], []))
            for kind in seen
            if each[f"{kind}_attempts"]
        )
        for each in sums
    }


def _attempts(provider: str, since: datetime, until: datetime) -> Any:
    """The attempts of calls that started in a span, with what each costs by now, corrections included."""
    rows: Any = _in_span(Attempt.objects.filter(provider=provider), "entry_id", since, until).order_by()
    if not _in_span(Correction.objects.all(), "call_id", since, until).exists():
        return rows.annotate(costs=F("cost_nanos"), is_corrected=Value(False))
    own = Correction.objects.filter(
        call_id=OuterRef("entry_id"), attempt_no=OuterRef("attempt_no")
    ).order_by()
    change = own.values("call_id").annotate(change=Sum(F("after_nanos") - F("before_nanos"))).values("change")
    changed = Coalesce(Subquery(change, output_field=BigIntegerField()), 0)
    return rows.annotate(costs=F("cost_nanos") + changed, is_corrected=Exists(own))


def _in_span(rows: Any, name: str, since: datetime, until: datetime) -> Any:
    """Rows of calls that started in a span, by the column of the call's id."""
    return rows.filter(**{f"{name}__gte": lowest_id(since), f"{name}__lt": lowest_id(until)})


def lowest_id(moment: datetime) -> UUID:
    """The least call id of a millisecond: UUIDs of version 7 begin with it (RFC 9562, 5.7)."""
    since_epoch = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return UUID(int=since_epoch // timedelta(milliseconds=1) << 80)


def _kinds(since: datetime, until: datetime, near: timedelta) -> dict[Kind, Q]:
    late, early = lowest_id(until - near), lowest_id(since + near)
    found: dict[Kind, Q] = {
        "estimated": Q(usage_basis="estimated"),
        "hung_up": Q(outcome="cancelled"),
        "abandoned": Q(outcome="abandoned"),
        "timed_out": Q(outcome="timed_out"),
        "unpriced": Q(price_id=None, is_corrected=False) & ~Q(usage_basis="none"),
        "corrected": Q(is_corrected=True),
        "midnight": Q(entry_id__lt=early) | Q(entry_id__gte=late),
    }
    assert set(found) == set(get_args(Kind))
    return found


def _figures(kinds: Mapping[Kind, Q]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind, is_one in kinds.items():
        found[f"{kind}_attempts"] = Count("pk", filter=is_one)
        found[f"{kind}_tokens"] = Sum(F("input_tokens") + F("output_tokens"), filter=is_one, default=0)
        found[f"{kind}_cost"] = Sum("costs", filter=is_one, default=0)
    return found


def _examples(attempts: Any) -> dict[str, list[str]]:
    """Calls by upstream model, the largest first."""
    found: dict[str, list[str]] = {}
    for model, call_id in _largest(attempts):
        ids = found.setdefault(model, [])
        if call_id not in ids and len(ids) < MOST_EXAMPLES:
            ids.append(call_id)
    return found


def _largest(attempts: Any) -> Iterator[tuple[str, str]]:
    rows = attempts.order_by("-costs", (F("input_tokens") + F("output_tokens")).desc(), "entry_id")
    for model, call_id in rows.values_list("upstream_model", "entry_id")[:_LOOKED_AT]:
        yield model, str(call_id)


def _reason(kind: Kind, sums: Mapping[str, Any], examples: Sequence[str]) -> Reason:
    attempts, tokens, cost = (int(sums[f"{kind}_{each}"]) for each in ("attempts", "tokens", "cost"))
    return Reason(kind, attempts, tokens, cost, tuple(examples))


@dataclass(frozen=True, slots=True)
class Answer:
    """A provider's file against our books."""

    first: date
    last: date
    not_read: tuple[str, ...]
    """Columns of the file that are not known."""
    found: Reconciliation
    explained: Explained


def reconciled(
    raw: bytes, provider: str, zone: ZoneInfo, currency: str = "", midnight_minutes: int = NEAR_MINUTES
) -> Answer:
    """All of it: a file of CSV, and the slug of the provider that it is from. Keeps nothing.

    Lines without a currency are in this one; empty: in the ledger's. Raises provider_csv.Unreadable.
    """
    bill = provider_csv.read(raw)
    first, last = _span(bill.lines)
    rates, own = exchange_rates(), settings.LEDGER_CURRENCY
    found = reconcile(
        bill.lines,
        ours(provider, first, last, zone),
        lambda code, day: rates.exchange(code or own, own, day),
        currency,
    )
    return Answer(first, last, bill.not_read, found, explain(found, provider, zone, midnight_minutes))


def _span(lines: Sequence[BillLine]) -> tuple[date, date]:
    """The first and the last day of a file. Raises provider_csv.Unreadable."""
    first, last = min(line.day for line in lines), max(line.day for line in lines)
    for line in lines:
        if not FIRST_DAY <= line.day <= LAST_DAY:
            raise Unreadable((line.number, _("%(day)s is too far from now to be right.") % {"day": line.day}))
    if (last - first).days >= MOST_DAYS:
        raise Unreadable(
            (
                0,
                _("The file covers %(days)s days: send %(most)s at most.")
                % {"days": (last - first).days + 1, "most": MOST_DAYS},
            )
        )
    return first, last
