"""A provider on a thread of its own, for tests that wait for an answer without a loop."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.upstreams.h1_server import h1_upstream
from tests.upstreams.upstream import Upstream


@contextmanager
def provider_on_a_thread() -> Iterator[Upstream]:
    """It answers every call; `will` may be told to it at any time."""
    started, found, stop = threading.Event(), [], []

    async def listen() -> None:
        leaving = asyncio.Event()
        stop.append((asyncio.get_running_loop(), leaving))
        async with h1_upstream() as listening:
            found.append(listening)
            started.set()
            await leaving.wait()

    thread = threading.Thread(target=lambda: asyncio.run(listen()))
    thread.start()
    assert started.wait(10)
    try:
        yield found[0]
    finally:
        [(loop, leaving)] = stop
        loop.call_soon_threadsafe(leaving.set)
        thread.join()
