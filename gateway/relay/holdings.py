"""What calls have used and still hold of quotas, as the books and the journals tell it.

Counters are made from this. Reading the books and the journals is left to `gateway/ledger/holdings.py`.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from msgspec import Struct

from gateway.relay.limits import QuotaAsk


class OpenHold(Struct, frozen=True):
    """A call under way, and what it holds of one quota's counter."""

    call_id: str
    process: str
    """The id of the process that carries it."""
    counter: str
    amount: int
    """In the quota's unit."""
    expires_at_us: int
    """When it counts as spent if nobody settled it, in microseconds since the Unix epoch."""


class Survey(Struct, frozen=True):
    """A consistent cut: a call is in `spent` or in `open`, never in both."""

    spent: Mapping[str, int]
    """By counter, in the quota's unit; a counter that is missing here is at nothing."""
    open: Sequence[OpenHold] = ()


Surveyor = Callable[[Sequence[QuotaAsk] | None], Awaitable[Survey]]
"""Survey these quotas' counters; None: every counter that the quotas of now need."""
