"""A provider's event stream on its way to the client.

Whole events are handed on in the bytes they came in; each is looked at for usage,
content and errors. The stream's end is held back until the books are written.

The format is the WHATWG's server-sent events (HTML standard, 9.2) as OpenAI uses them:
one JSON object in each event, and `[DONE]` at the end.
"""

import msgspec
from msgspec import Raw, Struct

from gateway.errors import UpstreamFailed
from gateway.relay import usage as tokens
from gateway.relay.bounds import Allowance
from gateway.relay.records import Usage
from gateway.relay.tokenizer import SaidSoFar
from gateway.relay.upstream import UNREADABLE, error_within

DONE = b"data: [DONE]\n\n"
NULL = Raw(b"null")
_EMPTY = (b"null", b'""', b"[]")


class _Delta(Struct):
    content: Raw = NULL
    tool_calls: Raw = NULL
    reasoning_content: Raw = NULL
    refusal: Raw = NULL

    def tell(self, said: SaidSoFar) -> bool:
        """Add what is said here to what was said so far; whether it was anything."""
        spoke = False
        for each in (self.content, self.reasoning_content, self.refusal):
            if each is not NULL and (text := bytes(each)) not in _EMPTY:
                said.add(text)
                spoke = True
        if self.tool_calls is not NULL and (calls := bytes(self.tool_calls)) not in _EMPTY:
            said.add_tool_calls(calls)
            spoke = True
        return spoke


class _Choice(Struct):
    delta: _Delta | None = None


class _Chunk(Struct):
    choices: list[_Choice] | None = None
    usage: Raw = NULL
    error: Raw = NULL


_chunk = msgspec.json.Decoder(_Chunk).decode
_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode


class EventReader:
    """Bytes in, bytes to hand on out; remembers usage, how much was said, and whether it ended well."""

    __slots__ = ("_held", "_limit", "_pass_usage", "allowance", "done", "failure", "said", "spoke", "usage")

    def __init__(self, *, pass_usage: bool, limit: int) -> None:
        self._held = bytearray()
        self._limit = limit
        self._pass_usage = pass_usage
        self.done = False
        self.failure: UpstreamFailed | None = None
        """What the stream broke on; to be raised once what came before it is handed on."""
        self.usage: Usage | None = None
        self.spoke = False
        """Whether any content has come."""
        self.said = SaidSoFar()
        """What was handed on; counted only where usage is never reported."""
        self.allowance: Allowance | None = None
        """How much may be said, where a hard quota holds only so much."""

    def feed(self, data: bytes) -> bytes:
        """The whole events among what has come, up to an error or a broken event.

        Raises UpstreamFailed for one with nothing before it; else it is left in `failure`.
        """
        if self._held:
            if not _may_end(bytes(self._held[-3:]) + data):
                self._hold(data)
                return b""
            data = bytes(self._held) + data
            self._held.clear()
        held = data.replace(b"\r\n", b"\n") if b"\r" in data else data
        end = held.rfind(b"\n\n") + 2
        if end < 2:
            self._hold(held)
            return b""
        self._hold(held[end:])
        passed: list[bytes] = []
        try:  # extend() keeps what it took before the failure
            passed.extend(event for each in held[: end - 2].split(b"\n\n") if (event := self._event(each)))
        except UpstreamFailed as why:
            if not passed:
                raise
            self.failure = why
        return b"\n\n".join(passed) + b"\n\n" if passed else b""

    def _hold(self, rest: bytes) -> None:
        """Keep the beginning of an event. One of megabytes, read bit by bit, is not copied each time."""
        self._held += rest
        if len(self._held) > self._limit:
            large = _broken(f"it sent an event larger than {self._limit} bytes.")
            large.cause, large.sick = "too_large", None  # it may be what the client asked for
            raise large

    def _event(self, event: bytes) -> bytes | None:
        """The event as it is handed on; None: it is not."""
        if self.done:
            return None
        payload = _payload(event)
        if payload is None:
            return event
        if payload == b"[DONE]":
            self.done = True
            return None
        return self._look(event, payload)

    def ends_here(self) -> bool:
        """The body is over: whether all that is missing is the blank line after `[DONE]`."""
        self.done = self.done or self._held.strip() == b"data: [DONE]"
        return self.done

    def _look(self, event: bytes, payload: bytes) -> bytes | None:
        if payload[:1] != b"{":
            if not event.startswith(b"data:"):
                return event  # an event of a name of its own: not ours to judge
            raise _broken("it sent an event that is not JSON in an object.")
        try:
            if not payload.isascii():
                payload.decode()
            chunk = _chunk(payload)
        except msgspec.ValidationError:
            return self._other_shape(event, payload)
        except UNREADABLE:
            raise _broken("it sent an event that is not JSON.") from None
        if chunk.error is not NULL and bytes(chunk.error) != b"null":
            raise error_within(chunk.error)
        for choice in chunk.choices or ():
            if choice.delta is not None and choice.delta.tell(self.said):
                self.spoke = True
        if self.allowance is not None and self.allowance.is_passed():
            raise _past_reservation()
        if chunk.usage is NULL or bytes(chunk.usage) == b"null":
            return event
        return self._usage(event, payload, chunk)

    def _other_shape(self, event: bytes, payload: bytes) -> bytes:
        """JSON that is not ours to judge, if it is JSON to its end: decoding stops at the first oddity."""
        try:
            _fields(payload)
        except UNREADABLE:
            raise _broken("it sent an event that is not JSON.") from None
        return event

    def _usage(self, event: bytes, payload: bytes, chunk: _Chunk) -> bytes | None:
        self.usage = tokens.reported(chunk.usage) or self.usage
        if self._pass_usage:
            return event
        if not chunk.choices:
            return None
        try:
            fields = _fields(payload)
        except RecursionError:  # the event was read with the stack a little less deep
            raise _broken("an event is nested too deep.") from None
        del fields["usage"]
        return b"data: " + _encode(fields)


def _payload(event: bytes) -> bytes | None:
    """The data of one event; None where it has none (a comment, a bare id)."""
    if event.startswith(b"data:") and b"\n" not in event:
        return event[5:].strip()
    lines = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def _broken(how: str) -> UpstreamFailed:
    why = UpstreamFailed(f"The provider's stream broke: {how}")
    why.cause = "not_an_answer"
    return why


def _past_reservation() -> UpstreamFailed:
    """It speaks against nobody's health, and another target would cost as much again."""
    why = UpstreamFailed(
        "The provider writes more than it was told to write at most, "
        "and a hard quota holds no more for this call, so the answer ends here."
    )
    why.cause, why.sick, why.elsewhere = "past_reservation", None, False
    return why


def _may_end(seam: bytes) -> bool:
    """Whether an event ends in what has come, seen with the three bytes before it."""
    return b"\n\n" in seam or (b"\r" in seam and b"\n\n" in seam.replace(b"\r\n", b"\n"))


def error_event(body: bytes) -> bytes:
    """The last event of a stream that failed after it began: the official SDKs raise when they meet it."""
    return b"data: " + body + b"\n\n"
