"""Answers far larger than anybody wants: cut at the cap, at little cost, also for the neighbours (U8)."""

import asyncio
import contextlib
import json
import time

import pytest

from gateway.simulator import Ended, Fault, Step
from tests.served import eventually
from tests.system.upstream_side import figures
from tests.system.upstream_side.clients import arrive, evenly, wires_to
from tests.system.upstream_side.house import open_house
from tests.system.upstream_side.provider import running_provider

MIB = 1024 * 1024
GIB = 1024 * MIB
HEALTHY = "gpt-4o"
FLOODS = {
    "1 GiB, whole": (Fault.HUGE_BODY, False, GIB),
    "1 GiB in one event": (Fault.HUGE_BODY, True, GIB),
    "10 MB line without end": (Fault.ENDLESS_LINE, True, 10_000_000),
    "200 kB that unpack to 200 MB, whole": (Fault.GZIP_BOMB, False, 200 * MIB),
    "200 kB that unpack to 200 MB, streamed": (Fault.GZIP_BOMB, True, 200 * MIB),
}
LARGEST_GROWTH = 32 * MIB
TOLD_WITHIN_S = 1.0


def scripted(provider):
    """Each kind of flood under a model name of its own, every second time: else its breaker would open."""
    for number, (fault, _, size) in enumerate(FLOODS.values()):
        flood = Step(model_name=f"flood-{number}", fault=fault, body_bytes=size, after_tokens=0)
        provider.script(*[flood, Step(model_name=f"flood-{number}")] * 200)
    return [f"flood-{number}" for number in range(len(FLOODS))]


@contextlib.contextmanager
def house_in_a_flood(folder):
    """A gateway with two providers, a good one and one that floods, each a process of its own."""
    with (
        running_provider(folder / "good") as good,
        running_provider(folder / "flood") as flood,
        open_house(folder, good, HEALTHY) as house,
    ):
        house.add_provider("flood", flood.base_url, *scripted(flood))
        yield house, flood


def peak_growth(house, work):
    """By how many bytes the worker's memory rose at most while something was done, and what came of it."""
    worker = house.worker()
    with open(f"/proc/{worker.pid}/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew, see proc(5)
    before = worker.memory_info().rss
    found = work()
    return peak(worker.pid) - before, found


def peak(pid):
    with open(f"/proc/{pid}/status") as file:
        line = next(each for each in file if each.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


async def ask(house, number, streamed):
    async with wires_to(house.served.port) as wires:
        answer = await wires.ask(house.request(f"flood-{number}", stream=streamed))
    return answer, time.time()


def cut_at_s(flood):
    """The Unix second at which the provider was left, or had said everything."""
    lines = []

    def last():
        lines.extend(each for each in flood.news() if isinstance(each, Ended))
        return lines

    return eventually(last)[-1].at_us / 1e6


@pytest.mark.parametrize("slack", [10, pytest.param(1, marks=pytest.mark.prove)])
def test_a_flood_is_cut_at_the_cap_and_costs_little(tmp_path, say, slack):
    """`slack` is for machines that do much else: one is told within so many times the bound."""
    with house_in_a_flood(tmp_path) as (house, flood):
        asyncio.run(healthy(house, 1.0))
        found = {}
        for number, (name, (_, streamed, _)) in enumerate(FLOODS.items()):
            flood.news()
            growth, (answer, told_at) = peak_growth(
                house, lambda number=number, streamed=streamed: asyncio.run(ask(house, number, streamed))
            )
            found[name] = growth, told_at - cut_at_s(flood)
            check_told(answer, streamed)
            assert growth <= LARGEST_GROWTH, name
            assert found[name][1] <= TOLD_WITHIN_S * slack, name
        planted, _ = peak_growth(house, lambda: asyncio.run(large_answer(house, 20 * MIB)))
    told = "; ".join(
        f"{name}: + {growth / MIB:.0f} MiB, {s * 1000:.0f} ms" for name, (growth, s) in found.items()
    )
    say(f"U8  {told}; an answer of 20 MiB that is taken: + {planted / MIB:.0f} MiB")
    assert planted >= 20 * MIB


def check_told(answer, streamed):
    """502 in OpenAI's shape; a stream that had begun ends with the error as its last event."""
    told = answer.body
    if answer.status == 200:
        assert streamed
        told = answer.body.rstrip().rpartition(b"data: ")[2]
    else:
        assert answer.status == 502
    assert json.loads(told)["error"]["type"] == "server_error"


async def large_answer(house, size):
    """The plant: an answer below the cap is held whole, which must be seen."""
    house.provider.script(Step(model_name=HEALTHY, fault=Fault.HUGE_BODY, body_bytes=size))
    async with wires_to(house.served.port) as wires:
        assert (await wires.ask(house.request(HEALTHY))).status == 200


async def healthy(house, seconds, a_second=40.0):
    """Latencies of good calls, half of them streamed; each must be answered."""
    requests = [house.request(HEALTHY, stream=each, max_tokens=5) for each in (False, True)]
    async with wires_to(house.served.port) as wires:
        found = await arrive(lambda number: wires.ask(requests[number % 2]), evenly(a_second, seconds))
    assert {answer.status for answer, _ in found} == {200}
    return [latency_s for _, latency_s in found]


@contextlib.asynccontextmanager
async def flooding(house, counts):
    """One offending call after another, of every kind, until the block ends."""
    over = asyncio.Event()

    async def flood():
        while not over.is_set():
            for number, (_, streamed, _) in enumerate(FLOODS.values()):
                check_told((await ask(house, number, streamed))[0], streamed)
                counts.append(number)
                assert (await ask(house, number, streamed))[0].status == 200
                await asyncio.sleep(0.1)

    task = asyncio.create_task(flood())
    try:
        yield
    finally:
        over.set()
        await task


@pytest.mark.prove
def test_neighbours_of_a_flood_keep_their_pace(tmp_path, say):
    counts: list[int] = []

    async def compare(house):
        async def beside():
            async with flooding(house, counts):
                return await healthy(house, 15.0)

        await healthy(house, 3.0)
        return await figures.pairs_of_p99(lambda: healthy(house, 15.0), beside, 5)

    with house_in_a_flood(tmp_path) as (house, _):
        house.provider.script(Step(delay_s=0.2, count=None))
        pairs = asyncio.run(compare(house))
    say(f"U8  neighbours of {len(counts)} floods, one after another, take {figures.told(pairs)}")
    assert len(counts) >= 5 * len(FLOODS)
    assert figures.ratio(pairs) <= 1.2
