"""Bytes become requests, or are refused."""

import pytest

from gateway.simulator import http1
from gateway.simulator.http1 import Malformed, RequestReader

COUNTED = b"POST /v1/x?y=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nX-Two: a\r\nx-two: b\r\n\r\nhello"
CHUNKED = (
    b"POST /v1/x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
    b"3;name=x\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
)


def read(data):
    reader = RequestReader()
    reader.feed(data)
    return reader.take()


def test_a_request_is_read_with_its_headers_in_order():
    request = read(COUNTED)
    assert (request.head.method, request.head.target, request.body) == ("POST", b"/v1/x?y=1", b"hello")
    assert request.head.values(b"x-two") == [b"a", b"b"]


@pytest.mark.parametrize("data", [COUNTED, CHUNKED])
def test_a_request_is_whole_only_with_its_last_byte(data):
    reader = RequestReader()
    for number in range(len(data)):
        assert reader.take() is None
        reader.feed(data[number : number + 1])
    assert reader.take().body == b"hello"


def test_one_request_after_another_is_read_from_the_same_bytes():
    reader = RequestReader()
    reader.feed(CHUNKED + COUNTED)
    assert reader.take().head.target == b"/v1/x"
    assert reader.take().head.target == b"/v1/x?y=1"
    assert reader.take() is None


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"HEAD / HTTP/1.1\r\n\r\n", False),
    ],
)
def test_a_connection_is_kept_unless_there_is_a_reason(head, kept):
    assert read(head).head.keep_alive is kept


def test_a_client_that_waits_for_a_word_is_noticed():
    reader = RequestReader()
    reader.feed(b"POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
    assert reader.take() is None
    assert reader.awaits_continue
    reader.feed(b"h")
    assert not reader.awaits_continue


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /\r\n\r\n", 400),
        (b"get / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nspace : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\na: b\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\na: b\x00c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\na: b\nc: d\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\ncontent-length: 999999999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc", 400),
        (b"GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nfffffff\r\n", 413),
        (b"GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n" + b"1" * 2000, 400),
        (b"GET / HTTP/1.1\r\na: " + b"b" * http1.MAX_HEAD_BYTES, 431),
    ],
)
def test_what_is_malformed_is_refused(data, status):
    with pytest.raises(Malformed) as refusal:
        read(data)
    assert refusal.value.status == status


def test_chunks_together_may_not_be_larger_than_a_body():
    reader = RequestReader()
    reader.feed(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")
    chunk = b"%x\r\n%b\r\n" % (1 << 20, b"x" * (1 << 20))
    for _ in range(http1.MAX_BODY_BYTES // (1 << 20)):
        reader.feed(chunk)
        assert reader.take() is None
    reader.feed(chunk)
    with pytest.raises(Malformed) as refusal:
        reader.take()
    assert refusal.value.status == 413
