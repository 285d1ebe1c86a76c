"""Workers that are replaced one after the other under load: no failed call, no lost entry.

The clients keep their connections, as SDKs do, and try nothing a second time.
"""

import asyncio
import http.client
import itertools
import os
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2 as httpx
import pytest

from gateway.simulator import RunningSimulator, running_simulator
from tests.redis import RunningRedis, running_redis
from tests.served import Served, eventually, provider_of, serve
from tests.system import books as b
from tests.system.conftest import MODEL_NAMES, enter_prices
from tests.system.test_killed import all_booked, dispatched, is_whole

CLIENTS = 20
WORKERS = 2
KEPT = 12
"""Connections, so many that each worker has some (the chance of none is 1 in 2,000)."""
LONGEST_PAUSE_S = 0.3
"""Between two calls of a client, so that connections idle at the moment of a restart too."""
RESTART_S = 180.0
DONE = "rolling restart done"


@pytest.fixture(scope="module")
def redis() -> Iterator[RunningRedis]:
    with running_redis() as running:
        yield running


@dataclass
class Load:
    """Clients with one pool of connections; half of their calls are streams."""

    served: Served
    picks: random.Random
    seen: list[b.Seen] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    stopping: bool = False
    trials: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def run(self) -> None:
        """Until `stopping`; ends when the last call has ended."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=CLIENTS)
        async with httpx.AsyncClient(timeout=60, limits=limits) as http, asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(self._client(http))

    async def _client(self, http: httpx.AsyncClient) -> None:
        while not self.stopping:
            try:
                await self._call(http, f"trial-{next(self.trials)}")
            except httpx.TransportError as why:
                self.failures.append(repr(why))
            await asyncio.sleep(self.picks.uniform(0, LONGEST_PAUSE_S))  # a client that thinks

    async def _call(self, http: httpx.AsyncClient, trial: str) -> None:
        body = {
            "model": self.picks.choice(MODEL_NAMES),
            "messages": [{"role": "user", "content": "How deep?"}],
            "stream": self.picks.random() < 0.5,
            "max_tokens": self.picks.randint(4, 64),
        }
        headers = {"Authorization": f"Bearer {self.served.api_key}", "X-Penstock-Tags": f"trial={trial}"}
        answer = await http.post(f"{self.served.base_url}/chat/completions", json=body, headers=headers)
        whole = answer.status_code == 200 and is_whole(answer.content, bool(body["stream"]))
        if not whole:
            self.failures.append(f"{answer.status_code} {answer.text[:200]}")
        self.seen.append(b.Seen(trial, answer.headers["X-Request-Id"], bool(body["stream"]), whole, False))


def restart(served: Served) -> None:
    """Returns when every worker is a new one."""
    assert served.process is not None
    before = {each.pid for each in served.workers()}
    finished = served.errors().count(DONE)
    os.kill(served.process.pid, signal.SIGUSR2)
    eventually(lambda: served.errors().count(DONE) > finished, RESTART_S, "the rolling restart")
    after = {each.pid for each in served.workers()}
    assert len(after) == WORKERS
    assert not before & after


async def roll_under_load(var_dir: Path, tmp_path: Path, redis: RunningRedis, restarts: int) -> str:
    journal = tmp_path / "upstream.jsonl"
    async with running_simulator(speed=1.0, seed=restarts, journal=journal) as upstream:
        provider = provider_of(upstream.base_url, *MODEL_NAMES)
        with serve(var_dir, REDIS_URL=redis.url, WORKERS=str(WORKERS), **provider) as served:
            await asyncio.to_thread(enter_prices, served)
            await asyncio.to_thread(served.stop)
            await asyncio.to_thread(served.start)  # so that every worker knows the prices
            load = Load(served, random.Random(restarts))
            clients = asyncio.create_task(load.run())
            for _ in range(restarts):
                await asyncio.to_thread(restart, served)
            load.stopping = True
            await clients
            books = await complete_books(served, load, upstream)
            calls = dispatched(upstream)
            errors = served.errors()

    assert load.failures == []
    assert b.findings(load.seen, calls, books) == []
    assert {each.outcome for each in books.entries} == {"answered"}
    assert "Killing" not in errors
    assert "had not ended" not in errors
    return (
        f"{restarts} rolling restarts of {WORKERS} workers: of {len(load.seen)} calls none failed, none lost"
    )


async def complete_books(served: Served, load: Load, upstream: RunningSimulator) -> b.Books:
    known = {str(each.call_id) for each in load.seen} | set(dispatched(upstream))
    await asyncio.to_thread(eventually, lambda: all_booked(served, known), 15, "the last entries")
    return b.read_books(served.rows)


def test_a_kept_connection_may_bring_a_call_to_a_worker_that_leaves(var_dir, redis):
    """Each is asked again and again; the last answer says that it closes, and none closes without."""
    with serve(var_dir, REDIS_URL=redis.url, WORKERS=str(WORKERS)) as served:
        kept = [kept_connection(served) for _ in range(KEPT)]
        assert served.process is not None
        os.kill(served.process.pid, signal.SIGUSR2)
        while kept:
            kept = [each for each in kept if is_kept(each)]

        eventually(lambda: DONE in served.errors(), RESTART_S, "the rolling restart")
        assert "had not ended" not in served.errors()


def kept_connection(served: Served) -> http.client.HTTPConnection:
    """One that is open, and is not opened again when it is closed."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    connection.connect()
    connection.auto_open = 0
    return connection


def is_kept(connection: http.client.HTTPConnection) -> bool:
    connection.request("GET", "/healthz")
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200
    if not answer.will_close:
        return True
    connection.close()
    return False


async def test_a_rolling_restart_fails_no_call_and_loses_no_entry(var_dir, tmp_path, redis, say):
    say(await roll_under_load(var_dir, tmp_path, redis, restarts=3))


@pytest.mark.prove
async def test_fifty_rolling_restarts_fail_no_call_and_lose_no_entry(var_dir, tmp_path, redis, say):
    say(await roll_under_load(var_dir, tmp_path, redis, restarts=50))
