"""The field report, made again: four ways of calling, by a plain client and through the gateway.

    python -m benchmarks.field

The world they meet is `benchmarks/world.py`'s; what is made of the figures is `benchmarks/rows.py`'s.
All rows run side by side, each with a model name of its own: they wait for nearly all of their time.
Each program has a process of its own, and their bursts of many concurrent calls come one after the other.
"""

import asyncio
import contextlib
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import httpx2
import psutil
import trustme

from benchmarks import world
from benchmarks.configured import NO_USUAL_LIMITS
from benchmarks.far import CERTIFICATE, JOURNAL
from benchmarks.figures import percentile
from benchmarks.load import NotWhole
from benchmarks.rows import Bill, Call, Fate, Field, Row, bills, fate, page, row
from gateway.presets import API_KEYS
from gateway.simulator import read_journal
from tests.served import KEY, ROOT, Served, eventually, free_port, provider_of

PROGRAMS = ("plain", "near", "far", "whole")
START_S, STOP_S = 30.0, 10.0
BURST_S = 11.0
"""Enough for all calls of the row with fifty callers, but for those that stall."""
LAG_EVERY_S = 0.02
SET_UP = """
from accounts.changes import note_change
from gateway.management.commands.up import prepare
from gateway.models import Provider, Route, Target
print(prepare().api_key)
Provider.objects.update(ca_pem={ca_pem!r})
Route.objects.update(**{route!r})
Target.objects.update(**{target!r})
note_change()
"""


@dataclass(frozen=True, slots=True)
class Program:
    """Where a program calls, and as whom."""

    base_url: str
    api_key: str
    ca_pem: str
    streamed: bool
    model_name: str
    kind: str
    """One of PROGRAMS."""
    calls: int = world.CALLS
    timeout_s: float = world.CLIENT_TIMEOUT_S

    def client(self, **limits: int) -> httpx2.AsyncClient:
        """What the program opens: once, or, without a pool, for every call."""
        return httpx2.AsyncClient(
            base_url=self.base_url,
            headers={"authorization": f"Bearer {self.api_key}"},
            verify=ssl.create_default_context(cadata=self.ca_pem),
            timeout=self.timeout_s,
            limits=httpx2.Limits(**limits),
        )

    async def ask(self, client: httpx2.AsyncClient) -> Fate:
        """One call, to its answer's last byte."""
        body = {"model": self.model_name, "messages": [{"role": "user", "content": world.QUESTION}]}
        if self.streamed:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        try:
            async with client.stream("POST", "/chat/completions", json=body) as answer:
                said = await answer.aread()
        except httpx2.TimeoutException:
            return "timed_out"
        except httpx2.HTTPError:
            return "failed"
        return fate(answer.status_code, said, streamed=self.streamed)


async def _timed(asking: Awaitable[Fate], began_s: float) -> Call:
    return Call(await asking, time.perf_counter() - began_s)


async def no_pool(program: Program) -> list[Call]:
    """A new client for every call, one call after the other."""

    async def once() -> Call:
        began_s = time.perf_counter()
        async with program.client() as client:
            return await _timed(program.ask(client), began_s)

    return await side_by_side(once, world.LANES, program.calls)


async def pool_of_ten(program: Program) -> list[Call]:
    """Ten connections, and as many callers."""
    return await _pooled(program, world.POOL)


async def fifty_concurrent(program: Program) -> list[Call]:
    """As many connections as callers. All in a few seconds, so it waits until no other does the same."""
    await asyncio.sleep(PROGRAMS.index(program.kind) * BURST_S)
    return await _pooled(program, world.CONCURRENT)


async def semaphore_and_limiter(program: Program) -> list[Call]:
    """As before, but a call sets off at its turn: so many in every minute, evenly."""
    turns = Limiter(60 / world.CALLS_A_MINUTE)
    async with program.client(max_connections=world.CONCURRENT) as client:

        async def once() -> Call:
            await turns.wait()
            return await _timed(program.ask(client), time.perf_counter())

        return await side_by_side(once, world.CONCURRENT, program.calls)


async def _pooled(program: Program, size: int) -> list[Call]:
    async with program.client(max_connections=size) as client:

        async def once() -> Call:
            return await _timed(program.ask(client), time.perf_counter())

        return await side_by_side(once, size, program.calls)


WAYS: tuple[Callable[[Program], Awaitable[list[Call]]], ...] = (
    no_pool,
    pool_of_ten,
    fifty_concurrent,
    semaphore_and_limiter,
)
"""In the order of the published rows."""


class Limiter:
    """Lets one go every so many seconds."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._next_at_s = 0.0

    async def wait(self) -> None:
        """Until it is the next one's turn."""
        now_s = time.perf_counter()
        at_s = max(now_s, self._next_at_s)
        self._next_at_s = at_s + self._every_s
        await asyncio.sleep(at_s - now_s)


async def side_by_side(once: Callable[[], Awaitable[Call]], callers: int, count: int) -> list[Call]:
    """So many calls, by so many callers of which each has one call at a time."""
    left = iter(range(count))
    calls: list[Call] = []

    async def caller() -> None:
        for _ in left:
            calls.append(await once())  # noqa: PERF401 - an asynchronous one

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
    return calls


def measure() -> Field:
    """The whole report: about a minute. Raises NotWhole where a figure cannot be trusted."""
    began = time.perf_counter()
    authority = trustme.CA()
    ca_pem = authority.cert_pem.bytes().decode()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / CERTIFICATE)
        with (
            _far_and_gateway(folder, ca_pem) as programs,
            ProcessPoolExecutor(len(programs), get_context("spawn")) as processes,
        ):
            came = list(processes.map(_run, programs))
        billed = bills(read_journal(folder / JOURNAL))
    rows = {
        kind: tuple(_row(calls[name], billed[name]) for name in _names(kind))
        for kind, (calls, _) in zip(PROGRAMS, came, strict=True)
    }
    return Field(
        client=f"httpx2 {httpx2.__version__}",
        lag_ms=max(lag_s for _, lag_s in came) * 1000,
        seconds=time.perf_counter() - began,
        **rows,
    )


def _row(calls: list[Call], bill: Bill) -> Row:
    if bill.requests > 2 * world.CALLS:
        raise NotWhole(f"the provider received {bill.requests} requests, more than it had answers drawn for")
    try:
        return row(calls, bill)
    except ValueError as why:
        raise NotWhole(str(why)) from None


def _run(programs: list[Program]) -> tuple[dict[str, list[Call]], float]:
    """In a process of its own: the calls of each row by model name, and how late its event loop was."""
    return asyncio.run(_all(programs))


async def _all(programs: list[Program]) -> tuple[dict[str, list[Call]], float]:
    lags_s: list[float] = []
    watching = asyncio.create_task(_watch(lags_s))
    calls = await asyncio.gather(*(way(each) for way, each in zip(WAYS, programs, strict=True)))
    watching.cancel()
    by_name = {each.model_name: made for each, made in zip(programs, calls, strict=True)}
    return by_name, percentile(lags_s, 0.99)


async def _watch(lags_s: list[float]) -> None:
    """Note how much later than it asked it is woken."""
    while True:
        began_s = time.perf_counter()
        await asyncio.sleep(LAG_EVERY_S)
        lags_s.append(time.perf_counter() - began_s - LAG_EVERY_S)


def _names(kind: str) -> list[str]:
    """Its model names, one for each row."""
    return [f"{kind}-{place}" for place in range(len(world.PUBLISHED))]


@contextlib.contextmanager
def _far_and_gateway(folder: Path, ca_pem: str) -> Iterator[list[list[Program]]]:
    """Both, up; for each of PROGRAMS its rows."""
    provider_port, line_port = free_port(), free_port()
    names = [name for kind in PROGRAMS for name in _names(kind)]
    provider = f"https://127.0.0.1:{provider_port}/v1"
    environ = {**dict.fromkeys(API_KEYS, ""), **NO_USUAL_LIMITS, **provider_of(provider, *names)}
    served = Served(folder / "var", environ)
    ports = (provider_port, line_port, served.port)
    with started("benchmarks.far", str(folder), *map(str, ports), *names, listens_on=line_port):
        try:
            _set_up(served, ca_pem)
            served.start()
            yield _programs(served, provider, f"http://127.0.0.1:{line_port}/v1", ca_pem)
        finally:
            if served.process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    served.stop(STOP_S)
                served.kill()


def _set_up(served: Served, ca_pem: str) -> None:
    served.var_dir.mkdir(parents=True)
    code = SET_UP.format(ca_pem=ca_pem, route=world.ROUTE, target=world.TARGET)
    found = KEY.search(served.manage("shell", "-c", code))
    assert found is not None
    served.api_key = found.group()


def _programs(served: Served, provider: str, line: str, ca_pem: str) -> list[list[Program]]:
    where = {"plain": provider, "near": served.base_url, "far": line, "whole": served.base_url}
    keys = dict.fromkeys(PROGRAMS, served.api_key) | {"plain": "sk-plain"}
    return [
        [Program(where[kind], keys[kind], ca_pem, kind != "whole", name, kind) for name in _names(kind)]
        for kind in PROGRAMS
    ]


@contextlib.contextmanager
def started(module: str, *arguments: str, listens_on: int) -> Iterator[None]:
    """`python -m MODULE ARGUMENTS...`, which listens on that port last of all."""
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=ROOT)
    try:
        eventually(lambda: _listens(process.pid, listens_on), START_S, f"the start of {module}")
        yield
    finally:
        process.terminate()
        process.wait(STOP_S)


def _listens(pid: int, port: int) -> bool:
    wires = psutil.Process(pid).net_connections("tcp")
    return any(each.laddr.port == port and each.status == psutil.CONN_LISTEN for each in wires)


if __name__ == "__main__":
    print(page(measure()))
