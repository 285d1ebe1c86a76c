"""Plots as SVG text. Pure: the same figures make the same text.

White behind everything, because a page may be light or dark. A bar at a point goes from its lowest round to
its highest; the point itself is the median.
"""

import io
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

WIDTH, HEIGHT = 4.6, 3.0
"""Of one panel, in inches."""
INK, GRID = "#1f2328", "#d8dee4"
COLOURS = ("#0969da", "#bc4c00", "#1a7f37", "#8250df")
"""For as many lines; each is at least 4.5 to 1 against white."""
MARKERS = ("o", "s", "^", "D")
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "penstock",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its name, empty where it is alone, and the rounds at each place of the x axis."""

    name: str
    points: Mapping[float, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes, with lines over numbers, or with a bar for each name."""

    title: str
    x: str
    y: str
    """Labels, with their units."""
    lines: Sequence[Line] = ()
    bars: Mapping[str, Sequence[float]] | None = None
    even: bool = False
    """The x axis is no logarithm."""


def svg(*panels: Panel) -> str:
    """Panels side by side."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH * len(panels), HEIGHT), layout="constrained", facecolor="white")
        FigureCanvasSVG(figure)
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _draw(axes, panel)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def _draw(axes: Axes, panel: Panel) -> None:
    if panel.bars is not None:
        _bars(axes, panel.bars)
    else:
        _lines(axes, panel.lines, even=panel.even)
    axes.set_title(panel.title, fontsize=10)
    axes.set_xlabel(panel.x)
    axes.set_ylabel(panel.y)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0] if _below_zero(panel) else 0.0))
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def _below_zero(panel: Panel) -> bool:
    rounds = [*(panel.bars or {}).values(), *(each for line in panel.lines for each in line.points.values())]
    return any(value < 0 for each in rounds for value in each)


def _lines(axes: Axes, lines: Sequence[Line], *, even: bool) -> None:
    for line, colour, marker in zip(lines, COLOURS, MARKERS, strict=False):
        places = sorted(line.points)
        middles, spread = _spread([line.points[place] for place in places])
        axes.errorbar(
            places, middles, spread, label=line.name, color=colour, marker=marker, markersize=4, capsize=2.5
        )
    _scale(axes, sorted({place for line in lines for place in line.points}), even=even)
    if any(line.name for line in lines):
        axes.legend(frameon=False)


def _scale(axes: Axes, places: Sequence[float], *, even: bool) -> None:
    """A tick at each place and nowhere else. Logarithms begin with nought where there is one."""
    least = min((place for place in places if place > 0), default=1)
    if len(places) > 1 and not even:
        axes.set_xscale("symlog", linthresh=least, linscale=0.5)
    axes.set_xticks(places, [short(place) for place in places])
    axes.xaxis.set_minor_locator(NullLocator())


def short(number: float) -> str:
    """With k and M from ten thousand on, so that neighbours have room."""
    for size, sign in ((1_000_000, "M"), (1000, "k")):
        if number >= 10_000 and number >= size:
            return f"{number / size:,.5g}{sign}"
    return f"{number:,.5g}"


def _bars(axes: Axes, bars: Mapping[str, Sequence[float]]) -> None:
    middles, spread = _spread(list(bars.values()))
    axes.bar(range(len(bars)), middles, width=0.6, yerr=spread, capsize=2.5, color=COLOURS[0], ecolor=INK)
    axes.set_xticks(range(len(bars)), list(bars))


def _spread(rounds: Sequence[Sequence[float]]) -> tuple[list[float], list[list[float]]]:
    """Medians, and how far the lowest and the highest are from them."""
    middles = [statistics.median(each) for each in rounds]
    ends: Sequence[Callable[[Sequence[float]], float]] = (min, max)
    return middles, [
        [abs(end(each) - middle) for each, middle in zip(rounds, middles, strict=True)] for end in ends
    ]
