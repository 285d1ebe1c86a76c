"""What a fault does to an answer: which bytes go out, and where they break off. Pure.

Does not wait and does not touch the connection: that is `app`'s.
"""

import gzip
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.utils import formatdate
from itertools import chain
from math import ceil

import msgspec

from gateway.simulator.answers import Answer, ChatRequest
from gateway.simulator.rendering import Piece, UsageStyle, error_json, event, stream_pieces, whole_body
from gateway.simulator.script import Fault, Step

Header = tuple[bytes, bytes]

JSON: Header = (b"content-type", b"application/json")
EVENTS: Header = (b"content-type", b"text/event-stream; charset=utf-8")
HTML: Header = (b"content-type", b"text/html; charset=utf-8")

BREAKS_OFF = frozenset(
    (Fault.STALL, Fault.TRUNCATED, Fault.ERROR_EVENT, Fault.CLOSE_MID_STREAM, Fault.RESET_MID_STREAM)
)
"""After `after_tokens` tokens no more of the answer is sent."""

HEADERS_FIRST = frozenset((Fault.SLOW_FIRST_TOKEN, Fault.RESET_AFTER_HEADERS))
"""The headers leave long before the body would."""

_USAGE_STYLES = {
    Fault.USAGE_BESIDE_CHOICES: UsageStyle.BESIDE_CHOICES,
    Fault.USAGE_ON_EVERY_CHUNK: UsageStyle.EVERY_CHUNK,
    Fault.USAGE_MISSING: UsageStyle.NEVER,
    Fault.USAGE_ZERO: UsageStyle.LAST,
}
_DRIP_BYTES = 16
_BLOCK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Ready:
    """A short answer that needs no model."""

    status: int
    headers: tuple[Header, ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class ErrorText:
    """What a provider says with an error status."""

    message: str
    type: str
    code: str | None = None


ERRORS: dict[int, ErrorText] = {
    400: ErrorText("Simulated: the request is not valid.", "invalid_request_error", "invalid_value"),
    401: ErrorText("Simulated: incorrect API key: {credential}.", "invalid_request_error", "invalid_api_key"),
    402: ErrorText("Simulated: insufficient balance.", "unknown_error", "invalid_request_error"),
    403: ErrorText("Simulated: no access to this model.", "invalid_request_error", "forbidden"),
    404: ErrorText("Simulated: the model does not exist.", "invalid_request_error", "model_not_found"),
    408: ErrorText("Simulated: the request timed out.", "timeout", "request_timeout"),
    413: ErrorText("Simulated: the request is too large.", "invalid_request_error", "request_too_large"),
    422: ErrorText("Simulated: a value could not be processed.", "invalid_request_error", "unprocessable"),
    429: ErrorText("Simulated: rate limit reached for requests.", "requests", "rate_limit_exceeded"),
    500: ErrorText("Simulated: the server had an error.", "server_error"),
    502: ErrorText("Simulated: bad gateway.", "server_error"),
    503: ErrorText("Simulated: the engine is overloaded.", "service_unavailable_error"),
    504: ErrorText("Simulated: gateway timeout.", "server_error"),
    529: ErrorText("Simulated: overloaded.", "overloaded_error", "overloaded"),
}


def error_answer(status: int, step: Step, credential: str, now_s: float) -> Ready:
    """An error in OpenAI's shape; the step's text is said instead of the usual message."""
    said = ERRORS[status]
    message = step.text or said.message.format(credential=credential)
    body = msgspec.json.encode(error_json(message, said.type, said.code))
    return Ready(status, (JSON, *_retry_after(step, now_s)), body)


def ready_answer(step: Step, credential: str, host: str, now_s: float) -> Ready | None:
    """What the faults say that need no model; None for the others."""
    match step.fault:
        case Fault.GARBAGE_HTML:
            return Ready(200, (HTML,), b"<!doctype html><title>Welcome</title><h1>It works!</h1>")
        case Fault.GARBAGE_JSON:
            return Ready(200, (JSON,), b'{"id": "chatcmpl-sim", "choices": [{"index": 0, "mess')
        case Fault.GARBAGE_SSE:
            return Ready(200, (EVENTS,), b'data: {"id": "chatcm\n\ndata: \xff\xfe not JSON\n\n')
        case Fault.REDIRECT:
            place = f"http://{host}/v1/elsewhere".encode("latin-1")
            return Ready(307, (JSON, (b"location", place)), b"{}")
        case Fault() if step.fault.status is not None:
            return error_answer(step.fault.status, step, credential, now_s)
    return None


@dataclass(frozen=True, slots=True)
class Delivery:
    """An answer as it will leave: headers, and pieces up to where the fault strikes."""

    headers: tuple[Header, ...]
    pieces: Iterable[Piece]


def delivery(request: ChatRequest, answer: Answer, step: Step) -> Delivery:
    """The answer, whole or streamed, with the fault of the step in it."""
    content_type = EVENTS if request.stream else JSON
    pieces = _streamed(request, answer, step) if request.stream else _whole(answer, step)
    if step.fault is Fault.GZIP:
        return Delivery((content_type, (b"content-encoding", b"gzip")), [_zipped(pieces)])
    return Delivery((content_type,), pieces)


def _streamed(request: ChatRequest, answer: Answer, step: Step) -> Iterable[Piece]:
    style = UsageStyle.LAST if request.wants_usage else UsageStyle.NEVER
    if step.fault is not None:
        style = _USAGE_STYLES.get(step.fault, style)
    pieces = stream_pieces(answer, answer.usage, style)
    if step.fault is Fault.HUGE_BODY:
        return chain([next(pieces)], _swollen(next(pieces), step.body_bytes), pieces)
    return _until_struck(pieces, step) if step.fault in BREAKS_OFF else pieces


def _until_struck(pieces: Iterable[Piece], step: Step) -> Iterator[Piece]:
    sent = 0
    for piece in pieces:
        if piece.tokens and sent >= step.after_tokens:
            break
        sent += piece.tokens
        yield piece
    if step.fault is Fault.ERROR_EVENT:
        yield _error_event(step)


def _whole(answer: Answer, step: Step) -> Iterable[Piece]:
    usage = None if step.fault is Fault.USAGE_MISSING else answer.usage
    body = Piece(whole_body(answer, usage), answer.completion_tokens, usage)
    match step.fault:
        case Fault.HUGE_BODY:
            return _swollen(body, step.body_bytes)
        case Fault.SLOW_DRIP:
            return _dripped(body)
        case Fault() if step.fault in BREAKS_OFF:
            return [Piece(body.data[: len(body.data) // 2])]
    return [body]


def _swollen(piece: Piece, by_bytes: int) -> Iterator[Piece]:
    """The same JSON with blanks after its first brace: valid, and as long as you like."""
    head, brace, rest = piece.data.partition(b"{")
    yield Piece(head + brace)
    for start in range(0, by_bytes, _BLOCK_BYTES):
        yield Piece(b" " * min(_BLOCK_BYTES, by_bytes - start))
    yield Piece(rest, piece.tokens, piece.usage)


def _dripped(piece: Piece) -> Iterator[Piece]:
    *starts, last = range(0, len(piece.data), _DRIP_BYTES)
    for start in starts:
        yield Piece(piece.data[start : start + _DRIP_BYTES])
    yield Piece(piece.data[last:], piece.tokens, piece.usage)


def _zipped(pieces: Iterable[Piece]) -> Piece:
    parts = list(pieces)
    usages = [piece.usage for piece in parts if piece.usage is not None]
    data = gzip.compress(b"".join(piece.data for piece in parts), mtime=0)
    return Piece(data, sum(piece.tokens for piece in parts), usages[-1] if usages else None)


def _error_event(step: Step) -> Piece:
    message = step.text or "Simulated: the server had an error while it answered."
    return Piece(event(error_json(message, "server_error", None)))


def _retry_after(step: Step, now_s: float) -> tuple[Header, ...]:
    match step.fault:
        case Fault.THROTTLED_SECONDS:
            return ((b"retry-after", b"%d" % ceil(step.retry_after_s)),)
        case Fault.THROTTLED_DATE:
            return ((b"retry-after", formatdate(ceil(now_s + step.retry_after_s), usegmt=True).encode()),)
        case Fault.THROTTLED_MS:
            return ((b"retry-after-ms", b"%d" % ceil(step.retry_after_s * 1000)),)
    return ()
