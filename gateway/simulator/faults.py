"""What a fault does to an answer: which bytes go out, and where they break off. Pure.

Does not wait and does not touch the connection: that is `app`'s.
"""

import gzip
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.utils import formatdate
from itertools import chain
from math import ceil

import msgspec

from gateway.simulator.answers import Answer, ChatRequest
from gateway.simulator.bomb import bomb
from gateway.simulator.rendering import (
    Piece,
    UsageStyle,
    error_json,
    event,
    stream_as_told,
    stream_pieces,
    whole_body,
)
from gateway.simulator.script import HUGE_BYTES, Fault, Step

Header = tuple[bytes, bytes]

JSON: Header = (b"content-type", b"application/json")
EVENTS: Header = (b"content-type", b"text/event-stream; charset=utf-8")
HTML: Header = (b"content-type", b"text/html; charset=utf-8")
_ZIPPED: Header = (b"content-encoding", b"gzip")

BREAKS_OFF = frozenset(
    (
        Fault.STALL,
        Fault.TRUNCATED,
        Fault.ERROR_EVENT,
        Fault.CLOSE_MID_STREAM,
        Fault.RESET_MID_STREAM,
        Fault.TRUNCATED_CHUNK,
        Fault.HALF_CLOSE,
        Fault.ENDLESS_LINE,
        Fault.TOOL_CALL_CUT,
    )
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
_HUGE_HEADER: Header = (b"x-simulated-padding", b"x" * 1024 * 1024)


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
    param: str | None = None


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

CONTEXT_OVERFLOW = ErrorText(
    "This model's maximum context length is 8192 tokens. However, your messages resulted in 10004 tokens. "
    "Please reduce the length of the messages.",
    "invalid_request_error",
    "context_length_exceeded",
    "messages",
)
"""OpenAI's own sentence, by which clients have learned to know it."""


def error_answer(status: int, step: Step, credential: str, now_s: float) -> Ready:
    """An error in OpenAI's shape; the step's text is said instead of the usual message."""
    said = CONTEXT_OVERFLOW if step.fault is Fault.CONTEXT_OVERFLOW else ERRORS[status]
    message = step.text or said.message.format(credential=credential)
    body = msgspec.json.encode(error_json(message, said.type, said.code, said.param))
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
    match step.fault:
        case Fault.GZIP:
            zipped = _zipped_events(pieces) if request.stream else [_zipped(pieces)]
            return Delivery((content_type, _ZIPPED), zipped)
        case Fault.GZIP_BOMB:
            return Delivery((content_type, _ZIPPED), [_bomb(pieces, huge_bytes(step))])
        case Fault.LENGTH_TOO_LONG | Fault.LENGTH_TOO_SHORT:
            return _miscounted(content_type, list(pieces), step)
        case Fault.HUGE_HEADER:
            return Delivery((content_type, _HUGE_HEADER), pieces)
    return Delivery((content_type,), pieces)


def huge_bytes(step: Step) -> int:
    """How large the step's huge fault is. Raises KeyError for a fault that is not huge."""
    if step.body_bytes is not None or step.fault is None:
        return step.body_bytes or 0
    return HUGE_BYTES[step.fault]


def _miscounted(content_type: Header, pieces: list[Piece], step: Step) -> Delivery:
    """The whole answer under a Content-Length of twice or half its size."""
    size = sum(len(piece.data) for piece in pieces)
    said = size * 2 if step.fault is Fault.LENGTH_TOO_LONG else size // 2
    return Delivery((content_type, (b"content-length", b"%d" % said)), pieces)


def _streamed(request: ChatRequest, answer: Answer, step: Step) -> Iterable[Piece]:
    style = UsageStyle.LAST if request.wants_usage else UsageStyle.NEVER
    if step.fault is not None:
        style = _USAGE_STYLES.get(step.fault, style)
    pieces = _told_or_true(answer, step, style)
    if step.fault is Fault.HUGE_BODY:
        return chain([next(pieces)], _swollen(next(pieces), huge_bytes(step)), pieces)
    return _until_struck(pieces, step) if step.fault in BREAKS_OFF else pieces


def _told_or_true(answer: Answer, step: Step, style: UsageStyle) -> Iterator[Piece]:
    if step.usages is not None:
        return stream_as_told(answer, step.usages)
    return stream_pieces(answer, answer.usage, style)


def _until_struck(pieces: Iterable[Piece], step: Step) -> Iterator[Piece]:
    sent = 0
    for piece in pieces:
        if piece.tokens and sent >= step.after_tokens:
            break
        sent += piece.tokens
        yield piece
    if step.fault is Fault.ERROR_EVENT:
        yield _error_event(step)
    if step.fault is Fault.ENDLESS_LINE:
        yield Piece(b'data: {"id": "')
        yield from _blanks(huge_bytes(step))


def _whole(answer: Answer, step: Step) -> Iterable[Piece]:
    usage = None if step.fault is Fault.USAGE_MISSING or step.usages is not None else answer.usage
    told = step.usages[-1] if step.usages else usage
    body = Piece(whole_body(answer, told), answer.completion_tokens, usage)
    match step.fault:
        case Fault.HUGE_BODY:
            return _swollen(body, huge_bytes(step))
        case Fault.ENDLESS_LINE:
            return chain([_half(body)], _blanks(huge_bytes(step)))
        case Fault.SLOW_DRIP:
            return _dripped(body)
        case Fault() if step.fault in BREAKS_OFF:
            return [_half(body)]
    return [body]


def _half(piece: Piece) -> Piece:
    return Piece(piece.data[: len(piece.data) // 2])


def _swollen(piece: Piece, by_bytes: int) -> Iterator[Piece]:
    """The same JSON with blanks after its first brace: valid, and as long as you like."""
    head, brace, rest = piece.data.partition(b"{")
    yield Piece(head + brace)
    yield from _blanks(by_bytes)
    yield Piece(rest, piece.tokens, piece.usage)


def _blanks(count: int) -> Iterator[Piece]:
    for start in range(0, count, _BLOCK_BYTES):
        yield Piece(b" " * min(_BLOCK_BYTES, count - start))


def _dripped(piece: Piece) -> Iterator[Piece]:
    *starts, last = range(0, len(piece.data), _DRIP_BYTES)
    for start in starts:
        yield Piece(piece.data[start : start + _DRIP_BYTES])
    yield Piece(piece.data[last:], piece.tokens, piece.usage)


def _zipped(pieces: Iterable[Piece]) -> Piece:
    body = _joined(pieces)
    return Piece(gzip.compress(body.data, mtime=0), body.tokens, body.usage)


def _zipped_events(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Each event can be unpacked as soon as it has come, as a front that compresses streams does it."""
    zipper = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    for piece in pieces:
        yield Piece(zipper.compress(piece.data) + zipper.flush(zlib.Z_SYNC_FLUSH), piece.tokens, piece.usage)
    yield Piece(zipper.flush())


def _bomb(pieces: Iterable[Piece], by_bytes: int) -> Piece:
    """Unpacked, it is the same answer with blanks after its first brace."""
    body = _joined(pieces)
    head, brace, rest = body.data.partition(b"{")
    return Piece(bomb(head + brace, by_bytes, rest), body.tokens, body.usage)


def _joined(pieces: Iterable[Piece]) -> Piece:
    parts = list(pieces)
    usages = [piece.usage for piece in parts if piece.usage is not None]
    data = b"".join(piece.data for piece in parts)
    return Piece(data, sum(piece.tokens for piece in parts), usages[-1] if usages else None)


def _error_event(step: Step) -> Piece:
    message = step.text or "Simulated: the server had an error while it answered."
    return Piece(event(error_json(message, "server_error", None)))


def _retry_after(step: Step, now_s: float) -> tuple[Header, ...]:
    if step.retry_after is not None:
        return ((b"retry-after", step.retry_after.encode("latin-1", "replace")),)
    match step.fault:
        case Fault.THROTTLED_ABSURD:
            return ((b"retry-after", b"soon"),)
        case Fault.THROTTLED_SECONDS:
            return ((b"retry-after", b"%d" % ceil(step.retry_after_s)),)
        case Fault.THROTTLED_DATE:
            return ((b"retry-after", formatdate(ceil(now_s + step.retry_after_s), usegmt=True).encode()),)
        case Fault.THROTTLED_MS:
            return ((b"retry-after-ms", b"%d" % ceil(step.retry_after_s * 1000)),)
    return ()
