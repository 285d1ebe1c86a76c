"""Headers: ours go up and come back, nobody else's do."""

import itertools
import random
import string

import pytest

from accounts import keys
from gateway.simulator import Fault, Step
from tests.served import eventually
from tests.system.hostile.door import CALLS, CREDENTIAL, HOST, LAST, chat, error_of
from tests.system.raw import request

OURS = {
    *("host", "accept", "accept-encoding", "content-type", "content-length"),
    *("user-agent", "authorization", "x-request-id"),
}
"""All that a provider ever receives."""
HOP_BY_HOP = (
    *("Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization"),
    *("TE", "Trailer", "Upgrade-Insecure-Requests", "HTTP2-Settings", "ALPN"),
)
FORWARDED = (
    *("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port"),
    *("X-Forwarded-Prefix", "X-Forwarded-Server", "X-Real-IP", "X-Client-IP", "X-Cluster-Client-IP"),
    *("True-Client-IP", "CF-Connecting-IP", "Fastly-Client-IP", "X-Original-URL", "X-Rewrite-URL"),
    *("X-HTTP-Method-Override", "X-Method-Override", "Max-Forwards", "X-Host"),
)
CREDENTIALS = (
    *("Cookie", "Cookie2", "Proxy-Authorization", "X-Api-Key", "Api-Key", "X-Goog-Api-Key", "X-Auth-Token"),
    *("OpenAI-Organization", "OpenAI-Project", "OpenAI-Beta", "Anthropic-Version", "Anthropic-Beta"),
    *("X-Amz-Security-Token", "X-Csrf-Token", "X-Authorization", "Authorization-", "_Authorization"),
)
SEEN_BEFORE = (
    *("Accept", "Accept-Encoding", "Accept-Language", "Accept-Charset", "User-Agent", "Referer", "Origin"),
    *("X-Request-Id", "X-Correlation-Id", "Idempotency-Key", "Traceparent", "Tracestate", "Baggage"),
    *("Range", "If-None-Match", "If-Match", "Cache-Control", "Pragma", "Date", "From", "Link", "Server"),
    *("X-Stainless-Lang", "X-Penstock-Priority", "X-Penstock-Timeout", "X-Penstock-Overhead-Ms", "Location"),
    *("Set-Cookie", "Content-Location", "Content-Language", "Content-MD5", "Digest", "Retry-After"),
)
NAMED = tuple(dict.fromkeys((*HOP_BY_HOP, *FORWARDED, *CREDENTIALS, *SEEN_BEFORE)))
CRAFTED = 500
UNDERSTOOD = {"x-penstock-priority": "batch", "x-penstock-timeout": "60"}
"""Values for those that are read here, where a canary would be refused."""


def crafted_names():
    """The named ones as they are and in odd cases, then whatever a header's name may consist of."""
    made = random.Random(5)
    yield from NAMED
    yield from (each.swapcase() for each in NAMED)
    signs = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"
    while True:
        yield "X-" + "".join(made.choices(signs, k=made.randint(1, 40)))


def test_none_of_500_crafted_headers_reaches_the_provider(door):
    names = list(itertools.islice(crafted_names(), CRAFTED))
    for start in range(0, CRAFTED, 50):
        crafted = [
            f"{name}: {UNDERSTOOD.get(name.lower(), f'canary {start}')}".encode()
            for name in names[start : start + 50]
        ]
        assert door.ask(chat(), *crafted).status == 200

    received = door.caused()
    assert len(received) == CRAFTED / 50
    for each in received:
        assert each.headers.keys() <= OURS
        assert "canary" not in repr(each.headers)
        assert each.headers["user-agent"] == "penstock"
        assert each.headers["accept-encoding"] == "identity"


def test_what_connection_names_is_not_forwarded(door):
    """A client may declare any header to be of this hop; ours stay."""
    named = b"Connection: x-hop, authorization, x-request-id, content-type, close"
    assert door.ask(chat(), named, b"X-Hop: canary").status == 200

    [received] = door.caused()
    assert received.headers.keys() <= OURS
    assert received.headers["authorization"] == f"Bearer {CREDENTIAL}"


def test_the_client_s_key_stays_here_and_the_provider_s_goes_up(door):
    answer = door.ask(chat())

    [received] = door.caused()
    assert received.headers["authorization"] == f"Bearer {CREDENTIAL}"
    assert received.request_id == answer.headers["x-request-id"]
    assert door.served.api_key not in repr(received)


def test_a_client_cannot_choose_the_call_id(door):
    chosen = "00000000-0000-7000-8000-000000000000"
    answer = door.ask(chat(), b"X-Request-Id: " + chosen.encode())
    [received] = door.caused()
    assert received.request_id == answer.headers["x-request-id"] != chosen


def test_nothing_of_the_provider_s_headers_comes_back(door):
    """The simulator answers with an X-Request-Id and a Server of its own."""
    for answer in (door.ask(chat()), door.ask(chat(stream=True)), door.ask(chat("fault-500"))):
        assert not answer.headers["x-request-id"].startswith("req_sim")
        assert "simulated" not in repr(answer.headers)


ECHOES = (
    *(Fault.BAD_REQUEST, Fault.UNAUTHORIZED, Fault.PAYMENT_REQUIRED, Fault.FORBIDDEN, Fault.NOT_FOUND),
    *(Fault.TIMEOUT, Fault.TOO_LARGE, Fault.UNPROCESSABLE, Fault.THROTTLED, Fault.SERVER_ERROR),
    *(Fault.UNAVAILABLE, Fault.OVERLOADED),
)


@pytest.mark.parametrize(
    ("fault", "streamed"), [*itertools.product(ECHOES, (False, True)), (Fault.ERROR_EVENT, True)]
)
def test_the_provider_s_credential_never_comes_back(door, fault, streamed):
    """Although the provider repeats it in its error, as it is and in its header.

    It asks for a wait that is too long, so no other attempt comes between its error and the client.
    """
    said = f"Bad key {CREDENTIAL} (Bearer {CREDENTIAL})."
    door.provider.script([Step(fault=fault, text=said, retry_after="90")])

    answer = door.ask(chat(stream=streamed, max_tokens=100))

    assert door.caused() != []
    assert answer.status >= 400 or b'"error"' in answer.body
    assert CREDENTIAL.encode() not in answer.body
    assert CREDENTIAL not in repr(answer.headers)


def test_the_provider_s_own_words_about_our_credential_stay_here(door):
    """The simulator's 401 repeats what it was presented with."""
    answer = door.ask(chat("fault-401"))
    error = error_of(answer)
    assert (answer.status, error["code"]) == (502, "upstream_credential")
    assert CREDENTIAL not in error["message"]
    assert CREDENTIAL not in door.served.errors()


@pytest.mark.parametrize("count", [101, 5000])
def test_too_many_headers_are_refused(door, count):
    answer, rest = door.send(door.post(chat(), *(b"X-%d: a" % number for number in range(count - 4))))
    assert (answer.status, rest) == (431, b"")
    assert door.caused() == []


@pytest.mark.parametrize("size", [33 * 1024, 300 * 1024, 4 * 1024 * 1024])
def test_too_large_headers_are_refused(door, size):
    answer, rest = door.send(door.post(chat(), b"X-A: " + b"a" * size))
    assert (answer.status, rest) == (431, b"")
    assert door.caused() == []


def test_a_target_that_is_too_long_is_refused(door):
    line = b"POST /v1/chat/completions?" + b"a" * 70_000 + b" HTTP/1.1"
    answer, rest = door.send(door.post(chat(), line=line))
    assert (answer.status, rest) == (414, b"")
    assert door.caused() == []


@pytest.mark.parametrize(
    "authorization",
    [
        *((), (b"Authorization:",), (b"Authorization: Bearer",), (b"Authorization: Bearer pst_",)),
        *((b"Authorization: Basic cGVuc3RvY2s=",), (b"Authorization: Bearer \xff\xfe",)),
        (b"Authorization: Bearer pst_" + b"0" * 62,),
        (b"Authorization: Bearer " + b"x" * 20_000,),
        (b"X-Api-Key: pst_000000000000",),
    ],
    ids=["none", "empty", "no key", "half a key", "Basic", "bytes", "wrong checksum", "long", "elsewhere"],
)
def test_a_missing_or_malformed_key_is_401(door, authorization):
    body = chat()
    length = b"Content-Length: %d" % len(body)
    data = request(CALLS, HOST, *authorization, b"Content-Type: application/json", length, LAST, body=body)

    answer, _ = door.send(data)

    error = error_of(answer)
    assert (answer.status, error["code"]) == (401, "invalid_api_key")
    assert "Authorization: Bearer" in error["message"]
    assert door.caused() == []


def test_a_wrong_key_is_401_like_an_unknown_one(door):
    """One letter of the secret exchanged; with its checksum, since that needs no look-up."""
    parts = keys.take_apart(door.served.api_key)
    wrong = parts._replace(secret=parts.secret[::-1]).text
    unknown = keys.mint().text
    bodies = [error_of(ask_as(door, key)) for key in (wrong, unknown, "malformed")]
    assert bodies[0] == bodies[1] == bodies[2]
    assert door.caused() == []


def ask_as(door, key):
    good = door.post(chat(), LAST)
    answer, _ = door.send(good.replace(door.served.api_key.encode(), key.encode()))
    assert answer.status == 401
    return answer


def test_two_keys_are_refused_even_if_one_is_right(door):
    answer, rest = door.send(door.post(chat(), b"Authorization: Bearer other"))
    assert (answer.status, error_of(answer)["param"], rest) == (400, "Authorization", b"")
    assert door.caused() == []


@pytest.mark.parametrize(
    ("line", "right"),
    [
        *(
            (method + b" /v1/chat/completions HTTP/1.1", "POST")
            for method in (b"GET", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"post", b"BREW")
        ),
        *((method + b" /v1/models HTTP/1.1", "GET") for method in (b"POST", b"DELETE", b"OPTIONS")),
        (b"POST /v1/models/gpt-4o HTTP/1.1", "GET"),
    ],
)
def test_a_wrong_method_is_405_and_told_the_right_one(door, line, right):
    answer, rest = door.send(door.post(chat(), line=line))
    assert (answer.status, answer.headers["allow"], rest) == (405, right, b"")
    assert error_of(answer)["code"] == "method_not_allowed"
    assert door.caused() == []


def test_head_is_a_wrong_method_without_a_body(door):
    with door.wire() as wire:
        wire.say(request(b"HEAD /v1/chat/completions HTTP/1.1", HOST, LAST))
        assert wire.answer(to_head=True).status == 405
        assert wire.rest() == b""


@pytest.mark.parametrize(
    "path",
    [
        *(b"/v1", b"/v1/", b"/v1/chat", b"/v1/completions", b"/v1/embeddings", b"/v1/models/gpt-5000"),
        *(b"/v1/chat/completions/", b"/v1/chat/completions%00", b"/v1/chat/completions;x=1"),
        *(
            b"/v1//chat/completions",
            b"/v1/%2e%2e/admin/",
            b"/v1/../admin/",
            b"/v1/..%2fadmin/",
            b"/v1/%c3%a4",
        ),
    ],
)
def test_an_unknown_path_is_404_in_json(door, path):
    answer, _ = door.send(request(b"GET %b HTTP/1.1" % path, HOST, door.key, LAST))
    assert answer.status == 404
    assert error_of(answer)["type"] == "invalid_request_error"
    assert door.caused() == []


@pytest.mark.parametrize(
    "value", [b"a=%0d%0aX-Evil:%201", b"a=%00", b"a=%1b[31m", b"a=%c2%85", b"a=\xc2\x85"]
)
def test_tags_cannot_carry_control_characters(door, value):
    answer, rest = door.send(door.post(chat(), b"X-Penstock-Tags: " + value))
    assert (answer.status, error_of(answer)["param"], rest) == (400, "X-Penstock-Tags", b"")
    assert door.caused() == []


def test_tags_are_kept_on_the_entry(door):
    answer = door.ask(chat(), b"X-Penstock-Tags: job=night ly, who=K%C3%B6ln")
    call_id = answer.headers["x-request-id"].replace("-", "")
    query = "SELECT tags FROM gateway_entry WHERE call_id = ?"
    [(tags,)] = eventually(lambda: door.served.rows(query, call_id), what="the entry")
    assert "night ly" in tags
    assert "Köln" in tags or "K\\u00f6ln" in tags
