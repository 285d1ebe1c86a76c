"""Good answers of a provider with something wrong in them: what, and where, depends on a seed alone. Pure.

An answer is recorded as bytes of HTTP/1.1. It is mutated where a person would look for trouble: in the
status line, the headers, the framing, the JSON, the events, and in where it ends.
"""

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

End = Literal["stays", "closes", "resets", "half-closes"]


@dataclass(frozen=True)
class Recorded:
    """One answer: its head without the last blank line, and its body without framing."""

    head: bytes
    body: bytes
    streamed: bool


@dataclass(frozen=True)
class Played:
    """What is sent: pieces one after another, then what becomes of the connection."""

    pieces: tuple[bytes, ...]
    end: End
    what: str
    """The mutations, for a person who has to repeat them."""


STATUSES = (
    100,
    101,
    103,
    199,
    201,
    204,
    206,
    299,
    301,
    304,
    307,
    400,
    401,
    404,
    408,
    413,
    422,
    429,
    500,
    503,
    999,
)
STATUS_LINES = (
    *(b"HTTP/1.1", b"HTTP/1.1 ", b"HTTP/1.1 200", b"HTTP/1.1 20", b"HTTP/1.1 2000 OK", b"HTTP/1.1 -200 OK"),
    *(
        b"HTTP/1.0 200 OK",
        b"HTTP/2 200",
        b"HTTP/9.9 200 OK",
        b"http/1.1 200 ok",
        b"ICY 200 OK",
        b"200 OK",
        b"",
    ),
    *(b"HTTP/1.1  200  OK", b"HTTP/1.1\t200\tOK", b"HTTP/1.1 200 \xff\xfe", b"HTTP/1.1 200 " + b"O" * 20_000),
)
LINES = (
    *(
        b"content-length: 0",
        b"content-length: 5",
        b"content-length: -1",
        b"content-length: 99999999999999999999",
    ),
    *(b"content-length: 0x10", b"content-length: +7", b"content-length: 7, 7", b"content-length:"),
    *(b"transfer-encoding: chunked", b"transfer-encoding: gzip, chunked", b"transfer-encoding: identity"),
    *(b"transfer-encoding: xchunked", b"transfer-encoding:\tchunked", b"transfer-encoding: chunked, chunked"),
    *(
        b"content-encoding: gzip",
        b"content-encoding: br",
        b"content-encoding: nonsense",
        b"content-type: text/html",
    ),
    *(b"content-type: text/event-stream", b"content-type: application/json", b"content-type:", b"trailer: x"),
    *(b"connection: close", b"connection: upgrade", b"connection: keep-alive, close", b"upgrade: websocket"),
    *(
        b"retry-after: 1",
        b"retry-after: -1",
        b"retry-after: nan",
        b"retry-after-ms: 1e400",
        b"retry-after: \xff",
    ),
    *(b"no colon", b": no name", b"x y: z", b"x: a\x00b", b"x: a\rb", b" folded", b"x: " + b"y" * 20_000),
    *(b"x-\xc3\xbc: y", b"location: http://127.0.0.1:1/", b"set-cookie: a=b", b"keep-alive: timeout=0"),
)
TOKENS = (
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b"\n\n",
        b"\x00",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\\u0000",
    ),
    *(b'"', b"\\", b"\\ud800", b"{", b"}", b"[", b"]", b"[" * 3000, b",", b":", b"null", b"NaN", b"1e999"),
    *(
        b"9" * 5000,
        b"-1",
        b"true",
        b"{}",
        b"[]",
        b'""',
        b"\xf0\x9f\x98\x80",
        b"\xe2\x80\xa8",
        b"\xc2\x85",
        b"\t",
    ),
    *(
        b"data:",
        b"data: ",
        b"data: [DONE]\n\n",
        b"[DONE]",
        b"event: error\n",
        b": \n\n",
        b"id: 1\n",
        b"retry: 0\n",
    ),
    *(
        b'"error": {"message": "no"}, ',
        b'"usage": {"prompt_tokens": -1}, ',
        b'"choices": null, ',
        b'"error": 5, ',
    ),
    *(
        b"HTTP/1.1 200 OK\r\n",
        b"0\r\n\r\n",
        b"ffffffffffffffffff\r\n",
        b"A" * 70_000,
    ),
)
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        10**30,
        1e308,
        "",
        "x",
        "\u2028",
        "\ud83d\ude00",
        [],
        {},
        [None],
        [[]],
        {"a": 1},
    ),
    *([{}], [{"delta": None}], [{"delta": {"content": 5}}], [{"message": None}], {"prompt_tokens": "9"}),
    *({"prompt_tokens": 10**12, "completion_tokens": 10**12}, {"message": "no", "code": 5}, "x" * 70_000),
)
SIZES = (
    b"",
    b"-1",
    b"zz",
    b"0",
    b"00",
    b"5",
    b"1000000",
    b"ffffffffffffffffff",
    b"5;x=y",
    b" 5",
    b"0x5",
    b"\xff",
)

Mutation = Callable[[random.Random, Recorded], tuple[Recorded, str]]


def status_line(dice: random.Random, answer: Recorded) -> tuple[Recorded, str]:
    _, _, headers = answer.head.partition(b"\r\n")
    line = b"HTTP/1.1 %d It" % dice.choice(STATUSES) if dice.random() < 0.5 else dice.choice(STATUS_LINES)
    return replace(answer, head=line + b"\r\n" + headers), f"status line {line[:40]!r}"


def header(dice: random.Random, answer: Recorded) -> tuple[Recorded, str]:
    """One more, one less, one twice, or one in place of another."""
    first, *lines = answer.head.split(b"\r\n")
    place, line = dice.randrange(len(lines) + 1), dice.choice(LINES)
    how = dice.choice(("more", "more", "instead", "less", "twice"))
    kept = lines[place : place + 1]
    lines[place : place + 1] = {"more": [*kept, line], "instead": [line], "less": [], "twice": kept * 2}[how]
    return replace(answer, head=b"\r\n".join([first, *lines])), f"header {how} {line[:40]!r} at {place}"


def json_value(dice: random.Random, answer: Recorded) -> tuple[Recorded, str]:
    """A value somewhere in a document, or its key, becomes another."""
    documents = list(re.finditer(rb"\{.*\}", answer.body))
    try:
        chosen = dice.choice(documents)
        found = json.loads(chosen.group())
    except (ValueError, IndexError, RecursionError):  # another mutation was there before
        return token(dice, answer)
    said = _changed(dice, found)
    start, end = chosen.span()
    document = json.dumps(found, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
    return replace(answer, body=answer.body[:start] + document + answer.body[end:]), f"JSON {said}"


def _changed(dice: random.Random, document: dict[str, Any]) -> str:
    inside: Any = document
    while True:
        keys = list(inside) if isinstance(inside, dict) else range(len(inside))
        if not keys:
            return "empty already"
        key = dice.choice(keys)
        deeper = inside[key]
        if isinstance(deeper, dict | list) and deeper and dice.random() < 0.7:
            inside = deeper
            continue
        value = dice.choice(VALUES)
        if isinstance(inside, dict) and dice.random() < 0.2:
            del inside[key]
            return f"without {key}"
        inside[key] = value
        return f"{key} is {value!r:.40}"


def events(dice: random.Random, answer: Recorded) -> tuple[Recorded, str]:
    """Events lost, doubled, exchanged, joined, or with another end of line."""
    parts = answer.body.split(b"\n\n")
    place = dice.randrange(len(parts))
    how = dice.choice(("lost", "doubled", "exchanged", "joined", "CRLF", "CR", "no space", "two lines"))
    match how:
        case "lost":
            del parts[place]
        case "doubled":
            parts.insert(place, parts[place])
        case "exchanged":
            dice.shuffle(parts)
        case "joined":
            parts[place : place + 2] = [b"\n".join(parts[place : place + 2])]
        case "no space":
            parts[place] = parts[place].replace(b"data: ", b"data:")
        case "two lines":
            parts[place] = parts[place].replace(b",", b",\ndata: ", 1)
    body = b"\n\n".join(parts)
    if how in ("CRLF", "CR"):
        body = body.replace(b"\n", {"CRLF": b"\r\n", "CR": b"\r"}[how])
    return replace(answer, body=body), f"events {how} at {place}"


def token(dice: random.Random, answer: Recorded) -> tuple[Recorded, str]:
    """Bytes put in, taken out, or turned, anywhere in the body."""
    body, place = bytearray(answer.body), dice.randrange(len(answer.body) + 1)
    how, what = dice.choice(("in", "in", "out", "turned")), dice.choice(TOKENS)
    if how == "in":
        body[place:place] = what
    elif how == "out":
        del body[place : place + dice.choice((1, 2, 20, 500))]
    else:
        body[place : place + 1] = bytes((dice.randrange(256),))
    return replace(answer, body=bytes(body)), f"{how} at {place} {what[:20]!r}"


MUTATIONS: tuple[Mutation, ...] = (status_line, header, header, json_value, json_value, events, token, token)


def mutated(answer: Recorded, seed: int) -> Played:
    """One to three mutations of an answer, then framing, which may be wrong too, and an end."""
    dice = random.Random(seed)
    what = []
    for _ in range(dice.choice((0, 1, 1, 1, 2, 3))):
        answer, said = dice.choice(MUTATIONS)(dice, answer)
        what.append(said)
    data, said = _framed(dice, answer)
    end = dice.choice(("stays", "stays", "stays", "stays", "closes", "resets", "half-closes"))
    if dice.random() < 0.15:
        cut = dice.randrange(len(data) + 1)
        data, end = data[:cut], dice.choice(("closes", "resets", "half-closes", "stays"))
        what.append(f"cut at {cut}")
    if dice.random() < 0.1:
        data += dice.choice(TOKENS)
        what.append("more after its end")
    return Played(_pieces(dice, data), end, "; ".join([*what, said, end]))


def _framed(dice: random.Random, answer: Recorded) -> tuple[bytes, str]:
    if b"\r\ncontent-length:" in answer.head or b"\r\ntransfer-encoding:" in answer.head:
        return answer.head + b"\r\n\r\n" + answer.body, "framed by a mutation"
    if dice.random() < 0.4:
        size = len(answer.body) + (dice.choice((-20, -1, 1, 20)) if dice.random() < 0.2 else 0)
        return answer.head + b"\r\ncontent-length: %d\r\n\r\n" % max(0, size) + answer.body, f"length {size}"
    chunks, said = _chunks(dice, answer.body)
    return answer.head + b"\r\ntransfer-encoding: chunked\r\n\r\n" + chunks, said


def _chunks(dice: random.Random, body: bytes) -> tuple[bytes, str]:
    """Chunks of any size, at times one with a wrong size or without its end."""
    framed, place, wrong = bytearray(), 0, "chunks"
    spoilt = dice.randrange(8) if dice.random() < 0.2 else -1
    number = 0
    while place < len(body):
        size = dice.choice((1, 7, 100, 1000, 5000))
        part = body[place : place + size]
        said, ends = b"%x" % len(part), b"\r\n"
        if number == spoilt:
            said, ends = dice.choice(SIZES), dice.choice((b"\r\n", b"\n", b"", b"XX"))
            wrong = f"chunk {number} of {said!r} ending in {ends!r}"
        framed += said + b"\r\n" + part + ends
        place, number = place + size, number + 1
    return bytes(framed + b"0\r\n\r\n"), wrong


def _pieces(dice: random.Random, data: bytes) -> tuple[bytes, ...]:
    """As it would come from a network: in one piece, or cut anywhere."""
    cuts = sorted(dice.randrange(len(data) + 1) for _ in range(dice.choice((0, 0, 1, 3, 8))))
    return tuple(data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True))
