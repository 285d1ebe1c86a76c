"""A call that failed is forgotten when it is over: nothing that it had waits for the garbage collector.

An exception leads to the frames that it went through. Where one of these leads back to it, all that they
hold stays, up to the body of the request, until the collector comes; after 50,000 objects, as it is set.
"""

import asyncio
import contextlib
import time

import pytest

from gateway.errors import GatewayError
from gateway.relay.retry import RetryPolicy
from gateway.simulator import Fault, Step, running_simulator
from tests.gateway.relay.carried import Client, House, call_to, house
from tests.gateway.relay.garbage import left_to_the_collector

FAULTS = (
    *(Fault.BAD_REQUEST, Fault.SERVER_ERROR, Fault.THROTTLED_SECONDS, Fault.RESET_BEFORE_HEADERS),
    *(Fault.RESET_MID_STREAM, Fault.TRUNCATED, Fault.GARBAGE_JSON, Fault.GARBAGE_SSE, Fault.ERROR_EVENT),
    *(Fault.HUGE_BODY, Fault.ENDLESS_LINE, Fault.NOT_HTTP, Fault.HUGE_HEADER, Fault.TRUNCATED_CHUNK),
)
LARGER_THAN_TAKEN = 25 * 1024 * 1024


async def carry(home: House, streamed: bool) -> None:
    client = Client()
    task = asyncio.current_task()
    assert task is not None
    line = home.lines.open(task, time.monotonic(), 30.0)
    with contextlib.suppress(GatewayError):  # which whoever calls the relay tells of
        await home.relay.carry(call_to(stream=streamed), home.caller, line, client)
    home.lines.close(line)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_failed_call_does_not_wait_for_the_collector(fault, streamed, tmp_path):
    async with (
        running_simulator() as provider,
        house(provider.base_url, tmp_path, retry=RetryPolicy(attempts=1)) as home,
    ):
        provider.script(
            [Step(fault=fault, retry_after_s=0.001, body_bytes=LARGER_THAN_TAKEN, after_tokens=0)]
        )
        with left_to_the_collector() as left:
            await carry(home, streamed)
            await asyncio.sleep(0)

        assert left == []
