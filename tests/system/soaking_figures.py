"""What a process weighs and holds over time, and whether it grows. Pure.

Moments are seconds from the start of the load, memory is bytes.
"""

import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations

import msgspec

MIB = 1024 * 1024
HOUR_S = 3600.0
WARM_UP_SHARE = 1 / 3
"""Of an hour, twenty minutes: the live page alone fills sixteen with its seconds, and then keeps no more."""
MOST_MIB_AN_HOUR = 1.0
MOST_AN_HOUR = {"fds": 5.0, "sockets": 5.0, "threads": 1.0, "tasks": 5.0}
"""Counts swing with the calls under way: over forty minutes this much is chance."""
COUNTS = ("fds", "sockets", "threads", "tasks", "objects")
WARNING = re.compile(r"never awaited|never retrieved|unclosed|ResourceWarning|RuntimeWarning", re.IGNORECASE)


class Sample(msgspec.Struct, frozen=True):
    """One process at one moment."""

    at_s: float
    role: str
    pid: int
    rss: int
    files: int
    """Of the memory, pages of files in VAR_DIR: they grow and go with the journal's segments."""
    fds: int
    sockets: int
    """Of the descriptors."""
    threads: int
    tasks: int | None = None
    """Of asyncio, not yet done; None where nobody counts them."""
    objects: int | None = None
    """That the garbage collector knows, without those of the start."""

    @property
    def own(self) -> int:
        return self.rss - self.files


Points = Sequence[tuple[float, float]]


def slope(points: Points) -> float:
    """The median of the slopes between any two points (Theil and Sen): a few wild ones do not move it.

    Raises statistics.StatisticsError where no two points differ in time.
    """
    return statistics.median(
        (late - early) / (late_s - early_s)
        for (early_s, early), (late_s, late) in combinations(points, 2)
        if late_s > early_s
    )


def after(samples: Iterable[Sample], from_s: float) -> list[Sample]:
    return [each for each in samples if each.at_s >= from_s]


def by_role(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for each in samples:
        found.setdefault(each.role, []).append(each)
    return found


def an_hour(samples: Iterable[Sample], figure: Callable[[Sample], float | None]) -> float | None:
    """How much a figure grows in an hour; None where it was not taken twice."""
    points = [(each.at_s, value) for each in samples if (value := figure(each)) is not None]
    return slope(points) * HOUR_S if len({at_s for at_s, _ in points}) > 1 else None


def growth(samples: Sequence[Sample]) -> dict[str, float]:
    """Of one process in an hour: MiB of its own memory and of all, and its counts."""
    figures: dict[str, Callable[[Sample], float | None]] = {
        "own": lambda each: each.own / MIB,
        "rss": lambda each: each.rss / MIB,
        "fds": lambda each: each.fds,
        "sockets": lambda each: each.sockets,
        "threads": lambda each: each.threads,
        "tasks": lambda each: each.tasks,
        "objects": lambda each: each.objects,
    }
    found = {name: an_hour(samples, figure) for name, figure in figures.items()}
    return {name: value for name, value in found.items() if value is not None}


def leaks(samples: Iterable[Sample], from_s: float) -> list[str]:
    """Processes that grow after the warm-up, and those that died in it; empty where all is flat."""
    found = []
    for role, mine in by_role(samples).items():
        if len({each.pid for each in mine}) > 1:
            found.append(f"{role}: it died and came back")
        grown = growth(after(mine, from_s))
        if grown["own"] > MOST_MIB_AN_HOUR:
            found.append(f"{role}: {grown['own']:+.2f} MiB an hour")
        found += [
            f"{role}: {grown[name]:+.1f} {name} an hour"
            for name, most in MOST_AN_HOUR.items()
            if grown.get(name, 0.0) > most
        ]
    return found


def not_back(before: Mapping[str, Sample], afterwards: Mapping[str, Sample]) -> list[str]:
    """What processes hold more of at rest than before the load, both by role: sockets and tasks."""
    found = []
    for role, then in before.items():
        now = afterwards[role]
        if now.sockets > then.sockets:
            found.append(f"{role}: {now.sockets} sockets, {then.sockets} before")
        if now.tasks is not None and then.tasks is not None and now.tasks > then.tasks:
            found.append(f"{role}: {now.tasks} tasks, {then.tasks} before")
    return found


def warnings_in(log: str) -> list[str]:
    """Lines that tell of what was left open, or begun and forgotten."""
    return [line for line in log.splitlines() if WARNING.search(line)]


def told(samples: Iterable[Sample], from_s: float) -> str:
    """One sentence for each process: its memory after the warm-up, and what it holds."""
    return "; ".join(_told(role, after(mine, from_s)) for role, mine in by_role(samples).items())


def _told(role: str, mine: Sequence[Sample]) -> str:
    grown = growth(mine)
    quarter = max(1, len(mine) // 4)
    first, last = (
        statistics.median(each.own / MIB for each in some) for some in (mine[:quarter], mine[-quarter:])
    )
    counts = ", ".join(_range(name, mine, grown[name]) for name in COUNTS if name in grown)
    return (
        f"{role}: own RSS {first:.1f} → {last:.1f} MiB, {grown['own']:+.2f} MiB/h "
        f"(all of it {grown['rss']:+.2f}), {counts}, n {len(mine)}"
    )


def _range(name: str, mine: Sequence[Sample], grown: float) -> str:
    values = [value for each in mine if (value := getattr(each, name)) is not None]
    return f"{name} {min(values)} to {max(values)} ({grown:+.1f}/h)"


def counted(names: Iterable[str]) -> str:
    return counted_of(Counter(names))


def counted_of(counts: Counter[str]) -> str:
    """How often each, the most frequent first."""
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())
