"""Two gateways on one VAR_DIR and one Redis: one set of figures, one live page, whichever is asked."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import aiohttp
import httpx2 as httpx
import pytest

from tests.redis import RunningRedis, running_redis
from tests.served import Served, eventually, serve
from tests.system.live import frames_of, signed_in


@pytest.fixture
def redis_server() -> Iterator[RunningRedis]:
    with running_redis() as running:
        yield running


@pytest.fixture
def two(var_dir: Path, redis_server: RunningRedis) -> Iterator[tuple[Served, Served]]:
    url = redis_server.url
    with serve(var_dir, REDIS_URL=url) as one, serve(var_dir, out="other.txt", REDIS_URL=url) as other:
        other.api_key = other.api_key or one.api_key
        eventually(lambda: both_known(one) and both_known(other), what="that both know of each other")
        yield one, other


def both_known(served: Served) -> bool:
    return served.figure("penstock_processes", state="counted") == 2


def alone(served: Served) -> bool:
    return served.figure("penstock_processes", state="counted") == 1


def call(served: Served) -> None:
    asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}
    headers = {"Authorization": f"Bearer {served.api_key}"}
    answer = httpx.post(f"{served.base_url}/chat/completions", json=asked, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text


def calls_of(served: Served) -> float:
    return served.figure("penstock_calls_total", route="gpt-4o", outcome="answered") or 0.0


def test_metrics_are_the_same_whichever_is_asked_and_outlive_a_kill(two: tuple[Served, Served]) -> None:
    one, other = two
    for served in (one, other, other):
        call(served)
    eventually(lambda: calls_of(one) == calls_of(other) == 3, what="the calls of both, in both")
    assert one.figure("penstock_gate_places", route="gpt-4o") == other.figure(
        "penstock_gate_places", route="gpt-4o"
    )

    other.kill()
    eventually(lambda: alone(one), what="that one is alone", within_s=30)
    call(one)
    assert calls_of(one) == 4


async def told(browser: aiohttp.ClientSession) -> AsyncIterator[dict[str, Any]]:
    """What a page is told; it comes back where its line is closed."""
    while True:
        async with browser.ws_connect("/ws/live/", max_msg_size=0) as socket:
            async for message in socket:
                yield json.loads(message.data)


async def calls_shown(page: AsyncIterator[dict[str, Any]], count: int) -> int:
    """How many they are two frames after they were so many: one that is doubled may come late."""
    by_second: dict[int, int] = {}
    frames_after = 0
    async for said in page:
        frames_after += sum(by_second.values()) >= count
        by_second |= {frame["id"]: frame["total"][0] for frame in frames_of(said)}
        if frames_after == 2:
            break
    return sum(by_second.values())


async def test_the_live_page_shows_the_calls_of_both(two: tuple[Served, Served]) -> None:
    one, other = two
    for served in (one, other, other):
        await asyncio.to_thread(call, served)
    async with signed_in(one) as browser, aclosing(told(browser)) as page, asyncio.timeout(60):
        assert await calls_shown(page, 3) == 3


async def test_the_live_page_names_redis_and_fills_the_gap(
    two: tuple[Served, Served], redis_server: RunningRedis
) -> None:
    one, other = two
    async with signed_in(one) as browser, aclosing(told(browser)) as page, asyncio.timeout(60):
        await anext(page)
        redis_server.freeze()
        async for said in page:
            if "Redis" in said["missing"]:
                break
        await asyncio.to_thread(call, other)
        redis_server.thaw()
        assert await calls_shown(page, 1) == 1
