"""A call's attempts as bars on one scale of time. Pure: lengths are thousandths of the whole."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from django.utils.translation import gettext_lazy

from gateway.ledger.explain import Explanation, Tried
from gateway.ledger.reasons import lasting

SCALE: Final = 1000
LEAST: Final = 3
"""A part that took any time can be seen."""
TICKS: Final = 4
WORTH_A_LANE_US: Final = 1000
"""What the gateway itself took; less is not worth a line."""
PARTS: Final = {
    "own": gettext_lazy("In the gateway"),
    "backoff": gettext_lazy("Waiting before a retry"),
    "gate": gettext_lazy("At the gate"),
    "connection": gettext_lazy("For a connection"),
    "silent": gettext_lazy("No answer came"),
    "head": gettext_lazy("To the first byte"),
    "first": gettext_lazy("To the first token"),
    "writing": gettext_lazy("To the last byte"),
}


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of a bar."""

    name: str
    title: str
    start: int
    length: int
    duration_us: int


@dataclass(frozen=True, slots=True)
class Lane:
    """One attempt."""

    tried: Tried
    parts: list[Part]


@dataclass(frozen=True, slots=True)
class Timeline:
    """All attempts of a call, and what the scale is labelled with."""

    own: list[Part]
    """When no attempt was under way: admission before the first, and what is left; none where little is."""
    own_us: int
    lanes: list[Lane]
    ticks: list[str]
    legend: dict[str, str]
    """The parts that occur, by name."""


def timeline(told: Explanation) -> Timeline:
    """From the call's begin to its end, or to that of an attempt that a jump of the clock put behind it."""
    ends = [told.latency_us, 1, *(each.after_us + each.latency_us for each in told.attempts)]
    whole_us = max(ends)
    lanes = [Lane(each, _placed(each, whole_us)) for each in told.attempts]
    own = list(_own(told, whole_us))
    own_us = sum(each.duration_us for each in own)
    own = own if own_us >= WORTH_A_LANE_US else []
    names = {part.name for parts in (own, *(lane.parts for lane in lanes)) for part in parts}
    return Timeline(
        own,
        own_us,
        lanes,
        [lasting(whole_us * place // TICKS) for place in range(TICKS + 1)],
        {name: str(title) for name, title in PARTS.items() if name in names},
    )


def _own(told: Explanation, whole_us: int) -> Iterator[Part]:
    """The gaps: from the call's begin to the first attempt's waits, between attempts, after the last."""
    at_us = 0
    for each in told.attempts:
        begun_us = max(at_us, each.after_us - _waited_us(each))
        if begun_us > at_us:
            yield _part("own", at_us, begun_us - at_us, whole_us)
        at_us = max(at_us, each.after_us + each.latency_us)
    if told.latency_us > at_us:
        yield _part("own", at_us, told.latency_us - at_us, whole_us)


def _waited_us(tried: Tried) -> int:
    return tried.backoff_us + tried.gate_us + tried.pool_wait_us


def _placed(tried: Tried, whole_us: int) -> list[Part]:
    at_us = max(0, tried.after_us - _waited_us(tried))
    found = []
    for name, took_us in _parts(tried):
        found.append(_part(name, at_us, took_us, whole_us))
        at_us += took_us
    return found


def _part(name: str, at_us: int, took_us: int, whole_us: int) -> Part:
    """Too short a one is drawn so long that it can be seen."""
    start = at_us * SCALE // whole_us
    length = max(LEAST, (at_us + took_us) * SCALE // whole_us - start)
    start = min(start, SCALE - LEAST)
    return Part(name, f"{PARTS[name]}: {lasting(took_us)}", start, min(length, SCALE - start), took_us)


def _parts(tried: Tried) -> Iterator[tuple[str, int]]:
    """In the order of time; those that took none are left out."""
    yield from (
        (name, took_us)
        for name, took_us in (
            ("backoff", tried.backoff_us),
            ("gate", tried.gate_us),
            ("connection", tried.pool_wait_us),
        )
        if took_us
    )
    at_us = 0
    for name, until_us in _moments(tried):
        if until_us is not None and until_us > at_us:
            yield name, until_us - at_us
            at_us = until_us


def _moments(tried: Tried) -> list[tuple[str, int | None]]:
    """When each part of the attempt itself was over, counted from its begin; None: not known."""
    if tried.first_byte_us is None and tried.first_token_us is None and tried.outcome != "answered":
        return [("silent", tried.latency_us)]
    return [
        ("head", tried.first_byte_us),
        ("first", tried.first_token_us),
        ("writing", tried.latency_us),
    ]
