"""What is said, and how many tokens it is."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.simulator import Fault, Step
from gateway.simulator.answers import compose, decode_request, tokens_of
from gateway.simulator.script import GOOD_ANSWER
from tests.gateway.simulator.helpers import chat

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 2}},
        },
    },
}
CLOCK = {
    "type": "function",
    "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}},
}


def answer(step=GOOD_ANSWER, **fields):
    request = decode_request(json.dumps(chat(**fields)).encode())
    return compose(request, step, number=1, created_at_s=0)


def text(composed, index=0):
    return "".join(composed.choices[index].tokens)


@given(st.text())
def test_tokens_joined_again_are_the_text(text):
    assert "".join(tokens_of(text)) == text


def test_the_same_prompt_gets_the_same_answer_and_another_prompt_another():
    assert text(answer(text="one")) == text(answer(text="one"))
    assert text(answer(text="one")) != text(answer(text="two"))
    assert text(answer(text="one")) != text(answer(text="one", model_name="gpt-4o-mini"))


def test_it_echoes_the_prompt_and_says_that_it_is_simulated():
    assert text(answer(text="why?")).startswith('Simulated answer to "why?": ')


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_a_limit_of_tokens_is_kept(limit):
    cut = answer(**{limit: 3})
    assert len(cut.choices[0].tokens) == 3
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage.completion_tokens == 3


def test_below_its_limit_an_answer_stops_by_itself():
    assert answer(max_tokens=10_000).choices[0].finish_reason == "stop"


@pytest.mark.parametrize("stop", ["answer", ["never said", "answer"]])
def test_it_stops_before_a_stop_sequence(stop):
    assert text(answer(stop=stop)) == "Simulated "


def test_n_choices_differ_and_all_are_counted():
    several = answer(n=3)
    assert len({text(several, index) for index in range(3)}) == 3
    assert several.usage.completion_tokens == sum(len(choice.tokens) for choice in several.choices)


def test_prompt_tokens_follow_the_text_of_every_message():
    def prompt_tokens(text):
        return answer(text=text).usage.prompt_tokens

    assert prompt_tokens("x" * 400) == prompt_tokens("") + 100
    assert prompt_tokens([{"type": "text", "text": "x" * 400}, {"type": "image_url"}]) == prompt_tokens(
        "x" * 400
    )


def test_a_long_prompt_counts_its_first_half_as_cached():
    assert answer(text="x" * 1000).usage.cached_tokens == 0
    assert answer(text="x" * 10_240).usage.cached_tokens == 1280


def test_tools_are_answered_with_a_call_of_the_first():
    choice = answer(tools=[WEATHER, CLOCK]).choices[0]
    assert (choice.tool_name, choice.finish_reason) == ("weather", "tool_calls")
    arguments = json.loads("".join(choice.tokens))
    assert isinstance(arguments["city"], str)
    assert arguments["days"] == 2


def test_the_tool_that_is_asked_for_is_called():
    choice = {"type": "function", "function": {"name": "clock"}}
    assert answer(tools=[WEATHER, CLOCK], tool_choice=choice).choices[0].tool_name == "clock"


def test_no_tool_is_called_where_none_is_wanted_or_its_result_is_there():
    request = chat(tools=[WEATHER])
    request["messages"].append({"role": "tool", "tool_call_id": "call_1", "content": "sunny"})
    after_result = compose(decode_request(json.dumps(request).encode()), Step(), 1, 0)

    assert answer(tools=[WEATHER], tool_choice="none").choices[0].tool_name is None
    assert after_result.choices[0].tool_name is None


def test_json_is_answered_where_json_is_asked_for():
    assert json.loads(text(answer(response_format={"type": "json_object"})))["simulated"] is True


def test_a_document_fits_the_schema_that_came_with_the_request():
    schema = {"type": "object", "properties": {"depth_m": {"type": "number"}}, "required": ["depth_m"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "depth", "schema": schema}}
    assert isinstance(json.loads(text(answer(response_format=wanted)))["depth_m"], float)


def test_a_step_says_text_and_usage():
    told = answer(Step(text="Hello there", prompt_tokens=9, completion_tokens=2, cached_tokens=4))
    assert text(told) == "Hello there"
    assert msgspec.structs.astuple(told.usage) == (9, 2, 4)


def test_usage_is_zero_where_the_step_wants_that():
    assert msgspec.structs.astuple(answer(Step(fault=Fault.USAGE_ZERO)).usage) == (0, 0, 0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"model": 3}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 0}, ".n"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
    ],
)
def test_a_request_that_cannot_be_understood_says_where(wrong, said):
    with pytest.raises(msgspec.DecodeError, match=said):
        decode_request(json.dumps({**chat(), **wrong}).encode())
