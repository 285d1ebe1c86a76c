"""An event loop whose clock jumps to the next timer: minutes of traffic pass in no time, always alike."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Clock:
    """Monotonic seconds that pass only when the loop has nothing else to do."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


class Skipping(selectors.SelectSelector):
    """Does not wait: moves the clock on instead."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everything waits for something that never comes"
        self.clock.now_s += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.clock = Clock()
        super().__init__(Skipping(self.clock))

    def time(self) -> float:
        return self.clock.now_s


def in_virtual_time(story: Callable[[Clock], Coroutine[Any, Any, T]]) -> T:
    """Run a story that is told on a clock of its own."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(story(loop.clock))
    finally:
        loop.close()


async def turns(count: int = 4) -> None:
    """Let every task run that can."""
    for _ in range(count):
        await asyncio.sleep(0)
