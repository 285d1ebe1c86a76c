"""What the relay needs from the rest of the house, as shapes.

The lifespan passes the real things in; the relay knows only these.
"""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Literal, Protocol

from msgspec import Struct

from accounts.caller import Caller
from gateway.relay.catalog import Catalog, Target
from gateway.relay.limits import Admitted, Ask, Exceeded, Spent
from gateway.relay.records import Dispatched, Opened, Refused, Released, Settled

if TYPE_CHECKING:
    from gateway.relay.admission import Reservation, Trying


BreakerState = Literal["closed", "open", "half_open"]


class Keys(Protocol):
    """Who is calling?"""

    def remembered(self, presented: str, /) -> Caller | None:
        """The caller, where this key was seen before and nothing changed since."""

    async def look_up(self, presented: str, /) -> Caller | None:
        """The caller from the database, or None. Raises accounts.caller.KeyCannotBeChecked."""

    def used(self, caller: Caller, address: str, user_agent: str, /) -> None:
        """A call got past the door with this secret, from there."""


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

    def release(self, ticket: Ticket, record: Released, /) -> None:
        """The call was refused after all. Never fails for want of room."""

    async def on_disk(self) -> None:
        """In the strict setting, wait until what was appended is on the disk. Raises errors.Unavailable."""


class Counters(Protocol):
    """How much of every rate limit and quota is used and held: in this process, or in Redis for several.

    Does not decide what applies to a call, nor how much it asks for.
    """

    def admit_now(self, ask: Ask, /) -> Admitted | Exceeded | None:
        """All that is asked for is taken, or nothing is. None: only `admit` can say, because it must wait."""

    async def admit(self, ask: Ask, /) -> Admitted | Exceeded:
        """The same, waiting where need be, never long. A call id that holds something already holds more
        after this. Raises errors.Unavailable where a hard quota cannot be counted."""

    def settle(self, call_id: str, spent: Spent, /) -> None:
        """The call ended: what it held becomes what it used. A second time does nothing. Never waits:
        what Redis cannot take now is kept and sent later, by this process or who adopts its journal."""

    def release(self, call_id: str, /) -> None:
        """The call was refused after all: everything that it took is given back, its request included."""


class Listener(Protocol):
    """Told of every record as it is appended, on the relay's own loop."""

    def settled(self, record: Settled, /) -> None: ...

    def refused(self, refused: Refused, /) -> None: ...


class Answer(Protocol):
    """A provider's answer whose headers have come."""

    status: int
    content_type: str
    content_encoding: str
    """Empty where there is none, as asked."""
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


class PoolFigures(Struct, frozen=True):
    """One target's pool, now and since it was opened. None: the transport does not know."""

    in_use: int
    waiting: int
    acquired: int
    """Places that were given out."""
    acquire_s: float
    """Seconds spent waiting for them, all together."""
    acquire_buckets: tuple[int, ...]
    """How many waited no longer than each of ACQUIRE_BOUNDS_S, and, last, any time; cumulative."""
    pool_timeouts: int
    """Calls that found no place in time."""
    connect_timeouts: int
    connection_errors: int
    """Connections refused or failed, and those that broke."""
    requests: int
    """Sent, however they ended."""
    answers: int
    """Requests whose headers came back: `answers / requests` is the success rate of the pool."""
    http_version: str | None
    """As last spoken: "1.1" or "2"; None: nothing was spoken yet."""
    idle: int | None
    opened: int | None
    """Connections made."""
    reused: int | None
    """Requests that needed no new connection."""


ACQUIRE_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Transport(Protocol):
    """A pooled HTTP client, one pool a target."""

    async def acquire(self, target: Target, /) -> Place:
        """Wait for a place in the target's pool. Raises PoolExhausted, CannotConnect of transports."""

    def figures(self) -> dict[int, PoolFigures]:
        """By target id; only targets that were called."""

    async def close(self) -> None: ...


class Change(Struct, frozen=True):
    """A breaker went from one state to another."""

    at_us: int
    before: BreakerState
    after: BreakerState
    cause: str
    """In a sentence, for a person."""
    until_us: int | None = None
    """When it will let a probe through, where it opened by itself."""


class News(Protocol):
    """Told of what an operator should see, on the relay's own loop; must not block."""

    def breaker_changed(self, target: Target, change: Change, /) -> None: ...

    def credential_refused(self, target: Target, status: int, /) -> None:
        """The provider does not take our credential."""

    def credential_accepted(self, target: Target, /) -> None:
        """It takes it again; told once after it was refused."""


class Client(Protocol):
    """The far end that called us."""

    begun: bool
    """Something was sent, so the status is told."""

    async def whole(self, body: bytes, reservation: "Reservation", /) -> None: ...

    async def begin_stream(self, trying: "Trying", reservation: "Reservation", /) -> None: ...

    async def chunk(self, data: bytes, /) -> None: ...

    async def end_stream(self, data: bytes, /) -> None: ...

    async def fail_stream(self, data: bytes, /) -> None: ...
