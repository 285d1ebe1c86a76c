"""What breakers did of late, as the live page draws it: from the database, so that a restart loses none."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from django.db.models import OuterRef, Q, Subquery

from dashboard.frames import KEPT_S
from dashboard.live import EPOCH
from dashboard.standing import MOST_TARGETS
from gateway.models import BreakerChange, Target

MOST_CHANGES: Final = 1000
Story = dict[int, list[dict[str, Any]]]
"""Changes by target id, oldest first; moments in microseconds since the Unix epoch."""


class Named(NamedTuple):
    """A target that calls may go to."""

    id: int
    route: str
    name: str


def told(now: datetime, *, sees_all: bool) -> tuple[list[Named], Story]:
    """The targets, and of each every change in the kept time and the last one before it. Three queries.

    What a person wrote who did it by hand is told to operators only, as the API does.
    """
    since = now - timedelta(seconds=KEPT_S)
    targets, earlier = _targets(since)
    ids = [each.id for each in targets]
    found = BreakerChange.objects.filter(target_id__in=ids, at__gte=since).order_by("-at", "-id")[
        :MOST_CHANGES
    ]
    before = BreakerChange.objects.filter(pk__in=earlier).order_by("at", "id")
    story: Story = {}
    for change in [*before, *reversed(found)]:
        story.setdefault(change.target_id, []).append(_said(change, sees_all=sees_all))
    return targets, story


def calm(story: Story, targets: Sequence[Named], now: datetime) -> frozenset[int]:
    """Ids of the targets whose breaker was closed for the whole of the kept time, as the books tell."""
    since_us = _us(now - timedelta(seconds=KEPT_S))
    return frozenset(each.id for each in targets if _is_calm(story.get(each.id, ()), since_us))


def _is_calm(changes: Sequence[dict[str, Any]], since_us: int) -> bool:
    states = {each["after"] for each in changes}
    states |= {each["before"] for each in changes if each["at_us"] >= since_us}
    return states <= {BreakerChange.State.CLOSED}


def _targets(since: datetime) -> tuple[list[Named], list[int]]:
    """Those in use, and the ids of the changes that say how they were then.

    Of too many, those first that are not closed as the books tell: frames choose them too, see `standing`.
    """
    changes = BreakerChange.objects.filter(target_id=OuterRef("pk")).order_by("-at", "-id")
    targets = Target.objects.filter(enabled=True, route__enabled=True, provider__enabled=True)
    by_name = ("route__model_name", "provider__slug", "upstream_model", "pk")
    chosen = targets.annotate(
        earlier=Subquery(changes.filter(at__lt=since).values("pk")[:1]),
        last=Subquery(changes.values("after")[:1]),
    ).annotate(is_closed=Q(last=None) | Q(last=BreakerChange.State.CLOSED))
    rows = sorted(chosen.order_by("is_closed", *by_name).values_list(*by_name, "earlier")[:MOST_TARGETS])
    named = [Named(pk, route, f"{provider}/{model_name}") for route, provider, model_name, pk, _ in rows]
    return named, [change for *_, change in rows if change is not None]


def _said(change: BreakerChange, *, sees_all: bool) -> dict[str, Any]:
    by_hand = change.by_user_id is not None
    return {
        "at_us": _us(change.at),
        "before": change.before,
        "after": change.after,
        "until_us": None if change.until is None else _us(change.until),
        "by_hand": by_hand,
        "cause": change.cause if sees_all or not by_hand else "",
    }


def _us(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)
