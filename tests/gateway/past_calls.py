"""Calls of any day, on the books and in the rollups, for tests that look back."""

from datetime import UTC, datetime, timedelta
from typing import Any

from django.test.utils import CaptureQueriesContext

from gateway.exchange import NANOS
from gateway.ledger import rollups
from gateway.ledger.writer import book
from gateway.relay.call import new_call_id
from gateway.relay.records import AttemptEnded, Settled, Usage
from tests.gateway.records import opened, settled


def us(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def call(
    at: datetime,
    tokens_in: int = 100,
    tokens_out: int = 20,
    cost: float = 0,
    *,
    route: str = "gpt-4o",
    target: str = "openai/gpt-4o",
    basis: str = "reported",
    attempt_outcome: str = "answered",
    price_id: int | None = 1,
    unpriced: bool = False,
    **changes: Any,
) -> Settled:
    """One call of one attempt; cost in whole units."""
    usage, nanos = Usage(tokens_in, tokens_out, 0, basis), int(cost * NANOS)
    provider, _, upstream_model = target.partition("/")
    attempt = AttemptEnded(
        *(1, 7, provider, upstream_model, attempt_outcome, 200, us(at) + 50, 400_000, None, usage),
        price_id,
        nanos,
    )
    call_id = new_call_id(us(at) * 1000)
    return settled(
        opened(call_id=call_id, started_at_us=us(at), route=route, **changes),
        ended_at_us=us(at) + 400_100,
        usage=usage,
        cost_nanos=nanos,
        unpriced=unpriced,
        attempts=(attempt,),
    )


def keep(*calls: Settled) -> None:
    """Book them, and work the rollups out."""
    book(calls)
    last = max(each.ended_at_us for each in calls)
    now = datetime.fromtimestamp(last // 1_000_000, UTC) + timedelta(days=2)
    assert rollups.work(now, budget_s=None)


def reads(made: CaptureQueriesContext) -> list[str]:
    """The queries among what was sent to the database: views of one moment are begun and ended there too."""
    return [each["sql"] for each in made if each["sql"].startswith(("SELECT", "WITH", "(SELECT"))]
