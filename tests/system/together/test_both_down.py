"""PostgreSQL and Redis are away until the journal is full: calls are refused before one goes unrecorded."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from gateway.simulator import running_simulator
from tests.postgres import running_postgres
from tests.redis import running_redis
from tests.served import Served, eventually, provider_of, serve
from tests.system import test_killed as k

MODEL_NAME = "gpt-4o"
CLIENTS = 32
JOURNAL_BYTES = 36_000_000
"""Two segments of 16 MiB, and a little."""
LONG_TAGS = ",".join(f"tag{number}={'deep' * 25}" for number in range(10))
"""So that the journal is full after some thousands of calls."""
ENOUGH_REFUSED = 200


@dataclass
class Flood:
    """Clients that call until so many were refused because the journal is full."""

    served: Served
    answered: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """Call ids."""
    others: list[Any] = field(default_factory=list)

    async def run(self) -> None:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as http,
            asyncio.TaskGroup() as clients,
        ):
            for _ in range(CLIENTS):
                clients.create_task(self._client(http))

    async def _client(self, http: aiohttp.ClientSession) -> None:
        while len(self.refused) < ENOUGH_REFUSED and not self.others:
            await self.call(http)

    async def call(self, http: aiohttp.ClientSession) -> None:
        body = {"model": MODEL_NAME, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
        headers = {"Authorization": f"Bearer {self.served.api_key}", "X-Penstock-Tags": LONG_TAGS}
        async with http.post(
            f"{self.served.base_url}/chat/completions", json=body, headers=headers
        ) as answer:
            told, call_id = await answer.json(), answer.headers["X-Request-Id"]
            if answer.status == 200:
                self.answered.append(call_id)
            elif told["error"]["code"] == "journal_full" and int(answer.headers["Retry-After"]) > 0:
                self.refused.append(call_id)
            else:
                self.others.append((answer.status, told))


async def test_with_both_away_calls_are_refused_before_one_goes_unrecorded(var_dir, tmp_path, say):
    async with running_simulator(journal=tmp_path / "upstream.jsonl") as upstream:
        with (
            running_redis() as redis,
            running_postgres(quick=False) as database,
            serve(
                var_dir,
                DATABASE_URL=database.url,
                REDIS_URL=redis.url,
                JOURNAL_MAX_BYTES=str(JOURNAL_BYTES),
                KEY_REQUESTS_PER_MINUTE="0",
                TEAM_REQUESTS_PER_MINUTE="0",
                TEAM_TOKENS_PER_MINUTE="0",
                **provider_of(upstream.base_url, MODEL_NAME),
            ) as served,
        ):
            flood = Flood(served)
            async with aiohttp.ClientSession() as http:
                await flood.call(http)
            assert flood.others == []
            await asyncio.to_thread(database.kill)
            await asyncio.to_thread(redis.kill)
            await flood.run()
            sent = set(k.dispatched(upstream))

            def booked() -> list[str]:
                return [str(call_id) for (call_id,) in database.rows("SELECT call_id FROM gateway_entry")]

            await asyncio.to_thread(redis.start)
            await asyncio.to_thread(database.start)
            await asyncio.to_thread(eventually, lambda: sent <= set(booked()), 60, "every call on the books")
            again = Flood(served)
            async with aiohttp.ClientSession() as http:
                await again.call(http)
            entries = booked()

    assert (flood.others, again.others, len(again.answered)) == ([], [], 1)
    assert len(flood.answered) > 1000
    assert set(flood.answered) <= sent
    assert sent.isdisjoint(flood.refused)
    assert len(set(entries)) == len(entries)
    say(
        f"O3  {len(flood.answered)} calls answered with both away, then {len(flood.refused)} refused "
        "with 503; 0 unrecorded, 0 sent of those refused"
    )
