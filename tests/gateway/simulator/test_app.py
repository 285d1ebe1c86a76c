"""Good answers, refusals and the control endpoint, over real sockets."""

import asyncio
import hashlib
import json

import aiohttp
import pytest

from gateway.simulator import Fault, Step, running_simulator
from tests.gateway.simulator.helpers import ask, chat, ended, events, streamed, text_of, usages


async def test_a_whole_answer_is_labelled_and_counts_its_tokens(client, simulator):
    status, headers, body = await ask(client, chat())
    answer = json.loads(body)

    assert status == 200
    assert headers["content-type"] == "application/json"
    assert answer["object"] == "chat.completion"
    assert answer["system_fingerprint"] == "simulated"
    assert answer["choices"][0]["finish_reason"] == "stop"
    usage, line = answer["usage"], await ended(simulator)
    assert usage["completion_tokens"] == line.completion_tokens > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 0


async def test_a_stream_says_the_same_as_a_whole_answer(client):
    _, _, whole = await ask(client, chat())
    _, headers, stream = await ask(client, streamed())
    chunks = events(stream)

    assert headers["content-type"].startswith("text/event-stream")
    assert text_of(chunks) == json.loads(whole)["choices"][0]["message"]["content"]
    assert {chunk["system_fingerprint"] for chunk in chunks[:-1]} == {"simulated"}
    assert chunks[-1] == "[DONE]"


async def test_usage_comes_last_without_choices_where_it_is_asked_for(client):
    _, _, body = await ask(client, streamed(max_tokens=3))
    *others, last, done = events(body)

    assert done == "[DONE]"
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 3
    assert all(chunk["usage"] is None for chunk in others)
    assert others[-1]["choices"][0]["finish_reason"] == "length"


async def test_without_asking_a_stream_says_no_usage(client):
    _, _, body = await ask(client, streamed(usage=False))
    assert all("usage" not in chunk for chunk in events(body)[:-1])


async def test_streamed_choices_come_by_turns_and_each_ends(client):
    _, _, body = await ask(client, streamed(n=2, usage=False))
    choices = [chunk["choices"][0] for chunk in events(body)[:-1]]

    assert [choice["index"] for choice in choices[:6]] == [0, 1, 0, 1, 0, 1]
    assert [choice["finish_reason"] for choice in choices[-2:]] == ["stop", "stop"]


async def test_a_streamed_tool_call_is_put_together_from_its_deltas(client):
    parameters = {"type": "object", "properties": {"city": {"const": "Graz"}}}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    _, _, body = await ask(client, streamed(tools=tools, usage=False))
    first, *others, last = [chunk["choices"][0] for chunk in events(body)[:-1]]
    calls = [choice["delta"]["tool_calls"][0] for choice in others]

    assert first["delta"]["tool_calls"][0]["function"]["name"] == "weather"
    assert json.loads("".join(call["function"]["arguments"] for call in calls)) == {"city": "Graz"}
    assert len(calls) > 1
    assert last["finish_reason"] == "tool_calls"


async def test_the_journal_has_what_was_received_and_what_was_sent(client, simulator):
    sent = json.dumps(streamed(max_tokens=5)).encode()
    async with client.post("/v1/chat/completions", data=sent, headers={"X-Two": "a"}) as answer:
        body = await answer.read()
    end, [received] = await ended(simulator), simulator.journal.received()

    assert (received.request_id, received.model_name, received.streamed) == ("call-1", "gpt-4o", True)
    assert (received.method, received.path) == ("POST", "/v1/chat/completions")
    assert received.headers["authorization"] == "Bearer sk-simulated"
    assert received.headers["x-two"] == "a"
    assert received.body == sent
    assert received.body_sha256 == hashlib.sha256(sent).hexdigest()
    assert (end.number, end.request_id) == (received.number, "call-1")
    assert (end.status, end.sent_whole, end.client_gone, end.fault) == (200, True, False, None)
    assert end.bytes_sent == len(body)
    assert end.completion_tokens == end.usage.completion_tokens == 5
    assert end.prompt_tokens == end.usage.prompt_tokens == usages(events(body))[0]["prompt_tokens"]


async def test_bodies_are_not_kept_unless_asked_for(tmp_path):
    path = tmp_path / "journal.jsonl"
    async with running_simulator(journal=path) as simulator, aiohttp.ClientSession() as session:
        url, bearer = f"{simulator.base_url}/chat/completions", {"authorization": "Bearer x"}
        async with session.post(url, json=chat(text="secret of mine"), headers=bearer):
            await ended(simulator)
    assert b"secret of mine" not in path.read_bytes()
    assert path.read_bytes().count(b"\n") == 2


async def test_a_client_that_goes_in_mid_stream_is_on_the_journal_with_what_it_was_sent(client, simulator):
    simulator.script([Step(fault=Fault.SLOW_DRIP, pause_s=0.01)])
    async with client.post("/v1/chat/completions", json=streamed()) as answer:
        await answer.content.readuntil(b"\n\n")
        answer.close()
    line = await ended(simulator)

    assert (line.client_gone, line.sent_whole) == (True, False)
    assert line.bytes_sent > 0
    assert line.usage is None


async def test_a_client_that_goes_before_the_headers_is_on_the_journal(client, simulator):
    call = asyncio.create_task(ask(client, chat(Fault.SILENCE.model_name)))
    await simulator.journal.until(lambda journal: len(journal.received()) == 1)
    call.cancel()
    line = await ended(simulator)
    assert (line.client_gone, line.status, line.bytes_sent) == (True, None, 0)


async def test_an_answer_at_speed_takes_its_time_and_a_stream_comes_in_pieces():
    """At this speed a token takes 14 µs and the first one under a millisecond: paced, and quick."""
    bearer = {"authorization": "Bearer x"}
    async with running_simulator(speed=1000) as simulator, aiohttp.ClientSession(headers=bearer) as session:
        for body in (chat(), streamed()):
            async with session.post(f"{simulator.base_url}/chat/completions", json=body) as answer:
                assert answer.status == 200
                await answer.read()
        assert (await ended(simulator, 2)).sent_whole


async def test_model_names_are_listed(client):
    async with client.get("/v1/models") as answer:
        listed = await answer.json()
    names = {each["id"] for each in listed["data"]}
    assert {"gpt-4.1", "deepseek-v3.2", "fault-529"} <= names
    assert {each["owned_by"] for each in listed["data"]} == {"simulated"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/v1/chat/completions", b"{", 400, "invalid_request"),
        ("POST", "/v1/chat/completions", b"[]", 400, "invalid_request"),
        ("POST", "/v1/chat/completions", b'{"model": "gpt-4o"}', 400, "invalid_request"),
        ("POST", "/v1/chat/completions", json.dumps(chat("fault-of-mine")).encode(), 404, "model_not_found"),
        ("GET", "/v1/chat/completions", b"", 405, "method_not_allowed"),
        ("POST", "/v1/models", b"", 405, "method_not_allowed"),
        ("POST", "/v1/elsewhere", b"", 404, "unknown_url"),
        ("GET", "/control/elsewhere", b"", 404, "unknown_url"),
    ],
)
async def test_what_cannot_be_answered_is_refused_in_openais_shape(client, method, path, body, status, code):
    async with client.request(method, path, data=body) as answer:
        assert answer.status == status
        error = (await answer.json())["error"]
    assert error["code"] == code
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith("Simulated: ")


@pytest.mark.parametrize("authorization", [None, "Bearer anything", "Basic eDp5"])
async def test_everyone_is_accepted_where_no_api_key_is_set(simulator, authorization):
    headers = {"authorization": authorization} if authorization else {}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{simulator.base_url}/chat/completions", json=chat(), headers=headers) as answer,
    ):
        assert answer.status == 200


@pytest.mark.parametrize("authorization", [None, "Bearer", "Bearer ", "Bearer wrong", "Basic right"])
async def test_with_an_api_key_a_call_without_it_is_refused_and_journalled(authorization):
    headers = {"authorization": authorization} if authorization else {}
    async with running_simulator(api_key="right") as simulator:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{simulator.base_url}/chat/completions", json=chat(), headers=headers) as answer,
        ):
            assert answer.status == 401
            assert (await answer.json())["error"]["code"] == "invalid_api_key"
        assert (await ended(simulator)).status == 401


async def test_with_an_api_key_the_right_bearer_will_do_and_control_needs_it_too():
    async with running_simulator(api_key="right") as simulator, aiohttp.ClientSession() as session:
        control = simulator.base_url.replace("/v1", "/control/journal")
        for url in (f"{simulator.base_url}/models", control):
            for bearer, status in (("wrong", 401), ("right", 200)):
                async with session.get(url, headers={"authorization": f"Bearer {bearer}"}) as answer:
                    assert answer.status == status


async def test_a_script_is_set_and_forgotten_by_the_control_endpoint(client):
    async with client.post("/control/script", json=[{"fault": "503", "count": 2}, {"text": "Hi"}]) as answer:
        assert await answer.json() == {"steps": 2}
    assert (await ask(client, chat()))[0] == 503
    async with client.delete("/control/script") as answer:
        assert await answer.json() == {"steps": 0}
    assert (await ask(client, chat()))[0] == 200


async def test_a_script_that_cannot_be_read_is_refused_with_its_reason(client):
    async with client.post("/control/script", json=[{"fault": "no such"}]) as answer:
        assert answer.status == 400
        assert "fault" in (await answer.json())["error"]["message"]


async def test_the_journal_is_served_and_does_not_list_control_itself(client, simulator):
    await ask(client, chat())
    await ended(simulator)
    async with client.get("/control/journal") as answer:
        lines = [json.loads(line) for line in (await answer.text()).splitlines()]
    assert [line["event"] for line in lines] == ["received", "ended"]
    async with client.get("/control/journal") as answer:
        assert len((await answer.text()).splitlines()) == 2


async def test_a_delay_of_a_step_comes_before_the_headers(client, simulator):
    simulator.script([Step(delay_s=60)])
    call = asyncio.create_task(ask(client, chat()))
    await simulator.journal.until(lambda journal: len(journal.received()) == 1)
    assert (await ask(client, chat()))[0] == 200
    assert not call.done()
    call.cancel()
    await ended(simulator, 2)
