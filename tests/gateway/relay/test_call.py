import json
import os
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidCall
from gateway.relay.call import MOST_TOKENS, Call, new_call_id, understand

HELLO = [{"role": "user", "content": "Hello"}]


def body(**fields: object) -> bytes:
    return json.dumps({"model": "gpt-4o", "messages": HELLO, **fields}).encode()


def test_a_call_id_is_a_uuid_of_version_7() -> None:
    made = uuid.UUID(new_call_id(1_700_000_000_123_000_000))

    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == 1_700_000_000_123


def test_call_ids_sort_by_time_and_differ() -> None:
    earlier = new_call_id(1_700_000_000_000_000_000)
    later = {new_call_id(1_700_000_001_000_000_000) for _ in range(1000)}

    assert len(later) == 1000
    assert all(earlier < each for each in later)


def sent(call: Call, upstream_model: str) -> bytes:
    return call.body_for(upstream_model, call.fields)


def test_only_the_model_name_changes_on_the_way_up() -> None:
    raw = (
        b'{"temperature": 1.0e0, "model":"gpt-4o",'
        b'"messages":[ {"content":"\\u00e9 \xc3\xa9","role":"user"} ],"x":0.10}'
    )

    up = sent(understand(raw, 0.0), "gpt-4o-2024")

    assert up == (
        b'{"temperature":1.0e0,"model":"gpt-4o-2024",'
        b'"messages":[ {"content":"\\u00e9 \xc3\xa9","role":"user"} ],"x":0.10}'
    )


def test_a_doubled_key_goes_up_once_as_we_read_it() -> None:
    raw = b'{"model":"a","model":"b","messages":[],"messages":[1]}'

    call = understand(raw, 0.0)

    assert call.model_name == "b"
    assert call.body_for("c", call.fields) == b'{"model":"c","messages":[1]}'


def test_usage_is_always_asked_for_of_a_stream() -> None:
    call = understand(body(stream=True, stream_options={"include_obfuscation": False}), 0.0)

    assert json.loads(call.body_for("m", call.fields))["stream_options"] == {
        "include_obfuscation": False,
        "include_usage": True,
    }
    assert not call.wants_usage


def test_a_client_that_asked_for_usage_is_known() -> None:
    assert understand(body(stream=True, stream_options={"include_usage": True}), 0.0).wants_usage
    assert not understand(body(stream_options={"include_usage": True}), 0.0).wants_usage


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, 1000),
        ({"max_tokens": 7}, 7),
        ({"max_tokens": 7, "max_completion_tokens": 9}, 9),
        ({"max_tokens": 7, "n": 3}, 21),
        ({"max_tokens": None, "n": None}, 1000),
        ({"max_tokens": -5}, 0),
        ({"max_tokens": 10**30}, MOST_TOKENS),
    ],
)
def test_the_bound_of_output_tokens(fields: dict[str, object], expected: int) -> None:
    assert understand(body(**fields), 0.0).max_tokens == expected


@pytest.mark.parametrize(
    ("raw", "param", "says"),
    [
        (b"", None, "byte 0"),
        (b"{", None, "byte 1"),
        (b'{"model": }', None, "byte 10"),
        (b"[]", None, "JSON object"),
        (b'"text"', None, "JSON object"),
        (b'{"a":"\xff"}', None, "not UTF-8: invalid start byte at byte 6"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None, "too deep"),
        (b'{"messages":[]}', "model", "missing"),
        (b'{"model":"","messages":[]}', "model", "missing"),
        (b'{"model":5,"messages":[]}', "model", "a string"),
        (b'{"model":"m"}', "messages", "missing"),
        (b'{"model":"m","messages":{}}', "messages", "a list"),
        (b'{"model":"m","messages":"x"}', "messages", "a list"),
        (b'{"model":"m","messages":[],"stream":"yes"}', "stream", "true or false"),
        (b'{"model":"m","messages":[],"max_tokens":"many"}', "max_tokens", "whole number"),
        (b'{"model":"m","messages":[],"stream":true,"stream_options":5}', "stream_options", "an object"),
    ],
)
def test_what_cannot_be_understood_gets_a_sentence(raw: bytes, param: str | None, says: str) -> None:
    with pytest.raises(InvalidCall, match=r".+") as why:
        understand(raw, 0.0)

    assert says in why.value.message
    assert why.value.param == param
    assert why.value.status == 400


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(raw: bytes) -> None:
    try:
        understand(raw, 0.0)
    except InvalidCall as why:
        assert why.message  # noqa: PT017


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists), max_size=5))
def test_values_we_do_not_act_on_keep_their_meaning(extra: dict[str, object]) -> None:
    extra = {name: value for name, value in extra.items() if name not in ("model", "messages", "stream", "n")}
    extra = {name: value for name, value in extra.items() if "max_" not in name and "stream" not in name}

    up = json.loads(sent(understand(body(**extra), 0.0), "m"))

    assert up == {**extra, "model": "m", "messages": HELLO}


def test_processes_that_are_forked_draw_ids_of_their_own() -> None:
    """Workers are forks of one process, and may be asked in the same millisecond."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, new_call_id(1_700_000_000_000_000_000).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 36).decode() != new_call_id(1_700_000_000_000_000_000)
    os.close(reading)
    os.close(writing)
