"""Records for tests: a call's life with everyday values."""

from typing import Any

import msgspec

from gateway.relay.call import new_call_id
from gateway.relay.records import AttemptEnded, Dispatched, Opened, Refused, Settled, Usage

AT_US = 1_790_000_000_000_000
WORST = Usage(120, 1000, 0, "estimated")
USED = Usage(10, 35, 0, "reported")


def opened(**changes: Any) -> Opened:
    made = Opened(new_call_id(AT_US * 1000), AT_US, 1, 1, "gpt-4o", streamed=False, simulated=False)
    return msgspec.structs.replace(made, **changes)


def dispatched(call: Opened, **changes: Any) -> Dispatched:
    made = Dispatched(call.call_id, 1, AT_US + 50, 7, "openai", "gpt-4o", 3, WORST, 999_000)
    return msgspec.structs.replace(made, **changes)


def settled(call: Opened, **changes: Any) -> Settled:
    attempt = AttemptEnded(
        1, 7, "openai", "gpt-4o", "answered", 200, AT_US + 50, 400_000, None, USED, 3, 22_500
    )
    made = Settled(
        call.call_id,
        call.started_at_us,
        AT_US + 400_100,
        call.team_id,
        call.key_id,
        call.route,
        call.streamed,
        call.simulated,
        call.tags,
        "answered",
        200,
        "",
        400_100,
        None,
        USED,
        22_500,
        unpriced=False,
        attempts=(attempt,),
    )
    return msgspec.structs.replace(made, **changes)


def refused(**changes: Any) -> Refused:
    made = Refused(
        new_call_id(AT_US * 1000), AT_US, 1, 1, "gpt-4o", 503, "overloaded", "normal", "Try again later."
    )
    return msgspec.structs.replace(made, **changes)
