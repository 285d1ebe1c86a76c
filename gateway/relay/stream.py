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
    reasoning: Raw = NULL
    """Another word for it; some servers use both for the same text."""
    refusal: Raw = NULL

    def tell(self, said: SaidSoFar) -> bool:
        """Add what is said here to what was said so far; whether it was anything."""
        spoke = False
        if self.content is not NULL and (text := bytes(self.content)) not in _EMPTY:
            said.add(text)
            spoke = True
        if self.reasoning_content is not NULL:
            spoke = _say(said, self.reasoning_content) or spoke
        elif self.reasoning is not NULL:
            spoke = _say(said, self.reasoning) or spoke
        if self.refusal is not NULL:
            spoke = _say(said, self.refusal) or spoke
        if self.tool_calls is not NULL and (calls := bytes(self.tool_calls)) not in _EMPTY:
            said.add_tool_calls(calls)
            spoke = True
        return spoke


def _say(said: SaidSoFar, raw: Raw) -> bool:
    text = bytes(raw)
    if text in _EMPTY:
        return False
    said.add(text)
    return True


class _Choice(Struct):
    delta: _Delta | None = None
    usage: Raw = NULL
    """Where Kimi says it."""


class _Beside(Struct):
    usage: Raw = NULL


class _Chunk(Struct):
    choices: list[_Choice] | None = None
    usage: Raw = NULL
    error: Raw = NULL
    x_groq: Raw = NULL
    """Where Groq says its usage when nobody asked for it."""


_chunk = msgspec.json.Decoder(_Chunk).decode
_beside = msgspec.json.Decoder(_Beside).decode
_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode


class EventReader:
    """Bytes in, bytes to hand on out; remembers usage, how much was said, and whether it ended well."""

    __slots__ = (
        "_all_told",
        "_held",
        "_limit",
        "_pass_usage",
        "_usage",
        "allowance",
        "done",
        "failure",
        "said",
        "spoke",
    )

    def __init__(self, *, pass_usage: bool, limit: int) -> None:
        self._held = bytearray()
        self._limit = limit
        self._pass_usage = pass_usage
        self.done = False
        self.failure: UpstreamFailed | None = None
        """What the stream broke on; to be raised once what came before it is handed on."""
        self._usage: Usage | None = None
        self._all_told = True
        """Whether the usage is younger than all that was said."""
        self.spoke = False
        """Whether any content has come."""
        self.said = SaidSoFar()
        """What was handed on; counted only where usage is never reported."""
        self.allowance: Allowance | None = None
        """How much may be said, where a hard quota holds only so much."""

    @property
    def usage(self) -> Usage | None:
        """The last that was reported; None where none was, or where an unfinished stream said more since."""
        return self._usage if self.done or self._all_told else None

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
            raise _too_large(self._limit)

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
            delta = choice.delta
            if delta is not None and delta.tell(self.said):
                self.spoke, self._all_told = True, False
            if choice.usage is not NULL:
                self._note(choice.usage)
        if chunk.x_groq is not NULL:
            self._note_beside(chunk.x_groq)
        if self.allowance is not None and self.allowance.is_passed():
            raise _past_reservation()
        if chunk.usage is NULL or bytes(chunk.usage) == b"null":
            return event
        self._note(chunk.usage)
        return event if self._pass_usage else _without_usage(payload, chunk)

    def _other_shape(self, event: bytes, payload: bytes) -> bytes:
        """JSON that is not ours to judge, if it is JSON to its end: decoding stops at the first oddity."""
        try:
            _fields(payload)
        except UNREADABLE:
            raise _broken("it sent an event that is not JSON.") from None
        return event

    def _note_beside(self, raw: Raw) -> None:
        try:
            self._note(_beside(raw).usage)
        except UNREADABLE:  # it is no object: nothing is said there
            return

    def _note(self, raw: Raw) -> None:
        """The last that can be used counts: providers that report more than once repeat the whole."""
        usage = tokens.reported(raw)
        if usage is not None:
            self._usage, self._all_told = usage, True


def _without_usage(payload: bytes, chunk: _Chunk) -> bytes | None:
    """A chunk for a client that did not ask for usage; None where nothing else is in it."""
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


def _too_large(limit: int) -> UpstreamFailed:
    why = _broken(f"it sent an event larger than {limit} bytes.")
    why.cause, why.sick = "too_large", None  # it may be what the client asked for
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
