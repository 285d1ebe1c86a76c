"""What a request's head must look like: plain values in, a head or a refusal out."""

import pytest

from gateway import edge
from gateway.errors import InvalidCall

HOST = (b"host", b"localhost:8000")


def refusal(*headers):
    with pytest.raises(InvalidCall) as raised:
        edge.read_head(headers)
    assert raised.value.closes_connection
    return raised.value


def head(*headers):
    return edge.read_head((HOST, *headers))


@pytest.mark.parametrize(
    "host",
    [
        *(b"localhost", b"localhost:8000", b"LOCALHOST", b"a.example", b"a.example.", b"a-b.c-d.example:1"),
        *(b"127.0.0.1", b"[::1]", b"[::1]:8000", b"gateway_1:65535", b"xn--bcher-kva.example", b"a:0"),
        b"a" * 63,
    ],
)
def test_a_well_formed_host_is_let_in(host):
    edge.check_host([(b"host", host)])


@pytest.mark.parametrize(
    "host",
    [
        *(
            b"",
            b" ",
            b"a b",
            b"a/b",
            b"a\\b",
            b"user@a",
            b"a,b",
            b"a;b",
            b"a#b",
            b"a?b",
            b"a%20b",
            b"<a>",
            b'"a"',
        ),
        *(b"a:", b"a:x", b"a:-1", b"a:65536", b"a:99999999", b"a:80:80", b":80", b"http://a"),
        *(
            b".a",
            b"a..b",
            b"-a",
            b"a.-b",
            b"..",
            b"[::1",
            b"::1",
            b"[zz]",
            b"[]",
            b"[::1]x",
            b"a\x00",
            b"a\r\nb",
        ),
        *(b"\xe4", "ä".encode(), b"a" * 64, b".".join([b"a"] * 200)),
    ],
)
def test_a_malformed_host_is_refused(host):
    why = refusal((b"host", host))
    assert (why.status, why.code) == (400, "invalid_host")


@pytest.mark.parametrize("hosts", [(), (HOST, HOST), (HOST, (b"host", b"evil.example"))])
def test_exactly_one_host_is_needed(hosts):
    assert refusal(*hosts).code == "invalid_host"


@pytest.mark.parametrize(
    "name",
    [
        *(b"authorization", b"content-type", b"content-length", b"content-encoding"),
        *(b"transfer-encoding", b"x-penstock-tags", b"x-penstock-priority", b"x-penstock-timeout"),
    ],
)
def test_a_header_that_we_act_on_may_not_come_twice(name):
    why = refusal(HOST, (name, b"1"), (name, b"2"))
    assert (why.status, why.code) == (400, "invalid_header")
    assert why.param is not None
    assert why.param.lower().encode() == name


def test_a_header_that_we_do_not_act_on_may_come_twice():
    assert head((b"accept", b"a"), (b"accept", b"b"), (b"cookie", b"c"), (b"cookie", b"d")) == edge.Head()


def test_what_we_act_on_is_read():
    found = head(
        (b"authorization", b"Bearer k"),
        (b"content-type", b"application/json"),
        (b"content-length", b"12"),
        (b"content-encoding", b"identity"),
        (b"x-penstock-tags", b"job=nightly, user=a%20b"),
    )
    assert found == edge.Head(
        b"Bearer k", b"application/json", b"identity", 12, {"job": "nightly", "user": "a b"}
    )


@pytest.mark.parametrize("length", [b"", b"-1", b"+1", b"1.0", b"0x1", b"1e1", b"1,1", b"\xb2", b"1" * 19])
def test_a_length_that_is_no_whole_number_is_refused(length):
    assert refusal(HOST, (b"content-length", length)).param == "Content-Length"


@pytest.mark.parametrize(
    "coding", [b"", b"gzip", b"gzip, chunked", b"chunked, chunked", b"identity", b"xchunked"]
)
def test_a_body_may_be_chunked_and_nothing_else(coding):
    assert refusal(HOST, (b"transfer-encoding", coding)).param == "Transfer-Encoding"


def test_a_body_has_one_length():
    assert head((b"transfer-encoding", b"Chunked")) == edge.Head()
    assert refusal(HOST, (b"transfer-encoding", b"chunked"), (b"content-length", b"5")).status == 400


def test_a_hundred_headers_are_let_in_and_one_more_is_too_many():
    many = [(b"x-%d" % number, b"") for number in range(edge.MOST_HEADERS - 1)]
    head(*many)
    assert refusal(HOST, *many, (b"x-more", b"")).status == 431


def test_headers_of_32_kib_are_let_in_and_one_byte_more_is_too_large():
    room = edge.LARGEST_HEAD - sum(len(each) for each in HOST) - len(b"x-a") - 2 * 4
    head((b"x-a", b"a" * room))
    assert refusal(HOST, (b"x-a", b"a" * (room + 1))).status == 431


def test_a_page_is_held_to_size_and_host_alone():
    edge.check_host([HOST, (b"x-penstock-tags", b"=\x00"), (b"content-length", b"many")])
    with pytest.raises(InvalidCall) as raised:
        edge.check_host([HOST, (b"x-a", b"a" * edge.LARGEST_HEAD)])
    assert raised.value.status == 431


@pytest.mark.parametrize(
    ("value", "tags"),
    [
        (b"", {}),
        (b"a=1", {"a": "1"}),
        (b" a = 1 , b=2,,", {"a": "1", "b": "2"}),
        (b"a", {"a": ""}),
        (b"a=1,a=2", {"a": "2"}),
        (b"a=b=c", {"a": "b=c"}),
        (b"city=K%C3%B6ln", {"city": "Köln"}),
        (b"a=%ff", {"a": "\N{REPLACEMENT CHARACTER}"}),
        (b"a=" + b"%41" * 100, {"a": "A" * 100}),
    ],
)
def test_tags_are_pairs_of_name_and_value(value, tags):
    assert head((b"x-penstock-tags", value)).tags == tags


@pytest.mark.parametrize(
    "value",
    [
        *(
            b"a=%0d%0aX-Evil: 1",
            b"a=%0A",
            b"a=%00",
            b"a=\x1b[31m",
            b"a=%1b",
            b"a=\x7f",
            b"a\x00=1",
            b"a=%c2%85",
        ),
        *(b"a=%e2%80%a8", b"a=%e2%80%ae", b"\x85=1", b"a=" + b"b" * 101, b"b" * 101 + b"=a"),
        b",".join(b"n%d=1" % number for number in range(11)),
    ],
)
def test_tags_with_control_characters_or_too_many_or_too_long_are_refused(value):
    assert refusal(HOST, (b"x-penstock-tags", value)).param == "X-Penstock-Tags"


@pytest.mark.parametrize(
    "kind", [b"application/json", b"Application/JSON", b"application/json; charset=utf-8"]
)
def test_json_is_taken(kind):
    edge.check_json(edge.Head(content_type=kind, content_encoding=b"Identity", content_length=10), 10)


@pytest.mark.parametrize(
    ("wrong", "status", "code"),
    [
        (edge.Head(), 415, "unsupported_media_type"),
        (edge.Head(content_type=b"text/plain"), 415, "unsupported_media_type"),
        (edge.Head(content_type=b"application/jsonp"), 415, "unsupported_media_type"),
        (edge.Head(content_type=b"text/html, application/json"), 415, "unsupported_media_type"),
        (edge.Head(content_type=b"application/json", content_encoding=b"gzip"), 415, "unsupported_encoding"),
        (
            edge.Head(content_type=b"application/json", content_encoding=b"br, gzip"),
            415,
            "unsupported_encoding",
        ),
        (edge.Head(content_type=b"application/json", content_length=11), 413, "body_too_large"),
    ],
)
def test_another_kind_of_body_is_refused(wrong, status, code):
    with pytest.raises(InvalidCall) as raised:
        edge.check_json(wrong, 10)
    assert (raised.value.status, raised.value.code) == (status, code)
    assert raised.value.closes_connection


@pytest.mark.parametrize(
    ("authorization", "key"),
    [
        *((b"Bearer k", "k"), (b"bearer k", "k"), (b"BEARER   k ", "k")),
        *((b"", ""), (b"Bearer", ""), (b"Basic k", ""), (b"k", ""), (b"Bearerk", ""), (b"Bearer \xff", "ÿ")),
    ],
)
def test_the_key_is_what_a_bearer_presents(authorization, key):
    assert edge.api_key_of(edge.Head(authorization=authorization)) == key


def test_what_a_client_did_wrong_is_said_in_a_sentence():
    assert "1.5 seconds" in edge.slow_body(1.5).message
    assert "10 bytes" in edge.body_too_large(10).message
    assert (edge.slow_body(1).status, edge.body_too_large(1).status) == (408, 413)


@pytest.mark.parametrize("value", [b"urgent", b"Normal", b" batch "])
def test_a_priority_is_one_of_three(value):
    assert head((b"x-penstock-priority", value)).priority == value.strip().lower().decode()


@pytest.mark.parametrize("value", [b"", b"high", b"0", b"urgent,normal", b"\xff"])
def test_another_priority_is_refused_by_name(value):
    why = refusal(HOST, (b"x-penstock-priority", value))
    assert (why.status, why.param) == (400, "X-Penstock-Priority")


@pytest.mark.parametrize(("value", "seconds"), [(b"30", 30.0), (b"0.25", 0.25), (b" 3600 ", 3600.0)])
def test_a_timeout_is_a_number_of_seconds(value, seconds):
    assert head((b"x-penstock-timeout", value)).timeout_s == seconds


@pytest.mark.parametrize(
    "value", [b"", b"0", b"-1", b"soon", b"1e3", b"nan", b"inf", b"3600.1", b"1" * 5000, b"1,5", b"\xd9\xa1"]
)
def test_another_timeout_is_refused_by_name(value):
    why = refusal(HOST, (b"x-penstock-timeout", value))
    assert (why.status, why.param) == (400, "X-Penstock-Timeout")
