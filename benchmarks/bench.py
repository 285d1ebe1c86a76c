"""The measurements of a run, each on servers that are up already."""

import asyncio
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.configured import AMPLE, CALL_NANOS
from benchmarks.figures import (
    SHARES,
    Beside,
    Books,
    Figure,
    Load,
    Sample,
    latency_figures,
    percentile,
    why_wrong,
)
from benchmarks.load import Connections, NotWhole, Said, Tally
from benchmarks.processes import Cores, Server, busy_s, cpu_s, memory_bytes
from benchmarks.sockets import Pages
from benchmarks.wire import Wanted, request
from tests.served import ADMIN_EMAIL, ADMIN_PASSWORD

CHUNKS = 32
FEW, MANY, PACE_MS = 16, 128, 5
BUSIEST = Load(False, 64)
GRID = (Load(False, 1), BUSIEST, Load(True, 1), Load(True, 64))
DELAY_MS = 200
STREAMS, STREAM_CHUNKS, STREAM_PACE_MS = 1000, 10, 400
SOCKETS = 100
STEADY_RATE, STEADY_S = 20, 4
MORE_PAIRS = 2
"""A small difference of two large figures needs more of them."""
BOOKING_S = 60.0
BOOKED = (
    "SELECT count(*), coalesce(sum(CASE WHEN outcome = 'answered' THEN 1 ELSE 0 END), 0), "
    "coalesce(sum(CASE WHEN unpriced THEN 1 ELSE 0 END), 0), coalesce(sum(cost_nanos), 0) "
    "FROM gateway_entry WHERE ended_at >= '{since}'"
)
COUNTED = "SELECT count(*) FROM gateway_entry WHERE ended_at >= '{since}'"
LONG_AGO = "1970-01-01"


def say(what: str) -> None:
    """Progress, for whoever waits."""
    print(what, file=sys.stderr, flush=True)


@dataclass(slots=True)
class Bench:
    """The servers of one run, and how many calls the gateway has answered in it."""

    ask: Callable[[str], Sequence[Sequence[Any]]]
    """The ledger's database, directly: SQL in, rows out."""
    gateway: Server
    empty: Server
    upstream: Server
    cores: Cores
    rounds: int
    seconds: float
    since: str = LONG_AGO
    """In UTC: entries of before are none of this run's."""
    calls: int = 0

    async def check_limits(self) -> None:
        """One call. Raises NotWhole where its answer does not tell of rate limits: they would be missing."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.gateway.port)
        writer.write(request(Wanted(), self.gateway.port, self.gateway.api_key))
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        self.calls += 1
        if b"\r\nx-ratelimit-limit-tokens: %d\r\n" % AMPLE not in head:
            raise NotWhole(f"the caller has not the limits that were set: {head!r}")

    def books(self) -> Books:
        """What is on the ledger now."""
        return Books(*map(int, self.ask(BOOKED.format(since=self.since))[0]))

    def _entries(self) -> int:
        return int(self.ask(COUNTED.format(since=self.since))[0][0])

    async def _booked(self) -> float:
        """Wait until every answered call is on the ledger; how many seconds that took. Raises NotWhole."""
        began = time.perf_counter()
        while (entries := self._entries()) < self.calls:
            if time.perf_counter() - began > BOOKING_S:
                raise NotWhole(f"{self.calls} calls were answered and {entries} are on the ledger")
            await asyncio.sleep(0.02)
        return time.perf_counter() - began

    def close_books(self) -> Books:
        """The ledger at the end. Raises NotWhole where it differs from what was answered."""
        books = self.books()
        if wrong := why_wrong(books, self.calls, CALL_NANOS):
            raise NotWhole(wrong)
        return books

    def _request(self, want: Wanted, port: int) -> bytes:
        return request(want, port, self.gateway.api_key)

    async def once(self, connections: Connections, want: Wanted, said: Said | None = None) -> Tally:
        """One call on each connection, the limited key's or as `said`; all on the ledger afterwards."""
        tally = await connections.once(said or self._request(want, connections.port))
        await self.note(tally, want, connections.port)
        return tally

    async def note(self, tally: Tally, want: Wanted, port: int) -> float:
        """Check what came back, and wait for the ledger; how many seconds."""
        if want.streamed and tally.events != tally.answered * (want.chunks + 1):
            raise NotWhole(f"{tally.answered} streams had {tally.events} events in all")
        if port != self.gateway.port:
            return 0.0
        self.calls += tally.answered
        return await self._booked()

    async def sample(
        self, tested: Server, want: Wanted, connections: int, seconds: float, said: Said | None = None
    ) -> Sample:
        """A closed loop for so long. Its CPU time ends when the ledger has every call of it.

        `said` are other requests than the usual one for what is wanted.
        """
        said = said or request(want, tested.port, tested.api_key)
        async with Connections(tested.port, connections) as wires:
            await self.once(wires, want, said)
            workers = tested.workers()
            before, tree_before = sum(map(cpu_s, workers)), tested.tree_cpu_s()
            tally = await wires.saturate(said, seconds)
            lag_s = await self.note(tally, want, tested.port)
            used, tree_used = sum(map(cpu_s, workers)) - before, tested.tree_cpu_s() - tree_before
        return Sample(
            tally.answered,
            used / tally.answered * 1e6,
            tree_used / tally.answered * 1e6,
            tally.rate,
            percentile(tally.latencies, 0.5) * 1000,
            used / (seconds + lag_s),
            lag_s,
            tally.pieces / tally.answered,
        )

    async def beside(self, load: Load) -> Beside:
        """A load on the gateway and on the empty application, in turns."""
        want = Wanted(streamed=load.streamed, chunks=CHUNKS if load.streamed else 0)
        ours, its = [], []
        for turn in range(self.rounds):
            ours.append(await self.sample(self.gateway, want, load.connections, self.seconds))
            its.append(await self.sample(self.empty, want, load.connections, self.seconds))
            say(
                f"{load}, round {turn + 1}: gateway {ours[-1].cpu_us:.0f} us, {ours[-1].rate:.0f} calls/s; "
                f"empty application {its[-1].cpu_us:.0f} us, {its[-1].rate:.0f} calls/s"
            )
        return Beside(load, tuple(ours), tuple(its))

    async def limits(self, unlimited: str) -> tuple[Figure, Figure]:
        """The busiest load of a key that has every limit, and in turns with it of one that has none."""
        free = Server(self.gateway.port, self.gateway.root, unlimited)
        without, added = [], []
        for turn in range(self.rounds):
            ours = await self.sample(self.gateway, Wanted(), BUSIEST.connections, self.seconds)
            its = await self.sample(free, Wanted(), BUSIEST.connections, self.seconds)
            without.append(its.cpu_us)
            added.append(ours.cpu_us - its.cpu_us)
            say(f"limits, round {turn + 1}: {ours.cpu_us:.0f} us, without them {its.cpu_us:.0f} us")
        return (
            Figure(f"CPU per call, {BUSIEST}, of a key without limits", "µs", tuple(without)),
            Figure("what limits and quotas add to it, headers included", "µs", tuple(added)),
        )

    async def shared(self) -> Figure:
        """The busiest load where the counters are in Redis."""
        found = []
        for turn in range(self.rounds):
            each = await self.sample(self.gateway, Wanted(), BUSIEST.connections, self.seconds)
            found.append(each.cpu_us)
            say(f"counted in Redis, round {turn + 1}: {each.cpu_us:.0f} us, {each.rate:.0f} calls/s")
        return Figure(f"CPU per call, {BUSIEST}, with REDIS_URL", "µs", tuple(found))

    async def chunk(self) -> tuple[Figure, Figure]:
        """CPU per streamed chunk: long streams beside short ones, so that all but the chunks cancels out."""
        costs, alone = [], []
        for turn in range(self.rounds):
            few = await self._paced(FEW, self.seconds)
            many = await self._paced(MANY, self.seconds)
            costs.append((many.cpu_us - few.cpu_us) / (MANY - FEW))
            alone.append(many.pieces / (MANY + 1) * 100)
            say(f"streamed chunk, round {turn + 1}: {costs[-1]:.1f} us, {alone[-1]:.0f} % came alone")
        return (
            Figure("CPU per streamed chunk", "µs", tuple(costs), 30),
            Figure(
                "streamed chunks that reached the client alone, not merged with others", "%", tuple(alone)
            ),
        )

    async def _paced(self, chunks: int, seconds: float) -> Sample:
        return await self.sample(
            self.gateway, Wanted(streamed=True, chunks=chunks, pace_ms=PACE_MS), 64, seconds
        )

    async def latency(self, capacity: float, want: Wanted, what: str) -> list[Figure]:
        """What the gateway adds to an upstream of 200 ms, at shares of its capacity in calls a second.

        All shares in each round, so that a drift touches them alike. `what` is wanted, in a word.
        """
        added: dict[str, list[tuple[float, float]]] = {share: [] for share in SHARES}
        for turn in range(self.rounds):
            for share, part in SHARES.items():
                added[share].append(await self._added(capacity * part, want))
                p50, p99 = added[share][-1]
                say(
                    f"latency, {what}, at {capacity * part:.0f} calls/s, round {turn + 1}: "
                    f"p50 +{p50:.2f} ms, p99 +{p99:.2f} ms"
                )
        return [each for share in SHARES for each in latency_figures(share, added[share], what)]

    async def _added(self, rate: float, want: Wanted) -> tuple[float, float]:
        """Milliseconds at the 50th and at the 99th percentile."""
        direct = await self._arrivals(self.upstream.port, want, rate)
        ours = await self._arrivals(self.gateway.port, want, rate)
        p50, p99 = ((percentile(ours, at) - percentile(direct, at)) * 1000 for at in (0.5, 0.99))
        return p50, p99

    async def _arrivals(self, port: int, want: Wanted, rate: float) -> list[float]:
        in_flight = int(rate * DELAY_MS / 1000 * 1.5) + 64
        async with Connections(port, in_flight) as wires:
            await self.once(wires, want)
            tally = await wires.arrive(self._request(want, port), rate, self.seconds * 2)
            await self.note(tally, want, port)
        return tally.latencies

    def memory(self) -> Figure:
        """Of the worker, warm, and nobody calls."""
        return Figure("memory of the worker", "MB", (memory_bytes(self.gateway.worker()) / 1e6,))

    async def streams(self) -> Figure:
        """Memory that a thousand open streams add; raises NotWhole if one is dropped."""
        want = Wanted(streamed=True, chunks=STREAM_CHUNKS, pace_ms=STREAM_PACE_MS)
        worker = self.gateway.worker()
        async with Connections(self.gateway.port, STREAMS) as wires:
            before = peak = memory_bytes(worker)
            most = 0
            work = asyncio.ensure_future(self.once(wires, want))
            while not work.done():
                peak, most = max(peak, memory_bytes(worker)), max(most, wires.streaming())
                await asyncio.sleep(0.05)
            await work
        if most < STREAMS:
            raise NotWhole(f"only {most} of {STREAMS} streams were open at the same time")
        say(f"{STREAMS} streams: +{(peak - before) / 1e6:.1f} MB")
        return Figure(
            f"memory added by {STREAMS:,} open streams, none dropped", "MB", ((peak - before) / 1e6,), 100
        )

    async def sockets(self) -> Figure:
        """What a hundred open live pages take of the core, beside the same steady load without them."""
        added = []
        pages = Pages(f"http://localhost:{self.gateway.port}")
        await pages.sign_in(ADMIN_EMAIL, ADMIN_PASSWORD)
        for turn in range(self.rounds + MORE_PAIRS):
            without, watched = await self._pair(pages, first_watched=bool(turn % 2))
            added.append((watched - without) * 100)
            say(
                f"live pages, round {turn + 1}: {without:.2%} of the core without, {watched:.2%} with, "
                f"{added[-1]:+.2f} points"
            )
        await pages.close()
        return Figure(f"share of the core that {SOCKETS} open live pages take", "%", tuple(added), 3)

    async def _pair(self, pages: Pages, *, first_watched: bool) -> tuple[float, float]:
        """Shares of the core without and with the pages; the order changes, so that a drift cancels out."""
        used = {}
        for watched in (first_watched, not first_watched):
            used[watched] = await self.watched(pages, SOCKETS) if watched else await self.steady()
        return used[False], used[True]

    async def watched(self, pages: Pages, count: int) -> float:
        """The same with so many pages open. Raises NotWhole where one of them is left behind."""
        async with pages.watching(count):
            taken = list(pages.frames)
            used = await self.steady()
            least = min(now - before for now, before in zip(pages.frames, taken, strict=True))
        if least < STEADY_S - 1:
            raise NotWhole(f"a live page took {least} frames while the load ran")
        return used

    async def steady(self) -> float:
        """The share of its core that the worker needs for a few calls a second, books and frames included."""
        async with Connections(self.gateway.port, 8) as wires:
            await self.once(wires, Wanted())
            worker = self.gateway.worker()
            before, began = cpu_s(worker), time.perf_counter()
            tally = await wires.arrive(self._request(Wanted(), wires.port), STEADY_RATE, STEADY_S)
            await self.note(tally, Wanted(), wires.port)
            return (cpu_s(worker) - before) / (time.perf_counter() - began)

    async def idle(self) -> Figure:
        """CPU time that the worker uses while nobody calls."""
        worker = self.gateway.worker()
        before, began = cpu_s(worker), time.perf_counter()
        await asyncio.sleep(2 * self.seconds)
        share = (cpu_s(worker) - before) / (time.perf_counter() - began) * 100
        return Figure("CPU of the worker while nobody calls", "% of a core", (share,))


class Others:
    """What everybody else has used of our two cores since this was made: how far to trust the figures."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._began, self._before = time.perf_counter(), self._used()

    def _used(self) -> tuple[float, float]:
        """Seconds so far on the core of what is tested and on the other, without our own."""
        bench = self._bench
        tested = bench.gateway.tree_cpu_s() + bench.empty.tree_cpu_s()
        loading = time.process_time() + bench.upstream.tree_cpu_s()
        return busy_s(bench.cores.tested) - tested, busy_s(bench.cores.other) - loading

    def figures(self) -> Iterable[Figure]:
        """Until now; what cannot be told apart from zero is zero."""
        seconds = time.perf_counter() - self._began
        where = ("the core of what is tested", "the core of the load")
        for core, before, now in zip(where, self._before, self._used(), strict=True):
            share = max(0.0, (now - before) / seconds * 100)
            yield Figure(f"use by others of {core}, during the run", "%", (share,))


def of_the_busiest(whole: Beside) -> Iterable[Figure]:
    """The first two bounds from the load that they speak of, and how much of its core it had."""
    yield Figure(
        "CPU per call, whole, 64 connections", "µs", tuple(each.cpu_us for each in whole.gateway), 260
    )
    yield Figure(
        "calls a second on one core, whole, 64 connections",
        "calls/s",
        tuple(each.rate for each in whole.gateway),
        3800,
        at_least=True,
    )
    yield Figure(
        "share of its core that the worker had meanwhile",
        "%",
        tuple(each.share * 100 for each in whole.gateway),
    )
