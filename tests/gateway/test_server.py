"""What `up` holds: locks and listening sockets. How workers come and go is in tests/system."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from gateway.server import Bell, CannotStart, alone, hold, listen, lock

UNREAD_S = 60.0


@contextlib.contextmanager
def listening(port: int = 0, workers: int = 1) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(each) for each in listen("127.0.0.1", port, UNREAD_S, workers)]


def accepted(listener: socket.socket) -> int:
    """How many connections wait at it, taken."""
    listener.setblocking(False)
    number = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            number += 1
    return number


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels do not deal connections out")
def test_connections_are_dealt_out_between_workers():
    with listening(workers=2) as found, contextlib.ExitStack() as clients:
        [address] = {each.getsockname() for each in found}
        for _ in range(200):
            clients.enter_context(socket.create_connection(address))

        shares = [accepted(each) for each in found]

    assert sum(shares) == 200
    assert min(shares) > 50, "the chance of less is 1 in 10^12"


@pytest.mark.parametrize("mine", [1, 2])
@pytest.mark.parametrize("theirs", [1, 2])
def test_an_address_has_one_gateway(mine, theirs):
    with listening(workers=theirs) as found:
        port = found[0].getsockname()[1]
        with pytest.raises(CannotStart, match="Address already in use"):
            listen("127.0.0.1", port, UNREAD_S, mine)


def test_an_address_that_failed_is_free_again():
    with listening(workers=2) as found:
        port = found[0].getsockname()[1]
        with pytest.raises(CannotStart):
            listen("127.0.0.1", port, UNREAD_S, 2)

    with listening(port, workers=2) as found:
        assert len(found) == (2 if sys.platform == "linux" else 1)


@pytest.mark.parametrize(("mine", "theirs"), [(False, False), (False, True), (True, False)])
def test_a_gateway_without_redis_is_alone(tmp_path, mine, theirs):
    with (
        hold(tmp_path / "up.lock", shared=theirs),
        pytest.raises(CannotStart, match=f"process {os.getpid()}.*REDIS_URL"),
    ):
        hold(tmp_path / "up.lock", shared=mine)


def test_gateways_with_redis_share(tmp_path):
    with hold(tmp_path / "up.lock", shared=True), hold(tmp_path / "up.lock", shared=True) as second:
        assert not second.closed


def test_a_lock_is_free_when_its_holder_was_killed(tmp_path):
    path = tmp_path / "up.lock"
    holder = (
        "import sys, fcntl; f = open(sys.argv[1], 'a'); fcntl.flock(f, 2); print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with path.open("a") as file:
            assert not lock(file)
            process.kill()
            process.wait()
            assert lock(file)


def test_only_one_gateway_sets_up(tmp_path):
    path = tmp_path / "setup.lock"
    with alone(path), path.open("a") as other:
        assert not lock(other)
    with path.open("a") as other:
        assert lock(other)


def test_the_main_loop_may_be_woken_by_a_signal_at_any_moment():
    """With an Event that takes a lock this stands still, at a signal that comes while the lock is held."""
    bell, rings = Bell(), []

    def ring(*_):
        rings.append(True)
        bell.set()

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    try:
        while len(rings) < 500:
            bell.wait(0)
            bell.clear()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    bell.set()
    assert bell.wait(60)
