"""Who is changing something, and from where: known to whatever runs on their behalf.

Pages, the API and commands say so once, at their edge; every write then finds it here for the audit.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

ActorKind = Literal["person", "token", "command", "system"]


@dataclass(frozen=True, slots=True)
class Actor:
    """`name` is an e-mail address, or what did it where nobody did."""

    kind: ActorKind
    name: str
    user_id: int | None = None
    address: str = ""
    """Where the request came from; empty where there was none."""
    user_agent: str = ""


SYSTEM = Actor("system", "Penstock")

_acting: ContextVar[Actor] = ContextVar("penstock_actor", default=SYSTEM)


def actor() -> Actor:
    """On whose behalf this runs; the house itself where nobody said."""
    return _acting.get()


@contextlib.contextmanager
def acting_as(who: Actor) -> Iterator[None]:
    """Everything inside is done on somebody's behalf."""
    token = _acting.set(who)
    try:
        yield
    finally:
        _acting.reset(token)
