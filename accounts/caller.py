"""Who is calling: the value that authentication hands to the relay.

Pure: no database, no Django, so that the relay can import it.
"""

from dataclasses import dataclass
from typing import Literal

Priority = Literal["urgent", "normal", "batch"]
"""Most urgent first."""


@dataclass(frozen=True, slots=True)
class Caller:
    """An API key's owner and rights, as last read from the database.

    Does not carry any secret.
    """

    key_id: int
    team_id: int
    expires_at_s: float | None = None
    """Unix seconds; None: never."""
    priority_ceiling: Priority = "normal"
    """The most urgent that its calls may be."""

    def expired(self, now_s: float) -> bool:
        return self.expires_at_s is not None and now_s >= self.expires_at_s


class KeyCannotBeChecked(Exception):
    """The database did not answer and this key is not remembered: neither yes nor no."""
