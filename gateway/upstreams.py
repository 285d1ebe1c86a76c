"""Where pages and the API ask for what this process knows of each target at this moment."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.relay.targets import TargetState

Ask = Callable[[], Sequence["TargetState"]]
"""Every target of the catalog. Called from threads other than the relay's. Raises TimeoutError."""

_ask: Ask | None = None


class NoRelayHere(Exception):
    """This process serves no calls, so it knows nothing of targets."""


def install(ask: Ask | None) -> None:
    """Let this be asked from now on; None when the relay is going away."""
    global _ask
    _ask = ask


def states() -> Sequence["TargetState"]:
    """Raises NoRelayHere, and TimeoutError where the relay is too busy to say."""
    if _ask is None:
        raise NoRelayHere
    return _ask()
