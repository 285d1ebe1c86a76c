"""Holds the counters of quotas to the ledger, and tells of quotas that are nearly used up.

Counters are facts derived from the ledger: where they drifted from it, it is they that are put right.
Does not decide when it runs, nor in which process; one at a time is enough.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import connection, transaction
from msgspec import Struct

from accounts import models, notices
from accounts.actor import SYSTEM, acting_as
from accounts.amounts import figure
from accounts.audit import record
from gateway.ledger.holdings import Wanted, all_wanted
from gateway.relay.holdings import Survey, Surveyor
from gateway.relay.limits import Figures, QuotaAsk
from gateway.relay.wording import amount_of, begins_anew

log = logging.getLogger(__name__)

EVERY_S = 60.0
WARN_EVERY_S = 5.0
SETTLED_WITHIN_S = 2.0
"""By then a settlement that is in a journal is in the counters too, Redis's usual delays included."""
LATE_US = 30_000_000
"""A reservation this near to its expiry may have expired by the counters' own clock."""


class Tallies(Protocol):
    """The counters, as far as they are read and put right here."""

    async def figures(self, counters: Sequence[str], /) -> Mapping[str, Figures]:
        """By counter; those that do not exist are missing. Raises errors.Unavailable."""

    async def correct(self, counter: str, by: int, /) -> None:
        """Add so much to what was spent; nothing if there is no such counter. Raises errors.Unavailable."""


class Correction(Struct, frozen=True):
    """A counter that was wrong, in the quota's unit."""

    wanted: Wanted
    drift: int
    """It was too high by at least this; below zero, too low."""
    ledger: int
    figures: Figures
    """As they were, last read."""


def drift(before: Figures, ledger: int, after: Figures, *, late: bool = False) -> int:
    """By how much a counter surely is too high, or, below zero, too low; 0 where it may be right.

    `before` was read before the ledger was surveyed, `after` when every settlement that the survey saw
    has reached the counter. A settlement is in a journal before it is in a counter, therefore
    `before - ledger <= drift <= after - ledger`, whatever calls end meanwhile.

    An expired reservation counts as used. It is right as long as its call is under way; `late` says whether
    one such may be, and then the lower bound does without. Where none is, it is of a call whose
    settlement was lost, and counted twice: as expired and on the ledger.

    Bounds that contradict each other mean that the counter was made anew in between: the next look will tell.
    """
    low = before.spent + (0 if late else min(before.expired, after.expired)) - ledger
    high = after.spent + after.expired - ledger
    if low > high:
        return 0
    return max(low, 0) + min(high, 0)


async def reconcile(
    counters: Tallies,
    survey: Surveyor,
    *,
    now_us: Callable[[], int],
    pause: Callable[[], Awaitable[object]] | None = None,
) -> list[Correction]:
    """Compare every counter of now with the ledger, put right what surely is wrong, and note it in the audit.

    `pause` lasts SETTLED_WITHIN_S at least. Raises DatabaseError, errors.Unavailable; what was not put right
    by then is found again the next time.
    """
    wanted = await asyncio.to_thread(_read_wanted, now_us())
    before = await counters.figures([each.counter for each in wanted])
    counted = [each for each in wanted if each.counter in before]
    if not counted:
        return []
    found = await survey([_ask(each) for each in counted])
    await (asyncio.sleep(SETTLED_WITHIN_S) if pause is None else pause())
    after = await counters.figures(list(before))
    wrong = corrections(counted, before, found, after, now_us())
    return [each for each in wrong if await _put_right(counters, each)]


def corrections(
    wanted: Sequence[Wanted],
    before: Mapping[str, Figures],
    survey: Survey,
    after: Mapping[str, Figures],
    now_us: int,
) -> list[Correction]:
    """Which counters are wrong, of those that exist in both readings."""
    late = {each.counter for each in survey.open if each.expires_at_us <= now_us + LATE_US}
    found = []
    for each in wanted:
        name = each.counter
        if name in after:
            ledger = survey.spent.get(name, 0)
            by = drift(before[name], ledger, after[name], late=name in late)
            if by:
                found.append(Correction(each, by, ledger, after[name]))
    return found


def _read_wanted(now_us: int) -> list[Wanted]:
    try:
        return all_wanted(now_us)
    finally:
        connection.close()


def _ask(wanted: Wanted) -> QuotaAsk:
    return QuotaAsk(wanted.quota, wanted.counter, 0, wanted.end_us)


async def _put_right(counters: Tallies, wrong: Correction) -> bool:
    """Whether there still is such a quota. The audit is written first, so that it knows of every change."""
    if not await asyncio.to_thread(_note, wrong):
        return False
    await counters.correct(wrong.wanted.counter, -wrong.drift)
    log.warning(
        "the counter %s was too %s by %d against the ledger and was put right",
        *(wrong.wanted.counter, "high" if wrong.drift > 0 else "low", abs(wrong.drift)),
    )
    return True


def _note(wrong: Correction) -> bool:
    used = wrong.figures.spent + wrong.figures.expired
    try:
        with acting_as(SYSTEM), transaction.atomic():
            row = _row(wrong.wanted)
            if row is None:
                return False
            record(
                "quota.corrected",
                row,
                team=_team(row),
                before={"counter": wrong.wanted.counter, "used": used},
                after={"counter": wrong.wanted.counter, "used": used - wrong.drift, "ledger": wrong.ledger},
            )
            return True
    finally:
        connection.close()


def _row(wanted: Wanted) -> models.Quota | None:
    return models.Quota.objects.select_related("team", "key__team").filter(pk=wanted.quota.id).first()


def _team(row: models.Quota) -> models.Team | None:
    return row.team if row.key is None else row.key.team


class Notice(Struct, frozen=True):
    """A quota is used up to a share at which its owner wants to be told."""

    wanted: Wanted
    share: int
    """The highest of the quota's `warn_at` that was reached, in percent."""
    used: int
    """In the quota's unit."""

    @property
    def event(self) -> str:
        return "quota.reached" if self.share >= 100 else "quota.warned"

    @property
    def dedupe(self) -> str:
        """Once a quota, period and share."""
        return f"{self.wanted.counter}:{self.share}"


def notice(wanted: Wanted, figures: Figures) -> Notice | None:
    """What there is to tell of a quota. What calls under way hold is not used: most of it comes back."""
    used, amount = figures.spent + figures.expired, wanted.quota.amount
    if amount == 0:
        return None  # it never had anything that could be used up
    reached = [each for each in wanted.quota.warn_at if 100 * used >= each * amount]
    return Notice(wanted, max(reached), used) if reached else None


def subject_of(told: Notice) -> str:
    quota = told.wanted.quota
    return f"{quota.owner.name}: {told.share} % of the {quota.period}'s {quota.kind} quota is used"


def text_of(told: Notice, currency: str) -> str:
    """The notice in words: whose quota, the figures, and when it begins anew."""
    quota = told.wanted.quota
    used, anew = figure(quota.kind, told.used), begins_anew(quota, told.wanted.end_us)
    until = " Until then calls that count against it are refused." if told.share >= 100 else ""
    return (
        f"{quota.owner.leading} has used {used} of its quota of {amount_of(quota, currency)}, "
        f"which is {100 * told.used // quota.amount} %. {anew}{until}"
    )


class Warner:
    """Tells of quotas once for each share. Remembers what it told, so that most looks write nothing;
    what another process told, or this one before a restart, the outbox remembers."""

    def __init__(self, *, now_us: Callable[[], int]) -> None:
        self._now_us = now_us
        self._told: dict[str, int] = {}
        """The highest share by counter."""

    async def look(self, counters: Tallies) -> list[Notice]:
        """What was told now. Raises DatabaseError, errors.Unavailable; then it is told at the next look."""
        wanted = await asyncio.to_thread(_read_wanted, self._now_us())
        figures = await counters.figures([each.counter for each in wanted])
        fresh = self.fresh(wanted, figures)
        if fresh:
            await asyncio.to_thread(_tell, fresh)
        self._told = {each.counter: self._told.get(each.counter, 0) for each in wanted}
        self._told.update({each.wanted.counter: each.share for each in fresh})
        return fresh

    def fresh(self, wanted: Sequence[Wanted], figures: Mapping[str, Figures]) -> list[Notice]:
        """Of the shares that were reached, what was not told of yet."""
        found = (notice(each, figures[each.counter]) for each in wanted if each.counter in figures)
        return [each for each in found if each and each.share > self._told.get(each.wanted.counter, 0)]


def _tell(fresh: Sequence[Notice]) -> None:
    try:
        with transaction.atomic():
            for each in fresh:
                if (row := _row(each.wanted)) is not None:
                    _tell_owners(each, row)
    finally:
        connection.close()


def _tell_owners(told: Notice, row: models.Quota) -> int:
    wanted, currency = told.wanted, settings.LEDGER_CURRENCY
    return notices.tell(
        told.event,
        team=_team(row),
        key=row.key,
        subject=subject_of(told),
        text=text_of(told, currency),
        data={
            "quota": wanted.quota.id,
            "kind": wanted.quota.kind,
            "period": wanted.quota.period,
            "zone": wanted.quota.zone,
            "hard": wanted.quota.hard,
            "amount": wanted.quota.amount,
            "used": told.used,
            "share": told.share,
            "currency": currency if wanted.quota.kind == "money" else None,
            "period_started_at": _iso(wanted.start_us),
            "period_ends_at": _iso(wanted.end_us),
        },
        dedupe=told.dedupe,
    )


def _iso(at_us: int) -> str:
    """As JSON has moments: ISO 8601, in UTC."""
    return datetime.fromtimestamp(at_us // 1_000_000, ZoneInfo("UTC")).isoformat()
