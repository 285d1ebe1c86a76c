"""Growth as a page, as JSON and as plots: what a call costs where there are many of one thing. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.bench import STEADY_RATE
from benchmarks.plots import Line, Panel, svg
from benchmarks.report import ends, number, table

CPU = "CPU per call, µs"


@dataclass(frozen=True, slots=True)
class Axis:
    """Something that there may be many of."""

    name: str
    what: str
    counts: tuple[int, ...]
    why: str
    """Where the line rises: what of it grows, and why it does."""
    cost: str = CPU
    also: str = ""
    """What else grows, and why, in a sentence."""


GROWN = (
    Axis(
        "keys",
        "API keys",
        (10, 1000, 100_000, 1_000_000),
        "No step of a call goes through all keys: a known one is in a dictionary, a new one has an index.\n"
        "But calls of ten keys share ten sets of counters, and those of more have 64.",
    ),
    Axis(
        "routes",
        "routes",
        (1, 100, 1000, 10_000),
        "A call finds its route in a dictionary.\n"
        "But the 64 that are called have a target each, and so a gate, a breaker and a pool each.",
        also="Start and memory grow with routes, because the catalog is read whole: at the start, and again "
        "after every change.",
    ),
    Axis(
        "teams",
        "teams",
        (1, 100, 10_000),
        "Each of the 64 teams that are called has counters and a live frame a second of its own, and every "
        "batch of the ledger marks the minute of each.",
    ),
    Axis(
        "entries",
        "calls on the ledger",
        (0, 100_000, 1_000_000),
        "A call reads nothing of the ledger, but its writer inserts into larger indexes.",
    ),
)
"""A gateway for each number; the name is that of the function in `bulk.py` that fills it."""
LIMITS = Axis(
    "limits",
    "limits of a key and its team",
    (0, 1, 4, 16, 64),
    "Each limit that a call meets is asked at admission, corrected at its end, and kept in the entry.\n"
    "24 are met at most; the others are of other routes, and only have to be passed over.",
)
PAGES = Axis(
    "pages",
    "open live pages",
    (0, 10, 100, 300),
    "A frame is made once a second for all pages of a team, and sent to each of them by itself.",
    f"share of a core at {STEADY_RATE} calls/s, %",
)
AXES = (*GROWN[:3], LIMITS, PAGES, GROWN[3])
"""In the order of the page."""


@dataclass(slots=True)
class Point:
    """A gateway with so many: a value for each round of `cost`, which is what the axis says."""

    count: int
    cost: list[float] = field(default_factory=list)
    start_s: float | None = None
    memory_mb: float | None = None
    """Of the worker, after the rounds."""
    first_ms: list[float] = field(default_factory=list)
    """Of each key, its first call since the start."""
    again_ms: list[float] = field(default_factory=list)
    """And its second."""


Scaling = Mapping[str, Sequence[Point]]
"""By the axis's name."""


def page(found: Scaling) -> str:
    """Each axis with its plot, its table, and whether it is flat."""
    return "\n".join(["## Growth\n", INTRODUCTION, *(_axis_page(each, found[each.name]) for each in AXES)])


INTRODUCTION = """Each gateway below is filled before it starts, and the gateways of one plot take turns.
64 connections call with 64 keys, or with as many as there are; key and team have every limit.
The other keys, teams and routes are there and nobody calls; each of those keys has a rate limit.
*First call* is of a key that this process has not seen yet, one call at a time.
The key, its limits and what its quotas have used are read then.
"""


def _axis_page(axis: Axis, points: Sequence[Point]) -> str:
    has_more = points[0].start_s is not None
    head = (
        axis.what,
        axis.cost,
        *(("first call, ms", "again, ms", "start, s", "worker, MB") if has_more else ()),
    )
    return "\n".join(
        (
            f"### By {axis.what}\n",
            f"![{axis.cost} by {axis.what}](plots/scaling_{axis.name}.svg)\n",
            table(head, [_row(each, has_more=has_more) for each in points]),
            *(f"{each}\n" for each in (verdict(axis, points), axis.also) if each),
        )
    )


def _row(point: Point, *, has_more: bool) -> tuple[str, ...]:
    row = (f"{point.count:,}", ends(point.cost))
    if not has_more:
        return row
    assert point.start_s is not None
    assert point.memory_mb is not None
    return (
        *row,
        ends(point.first_ms),
        ends(point.again_ms),
        number(point.start_s),
        number(point.memory_mb),
    )


def verdict(axis: Axis, points: Sequence[Point]) -> str:
    """Whether the line is flat: its dearest point overlaps with its first. Else the reason."""
    first, dearest = points[0].cost, max(points, key=lambda each: median(each.cost))
    if len(first) == 1:
        return "One round cannot tell whether it is flat."
    if min(dearest.cost) <= max(first):
        return f"Flat as far as rounds tell: those at {dearest.count:,}, the dearest, overlap with the first."
    times = median(dearest.cost) / median(first)
    return f"At {dearest.count:,} it is {times:.2f} times what it is at {points[0].count:,}.\n{axis.why}"


def document(found: Scaling) -> dict[str, Any]:
    """Every round of every point."""
    return {
        "axes": {
            axis.name: {
                "what": axis.what,
                "cost": axis.cost,
                "points": [_point(each) for each in found[axis.name]],
            }
            for axis in AXES
        }
    }


def _point(point: Point) -> dict[str, Any]:
    lists = {
        name: [round(value, 3) for value in getattr(point, name)] for name in ("cost", "first_ms", "again_ms")
    }
    return {
        "count": point.count,
        **{name: values for name, values in lists.items() if values},
        **{
            name: round(value, 2)
            for name in ("start_s", "memory_mb")
            if (value := getattr(point, name)) is not None
        },
    }


def plots(found: Scaling) -> dict[str, str]:
    """One for each axis: its cost, and of gateways of their own the first calls too."""
    return {f"scaling_{axis.name}.svg": svg(*_panels(axis, found[axis.name])) for axis in AXES}


def _panels(axis: Axis, points: Sequence[Point]) -> Iterator[Panel]:
    yield Panel(
        f"By {axis.what}", axis.what, axis.cost, [Line("", {each.count: each.cost for each in points})]
    )
    if points[0].first_ms:
        calls = [
            Line("first call of a key", {each.count: _middle(each.first_ms) for each in points}),
            Line("again", {each.count: _middle(each.again_ms) for each in points}),
        ]
        yield Panel("One call at a time", axis.what, "latency, ms", calls)


def _middle(values: Sequence[float]) -> tuple[float, ...]:
    """The middle nine tenths of single calls, whose extremes are of the machine."""
    ordered, out = sorted(values), len(values) // 20
    return tuple(ordered[out : len(ordered) - out])
