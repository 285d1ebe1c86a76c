"""Bytes that are not HTTP, or not quite: what goes out past the server's framing. Pure.

Does not say when: that is the performance's.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.simulator.answers import ChatRequest, compose
from gateway.simulator.rendering import UsageStyle, stream_pieces, whole_body
from gateway.simulator.script import Fault, Step

INTERIM = (
    b"HTTP/1.1 100 Continue\r\n\r\n"
    b"HTTP/1.1 102 Processing\r\n\r\n"
    b"HTTP/1.1 103 Early Hints\r\nlink: </v1/models>; rel=preload\r\n\r\n"
)
"""RFC 9110, 15.2: a client has to skip them, however many there are."""

INSIDE_A_CHUNK = b'1000\r\ndata: {"id": "chatcm'
"""A chunk of 4,096 bytes of which 20 come."""

SMUGGLED = "This answer was not asked for."
"""The words of the second answer. Whoever receives them was given another call's answer."""


@dataclass(frozen=True, slots=True)
class Breach:
    """What is sent in place of an answer; after it the connection is closed."""

    opening: bytes
    flood: bytes = b""
    """Sent again and again until the client goes; empty: nothing follows."""


_INSTEAD: Mapping[Fault, Breach] = {
    Fault.NOT_HTTP: Breach(b"SSH-2.0-simulated\r\n"),
    Fault.CLOSE_IN_HEADERS: Breach(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-requ"),
    Fault.ENDLESS_HEADERS: Breach(b"HTTP/1.1 200 OK\r\n", b"x-simulated: another header\r\n" * 32),
    Fault.ENDLESS_INTERIM: Breach(b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 8),
}


def instead_of_answer(step: Step) -> Breach | None:
    """None where the fault of the step begins like an answer."""
    if step.fault is Fault.NOT_HTTP and step.text is not None:
        return Breach(step.text.encode() + b"\r\n")
    return _INSTEAD.get(step.fault) if step.fault is not None else None


def second_answer(request: ChatRequest, number: int, now_s: int) -> bytes:
    """A whole response, head and body, of the kind that was asked for; its words are SMUGGLED."""
    answer = compose(request, Step(text=SMUGGLED), number, now_s)
    if request.stream:
        pieces = stream_pieces(answer, answer.usage, UsageStyle.NEVER)
        return _response(b"text/event-stream", b"".join(piece.data for piece in pieces))
    return _response(b"application/json", whole_body(answer, answer.usage))


def _response(content_type: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n"
    return head % (content_type, len(body)) + body
