"""Where pages and the API ask how much of quotas is used and held at this moment."""

from collections.abc import Callable, Mapping, Sequence

from gateway.relay.limits import Figures

Ask = Callable[[Sequence[int]], Mapping[int, Figures]]
"""Of each quota in its present period, by its id, as far as they are known.

Called from threads other than the relay's. Raises TimeoutError."""

_ask: Ask | None = None


class NoRelayHere(Exception):
    """This process serves no calls, so it counts nothing."""


def install(ask: Ask | None) -> None:
    """Let this be asked from now on; None when the relay is going away."""
    global _ask
    _ask = ask


def figures(quota_ids: Sequence[int]) -> Mapping[int, Figures]:
    """Raises NoRelayHere, and TimeoutError where the counters do not say in time."""
    if _ask is None:
        raise NoRelayHere
    return _ask(quota_ids)
