"""Bytes that are not HTTP, seen by a client that parses nothing."""

import json

import pytest

from gateway.simulator import Fault, Step
from gateway.simulator.breaches import SMUGGLED
from tests.gateway.simulator.helpers import chat, ended, streamed
from tests.gateway.simulator.raw import connection, everything, posted, response

BOTH = pytest.mark.parametrize("request_for", [chat, streamed], ids=["whole", "streamed"])


def declared_length(head):
    return int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])


@BOTH
async def test_interim_answers_come_before_a_good_one(simulator, request_for):
    async with connection(simulator.base_url) as (reader, writer):
        writer.write(posted(request_for(Fault.UNASKED_INTERIM.model_name)))
        interim = [await reader.readuntil(b"\r\n\r\n") for _ in range(3)]
        head, body = await response(reader)

    assert [each.split()[1] for each in interim] == [b"100", b"102", b"103"]
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"simulated" in body
    assert (await ended(simulator)).sent_whole


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (Fault.ENDLESS_INTERIM, b"HTTP/1.1 102 Processing"),
        (Fault.ENDLESS_HEADERS, b"x-simulated: another header"),
    ],
)
async def test_a_flood_goes_on_until_the_client_goes(simulator, fault, line):
    came = await everything(simulator.base_url, chat(fault.model_name), limit=50_000)
    ending = await ended(simulator)
    assert came.count(line) > 1000
    assert b"200 OK\r\n\r\n" not in came
    assert (ending.status, ending.sent_whole, ending.client_gone) == (None, False, True)


async def test_a_flood_leaves_others_their_turn(simulator):
    async with connection(simulator.base_url) as (_, flooded):
        flooded.write(posted(chat(Fault.ENDLESS_INTERIM.model_name)))
        await simulator.journal.until(lambda journal: len(journal.received()) == 1)
        async with connection(simulator.base_url) as (reader, writer):
            writer.write(posted(chat()))
            head, _ = await response(reader)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")


@BOTH
async def test_a_huge_header_is_one_line_of_a_good_answer(simulator, request_for):
    async with connection(simulator.base_url) as (reader, writer):
        writer.write(posted(request_for(Fault.HUGE_HEADER.model_name)))
        head, body = await response(reader)
    assert max(len(line) for line in head.split(b"\r\n")) > 1 << 20
    assert b"simulated" in body


async def test_a_connection_closes_in_the_middle_of_a_header(simulator):
    came = await everything(simulator.base_url, chat(Fault.CLOSE_IN_HEADERS.model_name))
    assert came.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\n\r\n" not in came
    assert not came.endswith(b"\r\n")


@pytest.mark.parametrize(("text", "line"), [(None, b"SSH-2.0-simulated"), ("ICY 200 OK", b"ICY 200 OK")])
async def test_another_protocol_speaks_one_line(simulator, text, line):
    simulator.script([Step(fault=Fault.NOT_HTTP, text=text)])
    assert await everything(simulator.base_url, chat()) == line + b"\r\n"


async def test_a_connection_closes_inside_a_chunk(simulator):
    came = await everything(simulator.base_url, streamed(Fault.TRUNCATED_CHUNK.model_name))
    whole, _, rest = came.rpartition(b"\r\n1000\r\n")
    assert whole.count(b"data: {") > 3
    assert 0 < len(rest) < 0x1000
    assert not (await ended(simulator)).sent_whole


@BOTH
async def test_a_length_may_be_more_than_what_comes(simulator, request_for):
    came = await everything(simulator.base_url, request_for(Fault.LENGTH_TOO_LONG.model_name))
    head, _, body = came.partition(b"\r\n\r\n")
    line = await ended(simulator)
    assert declared_length(head) == 2 * len(body) == 2 * line.bytes_sent
    assert not line.sent_whole


@BOTH
async def test_a_length_may_be_less_than_what_comes_and_the_connection_lives_on(simulator, request_for):
    async with connection(simulator.base_url) as (reader, writer):
        writer.write(posted(request_for(Fault.LENGTH_TOO_SHORT.model_name)))
        head = await reader.readuntil(b"\r\n\r\n")
        sent = (await ended(simulator)).bytes_sent
        await reader.readexactly(sent)
        writer.write(posted(chat()))
        assert (await response(reader))[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert declared_length(head) == sent // 2


@BOTH
async def test_a_half_closed_connection_still_listens(simulator, request_for):
    async with connection(simulator.base_url) as (reader, writer):
        writer.write(posted(request_for(Fault.HALF_CLOSE.model_name)))
        came = await reader.read()
        writer.write(b"still here")
        await writer.drain()
        assert simulator.journal.ended() == []
    assert not came.endswith(b"0\r\n\r\n")
    assert (await ended(simulator)).client_gone


@BOTH
async def test_a_connection_closes_after_an_answer_that_did_not_say_so(simulator, request_for):
    came = await everything(simulator.base_url, request_for(Fault.CLOSE_AFTER_ANSWER.model_name))
    assert came.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close" not in came
    assert (await ended(simulator)).sent_whole


@BOTH
@pytest.mark.parametrize("fault", [Fault.SECOND_ANSWER, Fault.SECOND_ANSWER_LATER])
async def test_an_answer_that_nobody_asked_for_follows_a_good_one(simulator, fault, request_for):
    async with connection(simulator.base_url) as (reader, writer):
        writer.write(posted(request_for(fault.model_name)))
        _, first = await response(reader)
        head, second = await response(reader)
        writer.write(posted(chat()))
        _, third = await response(reader)

    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    said = b"".join(SMUGGLED.encode().split())
    assert said not in _words(first)
    assert said in _words(second)
    assert said not in _words(third)


async def test_a_later_second_answer_meets_the_next_request(simulator):
    """What a desynchronised connection looks like: the next call would be given another's answer."""
    async with connection(simulator.base_url) as (reader, writer):
        writer.write(posted(chat(Fault.SECOND_ANSWER_LATER.model_name)))
        await response(reader)
        writer.write(posted(chat()))
        _, body = await response(reader)
    assert json.loads(body)["choices"][0]["message"]["content"] == SMUGGLED


def _words(body):
    """The text of an answer, whole or in events, without blanks."""
    parts = [body] if body.startswith(b"{") else [line[6:] for line in body.split(b"\n\n") if b"{" in line]
    said = []
    for part in parts:
        choice = json.loads(part)["choices"]
        said += [(each.get("message") or each["delta"]).get("content") or "" for each in choice]
    return "".join("".join(said).split()).encode()


@BOTH
@pytest.mark.parametrize(("told", "blanks"), [(300_000, 300_000), (None, 10 << 20)])
async def test_a_line_does_not_end(simulator, told, blanks, request_for):
    simulator.script([Step(fault=Fault.ENDLESS_LINE, body_bytes=told)])
    async with connection(simulator.base_url) as (reader, writer):
        writer.write(posted(request_for()))
        head = await reader.readuntil(b'"id": "' if request_for is streamed else b'"id":"')
        rest = b""
        while rest.count(b" ") < blanks:
            rest += await reader.readexactly(blanks - rest.count(b" "))
        assert simulator.journal.ended() == []
    assert head.count(b"data: {") == (5 if request_for is streamed else 0)
    assert b"\n\n" not in rest
    assert (await ended(simulator)).client_gone
