"""What a provider's answer means: its statuses, its errors, its whole answers."""

import asyncio
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec
from msgspec import Raw, Struct

from gateway import errors
from gateway.relay import usage as tokens
from gateway.relay.catalog import Target
from gateway.relay.ports import Answer
from gateway.relay.records import Usage
from gateway.relay.tokenizer import SaidSoFar
from gateway.relay.transports import TransportError

LARGEST_ERROR = 64 * 1024
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading a provider's JSON may raise: text that is no UTF-8 has an error of its own."""
LONGEST_TOLD = 2000
"""Of a message, as a client is told it."""
LONGEST_WORDS = 8000
"""Of an error's message, before it is masked and cut to what is passed on."""
ERROR_BODY_S = 0.5
"""How long the words of an error are waited for once its status has come."""
LONGEST_WAIT_S = 24 * 3600.0
REJECTIONS = frozenset({400, 404, 413, 422})
CREDENTIAL_REJECTED = frozenset({401, 402, 403})
TIMEOUTS = frozenset({408, 504})
PASSING = frozenset({408, 429, 500, 502, 503, 504, 529})
"""Statuses that may be gone at the next try."""


class _Message(Struct):
    message: str = ""
    code: str | int | None = None
    param: str | None = None


class _Error(Struct):
    error: _Message | str | None = None
    message: str = ""
    code: str | int | None = None
    param: str | None = None


class _Content(Struct):
    content: Raw = Raw(b"null")
    tool_calls: Raw = Raw(b"null")
    reasoning_content: Raw = Raw(b"null")
    reasoning: Raw = Raw(b"null")
    """Another word for it; some servers use both for the same text."""
    refusal: Raw = Raw(b"null")


class _Choice(Struct):
    message: _Content = msgspec.field(default_factory=_Content)


class _Whole(Struct):
    choices: list[_Choice]


class _Told(Struct):
    message: str = ""
    type: str | None = None
    code: str | int | None = None


class _Reply(Struct):
    choices: Raw = Raw(b"null")
    usage: Raw = Raw(b"null")
    error: Raw = Raw(b"null")


_error = msgspec.json.Decoder(_Error | list[_Error])
_told = msgspec.json.Decoder(_Told).decode
_whole = msgspec.json.Decoder(_Whole)
_reply = msgspec.json.Decoder(_Reply)
_SECRET = re.compile(r"\b(sk|pk|key|Bearer)[-_ ][\w\-*.]{6,}")


def usage_of_answer(body: bytes) -> Usage | None:
    """Usage that a whole answer reports, or None. Raises UpstreamFailed where it is no chat completion."""
    try:
        if not body.isascii():
            body.decode()
        reply = _reply.decode(body)
    except UNREADABLE:
        raise _no_completion() from None
    if bytes(reply.error) != b"null":
        raise error_within(reply.error)
    if bytes(reply.choices) == b"null":
        raise _no_completion()
    return tokens.reported(reply.usage)


def error_within(error: Raw) -> errors.UpstreamFailed:
    """The error that stands where an answer should, under a status of 200.

    Routers of several vendors answer so, with the status they mean as its code:
    one that finds the call itself wrong is a rejection, any other may pass.
    """
    try:
        said = _told(error)
    except UNREADABLE:
        said = _Told()
    status = _status_of(said)
    message = f"The provider answered with an error. {said.message[:LONGEST_WORDS]}".strip()
    if status is not None:
        return errors.UpstreamRejected(
            message, status=status, code=_printable(str(said.code))[:60], param=None
        )
    why = errors.UpstreamFailed(message)
    why.cause, why.again = "error_event", True
    return why


def _status_of(said: "_Told") -> int | None:
    """400 or what else says that the call is wrong; None where the error is about something else."""
    code = str(said.code)
    if code.isdigit() and len(code) == 3:
        status = int(code)
        return status if status in REJECTIONS else None
    return 400 if said.type == "invalid_request_error" else None


def _printable(text: str) -> str:
    """Without control characters: it goes into headers, log lines and databases."""
    return "".join(each for each in text if each.isprintable())


def _no_completion() -> errors.UpstreamFailed:
    return not_an_answer(
        "The provider answered with something that is not a chat completion. Try again, or another model."
    )


def tokens_of_answer(body: bytes, upstream_model: str) -> int:
    """Output tokens of a whole answer that reports no usage, counted from what it says."""
    try:
        choices = _whole.decode(body).choices
    except UNREADABLE:
        return tokens.tokens_of_text(len(body))
    said = SaidSoFar()
    for each in choices:
        message = each.message
        thought = bytes(message.reasoning_content)
        said.add(bytes(message.content))
        said.add(bytes(message.reasoning) if thought == b"null" else thought)
        said.add(bytes(message.refusal))
        said.add_tool_calls(bytes(message.tool_calls))
    return said.tokens(upstream_model)


def not_an_answer(message: str) -> errors.UpstreamFailed:
    """What came is no answer to a chat completion, whatever its status says."""
    why = errors.UpstreamFailed(message)
    why.cause = "not_an_answer"
    return why


async def failure_of(answer: Answer, target: Target, now_s: float) -> errors.UpstreamFailed:
    """The error for an answer whose status is not 200."""
    wait_s = retry_after_s(answer.retry_after, answer.retry_after_ms, now_s)
    try:
        async with asyncio.timeout(ERROR_BODY_S):
            body = await answer.whole(LARGEST_ERROR)
    except (TransportError, TimeoutError):  # too large, broken off, or late: the status says enough
        body = b""
    return failure(answer.status, body, wait_s, target)


def failure(status: int, body: bytes, wait_s: float | None, target: Target) -> errors.UpstreamFailed:
    """What a status other than 200 means, in the provider's words where those are the client's business."""
    if status in CREDENTIAL_REJECTED:
        return errors.UpstreamRefusesUs(
            f"The provider '{target.provider}' does not accept this gateway's credential (status {status}). "
            "Your API key is fine; an administrator must look at the provider."
        )
    said, code, param = _said(body, target)
    if status in REJECTIONS:
        said = said or f"The provider rejected the call with status {status}."
        rejected = errors.UpstreamRejected(said, status=status, code=code, param=param)
        rejected.elsewhere = status == 404  # another provider may have what this one has not
        return rejected
    return _trouble(status, said, wait_s, target)


def _trouble(status: int, said: str, wait_s: float | None, target: Target) -> errors.UpstreamFailed:
    """A status that says more about the provider than about the call."""
    provider = target.provider
    if status == 429:
        text = f"The provider '{provider}' is throttling this gateway. {said}".strip()
        return errors.UpstreamThrottled(text, retry_after_s=wait_s)
    failed = (
        errors.UpstreamTimedOut(f"The provider '{provider}' timed out (status {status}). {said}".strip())
        if status in TIMEOUTS
        else errors.UpstreamFailed(f"The provider '{provider}' failed with status {status}. {said}".strip())
    )
    failed.cause, failed.again, failed.retry_after_s = f"status_{status}", status in PASSING, wait_s
    failed.sick = not 400 <= status < 500 or status in PASSING
    return failed


def _said(body: bytes, target: Target) -> tuple[str, str | None, str | None]:
    """Message, code and param of a provider's error body, masked; empty where it has another shape."""
    found = _found(body)
    if found is None:
        return "", None, None
    code = None if found.code is None else masked(_printable(str(found.code)), target)[:60]
    param = None if found.param is None else masked(_printable(str(found.param)), target)[:200]
    return masked(found.message[:LONGEST_WORDS], target)[:LONGEST_TOLD], code, param


def _found(body: bytes) -> _Message | None:
    """OpenAI's shape, or what others write in its place.

    Gemini puts it into a list, Mistral and older vLLM leave the wrapping out,
    and xAI has the text for `error` and the code beside it.
    """
    try:
        whole = _error.decode(body)
        whole = whole[0] if isinstance(whole, list) else whole
    except (*UNREADABLE, IndexError):
        return None
    if isinstance(whole.error, _Message):
        return whole.error
    message = whole.error or whole.message
    return _Message(message, whole.code, whole.param) if message else None


def masked(text: str, target: Target) -> str:
    """The text without our credential, and without anything else that looks like one."""
    if target.credential is not None and target.credential.value:
        text = text.replace(target.credential.value, "***")
    return _SECRET.sub("***", text)


def retry_after_s(header: str | None, header_ms: str | None, now_s: float) -> float | None:
    """Seconds to wait, by `retry-after-ms` or Retry-After (RFC 9110, 10.2.3); None if absurd."""
    wait = _number(header_ms, 0.001) if header_ms else None
    if wait is None and header:
        wait = _number(header, 1.0)
        if wait is None:
            wait = _until(header, now_s)
    return wait if wait is not None and 0 <= wait <= LONGEST_WAIT_S else None


def _number(text: str, unit: float) -> float | None:
    try:
        return float(text) * unit
    except ValueError:
        return None


def _until(date: str, now_s: float) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.fromtimestamp(now_s, UTC)).total_seconds())
