"""What goes over the wire: the request of a measured call, its answer, and reading both. Pure."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

MODEL_NAME = "gpt-4o-mini"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
ASKED = re.compile(rb'"bench": ?"(\d+)/(\d+)/(\d+)/(\d+)"')
USAGE = {"prompt_tokens": 128, "completion_tokens": 64, "total_tokens": 192}
MAX_TOKENS = 256
"""And as many more as an answer has bytes: a hard quota has answers counted that come near their bound."""
TEXT = (
    "A penstock is the gated pipe that leads water from the reservoir to the turbine. "
    "It holds the pressure, it can be metered, and it can be shut when something is wrong. "
    "What it carries it does not change; what passes is written down."
)
COMMON = {"id": "chatcmpl-0123456789abcdef01234567", "created": 1767225600, "model": "gpt-4o-mini-2024-07-18"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request asks of the benchmark's upstream."""

    streamed: bool = False
    chunks: int = 0
    delay_ms: int = 0
    pace_ms: int = 0
    answer_bytes: int = 0
    """Of text in the answer, shared among a stream's chunks; 0: as short as usual."""
    usage: bool = False


def text_of(size: int) -> str:
    """So many bytes of prose."""
    return (TEXT * (size // len(TEXT) + 1))[:size]


def request(
    want: Wanted,
    port: int,
    api_key: str,
    headers: Iterable[tuple[str, str]] = (),
    *,
    prompt_bytes: int = 0,
    model_name: str = MODEL_NAME,
) -> bytes:
    """A whole HTTP request, about 1 KB as a short chat has; the upstream reads its wishes from `metadata`.

    `headers` are names and values that come on top of the usual ones. With `prompt_bytes` its prompt has so
    much more text.
    """
    document: dict[str, Any] = {
        "model": model_name,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant. " + TEXT},
            {
                "role": "user",
                "content": "What is a penstock, and what is it for? " + TEXT + text_of(prompt_bytes),
            },
        ],
        "max_tokens": MAX_TOKENS + want.answer_bytes,
        "temperature": 0.7,
        "metadata": {"bench": f"{want.chunks}/{want.delay_ms}/{want.pace_ms}/{want.answer_bytes}"},
    }
    if want.streamed:
        document["stream"] = True
    body = json.dumps(document, separators=(",", ":")).encode()
    more = "".join(f"{name}: {value}\r\n" for name, value in headers)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:{port}\r\nAuthorization: Bearer {api_key}\r\n"
        "Content-Type: application/json\r\nAccept: application/json\r\nUser-Agent: penstock-bench\r\n"
        f"{more}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def wanted(body: bytes) -> Wanted:
    """What a request's body asks for."""
    found = ASKED.search(body)
    numbers = tuple(map(int, found.groups())) if found else (0, 0, 0, 0)
    return Wanted(b'"stream":true' in body, *numbers, usage=b'"include_usage":true' in body)


def body_length(head: bytes) -> int:
    """Content-Length of a header block; 0 where there is none."""
    found = LENGTH.search(head)
    return int(found.group(1)) if found else 0


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def answer(size: int = 0) -> bytes:
    """A whole completion with so many bytes of text; 0: as short as usual."""
    message = {"role": "assistant", "content": text_of(size) if size else TEXT}
    return _json(
        COMMON
        | {
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": USAGE,
            "system_fingerprint": "fp_0123456789",
        }
    )


ANSWER = answer()


def event(choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
    """One chunk of a streamed completion as a server-sent event."""
    return b"data: %b\n\n" % _json(
        COMMON | {"object": "chat.completion.chunk", "choices": choices, "usage": usage}
    )


def event_stream(chunks: int, usage: bool, size: int = 0) -> list[bytes]:
    """So many content chunks, then one with usage if wanted, then `[DONE]`.

    They share so many bytes of text; 0: each has a word.
    """
    each = text_of(size // chunks) if chunks and size else ""
    said = [
        event([{"index": 0, "delta": {"content": each or f" word{n}"}, "finish_reason": None}])
        for n in range(chunks)
    ]
    return [*said, *([event([], USAGE)] if usage else []), b"data: [DONE]\n\n"]


class AnswerReader:
    """One HTTP answer, fed as it comes. Knows Content-Length and chunked, and nothing else."""

    __slots__ = ("_head", "_left", "_parts", "_pending", "pieces", "status")

    def __init__(self) -> None:
        self.status = 0
        self.pieces = 0
        """How many transfer chunks the body came in."""
        self._head = False
        self._left = -1
        """Bytes still to come of a body of known length; -1 where it is chunked."""
        self._pending = b""
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> bool:
        """Whether the answer is whole now."""
        if not self._head:
            data = self._pending + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._pending = data
                return False
            self._begin(data[:end])
            data, self._pending = data[end + 4 :], b""
        return self._feed_length(data) if self._left >= 0 else self._feed_chunked(data)

    def _begin(self, head: bytes) -> None:
        self._head = True
        self.status = int(head[9:12])
        found = LENGTH.search(head)
        self._left = int(found.group(1)) if found else -1

    def _feed_length(self, data: bytes) -> bool:
        self._left -= len(data)
        self._parts.append(data)
        return self._left == 0

    def _feed_chunked(self, data: bytes) -> bool:
        if self._pending:
            data = self._pending + data
        at = 0
        while (line_end := data.find(b"\r\n", at)) > 0:
            size = int(data[at:line_end], 16)
            after = line_end + 2 + size + 2
            if after > len(data):
                break
            if not size:
                return True
            self._parts.append(data[line_end + 2 : after - 2])
            self.pieces += 1
            at = after
        self._pending = data[at:]
        return False

    @property
    def body(self) -> bytes:
        return b"".join(self._parts)

    def events(self) -> int:
        """Server-sent events in the body, `[DONE]` among them."""
        return self.body.count(b"data: ")
