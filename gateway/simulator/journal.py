"""What the simulator received and sent, as JSON lines: the ground truth that tests join the books with.

Each line is appended by one write(), so a process that is killed leaves whole lines;
a torn tail can only be the last one, and the reader leaves it out.
Headers are kept as they came, credentials included: give it a path of your own (mode 0600).
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct, field

KEPT_LINES = 20_000


class ReportedUsage(Struct, frozen=True):
    """The usage that was really sent to the client."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


class Received(Struct, frozen=True, tag="received", tag_field="event"):
    """A request has come whole. Moments are microseconds since the Unix epoch."""

    number: int
    """Counts the requests of one simulator; joins `received` and `ended` where a request id repeats."""
    at_us: int
    request_id: str | None
    """The `X-Request-Id` header."""
    method: str
    path: str
    model_name: str | None = field(name="model")
    streamed: bool
    headers: dict[str, str]
    """Names in lower case; values of a repeated header are joined by a comma."""
    body_bytes: int
    body_sha256: str
    body: bytes | None = None
    """Base64 in the file; only with `keep_bodies`."""


class Ended(Struct, frozen=True, tag="ended", tag_field="event"):
    """Nothing more will be sent for this request."""

    number: int
    at_us: int
    request_id: str | None
    model_name: str | None = field(name="model")
    streamed: bool
    status: int | None
    """None: not even headers were sent."""
    sent_whole: bool
    """The last byte of a properly ended answer was handed to the server."""
    bytes_sent: int
    """Of the body, before framing."""
    prompt_tokens: int
    completion_tokens: int
    """Really sent so far, whatever the usage says."""
    usage: ReportedUsage | None
    """None also where a script chose the words."""
    fault: str | None
    client_gone: bool


Line = Received | Ended
_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)
_encoder = msgspec.json.Encoder()


def now_us() -> int:
    return time.time_ns() // 1000


def encode_lines(lines: list[Line]) -> bytes:
    return _encoder.encode_lines(lines)


def read_journal(path: Path | str) -> list[Line]:
    """Every whole line. Raises OSError, and msgspec.DecodeError for a line that is not ours."""
    whole, _, _torn = Path(path).read_bytes().rpartition(b"\n")
    return [_decoder.decode(line) for line in whole.split(b"\n") if line]


class Journal:
    """Append only. With a path the lines are in the file alone, else the last 20,000 are kept in memory."""

    def __init__(self, path: Path | str | None = None, *, keep_bodies: bool = False) -> None:
        self.path = Path(path) if path is not None else None
        self.keep_bodies = keep_bodies
        self._kept: deque[Line] = deque(maxlen=KEPT_LINES)
        self._news = asyncio.Event()
        self._descriptor = None
        if self.path is not None:
            self._descriptor = os.open(
                self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
            )

    def __repr__(self) -> str:
        return f"<Journal {self.path or f'in memory, {len(self._kept)} lines'}>"

    def append(self, line: Line) -> None:
        """Raises OSError where the disk is full: a simulator that cannot tell the truth had better stop."""
        if self._descriptor is None:
            self._kept.append(line)
        else:
            data = _encoder.encode(line) + b"\n"
            if os.write(self._descriptor, data) != len(data):
                raise OSError(f"the simulator's journal {self.path} took only part of a line")
        self._news.set()

    def lines(self) -> list[Line]:
        return list(self._kept) if self.path is None else read_journal(self.path)

    def received(self) -> list[Received]:
        return [line for line in self.lines() if isinstance(line, Received)]

    def ended(self) -> list[Ended]:
        return [line for line in self.lines() if isinstance(line, Ended)]

    async def until(self, enough: Callable[["Journal"], bool], within_s: float = 5.0) -> None:
        """Wait until `enough(journal)` holds. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while not enough(self):
                self._news.clear()
                await self._news.wait()

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
