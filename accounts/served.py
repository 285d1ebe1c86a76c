"""What pages here show of the rooms above, which this room does not know: they say so when they start."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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


ModelNames = Callable[[], list[str]]
UsedOf = Callable[[Sequence[int]], Mapping[int, Used]]
"""By the quotas' ids, as far as this process knows."""


@dataclass(frozen=True, slots=True)
class Served:
    model_names: ModelNames
    used_of: UsedOf


_served: Served | None = None


def install(model_names: ModelNames, used_of: UsedOf) -> None:
    """Ask these from now on."""
    global _served
    _served = Served(model_names, used_of)


def model_names() -> list[str]:
    """That a call may ask for, by name; none where nobody said."""
    return _served.model_names() if _served else []


def used_of(quota_ids: Sequence[int]) -> Mapping[int, Used]:
    """What is known here and now; a quota that is not in it is not known."""
    return _served.used_of(quota_ids) if _served and quota_ids else {}
