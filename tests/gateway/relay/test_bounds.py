"""What a call may at most cost, and how that is kept."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gateway.errors import InvalidCall, ParameterTooLarge
from gateway.relay import bounds
from gateway.relay.call import Call, understand
from gateway.relay.catalog import Price, Rates, Route, Target
from gateway.relay.pricing import cost_of, read
from gateway.relay.records import Usage
from gateway.relay.tokenizer import SaidSoFar, tokens_of_prompt

CHEAP = Price(1, 0, Rates(100, 50, 400))


def call_of(content="Hello", **fields) -> Call:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": content}], **fields}
    return understand(json.dumps(body).encode(), time.monotonic())


def route(**fields) -> Route:
    return Route("gpt-4o", (target(),), **fields)


def target(**fields) -> Target:
    return Target(1, "openai", "http://127.0.0.1:1", "gpt-4o", None, **fields)


def image(size: int) -> dict:
    return {"type": "image_url", "image_url": {"url": "data:," + "x" * size}}


def test_of_two_bounds_the_larger_counts_because_providers_heed_one_or_the_other():
    assert call_of(max_tokens=9, max_completion_tokens=4).bound == 9
    assert call_of(max_tokens=4, max_completion_tokens=9).bound == 9
    assert call_of().bound is None


def test_the_bound_is_for_each_choice():
    assert call_of(max_tokens=9, n=3).max_tokens == 27
    assert call_of(max_tokens=9, n=0).max_tokens == 9


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 101}, "max_tokens"),
        ({"max_completion_tokens": 101}, "max_completion_tokens"),
        ({"n": 5}, "n"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ],
)
def test_a_call_that_asks_for_more_than_its_route_allows_is_refused(fields, param):
    with pytest.raises(ParameterTooLarge) as why:
        bounds.check(call_of(**fields), route(max_tokens=100, max_choices=4))
    assert (why.value.status, why.value.param) == (400, param)
    most = call_of(max_tokens=100, n=4, logprobs=True, top_logprobs=20)
    bounds.check(most, route(max_tokens=100, max_choices=4))


def test_a_call_without_a_bound_gets_the_routes():
    assert bounds.filled(call_of(), route(usual_max_tokens=70))["max_tokens"] == Raw(b"70")
    assert bounds.filled(call_of(max_tokens=3), route())["max_tokens"] == Raw(b"3")


def test_the_routes_bound_alone_makes_no_call_too_long_for_a_small_window():
    small = Route("gpt-4o", (target(context_window=1000),), usual_max_tokens=4096)
    assert bounds.usual_bound(small) == 500


def test_what_is_no_text_is_counted_whatever_it_is_called():
    seen = bounds.media_of(call_of([{"type": "text", "text": "what is this?"}, image(50)]).fields)
    assert seen.count == 1
    assert seen.size_bytes > 50
    hidden = json.dumps([{"role": "user", "content": [image(1)]}]).replace("image_url", "\\u0069mage_url")
    assert bounds.media_of({"messages": Raw(hidden.encode())}).count == 1
    assert bounds.media_of({"messages": Raw(b'[{"content": [{"type": "new_thing"}]}]')}).count == 1
    assert bounds.media_of(call_of("only words").fields) == bounds.NO_MEDIA


@pytest.mark.parametrize("kind", ["input_text", "thinking", "new_thing", None])
def test_what_may_be_text_under_another_name_counts_by_its_bytes_too(kind):
    part = {"text": "word " * 1000} | ({} if kind is None else {"type": kind})
    call = call_of([part], max_tokens=10)
    worst = bounds.worst(call.fields, 10, target(media_tokens=100), bounds.media_of(call.fields))
    assert worst.input_tokens > 5000 + 100


def test_a_part_that_says_not_what_it_is_may_be_an_image():
    untyped = {"image_url": "https://example.com/large.png"}
    assert bounds.media_of(call_of([untyped]).fields).count == 1


def test_the_sound_of_an_earlier_answer_counts_as_a_recording():
    spoken = [{"role": "assistant", "audio": {"id": "audio_1"}}, {"role": "user", "audio": None}]
    assert bounds.media_of({"messages": Raw(json.dumps(spoken).encode())}).count == 1


@pytest.mark.parametrize("fields", [{"max_tokens": -1}, {"max_tokens": 0}, {"max_completion_tokens": -1}])
def test_a_bound_below_one_is_refused_because_some_servers_take_it_for_none(fields):
    [name] = fields
    for others in ({}, {"max_tokens": 5}, {"max_completion_tokens": 5}):
        with pytest.raises(InvalidCall, match="at least 1") as why:
            bounds.check(call_of(**(others | fields)), route())
        assert (why.value.status, why.value.param) == (400, name)


@pytest.mark.parametrize(
    "messages", [b'[{"content": 7}]', b'[{"content": {"a": 1}}]', b"[[]]", b'[{"content": ["a"]}]']
)
def test_messages_whose_parts_cannot_be_told_are_refused_where_they_must_be(messages):
    with pytest.raises(InvalidCall, match="hard quota"):
        bounds.media_of({"messages": Raw(messages)})


def test_an_image_counts_as_its_target_says_and_not_by_its_bytes():
    call = call_of([image(100_000)], max_tokens=10)
    media = bounds.media_of(call.fields)
    worst = bounds.worst(call.fields, call.max_tokens, target(media_tokens=1500), media)
    assert 1500 < worst.input_tokens < 1700
    assert worst.output_tokens == 10


@given(st.text(max_size=400), st.integers(1, 1000))
def test_no_prompt_has_more_tokens_than_its_worst_case(text, max_tokens):
    call = call_of(text, max_tokens=max_tokens)
    worst = bounds.worst(call.fields, call.max_tokens, target(), bounds.NO_MEDIA)
    assert tokens_of_prompt(call.fields, "gpt-4o") <= worst.input_tokens
    assert worst.output_tokens == max_tokens


def test_at_worst_every_token_of_the_prompt_has_its_dearest_price():
    million = Usage(1_000_000, 1_000_000)
    assert bounds.worst_cost_nanos(million, Price(1, 0, Rates(100, 50, 400))) == 500
    assert bounds.worst_cost_nanos(million, Price(1, 0, Rates(100, 125, 400))) == 525
    assert bounds.worst_cost_nanos(million, None) == 0


def test_a_prompt_that_was_held_at_worst_leaves_something_for_the_answer():
    held = Usage(1000, 50)
    assert bounds.spare_tokens(held, 200, Price(1, 0, Rates(100, 100, 400))) == 200
    assert bounds.spare_tokens(held, 200, Price(1, 0, Rates(100, 100, 100))) == 800
    assert bounds.spare_tokens(held, 1200, CHEAP) == 0


def heard(*texts: str) -> SaidSoFar:
    said = SaidSoFar()
    for each in texts:
        said.add(json.dumps(each).encode())
    return said


def test_a_stream_is_cut_at_the_first_piece_past_what_is_held():
    said = SaidSoFar()
    allowance = bounds.Allowance(100, said, "gpt-4o", lambda: 0)
    passed = []
    for _ in range(120):
        said.add(b'" word"')
        passed.append(allowance.is_passed())
    assert passed.index(True) == 100


def test_what_the_prompt_left_over_lets_an_answer_go_on():
    said = heard(*[" word"] * 110)
    assert bounds.Allowance(100, said, "gpt-4o", lambda: 0).is_passed()
    assert not bounds.Allowance(100, said, "gpt-4o", lambda: 10).is_passed()
    assert bounds.Allowance(100, said, "gpt-4o", lambda: 9).is_passed()


@given(st.lists(st.text(min_size=1, max_size=12), max_size=60), st.integers(1, 60), st.integers(0, 20))
def test_counting_seldom_finds_what_counting_always_finds(texts, most, spare):
    said = SaidSoFar()
    allowance = bounds.Allowance(most, said, "gpt-4o", lambda: spare)
    for text in texts:
        said.add(json.dumps(text).encode())
        is_over = said.tokens("gpt-4o") > most + spare
        assert allowance.is_passed() == is_over
        if is_over:
            return


def test_the_price_of_the_worst_case_explains_its_cost() -> None:
    price = Price(1, 0, Rates(100, 50, 400, reasoning_nanos=900), (Rates(200, 100, 800, above_tokens=10),), 7)
    worst = Usage(1_000_000, 1_000_000, 0, "estimated")
    how = read(bounds.worst_told(worst, price))
    assert how is not None
    assert cost_of(worst, how) == bounds.worst_cost_nanos(worst, price) == 200 + 900 + 7
