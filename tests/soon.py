"""Waiting on a condition without holding up the event loop."""

import asyncio
import time
from collections.abc import Callable


async def soon(condition: Callable[[], object], what: str, *, within_s: float = 10.0) -> None:
    """Returns when the condition holds; fails, saying what was waited for, when the time is over."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {within_s} s"
        await asyncio.sleep(0.01)
