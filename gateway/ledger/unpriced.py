"""Calls whose cost nobody knows yet: which targets lack a price, since when, and how much went there.

Read from rollups. A call counts at its last target, which need not be the one that lacks a price:
where that one has a price by now, the other targets of the route are looked at.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import F, Max, Min, Q, QuerySet, Sum

from gateway import snapshot
from gateway.ledger.cover import DAY, QUARTER, Run, cover, floor
from gateway.ledger.marks import marks_in
from gateway.ledger.spans import minute_of, moment_of
from gateway.models import Price, Repricing, Rollup, Target
from gateway.relay import catalog

LOOKED_BACK = timedelta(days=366)
MOST = 200
"""Routes and targets that are told of, the ones with most calls first."""


@dataclass(frozen=True, slots=True)
class Lacking:
    """A target that had no price, or none that could be used, at some time while there were these calls."""

    target_id: int
    name: str
    """Provider and upstream model."""
    currency: str
    """It has a price in this currency, and no exchange rate for it; empty: it has no price."""


@dataclass(frozen=True, slots=True)
class Unpriced:
    """Calls of one route that ended at one target, at least one attempt of each without a price."""

    route: str
    target: str
    """Provider and upstream model as they were called; empty: nothing was sent."""
    calls: int
    input_tokens: int
    output_tokens: int
    is_mixed: bool
    """The tokens are those of other calls too, made within the same quarter-hour or day."""
    since: datetime
    """At most a quarter-hour before the first of them."""
    until: datetime
    """When the bucket of the last of them begins."""
    lacking: tuple[Lacking, ...]
    """That a price has to be entered for, from `since` on; none: it was entered, or they are gone."""
    is_gone: bool
    """Nothing is called like this any more, so that there is nothing to enter a price for."""
    is_in_work: bool
    """A price was entered, and what it changes is being worked out."""


def found(team_ids: Collection[int] | None, now: datetime) -> list[Unpriced]:
    """What the calls of these teams lack, the most calls first; None: of all teams. Raises DatabaseError.

    Goes a year back. Seven queries, none of which reads entries.
    """
    summed = _summed(team_ids, now)
    if not summed:
        return []
    since = _since(team_ids, summed)
    targets = _targets(summed)
    in_work = set(Repricing.objects.filter(finished_at=None).values_list("target_id", flat=True))
    return [_told(each, since[each.key], targets, in_work) for each in summed]


def lacking_since(target_id: int, now: datetime) -> datetime | None:
    """From when on a target needs a price; None: it does not lack one. Raises DatabaseError."""
    moments = [
        each.since
        for each in found(None, now)
        if target_id in [lacking.target_id for lacking in each.lacking]
    ]
    return min(moments, default=None)


# Reading


@dataclass(frozen=True, slots=True)
class _Summed:
    route: str
    target: str
    calls: int
    all_calls: int
    input_tokens: int
    output_tokens: int
    first: int
    """The start of the first bucket, in minutes since the Unix epoch."""
    last: int
    stop: int
    """Where the last of them ends."""

    @property
    def key(self) -> tuple[str, str]:
        return self.route, self.target


def _summed(team_ids: Collection[int] | None, now: datetime) -> list[_Summed]:
    stop = minute_of(now) + 1
    start = floor(minute_of(now - LOOKED_BACK), DAY)
    rows = _rows(team_ids, cover(start, stop, marks_in(start, stop, team_ids)))
    sums = rows.values_list("route", "target").annotate(
        unpriced_calls=Sum("unpriced"),
        all_calls=Sum("calls"),
        input_sum=Sum("input_tokens"),
        output_sum=Sum("output_tokens"),
        first=Min("start"),
        last=Max("start"),
        stop=Max(F("start") + F("size")),
    )
    return [_Summed(*each) for each in sums.order_by("-unpriced_calls", "route", "target")[:MOST]]


def _rows(team_ids: Collection[int] | None, runs: Iterable[Run]) -> QuerySet[Rollup]:
    within = Q()
    for run in runs:
        within |= Q(size=run.size, start__gte=run.start, start__lt=run.stop)
    rows = Rollup.objects.filter(within, unpriced__gt=0).order_by()
    return rows if team_ids is None else rows.filter(team_id__in=list(team_ids))


def _since(team_ids: Collection[int] | None, summed: Sequence[_Summed]) -> Mapping[tuple[str, str], datetime]:
    """To the quarter-hour: a day's bucket tells the day alone."""
    days = {floor(each.first, DAY) for each in summed}
    rows = _rows(team_ids, [Run(QUARTER, day, day + DAY) for day in sorted(days)])
    quarters = {
        (route, target): start
        for route, target, start in rows.values_list("route", "target").annotate(Min("start"))
    }
    return {each.key: moment_of(max(each.first, quarters.get(each.key, 0))) for each in summed}


# Whose price is missing


@dataclass(frozen=True, slots=True)
class _Known:
    """A target as it is now."""

    target_id: int
    name: str
    route: str
    prices: tuple[catalog.Price, ...]

    def lacks(self, since: datetime, stop: datetime) -> Lacking | None:
        """None: it has a price all the time; `stop` is outside."""
        held = next((each for each in reversed(self.prices) if each.valid_from_us <= _us(since)), None)
        later = [each for each in self.prices if _us(since) < each.valid_from_us < _us(stop)]
        for price in (held, *later):
            if price is None or not price.usable:
                return Lacking(self.target_id, self.name, price.currency if price else "")
        return None


def _targets(summed: Sequence[_Summed]) -> list[_Known]:
    """The targets of these routes, and those that are called as these are."""
    wanted = Q(route__model_name__in={each.route for each in summed})
    for provider, upstream_model in {_taken_apart(each.target) for each in summed}:
        wanted |= Q(provider__slug=provider, upstream_model=upstream_model)
    rows = list(Target.objects.filter(wanted).select_related("provider", "route"))
    prices = snapshot.prices_of(
        Price.objects.filter(target__in=rows).order_by("valid_from", "id"), snapshot.exchange_rates()
    )
    return [_Known(each.pk, str(each), each.route.model_name, prices.get(each.pk, ())) for each in rows]


def _taken_apart(target: str) -> tuple[str, str]:
    provider, _, upstream_model = target.partition("/")
    return provider, upstream_model


def _told(summed: _Summed, since: datetime, targets: Sequence[_Known], in_work: Collection[int]) -> Unpriced:
    until, stop = moment_of(summed.last), moment_of(summed.stop)
    concerned = _concerned(summed, targets)
    lacking = [lack for each in concerned if (lack := each.lacks(since, stop))]
    own = [each for each in lacking if each.name == summed.target]
    return Unpriced(
        route=summed.route,
        target=summed.target,
        calls=summed.calls,
        input_tokens=summed.input_tokens,
        output_tokens=summed.output_tokens,
        is_mixed=summed.calls < summed.all_calls,
        since=since,
        until=until,
        lacking=tuple(own or lacking),
        is_gone=not lacking and all(each.name != summed.target for each in concerned),
        is_in_work=any(each.target_id in in_work for each in concerned),
    )


def _concerned(summed: _Summed, targets: Sequence[_Known]) -> list[_Known]:
    """The targets of the route; where it was renamed or is gone, those that are called alike."""
    of_route = [each for each in targets if each.route == summed.route]
    return of_route or [each for each in targets if each.name == summed.target]


def _us(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000
