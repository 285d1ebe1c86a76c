"""Measure other gateways and proxies beside ours, in the same run and in turns.

    python -m benchmarks.run --only peers

A peer that is not installed, does not start, or does not answer as it should is reported as such;
the run goes on. An answer of the gateway that is not whole ends it.
"""

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Final

import psutil
import uvloop

from benchmarks import installing, leanest, peering
from benchmarks.bench import CHUNKS, DELAY_MS, Bench, say
from benchmarks.figures import Load, Sample, percentile
from benchmarks.load import Connections, NotWhole, Tally
from benchmarks.peering import Against, Latency, Peers, Standing
from benchmarks.processes import Server, gateway, module, on_core
from benchmarks.relay import bench_of, warm
from benchmarks.sections import Effort, Section
from benchmarks.wire import Wanted, request
from tests.served import free_port

START_S: Final = 60.0
STOP_S: Final = 5.0
MOST: Final = 1500.0
"""Calls a second that the load sends evenly beside the upstream on its core."""


class DoesNotStart(Exception):
    """A peer ended, or did not listen in time; the message is one sentence."""


async def measure(
    bench: Bench, loads: Sequence[Load] = peering.LOADS, *, rounds: int | None = None, latency: bool = True
) -> Peers:
    """Every peer in turn, beside the bench's gateway, which is warm; the bench's rounds unless said.

    Takes for each peer its start, and for each load a warm-up and two rounds' length for each round;
    for latency four more for each round. Raises NotWhole for an answer of the gateway only.
    """
    began = time.perf_counter()
    rounds = rounds or bench.rounds
    standings = [await _standing(bench, each, loads, rounds, latency) for each in leanest.PEERS]
    return Peers(tuple(standings), time.perf_counter() - began)


async def _standing(
    bench: Bench, peer: leanest.Peer, loads: Sequence[Load], rounds: int, latency: bool
) -> Standing:
    """All of one peer, or the reason why it is missing."""
    version = ""
    try:
        found = installing.found(peer)
        version = found.version
        with started(peer, found.program, bench.cores.tested, bench.upstream.port) as (server, start):
            return await Beside(bench, peer, server, start, rounds).all(version, loads, latency)
    except (installing.Missing, DoesNotStart) as why:
        say(f"{peer.name}: {why}")
        return Standing(peer.name, peer.form, version, why=str(why))


class Beside:
    """One peer that is up, beside the gateway."""

    def __init__(
        self, bench: Bench, peer: leanest.Peer, server: Server, start: leanest.Start, rounds: int
    ) -> None:
        self._bench, self._peer, self._server, self._start = bench, peer, server, start
        self._rounds = rounds
        self._why: list[str] = []
        """What it did not do as it should, in sentences."""

    async def all(self, version: str, loads: Sequence[Load], latency: bool) -> Standing:
        """Each load, then the latency if it is asked for; what fails is left out and named."""
        each_load = [await self.load(load) for load in loads]
        found = tuple(each for each in each_load if each is not None)
        delay = await self.latency(half_of(found[0])) if latency and found else None
        return Standing(self._peer.name, self._peer.form, version, found, delay, " ".join(self._why))

    async def load(self, load: Load) -> Against | None:
        """Rounds of a load, in turns with the gateway; None where the peer does not carry it."""
        bench, want = self._bench, Wanted(streamed=load.streamed, chunks=CHUNKS if load.streamed else 0)
        if await self._sample(load, want) is None:
            return None
        ours, its = [], []
        for turn in range(self._rounds):
            own = await bench.sample(bench.gateway, want, load.connections, bench.seconds)
            other = await self._sample(load, want)
            if other is None:
                return None
            ours.append(own)
            its.append(other)
            say(
                f"{load}, round {turn + 1}: "
                f"gateway {own.tree_us:.0f} us, {own.rate:.0f} calls/s, {own.share:.0%}; "
                f"{self._peer.name} {other.tree_us:.0f} us, {other.rate:.0f} calls/s, {other.share:.0%}"
            )
        return Against(load, tuple(ours), tuple(its))

    async def _sample(self, load: Load, want: Wanted) -> Sample | None:
        said = self._said(want)
        try:
            return await sample(self._server, said, want, load.connections, self._bench.seconds)
        except (NotWhole, OSError) as why:
            self._failed(f"{load}", why)
            return None

    def _said(self, want: Wanted) -> bytes:
        return request(want, self._server.port, self._server.api_key, self._start.headers)

    def _failed(self, where: str, why: Exception) -> None:
        """The whole reason to whoever waits; what a server said of itself is not for the report."""
        say(f"{self._peer.name}, {where}: {why}")
        self._why.append(f"It failed at {where} ({str(why).partition(':')[0]}).")

    async def latency(self, rate: float) -> Latency | None:
        """What it adds to an upstream of 200 ms; None where an answer is not whole."""
        want = Wanted(delay_ms=DELAY_MS)
        straight = request(want, self._bench.upstream.port, "none")
        p50, p99 = [], []
        try:
            for _ in range(self._rounds):
                direct = await self._arrivals(self._bench.upstream, straight, rate)
                its = await self._arrivals(self._server, self._said(want), rate)
                p50.append((percentile(its, 0.5) - percentile(direct, 0.5)) * 1000)
                p99.append((percentile(its, 0.99) - percentile(direct, 0.99)) * 1000)
        except (NotWhole, OSError) as why:
            self._failed("an open loop", why)
            return None
        say(f"{self._peer.name} at {rate:.0f} calls/s: p50 +{median(p50):.2f} ms, p99 +{median(p99):.2f} ms")
        return Latency(rate, tuple(p50), tuple(p99))

    async def _arrivals(self, server: Server, said: bytes, rate: float) -> list[float]:
        in_flight = int(rate * DELAY_MS / 1000 * 1.5) + 64
        async with Connections(server.port, in_flight) as wires:
            await wires.once(said)
            return (await wires.arrive(said, rate, self._bench.seconds * 2)).latencies


def half_of(found: Against) -> float:
    """Half of a peer's calls a second in this run, but no more than the load sends evenly."""
    return min(MOST, median(each.rate for each in found.peer) / 2)


async def sample(server: Server, said: bytes, want: Wanted, connections: int, seconds: float) -> Sample:
    """A closed loop on a peer; its time ends with the last answer. Raises NotWhole."""
    async with Connections(server.port, connections) as wires:
        _check(await wires.once(said), want)
        before, began = server.tree_cpu_s(), time.perf_counter()
        tally = await wires.saturate(said, seconds)
        took = time.perf_counter() - began
        used = server.tree_cpu_s() - before
    _check(tally, want)
    cpu_us = used / tally.answered * 1e6
    return Sample(
        tally.answered,
        cpu_us,
        cpu_us,
        tally.answered / took,
        percentile(tally.latencies, 0.5) * 1000,
        used / took,
        pieces=tally.pieces / tally.answered,
    )


def _check(tally: Tally, want: Wanted) -> None:
    """A peer may add an event of its own to a stream, and may leave none out. Raises NotWhole."""
    if want.streamed and tally.events < tally.answered * (want.chunks + 1):
        raise NotWhole(f"{tally.answered} streams had {tally.events} events in all")


@contextlib.contextmanager
def started(
    peer: leanest.Peer, program: tuple[str, ...], core: int, upstream_port: int
) -> Iterator[tuple[Server, leanest.Start]]:
    """A peer on a core, listening. Raises DoesNotStart.

    Its environment is bare: no proxy, no vendor's key and no telemetry of ours reaches it.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as name, open(Path(name) / "out.txt", "w") as out:
        folder = Path(name)
        start = peer.start(program, folder, port, upstream_port)
        for each, text in start.files.items():
            (folder / each).write_text(text)
        environ = {"PATH": os.environ.get("PATH", os.defpath), "HOME": name, **start.environ}
        with on_core(core):
            process = subprocess.Popen(
                start.command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        try:
            _wait(peer, process, port, folder / "out.txt")
            yield Server(port, process.pid), start
        finally:
            _stop(process)


def _wait(peer: leanest.Peer, process: subprocess.Popen[bytes], port: int, out: Path) -> None:
    """Until it accepts connections. Raises DoesNotStart, and shows the end of what it printed."""
    deadline = time.monotonic() + START_S
    while not _accepts(port):
        if process.poll() is not None or time.monotonic() > deadline:
            say(f"{peer.name} printed: {out.read_text()[-1000:]}")
            how = "ended at once" if process.poll() is not None else f"did not listen within {START_S:g} s"
            raise DoesNotStart(f"It {how}.")
        time.sleep(0.05)


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """It and all that it started."""
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    for each in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    process.kill()
    process.wait()


def run(effort: Effort) -> Peers:
    """The peers and a gateway of their own; a quick run has room for one round of whole answers.

    Raises CannotMeasure, NotWhole.
    """
    cores = effort.cores
    with (
        tempfile.TemporaryDirectory() as folder,
        on_core(cores.other),
        module("benchmarks.upstream", cores.other) as upstream,
        gateway(Path(folder), upstream.port, cores.tested) as (served, _),
    ):
        return uvloop.run(_all(bench_of(served, upstream, upstream, effort), quick=effort.quick))


async def _all(bench: Bench, *, quick: bool) -> Peers:
    await warm(bench)
    loads = (peering.WHOLE,) if quick else peering.LOADS
    found = await measure(bench, loads, rounds=1 if quick else None, latency=not quick)
    bench.close_books()
    return found


SECTION = Section("peers", run, peering.page, peering.document, quick=True)
