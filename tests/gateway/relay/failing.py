"""Providers that fail, each by name: the simulator's faults, listeners that are no server, bytes, frames."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import trustme
from h2.errors import ErrorCodes

from gateway.simulator import Fault, Step, running_simulator
from tests.upstreams.h1_server import H1Exchange, h1_upstream, raw
from tests.upstreams.h2_server import H2Exchange, h2_upstream
from tests.upstreams.upstream import EVENTS, JSON, Upstream, completion, event
from tests.upstreams.upstream import Step as Spoken

OK, OF_JSON, OF_EVENTS = "HTTP/1.1 200 OK", f"content-type: {JSON}", f"content-type: {EVENTS}"
DONE = b"data: [DONE]\n\n"
GOOD = json.dumps(completion("Hello")).encode()
HELLO = event("Hello")
MOST_REQUESTS = 9
"""Three attempts, each sent up to three times where the provider says that it has not acted on it."""


@dataclass(frozen=True)
class Provider:
    """One that is running, and fails."""

    base_url: str
    call_ids: Callable[[], list[str]] | None = None
    """Of the requests that it received, by its own account; None: it never reads one to its end."""
    target: dict[str, Any] = field(default_factory=dict)
    """What a target of it needs."""


@dataclass(frozen=True)
class Failing:
    """A way to fail, with its name."""

    name: str
    running: Callable[[], AbstractAsyncContextManager[Provider]]
    fault: Fault | None = None
    """The simulator's, if it is one of those."""


def sim(fault: Fault, note: str = "", **step: Any) -> Failing:
    """The simulator with one fault, again and again."""

    @asynccontextmanager
    async def running() -> AsyncIterator[Provider]:
        async with running_simulator() as simulator:
            simulator.script([Step(fault=fault, count=None, **step)])
            received = simulator.journal.received
            yield Provider(simulator.base_url, lambda: [str(each.request_id) for each in received()])

    return Failing(f"{fault.value} {note}".strip(), running, fault)


def at(name: str, listener: Callable[[], AbstractAsyncContextManager[str]]) -> Failing:
    """A listener that is no HTTP server."""

    @asynccontextmanager
    async def running() -> AsyncIterator[Provider]:
        async with listener() as base_url:
            yield Provider(base_url)

    return Failing(name, running)


def certified(name: str, listener: Callable[[trustme.CA], AbstractAsyncContextManager[str]]) -> Failing:
    """A simulator with a certificate of an authority that the target trusts."""

    @asynccontextmanager
    async def running() -> AsyncIterator[Provider]:
        async with listener(authority()) as base_url:
            yield Provider(base_url, target={"ca_pem": authority().cert_pem.bytes().decode()})

    return Failing(name, running)


@cache
def authority() -> trustme.CA:
    return trustme.CA()


def h1(name: str, step: Spoken) -> Failing:
    """Bytes of HTTP/1.1 that no server means to send, again and again."""

    @asynccontextmanager
    async def running() -> AsyncIterator[Provider]:
        async with h1_upstream() as upstream:
            upstream.will(*[step] * MOST_REQUESTS)
            yield Provider(upstream.base_url, call_ids_at(upstream))

    return Failing(name, running)


def http2(name: str, *steps: Spoken) -> Failing:
    """What HTTP/2 may bring; the last step again and again."""

    @asynccontextmanager
    async def running() -> AsyncIterator[Provider]:
        async with h2_upstream() as upstream:
            upstream.will(*steps, *[steps[-1]] * MOST_REQUESTS)
            yield Provider(upstream.base_url, call_ids_at(upstream), {"ca_pem": upstream.ca_pem})

    return Failing(f"HTTP/2 {name}", running)


def call_ids_at(upstream: Upstream) -> Callable[[], list[str]]:
    return lambda: [each.headers["x-request-id"] for each in upstream.exchanges]


def said(*lines: str, body: bytes = b"", counted: bool = True, close: bool = False) -> Spoken:
    """An answer of HTTP/1.1, head and body in one piece; `counted` with a right Content-Length."""
    length = [f"content-length: {len(body)}"] if counted else []
    head = "\r\n".join([*lines, *length, "", ""]).encode("latin-1")
    return raw(head + body, then_close=close)


def chunked(body: bytes) -> Spoken:
    """A whole answer, its chunks as they are."""
    return said(OK, OF_JSON, "transfer-encoding: chunked", body=body, counted=False)


def events(body: bytes) -> Spoken:
    """A streamed answer with a good end of HTTP."""
    return said(OK, OF_EVENTS, body=body)


async def done_and_silent(exchange: H1Exchange) -> None:
    """`[DONE]`, and the end of the body never comes."""
    await exchange.begin(200, {"content-type": EVENTS})
    await exchange.send(HELLO + DONE)
    await exchange.left.wait()


def rst(code: ErrorCodes, after: bytes | None = None) -> Spoken:
    """RST_STREAM before the headers, or after these bytes of a stream."""

    async def step(exchange: H2Exchange) -> None:
        if after is not None:
            await exchange.begin(200, {"content-type": EVENTS})
            await exchange.send(after)
        await exchange.reset(code)

    return step


def frame(data: bytes) -> Spoken:
    """These bytes on the connection, and nothing more until the client has left."""

    async def step(exchange: H2Exchange) -> None:
        exchange._server.transport.write(data)
        await exchange.left.wait()

    return step


async def ends_early(exchange: H2Exchange) -> None:
    """A good end of the stream, before `[DONE]`."""
    await exchange.begin(200, {"content-type": EVENTS})
    await exchange.send(HELLO)
    await exchange.end()


async def counts_wrong(exchange: H2Exchange) -> None:
    """More than the Content-Length says."""
    await exchange.begin(200, {"content-type": JSON, "content-length": "5"})
    await exchange.send(GOOD)
    await exchange.end()


async def closes(exchange: H2Exchange) -> None:
    await exchange.close()
