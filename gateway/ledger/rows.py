"""Records as rows of the ledger's tables. Pure, and fast: every call goes through here."""

import time
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from django.db.models import Model

from gateway.ledger.inserting import Row, Table
from gateway.models import Attempt, Entry, Refusal, RefusalCount, Stale
from gateway.relay.records import AttemptEnded, Refusals, Seen, Settled, Skipped, Usage

MINUTE_US = 60_000_000
_encode = msgspec.json.Encoder().encode


def _table(model: type[Model], *, numbered: bool = False) -> Table:
    """With all columns; without the primary key where the database counts it."""
    fields = [each for each in model._meta.concrete_fields if not (numbered and each.primary_key)]
    return Table(model._meta.db_table, tuple(str(each.column) for each in fields))


ENTRY = _table(Entry)
ATTEMPT = _table(Attempt, numbered=True)
REFUSAL_COUNT = _table(RefusalCount, numbered=True)
REFUSAL = _table(Refusal)
STALE = _table(Stale, numbered=True)


def entry(record: Settled) -> Row:
    """One row in the order of ENTRY."""
    usage, attempts = record.usage, record.attempts
    last = attempts[-1] if attempts else None
    return (
        _id(record.call_id),
        record.team_id,
        record.key_id,
        record.route,
        record.streamed,
        record.simulated,
        record.outcome,
        record.status,
        record.code,
        moment(record.started_at_us),
        moment(record.ended_at_us),
        record.latency_us,
        record.first_token_us,
        usage.input_tokens,
        usage.cached_tokens,
        usage.output_tokens,
        usage.basis,
        record.cost_nanos,
        record.unpriced,
        _json(record.tags) if record.tags else "{}",
        record.priority,
        _json([_named(each) for each in record.skipped]) if record.skipped else "[]",
        "" if last is None else target_of(last),
        len(attempts),
        sum([each.queued_us for each in attempts]),
        *_parts(usage),
        _facts(record.limits, record.plan) if record.limits or record.plan else "{}",
    )


def attempts(record: Settled) -> Iterator[Row]:
    """Rows in the order of ATTEMPT."""
    call_id = _id(record.call_id)
    for each in record.attempts:
        yield (
            call_id,
            each.attempt_no,
            each.target_id,
            each.provider,
            each.upstream_model,
            each.outcome,
            each.status,
            moment(each.started_at_us),
            each.latency_us,
            each.first_token_us,
            each.usage.input_tokens,
            each.usage.cached_tokens,
            each.usage.output_tokens,
            each.usage.basis,
            each.price_id,
            each.cost_nanos,
            each.code,
            each.queued_us,
            each.backoff_us,
            each.probe,
            each.trimmed,
            *_parts(each.usage),
            each.price,
            each.pool_wait_us,
            each.first_byte_us,
        )


def counts(record: Refusals) -> Iterator[Row]:
    """Rows in the order of REFUSAL_COUNT."""
    batch_id = _id(record.batch_id)
    for number, each in enumerate(record.counts):
        yield (
            batch_id,
            number,
            each.minute,
            each.team_id,
            each.key_id,
            each.route,
            each.code,
            each.priority,
            each.calls,
        )


def samples(record: Refusals) -> Iterator[Row]:
    """Rows in the order of REFUSAL."""
    for each in record.samples:
        yield (
            _id(each.call_id),
            moment(each.at_us),
            each.team_id,
            each.key_id,
            each.route,
            each.status,
            each.code,
            each.priority,
            each.message,
            _facts(each.limits, ()),
        )


def marks(settled: Iterable[Settled], refusals: Iterable[Refusals]) -> list[Row]:
    """Rows in the order of STALE: each minute of each team whose sums these change."""
    found = {(1, each.started_at_us // MINUTE_US, each.team_id) for each in settled}
    found |= {(1, each.minute, each.team_id) for record in refusals for each in record.counts}
    return sorted(found)


def target_of(attempt: AttemptEnded) -> str:
    """As rollups and pages name it."""
    return f"{attempt.provider}/{attempt.upstream_model}"


def _parts(usage: Usage) -> tuple[int, int, int, int]:
    return (
        usage.cache_write_tokens,
        usage.reasoning_tokens,
        usage.audio_input_tokens,
        usage.audio_output_tokens,
    )


def _facts(limits: Sequence[Seen], plan: Sequence[str]) -> str:
    """Limits as arrays of the fields of `Seen`, because every entry has some."""
    return _json({"limits": limits, "plan": plan})


def _named(struct: Skipped) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


def _json(value: Any) -> str:
    return _encode(value).decode()


def _id(call_id: str) -> str:
    """As Django keeps a UUID where the database has no such type; PostgreSQL reads it too."""
    return call_id.replace("-", "")


def moment(at_us: int) -> str:
    """As Django writes a moment into SQLite; PostgreSQL reads it too, its connections being in UTC."""
    second, fraction = divmod(at_us, 1_000_000)
    return f"{_second(second)}.{fraction:06d}"


@lru_cache(maxsize=1024)
def _second(at_s: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at_s))
