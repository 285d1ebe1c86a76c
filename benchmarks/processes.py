"""Processes of a run: started on a core of their own, and what they have used. Linux only."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.configured import NO_USUAL_LIMITS, SET_UP
from benchmarks.wire import MODEL_NAME
from gateway.presets import API_KEYS
from tests.served import HELPERS, KEY, ROOT, Served, eventually, free_port, provider_of

CPU_CLOCK = 2
"""The clock of a process's CPU time among its clocks, see clock_getcpuclockid(3)."""
START_S = 30.0
STOP_S = 10.0
CONNECTIONS = 10_000


class CannotMeasure(Exception):
    """The machine cannot run this benchmark; the message is one sentence that helps."""


@dataclass(frozen=True, slots=True)
class Cores:
    """One core for the process under test, one for everything else."""

    tested: int
    other: int


def two_cores() -> Cores:
    """The first two that we may use. Raises CannotMeasure."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(allowed) < 2:
        raise CannotMeasure(
            "The benchmark needs Linux and two cores: one for what is measured, one for the load."
        )
    return Cores(allowed[0], allowed[1])


@contextlib.contextmanager
def on_core(*cores: int) -> Iterator[None]:
    """What is started inside runs on this core, or on these, with all that it starts itself."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_s(pid: int) -> float:
    """User and system time of a process so far, all its threads, living and ended; in seconds.

    Read from the process's own CPU clock, which counts nanoseconds; /proc and psutil count 10 ms.
    """
    return time.clock_gettime((~pid << 3) | CPU_CLOCK)


@dataclass(frozen=True, slots=True)
class Server:
    """Something that listens: its port, and the process that its worker descends from, or is."""

    port: int
    root: int
    api_key: str = "none"
    serving: int = 1
    """How many processes serve."""

    def _family(self) -> list[int]:
        return [each.pid for each in psutil.Process(self.root).children(recursive=True)]

    def worker(self) -> int:
        """The process that serves: after some calls, the busiest of the descendants that are no helpers."""
        return max(self._serving(), key=cpu_s)

    def workers(self) -> list[int]:
        """The processes that serve: after some calls, the busiest of the descendants, and its siblings.

        Raises ValueError where nothing serves.
        """
        return sorted(self._serving(), key=cpu_s)[-self.serving :]

    def _serving(self) -> list[int]:
        family = psutil.Process(self.root).children(recursive=True)
        return [each.pid for each in family if not is_helper(each)]

    def tree_cpu_s(self) -> float:
        """CPU time of the root and all its descendants, in seconds."""
        return sum(cpu_s(each) for each in [self.root, *self._family()])


def is_helper(process: psutil.Process) -> bool:
    """It serves nobody; or it has ended."""
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        command = " ".join(process.cmdline())
        return not command or any(each in command for each in HELPERS)
    return True


def memory_bytes(pid: int) -> int:
    """Resident memory of a process."""
    used: int = psutil.Process(pid).memory_info().rss
    return used


def busy_s(core: int) -> float:
    """How long a core has worked so far, for whomever but the nice, as `awake` is; in seconds."""
    times = psutil.cpu_times(percpu=True)[core]
    return float(times.user + times.system + times.irq + times.softirq + times.steal)


@contextlib.contextmanager
def awake(*cores: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """These cores do not fall asleep; see `awake.py`."""
    command = [sys.executable, "-m", "benchmarks.awake"]
    watching = [subprocess.Popen([*command, str(core)], cwd=ROOT) for core in cores]
    try:
        yield watching
    finally:
        for each in watching:
            each.terminate()
            each.wait(STOP_S)


@contextlib.contextmanager
def module(name: str, core: int) -> Iterator[Server]:
    """`python -m NAME PORT` on a core, listening."""
    port = free_port()
    with on_core(core):
        process = subprocess.Popen([sys.executable, "-m", name, str(port)], cwd=ROOT)
    try:
        eventually(lambda: _listens(process.pid, port), START_S, f"the start of {name}")
        yield Server(port, process.pid)
    finally:
        process.terminate()
        process.wait(STOP_S)


def _listens(pid: int, port: int) -> bool:
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return any(
        wire.laddr.port == port and wire.status == psutil.CONN_LISTEN
        for each in family
        for wire in each.net_connections("tcp")
    )


@contextlib.contextmanager
def gateway(
    folder: Path,
    upstream_port: int,
    *cores: int,
    redis_url: str = "",
    environ: Mapping[str, str] | None = None,
    before_start: Callable[[Served], None] = lambda _: None,
) -> Iterator[tuple[Served, str]]:
    """`manage.py up` on a fresh VAR_DIR, with the benchmark's upstream as its only provider.

    Its API key has every limit there is; beside it is one that has none, see `configured.py`.
    With `redis_url` it counts there, and not in process. `environ` are further settings.
    `before_start` is called when all is set up and nothing serves yet.
    Vendors' API keys of the environment are left out: not one call may leave this machine.
    """
    settings = {
        **dict.fromkeys(API_KEYS, ""),
        **NO_USUAL_LIMITS,
        **provider_of(f"http://127.0.0.1:{upstream_port}/v1", MODEL_NAME),
        "REDIS_URL": redis_url,
        **(environ or {}),
    }
    served = Served(folder, settings)
    served.var_dir.mkdir(parents=True, exist_ok=True)
    served.configure(max_connections=CONNECTIONS, max_concurrency=CONNECTIONS)
    unlimited = KEY.search(served.manage("shell", "-c", SET_UP))
    assert unlimited is not None
    before_start(served)
    try:
        with on_core(*cores):
            served.start()
        yield served, unlimited.group()
    finally:
        if served.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                served.stop(STOP_S)
            served.kill()
