"""The section of growth: what a call costs a gateway with many of one thing.

The gateways of an axis are up side by side and take their rounds in turns, so that a drift touches all alike.
"""

import contextlib
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import growth
from benchmarks.bench import Bench, say
from benchmarks.growth import AXES, GROWN, LIMITS, PAGES, Axis, Point, Scaling
from benchmarks.load import Connections, Tally
from benchmarks.processes import Server, gateway, memory_bytes, module, on_core
from benchmarks.relay import bench_of
from benchmarks.sections import Effort, Section
from benchmarks.sockets import Pages
from benchmarks.wire import MODEL_NAME, Wanted, request
from tests.served import ADMIN_EMAIL, ADMIN_PASSWORD, Served

CONNECTIONS = 64


def measure(effort: Effort) -> Scaling:
    """Raises CannotMeasure, NotWhole."""
    cores = effort.cores
    found: dict[str, Sequence[Point]] = {}
    with on_core(cores.other), module("benchmarks.upstream", cores.other) as upstream:
        for axis in AXES:
            with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
                say(f"scaling: {axis.what}")
                found[axis.name] = _AS[axis.name](axis, Path(folder), upstream, effort, stack)
    return found


def _grown(
    axis: Axis, folder: Path, upstream: Server, effort: Effort, stack: contextlib.ExitStack
) -> list[Point]:
    """A gateway for each number, all up."""
    houses = [
        stack.enter_context(_house(folder / str(count), upstream, effort, f"{axis.name}({count})", count))
        for count in axis.counts
    ]
    return uvloop.run(_in_turns(axis, houses))


@dataclass(slots=True)
class House:
    """A gateway that is up, its callers' requests, and what is known of it."""

    bench: Bench
    said: list[bytes]
    point: Point


@contextlib.contextmanager
def _house(folder: Path, upstream: Server, effort: Effort, fill: str, count: int) -> Iterator[House]:
    """Filled by a function of `bulk.py` before it starts."""
    told: dict[str, Any] = {}
    with gateway(folder, upstream.port, effort.cores.tested, before_start=partial(_fill, fill, told)) as (
        served,
        _,
    ):
        point = Point(count, start_s=time.perf_counter() - told["began"])
        bench = bench_of(served, upstream, upstream, effort)
        bench.since = told["since"]
        say(f"scaling: {fill}: filled in {told['filled_s']:.1f} s, started in {point.start_s:.1f} s")
        yield House(bench, requests(served.port, told["keys"], told.get("model_names", [])), point)


def _fill(fill: str, told: dict[str, Any], served: Served) -> None:
    began = time.perf_counter()
    printed = served.manage("shell", "-c", f"from benchmarks import bulk; bulk.{fill}")
    told.update(json.loads(printed.splitlines()[-1]))
    told["since"] = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    told["began"] = time.perf_counter()
    told["filled_s"] = told["began"] - began


def requests(port: int, keys: Sequence[str], model_names: Sequence[str] = ()) -> list[bytes]:
    """One for each key, each with the next model name."""
    names = list(model_names) or [MODEL_NAME]
    return [
        request(Wanted(), port, key, model_name=names[place % len(names)]) for place, key in enumerate(keys)
    ]


async def _in_turns(axis: Axis, houses: Sequence[House]) -> list[Point]:
    for house in houses:
        await _begin(house)
    for turn in range(houses[0].bench.rounds):
        for house in houses:
            await _round(axis, house, turn)
    for house in houses:
        house.point.memory_mb = memory_bytes(house.bench.gateway.worker()) / 1e6
        house.bench.close_books()
    return [house.point for house in houses]


async def _begin(house: House) -> None:
    """First calls, one after the other, when one of another key has made the process ready; then warm."""
    await house.bench.check_limits()
    async with Connections(house.bench.gateway.port, 1) as wires:
        for times in (house.point.first_ms, house.point.again_ms):
            times += [(await wires.once(said)).latencies[0] * 1000 for said in house.said]
            await house.bench.note(Tally(answered=len(house.said)), Wanted(), wires.port)
    await house.bench.sample(house.bench.gateway, Wanted(), CONNECTIONS, house.bench.seconds, house.said)


async def _round(axis: Axis, house: House, turn: int) -> None:
    bench = house.bench
    sample = await bench.sample(bench.gateway, Wanted(), CONNECTIONS, bench.seconds, house.said)
    house.point.cost.append(sample.cpu_us)
    said = f"{sample.cpu_us:.0f} us, {sample.rate:.0f} calls/s"
    say(f"{house.point.count:,} {axis.what}, round {turn + 1}: {said}")


def _limits(
    axis: Axis, folder: Path, upstream: Server, effort: Effort, stack: contextlib.ExitStack
) -> list[Point]:
    """One gateway, a key for each number."""
    house = stack.enter_context(_house(folder, upstream, effort, f"limits({axis.counts})", 0))
    houses = [
        House(house.bench, [said], Point(count)) for count, said in zip(axis.counts, house.said, strict=True)
    ]
    return uvloop.run(_keys_in_turns(axis, houses))


async def _keys_in_turns(axis: Axis, houses: Sequence[House]) -> list[Point]:
    bench = houses[0].bench
    for house in houses:
        await bench.sample(bench.gateway, Wanted(), CONNECTIONS, bench.seconds, house.said)
    for turn in range(bench.rounds):
        for house in houses:
            await _round(axis, house, turn)
    bench.close_books()
    return [house.point for house in houses]


def _pages(
    axis: Axis, folder: Path, upstream: Server, effort: Effort, stack: contextlib.ExitStack
) -> list[Point]:
    """One gateway, more and more sockets."""
    served, _ = stack.enter_context(gateway(folder, upstream.port, effort.cores.tested))
    return uvloop.run(_watched(axis, bench_of(served, upstream, upstream, effort)))


async def _watched(axis: Axis, bench: Bench) -> list[Point]:
    points = [Point(count) for count in axis.counts]
    pages = Pages(f"http://localhost:{bench.gateway.port}")
    await pages.sign_in(ADMIN_EMAIL, ADMIN_PASSWORD)
    await bench.steady()
    for turn in range(bench.rounds):
        for point in points:
            share = await (bench.watched(pages, point.count) if point.count else bench.steady())
            point.cost.append(share * 100)
            say(f"{point.count} {axis.what}, round {turn + 1}: {share:.2%} of the core")
    await pages.close()
    bench.close_books()
    return points


_AS = {**dict.fromkeys([each.name for each in GROWN], _grown), LIMITS.name: _limits, PAGES.name: _pages}


SECTION = Section("scaling", measure, growth.page, growth.document, growth.plots)
