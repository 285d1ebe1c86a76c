"""Numbered pages of a list, as their links say them."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pages:
    """Which page is shown, of how many; the addresses of those beside it, None where there is none."""

    number: int
    count: int
    address: Callable[[int], str]

    @property
    def before(self) -> str | None:
        return self.address(self.number - 1) if self.number > 1 else None

    @property
    def after(self) -> str | None:
        return self.address(self.number + 1) if self.number < self.count else None

    @property
    def first(self) -> str | None:
        return self.address(1) if self.number > 2 else None

    @property
    def last(self) -> str | None:
        return self.address(self.count) if self.number < self.count - 1 else None


def page_number(text: str) -> int:
    """Of an address; what is no number is the first page."""
    return max(1, int(text[:9])) if text.isdecimal() else 1
