"""Requests and answers of the benchmark."""

import json

import pytest

from benchmarks.upstream import LAST, STREAM_HEAD, WHOLE, framed
from benchmarks.wire import ANSWER, AnswerReader, Wanted, body_length, event_stream, request, wanted
from gateway.relay.call import understand
from gateway.relay.upstream import usage_of_answer

STREAM = STREAM_HEAD + b"".join(framed(each) for each in event_stream(3, usage=True)) + LAST


@pytest.mark.parametrize("want", [Wanted(), Wanted(True, 32, 200, 5), Wanted(chunks=1, delay_ms=200)])
def test_the_upstream_reads_what_the_request_wants(want):
    head, _, body = request(want, 8000, "pst_key").partition(b"\r\n\r\n")

    assert body_length(head) == len(body)
    assert wanted(body) == want


def test_headers_come_on_top_of_the_usual_ones():
    plain, _, body = request(Wanted(), 8000, "pst_key").partition(b"\r\n\r\n")
    head, _, same = request(Wanted(), 8000, "pst_key", [("x-one", "1"), ("x-two", "2")]).partition(
        b"\r\n\r\n"
    )

    assert same == body
    assert set(head.split(b"\r\n")) - set(plain.split(b"\r\n")) == {b"x-one: 1", b"x-two: 2"}


def test_what_is_wanted_survives_the_relay():
    _, _, body = request(Wanted(True, 32, 200, 5), 8000, "pst_key").partition(b"\r\n\r\n")

    call = understand(body, 0.0, {})

    assert wanted(call.body_for("gpt-4o-mini", call.fields)) == Wanted(True, 32, 200, 5, usage=True)


def test_the_answer_has_usage_that_the_relay_can_read():
    assert usage_of_answer(ANSWER).basis == "reported"


@pytest.mark.parametrize("at", [1, 7, 40, 80, len(WHOLE) - 1])
def test_a_whole_answer_is_read_however_it_is_cut(at):
    reader = AnswerReader()

    assert reader.feed(WHOLE[:at]) is False
    assert reader.feed(WHOLE[at:]) is True
    assert (reader.status, reader.body) == (200, ANSWER)


@pytest.mark.parametrize("size", [1, 3, 17, 200, len(STREAM)])
def test_events_are_counted_however_a_stream_is_cut(size):
    reader = AnswerReader()

    fed = [reader.feed(STREAM[at : at + size]) for at in range(0, len(STREAM), size)]

    assert fed == [False] * (len(fed) - 1) + [True]
    assert (reader.events(), reader.pieces) == (5, 5)


def test_merged_chunks_are_fewer_pieces_and_the_same_events():
    reader = AnswerReader()

    assert reader.feed(STREAM_HEAD + framed(b"".join(event_stream(3, usage=False))) + LAST) is True
    assert (reader.events(), reader.pieces) == (4, 1)


def test_every_event_but_the_last_is_json():
    *chunks, done = event_stream(2, usage=True)

    assert done == b"data: [DONE]\n\n"
    assert [json.loads(each[6:])["usage"] is None for each in chunks] == [True, True, False]
