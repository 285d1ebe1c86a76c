"""The section of the relay's cost: CPU of a call and of a chunk, and latency at three rates."""

import tempfile
import time
from pathlib import Path

import uvloop

from benchmarks import books, counters, report
from benchmarks.bench import BUSIEST, CHUNKS, DELAY_MS, GRID, Bench, Others, of_the_busiest, say
from benchmarks.figures import Beside, Books, Figure, Load, Results
from benchmarks.processes import Server, gateway, module, on_core
from benchmarks.sections import Effort, Section
from benchmarks.wire import Wanted
from tests.redis import running_redis
from tests.served import Served

QUICK_GRID = (BUSIEST, Load(True, 64))
STREAMED = Wanted(streamed=True, chunks=CHUNKS)
SLOW, SLOW_STREAM = Wanted(delay_ms=DELAY_MS), Wanted(streamed=True, chunks=CHUNKS, delay_ms=DELAY_MS)


def measure(effort: Effort) -> Results:
    """Raises CannotMeasure, NotWhole."""
    began, cores = time.perf_counter(), effort.cores
    say("admission and settlement by themselves")
    counted = counters.measure(cores, effort.rounds)
    written = () if effort.quick else _written(effort)
    with (
        tempfile.TemporaryDirectory() as folder,
        on_core(cores.other),
        module("benchmarks.upstream", cores.other) as upstream,
        module("benchmarks.empty_app", cores.tested) as empty,
    ):
        with gateway(Path(folder) / "alone", upstream.port, cores.tested) as (served, unlimited):
            bench = bench_of(served, empty, upstream, effort)
            figures, grid, ledger = uvloop.run(_all(bench, unlimited, quick=effort.quick))
        if not effort.quick:
            figures = (*figures, *written, _shared(Path(folder), empty, upstream, effort))
    return Results((*figures, *counted), grid, ledger, time.perf_counter() - began)


def bench_of(served: Served, empty: Server, upstream: Server, effort: Effort) -> Bench:
    """On a gateway that is up, with SQLite."""
    assert served.process is not None
    ours = Server(served.port, served.process.pid, served.api_key)
    return Bench(served.rows, ours, empty, upstream, effort.cores, effort.rounds, effort.seconds)


def _written(effort: Effort) -> tuple[Figure, ...]:
    say("the ledger's writer by itself")
    return books.measure(effort.cores, effort.rounds)


def _shared(folder: Path, empty: Server, upstream: Server, effort: Effort) -> Figure:
    """The busiest load where the counters are in Redis."""
    with (
        running_redis() as redis,
        gateway(folder / "shared", upstream.port, effort.cores.tested, redis_url=redis.url) as (served, _),
    ):
        return uvloop.run(_with_redis(bench_of(served, empty, upstream, effort)))


async def _with_redis(bench: Bench) -> Figure:
    await warm(bench)
    found = await bench.shared()
    bench.close_books()
    return found


Found = tuple[tuple[Figure, ...], tuple[Beside, ...], Books]


async def _all(bench: Bench, unlimited: str, *, quick: bool) -> Found:
    """Every measurement. Memory comes first, while the process is fresh but for its warm-up."""
    others = Others(bench)
    await warm(bench)
    memory = bench.memory()
    streams = await bench.streams()
    idle = await bench.idle()
    loads = QUICK_GRID if quick else GRID
    grid = [await bench.beside(load) for load in loads]
    cpu, rate, share = of_the_busiest(grid[loads.index(BUSIEST)])
    chunk, alone = await bench.chunk()
    latency = await bench.latency(rate.median, SLOW, "whole")
    figures = [cpu, rate, chunk, *latency, streams, memory, share, alone, idle]
    if not quick:
        figures += await _more(bench, grid[loads.index(Load(True, 64))], unlimited)
    return (*figures, *others.figures()), tuple(grid), bench.close_books()


async def _more(bench: Bench, streamed: Beside, unlimited: str) -> list[Figure]:
    """What a quick run has no time for."""
    without = await bench.limits(unlimited)
    capacity = Figure("", "calls/s", tuple(each.rate for each in streamed.gateway)).median
    latency = await bench.latency(capacity, SLOW_STREAM, "streamed")
    return [*without, *latency, await bench.sockets()]


async def warm(bench: Bench) -> None:
    """So that nothing is done for the first time while it is measured. Raises NotWhole."""
    await bench.check_limits()
    await bench.sample(bench.gateway, Wanted(), 64, bench.seconds)
    await bench.sample(bench.gateway, STREAMED, 64, bench.seconds)
    say("warm")


SECTION = Section("relay", measure, report.page, report.document, report.plots, quick=True)
