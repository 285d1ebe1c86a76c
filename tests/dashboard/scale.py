"""A large ledger: calls as an ordinary house makes them, booked and rolled up by the gateway's own code.

Most are of one team; the other teams, keys, model names, outcomes and tags are drawn from a seed.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection

from gateway.ledger import rollups
from gateway.ledger.writer import BATCH, book
from gateway.models import Target
from gateway.relay import pricing
from gateway.relay.call import new_call_id
from gateway.relay.catalog import Price, Rates
from gateway.relay.records import AttemptEnded, CallOutcome, Refusals, RefusedCount, Settled, Usage
from tests.gateway.records import refused

End = tuple[CallOutcome, int, str, int]
ENDS: Sequence[End] = (
    ("answered", 200, "", 940),
    ("failed", 502, "upstream_unreachable", 20),
    ("hung_up", 499, "hung_up", 20),
    ("truncated", 200, "upstream_unreachable", 10),
    ("rejected", 400, "context_length_exceeded", 9),
    ("abandoned", 499, "abandoned", 1),
)
"""Outcome, status, code, and how many of a thousand."""
SHARE_OF_THE_FIRST = 0.9
"""Of the calls, those of the first team."""


@dataclass
class Crowd:
    """Whose calls these are, and where they go."""

    team_ids: Sequence[int]
    key_ids: Sequence[Sequence[int]]
    """Of each team."""
    targets: Sequence[Target]
    until: datetime
    days: int
    seed: int = 1

    def calls(self, count: int) -> Iterator[Settled]:
        """So many, spread evenly over the days, in the order of their beginnings."""
        picks = random.Random(self.seed)
        first_us = int((self.until - timedelta(days=self.days)).timestamp() * 1e6)
        step_us = self.days * 86_400_000_000 // count
        for number in range(count):
            yield self._call(picks, first_us + number * step_us)

    def _call(self, picks: random.Random, at_us: int) -> Settled:
        chosen = 0 if picks.random() < SHARE_OF_THE_FIRST else picks.randrange(1, len(self.team_ids))
        return self._ended(picks, at_us, chosen, picks.choices(ENDS, [each[-1] for each in ENDS])[0])

    def _ended(self, picks: random.Random, at_us: int, chosen: int, end: End) -> Settled:
        """One of the chosen team's that ended so."""
        outcome, status, code, _ = end
        target = picks.choice(self.targets)
        usage = Usage(picks.randint(10, 4000), picks.randint(1, 900), picks.randint(0, 9), "reported")
        price = Price(1, 0, Rates(2_500_000_000, 1_250_000_000, 10_000_000_000))
        cost, latency_us = pricing.cost_nanos(usage, price), int(picks.lognormvariate(14, 0.8))
        attempt = AttemptEnded(
            1,
            target.pk,
            target.provider.slug,
            target.upstream_model,
            "answered" if outcome in ("answered", "hung_up") else "failed",
            status,
            at_us,
            latency_us,
            latency_us // 4,
            usage,
            1,
            cost,
            code,
            price=pricing.told(usage, price),
        )
        return Settled(
            new_call_id(at_us * 1000),
            at_us,
            at_us + latency_us,
            self.team_ids[chosen],
            picks.choice(self.key_ids[chosen]),
            target.route.model_name,
            picks.random() < 0.5,
            False,
            {"app": f"app-{picks.randrange(5)}"},
            outcome,
            status,
            code,
            latency_us,
            latency_us // 4,
            usage,
            cost,
            False,
            (attempt,),
            "normal" if picks.random() < 0.95 else "batch",
        )


def fill(crowd: Crowd, count: int, *, refusals: int = 1000) -> None:
    """Book so many calls and refusals, and roll them up."""
    batch: list[Settled] = []
    for each in crowd.calls(count):
        batch.append(each)
        if len(batch) == BATCH:
            book(batch)
            batch = []
    book(batch, list(_refusals(crowd, refusals)))
    rollups.work(crowd.until, budget_s=None)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def _refusals(crowd: Crowd, count: int) -> Iterator[Refusals]:
    at_us = int(crowd.until.timestamp() * 1e6) - 60_000_000
    team_id, [key_id, *_] = crowd.team_ids[0], crowd.key_ids[0]
    for number in range(count):
        call = refused(
            call_id=new_call_id((at_us + number) * 1000), at_us=at_us + number, team_id=team_id, key_id=key_id
        )
        each = RefusedCount(at_us // 60_000_000, team_id, key_id, call.route, call.code, "normal", 1)
        yield Refusals(new_call_id(at_us * 1000), at_us, (each,), (call,))
