"""Found first on PYTHONPATH by the processes of a soaked gateway: they write down how many tasks they have.

A line of JSON to `SOAK_INSIDE/PID.jsonl` every `SOAK_EVERY_S`; the last word belongs to the newest line.
Only types are looked at, so that nothing that is lazy is woken.
"""

import asyncio
import contextlib
import gc
import json
import os
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

MOST_TYPES = 60


def _types_of_all() -> list[type]:
    """Of everything the collector knows.

    One call of C from its beginning to its end, so that no other thread runs meanwhile: the tuple that one is
    just making must belong to nobody else, or CPython 3.11 fails it with a SystemError.
    """
    return next(map(list, map(partial(map, type), map(gc.get_objects, (None,)))))


def _open_tasks() -> int:
    while True:
        with contextlib.suppress(RuntimeError):  # one began while they were counted
            return sum(not each.done() for each in list(asyncio.tasks._all_tasks))


def _look() -> dict[str, object]:
    found = _types_of_all()
    types = Counter(f"{each.__module__}.{each.__qualname__}" for each in found)
    return {
        "at": time.time(),
        "tasks": _open_tasks(),
        "objects": len(found),
        "types": dict(types.most_common(MOST_TYPES)),
    }


def _watch(folder: Path, every_s: float) -> None:
    with (folder / f"{os.getpid()}.jsonl").open("a", buffering=1) as file:
        while True:
            file.write(json.dumps(_look()) + "\n")
            time.sleep(every_s)


def _start() -> None:
    folder, every_s = Path(os.environ["SOAK_INSIDE"]), float(os.environ["SOAK_EVERY_S"])
    threading.Thread(target=_watch, args=(folder, every_s), name="soak", daemon=True).start()


if "SOAK_INSIDE" in os.environ:
    _start()
    os.register_at_fork(after_in_child=_start)
