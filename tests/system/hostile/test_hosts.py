"""Host and forwarded headers: checked before any of our code, believed from nobody."""

import re

import pytest

from tests.system.hostile.door import CALLS, HOST, JSON, LAST, chat, error_of
from tests.system.raw import request

BODY = chat()
MALFORMED = {
    "missing": [],
    "empty": [b"Host:"],
    "doubled": [HOST, HOST],
    "doubled with another": [HOST, b"Host: evil.example"],
    "doubled, in another case": [HOST, b"hOST: evil.example"],
    "with a blank": [b"Host: a b"],
    "with a path": [b"Host: localhost/x"],
    "with a fragment": [b"Host: localhost#x"],
    "with a query": [b"Host: localhost?x"],
    "with a user": [b"Host: user@localhost"],
    "listed": [b"Host: localhost, evil.example"],
    "with a tag": [b"Host: <script>"],
    "with a port of letters": [b"Host: localhost:http"],
    "with a port that is too high": [b"Host: localhost:65536"],
    "with two ports": [b"Host: localhost:80:80"],
    "with an empty label": [b"Host: a..example"],
    "with half a bracket": [b"Host: [::1"],
    "with a byte above ASCII": [b"Host: \xe4"],
    "with a scheme": [b"Host: http://localhost"],
}
SOCKET = (
    *(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


def call(door, *hosts):
    return request(CALLS, *hosts, door.key, JSON, b"Content-Length: %d" % len(BODY), body=BODY)


def page(door, *hosts):
    return request(b"GET /accounts/login/ HTTP/1.1", *hosts)


def socket(door, *hosts):
    return request(b"GET /ws/live/ HTTP/1.1", *hosts, *SOCKET)


@pytest.mark.parametrize("ask", [call, page, socket])
@pytest.mark.parametrize("hosts", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_host_is_refused_before_any_page_or_call(door, ask, hosts):
    answer, rest = door.send(ask(door, *hosts))

    assert (answer.status, rest) == (400, b"")
    assert error_of(answer)["code"] == "invalid_host"
    assert door.caused() == []


@pytest.mark.parametrize("hosts", [[], [HOST, HOST]], ids=["missing", "doubled"])
def test_http_1_0_needs_a_host_too(door, hosts):
    data = call(door, *hosts).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    answer, _ = door.send(data)
    assert (answer.status, error_of(answer)["code"]) == (400, "invalid_host")


def test_a_page_is_for_our_own_hosts_only(door):
    answer, _ = door.send(page(door, b"Host: evil.example", LAST))
    assert answer.status == 400
    assert b"evil" not in answer.body


def test_a_host_beside_a_whole_target_does_not_change_where_a_page_leads(door):
    answer, _ = door.send(request(b"GET http://evil.example/keys/ HTTP/1.1", HOST, LAST))
    assert answer.status == 302
    assert answer.headers["location"] == "/accounts/login/?next=/keys/"


FORWARDED = (
    *(b"X-Forwarded-Host: evil.example", b"X-Forwarded-Proto: https", b"X-Forwarded-Port: 444"),
    *(b"X-Forwarded-Server: evil.example", b"X-Host: evil.example", b"X-Original-URL: /v1/models"),
    *(b"X-Rewrite-URL: /v1/models", b"X-Forwarded-Prefix: /evil", b"X-Real-IP: 192.0.2.7"),
    *(b"X-Forwarded-For: 192.0.2.7", b"Forwarded: for=192.0.2.7;host=evil.example;proto=https"),
)
CHANGING = re.compile(rb'name="csrfmiddlewaretoken" value="[^"]+"')


def test_forwarded_headers_do_not_change_a_page(door):
    plain, _ = door.send(page(door, HOST, LAST))
    forwarded, _ = door.send(page(door, HOST, *FORWARDED, LAST))

    assert (plain.status, forwarded.status) == (200, 200)
    assert CHANGING.sub(b"", plain.body) == CHANGING.sub(b"", forwarded.body)
    assert b"evil" not in forwarded.body
    assert "secure" not in forwarded.headers["set-cookie"].lower()


def test_forwarded_headers_do_not_change_where_a_page_leads(door):
    answer, _ = door.send(request(b"GET /keys/ HTTP/1.1", HOST, *FORWARDED, LAST))
    assert (answer.status, answer.headers["location"]) == (302, "/accounts/login/?next=/keys/")


def test_forwarded_headers_do_not_open_a_socket_to_another_origin(door):
    answer, _ = ask_for_socket(door, b"Origin: http://evil.example", *FORWARDED)
    assert answer.status == 403


def ask_for_socket(door, *headers):
    with door.wire() as wire:
        wire.say(request(b"GET /ws/live/ HTTP/1.1", HOST, *SOCKET, *headers))
        return wire.answer(), None


def test_attempts_are_counted_by_the_real_address(door):
    """Each time another person, and another address claimed: more than twenty a minute are too many."""
    statuses = [ask_for_a_new_password(door, number) for number in range(21)]
    assert statuses == [302] * 20 + [429]


def ask_for_a_new_password(door, number):
    path = b"/accounts/password/reset/ HTTP/1.1"
    form, _ = door.send(request(b"GET " + path, HOST, LAST))
    cookie = form.headers["set-cookie"].partition(";")[0]
    token = re.search(rb'name="csrfmiddlewaretoken" value="([^"]+)"', form.body)[1]
    fields = b"csrfmiddlewaretoken=%b&email=p%d%%40example.com" % (token, number)
    answer, _ = door.send(
        request(
            b"POST " + path,
            *(HOST, LAST, b"Cookie: " + cookie.encode(), b"Origin: http://localhost"),
            b"X-Forwarded-For: 192.0.2.%d" % number,
            b"X-Real-IP: 192.0.2.%d" % number,
            b"Content-Type: application/x-www-form-urlencoded",
            b"Content-Length: %d" % len(fields),
            body=fields,
        )
    )
    return answer.status
