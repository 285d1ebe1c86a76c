"""A live socket whose reader takes nothing: a browser on a machine that sleeps, or somebody who means ill."""

import base64
import io
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from tests.served import Served

RECEIVE_BUFFER = 4096
"""The least that the kernel gives, so that what is not read soon stays with who sent it."""
PATIENCE_S = 30.0
TEXT, CLOSE = 1, 8
GOING_ON = 0


class Unread:
    """Opened, and then left alone until `messages` is asked for one."""

    def __init__(self, served: Served, cookies: Mapping[str, str]) -> None:
        self.socket = socket.socket()
        # Before the connection is made, or the window is already offered.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(("127.0.0.1", served.port))
        self.socket.sendall(_handshake(served, cookies))
        answer = self.socket.makefile("rb", buffering=0)  # not a byte more than the head
        assert answer.readline().startswith(b"HTTP/1.1 101")
        while answer.readline().strip():
            continue

    def close(self) -> None:
        self.socket.close()

    def messages(self) -> Iterator[dict[str, Any]]:
        """Decoded, up to the end of the connection."""
        # The text of a message may come in several frames (RFC 6455, 5.4).
        text, wire = b"", self.socket.makefile("rb")
        while (frame := _frame(wire)) is not None:
            is_last, kind, data = frame
            if kind == CLOSE:
                return
            if kind in (TEXT, GOING_ON):
                text += data
                if is_last:
                    yield msgspec.json.decode(text)
                    text = b""


def _handshake(served: Served, cookies: Mapping[str, str]) -> bytes:
    lines = {
        "Host": f"localhost:{served.port}",
        "Origin": served.origin,
        "Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()),
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"GET /ws/live/ HTTP/1.1\r\n{head}\r\n".encode()


def _frame(wire: io.BufferedReader) -> tuple[bool, int, bytes] | None:
    """Whether it is its message's last, its kind and what it holds (RFC 6455, 5.2); None: it is over."""
    head = wire.read(2)
    if len(head) < 2:
        return None
    size = head[1] & 0x7F
    if size == 126:
        (size,) = struct.unpack("!H", wire.read(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", wire.read(8))
    return bool(head[0] & 0x80), head[0] & 0x0F, wire.read(size)
