"""Time zones that a person can choose from, by their IANA names."""

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from types import MappingProxyType
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

UTC: Final = "UTC"


@cache
def names() -> Mapping[str, str]:
    """Each name by its lower case. Those of places, and UTC: the others are old spellings of the same."""
    places = sorted(name for name in available_timezones() if "/" in name and not name.startswith("Etc/"))
    return MappingProxyType({name.lower(): name for name in (UTC, *places)})


def found(text: str) -> str | None:
    """The zone that somebody typed, in whichever case, spaces or underscores; None where there is none."""
    return names().get("_".join(text.split()).lower())


def offset(name: str, at: datetime) -> str:
    """As in `UTC+09:00`, at a moment."""
    written = at.astimezone(ZoneInfo(name)).strftime("%z")
    return f"UTC{written[:3]}:{written[3:5]}"
