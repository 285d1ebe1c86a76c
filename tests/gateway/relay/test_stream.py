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


def test_usage_in_a_choice_counts_and_its_bytes_pass_untouched() -> None:
    for pass_usage in (False, True):
        read = reader(pass_usage=pass_usage)
        event = b'data: {"choices":[{"delta":{},"usage" : ' + USAGE + b',"x":1.0e0}]}\n\n'

        assert read.feed(LO + event) == LO + event
        assert read.usage == Usage(9, 2, 0, "reported")


def test_groqs_own_object_counts_and_its_bytes_pass_untouched() -> None:
    read = reader()
    first = b'data: {"choices":[{"delta":{"role":"assistant"}}],"x_groq":{"id":"req_1"}}\n\n'
    event = b'data: {"choices":[{"delta":{}}],"x_groq":{"id":"req_1", "usage":' + USAGE + b"}}\n\n"

    assert read.feed(first) == first
    assert read.usage is None
    assert read.feed(LO + event + DONE) == LO + event
    assert read.usage == Usage(9, 2, 0, "reported")


@pytest.mark.parametrize("odd", [b"1", b"[]", b"null", b'"usage"', b'{"usage":null}', b'{"usage":[1]}'])
def test_odd_things_in_the_places_of_usage_say_nothing(odd: bytes) -> None:
    read = reader()
    events = b'data: {"choices":[{"delta":{},"usage":%b}]}\n\ndata: {"choices":[],"x_groq":%b}\n\n' % (
        odd,
        odd,
    )

    assert read.feed(LO + events + DONE) == LO + events
    assert read.usage is None


def test_usage_beside_the_choices_wins_over_the_other_places_of_its_chunk() -> None:
    read = reader()
    other = b'{"prompt_tokens":1,"completion_tokens":1}'
    event = b'data: {"choices":[{"delta":{},"usage":%b}],"x_groq":{"usage":%b},"usage":%b}\n\n'

    read.feed(event % (other, other, USAGE))

    assert read.usage == Usage(9, 2, 0, "reported")


@pytest.mark.parametrize("last", [b"null", b"{}", b'{"prompt_tokens":-1}', b'"9"'])
def test_usage_that_cannot_be_used_does_not_undo_what_was_reported(last: bytes) -> None:
    read = reader()

    read.feed(LAST + b'data: {"choices":[],"usage":' + last + b"}\n\n" + DONE)

    assert read.usage == Usage(9, 2, 0, "reported")


@pytest.mark.parametrize("tokens", [(1, 2, 3), (3, 2, 1), (3, 3, 0)])
def test_of_usage_on_every_chunk_the_last_counts_whether_it_grows_or_not(tokens: tuple[int, ...]) -> None:
    read = reader()
    event = b'data: {"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":9,'
    event += b'"completion_tokens":%d}}\n\n'

    for each in tokens:
        assert read.feed(event % each) == b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
        assert read.usage == Usage(9, each, 0, "reported")


def test_usage_of_an_unfinished_stream_counts_only_while_nothing_more_is_said() -> None:
    read = reader()
    early = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":0}}\n\n'

    read.feed(early)
    assert read.usage == Usage(9, 0, 0, "reported")
    read.feed(HEL)
    assert read.usage is None
    read.feed(DONE)
    assert read.usage == Usage(9, 0, 0, "reported")


def test_reasoning_that_is_sent_under_both_names_is_counted_once() -> None:
    read, once = reader(), reader()
    read.feed(b'data: {"choices":[{"delta":{"reasoning":" water","reasoning_content":" water"}}]}\n\n')
    once.feed(b'data: {"choices":[{"delta":{"content":" water"}}]}\n\n')

    assert read.said.tokens("gpt-4o") == once.said.tokens("gpt-4o") == 1


def test_content_is_noticed_only_when_there_is_some() -> None:
    read = reader()
    read.feed(FIRST)
    assert not read.spoke
    read.feed(HEL)
    assert read.spoke


@pytest.mark.parametrize("name", ["tool_calls", "reasoning_content", "reasoning", "refusal"])
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
