"""One minute of a busy house, worked out from its entries; `benchmarks.carry_over` begins the process."""

import random
import time
from datetime import UTC, datetime
from typing import Final

import msgspec

from gateway.ledger import rollups
from gateway.ledger.writer import BATCH, book
from gateway.models import Rollup
from tests.gateway.records import AT_US, opened, settled

CALLS: Final = 60_000
KEYS, ROUTES = 10, 4


def measured() -> float:
    """How long one run of the job takes with a minute of so many calls to work out, in seconds."""
    picks = random.Random(1)
    first_us = AT_US // 60_000_000 * 60_000_000
    now = datetime.fromtimestamp(AT_US / 1e6, UTC)
    while not rollups.work(now, budget_s=None):
        continue
    calls = [
        msgspec.structs.replace(
            settled(
                opened(
                    key_id=number % KEYS,
                    route=f"gpt-{number % ROUTES}",
                    started_at_us=first_us + picks.randrange(60_000_000),
                )
            ),
            latency_us=int(picks.lognormvariate(13, 0.7)),
            first_token_us=int(picks.lognormvariate(12, 0.7)),
        )
        for number in range(CALLS)
    ]
    for start in range(0, CALLS, BATCH):
        book(calls[start : start + BATCH])
    began = time.perf_counter()
    rollups.work(now)
    spent_s = time.perf_counter() - began
    minutes = Rollup.objects.filter(size=1, start=first_us // 60_000_000)
    assert sum(minutes.values_list("calls", flat=True)) == CALLS
    return spent_s
