"""The server that carries it all: Granian, with an orderly end and workers that are replaced one by one.

A stop is one thing, however it is asked for (SIGTERM, Ctrl-C, a closed terminal):
every worker hears SIGUSR1, which starts its drain, then Granian's own graceful stop;
whatever is left five seconds after the drain's deadline is killed.
Ctrl-C during the drain kills at once; what was open is booked at the next start.
SIGUSR2 is a rolling restart: for each worker in turn a new one is started, and when it serves,
the old one hears SIGUSR2 too and leaves.
How a worker drains is left to `lifespan.py`, how it leaves to `worker.py`.
"""

import contextlib
import ctypes
import fcntl
import logging
import math
import multiprocessing
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, Protocol

from granian._granian import SocketHolder
from granian._internal import load_target
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer, WorkerProcess

from gateway.worker import Worker, end_this_process

log = logging.getLogger(__name__)

TARGET = "dashboard.asgi:application"
BACKLOG = 2048
MOST_CONNECTIONS = 50_000
"""Granian accepts no further ones, idle ones counted. Its own choice is the backlog's number: two thousand
clients that wait or idle would lock everybody out, health checks included. The file limit is near by."""
HEADER_AND_IDLE_TIMEOUT_MS = 60_000  # also how long a kept connection may idle; SDKs pool for 30 s
KILL_AFTER_DRAIN_S = 5
RING_S = 0.02
LET_GO_S = 1.0
SET_UP_S = 60.0
"""How long a gateway waits for another one that sets the same VAR_DIR up."""
START_S = 60.0
"""A new worker that does not serve by then has failed."""
LOOK_S = 0.1
"""How often the server looks at its workers and helpers; a death wakes it at once."""
MOST_FAILED_STARTS = 2
TAKE_BREATH_S = 1.0
"""A worker that lived no longer is replaced only after it."""
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


def hold(path: Path, *, shared: bool = False) -> IO[str]:
    """The lock of a VAR_DIR, held until this process and its workers end. Raises CannotStart, OSError.

    Gateways that share Redis may share it; one without is alone.
    """
    with contextlib.ExitStack() as unfinished:
        file = unfinished.enter_context(path.open("a+"))
        if not patiently(LET_GO_S, lambda: lock(file, shared=shared)):
            file.seek(0)
            raise CannotStart(
                f"another gateway (process {file.read().strip() or 'unknown'}) runs on VAR_DIR "
                f"{path.parent}. "
                "Stop it, give this one a VAR_DIR and a PORT of its own, or set REDIS_URL for both."
            )
        _check_that_it_excludes(path)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        unfinished.pop_all()
    return file


def _check_that_it_excludes(path: Path) -> None:
    with path.open("a+") as second:
        if lock(second):
            raise CannotStart(
                f"VAR_DIR {path.parent} is on a file system whose locks exclude nobody. "
                "Set VAR_DIR to a folder on a local disk."
            )


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Between these lines no other gateway is between them too. Raises CannotStart, OSError."""
    with path.open("a+") as file:
        if not patiently(SET_UP_S, lambda: lock(file)):
            raise CannotStart(
                f"another gateway has been setting up VAR_DIR {path.parent} for {SET_UP_S:g} s. "
                "See what holds it up, and start again."
            )
        yield


def lock(file: IO[str], *, shared: bool = False) -> bool:
    """Whether we have it; it is let go when every copy of the descriptor is closed."""
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def listen(host: str, port: int, unread_s: float, workers: int = 1) -> list[socket.socket]:
    """Listening sockets, ours from here on: calls wait in their backlogs until a worker takes them.

    They are made here and not by the workers, so that a port in use is noticed before anything is written,
    and so that a worker's crash refuses nobody.
    There is one for each worker, and the kernel deals connections out between them: of workers that share
    one socket, the first to wake takes nearly all.
    A client that reads nothing for `unread_s` while bytes wait for it is dropped. Raises CannotStart.
    """
    try:
        family, _, _, _, address = _preferred(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except socket.gaierror as why:
        raise CannotStart(f"HOST {host} is no address of this machine ({why.strerror}).") from None
    patiently(LET_GO_S, lambda: is_free(address, family))
    with contextlib.ExitStack() as unfinished:
        try:
            found = _bound_together(address, family, workers, unfinished)
            for each in found:
                _drop_the_unreading(each, unread_s)
                each.listen(BACKLOG)
        except OSError as why:
            raise CannotStart(
                f"cannot listen on {host}:{port} ({why.strerror}). "
                "Stop what is there, or choose another address with HOST and PORT."
            ) from None
        unfinished.pop_all()
    return found


def _bound_together(
    address: Any, family: int, workers: int, unfinished: contextlib.ExitStack
) -> list[socket.socket]:
    """One socket for each worker at one address; a single one for all where the kernel does not deal out.

    The first is bound alone, and lets others in only then: so another gateway at this address is an error,
    not a partner.
    """
    first = unfinished.enter_context(_bound(address, family))
    if workers == 1 or sys.platform != "linux":
        return [first]
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    taken = first.getsockname()  # where the port was left open, it is known by now
    rest = [_bound(taken, family, together=True) for _ in range(workers - 1)]
    return [first, *map(unfinished.enter_context, rest)]


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


def _bound(address: Any, family: int, *, together: bool = False) -> socket.socket:
    new = socket.socket(family, socket.SOCK_STREAM)
    try:
        if together:
            new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
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


class Helper(Protocol):
    """A process of another kind that the server looks after; see `children.py`."""

    def look_after(self, now: float, /) -> None: ...

    def renew(self) -> None: ...


class Bell:
    """Wakes the main loop, from a signal handler too: it takes no lock.

    `threading.Event.set` waits for the lock that the interrupted code may be holding, and then for ever.
    A ring between a look and its forgetting is only noticed a look later.
    """

    def __init__(self) -> None:
        self._rung = False

    def set(self) -> None:
        self._rung = True

    def clear(self) -> None:
        self._rung = False

    def is_set(self) -> bool:
        return self._rung

    def wait(self, timeout: float) -> bool:
        """Whether it rang within so many seconds, to within RING_S."""
        deadline = time.monotonic() + timeout
        while not self._rung and time.monotonic() < deadline:
            time.sleep(RING_S)
        return self._rung


class Server(MPServer):
    """Workers on one listening socket, started again when they die, and stopped in order.

    `serve()` returns when the last worker has gone; the helpers, on which calls may lean, still run then.
    Raises KeyboardInterrupt where a second Ctrl-C ended it, SystemExit where no worker can start.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        drain_s: float,
        target: str = TARGET,
        *,
        workers: int = 1,
        may_overlap: bool = False,
        helpers: Sequence[Helper] = (),
    ) -> None:
        """`listeners` are as `listen` made them, for so many `workers`.

        `may_overlap`: an old worker and its successor share their counters, so they may serve together.
        """
        address, port, *_ = listeners[0].getsockname()
        super().__init__(
            target,
            address=address,
            port=port,
            interface=Interfaces.ASGI,
            workers=workers,
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
        self.main_loop_interrupt = Bell()  # type: ignore[assignment]
        self._listeners = listeners
        self._home = os.getpid()
        self._drain_s = drain_s
        self._may_overlap = may_overlap
        self._helpers = helpers
        self._cut_short = False
        self._hangups_count = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN  # nohup
        self._ears: dict[WorkerProcess, Connection] = {}
        """Where a worker is heard saying that it is ready; closed and gone when it has."""
        self._beside: list[WorkerProcess] = []
        """Workers that are not in their place yet, or not any more."""
        self._failed_starts = 0
        self._roll_wanted = False
        self._rolling: Iterator[None] = iter(())

    def serve(self, *_: Any, **__: Any) -> None:
        logging.getLogger("_granian").addFilter(_in_our_words)
        signal.signal(signal.SIGUSR2, self._want_roll)
        super().serve(target_loader=partial(_load_in_worker, os.getpid(), self.bind_port, self._drain_s))
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
        for worker in (*self.wrks, *self._beside):
            _tell(worker, signal.SIGUSR1)
        super().signal_handler_interrupt()  # type: ignore[no-untyped-call]

    def _kill(self) -> None:
        self._cut_short = True
        for worker in (*self.wrks, *self._beside):
            if worker.inner.is_alive():
                worker.inner.kill()

    def signal_handler_reload(self, *_: Any) -> None:
        """A closed terminal is a stop. Who wants a rolling restart says so with SIGUSR2."""
        if self._hangups_count:
            self.signal_handler_interrupt()

    def _want_roll(self, *_: Any) -> None:
        self._roll_wanted = True
        self.main_loop_interrupt.set()

    def _init_shared_socket(self) -> None:
        self._ssp = None
        self._share(0)

    def _share(self, index: int) -> None:
        """Let the next worker have the socket of this place; its predecessor may still have it too."""
        listener = self._listeners[index % len(self._listeners)]
        self._shd = SocketHolder(listener.fileno(), False, BACKLOG)  # type: ignore[assignment, call-arg]
        self._sso = listener

    def _drop_shared_socket(self) -> None:
        for each in self._listeners:
            each.close()

    def _spawn_workers(self, spawn_target: Any, target_loader: Any) -> None:
        self._serving, self._loader = spawn_target, target_loader
        self.wrks += [self._start(index) for index in range(self.workers)]

    def _start(self, index: int) -> WorkerProcess:
        """A new worker for this place, which is not in it yet."""
        self._share(index)
        ear, mouth = multiprocessing.Pipe(duplex=False)
        worker = self._spawn_worker(index, self._serving, partial(self._loader, mouth))
        worker.start()  # type: ignore[no-untyped-call]
        mouth.close()  # the worker has its own, and its death is heard as well
        self._ears[worker] = ear
        return worker

    def _is_ready(self, worker: WorkerProcess) -> bool:
        """Whether it serves, or has served."""
        ear = self._ears.get(worker)
        if ear is None:
            return True
        try:
            if not ear.poll() or not ear.recv_bytes():
                return False
        except (EOFError, OSError):  # it died
            return False
        self._ears.pop(worker).close()
        return True

    def _serve_loop(self, spawn_target: Any, target_loader: Any) -> None:
        while not self.interrupt_signal:
            self.main_loop_interrupt.wait(LOOK_S)
            self.main_loop_interrupt.clear()
            if self.interrupt_signal or not self._replace_the_dead():
                break
            self._roll_on()
            if self._all_ready():
                self._look_after_helpers()
        self.wrks += self._beside  # they are stopped as the others are

    def _all_ready(self) -> bool:
        """Helpers come after calls: a start is as quick without them."""
        ready = [self._is_ready(each) for each in self.wrks]
        if any(ready):
            self._failed_starts = 0
        return all(ready)

    def _look_after_helpers(self) -> None:
        now = time.monotonic()
        for helper in self._helpers:
            helper.look_after(now)

    def _replace_the_dead(self) -> bool:
        """False where no worker serves and none can be started: somebody must look at its message."""
        self.interrupt_children.clear()
        for index, worker in enumerate(self.wrks):
            if worker.inner.is_alive() or time.monotonic() - worker.birth < TAKE_BREATH_S:
                continue
            if not self._is_ready(worker) and not any(each.inner.is_alive() for each in self.wrks):
                self._failed_starts += 1
                if self._failed_starts == MOST_FAILED_STARTS:
                    self.interrupt_children.append(index)  # for the exit code
                    return False
            self._forget(worker)
            self.wrks[index] = self._start(index)
        return True

    def _forget(self, worker: WorkerProcess) -> None:
        if ear := self._ears.pop(worker, None):
            ear.close()

    def _roll_on(self) -> None:
        """One step of a rolling restart, where one is asked for or under way."""
        if next(self._rolling, self) is not self or not self._roll_wanted:
            return
        self._roll_wanted = False
        if not self._may_overlap:
            log.error(
                "a rolling restart needs REDIS_URL, because two workers overlap; stop and start instead"
            )
            return
        # From here on every worker is a new interpreter, which reads the program as it is on disk. A fork,
        # as at the start, is quicker, and would be of the program that this process began with.
        multiprocessing.set_start_method("spawn", force=True)
        self._rolling = self._roll()

    def _roll(self) -> Iterator[None]:
        log.warning("rolling restart of %d workers", self.workers)
        for index in range(self.workers):
            fresh = self._start(index)
            self._beside.append(fresh)
            yield from self._until_ready(fresh)
            self._beside.remove(fresh)
            if not self._is_ready(fresh) or not fresh.inner.is_alive():
                log.error("the new worker did not start; those that serve go on as they are")
                self._end(fresh)
                return
            old, self.wrks[index] = self.wrks[index], fresh
            yield from self._see_off(old)
        for helper in self._helpers:
            helper.renew()
        log.warning("rolling restart done")

    def _until_ready(self, worker: WorkerProcess) -> Iterator[None]:
        deadline = time.monotonic() + START_S
        while worker.inner.is_alive() and not self._is_ready(worker) and time.monotonic() < deadline:
            yield

    def _see_off(self, old: WorkerProcess) -> Iterator[None]:
        """It leaves by itself; what still runs five seconds after its deadline is killed."""
        self._beside.append(old)
        _tell(old, signal.SIGUSR2)
        deadline = time.monotonic() + self._drain_s + KILL_AFTER_DRAIN_S
        while old.inner.is_alive() and time.monotonic() < deadline:
            yield
        self._beside.remove(old)
        self._end(old)

    def _end(self, worker: WorkerProcess) -> None:
        self._forget(worker)
        worker.kill()  # type: ignore[no-untyped-call]
        worker.join()  # type: ignore[no-untyped-call]


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


def _tell(worker: WorkerProcess, number: signal.Signals) -> None:
    """That it ends soon is no news to us from here on."""
    worker.interrupt_by_parent = True
    process = worker.inner
    if process.is_alive():
        os.kill(process.pid, number)


def _load_in_worker(parent: int, port: int, drain_s: float, target: str, mouth: Connection) -> Worker:
    """Runs first in a new worker, which a fork left with the parent's handlers.

    SIGUSR1 and SIGUSR2 wait for their handlers, which come with the application's start;
    a stop before that ends the worker at once.
    In a process group of its own it hears of Ctrl-C from its parent, in order, not from the terminal.
    """
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_DFL)
    for each in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(each, signal.SIG_IGN)
    os.setpgrp()
    die_with(parent)
    application: Any = load_target(target)
    return Worker(application, port, drain_s, partial(_say_ready, mouth), end_this_process)


def _say_ready(mouth: Connection) -> None:
    with contextlib.suppress(BrokenPipeError):  # a parent that died takes this process with it
        mouth.send_bytes(b"ready")
        mouth.close()


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
