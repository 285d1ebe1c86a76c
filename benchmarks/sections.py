"""What a run is made of: sections, each measured, written and kept by itself. Pure.

A section that is run alone takes its own place in the page and in the JSON; the others stay as they are.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.processes import Cores

BEGINS = "<!-- section: {name} -->\n"
_BEGINS = re.compile(r"^<!-- section: ([a-z_]+) -->\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Effort:
    """How much a section may take."""

    cores: Cores
    rounds: int
    seconds: float
    """Of a round; some take twice as long."""
    quick: bool = False
    """Only what a run of three minutes has room for."""


def no_plots(found: Any) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class Section:
    """One part of a run. `page`, `document` and `plots` are pure, of what `measure` found."""

    name: str
    measure: Callable[[Effort], Any]
    """Raises CannotMeasure, NotWhole."""
    page: Callable[[Any], str]
    """Markdown, its heading first."""
    document: Callable[[Any], Mapping[str, Any]]
    """For the JSON: every round of every figure."""
    plots: Callable[[Any], Mapping[str, str]] = no_plots
    """SVG by file name, which is below `docs/plots/`."""
    quick: bool = False
    """Also a part of the quick run."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one run of a section came to."""

    page: str
    document: Mapping[str, Any]
    plots: Mapping[str, str] = field(default_factory=dict)


def part_of(section: Section, found: Any, stamp: Mapping[str, Any]) -> Part:
    """`stamp` says when and how it was measured, in what order it is to be read."""
    return Part(
        f"{section.page(found).rstrip()}\n\n{stamped(stamp)}\n",
        {"stamp": dict(stamp), **section.document(found)},
        section.plots(found),
    )


def stamped(stamp: Mapping[str, Any]) -> str:
    """One line: when and how a section was measured."""
    return f"*{', '.join(f'{name}: {value}' for name, value in stamp.items())}.*"


def merged_page(before: str, method: str, parts: Mapping[str, str], order: Iterable[str]) -> str:
    """The page `before` with these parts in their places, in this order; what is in no order is left out.

    A page without sections, as an older version wrote it, has nothing that is kept.
    """
    there = {**_parts_of(before), **parts}
    kept = [BEGINS.format(name=name) + there[name].strip() + "\n" for name in order if name in there]
    return "\n".join([method.rstrip() + "\n", *kept])


def _parts_of(page: str) -> dict[str, str]:
    _, *rest = _BEGINS.split(page)
    return dict(zip(rest[::2], rest[1::2], strict=True))


def merged_document(before: str, documents: Mapping[str, Mapping[str, Any]], order: Iterable[str]) -> str:
    """The JSON `before`, which may be empty, with these sections in their places.

    Raises ValueError where `before` is something else than JSON.
    """
    there = {**(json.loads(before) if before else {}).get("sections", {}), **documents}
    kept = {name: there[name] for name in order if name in there}
    return json.dumps({"sections": kept}, indent=1, ensure_ascii=False) + "\n"
