"""A target on a real socket for each way of carrying a call, and the means to call it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import uvloop

from gateway.relay.catalog import PoolConfig, Secret, Target, TransportName
from gateway.relay.ports import Answer, PoolFigures
from gateway.relay.transports.choice import Transports
from tests.upstreams.h1_server import h1_upstream
from tests.upstreams.h2_server import h2_upstream
from tests.upstreams.upstream import Upstream

CREDENTIAL = "sk-upstream-credential-0123456789"
BODY = b'{"model": "upstream-model", "messages": []}'
LARGEST = 1 << 20


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The contract holds on both event loops: the server brings uvloop, everything else has asyncio's own."""
    both = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return (
        both
        if item.path.name in ("test_contract.py", "test_http1.py")
        else {"asyncio": asyncio.new_event_loop}
    )


async def eventually(holds: Callable[[], Any], within_s: float = 10.0) -> None:
    """Wait until this is true; the deadline is only for a test that fails."""
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110 - any condition, also one that nothing announces
            await asyncio.sleep(0.005)


@dataclass
class Line:
    """A stand-in provider, a target that leads to it, and a transport."""

    upstream: Upstream
    target: Target
    transport: Transports = field(default_factory=Transports)

    @property
    def is_http2(self) -> bool:
        return self.target.pool.http2

    @property
    def figures(self) -> PoolFigures:
        return self.transport.figures()[self.target.id]

    def change(self, **fields: Any) -> None:
        """The target is read from the database again, with other settings."""
        self.target = replace(self.target, **fields)

    def limit(self, **limits: Any) -> None:
        """As `change`, for the pool's settings."""
        self.change(pool=replace(self.target.pool, **limits))

    async def begin(self, body: bytes = BODY) -> Answer:
        """Send a call; its answer's headers are here."""
        place = await self.transport.acquire(self.target)
        return await place.send("the-call-id", body)

    async def call(self, limit: int = LARGEST, body: bytes = BODY) -> tuple[int, bytes]:
        """A whole call."""
        answer = await self.begin(body)
        try:
            return answer.status, await answer.whole(limit)
        finally:
            answer.close()

    async def is_free(self) -> None:
        """No call has a place."""
        await eventually(lambda: self.figures.in_use == 0)


KINDS: dict[str, tuple[TransportName, bool, bool]] = {
    "http1": ("http1", False, False),
    "http1-tls": ("http1", True, False),
    "aiohttp": ("aiohttp", False, False),
    "aiohttp-tls": ("aiohttp", True, False),
    "httpx": ("httpx", False, False),
    "httpx-tls": ("httpx", True, False),
    "httpx-http2": ("httpx", True, True),
}


@asynccontextmanager
async def line_of(kind: str, **server: Any) -> AsyncIterator[Line]:
    client, tls, http2 = KINDS[kind]
    opened = h2_upstream(**server) if http2 else h1_upstream(tls=tls, **server)
    async with opened as upstream:
        target = Target(
            7,
            "provider",
            upstream.base_url,
            "upstream-model",
            Secret(CREDENTIAL),
            transport=client,
            pool=PoolConfig(http2=http2, pool_timeout_s=10),
            ca_pem=upstream.ca_pem,
        )
        line = Line(upstream, target)
        try:
            yield line
        finally:
            await line.transport.close()


@pytest.fixture(params=KINDS)
async def line(request: pytest.FixtureRequest) -> AsyncIterator[Line]:
    """Every way of carrying a call."""
    async with line_of(request.param) as made:
        yield made


@pytest.fixture(params=["http1", "aiohttp", "httpx"])
async def plain(request: pytest.FixtureRequest) -> AsyncIterator[Line]:
    """HTTP/1.1 without TLS."""
    async with line_of(request.param) as made:
        yield made


@pytest.fixture(params=["http1-tls", "aiohttp-tls", "httpx-tls", "httpx-http2"])
async def secure(request: pytest.FixtureRequest) -> AsyncIterator[Line]:
    """With TLS."""
    async with line_of(request.param) as made:
        yield made


@pytest.fixture
async def http2() -> AsyncIterator[Line]:
    async with line_of("httpx-http2") as made:
        yield made


async def cancelled(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
