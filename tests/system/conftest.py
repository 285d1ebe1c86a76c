"""Fixtures of the tests that run the real server: a provider in a thread, prices, and a voice for figures."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from gateway.simulator import RunningSimulator, running_simulator
from tests.served import Served

MODEL_NAMES = ("gpt-4o", "gpt-4o-mini")
INPUT_NANOS, CACHED_INPUT_NANOS, OUTPUT_NANOS = 2_500_000_001, 1_250_000_003, 10_000_000_007
"""Nano-units per million tokens, chosen so that nearly every cost has to be rounded."""

ENTER_PRICES = f"""
from datetime import UTC, datetime
from gateway.models import Target
from gateway.services import add_price

for target in Target.objects.all():
    add_price(
        target,
        datetime(2020, 1, 1, tzinfo=UTC),
        input_nanos={INPUT_NANOS},
        cached_input_nanos={CACHED_INPUT_NANOS},
        output_nanos={OUTPUT_NANOS},
    )
"""


@contextlib.contextmanager
def simulator_in_a_thread(journal: Path, speed: float = 0.0) -> Iterator[RunningSimulator]:
    """A provider that goes on answering while the test itself blocks."""
    started: list[RunningSimulator] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run() -> None:
        async with running_simulator(journal=journal, keep_bodies=True, speed=speed) as simulator:
            started.append(simulator)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), name="simulator")
    thread.start()
    assert ready.wait(10), "the simulator did not start"
    try:
        yield started[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def enter_prices(served: Served) -> None:
    """A price for every target. A gateway that runs already hears of it within a second."""
    served.manage("shell", "--no-imports", "-c", ENTER_PRICES)
