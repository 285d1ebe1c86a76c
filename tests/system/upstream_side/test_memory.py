"""A gateway weighs after 100,000 calls, a tenth of them faulty or abandoned, what it did after 50,000."""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest

from gateway.simulator import Ended, Fault, Step
from tests.served import eventually
from tests.system.upstream_side.clients import Wires, connect, wires_to
from tests.system.upstream_side.house import House, open_house
from tests.system.upstream_side.provider import running_provider

MIB = 1024 * 1024
MODEL_NAMES = ("gpt-4o", "gpt-4o-mini")
SLOW = "gpt-4o-slow"
"""Whose clients leave."""
TROUBLE = (
    *(Fault.BAD_REQUEST, Fault.UNAUTHORIZED, Fault.THROTTLED, Fault.SERVER_ERROR, Fault.UNAVAILABLE),
    *(Fault.TRUNCATED, Fault.ERROR_EVENT, Fault.RESET_MID_STREAM, Fault.RESET_BEFORE_HEADERS),
    *(Fault.GARBAGE_JSON, Fault.GARBAGE_SSE, Fault.TRUNCATED_CHUNK, Fault.USAGE_MISSING),
)
CLIENTS = 64


@dataclass
class Load:
    """Clients that call without a pause, and leave one of twenty calls."""

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
                name = self.rng.choice(MODEL_NAMES)
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
    """Without the pages of its journal's segment: a file's, which grow to 16 MiB and go with the segment."""
    journal: float


def weigh(house: House) -> Weight:
    """When nothing is under way and the ledger has everything."""
    house.wait_for_rest(30)
    wait_for_the_ledger(house)
    return weight_now(house)


def weight_now(house: House) -> Weight:
    """The least of some readings."""
    worker = house.worker()
    readings = []
    for _ in range(5):
        total = worker.memory_info().rss
        maps = worker.memory_maps(grouped=True)
        journal = sum(each.rss for each in maps if each.path.startswith(str(house.served.var_dir)))
        readings.append(Weight((total - journal) / MIB, journal / MIB))
        time.sleep(0.2)
    return min(readings, key=lambda each: each.own)


async def with_half_calls(house: House, count: int) -> Weight:
    """The plant: so many calls that are kept, because their last byte does not come."""
    wires = [await connect(house.served.port) for _ in range(count)]
    for wire in wires:
        wire.writer.write(house.request(SLOW)[:-1])
    await asyncio.sleep(1)  # of the 30 s for which a body is waited for
    weight = await asyncio.to_thread(weight_now, house)
    for wire in wires:
        wire.leave()
    return weight


def wait_for_the_ledger(house: House) -> None:
    """The same number of entries for some seconds."""
    counts = [-1]

    def is_complete() -> bool:
        time.sleep(1.5)
        counts.append(house.served.rows("SELECT count(*) FROM gateway_entry")[0][0])
        return counts[-1] == counts[-2]

    eventually(is_complete, 60, "a ledger that has everything")


def trouble(rng: random.Random, count: int) -> list[Step]:
    """What so many requests meet: one of twenty has trouble; a run of good answers is one step."""
    steps: list[Step] = []
    while count > 0:
        good = int(rng.expovariate(1 / 19))
        steps += [Step(count=good)] if good else []
        steps.append(Step(fault=rng.choice(TROUBLE)))
        count -= good + 1
    return steps


@pytest.mark.prove
def test_100_000_calls_weigh_no_more_than_50_000(tmp_path, say):
    """The live page keeps numbers of each second for sixteen minutes, by route; so there are few routes."""
    rng = random.Random(1)
    with (
        running_provider(tmp_path) as provider,
        open_house(tmp_path, provider, *MODEL_NAMES, SLOW) as house,
    ):
        slow = Step(model_name=SLOW, fault=Fault.SLOW_DRIP, pause_s=0.01, delay_s=0.01, count=None)
        provider.script(slow, *trouble(rng, 150_000))
        load = Load(house, rng)
        asyncio.run(load.run(50_000))
        half = weigh(house)
        asyncio.run(load.run(50_000))
        whole = weigh(house)
        planted = asyncio.run(with_half_calls(house, 1000))
        received = [line for line in provider.news() if isinstance(line, Ended)]

    faulty = sum(line.fault in TROUBLE for line in received)
    say(
        f"RSS  {half.own:.1f} MiB after 50,000 calls, {whole.own:.1f} after 100,000, and "
        f"{half.journal:.1f} and {whole.journal:.1f} of the journal's file; "
        f"{load.left} calls abandoned, {faulty} attempts of {len(received)} faulty, "
        f"{sum(load.statuses.values()) - load.statuses[200]} calls refused or failed"
    )
    assert planted.own - whole.own > 2
    assert load.left >= 4500
    assert faulty >= 4500
    assert whole.own - half.own <= 2
