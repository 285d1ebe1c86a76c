"""An HTTP/1.1 answer, read from bytes as they come (RFC 9112). Pure: no socket, no clock.

Strict, because a provider may send anything: what could be read in two ways is not read at all.
"""

import re
from collections.abc import Callable

from msgspec import Struct

LARGEST_HEAD = 64 * 1024
LARGEST_LINE = 16 * 1024
LARGEST_SIZE_LINE = 4 * 1024
"""Of a chunk, with its extensions."""
MOST_INTERIM = 1000
"""Answers under 1xx before the one that counts: some say every few seconds that they are at work."""

_NAME = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,1024}+"
_TEXT = rb"[^\r\n\0]{0,%d}+" % LARGEST_LINE
_FIELDS = rb"(?:%b:%b\r\n){0,255}+" % (_NAME, _TEXT)
_HEAD = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: %b)?\r\n%b\r\n" % (_TEXT, _FIELDS))
_TRAILERS = re.compile(rb"%b\r\n" % _FIELDS)
_KNOWN = re.compile(
    rb"\n(?=[ctr])(content-(?:length|type|encoding)|transfer-encoding|connection|retry-after(?:-ms)?):"
    rb"[ \t]*([^\r]*)",
    re.IGNORECASE,
)
_LENGTH = re.compile(rb"[0-9]{1,18}")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\0]*)?\r\n")
_PART_OF_SIZE = re.compile(rb"[0-9A-Fa-f]{0,15}[ \t]*(?:;[^\r\n\0]*)?\r?")
_CRLF = b"\r\n"


class NotHttp(Exception):
    """What came is no answer in HTTP/1.1, or one that could be read in two ways."""


class Head(Struct):
    """An answer's status line, and what the relay reads of its fields."""

    status: int
    version: str
    length: int | None
    """Of the body in bytes. None: chunked, or up to the connection's end."""
    chunked: bool
    keep: bool
    """The connection may carry another call."""
    content_type: str = ""
    content_encoding: str = ""
    retry_after: str | None = None
    retry_after_ms: str | None = None


def read_head(data: bytes) -> Head:
    """The head, its empty line included. Raises NotHttp."""
    line = _HEAD.fullmatch(data)
    if line is None:
        raise NotHttp
    fields = _fields(data)
    status, is_1_1 = int(line[2]), line[1] == b"1"
    length, chunked = _framing(status, fields)
    # A coding that HTTP/1.0 has not, or of no body, leaves open where the answer ends (RFC 9112, 6.1).
    is_odd = b"transfer-encoding" in fields and not (chunked and is_1_1)
    keep = not is_odd and (chunked or length is not None) and _keeps(fields.get(b"connection"), is_1_1)
    return Head(
        status,
        "1.1" if is_1_1 else "1.0",
        length,
        chunked,
        keep,
        fields.get(b"content-type", b"").decode("latin-1"),
        fields.get(b"content-encoding", b"").decode("latin-1"),
        _text(fields.get(b"retry-after")),
        _text(fields.get(b"retry-after-ms")),
    )


def _fields(head: bytes) -> dict[bytes, bytes]:
    """Those that we know. A repeated one is joined with commas (RFC 9110, 5.3)."""
    fields: dict[bytes, bytes] = {}
    for name, value in _KNOWN.findall(head):
        known, value = name.lower(), value.rstrip(b" \t")
        fields[known] = fields[known] + b"," + value if known in fields else value
    return fields


def _framing(status: int, fields: dict[bytes, bytes]) -> tuple[int | None, bool]:
    """How long the body is, and whether it is chunked. Raises NotHttp."""
    length, coding = fields.get(b"content-length"), fields.get(b"transfer-encoding")
    if status == 101 or (length is not None and coding is not None):
        raise NotHttp
    if status < 200 or status in (204, 304):
        return 0, False
    if coding is not None:
        if coding.lower() != b"chunked":
            raise NotHttp
        return None, True
    if length is None:
        return None, False
    if not _LENGTH.fullmatch(length):
        raise NotHttp
    return int(length), False


def _keeps(connection: bytes | None, is_1_1: bool) -> bool:
    if connection is None:
        return is_1_1
    options = {each.strip() for each in connection.lower().split(b",")}
    return b"close" not in options and (is_1_1 or b"keep-alive" in options)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


class Reading:
    """One answer as its bytes come. What has come of the body is taken whenever the reader likes."""

    __slots__ = (
        "_held",
        "_interim",
        "_left",
        "_sought",
        "_step",
        "has_surplus",
        "head",
        "over",
        "parts",
        "unread",
    )

    def __init__(self) -> None:
        self.head: Head | None = None
        self.parts: list[bytes] = []
        """Of the body: what was not taken yet."""
        self.unread = 0
        """Bytes in them."""
        self.over = False
        """All of the body has come."""
        self.has_surplus = False
        """And more, which belongs to nobody."""
        self._held = b""
        """The beginning of what cannot be read before it is complete."""
        self._sought = 0
        """Bytes of it in which a head's end was looked for in vain."""
        self._left = 0
        """Bytes of the body, or of a chunk, that are still to come."""
        self._interim = 0
        self._step: Callable[[Reading, bytes, int], int] = Reading._read_head
        """Reads on from an index, and says up to which; not bound, or it would be a cycle."""

    def feed(self, data: bytes) -> None:
        """More has come. Raises NotHttp."""
        if self._held:
            data, self._held = self._held + data, b""
        at, end = 0, len(data)
        while at < end:
            at = self._step(self, data, at)

    def end(self) -> None:
        """Nothing more will come, which is the end of a body whose length was not told."""
        if self._step is Reading._read_on:
            self.over = True

    @property
    def can_be_followed(self) -> bool:
        """All of it has come and nothing more, and the connection stays open for another."""
        return self.over and not self.has_surplus and self.head is not None and self.head.keep

    def take(self) -> bytes:
        """What has come of the body and was not taken yet."""
        parts = self.parts
        if not parts:
            return b""
        self.parts, self.unread = [], 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_head(self, data: bytes, at: int) -> int:
        end = data.find(b"\r\n\r\n", at + self._sought) + 4
        if end - at > LARGEST_HEAD or (end < 4 and len(data) - at > LARGEST_HEAD):
            raise NotHttp
        if end < 4:
            if not _may_be_a_head(data[at : at + 7]):
                raise NotHttp
            self._sought = max(0, len(data) - at - 3)
            return self._hold(data, at)
        self._sought = 0
        head = read_head(data[at:end])
        if head.status < 200:
            self._interim += 1
            if self._interim > MOST_INTERIM:
                raise NotHttp
            return end
        self._begin(head)
        return end

    def _begin(self, head: Head) -> None:
        self.head = head
        if head.chunked:
            self._step = Reading._read_size
        elif head.length is None:
            self._step = Reading._read_on
        elif head.length:
            self._left, self._step = head.length, Reading._read_counted
        else:
            self._finish()

    def _read_counted(self, data: bytes, at: int) -> int:
        end = at + self._left
        self._add(data[at:end])
        if end > len(data):
            self._left = end - len(data)
            return len(data)
        self._finish()
        return end

    def _read_on(self, data: bytes, at: int) -> int:
        self._add(data[at:])
        return len(data)

    def _read_size(self, data: bytes, at: int) -> int:
        """A chunk's size, and as many whole chunks as there are, which is nearly always all of `data`."""
        while (line := _SIZE.match(data, at)) is not None:
            begin, size = line.end(), int(line[1], 16)
            end = begin + size
            if size == 0 or not data.startswith(_CRLF, end):
                self._left = size
                self._step = Reading._read_chunk if size else Reading._read_trailers
                return begin
            self._add(data[begin:end])
            at = end + 2
            if at == len(data):
                return at
        if len(data) - at > LARGEST_SIZE_LINE or not _PART_OF_SIZE.fullmatch(data, at):
            raise NotHttp
        return self._hold(data, at)

    def _read_chunk(self, data: bytes, at: int) -> int:
        end = at + self._left
        self._add(data[at:end])
        if end > len(data):
            self._left = end - len(data)
            return len(data)
        self._step = Reading._read_end_of_chunk
        return end

    def _read_end_of_chunk(self, data: bytes, at: int) -> int:
        if data.startswith(_CRLF, at):
            self._step = Reading._read_size
            return at + 2
        if data[at:] != b"\r":
            raise NotHttp
        return self._hold(data, at)

    def _read_trailers(self, data: bytes, at: int) -> int:
        """Fields after the last chunk, which nobody reads."""
        if data.startswith(_CRLF, at):
            self._finish()
            return at + 2
        end = data.find(b"\r\n\r\n", at) + 4
        if end < 4 and len(data) - at <= LARGEST_LINE:
            return self._hold(data, at)
        if end < 4 or end - at > LARGEST_LINE or not _TRAILERS.fullmatch(data, at, end):
            raise NotHttp
        self._finish()
        return end

    def _read_surplus(self, data: bytes, at: int) -> int:
        self.has_surplus = True
        return len(data)

    def _finish(self) -> None:
        self.over, self._step = True, Reading._read_surplus

    def _add(self, part: bytes) -> None:
        self.parts.append(part)
        self.unread += len(part)

    def _hold(self, data: bytes, at: int) -> int:
        self._held = data[at:]
        return len(data)


def _may_be_a_head(beginning: bytes) -> bool:
    return b"HTTP/1.".startswith(beginning)
