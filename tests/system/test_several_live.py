"""Two gateways on one VAR_DIR and one Redis: one set of figures, one live page, whichever is asked."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import httpx2 as httpx
import pytest

from tests.redis import RunningRedis, running_redis
from tests.served import Served, eventually, serve
from tests.system.live import signed_in, watch


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


async def test_the_live_page_shows_the_calls_of_both(two: tuple[Served, Served]) -> None:
    one, other = two
    for served in (one, other, other):
        await asyncio.to_thread(call, served)
    until_s = int(time.time()) + 2
    async with signed_in(one) as browser:
        totals, _ = await watch(browser, until_s)
    assert sum(each["calls"] for each in totals.values()) == 3


async def test_the_live_page_names_redis_and_fills_the_gap(
    two: tuple[Served, Served], redis_server: RunningRedis
) -> None:
    one, other = two
    calls, missing = 0, set()
    async with signed_in(one) as browser, browser.ws_connect("/ws/live/", max_msg_size=0) as socket:
        await socket.receive(timeout=10)
        redis_server.freeze()
        while "Redis" not in missing:
            missing |= set(json.loads((await socket.receive(timeout=10)).data)["missing"])
        await asyncio.to_thread(call, other)
        redis_server.thaw()
        while calls == 0:
            message = await socket.receive(timeout=10)
            if message.type is not aiohttp.WSMsgType.TEXT:
                break
            said = json.loads(message.data)
            if said["kind"] == "frame" and said["frame"]:
                calls += said["frame"]["total"][0]
    assert calls == 1 or message.type is aiohttp.WSMsgType.CLOSE
