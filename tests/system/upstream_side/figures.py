"""Comparisons that hold on a machine that others use too: ratios of pairs, run one right after the other."""

from collections.abc import Awaitable, Callable, Sequence
from statistics import median, quantiles

Arm = Callable[[], Awaitable[Sequence[float]]]
"""One run; the latency of each of its calls in seconds."""


def p99(values: Sequence[float]) -> float:
    return quantiles(values, n=100)[-1]


async def pairs_of_p99(alone: Arm, beside: Arm, pairs: int) -> list[tuple[float, float]]:
    """The p99 of both, in seconds, so many times; who goes first takes turns."""
    found = []
    for number in range(pairs):
        if number % 2:
            second, first = await beside(), await alone()
        else:
            first, second = await alone(), await beside()
        found.append((p99(first), p99(second)))
    return found


def ratio(pairs: Sequence[tuple[float, float]]) -> float:
    """Of the second to the first, in the median pair."""
    return median(second / first for first, second in pairs)


def told(pairs: Sequence[tuple[float, float]]) -> str:
    each = ", ".join(f"{first * 1000:.0f} and {second * 1000:.0f} ms" for first, second in pairs)
    return f"{ratio(pairs):.2f} times (p99 {each})"
