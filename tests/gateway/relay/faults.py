"""Every way in which a provider fails that we know of, and what has to come of it.

A row says what one call looks like from everywhere:

    Row(sim(F.SERVER_ERROR), BOTH, "502 upstream_error stop", "3 failed status_500", NONE, FAILURE, KEPT)

is a call, whole or streamed, whose client was told 502 and not to try again, after three attempts that cost
nothing, that the breaker counted as failures, and that left a connection which may carry the next call.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from h2.errors import ErrorCodes

from gateway.relay.catalog import PoolConfig, TransportName
from gateway.simulator import Fault
from tests.gateway.relay.failing import (
    DONE,
    GOOD,
    HELLO,
    OF_JSON,
    OK,
    Failing,
    at,
    certified,
    chunked,
    closes,
    counts_wrong,
    done_and_silent,
    ends_early,
    events,
    frame,
    h1,
    http2,
    rst,
    said,
    sim,
)
from tests.upstreams import wire
from tests.upstreams.h2_server import go_away
from tests.upstreams.upstream import answer, stall, stall_after, stream, whole

F = Fault
Shapes = tuple[bool, ...]
"""Of the calls of a row: streamed or not."""
WHOLE, STREAMED, BOTH = (False,), (True,), (False, True)
Over = tuple[TransportName | Literal["http2"], ...]
HTTP1: Over = ("http1",)
AIOHTTP: Over = ("aiohttp",)
HTTPX: Over = ("httpx",)
HTTP2: Over = ("http2",)
EVERY_TRANSPORT = HTTP1 + AIOHTTP + HTTPX
NONE, REPORTED, ESTIMATED = "none", "reported", "estimated"
FAILURE, NEUTRAL, SUCCESS = "failure", "neutral", "success"
CLOSED, KEPT, EITHER = "closed", "kept", "either"

PATIENT = PoolConfig(connect_timeout_s=8.0, read_timeout_s=8.0, write_timeout_s=8.0)
"""Longer than anything should take, where it is not time that fails."""
TO_CONNECT = replace(PATIENT, connect_timeout_s=0.3)
TO_READ = replace(PATIENT, read_timeout_s=0.4)
TO_READ_ON = replace(PATIENT, read_timeout_s=1.5)
"""Where the answer has to begin first; its beginning, with the connection, is not taken for silence."""
TO_WRITE = replace(PATIENT, write_timeout_s=0.2)
SOON_S = 0.5


@dataclass(frozen=True)
class Row:
    """One call to a failing provider, as its client, the books, the breaker and the sockets have it."""

    fails: Failing
    shapes: Shapes
    client: str
    """Status and code; `stop` where an SDK must not try again; `after` how long it has to wait;
    `200 then` a code where the stream had begun."""
    attempts: str
    """How many, their outcome and their code."""
    usage: str
    """What it rests on. It costs something unless it is none, or a reported zero."""
    breaker: str
    """What the attempts said to it."""
    connection: str = CLOSED
    """What became of it; `either` where that depends on how much had come before we left."""
    over: Over = EVERY_TRANSPORT
    pool: PoolConfig = PATIENT
    deadline_s: float = 8.0
    """Of the call."""
    unseen: int = 0
    """Requests of which the provider says that it has not acted on them; an attempt may send three."""
    asked: dict[str, Any] = field(default_factory=dict)
    """Of the request, beside the usual."""


TAKEN = 1024 * 1024
"""Bytes of a whole answer that the suite's relay takes."""
HUGE = 5 * TAKEN
"""More than that, and than any relay takes of one event."""
A_LOT = "x" * 8 * TAKEN
"""More than what the system takes for a provider that does not read."""
NOT_UTF8 = b"\xff\xfe"
NEVER_ENDS = "content-length: 100"
ERROR = b'{"error": {"message": "Simulated: no.", "type": "server_error", "code": "no"}}'
ITS_OWN = b'{"error": {"message": "Simulated: no.", "code": 400}}'
A_CHUNK = b"%x\r\n%s\r\n" % (len(GOOD), GOOD)
LAST_CHUNK = b"0\r\n\r\n"
FOR_NO_STREAM = bytes((0, 0, 1, 0, 0, 0, 0, 0, 0)) + b"x"
"""A DATA frame for stream 0, which is none (RFC 9113, 6.1)."""
NOT_A_FRAME = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n"
"""Read as HTTP/2, the head of a frame of 4.5 MiB, of which 16 KiB are allowed (RFC 9113, 4.2)."""
ABSURD = ("-5", "1e9", "inf", "nan", "Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 99 Foo 2020 25:61:61", "")

REFUSES_US = "502 upstream_credential stop"
FAILED = "502 upstream_error stop"
LOST = "502 upstream_unreachable stop"
LATE = "504 upstream_timeout stop"
THROTTLED = "429 upstream_throttled stop"
IN_90_S = THROTTLED + " after 1.5 min"
CUT, CUT_LATE = "200 then upstream_unreachable", "200 then upstream_timeout"
CUT_FAILED = "200 then upstream_error"
NO_ANSWER, BROKEN = "1 failed not_an_answer", "1 failed broken"
REFUSED, REJECTED = "1 failed credential_refused", "1 rejected rejected"
NO_WAY = "3 failed cannot_connect"
INTERNAL, UNSEEN = ErrorCodes.INTERNAL_ERROR, ErrorCodes.REFUSED_STREAM
# fmt: off

STATUSES = (
    Row(sim(F.BAD_REQUEST), BOTH, "400 invalid_value", REJECTED, NONE, SUCCESS, KEPT),
    Row(sim(F.UNAUTHORIZED), BOTH, REFUSES_US, REFUSED, NONE, NEUTRAL, KEPT),
    Row(sim(F.PAYMENT_REQUIRED), BOTH, REFUSES_US, REFUSED, NONE, NEUTRAL, KEPT),
    Row(sim(F.FORBIDDEN), BOTH, REFUSES_US, REFUSED, NONE, NEUTRAL, KEPT),
    Row(sim(F.NOT_FOUND), BOTH, "404 model_not_found", REJECTED, NONE, SUCCESS, KEPT),
    Row(sim(F.TIMEOUT), BOTH, LATE, "3 timed_out status_408", ESTIMATED, FAILURE, KEPT),
    Row(sim(F.TOO_LARGE), BOTH, "413 request_too_large", REJECTED, NONE, SUCCESS, KEPT),
    Row(sim(F.UNPROCESSABLE), BOTH, "422 unprocessable", REJECTED, NONE, SUCCESS, KEPT),
    Row(sim(F.CONTEXT_OVERFLOW), BOTH, "400 context_length_exceeded", REJECTED, NONE, SUCCESS, KEPT),
    Row(sim(F.SERVER_ERROR), BOTH, FAILED, "3 failed status_500", NONE, FAILURE, KEPT),
    Row(sim(F.BAD_GATEWAY), BOTH, FAILED, "3 failed status_502", NONE, FAILURE, KEPT),
    Row(sim(F.UNAVAILABLE), BOTH, FAILED, "3 failed status_503", NONE, FAILURE, KEPT),
    Row(sim(F.UNAVAILABLE, "Retry-After", retry_after="90"), BOTH,
        FAILED + " after 1.5 min", "1 failed status_503", NONE, FAILURE, KEPT),
    Row(sim(F.GATEWAY_TIMEOUT), BOTH, LATE, "3 timed_out status_504", ESTIMATED, FAILURE, KEPT),
    Row(sim(F.OVERLOADED), BOTH, FAILED, "3 failed status_529", NONE, FAILURE, KEPT),
    Row(sim(F.REDIRECT), BOTH, FAILED, "1 failed status_307", NONE, FAILURE, KEPT),
    Row(h1("204", said("HTTP/1.1 204 It", counted=False)), BOTH,
        FAILED, "1 failed status_204", NONE, FAILURE, KEPT),
    Row(h1("418", said("HTTP/1.1 418 It")), BOTH, FAILED, "1 failed status_418", NONE, SUCCESS, KEPT),
    Row(h1("error that is a string", said("HTTP/1.1 500 It", body=b'{"error": "boom"}')), BOTH,
        FAILED, "3 failed status_500", NONE, FAILURE, KEPT),
    Row(h1("error without a word", said("HTTP/1.1 400 It")), BOTH, "400 None", REJECTED, NONE, SUCCESS, KEPT),
    Row(h1("error not UTF-8", said("HTTP/1.1 400 It", body=ERROR.replace(b"no", NOT_UTF8))), BOTH,
        "400 None", REJECTED, NONE, SUCCESS, KEPT),
    Row(h1("error too large", said("HTTP/1.1 500 It", body=b"x" * 300_000)), BOTH,
        FAILED, "3 failed status_500", NONE, FAILURE),
    Row(h1("401 whose body never ends", said("HTTP/1.1 401 It", NEVER_ENDS, counted=False)), BOTH,
        REFUSES_US, REFUSED, NONE, NEUTRAL, pool=TO_READ, deadline_s=3.0),
    Row(h1("500 whose body never ends", said("HTTP/1.1 500 It", NEVER_ENDS, counted=False)), BOTH,
        FAILED, "3 failed status_500", NONE, FAILURE, pool=TO_READ, deadline_s=3.0),
)
THROTTLING = (
    Row(sim(F.THROTTLED), BOTH, THROTTLED, "3 failed throttled", NONE, FAILURE, KEPT),
    Row(sim(F.THROTTLED_SECONDS, retry_after_s=90), BOTH, IN_90_S, "1 failed throttled", NONE, NEUTRAL, KEPT),
    Row(sim(F.THROTTLED_DATE, retry_after_s=90), BOTH, IN_90_S, "1 failed throttled", NONE, NEUTRAL, KEPT),
    Row(sim(F.THROTTLED_MS, retry_after_s=90), BOTH, IN_90_S, "1 failed throttled", NONE, NEUTRAL, KEPT),
    Row(sim(F.THROTTLED_ABSURD), BOTH, THROTTLED, "3 failed throttled", NONE, FAILURE, KEPT),
    *(
        Row(sim(F.THROTTLED, f"Retry-After '{each}'", retry_after=each), BOTH,
            THROTTLED, "3 failed throttled", NONE, FAILURE, KEPT)
        for each in ABSURD
    ),
)
SLOWNESS = (
    Row(sim(F.SLOW_FIRST_TOKEN, pause_s=0.2), BOTH, "200", "1 answered", REPORTED, SUCCESS, KEPT),
    Row(sim(F.SLOW_DRIP, pause_s=0.001), BOTH, "200", "1 answered", REPORTED, SUCCESS, KEPT),
    Row(sim(F.SLOW_DRIP, "past the deadline", pause_s=0.05), WHOLE,
        LATE, "1 timed_out deadline", ESTIMATED, FAILURE, pool=TO_READ, deadline_s=SOON_S),
    Row(sim(F.SLOW_DRIP, "past the deadline", pause_s=0.05), STREAMED,
        CUT_LATE, "1 timed_out deadline", ESTIMATED, NEUTRAL, pool=TO_READ, deadline_s=SOON_S),
    Row(sim(F.STALL), WHOLE,
        LATE, "1 timed_out deadline", ESTIMATED, FAILURE, pool=TO_READ, deadline_s=SOON_S),
    Row(sim(F.STALL), STREAMED, CUT_LATE, "1 timed_out silent", ESTIMATED, FAILURE, pool=TO_READ_ON),
    Row(sim(F.SILENCE), WHOLE,
        LATE, "1 timed_out deadline", ESTIMATED, FAILURE, pool=TO_READ, deadline_s=SOON_S),
    Row(sim(F.SILENCE), STREAMED, LATE, "3 timed_out silent", ESTIMATED, FAILURE, pool=TO_READ),
    Row(sim(F.ENDLESS_INTERIM), WHOLE,
        LATE, "1 timed_out deadline", ESTIMATED, FAILURE, pool=TO_READ, deadline_s=SOON_S,
        over=AIOHTTP + HTTPX),
    Row(sim(F.ENDLESS_INTERIM), STREAMED, LATE, "3 timed_out silent", ESTIMATED, FAILURE, pool=TO_READ,
        over=AIOHTTP + HTTPX),
    Row(sim(F.ENDLESS_INTERIM), BOTH, LOST, "3 failed broken", ESTIMATED, FAILURE, over=HTTP1),
    Row(h1("silent after [DONE]", done_and_silent), STREAMED, "200", "1 answered", ESTIMATED, SUCCESS),
)
CONNECTING = (
    Row(at("connection refused", wire.refused), BOTH, LOST, NO_WAY, NONE, FAILURE),
    Row(at("connection never made", wire.connect_hang), BOTH,
        LATE, "3 timed_out connect_timeout", NONE, FAILURE, pool=TO_CONNECT),
    Row(at("TLS never answered", partial(wire.never_answers, "https")), BOTH,
        LATE, "3 timed_out connect_timeout", NONE, FAILURE, pool=TO_CONNECT),
    Row(at("TLS answered in plain text", wire.plain_text_on_tls), BOTH, LOST, NO_WAY, NONE, FAILURE),
    Row(at("certificate signed by itself", wire.self_signed), BOTH, LOST, NO_WAY, NONE, FAILURE),
    Row(certified("certificate expired", wire.expired), BOTH, LOST, NO_WAY, NONE, FAILURE),
    Row(certified("certificate of another", wire.wrong_name), BOTH, LOST, NO_WAY, NONE, FAILURE),
    Row(at("never reads", wire.never_reads), BOTH,
        LATE, "3 timed_out write_timeout", NONE, FAILURE, pool=TO_WRITE, asked={"user": A_LOT}),
)
BREAKING_OFF = (
    Row(sim(F.RESET_BEFORE_HEADERS), BOTH, LOST, "3 failed broken", ESTIMATED, FAILURE),
    Row(sim(F.RESET_AFTER_HEADERS), BOTH, LOST, "3 failed broken", ESTIMATED, FAILURE),
    Row(sim(F.CLOSE_IN_HEADERS), BOTH, LOST, "3 failed broken", ESTIMATED, FAILURE),
    Row(sim(F.RESET_MID_STREAM), WHOLE, LOST, BROKEN, ESTIMATED, FAILURE),
    Row(sim(F.RESET_MID_STREAM), STREAMED, CUT, BROKEN, ESTIMATED, FAILURE),
    Row(sim(F.CLOSE_MID_STREAM), WHOLE, LOST, BROKEN, ESTIMATED, FAILURE),
    Row(sim(F.CLOSE_MID_STREAM), STREAMED, CUT, BROKEN, ESTIMATED, FAILURE),
    Row(sim(F.HALF_CLOSE), WHOLE, LOST, BROKEN, ESTIMATED, FAILURE),
    Row(sim(F.HALF_CLOSE), STREAMED, CUT, BROKEN, ESTIMATED, FAILURE),
    Row(sim(F.TRUNCATED_CHUNK), WHOLE, LOST, BROKEN, ESTIMATED, FAILURE),
    Row(sim(F.TRUNCATED_CHUNK), STREAMED, CUT, BROKEN, ESTIMATED, FAILURE),
    Row(sim(F.LENGTH_TOO_LONG), WHOLE, LOST, BROKEN, ESTIMATED, FAILURE),
    Row(sim(F.LENGTH_TOO_LONG), STREAMED, "200", "1 answered", REPORTED, SUCCESS),
    Row(sim(F.TRUNCATED), WHOLE, FAILED, NO_ANSWER, ESTIMATED, FAILURE, KEPT),
    Row(sim(F.TRUNCATED), STREAMED, CUT, "1 failed cut_short", ESTIMATED, FAILURE, KEPT),
    Row(sim(F.ERROR_EVENT), WHOLE, FAILED, NO_ANSWER, ESTIMATED, FAILURE, KEPT),
    Row(sim(F.ERROR_EVENT), STREAMED, CUT_FAILED, "1 failed error_event", ESTIMATED, FAILURE, EITHER),
    Row(sim(F.TOOL_CALL_CUT), WHOLE, FAILED, NO_ANSWER, ESTIMATED, FAILURE, KEPT),
    Row(sim(F.TOOL_CALL_CUT), STREAMED, CUT, "1 failed cut_short", ESTIMATED, FAILURE, KEPT),
)
NO_ANSWERS = (
    Row(sim(F.GARBAGE_HTML), BOTH, FAILED, NO_ANSWER, ESTIMATED, FAILURE, EITHER),
    Row(sim(F.GARBAGE_JSON), BOTH, FAILED, NO_ANSWER, ESTIMATED, FAILURE, EITHER),
    Row(sim(F.GARBAGE_SSE), BOTH, FAILED, NO_ANSWER, ESTIMATED, FAILURE, EITHER),
    Row(sim(F.GZIP), BOTH, FAILED, NO_ANSWER, ESTIMATED, FAILURE, EITHER),
    Row(sim(F.GZIP_BOMB, body_bytes=HUGE), BOTH, FAILED, NO_ANSWER, ESTIMATED, FAILURE, EITHER),
    Row(sim(F.HUGE_BODY, body_bytes=HUGE), WHOLE, FAILED, "1 failed too_large", ESTIMATED, NEUTRAL),
    Row(sim(F.HUGE_BODY, body_bytes=HUGE), STREAMED, CUT_FAILED, "1 failed too_large", ESTIMATED, NEUTRAL),
    Row(sim(F.ENDLESS_LINE, body_bytes=HUGE), WHOLE, FAILED, "1 failed too_large", ESTIMATED, NEUTRAL),
    Row(sim(F.ENDLESS_LINE, body_bytes=HUGE), STREAMED, CUT_FAILED, "1 failed too_large", ESTIMATED, NEUTRAL),
    Row(h1("empty answer", said(OK, OF_JSON)), BOTH, FAILED, NO_ANSWER, ESTIMATED, FAILURE, EITHER),
    Row(h1("error under 200", said(OK, OF_JSON, body=ERROR)), WHOLE,
        FAILED, "3 failed error_event", ESTIMATED, FAILURE, KEPT),
    Row(h1("error under 200", said(OK, OF_JSON, body=ERROR)), STREAMED,
        FAILED, NO_ANSWER, ESTIMATED, FAILURE, EITHER),
    Row(h1("the call's own error under 200", said(OK, OF_JSON, body=ITS_OWN)), WHOLE,
        "400 400", REJECTED, ESTIMATED, SUCCESS, KEPT),
    Row(h1("answer not UTF-8", said(OK, OF_JSON, body=GOOD.replace(b"Hello", NOT_UTF8))), WHOLE,
        FAILED, NO_ANSWER, ESTIMATED, FAILURE, EITHER),
)
STREAMS = (
    Row(h1("comments", events(b": ping\n\n" + HELLO + b": ping\n\n" + DONE)), STREAMED,
        "200", "1 answered", ESTIMATED, SUCCESS, KEPT),
    Row(h1("named events", events(b"event: message\nid: 1\n" + HELLO + DONE)), STREAMED,
        "200", "1 answered", ESTIMATED, SUCCESS, KEPT),
    Row(h1("events after [DONE]", events(HELLO + DONE + HELLO)), STREAMED,
        "200", "1 answered", ESTIMATED, SUCCESS, KEPT),
    Row(h1("[DONE] without its blank line", events(HELLO + b"data: [DONE]\n")), STREAMED,
        "200", "1 answered", ESTIMATED, SUCCESS, KEPT),
    Row(h1("half of [DONE]", events(HELLO + b"data: [DO")), STREAMED,
        CUT, "1 failed cut_short", ESTIMATED, FAILURE, KEPT),
    Row(h1("no event at all", events(b"")), STREAMED, LOST, "3 failed cut_short", ESTIMATED, FAILURE, KEPT),
    Row(h1("error event at once", events(b"data: " + ERROR + b"\n\n")), STREAMED,
        FAILED, "3 failed error_event", ESTIMATED, FAILURE, EITHER),
    Row(h1("error event not UTF-8", events(b"data: " + ERROR.replace(b"no", NOT_UTF8) + b"\n\n")), STREAMED,
        FAILED, NO_ANSWER, ESTIMATED, FAILURE, EITHER),
    Row(h1("error that is null", events(b'data: {"error": null, "choices": []}\n\n' + DONE)), STREAMED,
        "200", "1 answered", ESTIMATED, SUCCESS, KEPT),
    Row(h1("event that breaks off", events(HELLO + b'data: {"choices"\n\n' + DONE)), STREAMED,
        CUT_FAILED, NO_ANSWER, ESTIMATED, FAILURE, EITHER),
    Row(h1("event of another shape", events(HELLO + b'data: {"choices": [5]}\n\n' + DONE)), STREAMED,
        "200", "1 answered", ESTIMATED, SUCCESS, KEPT),
    Row(h1("event of another shape, cut", events(HELLO + b'data: {"choices": [5, {}\n\n' + DONE)), STREAMED,
        CUT_FAILED, NO_ANSWER, ESTIMATED, FAILURE, EITHER),
    Row(h1("event that is null", events(HELLO + b"data: null\n\n" + DONE)), STREAMED,
        CUT_FAILED, NO_ANSWER, ESTIMATED, FAILURE, EITHER),
    Row(h1("event not UTF-8", events(HELLO + HELLO.replace(b"Hello", NOT_UTF8) + DONE)), STREAMED,
        CUT_FAILED, NO_ANSWER, ESTIMATED, FAILURE, EITHER),
)
BAD_HTTP = (
    Row(sim(F.UNASKED_INTERIM), BOTH, "200", "1 answered", REPORTED, SUCCESS, KEPT),
    Row(sim(F.ENDLESS_HEADERS), BOTH, LOST, "3 failed broken", ESTIMATED, FAILURE),
    Row(sim(F.HUGE_HEADER), BOTH, LOST, "3 failed broken", ESTIMATED, FAILURE),
    Row(sim(F.NOT_HTTP), BOTH, LOST, "3 failed broken", ESTIMATED, FAILURE),
    Row(sim(F.CLOSE_AFTER_ANSWER), BOTH, "200", "1 answered", REPORTED, SUCCESS),
    Row(sim(F.SECOND_ANSWER), BOTH, "200", "1 answered", REPORTED, SUCCESS, EITHER),
    Row(sim(F.SECOND_ANSWER_LATER), BOTH, "200", "1 answered", REPORTED, SUCCESS, EITHER),
    Row(sim(F.LENGTH_TOO_SHORT), BOTH, LOST, "3 failed broken", ESTIMATED, FAILURE, over=AIOHTTP),
    Row(sim(F.LENGTH_TOO_SHORT), WHOLE, FAILED, NO_ANSWER, ESTIMATED, FAILURE, over=HTTP1 + HTTPX),
    Row(sim(F.LENGTH_TOO_SHORT), STREAMED, CUT, "1 failed cut_short", ESTIMATED, FAILURE,
        over=HTTP1 + HTTPX),
    Row(h1("HTTP/1.0", said("HTTP/1.0 200 OK", OF_JSON, body=GOOD, counted=False, close=True)), WHOLE,
        "200", "1 answered", REPORTED, SUCCESS),
    Row(h1("status that is no number", said("HTTP/1.1 abc OK", body=GOOD)), BOTH,
        LOST, "3 failed broken", ESTIMATED, FAILURE),
    Row(h1("two lengths", said(OK, "content-length: 5", body=GOOD)), BOTH,
        LOST, "3 failed broken", ESTIMATED, FAILURE),
    Row(h1("length below zero", said(OK, "content-length: -5", body=GOOD, counted=False)), BOTH,
        LOST, "3 failed broken", ESTIMATED, FAILURE),
    Row(h1("header without a colon", said(OK, "x-simulated", body=GOOD)), BOTH,
        LOST, "3 failed broken", ESTIMATED, FAILURE),
    Row(h1("NUL in a header", said(OK, "x-simulated: a\0b", body=GOOD)), BOTH,
        LOST, "3 failed broken", ESTIMATED, FAILURE),
    Row(h1("chunk whose size is no number", chunked(b"zz\r\n" + GOOD)), WHOLE,
        LOST, "3 failed broken", ESTIMATED, FAILURE),
    Row(h1("chunk with an extension", chunked(A_CHUNK.replace(b"\r", b";a=b\r", 1) + LAST_CHUNK)), WHOLE,
        "200", "1 answered", REPORTED, SUCCESS, KEPT),
    Row(h1("101", said("HTTP/1.1 101 It", "upgrade: x", "connection: upgrade", counted=False)), BOTH,
        FAILED, "1 failed status_101", NONE, FAILURE, over=AIOHTTP),
    Row(h1("101", said("HTTP/1.1 101 It", "upgrade: x", "connection: upgrade", counted=False)), BOTH,
        LOST, "3 failed broken", ESTIMATED, FAILURE, over=HTTP1 + HTTPX),
)
ODD_BUT_GOOD = (
    Row(sim(F.TOOL_CALL_BROKEN), BOTH, "200", "1 answered", REPORTED, SUCCESS, KEPT),
    Row(sim(F.MAX_TOKENS_IGNORED), BOTH, "200", "1 answered", REPORTED, SUCCESS, KEPT),
    Row(sim(F.USAGE_BESIDE_CHOICES), BOTH, "200", "1 answered", REPORTED, SUCCESS, KEPT),
    Row(sim(F.USAGE_ON_EVERY_CHUNK), BOTH, "200", "1 answered", REPORTED, SUCCESS, KEPT),
    Row(sim(F.USAGE_MISSING), BOTH, "200", "1 answered", ESTIMATED, SUCCESS, KEPT),
    Row(sim(F.USAGE_ZERO), BOTH, "200", "1 answered", REPORTED, SUCCESS, KEPT),
)
OVER_HTTP2 = (
    Row(http2("good answer", answer()), WHOLE, "200", "1 answered", REPORTED, SUCCESS, KEPT),
    Row(http2("good stream", stream("a", "b")), STREAMED, "200", "1 answered", ESTIMATED, SUCCESS, KEPT),
    Row(http2("500", answer(status=500)), BOTH, FAILED, "3 failed status_500", NONE, FAILURE, KEPT),
    Row(http2("429", whole(b"{}", 429, retry_after="90")), BOTH,
        IN_90_S, "1 failed throttled", NONE, NEUTRAL, KEPT),
    Row(http2("HTML", whole(b"<html>", content_type="text/html")), BOTH,
        FAILED, NO_ANSWER, ESTIMATED, FAILURE, KEPT),
    Row(http2("compressed", whole(GOOD, content_encoding="gzip")), BOTH,
        FAILED, NO_ANSWER, ESTIMATED, FAILURE, KEPT),
    Row(http2("redirect", whole(b"{}", 307, location="https://elsewhere.example/")), BOTH,
        FAILED, "1 failed status_307", NONE, FAILURE, KEPT),
    Row(http2("silence", stall), WHOLE,
        LATE, "1 timed_out deadline", ESTIMATED, FAILURE, KEPT, pool=TO_READ, deadline_s=SOON_S),
    Row(http2("silence", stall), STREAMED,
        LATE, "3 timed_out silent", ESTIMATED, FAILURE, KEPT, pool=TO_READ),
    Row(http2("stall", stall_after("a")), STREAMED,
        CUT_LATE, "1 timed_out silent", ESTIMATED, FAILURE, KEPT, pool=TO_READ_ON),
    Row(http2("END_STREAM before [DONE]", ends_early), STREAMED,
        CUT, "1 failed cut_short", ESTIMATED, FAILURE, KEPT),
    Row(http2("RST_STREAM", rst(INTERNAL)), BOTH, LOST, "3 failed broken", ESTIMATED, FAILURE, KEPT),
    Row(http2("RST_STREAM without an error", rst(ErrorCodes.NO_ERROR)), BOTH,
        LOST, "3 failed broken", ESTIMATED, FAILURE, KEPT),
    Row(http2("RST_STREAM in mid-stream", rst(INTERNAL, HELLO)), STREAMED,
        CUT, BROKEN, ESTIMATED, FAILURE, KEPT),
    Row(http2("REFUSED_STREAM once", rst(UNSEEN), answer()), WHOLE,
        "200", "1 answered", REPORTED, SUCCESS, KEPT, unseen=1),
    Row(http2("REFUSED_STREAM", rst(UNSEEN)), BOTH, LOST, "3 failed broken", NONE, FAILURE, KEPT, unseen=6),
    Row(http2("GOAWAY", go_away()), BOTH, LOST, "3 failed broken", ESTIMATED, FAILURE),
    Row(http2("GOAWAY with an error", go_away(code=INTERNAL)), BOTH,
        LOST, "3 failed broken", ESTIMATED, FAILURE),
    Row(http2("GOAWAY in mid-stream", go_away(after=HELLO)), STREAMED, CUT, BROKEN, ESTIMATED, FAILURE),
    Row(http2("GOAWAY with an error in mid-stream", go_away(after=HELLO, code=INTERNAL)), STREAMED,
        CUT, BROKEN, ESTIMATED, FAILURE),
    Row(http2("GOAWAY, and the answer", go_away(then=answer())), WHOLE,
        "200", "1 answered", REPORTED, SUCCESS),
    Row(http2("GOAWAY, and the stream", go_away(then=stream("a", "b"))), STREAMED,
        "200", "1 answered", ESTIMATED, SUCCESS),
    Row(http2("GOAWAY that spares it once", go_away(unseen=True), answer()), WHOLE,
        "200", "1 answered", REPORTED, SUCCESS, KEPT, unseen=1),
    Row(http2("GOAWAY that spares it", go_away(unseen=True)), BOTH,
        LOST, "3 failed broken", NONE, FAILURE, unseen=6),
    Row(http2("connection closed", closes), BOTH, LOST, "3 failed broken", ESTIMATED, FAILURE),
    Row(http2("more than its Content-Length", counts_wrong), WHOLE,
        LOST, "3 failed broken", ESTIMATED, FAILURE),
    Row(http2("frame for no stream", frame(FOR_NO_STREAM)), BOTH,
        LOST, "3 failed broken", ESTIMATED, FAILURE),
    Row(http2("answered in HTTP/1.1", frame(NOT_A_FRAME)), BOTH,
        LOST, "3 failed broken", ESTIMATED, FAILURE),
)
# fmt: on
TABLE = (
    *(*STATUSES, *THROTTLING, *SLOWNESS, *CONNECTING, *BREAKING_OFF),
    *(*NO_ANSWERS, *STREAMS, *BAD_HTTP, *ODD_BUT_GOOD),
    *(replace(row, over=HTTP2) for row in OVER_HTTP2),
)
