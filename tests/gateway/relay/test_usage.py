"""Usage objects as providers write them, and as nobody should. Whole payloads are in the golden table."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Raw

from gateway.relay.records import Usage
from gateway.relay.usage import MOST_TOKENS, estimated, reported


def usage_of(value: Any = None, **fields: Any) -> Usage | None:
    said = fields if value is None else value
    return reported(Raw(said if isinstance(said, bytes) else json.dumps(said).encode()))


def whole(prompt: int, answer: int, **fields: Any) -> Usage | None:
    return usage_of(prompt_tokens=prompt, completion_tokens=answer, **fields)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"prompt_tokens":9,"completion_tokens":2}', Usage(9, 2, 0, "reported")),
        (b'{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11,"x":{}}', Usage(9, 2, 0, "reported")),
        (
            b'{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":4}}',
            Usage(9, 2, 4, "reported"),
        ),
        (
            b'{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":null}',
            Usage(9, 2, 0, "reported"),
        ),
        (
            b'{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":null}}',
            Usage(9, 2, 0, "reported"),
        ),
        (b'{"prompt_tokens":0,"completion_tokens":0}', Usage(0, 0, 0, "reported")),
        (b'{"prompt_tokens":9}', Usage(9, 0, 0, "reported")),
        (b"null", None),
        (b'{"prompt_tokens":70000000000000000,"completion_tokens":2}', None),
        (b'{"prompt_tokens":2,"completion_tokens":9223372036854775808}', None),
        (b"{}", None),
        (b'{"prompt_tokens":-1,"completion_tokens":2}', None),
        (b'{"prompt_tokens":"nine","completion_tokens":2}', None),
        (b'{"completion_tokens":2}', None),
        (b'{"prompt_tokens":9,"completion_tokens":null}', None),
        (b'{"prompt_tokens":9,"completion_tokens":true}', None),
        (b'{"prompt_tokens":9,"completion_tokens":2.5}', None),
        (b'{"prompt_tokens":9,"completion_tokens":1e999}', None),
        (b'{"input_tokens":9,"output_tokens":"two"}', None),
        (b'{"prompt_tokens":9,"completion_tokens":2', None),
        (b'{"prompt_tokens":9,"completion_tokens":2,"x":"\xff"}', Usage(9, 2, 0, "reported")),
        (b'{"prompt_tokens":9.0,"completion_tokens":2,"x":"\xff"}', None),
        (b"[" * 100_000, None),
        (b'{"prompt_tokens":1.0,"x":' + b"[" * 100_000, None),
    ],
)
def test_usage_as_providers_write_it(raw: bytes, expected: Usage | None) -> None:
    assert reported(Raw(raw)) == expected


@pytest.mark.parametrize(
    "nonsense", ["four", [4], {"tokens": 4}, True, 4.5, -4], ids=lambda value: json.dumps(value)
)
@pytest.mark.parametrize(
    "said",
    [
        lambda value: {"prompt_tokens_details": {"cached_tokens": value}},
        lambda value: {"completion_tokens_details": {"reasoning_tokens": value, "audio_tokens": value}},
        lambda value: {"cached_tokens": value},
        lambda value: {"cache_creation_input_tokens": value},
        lambda value: {"prompt_tokens_details": value, "completion_tokens_details": value},
    ],
    ids=["cached", "answer", "top-level", "written", "details"],
)
def test_a_part_that_is_nonsense_is_none_and_the_whole_stands(said: Any, nonsense: Any) -> None:
    assert whole(9, 2, **said(nonsense)) == Usage(9, 2, 0, "reported")


def test_a_part_that_is_nonsense_leaves_the_others_alone() -> None:
    details = {"cached_tokens": 4.0, "audio_tokens": "3", "cache_write_tokens": 1}
    assert whole(9, 2, prompt_tokens_details=details) == Usage(9, 2, 4, "reported", 1)


@pytest.mark.parametrize("prompt", [MOST_TOKENS, MOST_TOKENS + 1])
def test_what_no_call_can_have_used_is_not_believed(prompt: int) -> None:
    assert (whole(prompt, 2) is None) == (prompt > MOST_TOKENS)
    assert (whole(2, prompt) is None) == (prompt > MOST_TOKENS)
    assert (whole(2, 2, prompt_tokens_details={"cached_tokens": prompt}) is None) == (prompt > MOST_TOKENS)


def test_parts_together_may_be_more_than_the_most_of_one() -> None:
    """Their bits overlap, so that they have to be looked at one by one."""
    parts = {"cached_tokens": 1 << 29, "audio_tokens": (1 << 30) - MOST_TOKENS}
    assert whole(999_999_999, 2, prompt_tokens_details=parts) == Usage(
        999_999_999, 2, 1 << 29, "reported", audio_input_tokens=73_741_824
    )


@pytest.mark.parametrize(
    ("total", "details", "expected"),
    [
        (800, {"reasoning_tokens": 233}, (763, 233)),
        (567, {"reasoning_tokens": 233}, (530, 233)),
        (None, {"reasoning_tokens": 233}, (530, 233)),
        (801, {"reasoning_tokens": 233}, (530, 233)),
        (800, {"reasoning_tokens": 0}, (530, 0)),
        (800, {}, (763, 233)),
        (800, None, (763, 233)),
        (500, None, (530, 0)),
        (0, None, (530, 0)),
    ],
)
def test_reasoning_is_beside_the_completion_only_where_the_total_says_so(
    total: int | None, details: dict[str, int] | None, expected: tuple[int, int]
) -> None:
    usage = whole(37, 530, total_tokens=total, completion_tokens_details=details)
    assert usage is not None
    assert (usage.output_tokens, usage.reasoning_tokens) == expected


def test_what_was_read_and_written_of_the_cache_is_beside_anthropics_input_tokens() -> None:
    cache = {"cache_read_input_tokens": 70, "cache_creation_input_tokens": 20}
    assert usage_of(input_tokens=9, output_tokens=2, **cache) == Usage(99, 2, 70, "reported", 20)
    assert usage_of(input_tokens=9, output_tokens=2) == Usage(9, 2, 0, "reported")
    assert whole(99, 2, **cache) == Usage(99, 2, 70, "reported", 20)


def test_what_stands_beside_takes_nothing_away_where_it_is_below_zero() -> None:
    cache = {"cache_read_input_tokens": -4, "cache_creation_input_tokens": -1}
    assert usage_of(input_tokens=9, output_tokens=2, **cache) == Usage(9, 2, 0, "reported")
    assert whole(9, 2, citation_tokens=-4, reasoning_tokens=-1) == Usage(9, 2, 0, "reported")


def test_openais_words_win_where_both_are_said() -> None:
    assert whole(9, 2, input_tokens=0, output_tokens=0) == Usage(9, 2, 0, "reported")
    assert whole(9, 2, input_tokens="x", cached_tokens=4.0) == Usage(9, 2, 4, "reported")


NUMBERS = st.one_of(
    st.integers(-5, 50),
    st.sampled_from([None, True, "9", 12.0, 2.5, -1.0, MOST_TOKENS, 10**25, [], {}, [9], {"tokens": 9}]),
)
DETAILS = st.dictionaries(
    st.sampled_from(["cached_tokens", "audio_tokens", "reasoning_tokens", "cache_write_tokens", "x"]), NUMBERS
)
OBJECTS = st.dictionaries(
    st.sampled_from(
        [
            *("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens"),
            *("cached_tokens", "prompt_cache_hit_tokens", "num_cached_tokens", "reasoning_tokens"),
            *("cache_read_input_tokens", "cache_creation_input_tokens", "citation_tokens"),
            "prompt_audio_seconds",
        ]
    ),
    NUMBERS,
)


@given(OBJECTS, st.one_of(DETAILS, NUMBERS), st.one_of(DETAILS, NUMBERS))
@example({"prompt_tokens": 9, "completion_tokens": 2}, {"cached_tokens": 4}, {"reasoning_tokens": 1})
def test_whatever_is_said_is_usage_that_can_be_booked_or_none(said: Any, given: Any, made: Any) -> None:
    usage = usage_of({**said, "prompt_tokens_details": given, "completion_tokens_details": made})
    if usage is None:
        return
    assert usage.basis == "reported"
    for name in usage.__struct_fields__:
        tokens = getattr(usage, name)
        assert name == "basis" or (type(tokens) is int and 0 <= tokens <= MOST_TOKENS)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=9))
def test_whatever_else_is_said_is_none(value: Any) -> None:
    assert reported(Raw(json.dumps(value).encode())) is None


def test_an_estimate_says_that_it_is_one() -> None:
    assert estimated(9, 5) == Usage(9, 5, 0, "estimated")
