"""A call that failed is forgotten when it is over: nothing that it had waits for the garbage collector.

An exception leads to the frames that it went through. Where one of these leads back to it, all that they
hold stays, up to the body of the request, until the collector comes; after 50,000 objects, as it is set.
"""

import asyncio
import contextlib
import gc
import time
import weakref

import pytest

from gateway.errors import GatewayError
from gateway.relay.retry import RetryPolicy
from gateway.simulator import Fault, Step, running_simulator
from tests.gateway.relay.carried import Client, House, call_to, house

FAULTS = (
    *(Fault.BAD_REQUEST, Fault.SERVER_ERROR, Fault.THROTTLED_SECONDS, Fault.RESET_BEFORE_HEADERS),
    *(Fault.RESET_MID_STREAM, Fault.TRUNCATED, Fault.GARBAGE_JSON, Fault.GARBAGE_SSE, Fault.ERROR_EVENT),
)


class Watched(Client):
    """A client that can be asked whether anybody still holds it; so can whoever holds its call."""


async def carry(home: House, streamed: bool) -> "weakref.ref[Watched]":
    client = Watched()
    task = asyncio.current_task()
    assert task is not None
    line = home.lines.open(task, time.monotonic(), 30.0)
    with contextlib.suppress(GatewayError):  # which whoever calls the relay tells of
        await home.relay.carry(call_to(stream=streamed), home.caller, line, client)
    home.lines.close(line)
    return weakref.ref(client)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_failed_call_does_not_wait_for_the_collector(fault, streamed, tmp_path):
    async with (
        running_simulator() as provider,
        house(provider.base_url, tmp_path, retry=RetryPolicy(attempts=1)) as home,
    ):
        provider.script([Step(fault=fault, retry_after_s=0.001)])
        gc.disable()
        try:
            client = await carry(home, streamed)
            await asyncio.sleep(0)

            assert client() is None
        finally:
            gc.enable()
