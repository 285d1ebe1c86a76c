"""Helper processes of `up`: the tasks' worker, and the simulator.

Where several gateways run on one VAR_DIR, one of them has each helper; another takes it over when that one
ends.
"""

import contextlib
import logging
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from gateway.server import CannotStart, lock

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
TRY_AGAIN_S = 1.0
"""How often a gateway asks whether the one that has the helper is gone."""


def pause_s(pause_before_s: float, lived_s: float) -> float:
    """How long to wait before a helper that died is started again: doubled each time, from 1 s up to 60 s.

    Whoever lived for longer than the longest pause begins anew.
    """
    if lived_s > LONGEST_PAUSE_S or not pause_before_s:
        return FIRST_PAUSE_S
    return min(2 * pause_before_s, LONGEST_PAUSE_S)


@dataclass(slots=True)
class Child:
    """A helper process that is started where nobody else has it, and again when it dies.

    `start` may block until the process is of use. It raises CannotStart or OSError.
    """

    name: str
    lock_path: Path
    start: Callable[[], subprocess.Popen[str]]
    stop_s: float
    """How long it may take to stop before it is killed."""
    is_renewed: bool = True
    """Whether a rolling restart reaches it."""
    process: subprocess.Popen[str] | None = None
    _lock: IO[str] | None = None
    _born: float = 0.0
    _pause_s: float = 0.0
    _not_before: float = 0.0
    _renewing: bool = False
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def look_after(self, now: float) -> None:
        """Called now and then. `now` is on the monotonic clock."""
        if self.process is not None and self.process.poll() is not None:
            self._mourn(now, f"exit code {self.process.returncode}")
        if self.process is None and now >= self._not_before and self._is_ours(now):
            try:
                self.start_now(now)
            except (CannotStart, OSError) as why:
                self._mourn(now, why)

    def start_now(self, now: float) -> None:
        """For whoever cannot do without it. Raises CannotStart, OSError."""
        if self._is_ours(now):
            self._born = now
            self.process = self.start()

    def _mourn(self, now: float, why: object) -> None:
        self.process = None
        if self._renewing:
            self._renewing = False
            return
        self._pause_s = pause_s(self._pause_s, now - self._born)
        self._not_before = now + self._pause_s
        log.warning("%s ended (%s), and is started again in %g s", self.name, why, self._pause_s)

    def _is_ours(self, now: float) -> bool:
        if self._lock is None:
            file = self._stack.enter_context(self.lock_path.open("a+"))
            if not lock(file):
                self._stack.close()
                self._not_before = now + TRY_AGAIN_S
                return False
            self._lock = file
        return True

    def renew(self) -> None:
        """Let it end, to be started again with the program as it is then on disk."""
        if self.is_renewed and self.process is not None:
            self._renewing = True
            self.ask_to_stop()

    def ask_to_stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def stop(self) -> None:
        """Returns when it has ended."""
        if self.process is None:
            return
        self.ask_to_stop()
        try:
            self.process.wait(self.stop_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def close(self) -> None:
        """Stop it, and let another gateway have it."""
        self.stop()
        self._stack.close()
        self._lock = None

    def __repr__(self) -> str:
        state = "not ours" if self._lock is None else "waits" if self.process is None else "runs"
        return f"<Child {self.name} {state}>"
