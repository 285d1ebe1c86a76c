"""Where a call's CPU time goes: by thread, and in the event loop by part.

Threads by their own clocks; parts by samples of py-spy, which stops the process for each.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.bench import BUSIEST, Bench, say
from benchmarks.figures import Sample
from benchmarks.processes import CannotMeasure, gateway, module, on_core
from benchmarks.relay import bench_of, warm
from benchmarks.sections import Effort, Section
from benchmarks.wire import Wanted

SAMPLES_A_SECOND: Final = 100
LONGER: Final = 12
"""Times the length of a round that is sampled: a hundred samples tell nothing."""
STOP_S: Final = 10.0
PY_SPY: Final = Path(sys.executable).with_name("py-spy")
LOOP: Final = "event loop"
NAMES: Final = {"MainThread": LOOP, "tokio-rt-worker": "Granian's network", "": "Granian's Python thread"}
"""Of threads, where their own says little."""
PARTS: Final = (
    ("connections to providers", r"gateway/relay/transports/|aiohttp/"),
    ("who is calling", r"accounts/|hmac\.py"),
    ("live frames and metrics", r"dashboard/(?!asgi)|gateway/(meter|refusals)\.py"),
    ("journal", r"gateway/ledger/"),
    ("admission: limits, quotas, prices", r"relay/(admission|limits|counters|window|pricing|bounds)\.py"),
    (
        "the request, the route",
        r"relay/(call|routing|parameters|overflow|catalog|tokenizer)\.py|gateway/edge\.py",
    ),
    ("attempts: gate, breaker, deadline", r"relay/(attempts?|gate|breaker|targets|lifeline|retry)\.py"),
    ("the answer: reading and handing on", r"relay/(upstream|usage|stream|pipeline|records)\.py"),
    ("HTTP: reply, hang-up, dispatch", r"gateway/endpoints\.py|dashboard/asgi\.py"),
)
"""Of the event loop: a part's name, and the files of which one is innermost in a sample."""
REST: Final = "waiting for work and calling it: uvloop, asyncio, Granian"

_THREAD = re.compile(r"thread \((?P<id>\d+)\)(?:: (?P<name>.*))?")


@dataclass(frozen=True, slots=True)
class Profile:
    """What one call takes of the worker, at the busiest load."""

    cpu_us: float
    threads: tuple[tuple[str, float], ...]
    """Each thread's name and its microseconds a call, the busiest first."""
    parts: tuple[tuple[str, float], ...]
    """Of the event loop: each part and its share of the samples, the largest first."""
    samples: int


def names_of(raw: str) -> dict[int, str]:
    """By thread id, what py-spy calls each thread."""
    found = {}
    for line in raw.splitlines():
        stack, _, _ = line.rpartition(" ")
        if thread := _THREAD.fullmatch(stack.partition(";")[0]):
            found[int(thread["id"])] = thread["name"] or ""
    return found


def parts_of(raw: str) -> Counter[str]:
    """Samples of the event loop by part."""
    found: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        thread, *frames = stack.split(";")
        if thread.endswith(": MainThread"):
            found[_part(frames)] += int(count)
    return found


def _part(stack: Sequence[str]) -> str:
    """Whose the innermost frame is, of those that are anybody's."""
    for frame in reversed(stack):
        for name, files in PARTS:
            if re.search(files, frame):
                return name
        if "/asyncio/" in frame or "granian/" in frame or "uvloop/" in frame:
            return REST
    return REST


def made_of(cpu_us: float, spent_us: Mapping[int, float], comms: Mapping[int, str], raw: str) -> Profile:
    """`spent_us` of each thread by its id, `comms` the kernel's names for them, `raw` what py-spy wrote."""
    names, parts = names_of(raw), parts_of(raw)
    threads: defaultdict[str, float] = defaultdict(float)
    for thread_id, us in spent_us.items():
        name = names.get(thread_id, comms.get(thread_id, ""))
        threads[NAMES.get(name, name)] += us
    total = parts.total()
    return Profile(
        cpu_us,
        tuple((name, us) for name, us in sorted(threads.items(), key=lambda each: -each[1]) if us >= 0.5),
        tuple((name, count / total) for name, count in parts.most_common()),
        total,
    )


def page(profile: Profile) -> str:
    """The section of docs/performance.md."""
    loop_us = dict(profile.threads).get(LOOP, 0.0)
    threads = [f"| {name} | {us:.0f} |" for name, us in profile.threads]
    parts = [f"| {name} | {share:.0%} | {share * loop_us:.0f} |" for name, share in profile.parts]
    return "\n".join(
        (
            "## Where the time goes\n",
            f"Of {profile.cpu_us:.0f} µs of CPU a call, {BUSIEST}, everything on, by thread:\n",
            "| thread | µs a call |",
            "| --- | --- |",
            *threads,
            f"\nOf the event loop, by {profile.samples:,} samples:\n",
            "| part | share | µs a call |",
            "| --- | --- | --- |",
            *parts,
            "",
        )
    )


def document(profile: Profile) -> dict[str, Any]:
    """The same for docs/performance.json."""
    return asdict(profile)


def run(effort: Effort) -> Profile:
    """Raises CannotMeasure where py-spy may not look into a process, NotWhole."""
    cores = effort.cores
    with (
        tempfile.TemporaryDirectory() as folder,
        on_core(cores.other),
        module("benchmarks.upstream", cores.other) as upstream,
        gateway(Path(folder) / "alone", upstream.port, cores.tested) as (served, _),
    ):
        bench = bench_of(served, upstream, upstream, effort)
        return uvloop.run(_profiled(bench, Path(folder) / "samples.txt"))


async def _profiled(bench: Bench, out: Path) -> Profile:
    """The clocks are read in one round, and the samples are taken in another, which they slow."""
    await warm(bench)
    worker = bench.gateway.worker()
    before = _thread_us(worker)
    measured = await _busiest(bench, bench.seconds * 2)
    spent = {each: us - before.get(each, 0.0) for each, us in _thread_us(worker).items()}
    with _sampled(worker, out):
        await _busiest(bench, bench.seconds * LONGER)
    bench.close_books()
    each_us = {thread: us / measured.calls for thread, us in spent.items()}
    return made_of(measured.cpu_us, each_us, _comms(worker), _read(out))


def _read(samples: Path) -> str:
    """Raises CannotMeasure where py-spy wrote none."""
    if not samples.exists():
        raise CannotMeasure("py-spy could not look into the worker; it needs the right to trace processes.")
    return samples.read_text()


async def _busiest(bench: Bench, seconds: float) -> Sample:
    found = await bench.sample(bench.gateway, Wanted(), BUSIEST.connections, seconds)
    say(f"profile: {found.cpu_us:.0f} us a call, {found.rate:.0f} calls/s")
    return found


def _thread_us(pid: int) -> dict[int, float]:
    """CPU time of each thread so far, in microseconds, as the scheduler counts it."""
    found = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError):  # it has just ended
            found[int(thread)] = (
                int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0]) / 1000
            )
    return found


def _comms(pid: int) -> dict[int, str]:
    found = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError):
            found[int(thread)] = Path(f"/proc/{pid}/task/{thread}/comm").read_text().strip()
    return found


@contextlib.contextmanager
def _sampled(pid: int, out: Path) -> Iterator[None]:
    """py-spy looks on until the block is left. Raises CannotMeasure where it is not installed."""
    command = [PY_SPY, "record", "--pid", str(pid), "--rate", str(SAMPLES_A_SECOND)]
    command += ["--format", "raw", "--threads", "--duration", "unlimited", "--output", str(out)]
    try:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError:
        raise CannotMeasure("py-spy is not installed beside this Python.") from None
    try:
        time.sleep(1)  # until it has read where the interpreter keeps its threads
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(STOP_S)


SECTION = Section("profile", run, page, document)
