"""A provider that costs next to nothing: fixed bytes over a bare asyncio protocol.

    python -m benchmarks.upstream PORT

Each request says in its body what it wants, see `request` in `wire.py`:
a whole answer or a stream of so many chunks, how much text, and so many milliseconds before it and between
chunks.
Knows just enough HTTP/1.1 for the relay's transport and our own clients: Content-Length and kept connections.
"""

import asyncio
import sys
from typing import cast

import uvloop

from benchmarks.wire import Wanted, answer, body_length, event_stream, wanted


def whole(size: int = 0) -> bytes:
    """A whole answer with so many bytes of text, its header block before it."""
    body = answer(size)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    return head + body


WHOLE = whole()
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


def framed(data: bytes) -> bytes:
    """One chunk of HTTP/1.1's chunked transfer coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Provider(asyncio.Protocol):
    """One connection. One request at a time, as the relay and our clients send them."""

    transport: asyncio.Transport
    answers: dict[int, bytes] = {0: WHOLE}
    streams: dict[tuple[int, bool, int], list[bytes]] = {}

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.pending = bytearray()
        self.length = 0
        """Of the request that has begun, header block included; 0: not known yet."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.pending += data
        if not self.length:
            head_end = self.pending.find(b"\r\n\r\n")
            if head_end < 0:
                return
            self.length = head_end + 4 + body_length(bytes(self.pending[:head_end]))
        if len(self.pending) >= self.length:
            request, self.pending, self.length = bytes(self.pending), bytearray(), 0
            self.answer(wanted(request))

    def answer(self, asked: Wanted) -> None:
        begin = self.begin_stream if asked.streamed else self.write_whole
        if asked.delay_ms:
            self.loop.call_later(asked.delay_ms / 1000, begin, asked)
        else:
            begin(asked)

    def write_whole(self, asked: Wanted) -> None:
        if asked.answer_bytes not in self.answers:
            self.answers[asked.answer_bytes] = whole(asked.answer_bytes)
        self.transport.write(self.answers[asked.answer_bytes])

    def begin_stream(self, asked: Wanted) -> None:
        key = (asked.chunks, asked.usage, asked.answer_bytes)
        if key not in self.streams:
            self.streams[key] = [framed(each) for each in event_stream(*key)]
        self.transport.write(STREAM_HEAD)
        self.write_next(self.streams[key], 0, asked.pace_ms / 1000)

    def write_next(self, parts: list[bytes], at: int, pace_s: float) -> None:
        """One part in each turn of the loop, because writes of the same turn leave as one."""
        if self.transport.is_closing():
            return
        self.transport.write(parts[at])
        if at + 1 == len(parts):
            self.transport.write(LAST)
        elif pace_s:
            self.loop.call_later(pace_s, self.write_next, parts, at + 1, pace_s)
        else:
            self.loop.call_soon(self.write_next, parts, at + 1, pace_s)


async def serve(port: int) -> None:
    """Answer on loopback until ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Provider(loop), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
