import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass

import pytest

from gateway.worker import CLOSE, LOOK_S, Worker, has_connections, leaving, stop_accepting

NEIGHBOUR = """
import socket, sys
listener = socket.socket(fileno=int(sys.argv[1]))
listener.accept()[0].sendall(b"the neighbour")
"""


def listening() -> socket.socket:
    """As `up` makes one, on a port of its own; not blocking, as Granian has it."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    return listener


def port_of(listener: socket.socket) -> int:
    return listener.getsockname()[1]


@pytest.fixture
def listener():
    with listening() as found:
        yield found


@dataclass
class Told:
    """What a worker told its server."""

    ready: int = 0
    ended: int = 0

    def tell_ready(self):
        self.ready += 1

    def end(self):
        self.ended += 1


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def worker(listener, told):
    """Around an application that answers every request with its path."""
    return Worker(echo, port_of(listener), 30, told.tell_ready, told.end)


@pytest.fixture
def connection(listener):
    """A client's, accepted by this process."""
    listener.setblocking(True)
    with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
        listener.setblocking(False)
        yield accepted


async def echo(scope, receive, send):
    if scope["type"] == "lifespan":
        await send({"type": "lifespan.startup.complete"})
        await receive()
        return
    headers = [(b"x-path", scope["path"].encode()), (b"connection", b"keep-alive")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def headers_of(worker, path="/"):
    sent = []

    async def send(message):
        sent.append(message)

    await worker({"type": "http", "path": path}, None, send)
    assert sent[1]["type"] == "http.response.body"
    return dict(sent[0]["headers"])


@contextlib.asynccontextmanager
async def started(worker):
    """With its lifespan under way, as a server has it."""
    stop = asyncio.Event()
    task = asyncio.create_task(worker({"type": "lifespan"}, stop.wait, ignore))
    await asyncio.sleep(0)
    try:
        yield
    finally:
        stop.set()
        await task
        for each in worker._tasks:
            each.cancel()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR2)


async def ignore(message):
    """A send to nobody."""


async def test_a_worker_says_once_that_it_is_ready(worker, told):
    assert told.ready == 0

    async with started(worker):
        assert told.ready == 1


async def test_a_worker_that_stays_leaves_the_answers_as_they_are(worker):
    assert await headers_of(worker, "/a") == {b"x-path": b"/a", b"connection": b"keep-alive"}


async def test_a_worker_that_leaves_answers_and_lets_the_connection_close(worker, connection):
    async with started(worker):
        os.kill(os.getpid(), signal.SIGUSR2)
        await until(lambda: worker.is_leaving)

        assert await headers_of(worker, "/a") == {b"x-path": b"/a", CLOSE[0]: CLOSE[1]}


async def test_a_worker_ends_when_its_last_connection_is_closed(worker, told, connection):
    async with started(worker):
        worker.leave()
        for _ in range(3):
            await asyncio.sleep(LOOK_S)  # it looks at least once
        assert told.ended == 0

        connection.close()
        await until(lambda: told.ended)

    assert told.ended == 1


async def test_a_worker_ends_when_its_time_is_over_whoever_is_connected(listener, told, connection):
    worker = Worker(echo, port_of(listener), 0.05, told.tell_ready, told.end)
    async with started(worker):
        worker.leave()
        await until(lambda: told.ended)


async def test_leaving_is_told_once(worker, connection):
    heard = []

    def hear(**_):
        heard.append(True)

    leaving.connect(hear)
    async with started(worker):
        worker.leave()
        worker.leave()

    assert heard == [True]


async def until(holds):
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - a condition of the process, which tells nobody
            await asyncio.sleep(0.01)


def test_who_stops_accepting_leaves_new_connections_to_its_neighbours(listener):
    with subprocess.Popen(
        [sys.executable, "-c", NEIGHBOUR, str(listener.fileno())], pass_fds=[listener.fileno()]
    ):
        address = listener.getsockname()
        copy = listener.dup()

        stop_accepting(address[1])

        with socket.create_connection(address, 10) as client:
            assert client.recv(100) == b"the neighbour"
        for each in (listener, copy):
            with pytest.raises(BlockingIOError):
                each.accept()
        copy.close()


def test_who_stops_accepting_lets_other_sockets_be(listener):
    with listening() as other:
        stop_accepting(port_of(listener))

        with socket.create_connection(other.getsockname(), 10):
            other.setblocking(True)
            other.settimeout(10)
            other.accept()[0].close()


def test_a_connection_counts_until_it_is_closed(listener):
    port = port_of(listener)
    listener.setblocking(True)
    assert not has_connections(port)

    with socket.create_connection(listener.getsockname()):
        assert not has_connections(port), "nobody has accepted it"
        accepted, _ = listener.accept()
        assert has_connections(port)
        accepted.close()
        assert not has_connections(port)
