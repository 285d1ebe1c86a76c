"""Who is calling: the value that authentication hands to the relay.

Pure: no database, no Django, so that the relay can import it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from types import MappingProxyType
from typing import Literal

Priority = Literal["urgent", "normal", "batch"]
"""Most urgent first."""
OwnerKind = Literal["key", "team"]
RateLimitKind = Literal["requests", "tokens", "concurrent"]
"""The first two in any 60 seconds, the last at any moment."""
QuotaKind = Literal["requests", "tokens", "money"]
"""Money in whole nano-units of the ledger currency."""
Period = Literal["day", "month"]
Network = IPv4Network | IPv6Network

NO_TAGS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose limit it is."""

    kind: OwnerKind
    id: int
    name: str

    def __str__(self) -> str:
        return f"the {'API key' if self.kind == 'key' else 'team'} '{self.name}'"

    @property
    def leading(self) -> str:
        """As a sentence begins with it."""
        words = str(self)
        return words[0].upper() + words[1:]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """So much in any 60 seconds, or so many calls at once. Forgets."""

    id: int
    owner: Owner
    kind: RateLimitKind
    amount: int
    model_name: str = ""
    """The route that it is for; empty: all together."""


@dataclass(frozen=True, slots=True)
class Quota:
    """So much in a calendar day or month of a time zone."""

    id: int
    owner: Owner
    kind: QuotaKind
    amount: int
    period: Period
    zone: str
    """An IANA name, such as Europe/Berlin."""
    hard: bool = False
    """Whether the worst case of every call under way is held, so that it is never overshot;
    else what is expected of it."""
    warn_at: tuple[int, ...] = (50, 80, 100)
    """Shares in percent at which the owner is told."""


@dataclass(frozen=True, slots=True)
class Caller:
    """An API key's owner and rights, as last read from the database.

    Does not carry any secret.
    """

    key_id: int
    team_id: int
    expires_at_s: float | None = None
    """Unix seconds, of the key or of the secret that was presented, whichever ends first; None: never."""
    priority_ceiling: Priority = "normal"
    """The most urgent that its calls may be."""
    secret_id: int = 0
    """Which of the key's secrets was presented."""
    routes: frozenset[str] | None = None
    """The model names that it may use; None: every route."""
    networks: tuple[Network, ...] = ()
    """Where its calls may come from; empty: from anywhere."""
    tags: Mapping[str, str] = field(default_factory=lambda: NO_TAGS)
    """Stamped on every entry; they win over the client's own."""
    rate_limits: tuple[RateLimit, ...] = ()
    """Of the key and of its team."""
    quotas: tuple[Quota, ...] = ()
    """Of the key and of its team."""

    def expired(self, now_s: float) -> bool:
        return self.expires_at_s is not None and now_s >= self.expires_at_s

    def may_use(self, model_name: str) -> bool:
        return self.routes is None or model_name in self.routes


class KeyCannotBeChecked(Exception):
    """The database did not answer and this key is not remembered: neither yes nor no."""
