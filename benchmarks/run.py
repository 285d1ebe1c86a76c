"""`make bench`: measure the gateway, and write docs/performance.md and docs/performance.json.

    python -m benchmarks.run [--rounds 3] [--seconds 1.5] [--docs docs]

Exit code 1, and nothing written, where an answer or the ledger is not as it should be;
a bound that is not reached is a figure like any other.
"""

import argparse
import os
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import uvloop

from benchmarks import books, counters, field, machine, report
from benchmarks.bench import BUSIEST, GRID, Bench, Others, of_the_busiest, say
from benchmarks.figures import Beside, Books, Figure, Results
from benchmarks.load import NotWhole
from benchmarks.processes import CannotMeasure, Cores, Server, gateway, module, two_cores
from benchmarks.wire import Wanted
from gateway.server import raise_file_limit
from tests.redis import running_redis
from tests.served import ROOT, Served

METHOD = ROOT / "benchmarks" / "method.md"


def main() -> None:
    """Raises SystemExit with a sentence where nothing valid was measured."""
    asked = _arguments()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    facts = machine.facts(project["version"])
    raise_file_limit()
    try:
        say("the field report: about a minute")
        report_of_the_field = field.measure()
        results = _measure(two_cores(), asked.rounds, asked.seconds)
    except (CannotMeasure, NotWhole) as why:
        sys.exit(f"bench: {why}")
    text = report.page(METHOD.read_text(), results, report_of_the_field, facts)
    asked.docs.mkdir(parents=True, exist_ok=True)
    (asked.docs / "performance.md").write_text(text)
    (asked.docs / "performance.json").write_text(report.document(results, report_of_the_field, facts))
    print(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.run", description="Measure the gateway.")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each figure")
    parser.add_argument(
        "--seconds", type=float, default=1.5, help="length of a round; some take twice as long"
    )
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where the report goes")
    return parser.parse_args()


def _measure(cores: Cores, rounds: int, seconds: float) -> Results:
    began = time.perf_counter()
    say("admission and settlement by themselves")
    counted = counters.measure(cores, rounds)
    say("the ledger's writer by itself")
    written = books.measure(cores, rounds)
    os.sched_setaffinity(0, {cores.other})
    with (
        tempfile.TemporaryDirectory() as folder,
        module("benchmarks.upstream", cores.other) as upstream,
        module("benchmarks.empty_app", cores.tested) as empty,
    ):

        def bench(served: Served) -> Bench:
            assert served.process is not None
            ours = Server(served.port, served.process.pid, served.api_key)
            return Bench(served, ours, empty, upstream, cores, rounds, seconds)

        with gateway(Path(folder) / "alone", upstream.port, cores.tested) as (served, unlimited):
            figures, grid, ledger = uvloop.run(_all(bench(served), unlimited))
        with (
            running_redis() as redis,
            gateway(Path(folder) / "shared", upstream.port, cores.tested, redis.url) as (served, _),
        ):
            shared = uvloop.run(_shared(bench(served)))
    return Results((*figures, *counted, *written, shared), grid, ledger, time.perf_counter() - began)


async def _all(bench: Bench, unlimited: str) -> tuple[tuple[Figure, ...], tuple[Beside, ...], Books]:
    """Every measurement. Memory comes first, while the process is fresh but for its warm-up."""
    others = Others(bench)
    await _warm(bench)
    memory = bench.memory()
    streams = await bench.streams()
    idle = await bench.idle()
    grid = [await bench.beside(load) for load in GRID]
    cpu, rate, share = of_the_busiest(grid[GRID.index(BUSIEST)])
    without = await bench.limits(unlimited)
    chunk, alone = await bench.chunk()
    p50, p99 = await bench.latency(rate.median)
    sockets = await bench.sockets()
    figures = (cpu, rate, chunk, p50, p99, streams, sockets, *without, memory, share, alone, idle)
    return (*figures, *others.figures()), tuple(grid), bench.close_books()


async def _shared(bench: Bench) -> Figure:
    await _warm(bench)
    found = await bench.shared()
    bench.close_books()
    return found


async def _warm(bench: Bench) -> None:
    await bench.check_limits()
    await bench.sample(bench.gateway, Wanted(), 64, bench.seconds)
    await bench.sample(bench.gateway, Wanted(streamed=True, chunks=32), 64, bench.seconds)
    say("warm")


if __name__ == "__main__":
    main()
