"""The figures of alerts: from rollups and from the breakers' timeline, never from entries. Reads only."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from django.db.models import OuterRef, Q, QuerySet, Subquery

from accounts.caller import OwnerKind
from gateway.alerts.rules import Figure
from gateway.ledger import queries
from gateway.ledger.holdings import Wanted, all_wanted
from gateway.ledger.queries import Dimension, Scope, Sums
from gateway.models import Alert, BreakerChange, Target

MINUTE: Final = timedelta(minutes=1)
P95: Final = 0.95
HUNDREDTHS: Final = 10_000
"""Of a percent, in a whole."""
MICROSECOND: Final = timedelta(microseconds=1)


class Measured(NamedTuple):
    """A figure, and the moment before which its calls ended."""

    figure: Figure
    until: datetime


Quotas = Callable[[datetime], Sequence[Wanted]]
"""Every quota that calls can meet, with its period of a moment."""


def quotas_at(at: datetime) -> Sequence[Wanted]:
    """`Quotas`, asked anew each time. Two queries. Raises DatabaseError."""
    return all_wanted(int(at.timestamp() * 1_000_000))


def measure(alert: Alert, now: datetime, quotas: Quotas = quotas_at) -> Measured:
    """At most five queries; of quotas, beside what `quotas` takes, three for each kind of owner and each
    beginning of a period, however many quotas there are. Raises DatabaseError.
    """
    if alert.kind == Alert.Kind.BREAKER:
        return Measured(_open_for(alert, now), now)
    team_ids = None if alert.team_id is None else (alert.team_id,)
    until = min(queries.watermark(team_ids) or now, now)
    if alert.kind == Alert.Kind.QUOTA:
        return Measured(_fullest(alert, quotas(until), until), until)
    return Measured(_of_calls(alert, Scope(team_ids, _where(alert)), until), until)


def _where(alert: Alert) -> Mapping[Dimension, tuple[str, ...]]:
    where: dict[Dimension, tuple[str, ...]] = {}
    if alert.route:
        where["route"] = (alert.route,)
    if alert.key_id is not None:
        where["key"] = (str(alert.key_id),)
    return where


def _of_calls(alert: Alert, scope: Scope, until: datetime) -> Figure:
    last = _whole_minute(until)
    since = last - timedelta(minutes=alert.window_minutes)
    is_latency = alert.kind == Alert.Kind.LATENCY
    sums = queries.totals(scope, since, last, percentiles=is_latency)
    return Figure(_VALUES[alert.kind](sums), sums.calls)


def _whole_minute(until: datetime) -> datetime:
    """The end of the minute that is running: its calls are in the figure."""
    return until.replace(second=0, microsecond=0) + MINUTE


def _error_rate(sums: Sums) -> int | None:
    return None if not sums.calls else sums.failed * HUNDREDTHS // sums.calls


def _latency_ms(sums: Sums) -> int | None:
    latency_us = sums.latency_at(P95)
    return None if latency_us is None else latency_us // 1000


_VALUES: Mapping[str, Callable[[Sums], int | None]] = {
    Alert.Kind.SPEND: lambda sums: sums.cost_nanos,
    Alert.Kind.ERROR_RATE: _error_rate,
    Alert.Kind.LATENCY: _latency_ms,
}


def _fullest(alert: Alert, quotas: Iterable[Wanted], until: datetime) -> Figure:
    """Of the quotas that it is about: those of the team, or of one key, or of everybody."""
    alike: dict[tuple[OwnerKind, int], list[Wanted]] = defaultdict(list)
    for each in quotas:
        if _is_meant(alert, each):
            alike[each.quota.owner.kind, each.start_us].append(each)
    shares: list[Figure] = []
    for (kind, start_us), meant in alike.items():
        used = _used(alert, kind, start_us, until)
        shares += [_share(each, used.get(str(each.quota.owner.id)) or Sums()) for each in meant]
    return max(shares, key=lambda each: each.value or 0, default=Figure(None))


def _is_meant(alert: Alert, wanted: Wanted) -> bool:
    owner = wanted.quota.owner
    if alert.key_id is not None:
        return owner.kind == "key" and owner.id == alert.key_id
    return alert.team_id is None or wanted.team_id == alert.team_id


def _used(alert: Alert, kind: OwnerKind, start_us: int, until: datetime) -> Mapping[str, Sums]:
    """By the id of each team or key that made calls since."""
    where: dict[Dimension, tuple[str, ...]] = {} if alert.key_id is None else {"key": (str(alert.key_id),)}
    scope = Scope(None if alert.team_id is None else (alert.team_id,), where)
    began = datetime.fromtimestamp(start_us // 1_000_000, UTC)
    rows = queries.every(scope, began, max(_whole_minute(until), began), [kind])
    return {owner_id: sums for (owner_id,), sums in rows}


def _share(wanted: Wanted, sums: Sums) -> Figure:
    """In whole percent. A quota of nothing cannot be used up."""
    quota = wanted.quota
    used = {
        "requests": sums.calls,
        "tokens": sums.input_tokens + sums.output_tokens,
        "money": sums.cost_nanos,
    }[quota.kind]
    # `wording.detail` knows this form, and says it in the reader's language.
    detail = f"{quota.owner.name}: {quota.kind} a {quota.period}"
    return Figure(100 * used // quota.amount if quota.amount else 0, detail=detail[:200])


def _open_for(alert: Alert, now: datetime) -> Figure:
    """The breaker that is not closed for longest, in whole seconds. One query."""
    found = min(_open(alert), default=None)
    if found is None:
        return Figure(0)
    since_at, provider, model_name = found
    return Figure(max((now - since_at) // timedelta(seconds=1), 0), detail=f"{provider}/{model_name}"[:200])


def _open(alert: Alert) -> Sequence[tuple[datetime, str, str]]:
    """Of targets in use: when a breaker went from closed to something else, its provider, its model name."""
    changes: QuerySet[BreakerChange] = BreakerChange.objects.filter(target_id=OuterRef("pk"))
    last = changes.order_by("-at", "-id")
    # Half-open is on its way from open: the story goes on until it is closed.
    began = last.filter(~Q(after="closed"), before="closed")
    targets = Target.objects.filter(enabled=True, route__enabled=True, provider__enabled=True)
    if alert.route:
        targets = targets.filter(route__model_name=alert.route)
    rows = targets.annotate(
        now_is=Subquery(last.values("after")[:1]), opened_at=Subquery(began.values("at")[:1])
    )
    rows = rows.filter(now_is__in=["open", "half_open"]).exclude(opened_at=None)
    return list(rows.values_list("opened_at", "provider__slug", "upstream_model"))
