"""One serving process as its server sees it: it says when it is ready, and leaves without losing a call.

Whoever leaves takes no new connections, and its neighbours do.
A connection that it has already may bring another call at any moment, and closing it then would fail that
call; so it is carried, and answered with `Connection: close`.
What is left over when DRAIN_S has passed ends as at any stop.
Django's part of the process, and what a call is, are left to the application.
"""

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.dispatch import Signal

Application = Callable[[Any, Any, Any], Awaitable[None]]

OPEN_FILES = Path("/dev/fd")
LOOK_S = 0.1
CLOSE = (b"connection", b"close")

leaving = Signal()
"""This process takes no new connections from now on, and ends within DRAIN_S."""


@dataclass(slots=True)
class Worker:
    """An ASGI application around the one that answers."""

    app: Application
    port: int
    drain_s: float
    tell_ready: Callable[[], None]
    end: Callable[[], None]
    is_leaving: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        """ASGI 3. No coroutine itself, because every call would pay for one more."""
        if scope["type"] == "lifespan":
            return self._lifespan(scope, receive, send)
        if self.is_leaving and scope["type"] == "http":
            return self.app(scope, receive, _for_the_last_time(send))
        return self.app(scope, receive, send)

    async def _lifespan(self, scope: Any, receive: Any, send: Any) -> None:
        async def tell(message: Any) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, self.leave)
                self.tell_ready()

        await self.app(scope, receive, tell)

    def leave(self) -> None:
        """Take no new connections, and end when there are none left or DRAIN_S is over."""
        if self.is_leaving:
            return
        self.is_leaving = True
        stop_accepting(self.port)
        leaving.send(type(self))
        self._tasks.append(asyncio.get_running_loop().create_task(self._end()))

    async def _end(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.drain_s):
                await self._until_alone()
        self.end()

    async def _until_alone(self) -> None:
        while has_connections(self.port):  # noqa: ASYNC110 - connections are Granian's, which tells nobody
            await asyncio.sleep(LOOK_S)


def end_this_process() -> None:
    """The two signals with which a server stops its workers, in the same order."""
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGTERM)


def _for_the_last_time(send: Any) -> Any:
    """A send that says that the connection closes after this answer."""

    def tell(message: Any) -> Any:
        if message["type"] == "http.response.start":
            kept = [each for each in message.get("headers", ()) if each[0].lower() != b"connection"]
            message = {**message, "headers": [*kept, CLOSE]}
        return send(message)

    return tell


def stop_accepting(port: int) -> None:
    """Let this process's descriptors of the listening socket lead to one where nobody ever comes.

    The socket is shared with the neighbours, so it can be neither closed nor shut down for them, and Granian
    has no way to stop accepting that does not also close every idle connection.
    """
    with _nowhere() as nowhere:
        for number, each in _sockets(port):
            if each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                os.dup2(nowhere.fileno(), number, inheritable=False)


@contextlib.contextmanager
def _nowhere() -> Iterator[socket.socket]:
    """A listening socket that has lost its address."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as nowhere:
        nowhere.bind(f"{folder}/socket")
        nowhere.listen(1)
        nowhere.setblocking(False)
        yield nowhere


def has_connections(port: int) -> bool:
    """Whether any client is connected to this process."""
    return any(not each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for _, each in _sockets(port))


def _sockets(port: int) -> Iterator[tuple[int, socket.socket]]:
    """Every TCP socket of this process at this port of ours, with its descriptor; none is closed here."""
    for entry in os.listdir(OPEN_FILES):
        number = int(entry)
        try:
            found = socket.socket(fileno=number)
        except OSError:  # a file, or closed meanwhile
            continue
        try:
            is_ours = found.family in (socket.AF_INET, socket.AF_INET6) and found.getsockname()[1] == port
            if is_ours and found.type == socket.SOCK_STREAM:
                yield number, found
        except OSError:  # closed meanwhile
            continue
        finally:
            found.detach()
