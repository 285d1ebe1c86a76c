"""Requests and answers of the benchmark."""

import json

import pytest

from benchmarks.upstream import LAST, STREAM_HEAD, WHOLE, framed, whole
from benchmarks.wire import (
    ANSWER,
    MODEL_NAME,
    TEXT,
    AnswerReader,
    Wanted,
    answer,
    body_length,
    event_stream,
    request,
    text_of,
    wanted,
)
from gateway.relay.call import understand
from gateway.relay.upstream import usage_of_answer

STREAM = STREAM_HEAD + b"".join(framed(each) for each in event_stream(3, usage=True)) + LAST


@pytest.mark.parametrize(
    "want", [Wanted(), Wanted(True, 32, 200, 5), Wanted(delay_ms=200, answer_bytes=32_768)]
)
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


@pytest.mark.parametrize("size", [1, 251, 32_768, 1_048_576])
def test_text_has_the_size_that_was_asked_for(size):
    assert len(text_of(size)) == size


def test_a_request_has_so_much_more_text_and_the_model_name_it_is_given():
    short, long, named = (
        request(Wanted(), 8000, "pst_key", **each).partition(b"\r\n\r\n")[2]
        for each in ({}, {"prompt_bytes": 32_768}, {"model_name": "another"})
    )

    assert len(long) == len(short) + 32_768
    assert [json.loads(each)["model"] for each in (short, long, named)] == [MODEL_NAME, MODEL_NAME, "another"]


def test_an_answer_has_so_much_text_and_the_same_usage():
    usual, large = json.loads(answer()), json.loads(answer(32_768))

    assert usual["choices"][0]["message"]["content"] == TEXT
    assert len(large["choices"][0]["message"]["content"]) == 32_768
    assert large["usage"] == usual["usage"]
    assert body_length(whole(32_768).partition(b"\r\n\r\n")[0]) == len(answer(32_768))


def test_the_chunks_of_a_stream_share_its_text():
    *chunks, _ = event_stream(32, usage=False, size=32_768)

    assert [len(json.loads(each[6:])["choices"][0]["delta"]["content"]) for each in chunks] == [1024] * 32
