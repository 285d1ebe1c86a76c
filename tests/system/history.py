"""A quarter of an hour with calls of many model names in every second, for the ledger of a gateway."""

import time

from gateway.ledger import writer
from gateway.relay.call import new_call_id
from tests.gateway.records import opened, settled

SECONDS = 900
NAME = "a-model-with-a-name-" + 150 * "x"
"""Long, so that much is to be told of few calls."""


def book(model_names: int) -> None:
    """One call a second to each, up to now, of the first team and key."""
    now_s = int(time.time())
    calls = [
        opened(
            call_id=new_call_id(at_s * 1_000_000_000), started_at_us=at_s * 1_000_000, route=f"{NAME}-{each}"
        )
        for at_s in range(now_s - SECONDS, now_s)
        for each in range(model_names)
    ]
    writer.book([settled(each, ended_at_us=each.started_at_us + 400_000) for each in calls])
