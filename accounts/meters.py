"""How full a quota is, for a bar and in words. Pure: figures in, figures out."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

Level = Literal["good", "warn", "bad"]
WARN: Final = 80
"""Percent, where a quota names no lower share to tell of."""
LEAST_FOR_RATE: Final = timedelta(days=7)
"""One of each weekday: less of a period says nothing about the rest of it."""


@dataclass(frozen=True, slots=True)
class Meter:
    """Of one quota in its present period, in its unit."""

    amount: int
    used: int
    """Spent, or as good as spent until somebody knows better."""
    reserved: int
    """Held by calls under way."""

    @property
    def left(self) -> int:
        return max(0, self.amount - self.used - self.reserved)

    @property
    def percent(self) -> int:
        """Used and reserved, rounded up, so that 100 means full; of nothing all is used."""
        return -(-100 * (self.used + self.reserved) // self.amount) if self.amount else 100

    @property
    def used_width(self) -> str:
        """Of a bar 100 wide, as SVG writes numbers."""
        return _width(self.used, self.amount)

    @property
    def reserved_width(self) -> str:
        return _width(min(self.reserved, self.amount - min(self.used, self.amount)), self.amount)

    def level(self, warn_at: int = WARN) -> Level:
        """Bad when used up; warn from a share in percent."""
        if self.used + self.reserved >= self.amount:
            return "bad"
        return "warn" if 100 * (self.used + self.reserved) >= warn_at * self.amount else "good"


def used_up_at(meter: Meter, begins_at: datetime, ends_at: datetime, now: datetime) -> datetime | None:
    """When the quota is used up if the period goes on as it did; None where that cannot be told honestly.

    Nothing is told before a week of the period is over, of a quota that lasts, and of one that is used up.
    """
    elapsed = now - begins_at
    if elapsed < LEAST_FOR_RATE or meter.used <= 0 or meter.left <= 0:
        return None
    at = begins_at + elapsed * (meter.amount / meter.used)
    return at if now < at < ends_at else None


def _width(part: int, whole: int) -> str:
    share = min(1.0, part / whole) if whole else 1.0
    return f"{100 * share:.2f}".rstrip("0").rstrip(".")
