"""Threads share what one of them has freed."""

import itertools
import os
import subprocess
import sys

import pytest

from gateway.memory import SET_BY_THE_OPERATOR
from tests.served import ROOT, Served

ARENA = 64 * 1024 * 1024
"""Bytes of addresses that glibc keeps for one on a 64-bit machine, at a multiple of as many."""
THREADS = """
import threading
from pathlib import Path
from gateway import memory
from tests.gateway.test_memory import arenas_of
memory.share_arenas()
met = threading.Barrier(13)
def hold():
    kept = [bytearray(2000) for _ in range(100)]
    met.wait()
    met.wait()
threads = [threading.Thread(target=hold) for _ in range(12)]
for each in threads: each.start()
met.wait()
print(arenas_of("self"))
met.wait()
"""


def arenas_of(pid: int | str) -> int:
    """Beside the main one: each begins with what is in use, and goes on with what is kept for it."""
    with open(f"/proc/{pid}/maps") as file:
        found = [line.split() for line in file]
    spans = [(*(int(each, 16) for each in line[0].split("-")), line[1], len(line)) for line in found]
    return sum(
        used == "rw-p" and kept == "---p" and parts == 5 and begin % ARENA == 0 and end == goes_on
        for (begin, end, used, parts), (goes_on, _, kept, _) in itertools.pairwise(spans)
    )


def arenas_of_twelve_threads(**environ: str) -> int:
    clean = {name: value for name, value in os.environ.items() if name != SET_BY_THE_OPERATOR}
    done = subprocess.run(
        [sys.executable, "-c", THREADS],
        cwd=ROOT,
        env={**clean, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that has arenas")
def test_twelve_threads_share_two_arenas() -> None:
    assert arenas_of_twelve_threads() <= 1


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that has arenas")
def test_what_the_operator_sets_stays() -> None:
    assert arenas_of_twelve_threads(**{SET_BY_THE_OPERATOR: "8"}) > 1


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that has arenas")
def test_every_process_of_a_gateway_does(served: Served) -> None:
    assert served.process is not None
    for each in [*served.workers(), served.process]:
        assert arenas_of(each.pid) <= 1
