"""What every transport keeps to, whichever library carries the call. Real sockets, no sleeps."""

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.relay.catalog import PoolConfig, Secret, Target
from gateway.relay.transports import (
    Broken,
    CannotConnect,
    ConnectTimedOut,
    PoolExhausted,
    TooLarge,
    WriteTimedOut,
)
from gateway.relay.transports.choice import Transports
from tests.gateway.relay.transports.conftest import (
    BODY,
    CREDENTIAL,
    KINDS,
    Line,
    cancelled,
    eventually,
    line_of,
)
from tests.upstreams.h1_server import raw
from tests.upstreams.h2_server import go_away
from tests.upstreams.upstream import answer, event, reset, stall, stall_after, stream, whole, within

GONE_S = 1.0
"""A provider learns so soon that a call was given up."""


async def test_a_call_is_answered(line: Line) -> None:
    line.upstream.will(answer("Hello", retry_after="7", retry_after_ms="7000"))

    got = await line.begin()

    assert (got.status, got.content_type, got.content_encoding) == (200, "application/json", "")
    assert (got.retry_after, got.retry_after_ms) == ("7", "7000")
    assert b'"Hello"' in await got.whole(1 << 20)
    got.close()
    [exchange] = line.upstream.exchanges
    assert exchange.body == BODY
    assert exchange.headers["x-request-id"] == "the-call-id"


async def test_the_credential_goes_up_as_the_authorization_and_nowhere_else(line: Line) -> None:
    await line.call()

    [exchange] = line.upstream.exchanges
    holding = [(name.lower(), value) for name, value in exchange.raw_headers if CREDENTIAL in value]
    assert holding == [("authorization", f"Bearer {CREDENTIAL}")]
    assert CREDENTIAL.encode() not in exchange.body


async def test_without_a_credential_none_is_sent(line: Line) -> None:
    line.change(credential=None)
    await line.call()
    assert "authorization" not in line.upstream.exchanges[0].headers


async def test_the_first_chunk_is_handed_on_before_the_second_is_sent(line: Line) -> None:
    goes_on = asyncio.Event()
    line.upstream.will(stream("one", "two", goes_on=goes_on))

    got = await within(line.begin())
    chunks = got.chunks()
    first = await within(anext(chunks))
    goes_on.set()
    rest = b"".join([chunk async for chunk in chunks])
    got.close()

    assert first == event("one")
    assert rest == event("two") + b"data: [DONE]\n\n"


# A call that is given up


async def test_a_call_cancelled_before_the_headers_is_gone_within_a_second(line: Line) -> None:
    line.upstream.will(stall)
    call = asyncio.create_task(line.call())
    exchange = await line.upstream.request()

    call.cancel()

    await within(exchange.left.wait(), GONE_S)
    await line.is_free()


async def test_a_call_left_in_mid_stream_is_gone_within_a_second(line: Line) -> None:
    line.upstream.will(stall_after("one"))
    got = await line.begin()
    await anext(got.chunks())

    got.close()

    await within(line.upstream.exchanges[0].left.wait(), GONE_S)
    await line.is_free()


async def test_a_call_cancelled_while_it_reads_is_gone_within_a_second(line: Line) -> None:
    line.upstream.will(stall_after("one"))
    call = asyncio.create_task(line.call())
    exchange = await line.upstream.request()
    await eventually(lambda: line.figures.answers)

    call.cancel()

    await within(exchange.left.wait(), GONE_S)
    await line.is_free()


async def test_a_call_cancelled_while_it_connects_leaves_no_place_taken(plain: Line) -> None:
    async with silent() as base_url:
        plain.change(base_url=base_url.replace("http:", "https:"))
        call = asyncio.create_task(plain.call())
        await eventually(lambda: plain.transport.figures().get(7) and plain.figures.in_use)
        await cancelled(call)
        await plain.is_free()


# Places


async def test_one_call_too_many_waits_for_a_place(line: Line) -> None:
    line.limit(max_connections=2)
    line.upstream.will(stall_after("one"), stall_after("one"), answer("third"))
    first, second = await line.begin(), await line.begin()
    third = asyncio.create_task(line.call())
    await eventually(lambda: line.figures.waiting == 1)
    assert len(line.upstream.exchanges) == 2

    first.close()

    _, body = await within(third)
    assert b'"third"' in body
    second.close()


async def test_a_call_that_finds_no_place_in_time_is_told_so(line: Line) -> None:
    line.limit(max_connections=1, pool_timeout_s=0.02)
    line.upstream.will(stall_after("one"))
    first = await line.begin()

    with pytest.raises(PoolExhausted, match="all 1 connections"):
        await within(line.call())

    assert (line.figures.pool_timeouts, line.figures.waiting, line.figures.requests) == (1, 0, 1)
    first.close()


WaysOut = Callable[[Line], Awaitable[object]]


async def answered(line: Line) -> None:
    await line.call()


async def unused(line: Line) -> None:
    (await line.transport.acquire(line.target)).release()


async def unread(line: Line) -> None:
    got = await line.begin()
    got.close()
    got.close()


async def half_read(line: Line) -> None:
    line.upstream.will(stream("one", "two", goes_on=asyncio.Event()))
    got = await line.begin()
    await anext(got.chunks())
    got.close()


async def too_large(line: Line) -> None:
    with pytest.raises(TooLarge, match="larger than 10 bytes"):
        await line.call(limit=10)


async def reset_before_the_headers(line: Line) -> None:
    line.upstream.will(reset())
    with pytest.raises(Broken):
        await line.call()


async def reset_in_the_body(line: Line) -> None:
    line.upstream.will(reset(after=event("one")))
    with pytest.raises(Broken):
        await line.call()


async def given_up(line: Line) -> None:
    line.upstream.will(stall)
    call = asyncio.create_task(line.call())
    await line.upstream.request()
    await cancelled(call)


async def refused(line: Line) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        line.change(base_url=line.target.base_url.rpartition(":")[0] + f":{bound.getsockname()[1]}/v1")
        with pytest.raises(CannotConnect, match="refused"):
            await line.call()


@pytest.mark.parametrize(
    "leave",
    [
        *(answered, unused, unread, half_read, too_large),
        *(reset_before_the_headers, reset_in_the_body, given_up, refused),
    ],
)
async def test_the_place_is_free_again_however_a_call_ends(line: Line, leave: WaysOut) -> None:
    line.limit(max_connections=1)
    await leave(line)
    await line.is_free()


async def test_an_answer_that_nobody_reads_is_not_taken_in(plain: Line) -> None:
    plain.upstream.will(whole(b"x" * (64 << 20)))
    unread_one = await plain.begin()
    for _ in range(50):
        await plain.call()

    assert plain.upstream.exchanges[0].unsent_bytes > 32 << 20
    unread_one.close()


# Connections


async def test_a_connection_is_used_again_after_its_answer_was_read(line: Line) -> None:
    for _ in range(3):
        await line.call()

    assert len(line.upstream.connections) == 1
    assert (line.figures.opened, line.figures.reused, line.figures.idle) == (1, 2, 1)


async def test_connections_that_were_made_at_the_same_time_are_all_used_again(line: Line) -> None:
    await at_once(line, 4)
    opened = len(line.upstream.connections)
    await at_once(line, 4)
    assert len(line.upstream.connections) == opened == (1 if line.is_http2 else 4)


async def test_an_answer_that_was_not_read_leaves_nothing_behind(line: Line) -> None:
    line.upstream.will(stall_after("one"))
    (await line.begin()).close()
    await line.is_free()

    assert b'"Hello"' in (await line.call())[1]

    # With HTTP/2 only the stream is ended; with HTTP/1.1 that takes the connection.
    assert len(line.upstream.connections) == (1 if line.is_http2 else 2)


EXTRA = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"
COMPLETE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


async def test_bytes_after_an_answer_are_nobodys_answer(plain: Line) -> None:
    plain.upstream.will(raw(COMPLETE + EXTRA))

    assert await plain.call() == (200, b"{}")
    assert b'"Hello"' in (await plain.call())[1]
    assert len(plain.upstream.connections) == 2


async def test_bytes_that_come_on_an_idle_connection_are_nobodys_answer(plain: Line) -> None:
    goes_on = asyncio.Event()

    async def step(exchange: object) -> None:
        await raw(COMPLETE)(exchange)
        await goes_on.wait()
        await raw(EXTRA)(exchange)

    plain.upstream.will(step)
    assert await plain.call() == (200, b"{}")
    assert plain.figures.idle == 1
    goes_on.set()
    await eventually(lambda: not plain.figures.idle)

    assert b'"Hello"' in (await plain.call())[1]
    assert len(plain.upstream.connections) == 2


@pytest.mark.parametrize(
    "garbage",
    [
        b"not HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: nine\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Padding: " + b"x" * 300_000,
    ],
)
async def test_what_is_not_http_breaks_the_call_and_ends_the_connection(plain: Line, garbage: bytes) -> None:
    plain.upstream.will(raw(garbage))

    with pytest.raises(Broken):
        await within(plain.call())

    await within(plain.upstream.connections[0].closed.wait())
    assert b'"Hello"' in (await plain.call())[1]


async def test_a_connection_that_the_provider_ended_is_not_used_again(line: Line) -> None:
    line.upstream.will(go_away(then=answer()) if line.is_http2 else raw(COMPLETE, then_close=True))
    await line.call()
    await eventually(lambda: not line.figures.idle)

    await line.call()

    assert len(line.upstream.connections) == 2


async def test_no_more_idle_connections_are_kept_than_asked(plain: Line) -> None:
    plain.limit(max_keepalive_connections=2)
    await at_once(plain, 5)
    assert len(plain.upstream.connections) == 5

    await eventually(lambda: plain.upstream.open_connections == 2)
    assert plain.figures.idle == 2


async def test_an_idle_connection_is_closed_when_its_time_is_over(line: Line) -> None:
    line.limit(keepalive_expiry_s=0.01)
    await line.call()
    await eventually(lambda: line.upstream.open_connections == 0)


async def at_once(line: Line, calls: int) -> None:
    """So many calls, all of them on the way before the first is answered."""
    goes_on = asyncio.Event()

    async def step(exchange: object) -> None:
        await goes_on.wait()
        await answer()(exchange)

    line.upstream.will(*[step] * calls)
    begun = len(line.upstream.exchanges)
    running = [asyncio.create_task(line.call()) for _ in range(calls)]
    await line.upstream.request(begun + calls)
    goes_on.set()
    await within(asyncio.gather(*running))


# TLS


async def test_a_certificate_of_an_unknown_authority_is_refused(secure: Line) -> None:
    secure.change(ca_pem="")
    with pytest.raises(CannotConnect, match=r"certificate was not accepted \(unable to get local issuer"):
        await secure.call()
    assert secure.figures.connection_errors == 1


async def test_an_authority_of_ones_own_can_be_given_without_a_restart(secure: Line) -> None:
    ca_pem = secure.target.ca_pem
    secure.change(ca_pem="")
    with pytest.raises(CannotConnect):
        await secure.call()

    secure.change(ca_pem=ca_pem)

    assert (await secure.call())[0] == 200


@pytest.mark.parametrize("kind", ["http1-tls", "aiohttp-tls", "httpx-tls", "httpx-http2"])
async def test_a_certificate_for_another_host_is_refused(kind: str) -> None:
    async with line_of(kind, names=("elsewhere.example",)) as line:
        with pytest.raises(CannotConnect, match=r"certificate was not accepted \(Hostname mismatch"):
            await line.call()


@pytest.mark.parametrize(
    "pem", ["nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "ü"]
)
async def test_certificates_that_cannot_be_read_are_named_as_the_reason(secure: Line, pem: str) -> None:
    secure.change(ca_pem=pem)
    with pytest.raises(CannotConnect, match="must be PEM"):
        await secure.call()
    assert (secure.figures.opened, secure.figures.reused, secure.figures.connection_errors) == (0, 0, 1)


async def test_a_provider_without_tls_is_not_taken_for_one_with_it(plain: Line) -> None:
    async def speak_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(speak_plainly, "127.0.0.1", 0) as server:
        plain.change(base_url=f"https://localhost:{server.sockets[0].getsockname()[1]}/v1")
        with pytest.raises(CannotConnect, match="no TLS connection"):
            await within(plain.call())


# Time


@asynccontextmanager
async def silent() -> AsyncIterator[str]:
    """A listener that takes connections, reads nothing and says nothing."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listener.bind(("127.0.0.1", 0))
    listener.listen(8)
    try:
        yield f"http://localhost:{listener.getsockname()[1]}/v1"
    finally:
        listener.close()


async def test_a_connection_that_takes_too_long_is_given_up(plain: Line) -> None:
    async with silent() as base_url:
        plain.change(base_url=base_url.replace("http:", "https:"))
        plain.limit(connect_timeout_s=0.05)
        with pytest.raises(ConnectTimedOut):
            await within(plain.call())
    assert (plain.figures.connect_timeouts, plain.figures.connection_errors) == (1, 0)


async def test_a_provider_that_takes_nothing_is_given_up(plain: Line) -> None:
    async with silent() as base_url:
        plain.change(base_url=base_url)
        plain.limit(write_timeout_s=0.2)
        with pytest.raises(WriteTimedOut):
            await within(plain.call(body=b"x" * (4 << 20)))
    await plain.is_free()


async def test_a_provider_that_takes_nothing_of_a_stream_is_given_up() -> None:
    async with line_of("httpx-http2", takes_little=True) as line:
        line.limit(write_timeout_s=0.05)
        with pytest.raises(WriteTimedOut):
            await within(line.call(body=b"x" * 100_000))
        await line.is_free()


# What is left as it is


async def test_a_redirect_is_not_followed(line: Line) -> None:
    line.upstream.will(whole(b"", 307, location=f"{line.target.base_url}/elsewhere"))
    assert (await line.call())[0] == 307
    assert len(line.upstream.exchanges) == 1


async def test_nothing_is_unpacked(line: Line) -> None:
    packed = gzip.compress(b"x" * 100_000)
    line.upstream.will(whole(packed, content_encoding="gzip"))

    got = await line.begin()

    assert got.content_encoding == "gzip"
    assert await got.whole(len(packed)) == packed
    assert line.upstream.exchanges[0].headers["accept-encoding"] == "identity"
    got.close()


async def test_proxies_of_the_environment_are_ignored(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:9")
    assert (await line.call())[0] == 200


async def test_cookies_are_not_kept(line: Line) -> None:
    line.upstream.will(answer(set_cookie="a=b; Path=/"))
    await line.call()
    await line.call()
    assert "cookie" not in line.upstream.exchanges[1].headers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("host", ["2852039166", "169.254.169.254", "[::ffff:169.254.169.254]"])
async def test_a_host_that_leads_to_metadata_is_refused(kind: str, host: str) -> None:
    """The first is the same address, but not to every parser: aiohttp takes it for no host at all."""
    client, tls, http2 = KINDS[kind]
    transport = Transports()
    target = Target(
        1,
        "provider",
        f"http{'s' * tls}://{host}/v1",
        "upstream-model",
        Secret(CREDENTIAL),
        transport=client,
        pool=PoolConfig(http2=http2),
    )
    with pytest.raises(CannotConnect, match=r"169\.254\.169\.254, where no provider may be|is not valid"):
        await (await transport.acquire(target)).send("the-call-id", BODY)
    await transport.close()


async def test_a_name_that_leads_to_a_private_address_is_refused_unless_those_are_allowed(line: Line) -> None:
    line.transport = Transports(allow_private=False)
    with pytest.raises(CannotConnect, match="where no provider may be"):
        await line.call()
    await line.transport.close()


# Settings that change


async def test_more_connections_let_in_who_waits(line: Line) -> None:
    line.limit(max_connections=1)
    line.upstream.will(stall_after("one"), answer(), answer())
    first = await line.begin()
    second = asyncio.create_task(line.call())
    await eventually(lambda: line.figures.waiting == 1)

    line.limit(max_connections=3)
    await within(line.call())

    assert (await within(second))[0] == 200
    first.close()


async def test_fewer_connections_are_reached_as_calls_end(line: Line) -> None:
    line.limit(max_connections=2)
    line.upstream.will(stall_after("one"), stall_after("one"), answer())
    first, second = await line.begin(), await line.begin()

    line.limit(max_connections=1)
    third = asyncio.create_task(line.call())
    await eventually(lambda: line.figures.waiting == 1)
    first.close()
    await eventually(lambda: line.figures.in_use == 1)
    assert line.figures.waiting == 1
    second.close()

    assert (await within(third))[0] == 200


async def test_a_changed_credential_is_used_at_once_and_a_running_call_is_not_cut(line: Line) -> None:
    goes_on = asyncio.Event()
    line.upstream.will(stream("one", "two", goes_on=goes_on), answer())
    running = await line.begin()

    line.change(credential=Secret("sk-another"))
    await line.call()

    assert line.upstream.exchanges[1].headers["authorization"] == "Bearer sk-another"
    assert line.figures.in_use == 1
    goes_on.set()
    assert (await running.whole(1 << 20)).endswith(b"data: [DONE]\n\n")
    assert not line.upstream.connections[0].closed.is_set()
    running.close()
    await within(line.upstream.connections[0].closed.wait())
    assert line.figures.opened == 2


async def test_who_waits_while_settings_change_goes_by_the_new_ones(line: Line) -> None:
    line.limit(max_connections=1)
    line.upstream.will(stall_after("one"))
    first = await line.begin()
    waiting = asyncio.create_task(line.call())
    await eventually(lambda: line.figures.waiting == 1)

    line.change(credential=Secret("sk-another"))
    after = asyncio.create_task(line.call())
    await eventually(lambda: line.figures.waiting == 2)
    first.close()
    await within(asyncio.gather(waiting, after))

    sent = [exchange.headers["authorization"] for exchange in line.upstream.exchanges]
    assert sent[1:] == ["Bearer sk-another"] * 2


async def test_a_limit_that_concerns_no_connection_leaves_them_open(line: Line) -> None:
    await line.call()
    line.limit(max_connections=7, pool_timeout_s=1, read_timeout_s=3)
    line.change(max_concurrency=3, weight=5)
    await line.call()
    assert len(line.upstream.connections) == 1


@pytest.mark.parametrize(
    "limits",
    [
        {"max_keepalive_connections": 3},
        {"keepalive_expiry_s": 1.0},
        {"connect_timeout_s": 1.0},
        {"write_timeout_s": 1.0},
    ],
)
async def test_a_limit_of_connections_is_in_force_at_once(line: Line, limits: dict[str, float]) -> None:
    await line.call()
    line.limit(**limits)
    await line.call()
    assert len(line.upstream.connections) == 2
    await within(line.upstream.connections[0].closed.wait())


async def test_another_library_takes_over_with_the_same_places_and_figures(plain: Line) -> None:
    goes_on = asyncio.Event()
    plain.limit(max_connections=2)
    plain.upstream.will(stream("one", "two", goes_on=goes_on))
    running = await plain.begin()

    plain.change(transport="http1" if plain.target.transport == "httpx" else "httpx")
    await plain.call()

    assert (plain.figures.in_use, plain.figures.acquired, plain.figures.requests) == (1, 2, 2)
    goes_on.set()
    assert (await running.whole(1 << 20)).endswith(b"[DONE]\n\n")
    running.close()
    assert plain.figures.in_use == 0


# Figures


async def test_the_figures_add_up(line: Line) -> None:
    line.limit(max_connections=2, pool_timeout_s=0.02)
    await line.call()
    await reset_before_the_headers(line)
    await reset_in_the_body(line)
    line.upstream.will(stall_after("one"), stall_after("one"))
    first, second = await line.begin(), await line.begin()
    with pytest.raises(PoolExhausted):
        await line.call()

    figures = line.figures

    assert (figures.in_use, figures.waiting, figures.acquired) == (2, 0, 5)
    assert (figures.requests, figures.answers) == (5, 4)
    assert (figures.pool_timeouts, figures.connect_timeouts, figures.connection_errors) == (1, 0, 2)
    assert figures.opened == len(line.upstream.connections)
    assert figures.reused == 5 - len(line.upstream.connections)
    assert figures.http_version == ("2" if line.is_http2 else "1.1")
    assert figures.acquire_buckets[0] == figures.acquire_buckets[-1] == 5
    assert figures.acquire_s == 0.0
    first.close()
    second.close()
