"""What a request's head must look like before anyone reads further. Pure.

The rules are RFC 9110 and 9112's, and our own bounds on size.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import unquote

from msgspec import Struct

from accounts.caller import Priority
from gateway.errors import InvalidCall

MOST_HEADERS = 100
LARGEST_HEAD = 32 * 1024
MOST_TAGS = 10
LONGEST_TAG = 100
LONGEST_AGENT = 200
LONGEST_TIMEOUT_S = 3600.0
PRIORITIES: dict[bytes, Priority] = {b"urgent": "urgent", b"normal": "normal", b"batch": "batch"}
HIGHEST_PORT = 65535
BLANKS = " \t"

_NAME = rb"[A-Za-z0-9][A-Za-z0-9_-]{0,62}"
_HOST = re.compile(
    rb"(?:" + _NAME + rb"(?:\." + _NAME + rb"){0,126}\.?|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?"
)
_DECIMAL = re.compile(rb"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_ACTED_ON = frozenset(
    (
        b"host",
        b"authorization",
        b"content-type",
        b"content-length",
        b"content-encoding",
        b"transfer-encoding",
        b"x-penstock-tags",
        b"x-penstock-priority",
        b"x-penstock-timeout",
    )
)

Headers = Sequence[tuple[bytes, bytes]]


class Head(Struct):
    """The headers that we act on; the others are counted and left."""

    authorization: bytes = b""
    content_type: bytes = b""
    content_encoding: bytes = b""
    content_length: int | None = None
    tags: dict[str, str] | None = None
    priority: Priority | None = None
    timeout_s: float | None = None
    user_agent: str = ""


def read_head(headers: Headers) -> Head:
    """Raises InvalidCall for a head that is too large, or has a header that may be read in two ways."""
    get = _acted_on(headers).get
    coding, length, tags = get(b"transfer-encoding"), get(b"content-length"), get(b"x-penstock-tags")
    priority, timeout = get(b"x-penstock-priority"), get(b"x-penstock-timeout")
    if coding is not None and (length is not None or coding.lower() != b"chunked"):
        raise _bad_header(
            "Transfer-Encoding",
            "Transfer-Encoding may be chunked, without a Content-Length, and nothing else.",
        )
    return Head(
        get(b"authorization", b""),
        get(b"content-type", b""),
        get(b"content-encoding", b""),
        None if length is None else _length(length),
        None if tags is None else _tags(tags),
        None if priority is None else _priority(priority),
        None if timeout is None else _timeout_s(timeout),
        get(b"user-agent", b"")[:LONGEST_AGENT].decode("latin-1"),
    )


def check_host(headers: Headers) -> None:
    """For pages and sockets: exactly one well-formed Host, a head of bearable size. Raises InvalidCall."""
    _acted_on(headers)


def _acted_on(headers: Headers) -> dict[bytes, bytes]:
    """Every header once, those we act on among them. Raises InvalidCall where one of those is doubled."""
    found = dict(headers)
    size = sum(map(len, found)) + sum(map(len, found.values())) + 4 * len(found)
    if len(found) != len(headers):
        size = sum(len(name) + len(value) + 4 for name, value in headers)
    if len(headers) > MOST_HEADERS or size > LARGEST_HEAD:
        raise _too_large()
    doubled = _doubled_of(headers) if len(found) != len(headers) else b""
    if doubled == b"host" or not _is_host(found.get(b"host", b"")):
        raise _bad_host()
    if doubled:
        raise _doubled(doubled)
    return found


def _doubled_of(headers: Headers) -> bytes:
    """A header that we act on and that came more than once, Host before all; empty where there is none."""
    names = Counter(name for name, _ in headers if name in _ACTED_ON)
    doubled = [name for name, count in names.items() if count > 1]
    return b"host" if b"host" in doubled else next(iter(doubled), b"")


@lru_cache(maxsize=256)
def _is_host(value: bytes) -> bool:
    """A name or an address, with or without a port (RFC 9110, 7.2)."""
    found = _HOST.fullmatch(value)
    if found is None:
        return False
    port = found[1]
    return port is None or int(port) <= HIGHEST_PORT


def _too_large() -> InvalidCall:
    return InvalidCall(
        f"The request has too many or too large headers: at most {MOST_HEADERS}, "
        f"of {LARGEST_HEAD} bytes together.",
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


def _bad_header(name: str, why: str) -> InvalidCall:
    return InvalidCall(why, code="invalid_header", param=name, closes_connection=True)


def _doubled(name: bytes) -> InvalidCall:
    title = name.decode("ascii").title()
    return _bad_header(title, f"{title} may be sent only once.")


def _length(value: bytes) -> int:
    if not value.isdigit() or len(value) > 18:
        raise _bad_header("Content-Length", "Content-Length must be a whole number.")
    return int(value)


def _priority(value: bytes) -> Priority:
    found = PRIORITIES.get(value.strip().lower())
    if found is None:
        raise _bad_header("X-Penstock-Priority", "X-Penstock-Priority must be urgent, normal or batch.")
    return found


def _timeout_s(value: bytes) -> float:
    """Seconds, as a plain decimal number."""
    if _DECIMAL.fullmatch(value.strip()) is None or not 0 < float(value) <= LONGEST_TIMEOUT_S:
        raise _bad_header(
            "X-Penstock-Timeout",
            f"X-Penstock-Timeout must be a number of seconds above 0 and at most {LONGEST_TIMEOUT_S:.0f}.",
        )
    return float(value)


def _tags(value: bytes) -> dict[str, str]:
    """`name=value,…`, percent-encoded where a value needs it."""
    tags: dict[str, str] = {}
    for part in value.decode("latin-1").split(","):
        name, _, encoded = part.partition("=")
        name, text = name.strip(BLANKS), unquote(encoded.strip(BLANKS))
        if not name:
            continue
        if max(len(name), len(text)) > LONGEST_TAG or not (name + text).isprintable():
            raise _bad_tags()
        tags[name] = text
    if len(tags) > MOST_TAGS:
        raise _bad_tags()
    return tags


def _bad_tags() -> InvalidCall:
    return _bad_header(
        "X-Penstock-Tags",
        f"X-Penstock-Tags takes at most {MOST_TAGS} pairs name=value, "
        f"each part of at most {LONGEST_TAG} printable characters.",
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


def broken_body() -> InvalidCall:
    return InvalidCall(
        "The request ended before its body did.", code="incomplete_body", closes_connection=True
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
