"""A gateway weighs after 100,000 calls, a tenth of them faulty or abandoned, what it did after 50,000."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest

from gateway.simulator import Fault, Step
from tests.served import eventually
from tests.system.upstream_side.clients import Wires, connect, wires_to
from tests.system.upstream_side.house import House, open_house
from tests.system.upstream_side.provider import running_provider

MIB = 1024 * 1024
MODEL_NAMES = ("gpt-4o", "gpt-4o-mini")
SLOW = "gpt-4o-slow"
TROUBLE = tuple(
    each.model_name
    for each in (
        *(Fault.BAD_REQUEST, Fault.UNAUTHORIZED, Fault.THROTTLED, Fault.SERVER_ERROR, Fault.UNAVAILABLE),
        *(Fault.TRUNCATED, Fault.ERROR_EVENT, Fault.RESET_MID_STREAM, Fault.RESET_BEFORE_HEADERS),
        *(Fault.GARBAGE_JSON, Fault.GARBAGE_SSE, Fault.TRUNCATED_CHUNK, Fault.USAGE_MISSING),
    )
)
CLIENTS = 64
LIVE_S = 16 * 60
"""The live page keeps a frame of each second for so long, whatever the calls."""


@dataclass
class Load:
    """Clients that call without a pause: a twentieth of the calls meets trouble, a twentieth is abandoned."""

    house: House
    rng: random.Random
    statuses: Counter[int] = field(default_factory=Counter)
    left: int = 0

    async def run(self, count: int) -> None:
        numbers = iter(range(count))
        async with wires_to(self.house.served.port) as wires, asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(self._client(numbers, wires))

    async def _client(self, numbers, wires: Wires) -> None:
        for _ in numbers:
            pick, streamed = self.rng.random(), self.rng.random() < 0.5
            if pick < 0.05:
                await self._leave(streamed)
            else:
                name = self.rng.choice(TROUBLE if pick < 0.1 else MODEL_NAMES)
                answer = await wires.ask(self.house.request(name, stream=streamed, max_tokens=5))
                self.statuses[answer.status] += 1

    async def _leave(self, streamed: bool) -> None:
        wire = await connect(self.house.served.port)
        wire.writer.write(self.house.request(SLOW, stream=streamed, max_tokens=5))
        await asyncio.sleep(self.rng.uniform(0.001, 0.05))  # the moment of leaving, not a wait for anything
        wire.leave(reset=self.rng.random() < 0.5)
        self.left += 1


@dataclass(frozen=True)
class Weight:
    """Resident memory of the worker at rest, in MiB."""

    own: float
    """Without the pages of its journal's segment, which are the kernel's cache of a file: they grow to 16 MiB
    and are given up with the segment."""
    journal: float


def weigh(house: House) -> Weight:
    """When nothing is under way and the ledger has everything; the least of some readings."""
    house.wait_for_rest(30)
    wait_for_the_ledger(house)
    worker = house.worker()
    readings = []
    for _ in range(5):
        total = worker.memory_info().rss
        maps = worker.memory_maps(grouped=True)
        journal = sum(each.rss for each in maps if each.path.startswith(str(house.served.var_dir)))
        readings.append(Weight((total - journal) / MIB, journal / MIB))
        time.sleep(0.2)
    return min(readings, key=lambda each: each.own)


def wait_for_the_ledger(house: House) -> None:
    """The same number of entries for some seconds."""
    counts = [-1]

    def is_complete() -> bool:
        time.sleep(1.5)
        counts.append(house.served.rows("SELECT count(*) FROM gateway_entry")[0][0])
        return counts[-1] == counts[-2]

    eventually(is_complete, 60, "a ledger that has everything")


@contextlib.contextmanager
def house_of_all_kinds(folder):
    with (
        running_provider(folder) as provider,
        open_house(folder, provider, *MODEL_NAMES, SLOW, *TROUBLE) as house,
    ):
        provider.script(Step(model_name=SLOW, fault=Fault.SLOW_DRIP, pause_s=0.01, delay_s=0.01, count=None))
        yield house


@pytest.mark.prove
def test_100_000_calls_weigh_no_more_than_50_000(tmp_path, say):
    """The first half fills the live page's sixteen minutes; the second comes as fast as it can."""
    with house_of_all_kinds(tmp_path) as house:
        load = Load(house, random.Random(1))
        began = time.monotonic()
        for number in range(50):
            asyncio.run(load.run(1000))
            time.sleep(max(0.0, began + number * LIVE_S / 50 - time.monotonic()))
        half = weigh(house)
        asyncio.run(load.run(50_000))
        whole = weigh(house)

    trouble = sum(count for status, count in load.statuses.items() if status != 200)
    say(
        f"RSS  {half.own:.1f} MiB after 50,000 calls, {whole.own:.1f} after 100,000, and "
        f"{half.journal:.1f} and {whole.journal:.1f} of the journal's file; "
        f"{load.left} abandoned, {trouble} refused or failed"
    )
    assert whole.own - half.own <= 2
