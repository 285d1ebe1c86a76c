"""Peers that are started and asked."""

import asyncio
import os
import sys
from contextlib import asynccontextmanager

import pytest

from benchmarks.figures import Sample
from benchmarks.leanest import Peer, Start
from benchmarks.load import NotWhole
from benchmarks.peering import WHOLE, Against
from benchmarks.peers import MOST, DoesNotStart, half_of, sample, started
from benchmarks.processes import Server
from benchmarks.upstream import Provider
from benchmarks.wire import Wanted, request

SHORT = Wanted(streamed=True, chunks=2)
HERE = [sys.executable, "-c"]
LISTENING = """
import os, pathlib, socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
pathlib.Path(sys.argv[2]).write_text(pathlib.Path("said.txt").read_text() + os.environ["SAID"])
while True:
    server.accept()
"""


@asynccontextmanager
async def provider():
    """The benchmark's upstream in this process, as a server to be measured."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Provider(loop), "127.0.0.1", 0)
    try:
        yield Server(server.sockets[0].getsockname()[1], os.getpid())
    finally:
        server.close()


@pytest.fixture
def core():
    return min(os.sched_getaffinity(0))


def test_a_peer_has_its_files_and_environment_and_ends_with_the_block(tmp_path, core, monkeypatch):
    monkeypatch.setenv("SAID", "not this")
    seen = tmp_path / "seen.txt"

    def start(program, folder, port, upstream_port):
        command = (*program, LISTENING, str(port), str(seen))
        return Start(command, {"said.txt": f"{upstream_port} "}, {"SAID": "in the environment"})

    with started(Peer("twin", "no log", start), tuple(HERE), core, 4321) as (server, _):
        assert seen.read_text() == "4321 in the environment"
        assert server.tree_cpu_s() > 0

    with pytest.raises(ProcessLookupError):
        os.kill(server.root, 0)


def test_a_peer_that_ends_at_once_does_not_start(core):
    peer = Peer("twin", "no log", lambda program, *_: Start((*program, "raise SystemExit('no')")))

    with pytest.raises(DoesNotStart, match="ended at once"), started(peer, tuple(HERE), core, 4321):
        pass


async def test_a_round_has_the_cost_of_every_call_and_the_rate_until_the_last_answer():
    async with provider() as server:
        found = await sample(server, request(Wanted(), server.port, "none"), Wanted(), 2, 0.05)

    assert found.calls > 2
    assert found.cpu_us == found.tree_us > 0
    assert found.share == pytest.approx(found.cpu_us * found.rate / 1e6)


async def test_a_slow_peer_has_a_rate_though_nothing_is_answered_in_time():
    slow = Wanted(delay_ms=100)
    async with provider() as server:
        found = await sample(server, request(slow, server.port, "none"), slow, 4, 0.01)

    assert found.calls == 4
    assert found.rate > 0


async def test_a_stream_that_lacks_an_event_is_not_whole():
    longer = Wanted(streamed=True, chunks=3)
    async with provider() as server:
        with pytest.raises(NotWhole, match="had 6 events in all"):
            await sample(server, request(SHORT, server.port, "none"), longer, 2, 0.01)


def test_half_load_is_half_of_what_the_peer_had_and_not_more_than_the_load_can_send():
    def had(*rates):
        found = tuple(Sample(1, 10.0, 10.0, rate, 1.0, 0.5) for rate in rates)
        return Against(WHOLE, found, found)

    assert half_of(had(40.0, 100.0, 90.0)) == 45
    assert half_of(had(25_000.0)) == MOST
