"""Found first on PYTHONPATH by the processes of a soaked gateway: they write down how many tasks they have.

A line of JSON to `SOAK_INSIDE/PID.jsonl` every `SOAK_EVERY_S`; the last word belongs to the newest line.
Only types are looked at, so that nothing that is lazy is woken.
"""

import asyncio
import gc
import json
import os
import threading
import time
from collections import Counter
from pathlib import Path

MOST_TYPES = 60


def _look() -> dict[str, object]:
    objects = gc.get_objects()
    tasks = sum(1 for each in objects if type(each) is asyncio.Task and not each.done())
    types = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in objects)
    return {
        "at": time.time(),
        "tasks": tasks,
        "objects": len(objects),
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
