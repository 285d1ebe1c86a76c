import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gateway.relay import overflow, tokenizer
from gateway.relay.overflow import Excess, is_overflow, trimmed, trimmed_by

MODEL = "gpt-4o"


def raw(messages: object) -> Raw:
    return Raw(json.dumps(messages).encode())


def chat(*turns: str) -> list[dict[str, object]]:
    """`u` a user's, `a` an assistant's, `s` a system, `d` a developer message, `t` a tool's result,
    `c` an assistant's call of a tool; each of the same length, and each with its place in it."""
    roles = {"u": "user", "a": "assistant", "s": "system", "d": "developer", "t": "tool", "c": "assistant"}
    found: list[dict[str, object]] = []
    for place, turn in enumerate("".join(turns)):
        message: dict[str, object] = {"role": roles[turn], "content": f"{place:04d} says a few words"}
        if turn == "c":
            message["tool_calls"] = [{"id": f"call_{place}", "type": "function", "function": {"name": "f"}}]
        found.append(message)
    return found


def places(messages: Raw) -> list[int]:
    return [int(each["content"][:4]) for each in json.loads(bytes(messages))]


# What the vendors say, word for word, and what it means: window, size of the prompt, tokens too many.
OVERFLOWS = [
    (
        "OpenAI, prompt and answer",
        400,
        "context_length_exceeded",
        "This model's maximum context length is 4097 tokens. However, you requested 4203 tokens "
        "(3703 in the messages, 500 in the completion). Please reduce the length of the messages "
        "or completion.",
        Excess(4097, 3703, 106),
    ),
    (
        "OpenAI, messages",
        400,
        "context_length_exceeded",
        "This model's maximum context length is 128000 tokens. However, your messages resulted in "
        "204308 tokens. Please reduce the length of the messages.",
        Excess(128000, 204308, 76308),
    ),
    (
        "OpenAI, with functions",
        400,
        "context_length_exceeded",
        "This model's maximum context length is 128000 tokens. However, your messages resulted in "
        "202868 tokens "
        "(202767 in the messages, 101 in the functions). Please reduce the length of the messages "
        "or functions.",
        Excess(128000, 202868, 74868),
    ),
    (
        "OpenAI, completions",
        400,
        None,
        "This model's maximum context length is 4097 tokens, however you requested 4322 tokens "
        "(4066 in your prompt; 256 for the completion). Please reduce your prompt; or completion length.",
        Excess(4097, 4066, 225),
    ),
    (
        "OpenAI, GPT-5",
        400,
        "context_length_exceeded",
        "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300007 tokens. "
        "Please reduce the length of the messages.",
        Excess(272000, 300007, 28007),
    ),
    (
        "OpenAI, no figures",
        400,
        "context_length_exceeded",
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
        Excess(),
    ),
    ("Azure, by its code", 400, "context_length_exceeded", "The call could not be completed.", Excess()),
    (
        "DeepSeek",
        400,
        "invalid_request_error",
        "This model's maximum context length is 131072 tokens. However, you requested 131134 tokens "
        "(122942 in the messages, 8192 in the completion). Please reduce the length of the "
        "messages or completion.",
        Excess(131072, 122942, 62),
    ),
    (
        "vLLM",
        400,
        "400",
        "This model's maximum context length is 65536 tokens. However, your request has 99103 input tokens. "
        "Please reduce the length of the input messages. (parameter=input_tokens, value=99103)",
        Excess(65536, 99103, 33567),
    ),
    (
        "vLLM, with the answer",
        400,
        "400",
        "'max_tokens' or 'max_completion_tokens' is too large: 4096. This model's maximum context length is "
        "65536 tokens and your request has 63366 input tokens (4096 > 65536 - 63366).",
        Excess(65536, 63366, 1926),
    ),
    (
        "vLLM, newer",
        400,
        "400",
        "This model's maximum context length is 131072 tokens. However, you requested 4096 output tokens and "
        "your prompt contains at least 126977 input tokens. Please reduce the length of the input prompt or "
        "the number of requested output tokens.",
        Excess(131072, 126977, 1),
    ),
    (
        "vLLM, newer, before it has counted all",
        400,
        "400",
        "This model's maximum context length is 131072 tokens. However, you requested 4096 output tokens and "
        "your prompt contains at least 100000 input tokens.",
        Excess(131072, 100000, None),
    ),
    ("vLLM, no bound given", 400, "400", "max_tokens must be at least 1, got -186.", Excess(None, None, 186)),
    (
        "Mistral",
        400,
        "3051",
        "Prompt contains 40687 tokens and 0 draft tokens, too large for model with 32768 maximum "
        "context length",
        Excess(32768, 40687, 7919),
    ),
    (
        "Anthropic",
        400,
        "invalid_request_error",
        "prompt is too long: 208310 tokens > 200000 maximum",
        Excess(200000, 208310, 8310),
    ),
    (
        "Anthropic, with the answer",
        400,
        None,
        "input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000, decrease input length "
        "or `max_tokens` and try again",
        Excess(200000, 178959, 42959),
    ),
    (
        "Gemini",
        400,
        "400",
        "The input token count (1200293) exceeds the maximum number of tokens allowed (1048576).",
        Excess(1048576, 1200293, 151717),
    ),
    (
        "Gemini, window only",
        400,
        "400",
        "The input token count exceeds the maximum number of tokens allowed 1048576.",
        Excess(1048576),
    ),
    (
        "xAI",
        400,
        None,
        "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
        Excess(131072, 537812, 406740),
    ),
    (
        "Groq",
        400,
        "context_length_exceeded",
        "Please reduce the length of the messages or completion.",
        Excess(),
    ),
    (
        "Cerebras",
        400,
        "context_length_exceeded",
        "Please reduce the length of the messages or completion. Current length is 42328 while "
        "limit is 40000",
        Excess(40000, 42328, 2328),
    ),
    (
        "OpenRouter",
        400,
        "400",
        "This endpoint's maximum context length is 65536 tokens. However, you requested about 92208 tokens "
        "(60833 of text input, 10042 of tool input, 21333 in the output). Please reduce the length "
        "of either one, "
        'or use the "middle-out" transform to compress your prompt automatically.',
        Excess(65536, 70875, 26672),
    ),
    (
        "Together, SGLang",
        400,
        None,
        "The input (516368 tokens) is longer than the model's context length (262144 tokens).",
        Excess(262144, 516368, 254224),
    ),
    (
        "SGLang, with the answer",
        400,
        None,
        "Requested token count exceeds the model's maximum context length of 64000 tokens. You "
        "requested a total of "
        "71897 tokens: 70897 tokens from the input messages and 1000 tokens for the completion.",
        Excess(64000, 70897, 7897),
    ),
    (
        "Together, Text Generation Inference",
        422,
        "validation",
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 32768. "
        "Given: 30512 `inputs` tokens and 8192 `max_new_tokens`",
        Excess(32768, 30512, 5936),
    ),
    (
        "Text Generation Inference, window only",
        422,
        "validation",
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 16384",
        Excess(16384),
    ),
    (
        "llama.cpp",
        400,
        "400",
        "request (14429 tokens) exceeds the available context size (8192 tokens), try increasing it",
        Excess(8192, 14429, 6237),
    ),
    (
        "llama.cpp, older",
        400,
        "400",
        "the request exceeds the available context size. try increasing the context size or enable "
        "context shift",
        Excess(),
    ),
    (
        "Ollama",
        400,
        None,
        "prompt too long; exceeded max context length by 4096 tokens",
        Excess(None, None, 4096),
    ),
    (
        "Ollama, Fireworks",
        400,
        None,
        "The prompt is too long: 265392, model maximum context length: 262144",
        Excess(262144, 265392, 3248),
    ),
    (
        "LM Studio",
        400,
        None,
        "Trying to keep the first 5000 tokens when the context overflows. However, the model is loaded with "
        "context length of only 4096 tokens, which is not enough.",
        Excess(4096),
    ),
    ("Bedrock", 400, None, "Input is too long for requested model.", Excess()),
    (
        "Cohere",
        400,
        None,
        "too many tokens: size limit exceeded by 168512 tokens. The limit for this model is 132000 tokens.",
        Excess(132000, None, 168512),
    ),
    (
        "DashScope",
        400,
        "invalid_parameter_error",
        "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 30720]",
        Excess(30720),
    ),
    (
        "Moonshot",
        400,
        None,
        "Invalid request: Your request exceeded model token limit: 262144 (requested: 291351)",
        Excess(262144, 291351, 29207),
    ),
    ("MiniMax", 400, "2013", "invalid params, context window exceeds limit", Excess()),
    ("Z.ai", 400, "1261", "Prompt exceeds max length", Excess()),
    (
        "GitHub",
        400,
        None,
        "prompt token count of 200000 exceeds the limit of 128000",
        Excess(128000, 200000, 72000),
    ),
]


@pytest.mark.parametrize(
    ("status", "code", "message", "excess"), [row[1:] for row in OVERFLOWS], ids=[row[0] for row in OVERFLOWS]
)
def test_each_vendors_words_for_too_long_are_understood(
    status: int, code: str | None, message: str, excess: Excess
) -> None:
    assert is_overflow(status, code, message) == excess


NEAR_MISSES = [
    (
        "OpenAI, answer too long",
        400,
        "invalid_value",
        "max_tokens is too large: 64000. This model supports at most 16384 completion tokens, "
        "whereas you provided 64000.",
    ),
    (
        "OpenAI, the answer alone fills the window",
        400,
        "context_length_exceeded",
        "This model's maximum context length is 4097 tokens. However, you requested 5017 tokens "
        "(17 in the messages, 5000 in the completion). Please reduce the length of the messages or "
        "completion.",
    ),
    (
        "OpenAI, per minute",
        429,
        "rate_limit_exceeded",
        "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, "
        "Requested 342389. The input or output tokens must be reduced in order to run successfully.",
    ),
    (
        "Groq, per minute",
        413,
        "rate_limit_exceeded",
        "Request too large for model `llama-3.3-70b-versatile` in organization `org_x` service "
        "tier `on_demand` on "
        "tokens per minute (TPM): Limit 12000, Requested 14137, please reduce your message size "
        "and try again.",
    ),
    (
        "too long by a rate limit's code",
        429,
        "context_length_exceeded",
        "Please reduce the length of the messages.",
    ),
    (
        "Anthropic, answer too long",
        400,
        None,
        "max_tokens: 64000 > 8192, which is the maximum allowed number of output tokens for "
        "claude-3-5-sonnet",
    ),
    (
        "DeepSeek, answer too long",
        400,
        "invalid_request_error",
        "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]",
    ),
    (
        "per minute, with the same advice",
        413,
        None,
        "Over the tokens per minute (TPM): Limit 6000, Requested 9512. "
        "Please reduce the length of the messages.",
    ),
    ("DashScope, answer too long", 400, None, "Range of max_tokens should be [1, 8192]"),
    (
        "OpenRouter, the answer alone fills the window",
        400,
        "400",
        "This endpoint's maximum context length is 131072 tokens. However, you requested about 138956 tokens "
        "(7884 of text input, 131072 in the output). Please reduce the length of either one.",
    ),
    (
        "vLLM, the answer alone fills the window",
        400,
        "400",
        "'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum context length is "
        "4096 tokens and your request has 200 input tokens (5000 > 4096 - 200).",
    ),
    (
        "Text Generation Inference, the answer alone fills the window",
        422,
        None,
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 32769. "
        "Given: 30 `inputs` tokens and 999999999 `max_new_tokens`",
    ),
    (
        "OpenAI, too many messages",
        400,
        "array_above_max_length",
        "Invalid 'messages': array too long. Expected an array with maximum length 2048, "
        "but got an array with length 2500 instead.",
    ),
    (
        "OpenAI, parameter",
        400,
        "unsupported_parameter",
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
        "'max_completion_tokens' instead.",
    ),
    (
        "a broken provider",
        500,
        "context_length_exceeded",
        "This model's maximum context length is 10 tokens.",
    ),
    ("another error", 400, None, "The model `gone` does not exist"),
    ("nothing said", 413, None, ""),
]


@pytest.mark.parametrize(
    ("status", "code", "message"), [row[1:] for row in NEAR_MISSES], ids=[row[0] for row in NEAR_MISSES]
)
def test_what_only_sounds_alike_is_no_overflow(status: int, code: str | None, message: str) -> None:
    assert is_overflow(status, code, message) is None


@given(st.text(max_size=300), st.sampled_from([400, 413, 422]))
def test_no_words_break_the_reader(message: str, status: int) -> None:
    told = is_overflow(status, None, f"prompt is too long: {message}")

    assert told is None or isinstance(told, Excess)


def test_a_number_is_read_with_its_commas() -> None:
    told = is_overflow(400, None, "prompt is too long: 1,200,000 tokens > 1,048,576 maximum")

    assert told == Excess(1048576, 1200000, 151424)


@pytest.mark.parametrize(
    ("message", "excess"),
    [
        ("prompt is too long: 0 tokens, exceeded by 5", Excess(None, None, 5)),
        ("prompt is too long: 0 tokens > 0 maximum", Excess()),
        ("prompt too long; exceeded max context length by 0 tokens", Excess()),
    ],
)
def test_a_provider_that_counts_nothing_said_nothing(message: str, excess: Excess) -> None:
    told = is_overflow(400, None, message)

    assert told == excess
    assert trimmed_by(told, raw(chat("uauauaua")), MODEL) is not None


@given(*[st.integers(0, 10**12 - 1)] * 3)
def test_no_figures_of_a_provider_break_the_trimming(window: int, size: int, over: int) -> None:
    told = is_overflow(400, None, f"prompt is too long: {size} tokens > {window} maximum, exceeded by {over}")

    if told is not None:
        trimmed_by(told, raw(chat("uauauaua")), MODEL)


def test_short_messages_fit_without_being_counted() -> None:
    assert overflow.fits(1000, 24, 1024)
    assert not overflow.fits(1000, 25, 1024)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, 0),
        ({"max_tokens": b"7"}, 7),
        ({"max_tokens": b"7", "max_completion_tokens": b"9"}, 9),
        ({"max_tokens": b"7", "max_completion_tokens": b"null"}, 7),
        ({"max_tokens": b"-7"}, 0),
        ({"max_tokens": b'"many"'}, 0),
    ],
)
def test_the_answer_takes_what_the_client_asks_for(fields: dict[str, bytes], expected: int) -> None:
    assert overflow.answer_tokens({name: Raw(value) for name, value in fields.items()}) == expected


def test_messages_exceed_a_window_by_their_tokens_and_the_answers() -> None:
    fields = {"messages": raw(chat("u" * 100))}
    size = tokenizer.tokens_of_messages(fields["messages"], MODEL)

    assert not overflow.exceeds(fields, MODEL, 50, size + 50)
    assert overflow.exceeds(fields, MODEL, 51, size + 50)


def test_another_vendors_count_is_only_trusted_when_it_is_sure() -> None:
    fields = {"messages": raw(chat("u" * 100))}
    size = tokenizer.tokens_of_messages(fields["messages"], "deepseek-chat")

    assert not overflow.exceeds(fields, "deepseek-chat", 0, size - size // 5)
    assert overflow.exceeds(fields, "deepseek-chat", 0, size // 2)


def test_tools_take_their_part_of_the_window() -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "does this and that " * 50}}
    bare = {"messages": raw(chat("u"))}
    with_tools = {**bare, "tools": raw([tool])}

    assert not overflow.exceeds(bare, MODEL, 0, 100)
    assert overflow.exceeds(with_tools, MODEL, 0, 100)
    assert overflow.room(bare, MODEL, 10, 1000) > overflow.room(with_tools, MODEL, 10, 1000) + 100


def test_the_steps_of_a_plan_share_one_count() -> None:
    """What is not counted again cannot differ: the second target is told what the first was."""
    messages = raw(chat("uauauauaua"))
    fields = {"messages": messages}
    counts = tokenizer.Counts()
    found = counts.by_message(messages, MODEL)
    assert found is not None
    found[:] = [1000] * len(found)

    assert overflow.exceeds(fields, MODEL, 0, 9999, counts)
    shorter = trimmed(messages, "gpt-4.1", 5100, counts)
    assert shorter is not None
    assert shorter.dropped == 5


def test_tools_are_counted_once_for_all_targets() -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "does this and that " * 50}}
    fields = {"messages": raw(chat("u")), "tools": raw([tool])}
    counts = tokenizer.Counts()

    shared = [overflow.room(fields, each, 10, 1000, counts) for each in (MODEL, "gpt-4", "o3", "gpt-4")]

    assert shared == [overflow.room(fields, each, 10, 1000) for each in (MODEL, "gpt-4", "o3", "gpt-4")]


def test_the_oldest_messages_go_first_and_no_more_than_needed() -> None:
    messages = raw(chat("uauauauaua"))
    each = tokenizer.tokens_of_messages(messages, MODEL) // 10

    shorter = trimmed(messages, MODEL, tokenizer.tokens_of_messages(messages, MODEL) - 2 * each)

    assert shorter is not None
    assert places(shorter.messages) == [2, 3, 4, 5, 6, 7, 8, 9]
    assert (shorter.dropped, shorter.fits) == (2, True)


def test_system_and_developer_messages_and_the_last_three_are_kept() -> None:
    shorter = trimmed(raw(chat("suadauua")), MODEL, 0)

    assert shorter is not None
    assert places(shorter.messages) == [0, 3, 5, 6, 7]
    assert (shorter.dropped, shorter.fits) == (3, False)


def test_at_least_one_goes_because_someone_said_it_is_too_long() -> None:
    shorter = trimmed(raw(chat("uauau")), MODEL, 10**6)

    assert shorter is not None
    assert shorter.dropped == 1


@pytest.mark.parametrize("turns", ["", "u", "uau", "suau", "ssss", "ctuu", "dctttu"])
def test_where_nothing_can_go_nothing_is_returned(turns: str) -> None:
    assert trimmed(raw(chat(turns)), MODEL, 0) is None
    assert trimmed_by(Excess(), raw(chat(turns)), MODEL) is None


def test_a_tools_results_go_with_the_call_that_asked_for_them() -> None:
    messages = raw(chat("ucttauau"))
    budget = tokenizer.tokens_of_messages(messages, MODEL) - 15

    shorter = trimmed(messages, MODEL, budget)

    assert shorter is not None
    assert places(shorter.messages) == [4, 5, 6, 7]


def test_a_result_among_the_last_three_keeps_its_call() -> None:
    shorter = trimmed(raw(chat("uactttu")), MODEL, 0)

    assert shorter is not None
    assert places(shorter.messages) == [2, 3, 4, 5, 6]


def test_a_result_belongs_to_the_call_whose_id_it_names() -> None:
    messages = chat("ucautauau")
    messages[4]["tool_call_id"] = "call_1"
    late = chat("uccutua")
    late[4]["tool_call_id"] = "call_1"

    gone = trimmed(raw(messages), MODEL, 0)
    kept = trimmed(raw(late), MODEL, 0)

    assert gone is not None
    assert places(gone.messages) == [6, 7, 8]
    assert kept is not None
    assert places(kept.messages) == [1, 4, 5, 6]


def test_a_function_call_of_the_older_kind_keeps_its_result() -> None:
    messages = chat("uauuau")
    messages[1]["function_call"] = {"name": "f", "arguments": "{}"}
    messages[2]["role"] = "function"

    shorter = trimmed(raw(messages), MODEL, tokenizer.tokens_of_messages(raw(messages), MODEL) - 15)

    assert shorter is not None
    assert places(shorter.messages) == [3, 4, 5]


def test_messages_that_stay_keep_their_bytes() -> None:
    kept = b'{ "role":"user",  "content":"\\u00e9 \xc3\xa9","x":1.0e0 }'
    messages = Raw(b'[{"role":"user","content":"old"} , ' + b" ,".join([kept] * 3) + b"]")

    shorter = trimmed(messages, MODEL, 0)

    assert shorter is not None
    assert bytes(shorter.messages) == b"[" + b",".join([kept] * 3) + b"]"


def test_what_is_no_list_of_messages_is_left_alone() -> None:
    for odd in (b"[1,2,3,4,5]", b'[{"content":"x"}]', b'["a","b","c","d"]', b"[" * 500 + b"]" * 500):
        assert trimmed(Raw(odd), MODEL, 0) is None


def test_a_providers_figures_are_carried_over_in_proportion() -> None:
    """It counts twice as many tokens as we do, and wants a quarter of them gone."""
    messages = raw(chat("ua" * 20))
    ours = tokenizer.tokens_of_messages(messages, MODEL)

    shorter = trimmed_by(Excess(window=ours * 3 // 2, size=ours * 2, over=ours // 2), messages, MODEL)

    assert shorter is not None
    assert 10 <= shorter.dropped <= 12
    assert places(shorter.messages) == list(range(shorter.dropped, 40))


def test_only_how_much_too_long_is_enough() -> None:
    messages = raw(chat("ua" * 20))
    ours = tokenizer.tokens_of_messages(messages, MODEL)

    shorter = trimmed_by(Excess(over=ours // 2), messages, MODEL)

    assert shorter is not None
    assert 20 <= shorter.dropped <= 23


def test_a_window_alone_is_held_against_our_own_count() -> None:
    messages = raw(chat("ua" * 20))
    ours = tokenizer.tokens_of_messages(messages, MODEL)

    below = trimmed_by(Excess(window=ours * 3 // 4), messages, MODEL)
    above = trimmed_by(Excess(window=ours * 2), messages, MODEL)

    assert below is not None
    assert 10 <= below.dropped <= 12
    assert above is not None
    assert above.dropped == 19  # half of the 37 that can go


def test_without_figures_half_of_what_can_go_goes_until_nothing_is_left() -> None:
    messages = raw(chat("s" + "ua" * 8))
    dropped = []
    while (shorter := trimmed_by(Excess(), messages, MODEL)) is not None:
        messages = shorter.messages
        dropped.append(shorter.dropped)

    assert dropped == [7, 3, 2, 1]
    assert places(messages) == [0, 14, 15, 16]


def _orphans(before: list[dict[str, object]], after: list[int]) -> list[int]:
    """Results that are there without the call before them, and calls without a result that they had."""
    found, call = [], None
    for place, message in enumerate(before):
        if message.get("tool_calls"):
            call = place
        elif message["role"] == "tool" and call is not None and (place in after) is not (call in after):
            found.append(place)
    return found


@given(st.text("uasdtc", max_size=40), st.integers(0, 400), st.sampled_from([None, 0.1, 0.5, 0.9]))
def test_trimming_never_breaks_a_conversation(turns: str, budget: int, share: float | None) -> None:
    before = chat(turns)
    if share is None:
        shorter = trimmed(raw(before), MODEL, budget)
    else:
        shorter = trimmed_by(Excess(1000, 1000, int(share * 1000)), raw(before), MODEL)
    if shorter is None:
        return
    after = places(shorter.messages)

    assert after == sorted(set(after))
    assert len(before) == len(after) + shorter.dropped
    assert shorter.dropped > 0
    assert after[-3:] == list(range(len(before)))[-3:]
    assert all(place in after for place, each in enumerate(before) if each["role"] in ("system", "developer"))
    assert _orphans(before, after) == []


@given(st.text("ua", min_size=4, max_size=40), st.integers(0, 600))
def test_trimming_drops_as_few_as_the_budget_allows(turns: str, budget: int) -> None:
    before = chat(turns)
    shorter = trimmed(raw(before), MODEL, budget)
    assert shorter is not None
    after = places(shorter.messages)

    assert after == list(range(shorter.dropped, len(before)))
    if shorter.dropped > 1:  # with one more it would not have kept the budget
        assert tokenizer.tokens_of_messages(raw(before[shorter.dropped - 1 :]), MODEL) > budget
    if len(after) > 3:
        assert tokenizer.tokens_of_messages(shorter.messages, MODEL) <= budget
