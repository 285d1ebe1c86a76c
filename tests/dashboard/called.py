"""Calls on the books for tests of pages: one that fell back and was dear, and everyday ones."""

from datetime import datetime, timedelta

import msgspec

from accounts.models import ApiKey, Team
from gateway.ledger.writer import book
from gateway.relay import pricing
from gateway.relay.call import new_call_id
from gateway.relay.catalog import Exchange, Price, Rates
from gateway.relay.records import AttemptEnded, Seen, Settled, Skipped, Usage
from tests.gateway.records import opened, settled

PRICE = Price(
    7, 0, Rates(18_000_000_000, 9_000_000_000, 73_000_000_000), currency="CNY", exchange=Exchange(10, 73)
)
USED = Usage(12_400, 1_830, 8_000, "reported")
LIMITS = (
    Seen("key", "requests", "minute", 100, 41, 1),
    Seen("team", "tokens", "minute", 100_000, 78_200, 14_000),
    Seen("team", "money", "month", 250_000_000_000, 181_400_000_000, 240_000_000, hard=True),
)


def us_of(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000)


def a_call(team: Team, key: ApiKey, moment: datetime, **changes) -> Settled:
    """That was answered in 400 ms."""
    at_us = us_of(moment)
    tags = changes.pop("tags", None)
    call = opened(
        call_id=new_call_id(at_us * 1000), started_at_us=at_us, team_id=team.pk, key_id=key.pk, tags=tags
    )
    made = settled(call, ended_at_us=at_us + 400_100)
    attempts = tuple(msgspec.structs.replace(each, started_at_us=at_us + 50) for each in made.attempts)
    return msgspec.structs.replace(made, **{"attempts": attempts, **changes})


def that_fell_back(team: Team, key: ApiKey, moment: datetime) -> Settled:
    """It waited at a gate, failed at one target and again, and was answered by another for a good deal."""
    at_us = us_of(moment)
    busy = AttemptEnded(
        *(1, 9, "acme", "gpt-4o", "failed", 503, at_us + 1_400_000, 310_000, None, Usage(), 7, 0),
        *("status_503", 1_390_000, 0, False, 0, pricing.told(Usage(), PRICE), 4_000, 300_000),
    )
    again = AttemptEnded(
        *(2, 9, "acme", "gpt-4o", "timed_out", None, at_us + 2_600_000, 900_000, None, Usage(), 7, 0),
        *("connect_timeout", 2_000, 880_000, True, 0, pricing.told(Usage(), PRICE), 0, None),
    )
    answered = AttemptEnded(
        *(3, 7, "openai", "gpt-4o", "answered", 200, at_us + 3_505_000, 2_900_000, 420_000, USED, 7),
        *(pricing.cost_nanos(USED, PRICE), "", 4_000, 0, False, 2, pricing.told(USED, PRICE), 1_000, 400_000),
    )
    return a_call(
        team,
        key,
        moment,
        streamed=True,
        latency_us=6_410_000,
        ended_at_us=at_us + 6_410_000,
        first_token_us=3_925_000,
        usage=USED,
        cost_nanos=answered.cost_nanos,
        attempts=(busy, again, answered),
        skipped=(Skipped(11, "spare", "gpt-4o", "open"),),
        plan=("acme/gpt-4o", "spare/gpt-4o", "openai/gpt-4o", "last/gpt-4o-mini"),
        limits=LIMITS,
        tags={"project": "apollo", "stage": "nightly"},
        priority="batch",
    )


def booked(*records: Settled) -> None:
    book(records)


def some(team: Team, key: ApiKey, now: datetime, number: int) -> list[Settled]:
    """One every seven minutes, each ninth failed."""
    return [
        a_call(team, key, now - timedelta(minutes=7 * each, seconds=3), **_kind(each))
        for each in range(number)
    ]


def _kind(number: int) -> dict[str, object]:
    if number % 9 == 5:
        return {"outcome": "failed", "status": 504, "code": "upstream_timeout", "cost_nanos": 0}
    return {"first_token_us": 90_000, "latency_us": 300_000 + 7_000 * number}
