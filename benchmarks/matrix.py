"""The section of the relay's cost by what is carried and by where it is kept: one axis at a time.

The centre is a whole answer, a request of about 1 KB, 64 connections, SQLite, one worker.
Cells of one gateway are measured in turns, so that a drift touches them alike.
"""

import contextlib
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.bench import CHUNKS, Bench, say
from benchmarks.figures import Sample
from benchmarks.plots import Line, Panel, svg
from benchmarks.processes import Server, gateway, module, on_core
from benchmarks.relay import bench_of, warm
from benchmarks.report import ends, rounded, table
from benchmarks.sections import Effort, Section
from benchmarks.wire import Wanted, request
from tests.postgres import running_postgres
from tests.redis import running_redis

KB = 1024
SIZES = (32 * KB, KB * KB)
MANY = 64
LARGE_LASTS = 2
"""Times as long a round has where a megabyte is carried, because there are few calls in a second."""
SQLITE, SHARED, TWO = "SQLite, 1 worker", "PostgreSQL and Redis, 1 worker", "PostgreSQL and Redis, 2 workers"


@dataclass(frozen=True, slots=True)
class Cell:
    """One kind of load. Sizes are of text beside the usual, in bytes; 0: about 1 KB in all."""

    streamed: bool = False
    connections: int = MANY
    prompt_bytes: int = 0
    answer_bytes: int = 0
    place: str = SQLITE

    @property
    def want(self) -> Wanted:
        return Wanted(self.streamed, CHUNKS if self.streamed else 0, answer_bytes=self.answer_bytes)

    def __str__(self) -> str:
        return ", ".join(
            (
                "streamed" if self.streamed else "whole",
                f"request {size(self.prompt_bytes)}",
                f"answer {size(self.answer_bytes)}",
                f"{self.connections} connection{'s' if self.connections > 1 else ''}",
                self.place,
            )
        )


def size(added: int) -> str:
    """Of a request or an answer that has so much more text than the usual one."""
    return f"{added // KB} KB" if 0 < added < KB * KB else "1 MB" if added else "1 KB"


CENTRE = Cell()
BY_CONNECTIONS = tuple(Cell(streamed, each) for streamed in (False, True) for each in (1, MANY, 512))
BY_REQUEST = tuple(Cell(prompt_bytes=each) for each in SIZES)
BY_ANSWER = tuple(Cell(streamed, answer_bytes=each) for streamed in (False, True) for each in SIZES)
ALONE = (*BY_CONNECTIONS, *BY_REQUEST, *BY_ANSWER)
"""On the gateway with SQLite; the centre is among them."""
ELSEWHERE = tuple(Cell(streamed, place=each) for each in (SHARED, TWO) for streamed in (False, True))


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rounds by cell; and, where they are, CPU of the database and of Redis for a call, in microseconds."""

    rounds: Mapping[Cell, tuple[Sample, ...]]
    beside_us: Mapping[Cell, tuple[float, ...]] = field(default_factory=dict)


def measure(effort: Effort) -> Matrix:
    """Raises CannotMeasure, NotWhole."""
    cores = effort.cores
    with (
        tempfile.TemporaryDirectory() as folder,
        on_core(cores.other),
        module("benchmarks.upstream", cores.other) as upstream,
    ):
        with gateway(Path(folder) / "alone", upstream.port, cores.tested) as (served, _):
            bench = bench_of(served, upstream, upstream, effort)
            rounds, _ = uvloop.run(_measured(bench, ALONE, ()))
        beside_us: dict[Cell, tuple[float, ...]] = {}
        for place, workers in ((SHARED, 1), (TWO, 2)):
            with _shared(Path(folder) / str(workers), upstream, effort, workers) as (bench, servers):
                cells = [each for each in ELSEWHERE if each.place == place]
                found, its_us = uvloop.run(_measured(bench, cells, servers))
            rounds, beside_us = {**rounds, **found}, {**beside_us, **its_us}
    return Matrix(rounds, beside_us)


@contextlib.contextmanager
def _shared(
    folder: Path, upstream: Server, effort: Effort, workers: int
) -> Iterator[tuple[Bench, tuple[Server, ...]]]:
    """So many workers, and PostgreSQL and Redis. A second worker may use the core of the load too."""
    cores = effort.cores
    tested = (cores.tested, cores.other)[:workers]
    with running_postgres(quick=False) as database, running_redis() as redis:
        environ = {"DATABASE_URL": database.url, "WORKERS": str(workers)}
        with gateway(folder, upstream.port, *tested, redis_url=redis.url, environ=environ) as (served, _):
            assert served.process is not None
            assert database.process is not None
            assert redis.process is not None
            ours = Server(served.port, served.process.pid, served.api_key, workers)
            bench = Bench(database.rows, ours, upstream, upstream, cores, effort.rounds, effort.seconds)
            yield bench, (Server(0, database.process.pid), Server(0, redis.process.pid))


Found = tuple[dict[Cell, tuple[Sample, ...]], dict[Cell, tuple[float, ...]]]


async def _measured(bench: Bench, cells: Iterator[Cell] | Any, servers: tuple[Server, ...]) -> Found:
    """The cells in turns; and what the servers beside the gateway used for a call."""
    await warm(bench)
    samples: dict[Cell, list[Sample]] = {each: [] for each in cells}
    beside_us: dict[Cell, list[float]] = {each: [] for each in cells}
    for turn in range(bench.rounds):
        for cell in cells:
            sample, used_s = await _beside(servers, partial(_once, bench, cell))
            samples[cell].append(sample)
            beside_us[cell].append(used_s / sample.calls * 1e6)
            say(f"{cell}, round {turn + 1}: {sample.cpu_us:.0f} us, {sample.rate:.0f} calls/s")
    bench.close_books()
    theirs = {cell: tuple(each) for cell, each in beside_us.items() if servers}
    return {cell: tuple(each) for cell, each in samples.items()}, theirs


async def _once(bench: Bench, cell: Cell) -> Sample:
    ours = bench.gateway
    said = request(cell.want, ours.port, ours.api_key, prompt_bytes=cell.prompt_bytes)
    lasts_s = bench.seconds * (LARGE_LASTS if max(cell.prompt_bytes, cell.answer_bytes) >= KB * KB else 1)
    return await bench.sample(ours, cell.want, cell.connections, lasts_s, said)


async def _beside(
    servers: tuple[Server, ...], sampled: Callable[[], Awaitable[Sample]]
) -> tuple[Sample, float]:
    """A sample, and the CPU seconds that these servers used meanwhile, its first calls among them."""
    before = sum(each.tree_cpu_s() for each in servers)
    sample = await sampled()
    return sample, sum(each.tree_cpu_s() for each in servers) - before


def page(found: Matrix) -> str:
    """A table of every cell, and two plots."""
    return "\n".join(
        (
            "## By what is carried, and by where it is kept\n",
            "Each row differs from the first in one thing, or in two where a stream is one of them.\n",
            "![CPU per call by connections and by size](plots/carried.svg)\n",
            "![CPU per call and calls a second by database and workers](plots/kept.svg)\n",
            table(
                ("", "CPU per call, µs", "its tree, µs", "database and Redis, µs", "calls/s", "p50, ms"),
                [_row(cell, found) for cell in _in_order(found)],
            ),
            "Sizes are of the text in a request or an answer.\n"
            "The latency is of a closed loop: how long the connections wait for each other's work.\n"
            "Two workers have both cores, one of which they share with the load, the upstream, the database "
            "and Redis; so their calls a second say what two workers do on two cores that do everything, and "
            "not what a second core adds.\n",
        )
    )


def _in_order(found: Matrix) -> list[Cell]:
    return sorted(found.rounds, key=lambda each: each != CENTRE)


def _row(cell: Cell, found: Matrix) -> tuple[str, ...]:
    rounds = found.rounds[cell]
    beside = found.beside_us.get(cell)
    return (
        str(cell),
        ends([each.cpu_us for each in rounds]),
        ends([each.tree_us for each in rounds]),
        ends(list(beside)) if beside else "",
        ends([each.rate for each in rounds]),
        ends([each.p50_ms for each in rounds]),
    )


def document(found: Matrix) -> dict[str, Any]:
    """Every round of every cell."""
    return {
        "cells": [
            {
                **asdict(cell),
                "rounds": [rounded(asdict(each)) for each in found.rounds[cell]],
                "database_and_redis_us": [round(each, 3) for each in found.beside_us.get(cell, ())],
            }
            for cell in _in_order(found)
        ]
    }


def plots(found: Matrix) -> dict[str, str]:
    """By what is carried, and by where it is kept."""
    return {
        "carried.svg": svg(_by_connections(found), _by_size(found)),
        "kept.svg": svg(
            _by_place(found, "CPU per call, µs", "cpu_us"), _by_place(found, "calls a second", "rate")
        ),
    }


def _by_connections(found: Matrix) -> Panel:
    lines = [
        Line(
            name,
            {each.connections: _cpu(found, each) for each in BY_CONNECTIONS if each.streamed is streamed},
        )
        for name, streamed in (("whole", False), ("streamed, 32 chunks", True))
    ]
    return Panel("By connections", "connections", "CPU per call, µs", lines)


def _by_size(found: Matrix) -> Panel:
    whole, streamed = CENTRE, Cell(streamed=True)
    lines = [
        Line("of the request", _sizes(found, "prompt_bytes", (whole, *BY_REQUEST))),
        Line(
            "of the answer", _sizes(found, "answer_bytes", (whole, *(c for c in BY_ANSWER if not c.streamed)))
        ),
        Line(
            "of the streamed answer",
            _sizes(found, "answer_bytes", (streamed, *(c for c in BY_ANSWER if c.streamed))),
        ),
    ]
    return Panel("By size", "size, KB", "CPU per call, µs", lines)


def _sizes(found: Matrix, which: str, cells: tuple[Cell, ...]) -> dict[float, tuple[float, ...]]:
    return {max(1, getattr(each, which) // KB): _cpu(found, each) for each in cells}


def _by_place(found: Matrix, label: str, which: str) -> Panel:
    bars = {
        each.place.replace(" and ", ",\n").replace(", 1", ",\n1").replace(", 2", ",\n2"): tuple(
            getattr(one, which) for one in found.rounds[each]
        )
        for each in (CENTRE, *(cell for cell in ELSEWHERE if not cell.streamed))
    }
    return Panel("Whole, 64 connections", "", label, bars=bars)


def _cpu(found: Matrix, cell: Cell) -> tuple[float, ...]:
    return tuple(each.cpu_us for each in found.rounds[cell])


SECTION = Section("matrix", measure, page, document, plots)
