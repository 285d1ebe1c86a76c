"""HTTP as a hostile client speaks it: exactly the bytes that are said, over a plain socket."""

import contextlib
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType

LARGEST_ANSWER = 64 * 1024 * 1024
PIECE = 64 * 1024


class Unreadable(Exception):
    """What came is no HTTP answer; the message has the bytes."""


@dataclass(frozen=True)
class Answer:
    """One answer off the wire. Status 0: the connection ended without one."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    """Names in lower case."""
    body: bytes = b""
    whole: bool = False
    """The body came to the end that its framing promised."""


class Wire:
    """One connection. Every wait on it ends after `patience_s` with TimeoutError."""

    def __init__(self, port: int, patience_s: float = 20.0, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:  # before the connection is made, or the window is already offered
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(patience_s)
        self.socket.connect(("127.0.0.1", port))
        self._held = b""

    def __enter__(self) -> "Wire":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def say(self, data: bytes) -> bool:
        """False: the other end had closed before it took all of it. What it answered can still be read."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def say_no_more(self) -> None:
        """Half-close."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def has_news(self, within_s: float = 0.0) -> bool:
        """Whether anything can be read by then, an end of the connection included."""
        watch = select.poll()  # select() knows no descriptor above 1,023
        watch.register(self.socket, select.POLLIN)
        return bool(watch.poll(within_s * 1000))

    def answer(self, *, to_head: bool = False) -> Answer:
        """The next answer; interim ones (1xx) are passed over. Raises Unreadable, TimeoutError."""
        while (head := self._head()) is not None:
            status, headers = _parsed(head)
            if status >= 200:
                body, whole = (b"", True) if to_head else self._body(headers)
                return Answer(status, headers, body, whole)
        return Answer()

    def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        while self._more():
            continue
        rest, self._held = self._held, b""
        return rest

    def _more(self) -> bool:
        try:
            data = self.socket.recv(PIECE)
        except ConnectionResetError:
            return False
        self._held += data
        assert len(self._held) < LARGEST_ANSWER
        return bool(data)

    def _until(self, mark: bytes) -> bytes | None:
        """What comes before the mark, which is taken away; None: the connection ended without it."""
        while mark not in self._held:
            if not self._more():
                return None
        found, _, self._held = self._held.partition(mark)
        return found

    def _exactly(self, size: int) -> bytes | None:
        while len(self._held) < size:
            if not self._more():
                return None
        found, self._held = self._held[:size], self._held[size:]
        return found

    def _head(self) -> bytes | None:
        head = self._until(b"\r\n\r\n")
        if head is None and self._held:
            raise Unreadable(repr(self._held[:500]))
        return head

    def _body(self, headers: dict[str, str]) -> tuple[bytes, bool]:
        if "chunked" in headers.get("transfer-encoding", ""):
            return self._chunks()
        if "content-length" in headers:
            body = self._exactly(int(headers["content-length"]))
            return (self._held, False) if body is None else (body, True)
        return self.rest(), True

    def _chunks(self) -> tuple[bytes, bool]:
        parts: list[bytes] = []
        while (line := self._until(b"\r\n")) is not None:
            size = int(line, 16)
            chunk = self._exactly(size + 2)
            if chunk is None:
                break
            if size == 0:
                return b"".join(parts), True
            parts.append(chunk[:-2])
        return b"".join(parts), False


def _parsed(head: bytes) -> tuple[int, dict[str, str]]:
    line, *fields = head.decode("latin-1").split("\r\n")
    version, _, rest = line.partition(" ")
    if version not in ("HTTP/1.1", "HTTP/1.0") or not rest[:3].isdigit():
        raise Unreadable(line)
    pairs = (each.partition(":") for each in fields)
    return int(rest[:3]), {name.strip().lower(): value.strip() for name, _, value in pairs}


def request(line: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    """A request of these very lines. Adds nothing."""
    return b"\r\n".join((line, *headers, b"", body))


def chunked(*parts: bytes) -> bytes:
    """A body in chunks, well made."""
    return b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in parts) + b"0\r\n\r\n"


def in_pieces(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]
