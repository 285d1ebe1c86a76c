"""Clients over plain connections: light enough for thousands of calls, and free to leave when they like."""

import asyncio
import contextlib
import random
import re
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
PATIENCE_S = 120.0
LARGEST_HEAD = 64 * 1024
_RESET = struct.pack("ii", 1, 0)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer. `at` is the monotonic moment of its last byte."""

    status: int
    head: bytes
    body: bytes
    at: float

    def header(self, name: str) -> str | None:
        found = re.search(rb"\r\n" + name.encode() + rb": *([^\r]*)", self.head, re.IGNORECASE)
        return found.group(1).decode() if found else None


@dataclass(slots=True)
class Wire:
    """One kept connection; one call at a time."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, request: bytes) -> Answer:
        """Raises asyncio.IncompleteReadError, OSError where the connection ends first."""
        self.writer.write(request)
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            body = await self._body(head)
        return Answer(int(head[9:12]), head, body, time.monotonic())

    async def _body(self, head: bytes) -> bytes:
        if found := LENGTH.search(head):
            return await self.reader.readexactly(int(found.group(1)))
        return b"".join([each async for each in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body's chunks as they come, after the head was read."""
        while size := int(await self.reader.readuntil(b"\n"), 16):
            yield (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)

    def leave(self, *, reset: bool = False) -> None:
        """Close it, whatever is under way; `reset` as a crashed client's machine would."""
        if reset:
            sock = self.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.writer.transport.abort()


async def connect(port: int) -> Wire:
    return Wire(*await asyncio.open_connection("127.0.0.1", port, limit=LARGEST_HEAD))


@dataclass
class Wires:
    """Kept connections to one port: a call takes one that is free, or makes a new one."""

    port: int
    free: list[Wire] = field(default_factory=list)
    made: list[Wire] = field(default_factory=list)

    async def ask(self, request: bytes) -> Answer:
        wire = self.free.pop() if self.free else await self._fresh()
        answer = await wire.ask(request)
        if b"connection: close" not in answer.head.lower():
            self.free.append(wire)
        return answer

    async def _fresh(self) -> Wire:
        wire = await connect(self.port)
        self.made.append(wire)
        return wire

    def close(self) -> None:
        for each in self.made:
            each.leave()


@contextlib.asynccontextmanager
async def wires_to(port: int) -> AsyncIterator[Wires]:
    wires = Wires(port)
    try:
        yield wires
    finally:
        wires.close()


def evenly(a_second: float, seconds: float) -> Iterator[float]:
    """When calls are due, in seconds from the start: at even distances."""
    return (number / a_second for number in range(int(a_second * seconds)))


def at_random(a_second: float, seconds: float, rng: random.Random) -> Iterator[float]:
    """The same, independently of each other (a Poisson process)."""
    due_s = 0.0
    while (due_s := due_s + rng.expovariate(a_second)) < seconds:
        yield due_s


async def arrive(ask: Callable[[int], Awaitable[T]], due: Iterable[float]) -> list[tuple[T, float]]:
    """Calls at these moments whatever becomes of those before; with each the seconds since it was due."""
    tasks: list[asyncio.Task[tuple[T, float]]] = []
    began = time.monotonic()
    try:
        for number, due_s in enumerate(due):
            if (early_s := began + due_s - time.monotonic()) > 0:
                await asyncio.sleep(early_s)
            tasks.append(asyncio.create_task(_timed(ask, number, began + due_s)))
        return await asyncio.gather(*tasks)
    except asyncio.CancelledError:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def _timed(ask: Callable[[int], Awaitable[T]], number: int, due: float) -> tuple[T, float]:
    found = await ask(number)
    return found, time.monotonic() - due


async def closed_loop(ask: Callable[[int], Awaitable[T]], at_once: int, count: int) -> list[T]:
    """So many calls in all, each client sending its next when it has its answer."""
    numbers = iter(range(count))
    found: list[T] = []

    async def client() -> None:
        for number in numbers:
            found.append(await ask(number))  # noqa: PERF401 - one list for all clients

    async with asyncio.TaskGroup() as clients:
        for _ in range(at_once):
            clients.create_task(client())
    return found
