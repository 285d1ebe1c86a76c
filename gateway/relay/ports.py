"""What the relay needs from the rest of the house, as shapes.

The lifespan passes the real things in; the relay knows only these.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from accounts.caller import Caller
from gateway.relay.catalog import Catalog, Target
from gateway.relay.records import Dispatched, Opened, Settled


class Keys(Protocol):
    """Who is calling?"""

    def remembered(self, presented: str, /) -> Caller | None:
        """The caller, where this key was seen before and nothing changed since."""

    async def look_up(self, presented: str, /) -> Caller | None:
        """The caller from the database, or None. Raises accounts.caller.KeyCannotBeChecked."""


class Routes(Protocol):
    """Where may calls go?"""

    def current(self) -> Catalog: ...


@dataclass(slots=True)
class Ticket:
    """Room that the journal keeps for one call's end, in bytes."""

    room: int


class Journal(Protocol):
    """The books' front door. What was appended survives this process."""

    def open(self, record: Opened, /) -> Ticket:
        """Raises gateway.ledger.journal.JournalFull."""

    def dispatch(self, ticket: Ticket, record: Dispatched, /) -> None:
        """Raises gateway.ledger.journal.JournalFull."""

    def settle(self, ticket: Ticket, record: Settled, /) -> None:
        """Never fails for want of room: the ticket holds it."""

    async def on_disk(self) -> None:
        """In the strict setting, wait until what was appended is on the disk. Raises errors.Unavailable."""


class Listener(Protocol):
    """Told of every record as it is appended, on the relay's own loop."""

    def settled(self, record: Settled, /) -> None: ...

    def refused(self, team_id: int, key_id: int, route: str, code: str, /) -> None: ...


class Answer(Protocol):
    """A provider's answer whose headers have come."""

    status: int
    content_type: str
    retry_after: str | None
    retry_after_ms: str | None

    async def whole(self, limit: int) -> bytes:
        """All of the body. Raises transports.TooLarge, transports.Broken."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises transports.Broken."""

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else close it. May be called twice."""


class Transport(Protocol):
    """A pooled HTTP client, one pool a target."""

    async def send(self, target: Target, call_id: str, body: bytes, /) -> Answer:
        """POST a chat completion. Raises transports.TransportError."""

    async def close(self) -> None: ...
