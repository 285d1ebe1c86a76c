"""What is taken for an answer, byte for byte, and what is not."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.relay.transports.http1_reading import (
    LARGEST_HEAD,
    LARGEST_LINE,
    LARGEST_SIZE_LINE,
    MOST_INTERIM,
    Head,
    NotHttp,
    Reading,
)

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
TWO = b"Content-Length: 2\r\n\r\n{}"


def read(*parts: bytes, ends: bool = False) -> Reading:
    reading = Reading()
    for part in parts:
        reading.feed(part)
    if ends:
        reading.end()
    return reading


def head_of(data: bytes) -> Head:
    head = read(data).head
    assert head is not None
    return head


def test_an_answer_in_one_piece() -> None:
    reading = read(OK + b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
    assert reading.head == Head(200, "1.1", 2, chunked=False, keep=True, content_type="application/json")
    assert (reading.take(), reading.over, reading.can_be_followed) == (b"{}", True, True)


def test_what_the_relay_reads_of_the_fields() -> None:
    head = head_of(
        b"HTTP/1.1 429\r\nCONTENT-TYPE:text/event-stream \r\ncontent-encoding:\tgzip\t\r\nRetry-After: 7\r\n"
        b"retry-after-ms: 7000\r\nX-Content-Length: 9\r\nX: Content-Length: 8\r\nContent-Length: 0\r\n\r\n"
    )
    assert head == Head(429, "1.1", 0, False, True, "text/event-stream", "gzip", "7", "7000")


def test_a_body_in_chunks_with_extensions_and_trailers() -> None:
    reading = read(CHUNKED + b"3;a=b\r\none\r\n0003 \r\ntwo\r\n0\r\nX-After: all\r\n\r\n")
    assert (reading.take(), reading.over, reading.can_be_followed) == (b"onetwo", True, True)


def test_a_body_up_to_the_end_of_the_connection() -> None:
    assert not read(OK + b"\r\nso", b" long").over
    reading = read(OK + b"\r\nso", b" long", ends=True)
    assert (reading.take(), reading.over, reading.can_be_followed) == (b"so long", True, False)


@pytest.mark.parametrize(
    "begun", [b"", OK, OK + b"Content-Length: 2\r\n\r\n{", CHUNKED, CHUNKED + b"3\r\none\r\n"]
)
def test_an_answer_that_broke_off_is_not_over(begun: bytes) -> None:
    assert not read(begun, ends=True).over


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_a_status_without_a_body(status: bytes) -> None:
    for field in (b"", b"Content-Length: 7\r\n"):
        reading = read(b"HTTP/1.1 " + status + b"\r\n" + field + b"\r\n")
        assert (reading.take(), reading.over, reading.can_be_followed) == (b"", True, True)


@pytest.mark.parametrize(
    "line", [b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified", b"HTTP/1.0 200 OK"]
)
def test_a_coding_where_there_can_be_none_ends_the_connection(line: bytes) -> None:
    fields = b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n"
    reading = read(line + b"\r\n" + fields + b"\r\n" + b"0\r\n\r\n" * (b"200" in line))
    assert (reading.take(), reading.over, reading.can_be_followed) == (b"", True, False)


@pytest.mark.parametrize(
    ("head", "keeps"),
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: Close\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: x, close\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: x\r\nConnection: close\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: x\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n", True),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive, close\r\n", False),
    ],
)
def test_whether_the_connection_may_carry_another_call(head: bytes, keeps: bool) -> None:
    assert head_of(head + TWO).keep is keeps


def test_interim_answers_are_passed_over_up_to_a_number() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\nLink: <a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    assert read(early + OK + TWO).take() == b"{}"
    many = b"HTTP/1.1 102 Processing\r\n\r\n"
    assert read(many * MOST_INTERIM + OK + TWO).take() == b"{}"
    with pytest.raises(NotHttp):
        read(many * (MOST_INTERIM + 1))


@pytest.mark.parametrize("more", [b"\0", b"{}", b"\r\n", OK + TWO])
@pytest.mark.parametrize("answer", [OK + TWO, CHUNKED + b"2\r\n{}\r\n0\r\n\r\n"])
def test_what_follows_an_answer_is_not_part_of_it(answer: bytes, more: bytes) -> None:
    for reading in (read(answer + more), read(answer, more)):
        assert (reading.take(), reading.over, reading.has_surplus) == (b"{}", True, True)
        assert not reading.can_be_followed


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/2 200\r\n",
        b"HTTP/1.2 200 OK\r\n\r\n",
        b"http/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 101 It\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"\r\n" + OK + TWO,
        b"HTTP/1.1 200 OK\n" + TWO,
        OK + b"X: a\n" + TWO,
        OK + b"X: a\n\r\n\r\n",
        OK + b"X: a\rb\r\n" + TWO,
        OK + b"X: a\0b\r\n" + TWO,
        OK + b"X: a\r\n folded\r\n" + TWO,
        OK + b" X: a\r\n" + TWO,
        OK + b"X : a\r\n" + TWO,
        OK + b": a\r\n" + TWO,
        OK + b"no colon\r\n" + TWO,
        OK + b"X\xe9: a\r\n" + TWO,
        OK + b"X: " + b"x" * (LARGEST_LINE + 1) + b"\r\n" + TWO,
        OK + b"x" * 2000 + b": x\r\n" + TWO,
        OK + b"X: a\r\n" * 256 + b"\r\n",
        OK + b"X: aaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * (LARGEST_HEAD // 30),
        OK + (b"X:" + b"x" * LARGEST_LINE + b"\r\n") * 4 + b"\r\n",
        OK + b"Content-Length: nine\r\n\r\n",
        OK + b"Content-Length: -5\r\n\r\n",
        OK + b"Content-Length: +5\r\n\r\n",
        OK + b"Content-Length: 5_0\r\n\r\n",
        OK + b"Content-Length: 0x5\r\n\r\n",
        OK + b"Content-Length:\r\n\r\n",
        OK + b"Content-Length: 2, 2\r\n\r\n",
        OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n",
        OK + b"Content-Length: " + b"9" * 19 + b"\r\n\r\n",
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"Transfer-Encoding: xchunked\r\n\r\n",
        OK + b"Transfer-Encoding:\r\n\r\n",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"-1\r\n",
        CHUNKED + b"0x3\r\none\r\n",
        CHUNKED + b"3_0\r\n",
        CHUNKED + b" 3\r\none\r\n",
        CHUNKED + b"\r\n",
        CHUNKED + b";a\r\n",
        CHUNKED + b"3\none\r\n",
        CHUNKED + b"1" * 16 + b"\r\n",
        CHUNKED + b"3;" + b"x" * LARGEST_SIZE_LINE,
        CHUNKED + b"3\r\nonetwo\r\n",
        CHUNKED + b"3\r\none\n0\r\n\r\n",
        CHUNKED + b"3\r\none\rx",
        CHUNKED + b"0\r\nno colon\r\n\r\n",
        CHUNKED + b"0\r\n" + b"X: a\r\n" * LARGEST_LINE,
    ],
)
def test_what_is_not_http(data: bytes) -> None:
    with pytest.raises(NotHttp):
        read(data)
    with pytest.raises(NotHttp):
        read(*cut(data, [1 if len(data) < 1000 else 997]))


ANSWERS = (
    OK + TWO,
    OK + TWO + OK + TWO,
    OK + b"Content-Type: text/plain\r\nConnection: close\r\n\r\nso long",
    CHUNKED + b"0\r\n\r\n",
    CHUNKED + b"3;a=b\r\none\r\n3\r\n\r\n\r\r\n0a\r\n0123456789\r\n0\r\nX-After: all\r\n\r\n",
    CHUNKED + b"3\r\none\r\n0\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 2 + b"HTTP/1.1 204 No Content\r\n\r\n",
    CHUNKED + b"3\r\none\r\nz\r\n",
    OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
)
BYTES = b"HTP1.0 2:;aX-\r\n\0\xff" + b"3"


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """An answer with a few of its bytes replaced, left out or added."""
    data = bytearray(draw(st.sampled_from(ANSWERS)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 2))] = bytes(draw(st.lists(st.sampled_from(BYTES), max_size=2)))
    return bytes(data)


def outcome(parts: list[bytes]) -> tuple[object, ...]:
    """All that a reader can learn of an answer, however its bytes came."""
    reading, taken = Reading(), b""
    try:
        for part in parts:
            reading.feed(part)
            taken += reading.take()
        reading.end()
    except NotHttp:
        return ("not HTTP", reading.head, taken + reading.take())
    return reading.head, taken, reading.over, reading.can_be_followed


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """In pieces of these sizes, over and over."""
    pieces, again = [], itertools.cycle(sizes)
    while data:
        size = next(again)
        pieces.append(data[:size])
        data = data[size:]
    return pieces


@pytest.mark.parametrize("data", ANSWERS)
def test_an_answer_in_two_pieces_is_read_as_the_whole_one(data: bytes) -> None:
    for at in range(1, len(data)):
        assert outcome([data[:at], data[at:]]) == outcome([data])


@given(mutated(), st.lists(st.integers(1, 20), min_size=1))
def test_an_answer_in_any_pieces_is_read_as_the_whole_one(data: bytes, sizes: list[int]) -> None:
    assert outcome(cut(data, sizes)) == outcome([data])


@given(st.lists(st.binary(min_size=1)), st.lists(st.integers(1, 40), min_size=1))
def test_a_body_in_chunks_is_what_was_sent(chunks: list[bytes], sizes: list[int]) -> None:
    data = CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in chunks) + b"0\r\n\r\n"
    reading = read(*cut(data, sizes))
    assert (reading.take(), reading.can_be_followed) == (b"".join(chunks), True)
