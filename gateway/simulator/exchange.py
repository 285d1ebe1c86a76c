"""One request and what is sent for it: every byte passes here and is counted."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from gateway.simulator.journal import Ended, Received, ReportedUsage, now_us
from gateway.simulator.rendering import Piece

Scope = dict[str, Any]
Event = dict[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

WIRE = "penstock.transport"
"""Name of the ASGI extension that holds a `Wire`."""


class Wire(Protocol):
    """What ASGI cannot say about a connection."""

    def reset(self) -> None:
        """Drop the connection with a TCP reset; what was not yet sent is lost."""

    def close(self) -> None:
        """End the connection, inside the body or not, after what was written."""

    def half_close(self) -> None:
        """Say that nothing more will be sent, and go on listening. Not possible under TLS."""

    async def write(self, data: bytes) -> None:
        """Send bytes as they are; waits for a slow reader. Raises OSError where the client has gone."""


class ClientGone(Exception):
    """The client has hung up: nothing more can be sent."""


class Exchange:
    """Sends an answer and remembers what was really sent.

    Does not decide what to send. Under any server it notices a client that went by `http.disconnect`
    or by an OSError of `send`.
    """

    def __init__(self, number: int, scope: Scope, receive: Receive, send: Send) -> None:
        self.number = number
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers = _joined(scope["headers"])
        self.request_id = self.headers.get("x-request-id")
        self.wire: Wire = scope["extensions"][WIRE]
        self.model_name: str | None = None
        self.streamed = False
        self.prompt_tokens = 0
        self.fault: str | None = None
        self.client_gone = False
        self._receive, self._send = receive, send
        self._status: int | None = None
        self._bytes_sent = 0
        self._tokens_sent = 0
        self._usage: ReportedUsage | None = None
        self._sent_whole = False

    @property
    def credential(self) -> str:
        """What was presented as a bearer; empty where there was none."""
        scheme, _, credential = self.headers.get("authorization", "").partition(" ")
        return credential.strip() if scheme.lower() == "bearer" else ""

    async def body(self) -> bytes:
        parts = []
        while True:
            event = await self._hear()
            parts.append(event.get("body", b""))
            if not event.get("more_body", False):
                return b"".join(parts)

    async def start(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        await self._say(
            {"type": "http.response.start", "status": status, "headers": [*headers, *self._own_headers()]}
        )
        self._status = status

    async def write(self, piece: Piece) -> None:
        await self._say({"type": "http.response.body", "body": piece.data, "more_body": True})
        self._count(piece)

    async def spill(self, data: bytes) -> None:
        """Bytes past HTTP's framing: not counted, since they are no part of an answer's body."""
        try:
            await self.wire.write(data)
        except OSError:
            raise ClientGone from None

    async def finish(self, piece: Piece, *, whole: bool = True) -> None:
        """The end of the body; `whole` False: but not of the answer."""
        await self._say({"type": "http.response.body", "body": piece.data, "more_body": False})
        self._count(piece)
        self._sent_whole = whole

    async def pause(self, seconds: float) -> None:
        """Wait, unless the client goes meanwhile. Raises ClientGone."""
        if seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                await self.until_gone()
        except TimeoutError:
            return

    async def until_gone(self) -> None:
        """Raises ClientGone, when it is so."""
        while True:
            await self._hear()

    def as_received(self, body: bytes, keep_body: bool) -> Received:
        return Received(
            number=self.number,
            at_us=now_us(),
            request_id=self.request_id,
            method=self.method,
            path=self.path,
            model_name=self.model_name,
            streamed=self.streamed,
            headers=self.headers,
            body_bytes=len(body),
            body_sha256=hashlib.sha256(body).hexdigest(),
            body=body if keep_body else None,
        )

    def as_ended(self) -> Ended:
        return Ended(
            number=self.number,
            at_us=now_us(),
            request_id=self.request_id,
            model_name=self.model_name,
            streamed=self.streamed,
            status=self._status,
            sent_whole=self._sent_whole,
            bytes_sent=self._bytes_sent,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self._tokens_sent,
            usage=self._usage,
            fault=self.fault,
            client_gone=self.client_gone,
        )

    def _own_headers(self) -> Sequence[tuple[bytes, bytes]]:
        """Of the kind that providers put on every answer, and that a relay must not take for its own."""
        return ((b"x-request-id", b"req_sim%012d" % self.number), (b"server", b"simulated"))

    def _count(self, piece: Piece) -> None:
        self._bytes_sent += len(piece.data)
        self._tokens_sent += piece.tokens
        self._usage = piece.usage or self._usage

    async def _hear(self) -> Event:
        event = await self._receive()
        if event["type"] == "http.disconnect":
            raise ClientGone
        return event

    async def _say(self, event: Event) -> None:
        try:
            await self._send(event)
        except OSError:
            raise ClientGone from None


def _joined(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined
