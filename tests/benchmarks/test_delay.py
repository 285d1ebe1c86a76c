"""A line delivers everything, in order, and not before its time."""

import asyncio
from contextlib import asynccontextmanager, suppress

from benchmarks.delay import Delayed, line

DELAY_S = 0.03
DEADLINE_S = 5


class Clock:
    """An event loop's clock and timers, moved by hand."""

    def __init__(self):
        self.now_s = 100.0
        self.timers = []

    def time(self):
        return self.now_s

    def call_at(self, at_s, act):
        self.timers.append((at_s, act))
        return self.timers[-1]

    def move_to(self, now_s):
        self.now_s = now_s
        while due := [each for each in self.timers if each[0] <= now_s]:
            self.timers.remove(due[0])
            due[0][1]()


def test_what_is_said_arrives_one_delay_later_and_in_order():
    clock, arrived = Clock(), []
    delayed = Delayed(clock, 0.04, ready_at_s=0.0)
    delayed.deliver(lambda: arrived.append("a"))
    clock.move_to(100.02)
    delayed.deliver(lambda: arrived.append("b"))

    for now_s, expected in ((100.039, []), (100.041, ["a"]), (100.059, ["a"]), (100.061, ["a", "b"])):
        clock.move_to(now_s)
        assert arrived == expected


def test_what_is_said_on_a_new_connection_waits_until_it_would_have_been_made():
    clock, arrived = Clock(), []
    delayed = Delayed(clock, 0.04, ready_at_s=100.08)
    delayed.deliver(lambda: arrived.append("a"))

    clock.move_to(100.119)
    assert arrived == []
    clock.move_to(100.121)
    assert arrived == ["a"]


@asynccontextmanager
async def far_end(handle):
    """What the line leads to; each connection is handled to its end."""
    handling = set()

    async def handled(reader, writer):
        handling.add(asyncio.current_task())
        with suppress(ConnectionError):
            await handle(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(handled, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await asyncio.wait_for(asyncio.gather(*handling), DEADLINE_S)
    await server.wait_closed()


async def echo(reader, writer):
    while data := await reader.read(1000):
        writer.write(data)


async def test_an_echo_comes_back_after_the_connections_round_trip_and_its_own():
    loop = asyncio.get_running_loop()
    async with far_end(echo) as port, line(port, DELAY_S) as near_port:
        took_s = []
        reader, writer = await asyncio.open_connection("127.0.0.1", near_port)
        for word in (b"one", b"two"):
            began_s = loop.time()
            writer.write(word)
            assert await asyncio.wait_for(reader.readexactly(3), DEADLINE_S) == word
            took_s.append(loop.time() - began_s)
        writer.close()
        await writer.wait_closed()
    assert took_s[0] > 4 * DELAY_S * 0.9
    assert took_s[1] > 2 * DELAY_S * 0.9


async def test_a_hang_up_travels_along_the_line():
    gone = asyncio.Event()

    async def listen(reader, writer):
        await reader.read()
        gone.set()

    async with far_end(listen) as port, line(port, DELAY_S) as near_port:
        _, writer = await asyncio.open_connection("127.0.0.1", near_port)
        writer.write(b"hello")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        await asyncio.wait_for(gone.wait(), DEADLINE_S)


async def test_an_end_of_the_far_side_comes_after_all_that_it_said():
    async def shout(reader, writer):
        writer.write(b"x" * 300_000)

    async with far_end(shout) as port, line(port, DELAY_S) as near_port:
        reader, writer = await asyncio.open_connection("127.0.0.1", near_port)
        assert len(await asyncio.wait_for(reader.read(), DEADLINE_S)) == 300_000
        writer.close()
        await writer.wait_closed()


async def test_a_line_that_leads_nowhere_ends_its_connections(capsys, unused_tcp_port):
    async with line(unused_tcp_port, DELAY_S) as near_port:
        reader, writer = await asyncio.open_connection("127.0.0.1", near_port)
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), DEADLINE_S) == b""
        writer.close()
        with suppress(ConnectionResetError):
            await writer.wait_closed()
    assert "leads nowhere" in capsys.readouterr().err
