"""Bytes become HTTP/1.1 requests. Pure: no sockets, no event loop.

Stricter than most servers on purpose: a relay that frames a request badly is to be caught here.
Does not do trailers' meaning, upgrades, or continuation lines.
"""

import re
from dataclasses import dataclass

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024

_REQUEST_LINE = re.compile(rb"([A-Z]+) (/[\x21-\x7e]*) HTTP/1\.([01])")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?")


class Malformed(Exception):
    """Not a request that can be answered; the connection cannot be used any more."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True)
class Head:
    """A request line and its headers; names are lower case."""

    method: str
    target: bytes
    minor_version: int
    headers: tuple[tuple[bytes, bytes], ...]
    body_bytes: int | None
    """None: the body is chunked."""

    def values(self, name: bytes) -> list[bytes]:
        return [value for each, value in self.headers if each == name]

    @property
    def keep_alive(self) -> bool:
        """Not after HEAD, whose answer we do not cut."""
        if self.minor_version == 0 or self.method == "HEAD":
            return False
        return b"close" not in _tokens(self.values(b"connection"))

    @property
    def expects_continue(self) -> bool:
        return self.minor_version == 1 and b"100-continue" in _tokens(self.values(b"expect"))


@dataclass(frozen=True, slots=True)
class Request:
    head: Head
    body: bytes


class RequestReader:
    """Collects bytes until a request is whole. One reader per connection."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: Head | None = None
        self._body = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def take(self) -> Request | None:
        """The next whole request, None where more bytes are needed. Raises Malformed."""
        if self._head is None:
            self._head = self._take_head()
        if self._head is None:
            return None
        body = (
            self._take_chunked()
            if self._head.body_bytes is None
            else self._take_counted(self._head.body_bytes)
        )
        if body is None:
            return None
        head, self._head = self._head, None
        return Request(head, body)

    @property
    def awaits_continue(self) -> bool:
        """The head has come, and its client waits for a word before it sends the body."""
        return self._head is not None and self._head.expects_continue and not self._buffer

    def _take_head(self) -> Head | None:
        end = self._buffer.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
        if end < 0:
            if len(self._buffer) >= MAX_HEAD_BYTES:
                raise Malformed(431, "The request's head is too large.")
            return None
        head = parse_head(bytes(self._buffer[:end]))
        del self._buffer[: end + 4]
        return head

    def _take_counted(self, size: int) -> bytes | None:
        if len(self._buffer) < size:
            return None
        body = bytes(self._buffer[:size])
        del self._buffer[:size]
        return body

    def _take_chunked(self) -> bytes | None:
        while (chunk := self._take_chunk()) is not None:
            if not chunk:
                body, self._body = bytes(self._body), bytearray()
                return body
            self._body += chunk
            if len(self._body) > MAX_BODY_BYTES:
                raise Malformed(413, "The request's body is too large.")
        return None

    def _take_chunk(self) -> bytes | None:
        """One chunk with its line ends, empty for the last; None where more bytes are needed."""
        line_end = self._buffer.find(b"\r\n", 0, 1024)
        if line_end < 0:
            if len(self._buffer) >= 1024:
                raise Malformed(400, "A chunk's size line is too long.")
            return None
        match = _CHUNK_SIZE.fullmatch(self._buffer, 0, line_end)
        if match is None:
            raise Malformed(400, "A chunk's size is not a hexadecimal number.")
        start, size = line_end + 2, int(match[1], 16)
        if size > MAX_BODY_BYTES:
            raise Malformed(413, "The request's body is too large.")
        if len(self._buffer) < start + size + 2:
            return None
        if self._buffer[start + size : start + size + 2] != b"\r\n":
            raise Malformed(400, "A chunk does not end where its size says.")
        chunk = bytes(self._buffer[start : start + size])
        del self._buffer[: start + size + 2]
        return chunk


def parse_head(block: bytes) -> Head:
    """The head without its closing blank line. Raises Malformed."""
    first, *rest = block.split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        raise Malformed(400, "The request line is malformed.")
    headers = tuple(_header(line) for line in rest)
    return Head(match[1].decode(), match[2], int(match[3]), headers, _body_bytes(headers))


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    value = value.strip(b" \t")
    if not colon or _NAME.fullmatch(name) is None or b"\0" in value or b"\r" in value or b"\n" in value:
        raise Malformed(400, "A header line is malformed.")
    return name.lower(), value


def _body_bytes(headers: tuple[tuple[bytes, bytes], ...]) -> int | None:
    lengths = [value for name, value in headers if name == b"content-length"]
    codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    if codings:
        if lengths or codings != [b"chunked"]:
            raise Malformed(400, "The body's framing is ambiguous.")
        return None
    if len(lengths) > 1 or not all(value.isdigit() for value in lengths):
        raise Malformed(400, "Content-Length is malformed.")
    size = int(lengths[0]) if lengths else 0
    if size > MAX_BODY_BYTES:
        raise Malformed(413, "The request's body is too large.")
    return size


def _tokens(values: list[bytes]) -> list[bytes]:
    return [token.strip().lower() for value in values for token in value.split(b",")]
