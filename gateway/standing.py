"""Where pages and the API ask how much of quotas is used and held at this moment."""

from collections.abc import Callable, Mapping, Sequence

from django.db import DatabaseError

from gateway.errors import Unavailable
from gateway.relay.limits import Figures

Ask = Callable[[Sequence[int]], Mapping[int, Figures]]
"""Of each quota in its present period, by its id, as far as they are known.

Called from threads other than the relay's. Raises TimeoutError, errors.Unavailable, DatabaseError."""

_ask: Ask | None = None


class NotKnown(Exception):
    """This process serves no calls, so it counts nothing; or the counters do not answer."""


def install(ask: Ask | None) -> None:
    """Let this be asked from now on; None when the relay is going away."""
    global _ask
    _ask = ask


def figures(quota_ids: Sequence[int]) -> Mapping[int, Figures]:
    """Raises NotKnown."""
    if _ask is None:
        raise NotKnown("no relay is here")
    try:
        return _ask(quota_ids)
    except (TimeoutError, Unavailable, DatabaseError) as why:
        raise NotKnown(str(why)) from why
