"""What calls cost by a price that was entered late: corrections, beside figures that stay as they were.

Whoever enters a price or an exchange rate that begins in the past notes which target's calls it is about.
The work is done afterwards, in chunks, each a short transaction: what an attempt costs is worked out by all
prices of now, and where the books say otherwise, a correction is added. Entries and attempts are never
changed. Rollups follow by the marks that are set in the same transaction, and the counters of quotas by the
next survey of the ledger.

Calls are found by the index of entries by team and start, so nothing depends on how far rollups are.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple, cast
from uuid import UUID

from django.db import transaction
from django.db.models import Count, Max, Min, Model, OuterRef, Subquery
from django.utils import timezone

from accounts.models import Team
from gateway import snapshot
from gateway.models import Attempt, Correction, Entry, ExchangeRate, Price, Repricing, Stale, Target
from gateway.relay import bounds, catalog, pricing
from gateway.relay.records import AttemptEnded, Settled, Usage

log = logging.getLogger(__name__)

HEARD_WITHIN = timedelta(seconds=10)
"""By then every serving process has read a new price; calls that began before may have had the old one."""
LONGEST_CALL = timedelta(days=1)
"""An attempt begins at most so long after its call: no deadline is longer."""
MOST_ENTRIES = 500
"""Of one chunk, so that nobody waits long for its transaction."""
FIRST_WIDTH, LEAST_WIDTH = timedelta(minutes=1), timedelta(milliseconds=1)
AT_ONCE = 900
"""Call ids a query; SQLite's oldest bound on the variables of one is 999."""
PAUSE_S = 0.02
"""Between two chunks, so that whoever else waits to write gets their turn."""
LATE = "Calls that came onto the books late."
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LONGEST_CAUSE = 200


class Tried(NamedTuple):
    """An attempt as the books have it."""

    call_id: UUID
    attempt_no: int
    team_id: int
    call_started_at: datetime
    started_at: datetime
    outcome: str
    usage: Usage
    is_priced: bool
    cost_nanos: int


class Chunk(NamedTuple):
    """What one transaction did."""

    corrected: int
    width: timedelta
    """With which to try the next one."""


# Noting what is to be done


def note(
    target_ids: Collection[int],
    from_at: datetime,
    until_at: datetime,
    cause: str,
    *,
    now: datetime | None = None,
) -> None:
    """What calls to these targets that began in a span cost is to be worked out again. Raises DatabaseError.

    Call it in the transaction that enters the price. A span that lasts until now is made longer by the time
    that it takes serving processes to hear of the price, and is worked on when that is over.
    Empty spans are left out. What the new cost is, is decided when the work is done.
    """
    now = now or timezone.now()
    if until_at > now - HEARD_WITHIN:
        until_at = now + HEARD_WITHIN
    if from_at < until_at:
        Repricing.objects.bulk_create(
            Repricing(target_id=each, from_at=from_at, until_at=until_at, cause=cause[:_LONGEST_CAUSE])
            for each in sorted(set(target_ids))
        )


def note_late(settled: Sequence[Settled]) -> None:
    """Have another look at calls that are booked after their time was worked on, or at an old price.

    For the writer, in the transaction that books them: a call may end, or the journal of a dead process be
    found, long after the price that it should have had was entered; and a process that the database is away
    from goes on with the prices that it knows. Raises DatabaseError.
    """
    attempts = [attempt for call in settled for attempt in call.attempts]
    if not attempts:
        return
    began_us = [each.started_at_us for each in attempts]
    known = Repricing.objects.filter(
        until_at__gt=_moment(min(began_us)), from_at__lte=_moment(max(began_us))
    ).order_by("id")
    # Locked, so that it stays as it is until these calls are on the books: what nobody has
    # begun to work on will find them, and what was begun may have passed them.
    rows = list(known.select_for_update()) if known.exists() else []
    spans = late(attempts, rows, _price_lists())
    if spans:
        Repricing.objects.bulk_create(
            Repricing(target_id=target_id, from_at=from_at, until_at=until_at, cause=LATE)
            for target_id, (from_at, until_at) in spans.items()
        )


def late(
    attempts: Iterable[AttemptEnded],
    known: Iterable[Repricing],
    price_lists: Mapping[int, catalog.Target],
) -> dict[int, tuple[datetime, datetime]]:
    """By target, the span of those attempts whose time was worked on already, or is being worked on.

    And of those that were priced by another price than the list has, where no work is noted for them.
    """
    rows: dict[int, list[Repricing]] = defaultdict(list)
    for row in known:
        rows[row.target_id].append(row)
    moments: dict[int, list[datetime]] = defaultdict(list)
    for each in attempts:
        at = _moment(each.started_at_us)
        of = [row for row in rows.get(each.target_id, ()) if row.from_at <= at < row.until_at]
        is_begun = all(row.place is not None or row.finished_at is not None for row in of)
        if is_begun and (of or _is_outdated(each, price_lists.get(each.target_id))):
            moments[each.target_id].append(at)
    return {target_id: (min(found), max(found) + _MICROSECOND) for target_id, found in moments.items()}


def _is_outdated(attempt: AttemptEnded, price_list: catalog.Target | None) -> bool:
    """Whether another price or exchange rate holds when it began; a price that is gone changes nothing."""
    price = None if price_list is None else price_list.price_at(attempt.started_at_us)
    if price is None or price.id != attempt.price_id:
        return price is not None
    how = pricing.read(attempt.price)
    return how is not None and (how.numerator, how.denominator) != (
        price.exchange.numerator,
        price.exchange.denominator,
    )


def _price_lists() -> Mapping[int, catalog.Target]:
    """Every target as far as its prices go. Two queries, and two more once something was entered."""
    return _read_price_lists(_newest(Price), _newest(ExchangeRate))


def _newest(model: type[Model]) -> tuple[Any, ...]:
    """Changes with every row that is entered, also where a row with a lower number is seen later."""
    return tuple(model._default_manager.aggregate(Count("pk"), Max("pk"), Max("created_at")).values())


@lru_cache(maxsize=1)
def _read_price_lists(
    newest_price: tuple[Any, ...], newest_rate: tuple[Any, ...]
) -> Mapping[int, catalog.Target]:
    """As of these rows: the writer asks for every batch, and prices rarely change."""
    found = snapshot.prices_of(Price.objects.order_by("valid_from", "id"), snapshot.exchange_rates())
    return {target_id: _price_list(target_id, prices) for target_id, prices in found.items()}


# Doing it


def work(now: datetime, *, most: int = 200, pause_s: float = PAUSE_S) -> int:
    """Do what was noted, the oldest first, in so many chunks at most; gives the number of corrections.

    May be killed at any point, run twice, or in several processes at a time. Raises DatabaseError.
    """
    corrected, width = 0, FIRST_WIDTH
    for number in range(most):
        if number:
            time.sleep(pause_s)
        done = work_on_next(now, width)
        if done is None:
            break
        corrected += done.corrected
        width = done.width
    return corrected


@transaction.atomic
def work_on_next(now: datetime, width: timedelta = FIRST_WIDTH) -> Chunk | None:
    """One chunk of the oldest repricing that is due; None where there is none. Raises DatabaseError."""
    due = Repricing.objects.filter(finished_at=None, until_at__lte=now).order_by("id")
    row = due.select_for_update().first()
    if row is None:
        return None
    # One at a time for a target: each has to see the corrections of the other.
    target = Target.objects.select_for_update(no_key=True).filter(pk=row.target_id).first()
    if target is None:
        return _stop(row, now)
    return _work_on(row, now, width)


def _stop(row: Repricing, now: datetime) -> Chunk:
    """Its prices are gone with the target, so there is nothing to work it out by."""
    why = " Stopped: the target was removed."
    row.cause = row.cause[: _LONGEST_CAUSE - len(why)] + why
    row.finished_at = now
    row.save(update_fields=["cause", "finished_at"])
    log.warning("repricing %d stopped: the target %d was removed", row.pk, row.target_id)
    return Chunk(0, FIRST_WIDTH)


def _work_on(row: Repricing, now: datetime, width: timedelta) -> Chunk:
    teams = list(Team.objects.order_by("pk").values_list("pk", flat=True))
    start = _next_start(row.place or row.from_at - LONGEST_CALL, row.until_at)
    if start is None:
        return _advance(row, row.until_at, 0, now, FIRST_WIDTH)
    stop, entries = _slice(teams, start, row.until_at, width)
    made = _corrections(row, _tried(row, teams, start, stop))
    Correction.objects.bulk_create(made)
    _mark(made)
    grown = 2 * (stop - start) if 4 * entries < MOST_ENTRIES else stop - start
    return _advance(row, stop, len(made), now, max(grown, LEAST_WIDTH))


def _advance(row: Repricing, place: datetime, corrected: int, now: datetime, width: timedelta) -> Chunk:
    row.place = place
    row.corrected += corrected
    if place >= row.until_at:
        row.finished_at = now
        log.info("repricing %d of target %d: %d corrections", row.pk, row.target_id, row.corrected)
    row.save(update_fields=["place", "corrected", "finished_at"])
    return Chunk(corrected, width)


def _next_start(after: datetime, until: datetime) -> datetime | None:
    """When the first call from a moment on began; a look into the index for each team."""
    calls = Entry.objects.filter(team_id=OuterRef("pk"), started_at__gte=after, started_at__lt=until)
    first = Subquery(calls.order_by("started_at").values("started_at")[:1])
    found = Team.objects.annotate(first_call_at=first).aggregate(at=Min("first_call_at"))
    return cast(datetime | None, found["at"])


def _slice(teams: list[int], start: datetime, until: datetime, width: timedelta) -> tuple[datetime, int]:
    """Where a chunk ends that has not too many entries, and how many it has."""
    while True:
        stop = min(start + width, until)
        calls = Entry.objects.filter(team_id__in=teams, started_at__gte=start, started_at__lt=stop)
        entries = calls.order_by()[: MOST_ENTRIES + 1].count()
        if entries <= MOST_ENTRIES or width <= LEAST_WIDTH:
            return stop, entries
        width = max(min(width, until - start) / 2, LEAST_WIDTH)


_COLUMNS = (
    *("entry_id", "attempt_no", "entry__team_id", "entry__started_at", "started_at", "outcome", "price_id"),
    *("cost_nanos", "input_tokens", "output_tokens", "cached_tokens", "usage_basis"),
    *("cache_write_tokens", "reasoning_tokens", "audio_input_tokens", "audio_output_tokens"),
)


def _tried(row: Repricing, teams: list[int], start: datetime, stop: datetime) -> list[Tried]:
    """The attempts at the target that began in its span, of calls that began in the chunk's."""
    found = Attempt.objects.filter(
        entry__team_id__in=teams,
        entry__started_at__gte=start,
        entry__started_at__lt=stop,
        target_id=row.target_id,
        started_at__gte=row.from_at,
        started_at__lt=row.until_at,
    )
    return [_one(*each) for each in found.order_by().values_list(*_COLUMNS)]


def _one(
    call_id: UUID,
    attempt_no: int,
    team_id: int,
    call_started_at: datetime,
    started_at: datetime,
    outcome: str,
    price_id: int | None,
    cost_nanos: int,
    *usage: Any,
) -> Tried:
    """A row of _COLUMNS."""
    is_priced = price_id is not None
    return Tried(
        *(call_id, attempt_no, team_id, call_started_at, started_at, outcome),
        *(Usage(*usage), is_priced, cost_nanos),
    )


def _corrections(row: Repricing, tried: Sequence[Tried]) -> list[Correction]:
    if not tried:
        return []
    prices = _prices_of(row.target_id)
    earlier = corrections_of({each.call_id for each in tried})
    found = (
        correction(each, earlier.get(each.call_id, ()), prices.price_at(_us(each.started_at)))
        for each in tried
    )
    made = [each for each in found if each is not None]
    for each in made:
        each.repricing = row
    return made


def _prices_of(target_id: int) -> catalog.Target:
    """The target as far as its prices go, so that they are chosen by the relay's own rule."""
    rows = Price.objects.filter(target_id=target_id).order_by("valid_from", "id")
    return _price_list(target_id, snapshot.prices_of(rows, snapshot.exchange_rates()).get(target_id, ()))


def _price_list(target_id: int, prices: tuple[catalog.Price, ...]) -> catalog.Target:
    return catalog.Target(target_id, "", "", "", None, prices=prices)


def correction(tried: Tried, earlier: Iterable[Correction], price: catalog.Price | None) -> Correction | None:
    """What is to be added to the books, not saved and without its repricing; None where they are right.

    Where there is no price now, what was known of the cost stays.
    """
    if price is None:
        return None
    own = [each for each in earlier if each.attempt_no == tried.attempt_no]
    before_nanos = tried.cost_nanos + _change(own)
    was_priced = tried.is_priced or any(each.prices for each in own)
    price = _as_booked(price, tried)
    after_nanos = pricing.cost_nanos(tried.usage, price)
    if was_priced and before_nanos == after_nanos:
        return None
    return Correction(
        call_id=tried.call_id,
        attempt_no=tried.attempt_no,
        team_id=tried.team_id,
        started_at=tried.call_started_at,
        before_nanos=before_nanos,
        after_nanos=after_nanos,
        prices=not was_priced,
        price=pricing.told(tried.usage, price),
    )


def _as_booked(price: catalog.Price, tried: Tried) -> catalog.Price:
    """What was abandoned is booked at its worst case, every token at the dearest rate that it can have."""
    if tried.outcome != "abandoned":
        return price
    return replace(price, rates=bounds.dearest_of(price, tried.usage.input_tokens), tiers=())


def _mark(made: Sequence[Correction]) -> None:
    """The minutes whose sums change."""
    found = {(_us(each.started_at) // 60_000_000, each.team_id) for each in made}
    Stale.objects.bulk_create(Stale(size=1, start=start, team_id=team_id) for start, team_id in sorted(found))


# What calls cost with their corrections


def corrections_of(call_ids: Collection[UUID]) -> Mapping[UUID, list[Correction]]:
    """By call, in the order in which they were made; calls without any are missing."""
    found: dict[UUID, list[Correction]] = defaultdict(list)
    wanted = list(call_ids)
    for start in range(0, len(wanted), AT_ONCE):
        for each in Correction.objects.filter(call_id__in=wanted[start : start + AT_ONCE]).order_by("id"):
            found[each.call_id].append(each)
    return dict(found)


def effective_cost(entry: Entry, corrections: Iterable[Correction]) -> int:
    """What a call costs by all that is known: its entry's figure and the changes of its corrections."""
    return entry.cost_nanos + _change(corrections)


def is_unpriced(attempts: Iterable[Attempt], corrections: Iterable[Correction]) -> bool:
    """Whether a call with these attempts and corrections still has an attempt without a price."""
    priced = {each.attempt_no for each in corrections if each.prices}
    return any(each.price_id is None and each.attempt_no not in priced for each in attempts)


def _change(corrections: Iterable[Correction]) -> int:
    return sum(each.after_nanos - each.before_nanos for each in corrections)


def _moment(at_us: int) -> datetime:
    return _EPOCH + at_us * _MICROSECOND


def _us(moment: datetime) -> int:
    """Exact, unlike `timestamp`, which is a float."""
    return (moment - _EPOCH) // _MICROSECOND
