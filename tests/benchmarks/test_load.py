"""Load on real sockets."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from benchmarks.load import Connections, NotWhole
from benchmarks.upstream import Provider
from benchmarks.wire import Wanted, request

STREAM = Wanted(streamed=True, chunks=4)


@asynccontextmanager
async def listening(protocol):
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.fixture
async def upstream():
    loop = asyncio.get_running_loop()
    async with listening(lambda: Provider(loop)) as port:
        yield port


class Answering(asyncio.Protocol):
    """Sends the same bytes to whoever says something."""

    def __init__(self, answer):
        self.answer = answer

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(self.answer)
        self.transport.close()


async def test_every_connection_is_answered_once(upstream):
    async with Connections(upstream, 3) as wires:
        tally = await wires.once(request(STREAM, upstream, "key"))

    assert (tally.answered, tally.events, len(tally.latencies)) == (3, 15, 3)


async def test_a_closed_loop_ends_with_every_call_answered(upstream):
    async with Connections(upstream, 2) as wires:
        tally = await wires.saturate(request(Wanted(), upstream, "key"), 0.05)

    assert tally.answered == len(tally.latencies) == tally.in_time + 2
    assert tally.in_time > 0


async def test_an_open_loop_sends_what_was_due_and_counts_from_then(upstream):
    slow = request(Wanted(delay_ms=50), upstream, "key")
    async with Connections(upstream, 1) as wires:
        tally = await wires.arrive(slow, rate=100, seconds=0.05)

    assert tally.answered == 5
    # They were due each 10 ms and answered each 50 ms or more, so each waited at least 40 ms longer than
    # the one before; a tenth is for the clocks.
    assert tally.latencies == sorted(tally.latencies)
    assert tally.latencies[-1] - tally.latencies[0] > 4 * 0.04 * 0.9


async def test_large_requests_and_answers_arrive_whole(upstream):
    said = request(Wanted(answer_bytes=1 << 20), upstream, "key", prompt_bytes=1 << 20)
    async with Connections(upstream, 2) as wires:
        tally = await wires.saturate(said, 0.05)

    assert tally.answered == len(tally.latencies) >= 2


async def test_a_short_request_may_follow_a_long_one(upstream):
    async with Connections(upstream, 1) as wires, asyncio.timeout(10):
        await wires.once(request(Wanted(), upstream, "key", prompt_bytes=1 << 16))
        tally = await wires.once(request(Wanted(), upstream, "key"))

    assert tally.answered == 1


async def test_each_connection_keeps_the_request_that_it_was_dealt():
    heard = []

    class Hearing(Answering):
        def data_received(self, data):
            heard.append(data)
            self.transport.write(self.answer)

    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    async with listening(lambda: Hearing(answer)) as port, Connections(port, 3) as wires:
        await wires.once([b"one", b"two"])
        await wires.once([b"one", b"two"])

    assert sorted(heard) == [b"one"] * 4 + [b"two"] * 2


async def test_the_first_piece_of_a_stream_is_timed_while_the_rest_is_still_to_come(upstream):
    slow = request(Wanted(True, chunks=4, delay_ms=50, pace_ms=20), upstream, "key")
    async with Connections(upstream, 1) as wires:
        work = asyncio.ensure_future(wires.once(slow))
        async with asyncio.timeout(10):
            while not wires.streaming():  # noqa: ASYNC110 - nothing tells us
                await asyncio.sleep(0)
        timed, ended = len(wires.tally.first_s), wires.tally.answered
        tally = await work

    assert (timed, ended) == (1, 0)
    assert 0.05 * 0.9 < tally.first_s[0] <= tally.latencies[0]


async def test_paced_streams_are_counted_while_they_are_open(upstream):
    async with Connections(upstream, 2) as wires:
        work = asyncio.ensure_future(wires.once(request(Wanted(True, chunks=4, pace_ms=20), upstream, "key")))
        async with asyncio.timeout(10):
            while wires.streaming() < 2:  # noqa: ASYNC110 - nothing tells us
                await asyncio.sleep(0)
        await work

    assert wires.streaming() == 0


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nlater", "status 503: b'later'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ncut", "a connection was lost in the middle of a call"),
    ],
)
async def test_an_answer_that_is_not_whole_fails_the_run(answer, says):
    async with listening(lambda: Answering(answer)) as port, Connections(port, 1) as wires:
        with pytest.raises(NotWhole, match=says):
            await wires.once(b"POST / HTTP/1.1\r\n\r\n")
