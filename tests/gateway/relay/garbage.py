"""What is in a cycle: it stays, with all that it holds, until the garbage collector comes."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def left_to_the_collector() -> Iterator[list[str]]:
    """What of the relay nothing but the collector would free, told when the block is over."""
    found: list[str] = []
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found.extend(sorted({name for each in gc.garbage if "gateway.relay" in (name := _name(each))}))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def _name(garbage: object) -> str:
    if frame := getattr(garbage, "f_code", None):
        return f"{garbage.f_globals['__name__']}.{frame.co_name}"
    return f"{type(garbage).__module__}.{type(garbage).__name__}"
