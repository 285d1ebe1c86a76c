"""What a provider's answer means: its statuses, its errors, its whole answers."""

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
from gateway.relay.transports import TransportError

LARGEST_ERROR = 64 * 1024
LONGEST_WAIT_S = 24 * 3600.0
REJECTIONS = frozenset({400, 404, 413, 422})
CREDENTIAL_REJECTED = frozenset({401, 402, 403})
TIMEOUTS = frozenset({408, 504})


class _Message(Struct):
    message: str = ""
    code: str | int | None = None
    param: str | None = None


class _Error(Struct):
    error: _Message | str | None = None


class _Content(Struct):
    content: Raw = Raw(b"null")
    tool_calls: Raw = Raw(b"null")


class _Choice(Struct):
    message: _Content = msgspec.field(default_factory=_Content)


class _Whole(Struct):
    choices: list[_Choice]


class _Usage(Struct):
    usage: Raw = Raw(b"null")


_error = msgspec.json.Decoder(_Error)
_whole = msgspec.json.Decoder(_Whole)
_usage = msgspec.json.Decoder(_Usage)
_SECRET = re.compile(r"\b(sk|pk|key|Bearer)[-_ ][\w\-*.]{6,}")


def usage_of_answer(body: bytes, prompt_bytes: int) -> Usage:
    """Usage of a whole answer, estimated where none is reported. Raises UpstreamFailed if it is no JSON."""
    try:
        raw = _usage.decode(body).usage
    except (msgspec.DecodeError, RecursionError):
        raise errors.UpstreamFailed(
            "The provider answered with something that is not a chat completion. Try again, or another model."
        ) from None
    return tokens.reported(raw) or tokens.estimated(prompt_bytes, _counted(body))


def _counted(body: bytes) -> int:
    try:
        choices = _whole.decode(body).choices
    except (msgspec.DecodeError, RecursionError):
        return tokens.tokens_of_text(len(body))
    said = (part for each in choices for part in (each.message.content, each.message.tool_calls))
    return tokens.tokens_of_text(sum(len(bytes(part)) for part in said if bytes(part) != b"null"))


async def failure_of(answer: Answer, target: Target, now_s: float) -> errors.UpstreamFailed:
    """The error for an answer whose status is not 200."""
    wait_s = retry_after_s(answer.retry_after, answer.retry_after_ms, now_s)
    try:
        body = await answer.whole(LARGEST_ERROR)
    except TransportError:  # too large or broken off: the status says enough
        body = b""
    return failure(answer.status, body, wait_s, target)


def failure(status: int, body: bytes, wait_s: float | None, target: Target) -> errors.UpstreamFailed:
    """What a status other than 200 means, in the provider's words where those are the client's business."""
    provider = target.provider
    if status in CREDENTIAL_REJECTED:
        return errors.UpstreamRefusesUs(
            f"The provider '{provider}' does not accept this gateway's credential (status {status}). "
            "Your API key is fine; an administrator must look at the provider."
        )
    said, code, param = _said(body, target)
    if status in REJECTIONS:
        said = said or f"The provider rejected the call with status {status}."
        return errors.UpstreamRejected(said, status=status, code=code, param=param)
    if status == 429:
        said = f"The provider '{provider}' is throttling this gateway. {said}".strip()
        return errors.UpstreamThrottled(said, retry_after_s=wait_s)
    if status in TIMEOUTS:
        return errors.UpstreamTimedOut(
            f"The provider '{provider}' timed out (status {status}). {said}".strip()
        )
    failed = errors.UpstreamFailed(f"The provider '{provider}' failed with status {status}. {said}".strip())
    failed.retry_after_s = wait_s
    return failed


def _said(body: bytes, target: Target) -> tuple[str, str | None, str | None]:
    """Message, code and param of a provider's error body, masked; empty where it has another shape."""
    try:
        found = _error.decode(body).error
    except (msgspec.DecodeError, RecursionError):
        return "", None, None
    if not isinstance(found, _Message):
        return masked(found or "", target)[:2000], None, None
    code = None if found.code is None else masked(str(found.code), target)[:60]
    param = None if found.param is None else masked(found.param, target)[:200]
    return masked(found.message, target)[:2000], code, param


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
