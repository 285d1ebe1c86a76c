"""The official `openai` SDK, sync and async, takes the gateway for OpenAI: answers, streams and errors."""

import asyncio
import contextlib
import json
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import openai
import pydantic
import pytest

from gateway.simulator import Fault, RunningSimulator, Step
from tests.served import Served, eventually, free_port, provider_of, serve
from tests.system.books import with_dashes
from tests.system.conftest import simulator_in_a_thread
from tests.system.raw import Wire, request

MODEL_NAMES = tuple(f"gpt-4o-{number}" for number in range(150))
"""One for each test: what a target did in one test is remembered by its breaker in the next."""
TOKENS_BEFORE_THE_CUT = 60
"""So many that the first of them have left the gateway when the last one comes."""
LONG = "down the river " * 60
MESSAGES = [{"role": "user", "content": "How deep is the river at the gate?"}]
ENTRY = "SELECT outcome, status, code, usage_basis, output_tokens FROM gateway_entry WHERE tags LIKE ?"
CALL_ID = "SELECT call_id FROM gateway_entry WHERE tags LIKE ?"
ATTEMPTS = (
    "SELECT attempt.outcome FROM gateway_attempt attempt JOIN gateway_entry entry"
    " ON attempt.entry_id = entry.call_id WHERE entry.tags LIKE ? ORDER BY attempt.attempt_no"
)
TOO_LONG_S = 90
"""A wait that is not taken for a client, so it is told of it."""
SHORT_S = 1.5
"""A client's patience: a call reaches the provider within it, and no silence is too long for the gateway."""
NARROW = """
from accounts.changes import note_change
from gateway.models import Target
assert Target.objects.filter(upstream_model="{name}").update(max_concurrency=1, max_waiting=0) == 1
note_change()
"""
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"const": "Graz"}}, "required": ["city"]},
    },
}


class Depth(pydantic.BaseModel):
    """What a caller wants an answer parsed into."""

    river: str
    metres: float


class Blocking:
    """The SDK's usual client."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def create(self, **asked: Any) -> Any:
        with openai.OpenAI(**self.options) as sdk:
            return sdk.chat.completions.create(**asked)

    def stream(self, **asked: Any) -> list[Any]:
        with openai.OpenAI(**self.options) as sdk:
            return list(sdk.chat.completions.create(**asked, stream=True))

    def parse(self, **asked: Any) -> Any:
        with openai.OpenAI(**self.options) as sdk:
            return sdk.chat.completions.parse(**asked)

    def put_together(self, **asked: Any) -> Any:
        with openai.OpenAI(**self.options) as sdk, sdk.chat.completions.stream(**asked) as stream:
            return stream.get_final_completion()

    def model_names(self) -> list[str]:
        with openai.OpenAI(**self.options) as sdk:
            return [each.id for each in sdk.models.list()]

    def retrieve(self, name: str) -> Any:
        with openai.OpenAI(**self.options) as sdk:
            return sdk.models.retrieve(name)


class Async:
    """The SDK's async client, with the same face."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def create(self, **asked: Any) -> Any:
        async def run() -> Any:
            async with openai.AsyncOpenAI(**self.options) as sdk:
                return await sdk.chat.completions.create(**asked)

        return asyncio.run(run())

    def stream(self, **asked: Any) -> list[Any]:
        async def run() -> list[Any]:
            async with openai.AsyncOpenAI(**self.options) as sdk:
                return [each async for each in await sdk.chat.completions.create(**asked, stream=True)]

        return asyncio.run(run())

    def parse(self, **asked: Any) -> Any:
        async def run() -> Any:
            async with openai.AsyncOpenAI(**self.options) as sdk:
                return await sdk.chat.completions.parse(**asked)

        return asyncio.run(run())

    def put_together(self, **asked: Any) -> Any:
        async def run() -> Any:
            async with (
                openai.AsyncOpenAI(**self.options) as sdk,
                sdk.chat.completions.stream(**asked) as stream,
            ):
                return await stream.get_final_completion()

        return asyncio.run(run())

    def model_names(self) -> list[str]:
        async def run() -> list[str]:
            async with openai.AsyncOpenAI(**self.options) as sdk:
                return [each.id async for each in sdk.models.list()]

        return asyncio.run(run())

    def retrieve(self, name: str) -> Any:
        async def run() -> Any:
            async with openai.AsyncOpenAI(**self.options) as sdk:
                return await sdk.models.retrieve(name)

        return asyncio.run(run())


@dataclass
class House:
    """One gateway and its provider, for all tests here: a start takes seconds."""

    served: Served
    upstream: RunningSimulator
    model_names: Iterator[str] = field(default_factory=lambda: iter(MODEL_NAMES))
    """Those that no test has used."""

    def client(self, kind: type[Blocking] | type[Async], **options: Any) -> Any:
        """One whose every call is marked, so that its entry can be found though no answer came."""
        mark = uuid.uuid4().hex
        given = {
            "base_url": self.served.base_url,
            "api_key": self.served.api_key,
            "max_retries": 0,
            "timeout": 30.0,
            "default_headers": {"X-Penstock-Tags": f"mark={mark}"},
        }
        client = kind(**{**given, **options})
        client.mark = mark
        return client

    def entry_of(self, client: Any) -> dict[str, Any]:
        """The one entry of this client's one call."""
        [row] = eventually(lambda: self.served.rows(ENTRY, f"%{client.mark}%"), what="an entry")
        return dict(zip(("outcome", "status", "code", "basis", "output_tokens"), row, strict=True))

    def call_id_of(self, client: Any) -> str:
        """Of the one call of this client, once it is on the books; the provider heard it too."""
        [(call_id,)] = eventually(lambda: self.served.rows(CALL_ID, f"%{client.mark}%"), what="an entry")
        return with_dashes(call_id)

    def attempts_of(self, client: Any) -> list[str]:
        """The outcomes of that call's attempts, in order."""
        self.entry_of(client)
        return [outcome for (outcome,) in self.served.rows(ATTEMPTS, f"%{client.mark}%")]

    def narrow(self, name: str) -> None:
        """Leave this model name's target one place, and no room to wait for it."""
        self.served.manage("shell", "--no-imports", "-c", NARROW.format(name=name))
        eventually(lambda: self.figure("penstock_gate_places", name) == 1, what="the change")

    @contextlib.contextmanager
    def holding_the_place(self, name: str) -> Iterator[None]:
        """A call is under way, and goes away at the end."""
        body = json.dumps({"model": name, "messages": MESSAGES}).encode()
        head = (
            b"Host: localhost",
            b"Authorization: Bearer " + self.served.api_key.encode(),
            b"Content-Type: application/json",
            b"Content-Length: %d" % len(body),
        )
        with Wire(self.served.port) as wire:
            wire.say(request(b"POST /v1/chat/completions HTTP/1.1", *head, body=body))
            eventually(lambda: self.figure("penstock_gate_in_use", name) == 1, what="the call")
            yield

    def figure(self, sample: str, name: str) -> float | None:
        """One of the gateway's own figures about this model name's target."""
        return self.served.figure(sample, route=name)

    def next_answers(self, *steps: Step) -> None:
        self.upstream.forget_script()
        self.upstream.script(steps)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("sdk")
    with simulator_in_a_thread(folder / "upstream.jsonl", speed=20) as upstream:
        provider = provider_of(upstream.base_url, *MODEL_NAMES)
        with serve(folder / "var", {"read_timeout_s": 2 * SHORT_S}, **provider) as served:
            yield House(served, upstream)


@pytest.fixture(params=[Blocking, Async])
def kind(request: pytest.FixtureRequest) -> type[Blocking] | type[Async]:
    return request.param


@pytest.fixture
def client(house: House, kind: type[Blocking] | type[Async]) -> Any:
    house.upstream.forget_script()
    return house.client(kind)


@pytest.fixture
def asked(house: House) -> Callable[..., dict[str, Any]]:
    """What is asked of a model name, and so of a target, of the test's own."""
    name = next(house.model_names)

    def fields(**more: Any) -> dict[str, Any]:
        return {"model": name, "messages": MESSAGES, **more}

    return fields


def text_of(chunks: list[Any]) -> str:
    return "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)


def test_a_whole_answer(house, asked, client):
    answer = client.create(**asked(max_tokens=4))

    assert answer.choices[0].message.content.startswith("Simulated")
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 4
    assert house.entry_of(client) == {
        "outcome": "answered", "status": 200, "code": "", "basis": "reported", "output_tokens": 4,
    }  # fmt: skip


def test_a_stream_says_what_the_whole_answer_says(house, asked, client):
    whole = client.create(**asked()).choices[0].message.content

    chunks = client.stream(**asked())

    assert text_of(chunks) == whole
    assert len(chunks) > 3, "in pieces"


def test_usage_of_a_stream_comes_when_it_is_asked_for(house, asked, client):
    chunks = client.stream(**asked(stream_options={"include_usage": True}))

    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == house.entry_of(client)["output_tokens"]
    assert chunks[-1].usage.total_tokens > chunks[-1].usage.completion_tokens


@pytest.mark.parametrize("options", [None, {"include_usage": False}])
def test_usage_of_a_stream_stays_here_when_nobody_asked(house, client, asked, options):
    chunks = client.stream(**asked() if options is None else asked(stream_options=options))

    assert all(each.usage is None for each in chunks)
    assert all(each.choices for each in chunks)
    assert house.entry_of(client)["basis"] == "reported", "we asked for ourselves"


def test_a_tool_is_called(house, asked, client):
    answer = client.create(**asked(tools=[WEATHER], tool_choice="auto"))

    [call] = answer.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Graz"})
    assert answer.choices[0].finish_reason == "tool_calls"


def test_a_streamed_tool_call_is_put_together(house, asked, client):
    answer = client.put_together(**asked(tools=[WEATHER]))

    [call] = answer.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Graz"}


def test_a_tools_result_goes_back(house, asked, client):
    call = client.create(**asked(tools=[WEATHER])).choices[0].message
    result = {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "rain"}

    answer = client.create(**asked(messages=[*MESSAGES, call, result], tools=[WEATHER]))

    assert answer.choices[0].message.content


def test_an_answer_is_parsed_into_a_class(house, asked, client):
    answer = client.parse(**asked(response_format=Depth))

    assert isinstance(answer.choices[0].message.parsed, Depth)


def test_a_json_schema_is_kept_to(house, asked, client):
    schema = {"name": "depth", "strict": True, "schema": Depth.model_json_schema()}

    answer = client.create(**asked(response_format={"type": "json_schema", "json_schema": schema}))

    assert Depth.model_validate_json(answer.choices[0].message.content)


def test_several_choices(house, asked, client):
    whole = client.create(**asked(n=3, max_tokens=5))
    chunks = client.stream(**asked(n=3, max_tokens=5))

    assert [each.index for each in whole.choices] == [0, 1, 2]
    assert {each.choices[0].index for each in chunks} == {0, 1, 2}


def test_model_names_are_listed_and_retrieved(house, client):
    assert set(MODEL_NAMES) <= set(client.model_names())
    assert client.retrieve(MODEL_NAMES[0]).id == MODEL_NAMES[0]


def test_an_unknown_model_name_cannot_be_retrieved(house, client):
    with pytest.raises(openai.NotFoundError):
        client.retrieve("gpt-of-next-year")


def test_a_wrong_key_is_an_authentication_error(house, asked, kind):
    with pytest.raises(openai.AuthenticationError) as raised:
        house.client(kind, api_key="sk-not-one-of-ours").create(**asked())

    assert raised.value.code == "invalid_api_key"


def test_an_unknown_model_name_is_a_not_found_error(house, asked, client):
    with pytest.raises(openai.NotFoundError) as raised:
        client.create(**asked(model="gpt-of-next-year"))

    assert raised.value.code == "model_not_found"


@pytest.mark.parametrize("stream", [False, True])
def test_messages_that_are_none_are_a_bad_request_error(house, client, asked, stream):
    with pytest.raises(openai.BadRequestError) as raised:
        client.create(**asked(messages="hello", stream=stream))

    assert raised.value.param == "messages"


def test_messages_that_the_provider_finds_wrong_are_a_bad_request_error(house, asked, client):
    with pytest.raises(openai.BadRequestError) as raised:
        client.create(**asked(messages=[]))

    assert "Simulated" in raised.value.message, "the provider's own words"
    assert house.entry_of(client)["outcome"] == "rejected"


@pytest.mark.parametrize("stream", [False, True])
def test_a_throttling_provider_is_a_rate_limit_error_that_says_when_to_come_back(
    house, client, asked, stream
):
    house.next_answers(Step(fault=Fault.THROTTLED_SECONDS, retry_after_s=TOO_LONG_S))

    with pytest.raises(openai.RateLimitError) as raised:
        client.create(**asked(stream=stream))

    assert raised.value.response.headers["retry-after"] == str(TOO_LONG_S)
    assert house.entry_of(client)["code"] == "upstream_throttled"


@pytest.mark.parametrize("fault", [Fault.THROTTLED_DATE, Fault.THROTTLED_MS])
def test_every_spelling_of_retry_after_passes(house, client, asked, fault):
    house.next_answers(Step(fault=fault, retry_after_s=TOO_LONG_S))

    with pytest.raises(openai.RateLimitError) as raised:
        client.create(**asked())

    assert TOO_LONG_S - 10 <= int(raised.value.response.headers["retry-after"]) <= TOO_LONG_S + 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_provider_that_soon_takes_calls_again_is_asked_again_unseen(house, client, asked, stream):
    house.next_answers(
        Step(fault=Fault.THROTTLED_MS, retry_after_s=0.02),
        Step(fault=Fault.THROTTLED_MS, retry_after_s=0.02),
    )

    answer = (client.stream if stream else client.create)(**asked())

    assert answer
    assert house.entry_of(client)["outcome"] == "answered"
    assert house.attempts_of(client) == ["failed", "failed", "answered"]


def test_the_sdk_does_not_multiply_our_retries(house, kind, asked):
    """It would come back twice by itself, with three attempts each time."""
    house.next_answers(Step(fault=Fault.SERVER_ERROR, count=None))
    client = house.client(kind, max_retries=2)

    with pytest.raises(openai.InternalServerError) as raised:
        client.create(**asked())

    assert raised.value.response.headers["x-should-retry"] == "false"
    assert house.entry_of(client)["outcome"] == "failed"
    assert house.attempts_of(client) == ["failed", "failed", "failed"]


def test_the_sdk_comes_back_by_itself_when_told_to(house, asked):
    """After a refusal of ours, for which no provider was asked: the target's one place is taken."""
    name = asked()["model"]
    house.narrow(name)
    house.next_answers(Step(fault=Fault.SILENCE))
    client = house.client(Blocking, max_retries=3)
    with ThreadPoolExecutor(1) as threads:
        with house.holding_the_place(name):
            answer = threads.submit(client.create, **asked())
            eventually(lambda: house.figure("penstock_gate_refused_total", name), what="the refusal")
        assert answer.result(20).choices
    assert house.attempts_of(client) == ["answered"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fault",
    [
        Fault.SERVER_ERROR,
        Fault.UNAVAILABLE,
        Fault.OVERLOADED,
        Fault.UNAUTHORIZED,
        Fault.RESET_BEFORE_HEADERS,
        Fault.GARBAGE_HTML,
    ],
)
def test_a_failing_provider_is_an_internal_server_error(house, client, asked, fault, stream):
    """Where it can, it says that it is to be left alone: retries are not what this is about."""
    house.next_answers(Step(fault=fault, retry_after=str(TOO_LONG_S), count=None))

    with pytest.raises(openai.InternalServerError):
        client.create(**asked(stream=stream))

    assert house.entry_of(client)["outcome"] == "failed"
    assert set(house.attempts_of(client)) == {"failed"}


@pytest.mark.parametrize("fault", [Fault.GARBAGE_JSON, Fault.CLOSE_MID_STREAM, Fault.RESET_AFTER_HEADERS])
def test_half_an_answer_is_an_internal_server_error(house, client, asked, fault):
    house.next_answers(Step(fault=fault, count=None))

    with pytest.raises(openai.InternalServerError):
        client.create(**asked())

    assert house.entry_of(client)["outcome"] == "failed"
    assert set(house.attempts_of(client)) == {"failed"}


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_whose_patience_ends_has_a_timeout_error_and_the_provider_is_let_go(
    house, kind, asked, stream
):
    house.next_answers(Step(fault=Fault.SILENCE))
    client = house.client(kind, timeout=SHORT_S)

    with pytest.raises(openai.APITimeoutError):
        client.create(**asked(stream=stream))

    assert house.entry_of(client)["outcome"] == "hung_up"
    call_id = house.call_id_of(client)
    [ended] = eventually(
        lambda: [each for each in house.upstream.journal.ended() if each.request_id == call_id],
        what="the end of the provider's connection",
    )
    assert ended.client_gone
    assert ended.bytes_sent == 0


def test_nobody_there_is_a_connection_error(house, asked, kind):
    with pytest.raises(openai.APIConnectionError):
        house.client(kind, base_url=f"http://127.0.0.1:{free_port()}/v1").create(**asked())


@pytest.mark.parametrize(
    "fault",
    [
        Fault.TRUNCATED,
        Fault.CLOSE_MID_STREAM,
        Fault.RESET_MID_STREAM,
        Fault.ERROR_EVENT,
        Fault.STALL,
    ],
)
def test_a_stream_that_is_cut_raises_and_is_truncated_on_the_books(house, client, asked, fault):
    house.next_answers(Step(fault=fault, text=LONG, after_tokens=TOKENS_BEFORE_THE_CUT))

    with pytest.raises(openai.APIError):
        client.stream(**asked())

    entry = house.entry_of(client)
    assert (entry["outcome"], entry["status"], entry["basis"]) == ("truncated", 200, "estimated")
    assert 0 < entry["output_tokens"] <= TOKENS_BEFORE_THE_CUT, "what was handed on, one event a token"


def test_a_stream_of_garbage_raises(house, asked, client):
    house.next_answers(Step(fault=Fault.GARBAGE_SSE))

    with pytest.raises(openai.APIError):
        client.stream(**asked())

    assert house.entry_of(client)["outcome"] in ("failed", "truncated")


@pytest.mark.parametrize("fault", [Fault.TRUNCATED, Fault.ERROR_EVENT])
def test_what_came_before_the_cut_arrived(house, asked, fault):
    """The error is the stream's last event, not a broken connection that takes what was sent with it."""
    house.next_answers(Step(fault=fault, text=LONG, after_tokens=TOKENS_BEFORE_THE_CUT))
    chunks: list[Any] = []

    def read(stream: Any) -> None:
        for chunk in stream:
            chunks.append(chunk)  # noqa: PERF402 - a list made at once would be lost with the error

    with openai.OpenAI(**house.client(Blocking).options) as sdk, pytest.raises(openai.APIError):
        read(sdk.chat.completions.create(**asked(), stream=True))

    assert len([each for each in chunks if each.choices[0].delta.content]) == TOKENS_BEFORE_THE_CUT
