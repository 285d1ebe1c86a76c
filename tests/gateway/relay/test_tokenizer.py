import json
import random
import string
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from rs_bpe import openai

from gateway.relay import tokenizer
from gateway.relay.tokenizer import (
    EXACT_BYTES,
    MOST_MESSAGES,
    MOST_SAID_BYTES,
    PART_TOKENS,
    Counts,
    SaidSoFar,
)

# The example of OpenAI's cookbook, "How to count tokens with tiktoken", which the API counted as 129
# tokens for gpt-3.5-turbo-0613 and gpt-4-0613.
JARGON = [
    {
        "role": "system",
        "content": "You are a helpful, pattern-following assistant that translates corporate jargon into "
        "plain English.",
    },
    {
        "role": "system",
        "name": "example_user",
        "content": "New synergies will help drive top-line growth.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Things working well together will increase revenue.",
    },
    {
        "role": "system",
        "name": "example_user",
        "content": "Let's circle back when we have more bandwidth to touch base on opportunities for "
        "increased leverage.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Let's talk later when we're less busy about how to do better.",
    },
    {
        "role": "user",
        "content": "This late pivot means we don't have time to boil the ocean for the client deliverable.",
    },
]
# Its example of tools, which the API counted as 101 tokens for gpt-4o.
WEATHER = [
    {
        "role": "system",
        "content": "You are a helpful assistant that can answer to questions about the weather.",
    },
    {"role": "user", "content": "What's the weather like in San Francisco?"},
]
WEATHER_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_current_weather",
            "description": "Get the current weather in a given location",
            "parameters": {
                "type": "object",
                "properties": {
                    "location": {
                        "type": "string",
                        "description": "The city and state, e.g. San Francisco, CA",
                    },
                    "unit": {
                        "type": "string",
                        "description": "The unit of temperature to return",
                        "enum": ["celsius", "fahrenheit"],
                    },
                },
                "required": ["location"],
            },
        },
    }
]
ENGLISH = "The quick brown fox jumps over the lazy dog, once more, and naïvely so. "


def raw(value: object) -> Raw:
    return Raw(json.dumps(value, separators=(",", ":")).encode())


def said(*pieces: object) -> SaidSoFar:
    found = SaidSoFar()
    for piece in pieces:
        found.add(json.dumps(piece).encode())
    return found


@pytest.mark.parametrize(
    ("text", "older", "newer"),
    [
        ("", 0, 0),
        ("hello world", 2, 2),
        ("tiktoken is great!", 6, 6),
        ("antidisestablishmentarianism", 6, 6),
        ("2 + 2 = 4", 7, 7),
        ("お誕生日おめでとう", 9, 8),
    ],
)
def test_the_cookbooks_examples_are_counted_as_there(text: str, older: int, newer: int) -> None:
    assert tokenizer.count(text, "gpt-4") == older
    assert tokenizer.count(text, "gpt-4o") == newer


@pytest.mark.parametrize(
    ("upstream_model", "tokens"),
    [
        ("gpt-4", 9),
        ("gpt-4-turbo-2024-04-09", 9),
        ("gpt-3.5-turbo", 9),
        ("gpt-35-turbo", 9),
        ("openai/gpt-4", 9),
        ("ft:gpt-3.5-turbo-0125:team::id", 9),
        ("text-embedding-3-small", 9),
        ("gpt-4o", 8),
        ("gpt-4.1-mini", 8),
        ("gpt-4.5-preview", 8),
        ("chatgpt-4o-latest", 8),
        ("openai/gpt-4o-mini", 8),
        ("gpt-5", 8),
        ("o3-mini", 8),
        ("deepseek-chat", 8),
        ("", 8),
    ],
)
def test_the_vocabulary_goes_by_the_upstream_model(upstream_model: str, tokens: int) -> None:
    assert tokenizer.count("お誕生日おめでとう", upstream_model) == tokens


@pytest.mark.parametrize(
    ("upstream_model", "known"),
    [
        ("gpt-4o", True),
        ("openai/gpt-4.1", True),
        ("chatgpt-4o-latest", True),
        ("o3-mini", True),
        ("deepseek-chat", False),
        ("anthropic/claude-sonnet-4.5", False),
        ("google/gemini-2.5-flash", False),
        ("olmo-7b", False),
    ],
)
def test_only_openais_own_models_are_counted_exactly(upstream_model: str, known: bool) -> None:
    assert tokenizer.knows(upstream_model) is known


def test_special_tokens_in_a_text_are_plain_text() -> None:
    assert tokenizer.count("<|endoftext|>", "gpt-4o") == 7
    assert tokenizer.count("<|im_start|>system<|im_end|>", "gpt-4") > 7


def test_half_a_surrogate_pair_is_counted_as_something() -> None:
    assert tokenizer.count("half \ud83d", "gpt-4o") > 0


def test_the_vocabularies_can_be_loaded_by_several_threads_at_once() -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: tokenizer.ready(), range(16)))
        counts = list(threads.map(lambda _: tokenizer.count(ENGLISH, "gpt-4o"), range(16)))

    assert len(set(counts)) == 1


@pytest.mark.parametrize(
    "text",
    [
        ENGLISH * 10_000,
        "今天天气很好我们去公园散步吧。" * 30_000,
        'quotes " and \\ backslashes\n' * 20_000,
        "😀👩‍👩‍👧" * 30_000,
        "x" * 500_000,
        "\\" * 500_000,
    ],
    ids=["English", "Chinese", "escapes", "emoji", "one letter", "backslashes"],
)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_long_text_is_counted_by_pieces(text: str, ascii_only: bool) -> None:
    in_full = sum(tokenizer.count(text[at : at + 10_000], "gpt-4o") for at in range(0, len(text), 10_000))
    messages = Raw(json.dumps([{"role": "user", "content": text}], ensure_ascii=ascii_only).encode())

    assert tokenizer.count(text, "gpt-4o") == pytest.approx(in_full, rel=0.01)
    assert tokenizer.tokens_of_messages(messages, "gpt-4o") == pytest.approx(in_full, rel=0.01)


def test_pieces_come_from_all_of_a_long_text() -> None:
    text = "a" * EXACT_BYTES * 2 + ENGLISH * (EXACT_BYTES * 2 // len(ENGLISH))
    halves = (
        tokenizer.count(text[: EXACT_BYTES * 2], "gpt-4o"),
        tokenizer.count(text[EXACT_BYTES * 2 :], "gpt-4o"),
    )

    assert tokenizer.count(text, "gpt-4o") == pytest.approx(sum(halves), rel=0.08)


@pytest.mark.parametrize("upstream_model", ["gpt-3.5-turbo-0613", "gpt-4-0613"])
def test_the_cookbooks_conversation_is_counted_as_the_api_does(upstream_model: str) -> None:
    assert tokenizer.tokens_of_messages(raw(JARGON), upstream_model) == 129


def test_the_cookbooks_tools_are_counted_nearly_as_the_api_does() -> None:
    fields = {"messages": raw(WEATHER), "tools": raw(WEATHER_TOOLS)}

    assert tokenizer.tokens_of_prompt(fields, "gpt-4o") == pytest.approx(101, abs=4)


def test_empty_tools_count_nothing() -> None:
    bare = {"messages": raw(WEATHER)}
    empty = {**bare, "tools": Raw(b"[]"), "functions": Raw(b"null"), "response_format": Raw(b"{}")}

    assert tokenizer.tokens_of_prompt(empty, "gpt-4o") == tokenizer.tokens_of_prompt(bare, "gpt-4o")


def one(**fields: object) -> int:
    """Tokens of one message beside those that every message has."""
    return tokenizer.tokens_of_messages(raw([{"role": "user", **fields}]), "gpt-4o") - 7


HELLO = "Hello there, how are you?"
HELLO_TOKENS = 7


def test_each_message_is_counted_for_itself() -> None:
    found = tokenizer.tokens_by_message(raw([*JARGON, *WEATHER]), "gpt-4-0613")

    assert found is not None
    assert len(found) == 8
    assert sum(found[:6]) + 3 == 129


def test_parts_with_text_count_as_their_text_and_others_by_a_flat_figure() -> None:
    text = {"type": "text", "text": HELLO}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 100_000, "format": "wav"}}

    assert one(content=HELLO) == HELLO_TOKENS
    assert one(content=[text, text]) == 2 * HELLO_TOKENS
    assert one(content=[text, image, sound]) == HELLO_TOKENS + 2 * PART_TOKENS


def test_a_name_counts_one_more_than_its_text() -> None:
    assert one(content=HELLO, name="Hello") == HELLO_TOKENS + 2


def test_calls_of_tools_count_by_name_and_arguments() -> None:
    call = {"id": "call_" + "x" * 100, "type": "function", "function": {"name": "Hello", "arguments": HELLO}}
    custom = {"id": "call_1", "type": "custom", "custom": {"name": "Hello", "input": HELLO}}

    assert one(content=None, tool_calls=[call]) == HELLO_TOKENS + 1
    assert one(content=None, tool_calls=[call, custom]) == 2 * (HELLO_TOKENS + 1)
    assert one(content=None, function_call=call["function"]) == HELLO_TOKENS + 1


def test_what_a_model_thought_and_refused_counts() -> None:
    assert one(content=HELLO, reasoning_content=HELLO, refusal=HELLO) == 3 * HELLO_TOKENS


@pytest.mark.parametrize(
    "odd",
    [
        b"[]",
        b"[1,2,3]",
        b'["text"]',
        b"[{}]",
        b'[{"role":5}]',
        b'[{"role":"user","content":5}]',
        b'[{"role":"user","content":{"text":"x"}}]',
        b'[{"role":"user","content":["x"]}]',
        b'[{"role":"user","content":[{"text":5}]}]',
        b'[{"role":"user","content":[{"text":[{"text":[{"text":"x"}]}]}]}]',
        b'[{"role":"user","name":[],"tool_calls":5,"function_call":"x","refusal":{}}]',
        b'[{"role":"user","tool_calls":[{"function":null,"custom":{"name":7}}]}]',
        b'[{"role":"user","content":' + b"[" * 900 + b"]" * 900 + b"}]",
        b'[{"role":"user","content":' + b"[" * 90_000 + b"]" * 90_000 + b"}]",
        b'[{"role":"user","content":' + b'[{"text":' * 400 + b"0" + b"}]" * 400 + b"}]",
        b"[" + b'{"role":"user"},' * 20_000 + b'{"role":"user"}]',
        b"[" + b"{}," * 200_000 + b"{}]",
    ],
)
def test_odd_messages_are_estimated(odd: bytes) -> None:
    assert 0 <= tokenizer.tokens_of_messages(Raw(odd), "gpt-4o") <= max(20, len(odd))


def test_a_flood_of_tiny_messages_takes_no_more_memory_than_it_has() -> None:
    flood = Raw(b"[" + b'{"role":""},' * 300_000 + b'{"role":""}]')
    tracemalloc.start()
    try:
        tokenizer.tokens_of_messages(flood, "gpt-4o")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 2 * len(memoryview(flood))


def peak_bytes(count: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        count()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


TEXT_PART = {"type": "text", "text": HELLO}


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [TEXT_PART] * 19},
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}] * 6},
        {"role": "user", "content": HELLO, "name": "a", "refusal": "b", "reasoning_content": "c"},
    ],
    ids=["parts", "calls of tools", "values beside the content"],
)
def test_of_a_flood_of_small_things_only_the_first_are_looked_at(message: dict[str, object]) -> None:
    found = tokenizer.tokens_by_message(raw([message] * (MOST_MESSAGES - 1)), "gpt-4o")
    alone = tokenizer.tokens_by_message(raw([message]), "gpt-4o")

    assert found is not None
    assert alone is not None
    assert found[0] == pytest.approx(alone[0], rel=0.2)
    assert found[-1] != found[0]
    assert found[-1] <= len(json.dumps(message))


def test_a_flood_of_parts_takes_little_more_memory_than_it_has() -> None:
    flood = raw([{"role": "user", "content": [{"text": "a"}] * 19}] * (MOST_MESSAGES - 1))

    assert peak_bytes(lambda: tokenizer.tokens_of_messages(flood, "gpt-4o")) < 4 * len(memoryview(flood))


def test_what_comes_after_many_parts_is_estimated_and_still_a_list() -> None:
    many = {"role": "user", "content": [TEXT_PART] * 10_000}
    found = tokenizer.tokens_by_message(raw([many, {"role": "user", "content": HELLO}]), "gpt-4o")

    assert found is not None
    assert found[0] == pytest.approx(10_000 * len(json.dumps(TEXT_PART, separators=(",", ":"))) / 4, rel=0.1)
    assert found[1] == HELLO_TOKENS + 4


def test_a_flood_in_an_answer_is_estimated() -> None:
    calls = b'[{"function":{"name":"f"}}' + b',{"function":{"name":"f"}}' * 100_000 + b"]"
    parts = b'[{"text":"a"}' + b',{"text":"a"}' * 100_000 + b"]"
    whole = SaidSoFar()
    whole.add_tool_calls(calls)
    whole.add(parts)

    assert whole.kept_bytes == 0
    assert whole.tokens("gpt-4o") == pytest.approx(len(calls + parts) / 4, rel=0.1)


def cpu_s(text: str, upstream_model: str) -> float:
    """The least of three counts."""
    found = []
    for _ in range(3):
        began = time.process_time()
        tokenizer.count(text, upstream_model)
        found.append(time.process_time() - began)
    return min(found)


@pytest.mark.parametrize("upstream_model", ["gpt-4o", "gpt-4"])
@pytest.mark.parametrize("sign", [*"-=*/#", "\t"])
def test_a_run_of_one_sign_takes_no_longer_than_random_letters(sign: str, upstream_model: str) -> None:
    """Alone it would take up to ten times as long."""
    letters = "".join(random.Random(1).choices(string.ascii_letters, k=EXACT_BYTES))
    tokenizer.count(sign * 1000, upstream_model)

    assert cpu_s(sign * EXACT_BYTES, upstream_model) < cpu_s(letters, upstream_model)


@pytest.mark.parametrize("upstream_model", ["gpt-4o", "gpt-4"])
@pytest.mark.parametrize("sign", [*"-=*/#", "\t"])
def test_long_runs_of_one_sign_are_counted_nearly_exactly(sign: str, upstream_model: str) -> None:
    runs = [127, 128, 129, 300, 1000, 5000]
    vocabulary = openai.cl100k_base() if upstream_model == "gpt-4" else openai.o200k_base()
    text = "".join(f"{sign * run} a few words of text, some more of them here " for run in runs)

    assert tokenizer.count(text, upstream_model) == pytest.approx(vocabulary.count(text), rel=0.15)


def test_an_ordinary_rule_of_dashes_is_counted_exactly() -> None:
    text = f"{'-' * 80}\n{ENGLISH}\n{'=' * 120}\n"

    assert tokenizer.count(text, "gpt-4o") == openai.o200k_base().count(text)


@pytest.mark.parametrize("size", [10_000, 100_000, 1_000_000])
def test_long_tools_are_counted_by_pieces(size: int) -> None:
    tool = WEATHER_TOOLS[0]
    some = WEATHER_TOOLS * 10
    many = [tool] * (size // len(json.dumps(tool)))
    each = tokenizer.tokens_of_tools({"tools": raw(some)}, "gpt-4o") / len(some)

    assert tokenizer.tokens_of_tools({"tools": raw(many)}, "gpt-4o") == pytest.approx(
        len(many) * each, rel=0.05
    )


def test_tools_that_are_no_text_are_counted_as_something() -> None:
    assert tokenizer.tokens_of_tools({"tools": Raw(b'"\xff\xfe\xff\xfe"')}, "gpt-4o") > 0
    assert tokenizer.tokens_of_tools({}, "gpt-4o") == 0


def test_what_targets_of_one_vocabulary_are_asked_is_counted_once() -> None:
    counts = Counts()
    fields = {"messages": raw(WEATHER), "tools": raw(WEATHER_TOOLS)}
    alike = Raw(bytes(fields["messages"]))

    first = counts.by_message(fields["messages"], "gpt-4o")

    assert first is not None
    assert counts.by_message(fields["messages"], "o3-mini") is first
    assert counts.by_message(alike, "gpt-4o") is first
    assert counts.by_message(alike, "gpt-4") is not first
    assert counts.by_message(raw(JARGON), "gpt-4o") is not first


@pytest.mark.parametrize("messages", [raw(WEATHER), raw(JARGON), Raw(b"[1,2,3]")])
@pytest.mark.parametrize("tools", [raw(WEATHER_TOOLS), Raw(b"null")])
def test_counts_are_those_that_are_made_apart(messages: Raw, tools: Raw) -> None:
    counts = Counts()
    fields = {"messages": messages, "tools": tools}
    for upstream_model in ("gpt-4o", "gpt-4", "gpt-4o"):
        assert counts.by_message(messages, upstream_model) == tokenizer.tokens_by_message(
            messages, upstream_model
        )
        assert counts.of_tools(fields, upstream_model) == tokenizer.tokens_of_tools(fields, upstream_model)
        assert counts.of_prompt(fields, upstream_model) == tokenizer.tokens_of_prompt(fields, upstream_model)
        assert counts.of_tools({}, upstream_model) == 0


def test_many_small_texts_are_counted_as_one() -> None:
    messages = raw([{"role": "user", "content": HELLO}] * 2400)

    assert tokenizer.tokens_of_messages(messages, "gpt-4o") == pytest.approx(
        2400 * (HELLO_TOKENS + 4), rel=0.05
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "text", "type", "name", "tool_calls", "function", "arguments"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.lists(JSON, max_size=5))
def test_no_messages_break_the_counter(messages: list[object]) -> None:
    value = Raw(json.dumps(messages).encode())

    assert tokenizer.tokens_of_messages(value, "gpt-4o") >= 0
    found = SaidSoFar()
    found.add(bytes(value))
    found.add_tool_calls(bytes(value))
    assert found.tokens("gpt-4o") >= 0


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_no_bytes_break_what_was_said(pieces: list[bytes]) -> None:
    found = SaidSoFar()
    for piece in pieces:
        found.add(piece)
        found.add_tool_calls(piece)
        found.add(b'"' + piece + b'"')

    assert found.tokens("gpt-4o") >= 0


@given(st.lists(st.text(max_size=30), max_size=10))
def test_pieces_count_as_the_text_they_make(pieces: list[str]) -> None:
    assert said(*pieces).tokens("gpt-4o") == tokenizer.count("".join(pieces), "gpt-4o")


def test_a_token_in_two_pieces_is_one() -> None:
    assert said("Hel", "lo", " there", ", how are", " you?").tokens("gpt-4o") == HELLO_TOKENS


def test_nothing_was_said() -> None:
    found = SaidSoFar()
    found.add(b"null")
    found.add(b'""')
    found.add_tool_calls(b"null")
    found.add_tool_calls(b"[]")

    assert found.tokens("gpt-4o") == 0


def test_the_deltas_of_a_tool_call_count_by_name_and_arguments() -> None:
    found = SaidSoFar()
    found.add_tool_calls(
        b'[{"index":0,"id":"call_abc","type":"function","function":{"name":"Hello","arguments":""}}]'
    )
    for piece in (" there", ", how", " are", " you?"):
        found.add_tool_calls(json.dumps([{"index": 0, "function": {"arguments": piece}}]).encode())

    assert found.tokens("gpt-4o") == HELLO_TOKENS


def test_thoughts_that_come_as_parts_count_as_their_text() -> None:
    found = said(
        [{"type": "thinking", "thinking": [{"type": "text", "text": "Hello there"}]}], ", how are you?"
    )

    assert found.tokens("gpt-4o") == HELLO_TOKENS


def _pieces(found: SaidSoFar) -> None:
    piece = json.dumps(ENGLISH).encode()
    for _ in range(3 * MOST_SAID_BYTES // len(ENGLISH)):
        found.add(piece)


def _at_once(found: SaidSoFar) -> None:
    found.add(json.dumps(ENGLISH * (3 * MOST_SAID_BYTES // len(ENGLISH))).encode())


def _tool_calls(found: SaidSoFar) -> None:
    piece = json.dumps([{"index": 0, "function": {"arguments": ENGLISH}}]).encode()
    for _ in range(3 * MOST_SAID_BYTES // len(ENGLISH)):
        found.add_tool_calls(piece)


@pytest.mark.parametrize("say", [_pieces, _at_once, _tool_calls])
def test_more_than_is_kept_counts_in_proportion(say: Callable[[SaidSoFar], None]) -> None:
    found = SaidSoFar()
    say(found)
    in_full = 3 * MOST_SAID_BYTES // len(ENGLISH) / 100 * tokenizer.count(ENGLISH * 100, "gpt-4o")

    assert found.tokens("gpt-4o") == pytest.approx(in_full, rel=0.02)


def test_what_is_kept_is_bounded() -> None:
    found = SaidSoFar()
    _pieces(found)

    assert found.kept_bytes <= MOST_SAID_BYTES + len(ENGLISH)
