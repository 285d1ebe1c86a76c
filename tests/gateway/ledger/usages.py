"""Calls for tests of questions to the books: many, booked and worked out, and the same summed naively."""

import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils import timezone

from accounts.models import ApiKey, Team
from gateway import histograms
from gateway.ledger import rollups
from gateway.ledger.queries import Sums
from gateway.ledger.rows import target_of
from gateway.ledger.writer import book
from gateway.models import Rollup
from gateway.relay.call import new_call_id
from gateway.relay.records import AttemptEnded, Basis, Settled, Usage, total_of

MINUTE_US = 60_000_000
OUTCOMES = ("answered", "answered", "answered", "failed", "truncated", "hung_up", "rejected")
TARGETS = (("openai", "gpt-4o"), ("openai", "gpt-4o-mini"), ("acme", "gpt-4o"))


def settled_at(team: int, key: int, at_us: int, chance: random.Random) -> Settled:
    """A call with one or two attempts of any kind."""
    attempts = tuple(_attempt(no + 1, at_us, chance) for no in range(chance.choice((1, 1, 1, 2))))
    latency_us = sum(each.latency_us for each in attempts)
    outcome = chance.choice(OUTCOMES)
    return Settled(
        call_id=new_call_id(at_us * 1000),
        started_at_us=at_us,
        ended_at_us=at_us + latency_us,
        team_id=team,
        key_id=key,
        route=chance.choice(("gpt-4o", "fast", "wise")),
        streamed=chance.random() < 0.5,
        simulated=False,
        tags={"project": chance.choice(("north", "south"))} if chance.random() < 0.7 else None,
        outcome=outcome,
        status=200,
        code="" if outcome == "answered" else "upstream_failed",
        latency_us=latency_us,
        first_token_us=chance.choice((None, latency_us // 3)),
        usage=_total_of([each.usage for each in attempts]),
        cost_nanos=sum(each.cost_nanos for each in attempts),
        unpriced=False,
        attempts=attempts,
        priority=chance.choice(("normal", "batch")),
    )


def _total_of(usages: Sequence[Usage]) -> Usage:
    """Reported, where any is."""
    basis: Basis = "reported" if any(each.basis == "reported" for each in usages) else "none"
    return total_of(usages, basis)


def _attempt(no: int, at_us: int, chance: random.Random) -> AttemptEnded:
    provider, upstream_model = chance.choice(TARGETS)
    input_tokens, output_tokens = chance.randrange(3000), chance.randrange(900)
    basis: Basis = chance.choice(("reported", "reported", "none"))
    usage = Usage(input_tokens, output_tokens, input_tokens // 3, basis, 0, output_tokens // 4)
    return AttemptEnded(
        attempt_no=no,
        target_id=TARGETS.index((provider, upstream_model)) + 1,
        provider=provider,
        upstream_model=upstream_model,
        outcome="answered",
        status=200,
        started_at_us=at_us,
        latency_us=chance.randrange(1000, 4_000_000),
        first_token_us=None,
        usage=usage,
        price_id=None,
        cost_nanos=chance.randrange(10**7),
        queued_us=chance.randrange(1000),
    )


def made(teams: int, keys: int, calls: int, since: datetime, until: datetime, seed: int = 5) -> list[Settled]:
    """So many calls of new teams, anywhere in a span."""
    chance = random.Random(seed)
    owners = [_owner(f"team{team}", keys) for team in range(teams)]
    first, last = int(since.timestamp() * 1e6), int(until.timestamp() * 1e6)
    found = []
    for _ in range(calls):
        team, of_team = chance.choice(owners)
        found.append(settled_at(team, chance.choice(of_team), chance.randrange(first, last), chance))
    return found


def rolled_up(calls: Iterable[Settled]) -> None:
    """Write rollups of all sizes by hand, as `models.Measures` says, without the ledger."""
    rows: dict[tuple[Any, ...], Rollup] = {}
    for call in calls:
        for size in Rollup.Size.values:
            start = call.started_at_us // MINUTE_US // size * size
            last = _row(rows, call, call.attempts[-1], size, start)
            _count(last, call)
            for attempt in call.attempts:
                _add(_row(rows, call, attempt, size, start), attempt)
    Rollup.objects.bulk_create(rows.values(), batch_size=400)


def _row(
    rows: dict[tuple[Any, ...], Rollup], call: Settled, attempt: AttemptEnded, size: int, start: int
) -> Rollup:
    names: dict[str, Any] = {
        "size": size,
        "start": start,
        "team_id": call.team_id,
        "key_id": call.key_id,
        "route": call.route,
        "target": target_of(attempt),
        "outcome": call.outcome,
        "code": call.code,
        "priority": call.priority,
    }
    return rows.setdefault(tuple(names.values()), Rollup(**names))


def _count(row: Rollup, call: Settled) -> None:
    row.calls += 1
    row.latency_us += call.latency_us
    row.latency = _counted(row.latency, call.latency_us)
    if call.first_token_us is not None:
        row.first_token = _counted(row.first_token, call.first_token_us)


def _counted(data: bytes, duration_us: int) -> bytes:
    histogram = {histograms.bucket_of(duration_us): 1}
    histograms.add_packed(histogram, data)
    return histograms.packed(histogram)


def _add(row: Rollup, attempt: AttemptEnded) -> None:
    row.attempts += 1
    row.billed_attempts += attempt.usage.basis != "none"
    row.input_tokens += attempt.usage.input_tokens
    row.cached_tokens += attempt.usage.cached_tokens
    row.output_tokens += attempt.usage.output_tokens
    row.reasoning_tokens += attempt.usage.reasoning_tokens
    row.cost_nanos += attempt.cost_nanos
    row.queued_us += attempt.queued_us


def booked(calls: Sequence[Settled]) -> None:
    """Put calls on the ledger and let the job work them out."""
    for place in range(0, len(calls), 5000):
        book(calls[place : place + 5000])
    last = max(each.started_at_us for each in calls)
    work_out(datetime.fromtimestamp(last / 1e6, UTC) + timedelta(days=2))


def _owner(name: str, keys: int) -> tuple[int, list[int]]:
    team = Team.objects.create(name=name.title(), slug=name)
    return team.pk, [ApiKey.objects.create(team=team, name=f"{name} {each}").pk for each in range(keys)]


def work_out(now: datetime | None = None) -> None:
    """Until no mark is left that can be worked out by now."""
    while not rollups.work(now or timezone.now(), budget_s=None):
        pass


def naive(calls: Iterable[Settled], since: datetime, until: datetime) -> Sums:
    """The sums of calls that started in a span, by hand."""
    first, last = since.timestamp() * 1e6, until.timestamp() * 1e6
    sums = Sums()
    for each in calls:
        if first <= each.started_at_us < last:
            sums.calls += 1
            sums.failed += each.outcome in ("failed", "truncated")
            sums.attempts += len(each.attempts)
            sums.billed_attempts += sum(attempt.usage.basis != "none" for attempt in each.attempts)
            sums.input_tokens += each.usage.input_tokens
            sums.cached_tokens += each.usage.cached_tokens
            sums.output_tokens += each.usage.output_tokens
            sums.reasoning_tokens += each.usage.reasoning_tokens
            sums.cost_nanos += each.cost_nanos
            sums.queued_us += sum(attempt.queued_us for attempt in each.attempts)
            sums.latency_us += each.latency_us
    return sums


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def added(parts: Sequence[Sums]) -> Sums:
    """All together."""
    names = [each for each in Sums.__struct_fields__ if each not in ("latency", "first_token", "no_rate_on")]
    return Sums(**{name: sum(getattr(each, name) for each in parts) for name in names})
