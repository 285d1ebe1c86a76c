"""Requests that are not quite HTTP/1.1: refused and the connection closed, or read in the one right way.

What counts is what the provider received, never what we say of it.
"""

import pytest

from tests.system.hostile.door import CALLS, HOST, JSON, LAST, chat
from tests.system.raw import chunked, request

BODY = chat()
SMUGGLED = chat(text="smuggled")
LENGTH = b"Content-Length: %d" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked"

MALFORMED_LINES = {
    "no version": b"POST /v1/chat/completions",
    "empty version": b"POST /v1/chat/completions ",
    "version 0.9": b"POST /v1/chat/completions HTTP/0.9",
    "version 1.2": b"POST /v1/chat/completions HTTP/1.2",
    "version 2.0": b"POST /v1/chat/completions HTTP/2.0",
    "version 11": b"POST /v1/chat/completions HTTP/11",
    "version in lower case": b"POST /v1/chat/completions http/1.1",
    "version of another protocol": b"POST /v1/chat/completions HTTPS/1.1",
    "words after the version": b"POST /v1/chat/completions HTTP/1.1 x",
    "blank before the method": b" POST /v1/chat/completions HTTP/1.1",
    "blank in the method": b"PO ST /v1/chat/completions HTTP/1.1",
    "control character in the method": b"PO\x01ST /v1/chat/completions HTTP/1.1",
    "two blanks": b"POST  /v1/chat/completions HTTP/1.1",
    "tabs": b"POST\t/v1/chat/completions\tHTTP/1.1",
    "blank in the target": b"POST /v1/chat/ completions HTTP/1.1",
    "control character in the target": b"POST /v1/chat/completions\x01 HTTP/1.1",
    "NUL in the target": b"POST /v1/chat/completions\x00 HTTP/1.1",
    "byte above ASCII in the target": b"POST /v1/chat/completions\xff HTTP/1.1",
    "no target": b"POST HTTP/1.1",
    "nothing": b"HTTP/1.1",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}
MALFORMED_HEADERS = {
    "NUL in a value": b"X-A: a\x00b",
    "control character in a value": b"X-A: a\x07b",
    "carriage return in a value": b"X-A: a\rb",
    "delete in a value": b"X-A: a\x7fb",
    "blank in a name": b"X A: b",
    "blank before the colon": b"X-A : b",
    "tab before the colon": b"X-A\t: b",
    "control character in a name": b"X\x01A: b",
    "byte above ASCII in a name": b"X-\xc3\xa4: b",
    "empty name": b": b",
    "no colon": b"X-A",
    "folded with a blank": b"X-A: a\r\n b",
    "folded with a tab": b"X-A: a\r\n\tb",
    "folded before the first": b" X-A: a",
}
MALFORMED_LENGTHS = {
    "empty": [b"Content-Length:"],
    "negative": [b"Content-Length: -1"],
    "signed": [b"Content-Length: +%d" % len(BODY)],
    "in hexadecimal": [b"Content-Length: 0x%x" % len(BODY)],
    "with an exponent": [b"Content-Length: 1e1"],
    "with a fraction": [b"Content-Length: %d.0" % len(BODY)],
    "of two numbers": [b"Content-Length: 5 5"],
    "listed twice": [b"Content-Length: %d, %d" % (len(BODY), len(BODY))],
    "listed with another": [b"Content-Length: 5, %d" % len(BODY)],
    "doubled with another": [LENGTH, b"Content-Length: 5"],
    "doubled with another, the small one first": [b"Content-Length: 5", LENGTH],
    "beyond 64 bits": [b"Content-Length: 99999999999999999999"],
}
MALFORMED_CODINGS = {
    "gzip": [b"Transfer-Encoding: gzip"],
    "identity": [b"Transfer-Encoding: identity"],
    "gzip, then chunked": [b"Transfer-Encoding: gzip, chunked"],
    "chunked, then gzip": [b"Transfer-Encoding: chunked, gzip"],
    "chunked twice": [b"Transfer-Encoding: chunked, chunked"],
    "two headers": [CHUNKED, CHUNKED],
    "two headers, one of them gzip": [b"Transfer-Encoding: gzip", CHUNKED],
    "an unknown one": [b"Transfer-Encoding: xchunked"],
    "quoted": [b'Transfer-Encoding: "chunked"'],
    "a control character before it": [b"Transfer-Encoding: \x0bchunked"],
    "a blank before the colon": [b"Transfer-Encoding : chunked"],
    "empty": [b"Transfer-Encoding:"],
}
SIZE = b"%x" % len(BODY)
END = b"\r\n0\r\n\r\n"
MALFORMED_CHUNKS = {
    "a size of letters": b"zz\r\n" + BODY + END,
    "no size": b"\r\n" + BODY + END,
    "a negative size": b"-1\r\n" + BODY + END,
    "a signed size": b"+" + SIZE + b"\r\n" + BODY + END,
    "a size with 0x": b"0x" + SIZE + b"\r\n" + BODY + END,
    "a size beyond 64 bits": b"ffffffffffffffffff\r\n" + BODY + END,
    "a size that is too small": b"%x\r\n" % (len(BODY) - 2) + BODY + END,
    "bytes after a chunk": SIZE + b"\r\n" + BODY + b"xx" + END,
    "bare line feeds": SIZE + b"\n" + BODY + b"\n0\n\n",
    "a line feed in an extension": SIZE + b";\nx\r\n" + BODY + END,
    "a malformed trailer": SIZE + b"\r\n" + BODY + b"\r\n0\r\nX T a\r\n\r\n",
}


def refused(door, data):
    """Refused and closed, and the provider knows nothing of it."""
    answer, rest = door.send(data)
    assert rest == b""
    assert door.caused() == []
    return answer.status


@pytest.mark.parametrize("line", MALFORMED_LINES.values(), ids=MALFORMED_LINES)
def test_a_malformed_request_line_is_refused(door, line):
    assert refused(door, door.post(BODY, line=line)) == 400


@pytest.mark.parametrize("header", MALFORMED_HEADERS.values(), ids=MALFORMED_HEADERS)
def test_a_malformed_header_is_refused(door, header):
    assert refused(door, request(CALLS, header, HOST, door.key, JSON, LENGTH, body=BODY)) == 400


@pytest.mark.parametrize("lengths", MALFORMED_LENGTHS.values(), ids=MALFORMED_LENGTHS)
def test_a_malformed_or_doubled_length_is_refused(door, lengths):
    assert refused(door, request(CALLS, HOST, door.key, JSON, *lengths, body=BODY)) == 400


@pytest.mark.parametrize("codings", MALFORMED_CODINGS.values(), ids=MALFORMED_CODINGS)
def test_another_transfer_coding_than_chunked_is_refused(door, codings):
    assert refused(door, request(CALLS, HOST, door.key, JSON, *codings, body=chunked(BODY))) == 400


@pytest.mark.parametrize("body", MALFORMED_CHUNKS.values(), ids=MALFORMED_CHUNKS)
def test_a_malformed_chunk_is_refused(door, body):
    assert refused(door, request(CALLS, HOST, door.key, JSON, CHUNKED, body=body)) == 400


def test_http_2_without_tls_is_not_spoken(door):
    answer, rest = door.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert (answer.status, rest) == (0, b"")


def test_chunks_are_not_for_http_1_0(door):
    line = b"POST /v1/chat/completions HTTP/1.0"
    assert refused(door, request(line, HOST, door.key, JSON, CHUNKED, body=chunked(BODY))) == 400


TOLERATED = {
    "an empty line first": lambda door: b"\r\n" + door.post(BODY, LAST),
    "line feeds alone": lambda door: door.post(BODY, LAST).replace(b"\r\n", b"\n"),
    "the same length twice": lambda door: door.post(BODY, LENGTH, LAST),
    "the target with its host": lambda door: door.post(
        BODY, LAST, line=b"POST http://localhost/v1/chat/completions HTTP/1.1"
    ),
    "HTTP/1.0": lambda door: door.post(BODY, line=b"POST /v1/chat/completions HTTP/1.0"),
    "a byte above ASCII in a value": lambda door: door.post(BODY, b"X-A: \xe9", LAST),
    "an unknown expectation": lambda door: door.post(BODY, b"Expect: nonsense", LAST),
    "a client that waits for 100": lambda door: door.post(BODY, b"Expect: 100-continue", LAST),
    "an upgrade to HTTP/2": lambda door: door.post(BODY, b"Upgrade: h2c", b"Connection: Upgrade, close"),
    "chunks": lambda door: in_chunks(door, chunked(BODY[:7], BODY[7:])),
    "chunks of one byte": lambda door: in_chunks(
        door, chunked(*(BODY[at : at + 1] for at in range(len(BODY))))
    ),
    "a chunk's extension": lambda door: in_chunks(door, SIZE + b";a=b\r\n" + BODY + END),
    "a chunk's size with a blank": lambda door: in_chunks(door, SIZE + b" \r\n" + BODY + END),
    "a chunk's size with zeros": lambda door: in_chunks(door, b"0" * 20 + SIZE + b"\r\n" + BODY + END),
    "a trailer": lambda door: in_chunks(door, SIZE + b"\r\n" + BODY + b"\r\n0\r\nX-T: a\r\n\r\n"),
    "a coding in capitals": lambda door: in_chunks(door, chunked(BODY), b"Transfer-Encoding: CHUNKED"),
}


def in_chunks(door, body, coding=CHUNKED):
    return request(CALLS, HOST, door.key, JSON, coding, LAST, body=body)


@pytest.mark.parametrize("ask", TOLERATED.values(), ids=TOLERATED)
def test_what_may_be_tolerated_is_one_call(door, ask):
    answer, rest = door.send(ask(door))

    assert (answer.status, answer.whole, rest) == (200, True, b"")
    assert len(door.caused()) == 1


HIDDEN = {
    "a length, and chunks that end early": lambda door, inner: request(
        *(CALLS, HOST, door.key, JSON, CHUNKED, b"Content-Length: %d" % (5 + len(inner))),
        body=b"0\r\n\r\n" + inner,
    ),
    "chunks, and a length that ends early": lambda door, inner: request(
        CALLS, HOST, door.key, JSON, b"Content-Length: 4", CHUNKED, body=chunked(inner)
    ),
    "the length of the first chunk": lambda door, inner: request(
        CALLS, HOST, door.key, JSON, LENGTH, CHUNKED, body=chunked(BODY, inner)
    ),
    "a coding that hides behind a blank": lambda door, inner: request(
        CALLS, HOST, door.key, JSON, LENGTH, b"Transfer-Encoding : chunked", body=BODY[:5] + inner
    ),
    "a coding that hides in a folded line": lambda door, inner: request(
        CALLS, HOST, door.key, JSON, LENGTH, b"X: y\r\n Transfer-Encoding: chunked", body=BODY + inner
    ),
    "a coding that hides behind a vertical tab": lambda door, inner: request(
        CALLS, HOST, door.key, JSON, b"Transfer-Encoding:\x0bchunked", body=chunked(BODY) + inner
    ),
    "a coding that hides behind another": lambda door, inner: request(
        CALLS, HOST, door.key, JSON, CHUNKED, b"Transfer-Encoding: x", body=b"0\r\n\r\n" + inner
    ),
    "two lengths": lambda door, inner: request(
        CALLS, HOST, door.key, JSON, LENGTH, b"Content-Length: %d" % len(BODY + inner), body=BODY + inner
    ),
    "a chunk's extension": lambda door, inner: request(
        CALLS, HOST, door.key, JSON, CHUNKED, body=b"0;\n" + inner + b"\r\n\r\n"
    ),
    "a trailer": lambda door, inner: request(
        CALLS, HOST, door.key, JSON, CHUNKED, body=SIZE + b"\r\n" + BODY + b"\r\n0\r\nX: " + inner
    ),
    "a header's value": lambda door, inner: request(
        CALLS, HOST, door.key, JSON, LENGTH, b"X: \r" + inner, body=BODY
    ),
    "a refused body": lambda door, inner: request(
        CALLS, HOST, b"Authorization: Bearer wrong", JSON, b"Content-Length: %d" % len(inner), body=inner
    ),
    "a large refused body": lambda door, inner: request(
        CALLS,
        *(HOST, b"Authorization: Bearer wrong", JSON, b"Content-Length: %d" % (300_000 + len(inner))),
        body=b" " * 300_000 + inner,
    ),
    "the body of the wrong method": lambda door, inner: request(
        b"PUT /v1/chat/completions HTTP/1.1",
        *(HOST, door.key, JSON, b"Content-Length: %d" % len(inner)),
        body=inner,
    ),
    "the body of an unknown path": lambda door, inner: request(
        b"POST /v1/nothing HTTP/1.1",
        *(HOST, door.key, JSON, b"Content-Length: %d" % len(inner)),
        body=inner,
    ),
    "the body of another kind": lambda door, inner: request(
        CALLS, HOST, door.key, b"Content-Type: text/plain", b"Content-Length: %d" % len(inner), body=inner
    ),
    "the body of a GET": lambda door, inner: request(
        b"GET /v1/models HTTP/1.1", HOST, door.key, b"Content-Length: %d" % len(inner), body=inner
    ),
    "the chunks of a GET": lambda door, inner: request(
        b"GET /v1/models HTTP/1.1", HOST, door.key, CHUNKED, body=chunked(inner)
    ),
    "the body of a page": lambda door, inner: request(
        b"POST /accounts/login/ HTTP/1.1", HOST, b"Content-Length: %d" % len(inner), body=inner
    ),
    "a body that is half of it": lambda door, inner: request(
        CALLS, HOST, door.key, JSON, b"Content-Length: %d" % (len(inner) // 2), body=inner
    ),
}


@pytest.mark.parametrize("hide", HIDDEN.values(), ids=HIDDEN)
def test_a_call_hidden_in_a_request_is_not_carried(door, hide):
    """At most one answer, and one call at the provider: what was meant to pass unseen is not among them."""
    with door.wire() as wire:
        wire.say(hide(door, door.post(SMUGGLED)))
        first = wire.answer()
        wire.say_no_more()
        rest = wire.rest()

    carried = door.caused()
    assert first.status > 0
    assert b" 200 " not in rest
    assert len(carried) == (1 if first.status == 200 and first.headers.get("x-penstock-target") else 0)
    assert [each for each in carried if b"smuggled" in (each.body or b"")] == []


def test_two_calls_in_a_row_are_two(door):
    """That is no smuggling, and shows that a second call would have been seen."""
    with door.wire() as wire:
        wire.say(door.post(BODY) + door.post(SMUGGLED, LAST))
        assert [wire.answer().status, wire.answer().status] == [200, 200]
    assert [b"smuggled" in (each.body or b"") for each in door.caused()] == [False, True]
