"""A person who changes keys through the management API, and probes that know which process answers them.

A connection belongs to the process that accepted it, so probes keep theirs: so every process is asked all the
time, and whoever is the last to hear of a change is found.
Moments are seconds on the machine's monotonic clock, which its processes share.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import psutil

from tests.served import Served, eventually
from tests.system.upstream_side.clients import Answer, Wire, connect

PROBE_EVERY_S = 0.015
"""Of each process. What is let in is found to within this."""
WIRES_EACH = 3
"""So that a slow answer does not keep the next probe waiting."""
SURE_AFTER_S = 0.3
"""Every process must have gone by the change for so long before it is believed."""
PATIENCE_S = 15.0
SCOPES = ("read", "keys", "limits", "operate")

MAKE_TOKEN = """
from accounts.models import User
from accounts.tokens import make_token
print(make_token(User.objects.get(), "an operator's program", {scopes!r})[1])
"""


@dataclass(frozen=True, slots=True)
class Made:
    """An API key, as its owner got it."""

    id: int
    text: str = field(repr=False)


@dataclass
class Person:
    """An administrator's program with an access token. Each request is dealt to any process."""

    browser: aiohttp.ClientSession
    team_id: int

    async def ask(self, method: str, path: str, **fields: Any) -> dict[str, Any]:
        """The answer's body, after a success."""
        async with self.browser.request(method, f"/api{path}", json=fields or None) as answer:
            text = await answer.text()
            assert answer.status < 300, f"{method} {path}: {answer.status} {text}"
            return json.loads(text) if text else {}

    async def make_key(self, name: str) -> Made:
        made = await self.ask("POST", f"/teams/{self.team_id}/keys", name=name)
        return Made(made["id"], made["api_key"])

    async def make_keys(self, count: int) -> list[Made]:
        return [await self.make_key(f"key {number}") for number in range(count)]

    async def revoke(self, key: Made) -> float:
        """When the answer was there."""
        await self.ask("POST", f"/keys/{key.id}/revoke")
        return time.monotonic()

    async def limit(self, key: Made, amount: int) -> float:
        """Calls a minute; when the answer was there."""
        await self.ask("PUT", f"/keys/{key.id}/rate-limits", kind="requests", amount=amount)
        return time.monotonic()

    async def rotate(self, key: Made, overlap_s: int = 3600) -> tuple[Made, int]:
        """The same key with its new secret, and that one's number."""
        made = await self.ask("POST", f"/keys/{key.id}/rotate", overlap_s=overlap_s)
        return Made(key.id, made["api_key"]), made["secret"]["id"]

    async def secrets(self, key: Made) -> list[dict[str, Any]]:
        """The newest first."""
        found: list[dict[str, Any]] = []
        after: str | None = ""
        while after is not None:
            page = await self.ask("GET", f"/keys/{key.id}/secrets?limit=100&after={after}")
            found += page["items"]
            after = page["next"]
        return found

    async def end_overlap(self, key: Made, secret_id: int) -> float:
        """When the answer was there."""
        await self.ask("POST", f"/keys/{key.id}/secrets/{secret_id}/end")
        return time.monotonic()


@contextlib.asynccontextmanager
async def person(served: Served) -> AsyncIterator[Person]:
    """Asks this gateway, on a new connection each time."""
    code = MAKE_TOKEN.format(scopes=SCOPES)
    token = (await asyncio.to_thread(served.manage, "shell", "--no-imports", "-c", code)).split()[-1]
    async with aiohttp.ClientSession(
        served.origin,
        headers={"Authorization": f"Bearer {token}"},
        connector=aiohttp.TCPConnector(force_close=True),
        timeout=aiohttp.ClientTimeout(30),
    ) as browser:
        found = Person(browser, 0)
        found.team_id = (await found.ask("GET", "/teams"))["items"][0]["id"]
        yield found


def ports_of(process: psutil.Process) -> set[int]:
    """The clients' ports of the connections that a process has accepted."""
    with contextlib.suppress(psutil.NoSuchProcess):
        found = process.net_connections("tcp")
        return {each.raddr.port for each in found if each.raddr and each.status == psutil.CONN_ESTABLISHED}
    return set()


def own_port(wire: Wire) -> int:
    return int(wire.writer.get_extra_info("sockname")[1])


Crew = Mapping[int, list[Wire]]
"""Connections by the process that accepted them."""


@contextlib.asynccontextmanager
async def crew_of(*gateways: Served, each: int = WIRES_EACH) -> AsyncIterator[Crew]:
    """So many connections to every process that serves calls here."""
    crew: dict[int, list[Wire]] = {}
    made: list[Wire] = []
    try:
        for served in gateways:
            crew |= await _crew(served, each, made)
        yield crew
    finally:
        for wire in made:
            wire.leave()


async def _crew(served: Served, each: int, made: list[Wire]) -> Crew:
    workers = served.workers()
    found: dict[int, list[Wire]] = {worker.pid: [] for worker in workers}
    deadline = time.monotonic() + PATIENCE_S
    while min(map(len, found.values())) < each:
        assert time.monotonic() < deadline, f"{served} has a process that takes no connection"
        wires = [await connect(served.port) for _ in range(each * len(workers))]
        made += wires
        owners = await asyncio.to_thread(_owners, workers, {own_port(wire) for wire in wires})
        for wire in wires:
            found[owners[own_port(wire)]].append(wire)
    return {pid: wires[:each] for pid, wires in found.items()}


def _owners(workers: Sequence[psutil.Process], ports: set[int]) -> dict[int, int]:
    """The process by client's port, when each connection was accepted."""

    def looked_up() -> dict[int, int] | None:
        found = {port: worker.pid for worker in workers for port in ports_of(worker)}
        return found if ports <= found.keys() else None

    return eventually(looked_up, what="a process for every connection")


@dataclass(frozen=True, slots=True)
class Probe:
    """One call to one process."""

    process: int
    sent_at: float
    answer: Answer


Judge = Callable[[Answer], bool]


def is_let_in(answer: Answer) -> bool:
    """Not refused for its key."""
    assert answer.status in (200, 401), (answer.status, answer.body)
    return answer.status == 200


def late_s(probes: Sequence[Probe], said_at: float, is_old: Judge) -> float:
    """How long after a change was said to be done the last call was sent that went by what was before."""
    old = [each.sent_at - said_at for each in probes if is_old(each.answer)]
    return max(0.0, max(old, default=0.0))


def have_heard(probes: Sequence[Probe], processes: Sequence[int], is_old: Judge, now: float) -> bool:
    """Every process has gone by the change for long enough."""
    first: dict[int, float] = {}
    for each in probes:
        if is_old(each.answer):
            first.pop(each.process, None)
        else:
            first.setdefault(each.process, each.sent_at)
    return all(process in first and now - first[process] > SURE_AFTER_S for process in processes)


@dataclass
class Watch:
    """Probes every process with one request until everybody has heard of a change. For one change."""

    crew: Crew
    request: bytes
    probes: list[Probe] = field(default_factory=list)
    over: bool = False

    async def see(
        self, change: Callable[[], Awaitable[float]], is_old: Judge, within_s: float = PATIENCE_S
    ) -> float:
        """How late the last process was, in seconds; `change` returns when it was said to be done.

        Raises AssertionError where a process does not hear of it within `within_s`.
        """
        probing = [asyncio.create_task(self._probe(process)) for process in self.crew]
        try:
            return await self._see(change, is_old, within_s)
        finally:
            self.over = True
            await asyncio.gather(*probing)

    async def _see(self, change: Callable[[], Awaitable[float]], is_old: Judge, within_s: float) -> float:
        await _until(
            lambda: self._was_as_before(is_old), PATIENCE_S, "answer of every process before the change"
        )
        said_at = await change()
        await _until(lambda: self._is_heard(is_old), within_s, "change in every process")
        return late_s(self.probes, said_at, is_old)

    def _was_as_before(self, is_old: Judge) -> bool:
        return {each.process for each in self.probes if is_old(each.answer)} == self.crew.keys()

    def _is_heard(self, is_old: Judge) -> bool:
        return have_heard(self.probes, list(self.crew), is_old, time.monotonic())

    async def _probe(self, process: int) -> None:
        """Answers that were asked for are waited for, so that every connection is left in order."""
        free = list(self.crew[process])
        async with asyncio.TaskGroup() as calls:
            while not self.over:
                if free:
                    calls.create_task(self._call(process, free.pop(), free))
                await asyncio.sleep(PROBE_EVERY_S)

    async def _call(self, process: int, wire: Wire, free: list[Wire]) -> None:
        sent_at = time.monotonic()
        answer = await wire.ask(self.request)
        self.probes.append(Probe(process, sent_at, answer))
        free.append(wire)


async def _until(holds: Callable[[], bool], within_s: float, what: str) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"no {what} within {within_s:.1f} s"
        await asyncio.sleep(0.02)


def told_ms(values: Sequence[float]) -> str:
    """Of seconds: how many, median, p99 and longest."""
    ordered = sorted(values)
    p99 = ordered[min(len(ordered) - 1, -(-99 * len(ordered) // 100) - 1)]
    return (
        f"n {len(ordered)}: p50 {ordered[len(ordered) // 2] * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms, "
        f"longest {ordered[-1] * 1000:.0f} ms"
    )


def p99_of(values: Sequence[float]) -> float:
    """By rank: no more than one in a hundred is longer."""
    ordered = sorted(values)
    return ordered[-(-99 * len(ordered) // 100) - 1]
