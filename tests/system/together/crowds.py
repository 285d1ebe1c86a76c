"""Calls that come all at once, and clients that leave: what the tests of this folder do to a gateway."""

import asyncio
from collections.abc import Callable, Sequence

from tests.system.upstream_side.clients import Answer, Wire, connect

CONNECTING_AT_ONCE = 100


async def connected(port: int, count: int) -> list[Wire]:
    """So many open connections, a few at a time, so that the machine's queue of new ones is not the test."""
    found: list[Wire] = []
    while len(found) < count:
        some = min(CONNECTING_AT_ONCE, count - len(found))
        found += await asyncio.gather(*(connect(port) for _ in range(some)))
    return found


async def at_once(
    port: int, requests: Sequence[bytes], ready: Callable[[], object] = lambda: None
) -> list[Answer]:
    """All requests are sent in one go, each on a connection of its own that is open already.

    `ready` is called when all are open, in a thread, and nothing is sent before it returns.
    """
    wires = await connected(port, len(requests))
    try:
        await asyncio.to_thread(ready)
        return await asyncio.gather(
            *(wire.ask(request) for wire, request in zip(wires, requests, strict=True))
        )
    finally:
        for each in wires:
            each.leave()
