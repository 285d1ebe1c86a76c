"""Settled records for tests, with only what a test cares about spelled out."""

from typing import Any
from uuid import uuid4

from gateway.relay.records import Settled, Usage


def settled(at_s: float = 1_700_000_000.0, **changed: Any) -> Settled:
    """A call of team 1 that was answered in 400 ms, ended at this second."""
    at_us = int(at_s * 1_000_000)
    facts: dict[str, Any] = {
        "call_id": str(uuid4()),
        "started_at_us": at_us - 400_000,
        "ended_at_us": at_us,
        "team_id": 1,
        "key_id": 7,
        "route": "gpt-4o",
        "streamed": True,
        "simulated": False,
        "tags": None,
        "outcome": "answered",
        "status": 200,
        "code": "",
        "latency_us": 400_000,
        "first_token_us": 120_000,
        "usage": Usage(100, 20, 0, "reported"),
        "cost_nanos": 450_000,
        "unpriced": False,
        "attempts": (),
    }
    return Settled(**{**facts, **changed})
