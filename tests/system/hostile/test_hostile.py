"""Requests that nobody would think of: never an accident of ours, never a silence."""

import json
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.system.hostile.door import CALLS, HOST, JSON, LAST, chat, error_of
from tests.system.raw import chunked, request

SEED = 20
PATIENCE_S = 4.0
"""Longer than the gateway waits for a body."""
AT_ONCE = 32
ACCIDENTS = (b"Traceback", b"Exception Type", b'File "', b"site-packages")
TOKENS = (
    *(b"\r\n", b"\n", b"\r", b"\x00", b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\x1b[2J"),
    *(b'"', b"\\", b"\\u0000", b"\\ud800", b"{", b"}", b"[", b"]", b"[" * 2000, b",", b":", b"null", b"NaN"),
    *(
        b"1e999",
        b"9" * 400,
        b"true",
        b"{}",
        b"[]",
        b'""',
        b"\xf0\x9f\x98\x80",
        b"\xe2\x80\xae",
        b"%00",
        b"\t",
    ),
    *(b"Content-Length: 0\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"Upgrade: websocket\r\n", b"Host: x\r\n"),
    *(b"Content-Encoding: gzip\r\n", b"X-Penstock-Tags: a=%00\r\n", b"Cookie: sessionid=\r\n"),
    *(b" HTTP/1.1\r\n", b"HTTP/9.9", b"GET / ", b"0\r\n\r\n", b"ffffffff\r\n", b"%0d%0a", b"-0", b"../../"),
    *(b"<script>alert(1)</script>", b"' OR '1'='1", b"{{7*7}}", b"${7*7}", b"%s%n%x", b"`id`", b"__proto__"),
    *(
        b'"stream": true',
        b'"n": 999999999999',
        b'"max_tokens": -1',
        b'"messages": []',
        b'"stream_options": 5',
    ),
    *(b"A" * 5000, b" " * 5000, b"-1", b"0x", b";", b"\x16\x03\x01", b"\x7f", b"\x0b"),
)


def seeds(door):
    """Requests that are good as they are."""
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    return (
        door.post(chat(), LAST),
        door.post(chat(stream=True, stream_options={"include_usage": True}), LAST),
        door.post(chat(tools=tools, tool_choice="auto", n=2), LAST),
        door.post(chat(messages=parts, response_format=schema, stop=["."], temperature=0.5), LAST),
        door.post(chat(), b"X-Penstock-Tags: job=nightly,user=a%20b", b"Accept: */*", LAST),
        request(
            *(CALLS, HOST, door.key, JSON, b"Transfer-Encoding: chunked", LAST),
            body=chunked(chat()[:20], chat()[20:]),
        ),
        request(b"GET /v1/models HTTP/1.1", HOST, door.key, LAST),
        request(
            b"GET /accounts/login/?next=/keys/ HTTP/1.1", HOST, b"Cookie: sessionid=x; csrftoken=y", LAST
        ),
        request(b"GET /readyz HTTP/1.1", HOST, LAST),
        request(
            *(b"POST /accounts/login/ HTTP/1.1", HOST, b"Content-Length: 22", LAST),
            b"Content-Type: application/x-www-form-urlencoded",
            body=b"login=a%40b&password=c",
        ),
        request(
            *(b"POST /accounts/login/ HTTP/1.1", HOST, b"Transfer-Encoding: chunked", LAST),
            body=chunked(b"login=a%40b", b"&password=c"),
        ),
    )


def mutated(data, luck):
    """One to four wounds, anywhere."""
    for _ in range(luck.randint(1, 4)):
        data = luck.choice(WOUNDS)(data, luck)
    return data


def insert(data, luck):
    at = luck.randint(0, len(data))
    return data[:at] + luck.choice(TOKENS) + data[at:]


def overwrite(data, luck):
    at = luck.randint(0, len(data))
    token = luck.choice(TOKENS)
    return data[:at] + token + data[at + len(token) :]


def cut_out(data, luck):
    start = luck.randint(0, len(data))
    return data[:start] + data[start + luck.randint(1, 40) :]


def say_again(data, luck):
    start = luck.randint(0, len(data))
    end = start + luck.randint(1, 60)
    return data[:end] + data[start:end] * luck.choice((1, 1, 3, 200)) + data[end:]


def break_off(data, luck):
    return data[: luck.randint(1, max(1, len(data)))]


def flip(data, luck):
    wounded = bytearray(data)
    for _ in range(luck.randint(1, 8)):
        if wounded:
            wounded[luck.randrange(len(wounded))] ^= 1 << luck.randrange(8)
    return bytes(wounded)


def swap_lines(data, luck):
    lines = data.split(b"\r\n")
    luck.shuffle(lines)
    return b"\r\n".join(lines)


WOUNDS = (insert, insert, overwrite, cut_out, say_again, break_off, flip, flip, swap_lines)


@dataclass(frozen=True)
class Accident:
    """What should not have happened, and to which bytes."""

    what: str
    data: bytes


def provoke(door, data):
    """Say it; the answer may be anything but a failure of ours. None: it was."""
    with door.wire(PATIENCE_S) as wire:
        wire.say(data)
        try:
            seen = wire.rest()
        except TimeoutError:  # it waits for more, as it may while the head is not whole
            wire.say_no_more()
            try:
                seen = wire.rest()
            except TimeoutError:
                return Accident("neither answered nor closed", data)
    if any(each in seen for each in ACCIDENTS):
        return Accident("a traceback", data)
    statuses = [line.split(b" ")[1] for line in seen.split(b"\r\n") if line.startswith(b"HTTP/1.")]
    if any(each.startswith(b"5") for each in statuses):
        return Accident(f"a failure: {seen[:2000]!r}", data)
    return None


def accidents(door, count, seed):
    luck = random.Random(seed)
    begun = seeds(door)
    requests = [mutated(luck.choice(begun), luck) for _ in range(count)]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        found = [each for each in threads.map(lambda data: provoke(door, data), requests) if each]
    assert door.ask(chat()).status == 200
    return found


def test_500_mutated_requests_cause_no_accident(door):
    assert accidents(door, 500, SEED) == []


@pytest.mark.prove
def test_10000_mutated_requests_cause_no_accident(door, say):
    assert accidents(door, 10_000, SEED + 1) == []
    say("H4: 10,000 mutated requests: 0 answers 5xx, 0 hangs, 0 tracebacks")


def test_the_detector_sees_a_failure_and_a_silence(door):
    """A provider that fails is passed on as 502, which would be an accident if nobody had asked for it."""
    assert "a failure" in provoke(door, door.post(chat("fault-500"), LAST)).what
    assert provoke(door, door.post(chat(), LAST)) is None


HOSTILE = {
    "NUL": "a\x00b",
    "line ends": "a\r\nSet-Cookie: x=y\r\n\r\nHTTP/1.1 200 OK",
    "a log line of its own": "x\n2026-01-01 ERROR forged",
    "terminal": "\x1b[31m\x1b]0;owned\x07",
    "HTML": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "SQL": "'; DROP TABLE gateway_entry; --",
    "a template": "{{ settings.SECRET_KEY }}{% debug %}${7*7}#{7*7}",
    "a format": "%s%n%x {0.__class__} {}",
    "a path": "../../../../etc/passwd",
    "a URL": "http://169.254.169.254/latest/meta-data/",
    "a look-up": "${jndi:ldap://localhost/x}",
    "a formula": "=cmd|' /C calc'!A0",
    "right to left": "\u202e\u2066gnp.exe",
    "zero width": "\u200b\u200d\ufeff",
    "a pile of accents": "e" + "\u0301" * 500,
    "emoji": "👩‍👩‍👧‍👦" * 20,
    "a noncharacter": "\uffff\U0010ffff",
    "a surrogate": "\ud800",
    "long": "x" * 100_000,
    "blank": " \t\u00a0\u3000",
    "a prototype": "__proto__",
    "an event": "data: [DONE]\n\ndata: {}",
}
FIELDS = {
    "model name": lambda text: {"model": text},
    "content": lambda text: {"messages": [{"role": "user", "content": text}]},
    "role": lambda text: {"messages": [{"role": text, "content": "x"}]},
    "name": lambda text: {"messages": [{"role": "user", "name": text, "content": "x"}]},
    "user": lambda text: {"user": text},
    "stop": lambda text: {"stop": text, "stream": True},
    "a key": lambda text: {text: text},
    "a tool": lambda text: {"tools": [{"type": "function", "function": {"name": text, "description": text}}]},
    "response format": lambda text: {"response_format": {"type": text}},
    "metadata": lambda text: {"metadata": {text: text}},
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_string_in_any_field_is_only_a_string(door, text):
    for make in FIELDS.values():
        fields = {
            "model": "gpt-4o",
            "messages": [{"role": "user", "content": "x"}],
            "max_tokens": 3,
            **make(text),
        }
        answer = door.ask(json.dumps(fields).encode())

        assert answer.status in (200, 400, 404), (make(text), answer)
        assert set(answer.headers) <= {*ANSWERED, *TOLD}
        if answer.status != 200:
            error_of(answer)
            assert len(answer.body) < 10_000


ANSWERED = {
    *("content-type", "content-length", "transfer-encoding", "cache-control", "x-content-type-options"),
    *("x-request-id", "x-penstock-target", "x-penstock-attempts", "x-penstock-overhead-ms"),
}
TOLD = {"connection", "date", "server"}


def test_a_hostile_string_in_a_path_is_only_a_path(door):
    for text in HOSTILE.values():
        quoted = b"".join(b"%%%02x" % byte for byte in text.encode("utf-8", "replace")[:2000])
        for path in (b"/v1/models/", b"/v1/", b"/keys/", b"/teams/", b"/"):
            answer, _ = door.send(request(b"GET %b%b HTTP/1.1" % (path, quoted), HOST, door.key, LAST))
            assert answer.status in (301, 302, 400, 404), (path, text, answer)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_string_in_a_header_is_only_a_string(door, text):
    quoted = b"".join(b"%%%02x" % byte for byte in text.encode("utf-8", "replace"))
    for header in (
        b"X-Penstock-Tags: a=%b" % quoted,
        b"User-Agent: %b" % quoted,
        b"X-Request-Id: %b" % quoted,
    ):
        answer, _ = door.send(door.post(chat(), header[:30_000], LAST))
        assert answer.status in (200, 400)
