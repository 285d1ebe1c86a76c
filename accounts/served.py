"""What pages here show of the rooms above, which this room does not know: they say so when they start."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol


class Used(Protocol):
    """Of a quota in its present period, in its unit."""

    @property
    def spent(self) -> int: ...

    @property
    def held(self) -> int:
        """By calls under way."""

    @property
    def expired(self) -> int:
        """By calls of which nobody knows yet what they cost."""


class Bar(Protocol):
    """Of a sparkline: a rectangle, in the units of the drawing, as text."""

    @property
    def x(self) -> str: ...

    @property
    def y(self) -> str: ...

    @property
    def width(self) -> str: ...

    @property
    def height(self) -> str: ...


class Day(Protocol):
    """Of a key, in UTC; figures as people read them."""

    @property
    def day(self) -> date: ...

    @property
    def calls(self) -> str: ...

    @property
    def spend(self) -> str: ...


class Week(Protocol):
    """What a key was used for in the last seven days, today among them."""

    @property
    def calls(self) -> int:
        """That were let in."""

    @property
    def calls_text(self) -> str: ...

    @property
    def spend_text(self) -> str: ...

    @property
    def words(self) -> str:
        """All of it in a sentence, for whoever cannot see the drawing."""

    @property
    def bars(self) -> Sequence[Bar]:
        """Calls of each day."""

    @property
    def line(self) -> str:
        """Spend of each day that is over, as the points of a polyline."""

    @property
    def days(self) -> Sequence[Day]:
        """The earliest first."""


ModelNames = Callable[[], list[str]]
UsedOf = Callable[[Sequence[int]], Mapping[int, Used]]
"""By the quotas' ids, as far as this process knows."""
PeriodOf = Callable[[str, str, datetime], tuple[datetime, datetime]]
"""Of a calendar period and an IANA zone: the begin of the present one, and of the next."""
WeeksOf = Callable[[Mapping[int, int], datetime], Mapping[int, Week]]
"""By the keys' ids, from the ids of their teams; all in two queries."""


@dataclass(frozen=True, slots=True)
class Served:
    model_names: ModelNames
    used_of: UsedOf
    period_of: PeriodOf | None
    weeks_of: WeeksOf | None


_served: Served | None = None


def install(
    model_names: ModelNames,
    used_of: UsedOf,
    period_of: PeriodOf | None = None,
    weeks_of: WeeksOf | None = None,
) -> None:
    """Ask these from now on."""
    global _served
    _served = Served(model_names, used_of, period_of, weeks_of)


def model_names() -> list[str]:
    """That a call may ask for, by name; none where nobody said."""
    return _served.model_names() if _served else []


def used_of(quota_ids: Sequence[int]) -> Mapping[int, Used]:
    """What is known here and now; a quota that is not in it is not known."""
    return _served.used_of(quota_ids) if _served and quota_ids else {}


def period_of(period: str, zone: str, now: datetime) -> tuple[datetime, datetime] | None:
    """When the present period began and when the next one does; None where nobody said."""
    return _served.period_of(period, zone, now) if _served and _served.period_of else None


def weeks_of(keys: Iterable[tuple[int, int]], now: datetime) -> Mapping[int, Week]:
    """Of keys, each with its team; a key that is not in it is not known."""
    teams = dict(keys)
    return _served.weeks_of(teams, now) if _served and _served.weeks_of and teams else {}
