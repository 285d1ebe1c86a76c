"""What one record in the journal costs: a copy into a mapped segment beside a write to the same file.

    python -m benchmarks.journal_append

Prints the median of seven rounds in microseconds a record, alone and beside a busy Python thread
(as the ledger's writer is), where a system call gives the interpreter away and must win it back.
"""

import os
import statistics
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.ledger.journal import HEAD, Segment

SWITCH_INTERVAL_S = 0.0002  # as `gateway/lifespan.py` sets it
RECORD = b"x" * 300
RECORDS = 20_000
ROUNDS = 7
SIZE = 16 * 1024 * 1024


def mapped(folder: Path) -> Callable[[], None]:
    segment = Segment(folder / f"{time.monotonic_ns()}.seg", SIZE)
    return lambda: segment.append(RECORD)


def written(folder: Path) -> Callable[[], None]:
    file = os.open(folder / f"{time.monotonic_ns()}.seg", os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(file, 0, SIZE)
    return lambda: _write(file)


def _write(file: int) -> None:
    os.write(file, HEAD.pack(len(RECORD), zlib.crc32(RECORD)) + RECORD)


def cost_us(append: Callable[[], None]) -> float:
    began = time.perf_counter()
    for _ in range(RECORDS):
        append()
    return (time.perf_counter() - began) / RECORDS * 1e6


@contextmanager
def busy_thread() -> Iterator[None]:
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            sum(range(1000))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def median_us(make: Callable[[Path], Callable[[], None]], folder: Path) -> float:
    return statistics.median(cost_us(make(folder)) for _ in range(ROUNDS))


def report(when: str, folder: Path) -> None:
    print(f"{when}: mapped {median_us(mapped, folder):.2f} us, written {median_us(written, folder):.2f} us")


def main() -> None:
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with tempfile.TemporaryDirectory(dir=".") as name:
        report("alone", Path(name))
        with busy_thread():
            report("beside a busy thread", Path(name))


if __name__ == "__main__":
    main()
