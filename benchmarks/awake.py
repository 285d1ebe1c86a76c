"""Keeps a core from falling asleep, without taking anything from whoever wants it.

    python -m benchmarks.awake CORE

A core that has nothing to do sleeps, and to wake it costs the program that wants it many microseconds, on a
virtual machine most of all: the same load then costs more where it comes less evenly. Ends with who began it.
"""

import os
import sys

LOOK_AFTER: int = 1_000_000
"""Turns between two looks at whether the parent still lives; some hundredths of a second."""


def main() -> None:
    os.sched_setaffinity(0, {int(sys.argv[1])})
    os.nice(19)  # counted apart from what others use, see sched(7) and proc(5)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    parent = os.getppid()
    while os.getppid() == parent:
        for _ in range(LOOK_AFTER):
            pass


if __name__ == "__main__":
    main()
