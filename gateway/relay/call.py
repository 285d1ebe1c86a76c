"""A client's request, understood once and handed on.

Only what we act on is decoded; every other value keeps its bytes.
"""

import os
import random
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

from accounts.caller import Priority
from gateway.errors import InvalidCall

_DECODE = msgspec.json.Decoder(dict[str, Raw]).decode
_ENCODE = msgspec.json.Encoder().encode
_STRING = msgspec.json.Decoder(str).decode
_BOOLEAN = msgspec.json.Decoder(bool | None).decode
_NUMBER = msgspec.json.Decoder(int | None).decode
_random = random.Random(random.SystemRandom().getrandbits(128))  # noqa: S311 - ids need not be secret
_bits = _random.getrandbits
os.register_at_fork(after_in_child=lambda: _random.seed(random.SystemRandom().getrandbits(128)))
# Workers are forks, and would all draw the same ids.

T = TypeVar("T")

MOST_TOKENS = 10**9
BOUNDS = ("max_completion_tokens", "max_tokens")
"""The two names that a bound of the output goes by."""
USUAL_MAX_TOKENS = 1000
"""Output tokens assumed of a call that sets no bound itself."""


def new_call_id(now_ns: int) -> str:
    """A UUID version 7 (RFC 9562, 5.7) in its usual text form, in the order of time."""
    head = (now_ns // 1_000_000) << 16 | 0x7000 | _bits(12)
    tail = 0x8000000000000000 | _bits(62)
    text = f"{head:016x}{tail:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class Call(Struct):
    """One client request. `fields` are its top-level values, still in their own bytes."""

    call_id: str
    started_at_us: int
    began: float
    """Monotonic seconds, for durations."""
    model_name: str
    streamed: bool
    bound: int | None
    """The most output tokens of one choice, where the client named a bound; the larger of two."""
    choices: int
    fields: dict[str, Raw]
    stream_options: dict[str, Raw]
    """As the client gave them; empty for a whole answer."""
    tags: dict[str, str] | None = None
    priority: Priority = "normal"
    timeout_s: float | None = None
    """The client's own deadline; None: the route's."""

    @property
    def max_tokens(self) -> int:
        """Output tokens over all choices: at most so many, or probably where the client named no bound."""
        usual = USUAL_MAX_TOKENS if self.bound is None else self.bound
        return min(usual * self.choices, MOST_TOKENS)

    @property
    def prompt_bytes(self) -> int:
        return len(memoryview(self.fields["messages"]))

    def body_for(self, upstream_model: str, fields: dict[str, Raw], *, asks_usage: bool = True) -> bytes:
        """The JSON that goes upstream: ours where we act, the client's own bytes elsewhere."""
        fields = dict(fields)
        fields["model"] = Raw(_ENCODE(upstream_model))
        if self.streamed and asks_usage:
            # With usage asked for: whoever pays wants to know.
            fields["stream_options"] = Raw(_ENCODE({**self.stream_options, "include_usage": True}))
        return _ENCODE(fields)

    @property
    def wants_usage(self) -> bool:
        """The client asked for usage at the end of its stream."""
        return bytes(self.stream_options.get("include_usage", b"false")) == b"true"


def understand(
    body: bytes,
    began: float,
    tags: dict[str, str] | None = None,
    priority: Priority = "normal",
    timeout_s: float | None = None,
) -> Call:
    """Make a Call of a request's body. Raises InvalidCall with the position or the parameter."""
    fields = _fields(body)
    model_name = _model_name(fields)
    streamed = bool(_typed(fields, "stream", _BOOLEAN, "true or false"))
    _check_messages(fields)
    now_ns = time.time_ns()
    return Call(
        call_id=new_call_id(now_ns),
        started_at_us=now_ns // 1000,
        began=began,
        model_name=model_name,
        streamed=streamed,
        bound=_bound(fields),
        choices=max(1, _typed(fields, "n", _NUMBER, "a whole number") or 1),
        fields=fields,
        stream_options=_options(fields.get("stream_options")) if streamed else {},
        tags=tags,
        priority=priority,
        timeout_s=timeout_s,
    )


def _fields(body: bytes) -> dict[str, Raw]:
    try:
        if not body.isascii():
            body.decode()
        return _DECODE(body)
    except UnicodeDecodeError as why:
        raise InvalidCall(
            f"The body is not UTF-8: {why.reason} at byte {why.start}.", code="invalid_json"
        ) from None
    except msgspec.ValidationError:
        raise InvalidCall(
            'The body must be a JSON object, such as {"model": …}.', code="invalid_json"
        ) from None
    except msgspec.DecodeError as why:
        raise InvalidCall(_where(str(why), body), code="invalid_json") from None
    except RecursionError:
        raise _too_deep() from None


def _where(why: str, body: bytes) -> str:
    place = "" if "(byte" in why else f" (byte {len(body)})"
    return f"The body is not valid JSON. {why}{place}."


def _typed(fields: dict[str, Raw], name: str, decode: Callable[[Raw], T], wanted: str) -> T | None:
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return decode(raw)
    except msgspec.DecodeError:
        raise InvalidCall(f"'{name}' must be {wanted}.", param=name, code="invalid_type") from None


def _model_name(fields: dict[str, Raw]) -> str:
    name = _typed(fields, "model", _STRING, "a string, the name of a model")
    if not name:
        raise InvalidCall(
            "'model' is missing: name the model to call.", param="model", code="missing_parameter"
        )
    return name


def _check_messages(fields: dict[str, Raw]) -> None:
    raw = fields.get("messages")
    if raw is None:
        raise InvalidCall(
            "'messages' is missing: a list of messages.", param="messages", code="missing_parameter"
        )
    if bytes(raw)[:1] != b"[":
        raise InvalidCall("'messages' must be a list of messages.", param="messages", code="invalid_type")


def _options(raw: Raw | None) -> dict[str, Raw]:
    if raw is None or bytes(raw) == b"null":
        return {}
    try:
        return _DECODE(raw)
    except msgspec.DecodeError:
        raise InvalidCall(
            "'stream_options' must be an object.", param="stream_options", code="invalid_type"
        ) from None
    except RecursionError:  # the body was read whole with the stack a little less deep
        raise _too_deep() from None


def _too_deep() -> InvalidCall:
    return InvalidCall("The body is nested too deep to be read.", code="invalid_json")


def _bound(fields: dict[str, Raw]) -> int | None:
    """Providers differ in which of the two they heed, so the larger counts."""
    found = [
        _typed(fields, name, _NUMBER, "a whole number") for name in ("max_completion_tokens", "max_tokens")
    ]
    named = [max(0, each) for each in found if each is not None]
    return max(named) if named else None
