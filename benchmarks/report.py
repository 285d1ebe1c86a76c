"""The relay's cost as a page, as JSON and as a plot. Pure: the same results make the same text.

What other sections write their tables with is here too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from benchmarks.figures import (
    SHARES,
    Beside,
    Figure,
    Results,
    Sample,
    is_latency,
    latency_name,
)
from benchmarks.plots import Line, Panel, svg


def page(results: Results) -> str:
    """The section of the relay's cost, and whether it keeps its bounds."""
    parts = [
        "## What a call costs\n\n### Bounds\n",
        table(("", "bound", "median", "lowest to highest", ""), map(_bound_row, _bounded(results))),
        "### Beside an empty application\n\nCPU time per call in µs.\n",
        table(
            (
                "load",
                "gateway",
                "its tree",
                "empty application",
                "ratio",
                "gateway, calls/s",
                "empty, calls/s",
            ),
            map(_beside_row, results.grid),
        ),
        "### Latency added\n",
        "![Latency added at three rates](plots/latency.svg)\n",
        "Milliseconds that the gateway adds at a fixed rate of calls, at so much of the calls a second that "
        "it had of this kind.\n",
        table(
            ("at", "median", "lowest to highest"),
            [figure_row(each) for each in results.figures if is_latency(each)],
        ),
        "### Also measured\n",
        table(("", "median", "lowest to highest"), map(figure_row, _also(results))),
        "### The books of this run\n",
        _books(results),
    ]
    return "\n".join(parts) + "\n"


def document(results: Results) -> dict[str, Any]:
    """Every round of every figure."""
    return {
        "seconds": round(results.seconds, 1),
        "figures": [rounded(asdict(each)) | {"reached": each.reached} for each in results.figures],
        "beside_empty": [
            {
                "load": str(each.load),
                "gateway": [rounded(asdict(one)) for one in each.gateway],
                "empty": [rounded(asdict(one)) for one in each.empty],
                "cpu_ratios": [round(one, 3) for one in each.ratios],
            }
            for each in results.grid
        ],
        "books": asdict(results.books),
    }


def plots(results: Results) -> dict[str, str]:
    """Latency added over the share of capacity, whole and streamed."""
    return {
        "latency.svg": svg(
            *(
                Panel(f"Latency added, {which}", "share of capacity, %", "time added, ms", lines, even=True)
                for which in ("p50", "p99")
                if (lines := _latency_lines(results, which))
            )
        )
    }


def _latency_lines(results: Results, which: str) -> list[Line]:
    found = {each.what: each.values for each in results.figures if is_latency(each)}
    lines = []
    for kind in ("whole", "streamed"):
        named = {part * 100: latency_name(share, kind, which) for share, part in SHARES.items()}
        if points := {place: found[name] for place, name in named.items() if name in found}:
            lines.append(Line(kind, points))
    return lines


def machine_page(facts: Mapping[str, str]) -> str:
    return "\n".join(["## The machine\n", table(("", ""), facts.items())])


def _bounded(results: Results) -> list[Figure]:
    return [each for each in results.figures if each.bound is not None]


def _also(results: Results) -> list[Figure]:
    lags = tuple(one.lag_s for each in results.grid for one in each.gateway)
    rest = [each for each in results.figures if each.bound is None and not is_latency(each)]
    return [*rest, Figure("from the last answer of a round to its last entry on the ledger", "s", lags)]


def _bound_row(figure: Figure) -> tuple[str, ...]:
    assert figure.bound is not None
    bound = f"{'≥' if figure.at_least else '≤'} {number(figure.bound)} {figure.unit}"
    return (figure.what, bound, *spread(figure), "reached" if figure.reached else "**not reached**")


def figure_row(figure: Figure) -> tuple[str, ...]:
    return (figure.what, *spread(figure))


def spread(figure: Figure) -> tuple[str, str]:
    """Median with its unit, and the lowest and the highest round."""
    values = figure.values
    ends = f"{number(min(values))} to {number(max(values))}" if len(values) > 1 else "one round"
    return f"{number(figure.median)} {figure.unit}", ends


def _beside_row(each: Beside) -> tuple[str, ...]:
    return (
        str(each.load),
        _of(each.gateway, "cpu_us"),
        _of(each.gateway, "tree_us"),
        _of(each.empty, "cpu_us"),
        f"{median(each.ratios):.1f}",
        _of(each.gateway, "rate"),
        _of(each.empty, "rate"),
    )


def _of(samples: tuple[Sample, ...], what: str) -> str:
    return ends([getattr(each, what) for each in samples])


def _books(results: Results) -> str:
    books = results.books
    return (
        f"{books.answered:,} calls were answered, and {books.entries:,} entries are on the ledger.\n"
        f"Their cost is {books.cost_nanos:,} nano-units, as it must be.\n"
        f"The run took {results.seconds:.0f} s."
    )


def ends(values: Sequence[float]) -> str:
    """The median, the lowest and the highest; a single value alone."""
    if len(values) == 1:
        return number(values[0])
    return f"{number(median(values))} ({number(min(values))} to {number(max(values))})"


def number(value: float) -> str:
    """With as many digits as a reader needs."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """In Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(each)} |" for each in lines) + "\n"


def rounded(values: dict[str, Any]) -> dict[str, Any]:
    """Every number in it to three places."""
    return {name: _shorter(value) for name, value in values.items()}


def _shorter(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_shorter(each) for each in value]
    return round(value, 3) if isinstance(value, float) else value
