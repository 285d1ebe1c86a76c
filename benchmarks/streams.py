"""The section of many open streams: what each weighs, and how much later its first token comes."""

import asyncio
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.bench import Bench, say
from benchmarks.figures import Figure, percentile
from benchmarks.load import Connections, NotWhole, Tally
from benchmarks.plots import Line, Panel, svg
from benchmarks.processes import gateway, memory_bytes, module, on_core
from benchmarks.relay import STREAMED, bench_of
from benchmarks.report import figure_row, table
from benchmarks.sections import Effort, Section
from benchmarks.wire import Wanted, request

OPEN = (100, 1000)
WITHIN_S = 2.0
"""All of them are opened in so long, evenly."""
LASTS = Wanted(streamed=True, chunks=12, pace_ms=400)
"""4.8 seconds, so that they are all open at once for more than two."""
FEW = 4
"""Connections of the warm-up, so that it leaves hardly any memory for streams to use again."""
PERCENTILES = {"p50": 0.5, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Streams:
    """So many streams open at once: a value for each round."""

    count: int
    most_open: tuple[int, ...]
    memory_kb: tuple[float, ...]
    """Of the worker for each stream at most, over what it had before; the first round alone."""
    added_ms: Mapping[str, tuple[float, ...]]
    """To the first token, by percentile."""


def measure(effort: Effort) -> tuple[Streams, ...]:
    """Each number on a gateway of its own, so that no memory is there from the one before.

    Raises CannotMeasure, NotWhole.
    """
    cores = effort.cores
    found = []
    with (
        tempfile.TemporaryDirectory() as folder,
        on_core(cores.other),
        module("benchmarks.upstream", cores.other) as upstream,
    ):
        for count in OPEN:
            with gateway(Path(folder) / str(count), upstream.port, cores.tested) as (served, _):
                found.append(uvloop.run(_of(bench_of(served, upstream, upstream, effort), count)))
    return tuple(found)


async def _of(bench: Bench, count: int) -> Streams:
    await bench.check_limits()
    await bench.sample(bench.gateway, STREAMED, FEW, bench.seconds)
    most_open, memory_kb = [], []
    added: dict[str, list[float]] = {name: [] for name in PERCENTILES}
    for turn in range(bench.rounds):
        direct, _, _ = await _opened(bench, bench.upstream.port, count)
        ours, most, grown = await _opened(bench, bench.gateway.port, count)
        most_open.append(most)
        memory_kb.append(grown / count / 1000)
        for name, at in PERCENTILES.items():
            added[name].append((percentile(ours.first_s, at) - percentile(direct.first_s, at)) * 1000)
        say(
            f"{count} streams, round {turn + 1}: {most} open at once, first token "
            f"p50 +{added['p50'][-1]:.2f} ms, p99 +{added['p99'][-1]:.2f} ms, {memory_kb[-1]:.0f} KB each"
        )
    bench.close_books()
    return Streams(
        count, tuple(most_open), tuple(memory_kb[:1]), {name: tuple(each) for name, each in added.items()}
    )


async def _opened(bench: Bench, port: int, count: int) -> tuple[Tally, int, int]:
    """All streams to their end: what came, how many were open at once, and bytes that the worker grew by.

    Raises NotWhole where one is dropped, or where they were not all open at once.
    """
    worker = bench.gateway.worker()
    said = request(LASTS, port, bench.gateway.api_key)
    async with Connections(port, count) as wires:
        before = peak = memory_bytes(worker)
        most = 0
        work = asyncio.ensure_future(wires.arrive(said, count / WITHIN_S, WITHIN_S))
        while not work.done():
            peak, most = max(peak, memory_bytes(worker)), max(most, wires.streaming())
            await asyncio.sleep(0.05)
        tally = await work
        await bench.note(tally, LASTS, port)
    if most < count:
        raise NotWhole(f"{most} of {count} streams were open at once")
    return tally, most, peak - before


def figures(found: tuple[Streams, ...]) -> list[Figure]:
    """Of each number of streams."""
    return [
        figure
        for each in found
        for figure in (
            *(
                Figure(
                    f"time to the first token added, {name}, {each.count:,} open", "ms", each.added_ms[name]
                )
                for name in PERCENTILES
            ),
            Figure(f"memory of the worker for a stream, {each.count:,} open", "KB", each.memory_kb),
        )
    ]


def page(found: tuple[Streams, ...]) -> str:
    return "\n".join(
        (
            "## Many open streams\n",
            f"Streams are opened evenly within {WITHIN_S:g} s and last {_lasts_s():g} s: "
            "all are open at once.\nThe same is done on the upstream itself, in turns, and taken off.\n"
            "None was dropped and none lacked an event: a run fails if one does.\n"
            "The first token counts from the moment its stream was due to be opened.\n",
            "![First token and memory by open streams](plots/streams.svg)\n",
            table(("", "median", "lowest to highest"), map(figure_row, figures(found))),
        )
    )


def _lasts_s() -> float:
    return LASTS.chunks * LASTS.pace_ms / 1000


def document(found: tuple[Streams, ...]) -> dict[str, Any]:
    return {
        "streams": [
            {
                "count": each.count,
                "most_open": list(each.most_open),
                "memory_kb": [round(value, 3) for value in each.memory_kb],
                "first_token_added_ms": {
                    name: [round(value, 3) for value in values] for name, values in each.added_ms.items()
                },
            }
            for each in found
        ]
    }


def plots(found: tuple[Streams, ...]) -> dict[str, str]:
    added = [Line(name, {each.count: each.added_ms[name] for each in found}) for name in PERCENTILES]
    memory = [Line("", {each.count: each.memory_kb for each in found})]
    return {
        "streams.svg": svg(
            Panel("First token", "open streams", "time added, ms", added),
            Panel("Memory", "open streams", "memory for each, KB", memory),
        )
    }


SECTION = Section("streams", measure, page, document, plots)
