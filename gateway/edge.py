"""What a request's head must look like before anyone reads further. Pure.

The rules are RFC 9110 and 9112's, and our own bounds on size.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from gateway.errors import InvalidCall

MOST_HEADERS = 100
LARGEST_HEAD = 32 * 1024
MOST_TAGS = 10
LONGEST_TAG = 100

_HOST = re.compile(rb"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(slots=True)
class Head:
    """The headers that we act on; the others are counted and left."""

    host: bytes = b""
    authorization: bytes = b""
    content_type: bytes = b""
    content_encoding: bytes = b""
    content_length: int | None = None
    tags: dict[str, str] | None = None


def read_head(headers: Headers) -> Head:
    """Raises InvalidCall for a head that is too large, has no or more than one Host, or a malformed one."""
    head = Head()
    hosts = count = size = 0
    for name, value in headers:
        count += 1
        size += len(name) + len(value) + 4
        if name == b"host":
            hosts += 1
            head.host = value
        elif name == b"authorization":
            head.authorization = value
        elif name == b"content-type":
            head.content_type = value
        elif name == b"content-length":
            head.content_length = _length(value)
        elif name == b"content-encoding":
            head.content_encoding = value
        elif name == b"x-penstock-tags":
            head.tags = _tags(value)
    if count > MOST_HEADERS or size > LARGEST_HEAD:
        raise _too_large()
    if hosts != 1 or not _HOST.fullmatch(head.host):
        raise _bad_host()
    return head


def check_host(headers: Headers) -> None:
    """For pages: exactly one well-formed Host, and a head of bearable size."""
    read_head(headers)


def _too_large() -> InvalidCall:
    return InvalidCall(
        f"The request has too many or too large headers: at most {MOST_HEADERS}, of {LARGEST_HEAD} bytes together.",
        status=431,
        code="headers_too_large",
        closes_connection=True,
    )


def _bad_host() -> InvalidCall:
    return InvalidCall(
        "The request must have exactly one well-formed Host header.",
        code="invalid_host",
        closes_connection=True,
    )


def _length(value: bytes) -> int:
    if not value.isdigit() or len(value) > 18:
        raise InvalidCall(
            "Content-Length must be a whole number.", code="invalid_header", closes_connection=True
        )
    return int(value)


def _tags(value: bytes) -> dict[str, str]:
    """`name=value,…`, percent-encoded where a value needs it."""
    tags: dict[str, str] = {}
    for part in value.decode("latin-1").split(","):
        name, _, text = part.strip().partition("=")
        if not name:
            continue
        if len(name) > LONGEST_TAG or len(text) > LONGEST_TAG or _CONTROL.search(part.encode("latin-1")):
            raise _bad_tags()
        tags[name] = unquote(text)[:LONGEST_TAG].replace("\x00", "")
    if len(tags) > MOST_TAGS:
        raise _bad_tags()
    return tags


def _bad_tags() -> InvalidCall:
    return InvalidCall(
        f"X-Penstock-Tags takes at most {MOST_TAGS} pairs name=value, each part of at most {LONGEST_TAG} characters.",
        code="invalid_header",
        param="X-Penstock-Tags",
        closes_connection=True,
    )


def check_json(head: Head, largest: int) -> None:
    """Raises InvalidCall for a body of another kind, an encoded one, or one that says it is too large."""
    kind = head.content_type.partition(b";")[0].strip().lower()
    if kind != b"application/json":
        raise InvalidCall(
            "Send the body as 'Content-Type: application/json'.",
            status=415,
            code="unsupported_media_type",
            closes_connection=True,
        )
    if head.content_encoding.strip().lower() not in (b"", b"identity"):
        raise InvalidCall(
            "Send the body as it is, without Content-Encoding.",
            status=415,
            code="unsupported_encoding",
            closes_connection=True,
        )
    if head.content_length is not None and head.content_length > largest:
        raise body_too_large(largest)


def body_too_large(largest: int) -> InvalidCall:
    return InvalidCall(
        f"The body is larger than {largest} bytes. Shorten the messages.",
        status=413,
        code="body_too_large",
        closes_connection=True,
    )


def slow_body(timeout_s: float) -> InvalidCall:
    return InvalidCall(
        f"The body did not come whole within {timeout_s:g} seconds.",
        status=408,
        code="slow_request",
        closes_connection=True,
    )


def api_key_of(head: Head) -> str:
    """The key that is presented; empty where there is none of the right kind."""
    scheme, _, key = head.authorization.partition(b" ")
    return key.strip().decode("latin-1") if scheme.lower() == b"bearer" else ""
