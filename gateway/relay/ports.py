"""What the relay needs from the rest of the house, as shapes.

The lifespan passes the real things in; the relay knows only these.
"""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from accounts.caller import Caller
from gateway.relay.catalog import Catalog, Target
from gateway.relay.records import Dispatched, Opened, Settled

if TYPE_CHECKING:
    from gateway.relay.admission import Reservation, Trying


class Keys(Protocol):
    """Who is calling?"""

    def remembered(self, presented: str, /) -> Caller | None:
        """The caller, where this key was seen before and nothing changed since."""

    async def look_up(self, presented: str, /) -> Caller | None:
        """The caller from the database, or None. Raises accounts.caller.KeyCannotBeChecked."""


class Routes(Protocol):
    """Where may calls go?"""

    def current(self) -> Catalog: ...


class Ticket(Struct):
    """Room that the journal keeps for one call's end, in bytes."""

    room: int


class Journal(Protocol):
    """The books' front door. What was appended survives this process."""

    def open(self, record: Opened, /) -> Ticket:
        """Raises errors.JournalFull."""

    def dispatch(self, ticket: Ticket, record: Dispatched, /) -> None:
        """Raises errors.JournalFull."""

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


class Place(Protocol):
    """A connection's worth of a target's pool, taken and not yet used."""

    async def send(self, call_id: str, body: bytes, /) -> Answer:
        """POST a chat completion; the answer has the place from then on. Raises transports.TransportError."""

    def release(self) -> None:
        """Give the place back unused."""


class Transport(Protocol):
    """A pooled HTTP client, one pool a target."""

    async def acquire(self, target: Target, /) -> Place:
        """Wait for a place in the target's pool. Raises PoolExhausted, CannotConnect of transports."""

    async def close(self) -> None: ...


class Client(Protocol):
    """The far end that called us."""

    begun: bool
    """Something was sent, so the status is told."""

    async def whole(self, body: bytes, reservation: "Reservation", /) -> None: ...

    async def begin_stream(self, trying: "Trying", reservation: "Reservation", /) -> None: ...

    async def chunk(self, data: bytes, /) -> None: ...

    async def end_stream(self, data: bytes, /) -> None: ...

    async def fail_stream(self, data: bytes, /) -> None: ...
