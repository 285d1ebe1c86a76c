"""Calls from the journal's bytes onto the ledger, in the process that `benchmarks.carry_over` begins."""

import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks.configured import CALL_NANOS, LIMITED, PRICE
from benchmarks.wire import MODEL_NAME, USAGE
from gateway.ledger.journal import Journal
from gateway.ledger.writer import BATCH, book
from gateway.models import Entry
from gateway.relay import pricing
from gateway.relay.call import new_call_id
from gateway.relay.limits import seen_quota, seen_rate
from gateway.relay.records import AttemptEnded, Dispatched, Opened, Settled, Usage

CALLS: Final = 5 * BATCH
USED: Final = Usage(USAGE["prompt_tokens"], USAGE["completion_tokens"], 0, "reported")
LIMITS: Final = (
    *(seen_rate(each, 1, 7) for each in LIMITED.rate_limits),
    *(seen_quota(each, CALL_NANOS, 10**9) for each in LIMITED.quotas),
)
TARGET: Final = (1, "bench", MODEL_NAME)


def write_calls(journal: Journal) -> None:
    """As the relay does, with everything on: opened, dispatched, settled."""
    text = pricing.told(USED, PRICE)
    for _ in range(CALLS):
        now_ns = time.time_ns()
        call_id, now_us = new_call_id(now_ns), now_ns // 1000
        opened = Opened(call_id, now_us, 1, 1, MODEL_NAME, False, False, {"app": "bench"})
        ticket = journal.open(opened)
        sent = Dispatched(call_id, 1, now_us, *TARGET, 1, USED, CALL_NANOS, text)
        journal.dispatch(ticket, sent)
        journal.settle(ticket, _settled(opened, now_us, text))


def _settled(call: Opened, now_us: int, text: str) -> Settled:
    attempt = AttemptEnded(
        1, *TARGET, "answered", 200, now_us, 900, None, USED, 1, CALL_NANOS, price=text, first_byte_us=800
    )
    return Settled(
        call.call_id,
        now_us,
        now_us + 1000,
        call.team_id,
        call.key_id,
        call.route,
        call.streamed,
        call.simulated,
        call.tags,
        "answered",
        200,
        "",
        1000,
        None,
        USED,
        CALL_NANOS,
        False,
        (attempt,),
        limits=LIMITS,
        plan=(f"bench/{MODEL_NAME}",),
    )


def carry_over(journal: Journal) -> float:
    """CPU time for one call in microseconds: read, made into rows, sent and committed."""
    began = time.process_time()
    for segment in journal.segments:
        settled = [each for each in segment.read(0, segment.end) if isinstance(each, Settled)]
        book(settled)
    return (time.process_time() - began) / CALLS * 1e6


def measured(rounds: int) -> list[float]:
    """CPU time of this process for one call in microseconds, of each round.

    The first one makes the connection and is not counted.
    """
    before = Entry.objects.count()
    found = [_round() for _ in range(rounds + 1)]
    assert Entry.objects.count() - before == CALLS * (rounds + 1)
    return found[1:]


def _round() -> float:
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "one", max_bytes=1 << 30)
        write_calls(journal)
        spent = carry_over(journal)
        journal.close()
    return spent
