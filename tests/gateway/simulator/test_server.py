"""Connections: framing, keep-alive, many at once, and a clean end."""

import asyncio
import socket
import ssl

import aiohttp
import pytest
import trustme

from gateway.simulator import Fault, SimulatorServer, Step, running_simulator
from tests.gateway.simulator.helpers import ask, chat, ended, streamed
from tests.gateway.simulator.raw import connection, everything

MODELS = b"GET /v1/models HTTP/1.1\r\nhost: h\r\nauthorization: Bearer x\r\n"


async def head_and_body(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head, await reader.readexactly(size)


async def test_requests_sent_at_once_are_answered_one_after_another(simulator):
    async with connection(simulator.base_url) as (reader, writer):
        writer.write((MODELS + b"\r\n") * 3)
        answers = [await head_and_body(reader) for _ in range(3)]
    assert all(head.startswith(b"HTTP/1.1 200 OK\r\n") for head, _ in answers)
    assert len({body for _, body in answers}) == 1


async def test_a_connection_is_closed_when_the_client_says_so(simulator):
    async with connection(simulator.base_url) as (reader, writer):
        writer.write(MODELS + b"connection: close\r\n\r\n")
        head, _ = await head_and_body(reader)
        assert b"\r\nconnection: close\r\n" in head
        assert await reader.read() == b""


async def test_http_1_0_gets_a_stream_that_ends_with_the_connection(simulator):
    body = b'{"model": "m", "messages": [{"role": "user"}], "stream": true}'
    head = (
        b"POST /v1/chat/completions HTTP/1.0\r\nauthorization: Bearer x\r\ncontent-length: %d\r\n\r\n"
        % len(body)
    )
    async with connection(simulator.base_url) as (reader, writer):
        writer.write(head + body)
        answer = await reader.read()
    assert b"chunked" not in answer
    assert answer.endswith(b"data: [DONE]\n\n")


async def test_a_chunked_request_is_understood(client, simulator):
    async def parts():
        for part in (b'{"model": "gpt-4o", ', b'"messages": [{"role": "user", "content": "hi"}]}'):
            yield part

    async with client.post("/v1/chat/completions", data=parts()) as answer:
        assert answer.status == 200
    assert simulator.journal.received()[0].headers["transfer-encoding"] == "chunked"


async def test_a_client_that_waits_for_a_word_gets_it(client):
    async with client.post("/v1/chat/completions", json=chat(), expect100=True) as answer:
        assert answer.status == 200


async def test_a_malformed_request_is_refused_and_the_connection_closed(simulator):
    async with connection(simulator.base_url) as (reader, writer):
        writer.write(b"GET /v1/models HTTP/1.1\r\nspace : x\r\n\r\n" + MODELS + b"\r\n")
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.count(b"HTTP/1.1") == 1
    assert simulator.journal.lines() == []


async def test_an_unfinished_request_is_not_received(simulator):
    async with connection(simulator.base_url) as (_, writer):
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 100\r\n\r\nhalf")
        await writer.drain()
    async with connection(simulator.base_url) as (reader, writer):
        writer.write(MODELS + b"\r\n")
        await head_and_body(reader)
    assert [line.path for line in simulator.journal.received()] == ["/v1/models"]


async def test_hundreds_of_streams_are_open_at_once(client, simulator):
    count = 300
    simulator.script([Step(fault=Fault.STALL, count=count)])
    answers = await asyncio.gather(
        *(client.post("/v1/chat/completions", json=streamed()) for _ in range(count))
    )
    assert (await ask(client, chat()))[0] == 200
    for answer in answers:
        answer.close()
    await ended(simulator, count + 1)
    assert sum(line.client_gone for line in simulator.journal.ended()) == count


async def test_stopping_cuts_what_is_in_flight_and_books_it():
    async with running_simulator() as simulator:
        simulator.script([Step(fault=Fault.STALL)])
        async with connection(simulator.base_url) as (reader, writer):
            body = b'{"model": "m", "messages": [{"role": "user"}], "stream": true}'
            writer.write(MODELS.replace(b"GET /v1/models", b"POST /v1/chat/completions"))
            writer.write(b"content-length: %d\r\n\r\n%b" % (len(body), body))
            await reader.readuntil(b"data: ")
            async with asyncio.timeout(5):
                await simulator.stop()
    line = simulator.journal.ended()[0]
    assert (line.sent_whole, line.client_gone) == (False, False)


async def test_a_bug_in_the_application_ends_its_connection_and_not_the_server(caplog):
    async def buggy(scope, receive, send):
        raise RuntimeError("planted")

    server = SimulatorServer(buggy)
    await server.start()
    port = int(server.base_url.removesuffix("/v1").rpartition(":")[2])
    for _ in range(2):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(MODELS + b"\r\n")
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    await server.stop()
    assert len(caplog.records) == 2
    assert caplog.records[0].exc_info[1].args == ("planted",)


async def test_it_speaks_tls_where_it_is_given_a_certificate():
    authority = trustme.CA()
    offered, trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(offered)
    authority.configure_trust(trusted)
    async with running_simulator(tls=offered) as simulator:
        assert simulator.base_url.startswith("https://127.0.0.1:")
        async with aiohttp.ClientSession() as session:
            address = simulator.base_url + "/chat/completions"
            async with session.post(address, json=chat(), ssl=trusted) as answer:
                assert answer.status == 200
            with pytest.raises(aiohttp.ClientOSError):
                await session.post(address, json=chat(Fault.RESET_BEFORE_HEADERS.model_name), ssl=trusted)


async def test_an_application_may_count_its_body_itself():
    async def counting(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
        await send({"type": "http.response.body", "body": b"ab", "more_body": True})
        await send({"type": "http.response.body", "body": b"cd", "more_body": False})
        scope["extensions"]["penstock.transport"].close()

    server = SimulatorServer(counting)
    await server.start()
    assert await everything(server.base_url, {}) == b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcd"
    await server.stop()


async def test_it_listens_on_loopback_alone(simulator):
    assert simulator.base_url.startswith("http://127.0.0.1:")


async def test_a_port_in_use_is_an_error():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            async with running_simulator(port=taken.getsockname()[1]):
                pass


async def test_a_server_that_never_started_can_be_stopped():
    await SimulatorServer(None).stop()
