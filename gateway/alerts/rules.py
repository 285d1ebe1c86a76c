"""What becomes of an alert: a rule, its figure and the moment in, the next state and what to tell out. Pure.

    ok → (rising) → firing → ok

It fires when the figure was beyond the threshold for `hold`, and is over when it was within it for `hold`,
at least CALM: so a figure that swings around the threshold tells once.
"""

from datetime import datetime, timedelta
from typing import Final, Literal

from msgspec import Struct

CALM: Final = timedelta(minutes=3)

State = Literal["waiting", "ok", "rising", "firing"]
Tell = Literal["fired", "resolved"]


class Rule(Struct, frozen=True):
    """When an alert fires."""

    threshold: int
    hold: timedelta = timedelta(0)
    pause: timedelta = timedelta(hours=1)
    least_calls: int = 0


class Figure(Struct, frozen=True):
    """What was measured, in the unit of the threshold."""

    value: int | None
    """None: there was nothing to measure, which is within every threshold."""
    calls: int | None = None
    """That it is made of; None: it is made of none."""
    detail: str = ""


class Standing(Struct, frozen=True):
    """How an alert is."""

    state: State = "waiting"
    since_at: datetime | None = None
    calm_since_at: datetime | None = None
    told_at: datetime | None = None


class Step(Struct, frozen=True):
    """How it is from now on, and what happened."""

    standing: Standing
    happened: Tell | None = None
    is_told: bool = False
    """False of what fired within the pause: it is written down, and nobody is told."""


def is_beyond(rule: Rule, figure: Figure) -> bool:
    if figure.value is None:
        return False
    if figure.calls is not None and figure.calls < rule.least_calls:
        return False
    return figure.value > rule.threshold


def step(rule: Rule, standing: Standing, figure: Figure, now: datetime) -> Step:
    """The next standing. Looking again in the same moment changes nothing and tells nothing."""
    if is_beyond(rule, figure):
        return _beyond(rule, standing, now)
    return _within(rule, standing, now)


def _beyond(rule: Rule, was: Standing, now: datetime) -> Step:
    if was.state == "firing":
        return Step(_changed(was, calm_since_at=None))
    since_at = was.since_at if was.state == "rising" and was.since_at else now
    if now - since_at < rule.hold:
        return Step(Standing("rising", since_at, None, was.told_at))
    is_told = was.told_at is None or now - was.told_at >= rule.pause
    told_at = now if is_told else was.told_at
    return Step(Standing("firing", now, None, told_at), "fired", is_told)


def _within(rule: Rule, was: Standing, now: datetime) -> Step:
    if was.state == "ok":
        return Step(was)
    if was.state != "firing":
        return Step(Standing("ok", now, None, was.told_at))
    calm_since_at = was.calm_since_at or now
    if now - calm_since_at < max(rule.hold, CALM):
        return Step(_changed(was, calm_since_at=calm_since_at))
    return Step(Standing("ok", now, None, was.told_at), "resolved", is_told=True)


def _changed(was: Standing, *, calm_since_at: datetime | None) -> Standing:
    return Standing(was.state, was.since_at, calm_since_at, was.told_at)
