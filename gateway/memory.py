"""How the C library keeps the memory of our processes."""

import ctypes
import os
import sys

MOST_ARENAS = 2
SET_BY_THE_OPERATOR = "MALLOC_ARENA_MAX"
_M_ARENA_MAX = -8


def share_arenas() -> None:
    """Let all threads of this process, and of those that it forks, share two arenas of glibc's malloc.

    It gives threads arenas of their own, up to eight for each core, and none of them gives what is free to
    another, so that a process with twenty threads grows for hours (mallopt(3)).
    Says nothing where there is another C library, and leaves what the environment sets.
    """
    if sys.platform != "linux" or SET_BY_THE_OPERATOR in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, MOST_ARENAS)
