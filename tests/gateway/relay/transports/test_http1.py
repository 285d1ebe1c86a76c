"""What only our own client for HTTP/1.1 is asked for, beside the contract of every transport."""

import asyncio
import queue
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trustme
import uvloop

from gateway.relay.catalog import Secret, Target
from gateway.relay.transports import Broken, CannotConnect
from gateway.relay.transports.http1 import Http1Transport
from gateway.relay.transports.http1_wire import LARGEST_AT_ONCE
from tests.gateway.relay.transports.conftest import Line, line_of
from tests.upstreams.h1_server import H1Exchange, raw
from tests.upstreams.upstream import Exchange, Step, event, reset, stall_after, stream, whole, within

LARGE = bytes(range(256)) * (5 * LARGEST_AT_ONCE // 256) + b"the end"


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    async with line_of("http1") as made:
        yield made


@pytest.mark.parametrize("kind", ["http1", "http1-tls"])
async def test_a_large_body_goes_up_in_parts_and_the_connection_is_used_again(kind: str) -> None:
    async with line_of(kind) as line:
        await within(line.call(body=LARGE))
        await within(line.call())
        assert line.upstream.exchanges[0].body == LARGE
        assert len(line.upstream.connections) == 1


async def test_a_large_body_goes_up_as_slowly_as_it_is_taken(line: Line) -> None:
    body, taken = LARGE * 8, bytearray()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        while len(taken) < len(body):
            taken.extend(await reader.read(16 * 1024))  # a sixteenth of what goes up in a turn of the loop
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0, limit=1024) as server:
        line.change(base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        assert await within(line.call(body=body)) == (200, b"")
        assert bytes(taken) == body
        assert line.figures.idle == 1
        await line.transport.close()


@pytest.mark.parametrize("kind", ["http1", "http1-tls"])
async def test_a_large_answer_is_read_as_fast_as_it_is_taken(kind: str) -> None:
    async with line_of(kind) as line:
        line.upstream.will(whole(LARGE), whole(LARGE))
        assert await within(line.call(limit=len(LARGE))) == (200, LARGE)
        got = await line.begin()
        assert b"".join([chunk async for chunk in got.chunks()]) == LARGE
        got.close()
        assert len(line.upstream.connections) == 1


@asynccontextmanager
async def unwilling(answer: bytes, gone: asyncio.Event) -> AsyncIterator[str]:
    """Reads no more than the head, answers, and waits for the client to go."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        try:
            while await reader.read(100):
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            gone.set()
            writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0, limit=1024) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


async def test_an_answer_that_comes_before_the_body_is_up_is_read_and_ends_the_connection(line: Line) -> None:
    gone = asyncio.Event()
    async with unwilling(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}", gone) as base_url:
        line.change(base_url=base_url)
        assert await within(line.call(body=LARGE * 8)) == (413, b"{}")
        assert line.figures.idle == 0
        await within(gone.wait())


async def test_a_stream_can_be_read_on_after_a_break(line: Line) -> None:
    goes_on = asyncio.Event()
    line.upstream.will(stream("one", "two", goes_on=goes_on))
    got = await line.begin()
    async for first in got.chunks():
        assert first == event("one")
        break
    goes_on.set()
    rest = b"".join([chunk async for chunk in got.chunks()])
    got.close()
    assert rest == event("two") + b"data: [DONE]\n\n"
    assert line.figures.idle == 1


async def test_an_answer_that_broke_off_says_how_much_had_come(line: Line) -> None:
    line.upstream.will(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello", then_close=True))
    with pytest.raises(Broken, match="broke off") as broken:
        await line.call()
    assert (broken.value.after_bytes, broken.value.came) == (True, 5)


async def test_what_came_of_a_stream_before_it_broke_off_is_handed_on(line: Line) -> None:
    line.upstream.will(raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n"))
    chunks = (await line.begin()).chunks()
    assert await anext(chunks) == b"hello"
    with pytest.raises(Broken, match="broke off"):
        await anext(chunks)


async def test_what_follows_an_answer_ends_the_connection_at_once(line: Line) -> None:
    line.upstream.will(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}more"))
    got = await line.begin()
    await within(line.upstream.connections[0].closed.wait())
    assert await got.whole(10) == b"{}"
    got.close()


@pytest.mark.parametrize("kind", ["http1", "http1-tls"])
async def test_an_answer_up_to_the_end_of_the_connection_is_whole(kind: str) -> None:
    async def step(exchange: H1Exchange) -> None:
        await raw(b"HTTP/1.1 200 OK\r\n\r\nall of it")(exchange)
        await exchange.close()

    async with line_of(kind) as line:
        line.upstream.will(step)
        assert await line.call() == (200, b"all of it")
        assert line.figures.idle == 0


async def test_a_kept_connection_that_ends_at_the_next_call_breaks_it_and_nothing_is_sent_twice(
    line: Line,
) -> None:
    await line.call()
    line.upstream.will(reset())
    with pytest.raises(Broken, match="without an answer"):
        await line.call()
    assert (len(line.upstream.exchanges), len(line.upstream.connections)) == (2, 1)


async def without_end(exchange: Exchange) -> None:
    """A body whose length nobody told."""
    await raw(b"HTTP/1.1 200 OK\r\n\r\n" + event("one"))(exchange)
    await exchange.left.wait()


@pytest.mark.parametrize("step", [stall_after("one"), without_end])
async def test_who_reads_learns_that_the_answer_was_closed(line: Line, step: Step) -> None:
    line.upstream.will(step)
    got = await line.begin()
    chunks = got.chunks()
    assert await anext(chunks) == event("one")
    reading = asyncio.ensure_future(anext(chunks))
    asyncio.get_running_loop().call_soon(got.close)  # after the first step of the task
    with pytest.raises(Broken):
        await within(reading)


@pytest.mark.parametrize("credential", ["sk-1\r\nX-Other: 1", "sk-\n", "sk-\0"])
async def test_a_credential_that_would_end_its_header_goes_nowhere(line: Line, credential: str) -> None:
    line.change(credential=Secret(credential))
    with pytest.raises(CannotConnect, match="cannot go into a header"):
        await line.call()


@pytest.mark.parametrize("call_id", ["id\r\nX-Other: 1", "id\0"])
async def test_a_call_id_that_would_end_its_header_goes_nowhere(line: Line, call_id: str) -> None:
    place = await line.transport.acquire(line.target)
    with pytest.raises(CannotConnect, match="cannot go into a header"):
        await place.send(call_id, b"{}")
    assert line.figures.in_use == 0
    assert line.upstream.exchanges == []


async def test_a_connection_that_was_made_after_the_end_is_not_kept(line: Line) -> None:
    call = asyncio.create_task(line.call())
    ending = asyncio.create_task(line.transport.close())  # while the call connects
    assert (await within(call))[0] == 200
    await within(line.upstream.connections[0].closed.wait())
    await ending


async def test_a_second_answer_that_nobody_asked_for_is_not_the_next_calls(line: Line) -> None:
    """It comes when the first call is over, and the next takes the connection before the loop has read it."""
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    line.upstream.will(raw(one + b"{}"), whole(b"mine"))
    assert await within(line.call()) == (200, b"{}")
    [said] = line.upstream.exchanges
    assert isinstance(said, H1Exchange)
    said.raw(one + b"no")
    assert await within(line.call()) == (200, b"mine")
    assert len(line.upstream.connections) == 2


def closes_at_once(body: bytes, ready: "queue.Queue[int]", trusted: "queue.Queue[str]") -> None:
    """A provider with TLS that answers one call and hangs up without waiting for anything."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    trusted.put(authority.cert_pem.bytes().decode())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ready.put(listener.getsockname()[1])
        accepted, _ = listener.accept()
        with context.wrap_socket(accepted, server_side=True) as wire:
            said = b""
            while b"{}" not in said:
                said += wire.recv(65536)
            head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
            wire.sendall(head + body)


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_over_tls_is_whole_though_the_provider_hangs_up_at_once(streamed: bool) -> None:
    """uvloop drops what it has not decrypted where the end comes while nothing is read."""
    body = bytes(range(256)) * 4000  # less than what may wait for its reader
    ready: queue.Queue[int] = queue.Queue()
    trusted: queue.Queue[str] = queue.Queue()
    server = threading.Thread(target=closes_at_once, args=(body, ready, trusted), daemon=True)
    server.start()

    async def call() -> bytes:
        transport = Http1Transport()
        base_url = f"https://localhost:{ready.get()}/v1"
        place = await transport.acquire(Target(1, "p", base_url, "m", None, ca_pem=trusted.get()))
        answer = await place.send("id", b"{}")
        if streamed:
            await asyncio.to_thread(server.join)  # all of it has come, and the end
            got = b"".join([chunk async for chunk in answer.chunks()])
        else:
            got = await answer.whole(len(body))
        answer.close()
        await transport.close()
        return got

    assert uvloop.run(call()) == body
