"""SIGKILL under load, two workers, a PostgreSQL that goes away in the middle: nothing lost, nothing twice.

As `test_killed.py`, whose load, joins and detectors these are.
"""

import asyncio
import itertools
import json
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from gateway.simulator import RunningSimulator, running_simulator
from tests.postgres import RunningPostgres, running_postgres
from tests.redis import running_redis
from tests.served import Served, eventually, provider_of, serve
from tests.system import books as b
from tests.system import test_killed as k
from tests.system.conftest import MODEL_NAMES, enter_prices

WORKERS = 2
BACK_WITHIN_S = 30.0
"""After a death or an outage: all workers serve, and every call has its entry."""


@dataclass
class House:
    """The gateway, its database, its provider and its clients."""

    served: Served
    database: RunningPostgres
    upstream: RunningSimulator
    load: k.Load
    in_flight: int = 0
    deaths: int = 0

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """As SQLite would tell them."""
        return [tuple(plain(each) for each in row) for row in self.database.rows(query)]

    def kill_one_worker(self) -> None:
        victim = self.load.picks.choice(self.served.workers())
        victim.kill()
        victim.wait(10)
        self.deaths += 1

    def kill_all(self) -> None:
        self.served.kill()
        self.deaths += 1

    async def come_back(self) -> None:
        """Until two workers serve, and every call that the provider received has an entry."""
        await asyncio.to_thread(eventually, lambda: len(self.served.workers()) == WORKERS, BACK_WITHIN_S)
        await asyncio.to_thread(k.wait_for_the_next_worker, self.served)
        known = set(k.dispatched(self.upstream))
        await asyncio.to_thread(eventually, lambda: self._booked(known), BACK_WITHIN_S, "all entries")

    def _booked(self, call_ids: set[str]) -> bool:
        return call_ids <= {call_id for (call_id,) in self.rows("SELECT call_id FROM gateway_entry")}


def plain(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ")
    return json.dumps(value) if isinstance(value, dict | list) else value


async def one_death(house: House, *, alone: bool) -> None:
    """At a random moment under load: of one worker, or of the whole gateway."""
    load = house.load
    clients = asyncio.create_task(load.run())
    await asyncio.sleep(load.picks.uniform(0.3, 1.3))  # the moment of death, not a wait for anything
    house.in_flight += load.open_calls
    load.stopping = True
    if alone:
        house.kill_one_worker()
    else:
        house.kill_all()
    await clients
    if not alone:
        await asyncio.to_thread(house.served.start)
    await house.come_back()


async def an_outage(house: House, lasts_s: float) -> None:
    """The database stops under load, and a worker dies meanwhile; calls go on."""
    load = house.load
    clients = asyncio.create_task(load.run())
    await asyncio.sleep(0.5)  # of load, not a wait for anything
    await asyncio.to_thread(house.database.stop)
    before = len(load.seen)
    await asyncio.sleep(lasts_s / 2)  # the length of the outage
    house.kill_one_worker()
    await asyncio.sleep(lasts_s / 2)
    during = [each for each in load.seen[before:] if each.whole]
    await asyncio.to_thread(house.database.start)
    await asyncio.sleep(1)  # of load
    load.stopping = True
    await clients
    assert len(during) > 100, "calls went on without a database"
    await house.come_back()


async def killed_on_postgresql(var_dir: Path, tmp_path: Path, deaths: int, outage_s: float, seed: int) -> str:
    """Half of the deaths, the outage, the others; then everything is joined. Returns the summary."""
    journal = tmp_path / "upstream.jsonl"
    async with running_simulator(speed=1.0, seed=seed, journal=journal) as upstream:
        upstream.script(list(itertools.islice(k.unlucky(), k.STEPS_A_KILL * (deaths + int(outage_s)))))
        with (
            running_redis() as redis,
            running_postgres(quick=False) as database,
            serve(
                var_dir,
                DATABASE_URL=database.url,
                REDIS_URL=redis.url,
                WORKERS=str(WORKERS),
                **provider_of(upstream.base_url, *MODEL_NAMES, *k.FAULTS),
            ) as served,
        ):
            await asyncio.to_thread(enter_prices, served)
            await asyncio.to_thread(served.stop)
            await asyncio.to_thread(served.start)
            load = k.Load(served, random.Random(seed))
            house = House(served, database, upstream, load)
            for number in range(deaths):
                if number == deaths // 2:
                    await an_outage(house, outage_s)
                await one_death(house, alone=number % 3 != 2)
            calls, books = k.dispatched(upstream), b.read_books(house.rows)

    assert k.not_theirs(load.surprises, calls) == {}
    assert b.findings(load.seen, calls, books) == []
    assert not list((var_dir / "journal").glob(".unreadable*"))
    summary = b.summary(load.seen, calls, books, house.deaths, house.in_flight)
    return f"PostgreSQL, {WORKERS} workers, {outage_s:g} s without a database: {summary}"


async def test_workers_killed_with_the_database_away_lose_and_double_nothing(var_dir, tmp_path, say):
    say(await killed_on_postgresql(var_dir, tmp_path, deaths=6, outage_s=10, seed=5))


@pytest.mark.prove
async def test_forty_deaths_and_thirty_seconds_without_a_database(var_dir, tmp_path, say):
    say(await killed_on_postgresql(var_dir, tmp_path, deaths=40, outage_s=30, seed=30))
