"""What a provider's stand-in is to a test, whichever version of HTTP it speaks.

    async with h2_upstream() as upstream:
        upstream.will(answer("Hello"), reset(after=b"data: 1"))
        ...
        assert upstream.exchanges[0].headers["authorization"] == "Bearer sk-..."
        await within(upstream.connections[0].closed.wait())

Each request takes the next step; when there is none left, it is answered.
"""

import asyncio
import json
import ssl
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import trustme

T = TypeVar("T")
JSON, EVENTS = "application/json", "text/event-stream"


async def within(awaitable: Awaitable[T], seconds: float = 10.0) -> T:
    """Wait for a condition; the deadline is only for a test that fails."""
    async with asyncio.timeout(seconds):
        return await awaitable


@dataclass(eq=False)
class Connection:
    """One that a client made."""

    number: int
    closed: asyncio.Event = field(default_factory=asyncio.Event)


class Exchange(ABC):
    """One request, and what is said to it."""

    def __init__(self, connection: Connection, headers: list[tuple[str, str]], body: bytes) -> None:
        self.connection, self.body = connection, body
        self.raw_headers = headers
        self.headers = {name.lower(): value for name, value in headers}
        self.left = asyncio.Event()
        """The client reset the stream, or closed the connection."""
        self.done = asyncio.Event()
        """The step is over, however."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @abstractmethod
    async def begin(self, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Status and headers."""

    @abstractmethod
    async def send(self, data: bytes) -> None:
        """Some of the body, on its own."""

    @abstractmethod
    async def end(self) -> None:
        """The body is complete."""

    @abstractmethod
    async def reset(self) -> None:
        """End the exchange without completing it: RST_STREAM, or the connection's end."""


Step = Callable[[Any], Awaitable[None]]


class Upstream:
    """A listening stand-in, and all that came to it."""

    def __init__(self, default: Step) -> None:
        self.base_url = ""
        self.ca_pem = ""
        self.connections: list[Connection] = []
        self.exchanges: list[Any] = []
        self._default = default
        self._steps: deque[Step] = deque()
        self._arrived = asyncio.Condition()
        self._running: set[asyncio.Task[None]] = set()

    def will(self, *steps: Step) -> None:
        """What the next requests meet, in order."""
        self._steps.extend(steps)

    async def request(self, number: int = 1) -> Any:
        """Wait for the nth request since the start."""
        async with self._arrived:
            await within(self._arrived.wait_for(lambda: len(self.exchanges) >= number))
        return self.exchanges[number - 1]

    @property
    def open_connections(self) -> int:
        return sum(not each.closed.is_set() for each in self.connections)

    def connected(self) -> Connection:
        """For the servers: a client came."""
        self.connections.append(Connection(len(self.connections) + 1))
        return self.connections[-1]

    def perform(self, exchange: Exchange) -> asyncio.Task[None]:
        """For the servers: a request is there."""
        self.exchanges.append(exchange)
        step = self._steps.popleft() if self._steps else self._default
        task = asyncio.create_task(self._perform(step, exchange))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _perform(self, step: Step, exchange: Exchange) -> None:
        async with self._arrived:
            self._arrived.notify_all()
        try:
            await step(exchange)
        finally:
            exchange.done.set()

    def stop(self) -> None:
        for task in self._running:
            task.cancel()


def completion(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "upstream-model",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
    }


def event(text: str) -> bytes:
    """One event of a streamed completion."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "upstream-model"}
    return b"data: " + json.dumps({**chunk, "choices": [choice]}).encode() + b"\n\n"


def answer(text: str = "Hello", status: int = 200, **headers: str) -> Step:
    """A whole completion."""
    return whole(json.dumps(completion(text)).encode(), status, **headers)


def whole(body: bytes, status: int = 200, **headers: str) -> Step:
    """This body; header names are written with underscores."""

    async def step(exchange: Exchange) -> None:
        sent = {"content-type": JSON, **{name.replace("_", "-"): value for name, value in headers.items()}}
        await exchange.begin(status, sent)
        await exchange.send(body)
        await exchange.end()

    return step


def stream(*texts: str, goes_on: asyncio.Event | None = None) -> Step:
    """A streamed completion; with `goes_on`, all but the first event wait for it."""

    async def step(exchange: Exchange) -> None:
        await exchange.begin(200, {"content-type": EVENTS})
        for number, text in enumerate(texts):
            if number and goes_on is not None:
                await goes_on.wait()
            await exchange.send(event(text))
        await exchange.send(b"data: [DONE]\n\n")
        await exchange.end()

    return step


async def stall(exchange: Exchange) -> None:
    """Say nothing until the client has left."""
    await exchange.left.wait()


def stall_after(*texts: str) -> Step:
    """Begin a stream, and say nothing more until the client has left."""

    async def step(exchange: Exchange) -> None:
        await exchange.begin(200, {"content-type": EVENTS})
        for text in texts:
            await exchange.send(event(text))
        await exchange.left.wait()

    return step


def reset(after: bytes | None = None) -> Step:
    """End without completing: before the headers, or after these bytes of a stream."""

    async def step(exchange: Exchange) -> None:
        if after is not None:
            await exchange.begin(200, {"content-type": EVENTS})
            await exchange.send(after)
        await exchange.reset()

    return step


@asynccontextmanager
async def listening(
    upstream: Upstream,
    protocol: Callable[[], asyncio.BaseProtocol],
    alpn: list[str],
    *,
    tls: bool,
    names: tuple[str, ...],
) -> AsyncIterator[None]:
    """Serve on a free port of this machine; `names` are those the certificate is for."""
    context = None
    if tls:
        ca = trustme.CA()
        upstream.ca_pem = ca.cert_pem.bytes().decode()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(alpn)
        ca.issue_cert(*names).configure_cert(context)
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    upstream.base_url = f"http{'s' if tls else ''}://localhost:{port}/v1"
    try:
        yield
    finally:
        upstream.stop()
        server.close()
