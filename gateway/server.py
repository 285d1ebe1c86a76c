"""The server that carries it all: Granian, with an orderly end.

A stop is one thing, however it is asked for (SIGTERM, Ctrl-C, a closed terminal):
every worker hears SIGUSR1, which starts its drain, then Granian's own graceful stop;
whatever is left five seconds after the drain's deadline is killed.
Ctrl-C during the drain kills at once; what was open is booked at the next start.
How a worker drains is left to `lifespan.py`.
"""

import contextlib
import ctypes
import fcntl
import logging
import math
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

from granian._granian import SocketHolder
from granian._internal import load_target
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer, WorkerProcess

TARGET = "dashboard.asgi:application"
BACKLOG = 2048
MOST_CONNECTIONS = 50_000
"""Granian accepts no further ones, idle ones counted. Its own choice is the backlog's number: two thousand
clients that wait or idle would lock everybody out, health checks included. The file limit is near by."""
HEADER_AND_IDLE_TIMEOUT_MS = 60_000  # also how long a kept connection may idle; SDKs pool for 30 s
KILL_AFTER_DRAIN_S = 5
LET_GO_S = 1.0
PR_SET_PDEATHSIG = 1

LOGGING: dict[str, Any] = {  # Granian's lines go where ours go, instead of to standard output
    "formatters": {},
    "handlers": {},
    "loggers": {"_granian": {"propagate": True}, "granian.access": {"propagate": True}},
}


class CannotStart(Exception):
    """The gateway cannot run here; the message is one sentence that helps."""


def patiently(seconds: float, succeeds: Callable[[], bool]) -> bool:
    """Whether it succeeds in time. A killed gateway takes a moment to let go of what it held."""
    deadline = time.monotonic() + seconds
    while not succeeds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def hold(path: Path) -> IO[str]:
    """The lock of a VAR_DIR, held until this process and its worker end. Raises CannotStart, OSError."""
    file = path.open("a+")
    if not patiently(LET_GO_S, lambda: _lock(file)):
        file.seek(0)
        raise CannotStart(
            f"another gateway (process {file.read().strip() or 'unknown'}) runs on VAR_DIR {path.parent}. "
            "Stop it, or give this one a VAR_DIR and a PORT of its own."
        )
    with path.open("a+") as second:
        if _lock(second):
            raise CannotStart(
                f"VAR_DIR {path.parent} is on a file system whose locks exclude nobody. "
                "Set VAR_DIR to a folder on a local disk."
            )
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def listen(host: str, port: int, unread_s: float) -> socket.socket:
    """A listening socket, ours from here on: calls wait in its backlog until a worker takes them.

    It is made here and not by each worker, so that a port in use is noticed before anything is written,
    and so that a worker's crash refuses nobody.
    A client that reads nothing for `unread_s` while bytes wait for it is dropped. Raises CannotStart.
    """
    try:
        family, _, _, _, address = _preferred(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except socket.gaierror as why:
        raise CannotStart(f"HOST {host} is no address of this machine ({why.strerror}).") from None
    patiently(LET_GO_S, lambda: is_free(address, family))
    try:
        listener = _bound(address, family)
        _drop_the_unreading(listener, unread_s)
        listener.listen(BACKLOG)
    except OSError as why:
        raise CannotStart(
            f"cannot listen on {host}:{port} ({why.strerror}). "
            "Stop what is there, or choose another address with HOST and PORT."
        ) from None
    return listener


def _drop_the_unreading(listener: socket.socket, after_s: float) -> None:
    """Connections inherit it. Cutting the call is not enough: what the kernel holds would wait for ever."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(after_s * 1000))


def is_free(address: Any, family: int = socket.AF_INET) -> bool:
    """Whether somebody could listen there now."""
    try:
        _bound(address, family).close()
    except OSError:
        return False
    return True


def _bound(address: Any, family: int) -> socket.socket:
    new = socket.socket(family, socket.SOCK_STREAM)
    try:
        new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections just closed do not count
        # Accepted sockets inherit it. Without, a stream's next chunk waits 40 ms for the last one's ACK.
        new.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        new.bind(address)
    except OSError:
        new.close()
        raise
    return new


def _preferred(found: list[Any]) -> Any:
    """IPv4 where a name has both, because `localhost` is mostly asked for by that."""
    return min(found, key=lambda each: each[0] != socket.AF_INET)


class Server(MPServer):
    """One worker, started again when it dies, and stopped in order.

    `serve()` returns when the last worker has gone.
    Raises KeyboardInterrupt where a second Ctrl-C ended it.
    """

    def __init__(self, listener: socket.socket, drain_s: float, target: str = TARGET) -> None:
        super().__init__(
            target,
            address=listener.getsockname()[0],
            port=listener.getsockname()[1],
            interface=Interfaces.ASGI,
            workers=1,
            loop=Loops.uvloop,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=HEADER_AND_IDLE_TIMEOUT_MS),
            backlog=BACKLOG,
            backpressure=MOST_CONNECTIONS,
            log_level=LogLevels.warning,
            log_dictconfig=LOGGING,
            log_access=False,
            respawn_failed_workers=True,
            workers_kill_timeout=math.ceil(drain_s) + KILL_AFTER_DRAIN_S,
        )
        self._listener = listener
        self._home = os.getpid()
        self._drain_s = drain_s
        self._cut_short = False
        self._hangups_count = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN  # nohup

    def serve(self, *_: Any, **__: Any) -> None:
        logging.getLogger("_granian").addFilter(_in_our_words)
        super().serve(target_loader=partial(_load_in_worker, os.getpid()))
        if self._cut_short:
            raise KeyboardInterrupt

    def signal_handler_interrupt(self, number: int = signal.SIGTERM, *_: Any) -> None:
        if os.getpid() != self._home:  # a worker just forked has this handler until it puts its own in place
            os._exit(0)
        if not self.interrupt_signal:
            _say_that_it_stops(self._drain_s, number)
        elif number == signal.SIGINT:
            self._kill()
            return
        for worker in self.wrks:
            _ask_to_drain(worker)
        super().signal_handler_interrupt()  # type: ignore[no-untyped-call]

    def _kill(self) -> None:
        self._cut_short = True
        for worker in self.wrks:
            if worker.inner.is_alive():
                worker.inner.kill()

    def signal_handler_reload(self, *_: Any) -> None:
        """A closed terminal is a stop: two overlapping workers would need counters in common."""
        if self._hangups_count:
            self.signal_handler_interrupt()

    def _init_shared_socket(self) -> None:
        self._ssp = None
        self._shd = SocketHolder(self._listener.fileno(), False, BACKLOG)  # type: ignore[assignment, call-arg]
        self._sso = self._listener

    def _respawn_workers(self, *args: Any, **kwargs: Any) -> None:
        super()._respawn_workers(*args, **kwargs)
        if self.interrupt_signal:  # it came while the event was being cleared, and would be waited for again
            self.main_loop_interrupt.set()


def _say_that_it_stops(drain_s: float, number: int) -> None:
    """Written past Python's buffers, which a signal may have caught in the middle of a write."""
    again = " Ctrl-C again ends them now." if number == signal.SIGINT else ""
    with contextlib.suppress(OSError):  # a closed terminal hears nothing any more
        os.write(2, f"Stopping; open streams have up to {drain_s:g} s.{again}\n".encode())


def _in_our_words(record: logging.LogRecord) -> bool:
    """Granian blames a worker that a slow client held up; say what is so."""
    if str(record.msg).startswith("Killing worker-"):
        record.msg = (
            f"the worker had not ended {KILL_AFTER_DRAIN_S} s after the drain's deadline and is killed"
        )
    return True


def _ask_to_drain(worker: WorkerProcess) -> None:
    worker.interrupt_by_parent = True
    process = worker.inner
    if process.is_alive():
        os.kill(process.pid, signal.SIGUSR1)


def _load_in_worker(parent: int, target: str) -> Callable[..., Any]:
    """Runs first in a new worker, which a fork left with the parent's handlers.

    SIGUSR1 waits for `lifespan.py` to install its handler; a stop before that ends the worker at once.
    In a process group of its own it hears of Ctrl-C from its parent, in order, not from the terminal.
    """
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    os.setpgrp()
    die_with(parent)
    return load_target(target)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, so that a killed gateway leaves none behind."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def raise_file_limit(wanted: int = 65_536) -> None:
    """Open files up to what this user may have: a stream needs two, and the usual 1,024 are soon gone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < possible:
        resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
