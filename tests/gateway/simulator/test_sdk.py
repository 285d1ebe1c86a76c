"""The official SDK takes the simulator for OpenAI."""

import openai
import pytest

from gateway.simulator import Fault
from tests.gateway.simulator.helpers import chat


@pytest.fixture
async def sdk(simulator):
    async with openai.AsyncOpenAI(
        base_url=simulator.base_url, api_key="sk-any", max_retries=0, timeout=10
    ) as client:
        yield client


async def test_the_sdk_reads_a_whole_answer(sdk):
    answer = await sdk.chat.completions.create(**chat(), max_tokens=4)
    assert answer.system_fingerprint == "simulated"
    assert answer.choices[0].message.content.startswith("Simulated answer")
    assert answer.usage.completion_tokens == 4


async def test_the_sdk_reads_a_stream(sdk):
    stream = await sdk.chat.completions.create(**chat(), stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].usage.completion_tokens == len(
        [c for c in chunks if c.choices and c.choices[0].delta.content]
    )


async def test_the_sdk_puts_a_streamed_tool_call_together(sdk):
    parameters = {"type": "object", "properties": {"city": {"const": "Graz"}}}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    async with sdk.chat.completions.stream(**chat(), tools=tools) as stream:
        answer = await stream.get_final_completion()
    assert answer.choices[0].message.tool_calls[0].function.arguments == '{"city":"Graz"}'


async def test_the_sdk_lists_model_names(sdk):
    assert "gpt-4o-mini" in {model.id async for model in sdk.models.list()}


@pytest.mark.parametrize(
    ("fault", "exception"),
    [
        (Fault.BAD_REQUEST, openai.BadRequestError),
        (Fault.UNAUTHORIZED, openai.AuthenticationError),
        (Fault.FORBIDDEN, openai.PermissionDeniedError),
        (Fault.NOT_FOUND, openai.NotFoundError),
        (Fault.UNPROCESSABLE, openai.UnprocessableEntityError),
        (Fault.THROTTLED_SECONDS, openai.RateLimitError),
        (Fault.OVERLOADED, openai.InternalServerError),
        (Fault.RESET_BEFORE_HEADERS, openai.APIConnectionError),
    ],
)
async def test_a_fault_raises_the_exception_that_is_its_own(sdk, fault, exception):
    with pytest.raises(exception):
        await sdk.chat.completions.create(**chat(fault.model_name))
