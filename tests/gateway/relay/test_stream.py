import json
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UpstreamFailed
from gateway.relay.records import Usage
from gateway.relay.stream import EventReader

USAGE = b'{"prompt_tokens":9,"completion_tokens":2}'
FIRST = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
HEL = b'data: {"choices":[{"delta":{"content":"Hel"}}], "x": 1.0e0}\n\n'
LO = b'data: {"choices":[{"delta":{"content":"lo"}}]}\n\n'
LAST = b'data: {"choices":[],"usage":' + USAGE + b"}\n\n"
DONE = b"data: [DONE]\n\n"


def reader(*, pass_usage: bool = False, limit: int = 10_000) -> EventReader:
    return EventReader(pass_usage=pass_usage, limit=limit)


def test_events_are_handed_on_in_their_own_bytes_and_the_end_is_held_back() -> None:
    read = reader(pass_usage=True)

    assert read.feed(FIRST + HEL + LO + LAST + DONE) == FIRST + HEL + LO + LAST
    assert read.done
    assert read.usage == Usage(9, 2, 0, "reported")
    assert read.said.tokens("gpt-4o") == 1  # "Hel" and "lo" are one


def test_usage_that_nobody_asked_for_is_kept_here() -> None:
    read = reader()

    assert read.feed(FIRST + HEL + LAST + DONE) == FIRST + HEL
    assert read.usage == Usage(9, 2, 0, "reported")


def test_usage_beside_choices_is_taken_out_and_the_choices_stay() -> None:
    read = reader()
    event = b'data: {"choices":[{"delta":{"content":"lo"}}],"usage":' + USAGE + b',"id":"x"}\n\n'

    assert read.feed(event) == b'data: {"choices":[{"delta":{"content":"lo"}}],"id":"x"}\n\n'
    assert read.usage == Usage(9, 2, 0, "reported")
    assert read.said.tokens("gpt-4o") == 1


def test_the_last_usage_counts_where_it_is_repeated() -> None:
    read = reader(pass_usage=True)
    early = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1}}\n\n'

    read.feed(early + LAST)

    assert read.usage == Usage(9, 2, 0, "reported")


def test_content_is_noticed_only_when_there_is_some() -> None:
    read = reader()
    read.feed(FIRST)
    assert not read.spoke
    read.feed(HEL)
    assert read.spoke


@pytest.mark.parametrize("name", ["tool_calls", "reasoning_content", "refusal"])
def test_what_is_said_in_other_words_is_content_too(name: str) -> None:
    read = reader()
    read.feed(b'data: {"choices":[{"delta":{"%s":[1]}}]}\n\n' % name.encode())
    assert read.spoke


def test_comments_and_other_shapes_pass_through() -> None:
    odd = b': keep-alive\n\ndata: {"choices":"none","y":1}\n\nevent: ping\ndata: 5\n\n'

    assert reader().feed(odd) == odd


def test_carriage_returns_end_lines_too_even_when_split() -> None:
    read = reader()

    handed_on = b"".join(
        read.feed(each) for each in (HEL[:-2] + b"\r", b"\n\r", b"\n" + DONE[:-2] + b"\r\n\r\n")
    )

    assert handed_on == HEL
    assert read.done


@pytest.mark.parametrize(
    "event", [b"data: {broken\n\n", b"data: {}x\n\n", b"data: <html>\n\n", b'data: "\xff\n\n']
)
def test_an_event_that_is_not_json_breaks_the_stream(event: bytes) -> None:
    with pytest.raises(UpstreamFailed, match="not JSON"):
        reader().feed(event)


def test_what_comes_together_with_an_error_is_handed_on_before_it() -> None:
    it = reader()
    spoken = b'data: {"choices":[{"delta":{"content":"drop"}}]}\n\n'

    assert it.feed(spoken + b'data: {"error":{"message":"out of water"}}\n\n') == spoken
    assert "out of water" in str(it.failure)
    assert it.said.tokens("gpt-4o") == 1


def test_an_error_event_of_the_provider_is_an_error() -> None:
    with pytest.raises(UpstreamFailed, match="out of water"):
        reader().feed(b'data: {"error":{"message":"out of water"}}\n\n')


def test_an_endless_event_is_not_held() -> None:
    read = reader(limit=1000)
    with pytest.raises(UpstreamFailed, match="larger than 1000"):
        read.feed(b"data: " + b"x" * 1000)


def test_what_follows_the_end_is_not_handed_on() -> None:
    assert reader().feed(HEL + DONE + LO) == HEL


@given(st.lists(st.integers(0, 400), max_size=12), st.booleans())
def test_however_the_bytes_are_cut_the_same_is_handed_on(cuts: list[int], pass_usage: bool) -> None:
    whole = FIRST + HEL + b": ping\n\n" + LO + LAST + DONE
    read = reader(pass_usage=pass_usage)
    places = [0, *sorted(min(each, len(whole)) for each in cuts), len(whole)]

    handed_on = b"".join(read.feed(whole[a:b]) for a, b in pairwise(places))

    assert handed_on == FIRST + HEL + b": ping\n\n" + LO + (LAST if pass_usage else b"")
    assert read.done
    assert read.usage == Usage(9, 2, 0, "reported")
    assert read.said.tokens("gpt-4o") == 1  # "Hel" and "lo" are one


def test_no_event_is_json_of_two_opinions() -> None:
    read = reader()
    handed_on = read.feed(
        b'data: {"choices":[{"delta":{"content":"a"}}],"usage":' + USAGE + b',"usage":null}\n\n'
    )
    assert json.loads(handed_on[6:])["choices"]


def test_a_large_event_that_comes_bit_by_bit_is_not_searched_again_for_each_bit() -> None:
    """Against the time that one copy for each bit takes in the same run."""
    read = reader(limit=1 << 21)
    event = b'data: {"choices":[{"delta":{"content":"' + b"x" * (1 << 20) + b'"}}]}\n\n'
    pieces = [event[at : at + 100] for at in range(0, len(event), 100)]

    began = time.process_time()
    handed_on = b"".join(read.feed(each) for each in pieces)
    bit_by_bit_s = time.process_time() - began

    began = time.process_time()
    for _ in pieces:
        _ = b"x" * len(event)  # one copy of it for each piece
    assert handed_on == event
    assert bit_by_bit_s < time.process_time() - began
