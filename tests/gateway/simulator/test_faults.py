"""What providers really do, over real sockets, whole and streamed."""

import asyncio
import gzip
import json
import zlib
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp
import pytest
from msgspec import Raw

from gateway.simulator import Fault, Step
from gateway.simulator.script import ToldUsage
from tests.gateway.simulator.helpers import ask, chat, ended, events, streamed, text_of, usages

ERRORS = [fault for fault in Fault if fault.status is not None]


async def collect(answer, came):
    """The body as it comes; what came before it broke is in `came`."""
    async for piece in answer.content.iter_any():
        came += piece


BOTH = pytest.mark.parametrize("request_for", [chat, streamed], ids=["whole", "streamed"])


@BOTH
@pytest.mark.parametrize("fault", ERRORS)
async def test_an_error_status_has_openais_shape(client, simulator, fault, request_for):
    status, headers, body = await ask(client, request_for(fault.model_name))
    line = await ended(simulator)

    assert status == fault.status
    assert headers["content-type"] == "application/json"
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
    assert (line.fault, line.status, line.completion_tokens, line.usage) == (fault, status, 0, None)


@pytest.mark.parametrize(
    ("fault", "name", "value"),
    [
        (Fault.THROTTLED, None, None),
        (Fault.THROTTLED_SECONDS, "retry-after", "7"),
        (Fault.THROTTLED_MS, "retry-after-ms", "6500"),
    ],
)
async def test_a_429_says_when_to_come_back_in_one_spelling(client, simulator, fault, name, value):
    simulator.script([Step(fault=fault, retry_after_s=6.5)])
    _, headers, _ = await ask(client, chat())
    said = {each.lower(): headers[each] for each in headers if each.lower().startswith("retry-after")}
    assert said == ({name: value} if name else {})


async def test_a_429_may_say_it_as_an_http_date(client, simulator):
    simulator.script([Step(fault=Fault.THROTTLED_DATE, retry_after_s=3600)])
    _, headers, _ = await ask(client, chat())
    ahead = parsedate_to_datetime(headers["retry-after"]) - datetime.now(UTC)
    assert 3500 < ahead.total_seconds() <= 3602


@pytest.mark.parametrize("text", ["soon", "-5", "1e30", "Fri, 31 Dec 9999 23:59:59 GMT", ""])
async def test_a_retry_after_is_said_word_for_word(client, simulator, text):
    simulator.script([Step(fault=Fault.THROTTLED_ABSURD, retry_after=text)])
    _, headers, _ = await ask(client, chat())
    assert headers["retry-after"] == text


async def test_any_error_may_say_when_to_come_back(client, simulator):
    simulator.script([Step(fault=Fault.UNAVAILABLE, retry_after="3"), Step(fault=Fault.THROTTLED_ABSURD)])
    said = [(await ask(client, chat()))[1]["retry-after"] for _ in range(2)]
    assert said == ["3", "soon"]


async def test_messages_that_are_too_long_are_told_in_openais_words(client):
    _, _, body = await ask(client, chat(Fault.CONTEXT_OVERFLOW.model_name))
    error = json.loads(body)["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
    assert error["message"].startswith("This model's maximum context length is")


async def test_a_401_repeats_the_credential_as_some_providers_do(client):
    _, _, body = await ask(client, chat(Fault.UNAUTHORIZED.model_name))
    assert b"sk-simulated" in body


async def test_an_errors_message_can_be_told(client, simulator):
    simulator.script([Step(fault=Fault.BAD_REQUEST, text="too many words")])
    _, _, body = await ask(client, chat())
    assert json.loads(body)["error"]["message"] == "too many words"


@BOTH
async def test_a_slow_first_token_comes_long_after_the_headers(client, simulator, request_for):
    simulator.script([Step(fault=Fault.SLOW_FIRST_TOKEN, pause_s=60)])
    async with client.post("/v1/chat/completions", json=request_for()) as answer:
        assert answer.status == 200
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(answer.content.readany(), 0.05)
        answer.close()
    line = await ended(simulator)
    assert (line.status, line.bytes_sent, line.client_gone) == (200, 0, True)


@BOTH
async def test_a_slow_first_token_is_followed_by_a_whole_answer(client, simulator, request_for):
    simulator.script([Step(fault=Fault.SLOW_FIRST_TOKEN, pause_s=0.01)])
    await ask(client, request_for())
    assert (await ended(simulator)).sent_whole


@BOTH
async def test_a_slow_drip_ends_after_many_pieces(client, simulator, request_for):
    simulator.script([Step(fault=Fault.SLOW_DRIP, pause_s=0.0005)])
    async with client.post("/v1/chat/completions", json=request_for(max_tokens=6)) as answer:
        pieces = [piece async for piece, _ in answer.content.iter_chunks()]
    line = await ended(simulator)
    assert line.sent_whole
    assert len(pieces) > 5
    assert line.completion_tokens == 6


@BOTH
async def test_a_stall_ends_only_when_the_client_goes(client, simulator, request_for):
    async with client.post("/v1/chat/completions", json=request_for(Fault.STALL.model_name)) as answer:
        came = bytearray()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(collect(answer, came), 0.1)
        assert simulator.journal.ended() == []
        answer.close()
    line = await ended(simulator)
    assert (line.client_gone, line.sent_whole, line.bytes_sent) == (True, False, len(came))
    assert len(came) > 0


async def test_a_stream_breaks_off_after_as_many_tokens_as_told(client, simulator):
    simulator.script([Step(fault=Fault.TRUNCATED, after_tokens=5)])
    _, _, body = await ask(client, streamed())
    line = await ended(simulator)
    assert len([chunk for chunk in events(body) if chunk["choices"][0]["delta"].get("content")]) == 5
    assert line.completion_tokens == 5


async def test_a_truncated_stream_ends_cleanly_without_done_and_usage(client, simulator):
    _, _, body = await ask(client, streamed(Fault.TRUNCATED.model_name))
    chunks, line = events(body), await ended(simulator)
    assert "[DONE]" not in chunks
    assert usages(chunks) == []
    assert (line.sent_whole, line.client_gone) == (False, False)


async def test_a_truncated_whole_answer_is_half_a_document(client, simulator):
    status, _, body = await ask(client, chat(Fault.TRUNCATED.model_name))
    assert status == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(body)
    assert not (await ended(simulator)).sent_whole


async def test_an_error_event_ends_a_stream(client, simulator):
    _, _, body = await ask(client, streamed(Fault.ERROR_EVENT.model_name))
    *chunks, last = events(body)
    assert len(text_of(chunks)) > 0
    assert last["error"]["type"] == "server_error"
    assert not (await ended(simulator)).sent_whole


@BOTH
@pytest.mark.parametrize(
    ("fault", "error", "some_body"),
    [
        (Fault.CLOSE_MID_STREAM, None, True),
        (Fault.RESET_MID_STREAM, ConnectionResetError, True),
        (Fault.RESET_AFTER_HEADERS, ConnectionResetError, False),
    ],
)
async def test_a_connection_breaks_in_the_body(client, simulator, fault, error, some_body, request_for):
    came = bytearray()
    async with client.post("/v1/chat/completions", json=request_for(fault.model_name)) as answer:
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientPayloadError) as broken:
            await collect(answer, came)
    line = await ended(simulator)

    assert ("ConnectionResetError" in str(broken.value)) is (error is ConnectionResetError)
    assert (len(came) > 0) is some_body
    assert (line.bytes_sent, line.sent_whole, line.client_gone) == (len(came), False, False)


@BOTH
async def test_a_connection_is_reset_before_the_headers(client, simulator, request_for):
    with pytest.raises((ConnectionResetError, aiohttp.ClientOSError), match="reset"):
        await ask(client, request_for(Fault.RESET_BEFORE_HEADERS.model_name))
    assert (await ended(simulator)).status is None


@BOTH
@pytest.mark.parametrize(
    ("fault", "content_type"),
    [
        (Fault.GARBAGE_HTML, "text/html"),
        (Fault.GARBAGE_JSON, "application/json"),
        (Fault.GARBAGE_SSE, "text/event-stream"),
    ],
)
async def test_garbage_comes_with_a_200(client, fault, content_type, request_for):
    status, headers, body = await ask(client, request_for(fault.model_name))
    assert status == 200
    assert headers["content-type"].startswith(content_type)
    with pytest.raises(ValueError):
        events(body) if fault is Fault.GARBAGE_SSE else json.loads(body)


async def test_a_huge_body_is_valid_and_as_large_as_told(client, simulator):
    simulator.script([Step(fault=Fault.HUGE_BODY, body_bytes=3_000_000, count=2)])
    _, _, whole = await ask(client, chat())
    _, _, stream = await ask(client, streamed())

    assert len(whole) > 3_000_000
    assert json.loads(whole)["object"] == "chat.completion"
    assert max(len(part) for part in stream.split(b"\n\n")) > 3_000_000
    assert events(stream)[-1] == "[DONE]"
    assert text_of(events(stream)) == json.loads(whole)["choices"][0]["message"]["content"]


async def test_a_huge_body_that_nobody_reads_is_not_sent(client, simulator):
    """Back-pressure: the simulator holds what the sockets take, not the whole of it."""
    simulator.script([Step(fault=Fault.HUGE_BODY, body_bytes=1 << 30)])
    async with client.post("/v1/chat/completions", json=chat()) as answer:
        answer.close()
    line = await ended(simulator)
    assert line.client_gone
    assert line.bytes_sent < 1 << 28


@BOTH
async def test_gzip_comes_unasked(client, request_for):
    _, headers, body = await ask(client, request_for(Fault.GZIP.model_name, max_tokens=2))
    assert headers["content-encoding"] == "gzip"
    assert b"simulated" in gzip.decompress(body)


async def test_a_zipped_stream_can_be_unpacked_event_by_event(client, simulator):
    unpacker, events_seen = zlib.decompressobj(wbits=31), []
    simulator.script([Step(fault=Fault.GZIP)])
    async with client.post("/v1/chat/completions", json=streamed(max_tokens=4)) as answer:
        async for piece, _ in answer.content.iter_chunks():
            events_seen.append(unpacker.decompress(piece).count(b"data: "))
    assert answer.headers["content-encoding"] == "gzip"
    assert events_seen[0] == 1
    assert sum(events_seen) == 8
    line = await ended(simulator)
    assert (line.sent_whole, line.completion_tokens, line.usage.completion_tokens) == (True, 4, 4)


@BOTH
async def test_a_gzip_bomb_is_small_until_it_is_unpacked(client, simulator, request_for):
    simulator.script([Step(fault=Fault.GZIP_BOMB, body_bytes=5_000_000)])
    _, headers, body = await ask(client, request_for())
    unpacked = gzip.decompress(body)
    assert headers["content-encoding"] == "gzip"
    assert len(body) < 20_000
    assert len(unpacked) > 5_000_000
    assert b"simulated" in unpacked


async def test_a_bomb_that_is_not_told_its_size_has_two_hundred_mebibytes(client):
    _, _, body = await ask(client, chat(Fault.GZIP_BOMB.model_name))
    assert int.from_bytes(body[-4:], "little") > 200 << 20


WEATHER = {
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "hour": {"type": "integer"}}},
}
TOOLS = {"tools": [{"type": "function", "function": WEATHER}]}


@pytest.mark.parametrize(("asked", "name"), [(TOOLS, "weather"), ({}, "open_gate")])
async def test_a_tool_calls_arguments_may_be_no_json(client, simulator, asked, name):
    _, _, body = await ask(client, chat(Fault.TOOL_CALL_BROKEN.model_name, **asked))
    choice = json.loads(body)["choices"][0]
    called = choice["message"]["tool_calls"][0]["function"]
    assert (choice["finish_reason"], called["name"]) == ("tool_calls", name)
    with pytest.raises(json.JSONDecodeError):
        json.loads(called["arguments"])
    assert (await ended(simulator)).sent_whole


async def test_a_tool_calls_arguments_can_be_told(client, simulator):
    simulator.script([Step(fault=Fault.TOOL_CALL_BROKEN, text="{city: here}")])
    _, _, body = await ask(client, chat(**TOOLS))
    called = json.loads(body)["choices"][0]["message"]["tool_calls"][0]["function"]
    assert called["arguments"] == "{city: here}"


async def test_a_stream_may_end_inside_a_tool_call(client, simulator):
    _, _, body = await ask(client, streamed(Fault.TOOL_CALL_CUT.model_name, **TOOLS))
    chunks = events(body)
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    arguments = "".join(call["function"]["arguments"] for each in deltas for call in each["tool_calls"])
    assert "[DONE]" not in chunks
    assert {choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]} == {None}
    with pytest.raises(json.JSONDecodeError):
        json.loads(arguments)
    assert (await ended(simulator)).completion_tokens == 3


@pytest.mark.parametrize("limit", [1, 7, 400])
async def test_max_tokens_may_be_ignored(client, simulator, limit):
    _, _, body = await ask(client, chat(Fault.MAX_TOKENS_IGNORED.model_name, max_tokens=limit))
    answer, line = json.loads(body), await ended(simulator)
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == line.completion_tokens > limit


async def test_a_redirect_leads_elsewhere_on_the_same_simulator(client, simulator):
    status, headers, _ = await ask(client, chat(Fault.REDIRECT.model_name))
    assert status == 307
    assert headers["location"] == f"{simulator.base_url}/elsewhere"


async def test_usage_may_come_beside_choices(client, simulator):
    _, _, body = await ask(client, streamed(Fault.USAGE_BESIDE_CHOICES.model_name))
    *_, last, done = events(body)
    assert done == "[DONE]"
    assert last["choices"][0]["finish_reason"] == "stop"
    assert usages([last])[0]["completion_tokens"] == (await ended(simulator)).completion_tokens
    assert len(usages(events(body))) == 1


async def test_usage_may_come_on_every_chunk_and_grows(client, simulator):
    _, _, body = await ask(client, streamed(Fault.USAGE_ON_EVERY_CHUNK.model_name))
    counts = [usage["completion_tokens"] for usage in usages(events(body))]
    assert len(counts) == len(events(body)) - 1
    assert counts[:3] == [0, 1, 2]
    assert counts == sorted(counts)
    line = await ended(simulator)
    assert counts[-1] == line.completion_tokens == line.usage.completion_tokens


def told(said, chunk=None, place="chunk"):
    return ToldUsage(Raw(json.dumps(said).encode()), chunk, place)


async def test_a_script_puts_any_usage_on_any_chunk(client, simulator):
    usages = [told(1, 0), told("two", 1, "x_groq"), told([3], -1, "choice"), told({"four": 4.0}), told(None)]
    simulator.script([Step(text="Hello", usages=usages)])
    _, _, body = await ask(client, streamed(usage=False))
    first, second, last, *rest, done = events(body)
    assert (first["usage"], second["x_groq"]["usage"]) == (1, "two")
    assert last["choices"][0]["usage"] == [3]
    assert [(chunk["choices"], chunk["usage"]) for chunk in rest] == [([], {"four": 4.0}), ([], None)]
    assert done == "[DONE]"
    assert (await ended(simulator)).usage is None


async def test_a_script_that_tells_no_usage_leaves_it_out(client, simulator):
    simulator.script([Step(usages=()), Step(usages=())])
    for request in (streamed(), chat()):
        _, _, body = await ask(client, request)
        assert b"usage" not in body


async def test_a_whole_answer_says_the_last_usage_of_its_script(client, simulator):
    simulator.script([Step(usages=[told(1, 0), told({"two": 2})])])
    _, _, body = await ask(client, chat())
    assert json.loads(body)["usage"] == {"two": 2}


@BOTH
async def test_usage_may_be_missing_although_asked_for(client, simulator, request_for):
    _, _, body = await ask(client, request_for(Fault.USAGE_MISSING.model_name))
    line = await ended(simulator)
    assert b"total_tokens" not in body
    assert line.usage is None
    assert line.completion_tokens > 0


@BOTH
async def test_usage_may_be_zero_whatever_was_sent(client, simulator, request_for):
    _, _, body = await ask(client, request_for(Fault.USAGE_ZERO.model_name))
    line = await ended(simulator)
    assert b'"total_tokens":0' in body
    assert line.usage.completion_tokens == 0
    assert line.completion_tokens > 0
