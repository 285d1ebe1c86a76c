"""A run's results as a page and as JSON. Pure: the same results make the same text."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from statistics import median
from typing import Any

from benchmarks import rows
from benchmarks.figures import Beside, Figure, Results, Sample
from benchmarks.rows import Field


def page(method: str, results: Results, field: Field, machine: Mapping[str, str]) -> str:
    """`docs/performance.md`: how it was measured, then what came of it."""
    parts = [
        method,
        "## Bounds\n",
        _table(("", "bound", "median", "lowest to highest", ""), map(_bound_row, _bounded(results))),
        "\n## Beside an empty application\n",
        "CPU time per call in µs.\n",
        _table(
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
        "\n## Also measured\n",
        _table(("", "median", "lowest to highest"), map(_also_row, _also(results))),
        f"\n{rows.page(field)}",
        "## The books of this run\n",
        _books(results),
        "\n## The machine\n",
        _table(("", ""), machine.items()),
    ]
    return "\n".join(parts) + "\n"


def document(results: Results, field: Field, machine: Mapping[str, str]) -> str:
    """`docs/performance.json`: every round of every figure."""
    content: dict[str, Any] = {
        "machine": dict(machine),
        "seconds": round(results.seconds, 1),
        "figures": [_rounded(asdict(each)) | {"reached": each.reached} for each in results.figures],
        "beside_empty": [
            {
                "load": str(each.load),
                "gateway": [_rounded(asdict(one)) for one in each.gateway],
                "empty": [_rounded(asdict(one)) for one in each.empty],
                "cpu_ratios": [round(one, 3) for one in each.ratios],
            }
            for each in results.grid
        ],
        "field": rows.document(field),
        "books": asdict(results.books),
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _bounded(results: Results) -> list[Figure]:
    return [each for each in results.figures if each.bound is not None]


def _also(results: Results) -> list[Figure]:
    lags = tuple(one.lag_s for each in results.grid for one in each.gateway)
    rest = [each for each in results.figures if each.bound is None]
    return [*rest, Figure("from the last answer of a round to its last entry on the ledger", "s", lags)]


def _bound_row(figure: Figure) -> tuple[str, ...]:
    assert figure.bound is not None
    bound = f"{'≥' if figure.at_least else '≤'} {_number(figure.bound)} {figure.unit}"
    return (figure.what, bound, *_spread(figure), "reached" if figure.reached else "**not reached**")


def _also_row(figure: Figure) -> tuple[str, ...]:
    return (figure.what, *_spread(figure))


def _spread(figure: Figure) -> tuple[str, str]:
    values = figure.values
    spread = f"{_number(min(values))} to {_number(max(values))}" if len(values) > 1 else "one round"
    return f"{_number(figure.median)} {figure.unit}", spread


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
    values = [getattr(each, what) for each in samples]
    return f"{_number(median(values))} ({_number(min(values))} to {_number(max(values))})"


def _books(results: Results) -> str:
    books = results.books
    return (
        f"{books.answered:,} calls were answered, and {books.entries:,} entries are on the ledger.\n"
        f"Their cost is {books.cost_nanos:,} nano-units, as it must be.\n"
        f"The run took {results.seconds:.0f} s."
    )


def _number(value: float) -> str:
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(each)} |" for each in lines) + "\n"


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _shorter(value) for name, value in values.items()}


def _shorter(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_shorter(each) for each in value]
    return round(value, 3) if isinstance(value, float) else value
