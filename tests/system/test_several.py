"""Several processes on one VAR_DIR and one Redis: each role alone, two gateways, and a worker that dies."""

import asyncio
import os
import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import psutil
import pytest

from gateway.simulator import running_simulator
from tests.redis import RunningRedis, running_redis
from tests.served import ADMIN_EMAIL, ADMIN_PASSWORD, Served, eventually, provider_of, serve
from tests.system import books as b
from tests.system.conftest import MODEL_NAMES, enter_prices, simulator_in_a_thread
from tests.system.test_rolling import CLIENTS, Load, complete_books, restart
from tests.system.test_stop import started

READY = "HTTP/1.1 200"
TASKS_READY = "celery@"
MAIL = "from accounts.notices import mail; mail('bob@example.com', 'Hello', 'How deep?', 'test', 'once')"


@pytest.fixture(scope="module")
def redis() -> Iterator[RunningRedis]:
    with running_redis() as running:
        yield running


def call(served: Served, api_key: str) -> httpx.Response:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "How deep?"}]}
    headers = {"Authorization": f"Bearer {api_key}"}
    return httpx.post(f"{served.base_url}/chat/completions", json=body, headers=headers, timeout=30)


def helpers(served: Served, word: str) -> list[psutil.Process]:
    """Of this gateway alone, by a word of their command."""
    assert served.process is not None
    return [each for each in psutil.Process(served.process.pid).children() if word in each.cmdline()]


def test_two_gateways_share_a_var_dir(var_dir, redis):
    with serve(var_dir, REDIS_URL=redis.url) as first:
        eventually(lambda: helpers(first, "run_tasks"), what="the tasks of the first")
        with serve(var_dir, out="second.txt", REDIS_URL=redis.url) as second:
            assert call(first, first.api_key).status_code == 200
            assert call(second, first.api_key).status_code == 200
            assert helpers(second, "run_tasks") == helpers(second, "simulate_upstream") == []

            assert first.stop() == 0

            eventually(lambda: helpers(second, "run_tasks"), what="the tasks of the second")
            eventually(lambda: helpers(second, "simulate_upstream"), what="the simulator of the second")
            eventually(lambda: call(second, first.api_key).status_code == 200, what="an answer")
            assert second.stop() == 0

    assert len(second.rows("SELECT call_id FROM gateway_entry WHERE outcome = 'answered'")) >= 3
    assert list((var_dir / "journal").iterdir()) == []


def test_two_gateways_that_start_at_once_set_up_once(var_dir, redis):
    """Both find an empty folder."""
    environ = {"REDIS_URL": redis.url, "PENSTOCK_ADMIN_PASSWORD": ""}
    pair = [Served(var_dir, environ, out=f"{name}.txt") for name in ("one", "other")]
    try:
        for each in pair:
            each.launch()
        for each in pair:
            each.wait()

        assert sorted(bool(each.api_key) for each in pair) == [False, True]
        assert pair[0].rows("SELECT count(*) FROM accounts_user WHERE is_superuser") == [(1,)]
    finally:
        for each in pair:
            each.stop()


def test_each_role_does_its_own_part(var_dir, redis):
    shared = {"REDIS_URL": redis.url}
    with (
        serve(var_dir, args=("--role", "relay"), **shared) as relay,
        serve(var_dir, args=("--role", "pages"), out="pages.txt", **shared) as pages,
    ):
        assert "one worker for calls\n" in relay.printed
        assert "one worker for pages\n" in pages.printed
        assert call(relay, relay.api_key).status_code == 200
        assert "404" in relay.get("/accounts/login/").splitlines()[0]
        assert READY in pages.get("/accounts/login/")
        refusal = call(pages, relay.api_key)
        assert refusal.status_code == 404
        assert "up --role relay" in refusal.json()["error"]["message"]
        assert all(each.get("/readyz").startswith(READY) for each in (relay, pages))
        assert helpers(relay, "run_tasks") == helpers(pages, "run_tasks") == []
        assert helpers(pages, "simulate_upstream") == []


@pytest.mark.parametrize("messages_in", ["files", "redis"])
def test_the_worker_role_does_background_tasks_alone(var_dir, redis, messages_in):
    environ = {"REDIS_URL": redis.url} if messages_in == "redis" else {}
    tasks = Served(var_dir, environ, args=("--role", "worker"))
    tasks.launch()
    try:
        eventually(lambda: TASKS_READY in tasks.errors(), 90, "the start of the tasks")
        [child] = helpers(tasks, "run_tasks")
        child.kill()
        eventually(lambda: tasks.errors().count(TASKS_READY) == 2, 90, "the tasks' next start")

        tasks.manage("shell", "--no-imports", "-c", MAIL)

        eventually(lambda: list((var_dir / "mail").glob("*")), 60, "the mail")
        assert open_to_others(var_dir / "celery") == []
        family = psutil.Process(tasks.process.pid).children(recursive=True)
        assert tasks.stop() == 0
        psutil.wait_procs(family, timeout=10)
        assert [each for each in family if each.is_running()] == []
    finally:
        tasks.kill()


def open_to_others(folder: Path) -> list[Path]:
    return [each for each in [folder, *folder.rglob("*")] if each.exists() and each.stat().st_mode & 0o077]


def test_signing_in_goes_on_when_redis_is_gone(var_dir):
    with running_redis() as own, serve(var_dir, REDIS_URL=own.url) as served:
        own.kill()
        with httpx.Client(base_url=served.origin, timeout=30) as browser:
            wrong = sign_in(browser, "not-the-passphrase")
            right = sign_in(browser, ADMIN_PASSWORD)
        own.start()

    assert wrong.status_code == 200
    assert "not correct" in wrong.text
    assert right.status_code == 302
    assert "the cache is away" in served.errors()
    assert "Traceback" not in served.errors()


def sign_in(browser: httpx.Client, password: str) -> httpx.Response:
    browser.get("/accounts/login/")
    page = browser.get("/accounts/login/").text
    [token] = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page)[:1]
    form = {"login": ADMIN_EMAIL, "password": password, "csrfmiddlewaretoken": token}
    return browser.post("/accounts/login/", data=form, headers={"Origin": str(browser.base_url)})


async def test_a_dead_worker_fails_its_own_calls_and_refuses_nobody(
    var_dir: Path, tmp_path: Path, redis, say
):
    async with running_simulator(speed=1.0, seed=6, journal=tmp_path / "upstream.jsonl") as upstream:
        provider = provider_of(upstream.base_url, *MODEL_NAMES)
        with serve(var_dir, REDIS_URL=redis.url, WORKERS="2", **provider) as served:
            await asyncio.to_thread(enter_prices, served)
            load = Load(served, random.Random(6))
            clients = asyncio.create_task(load.run())
            await asyncio.to_thread(eventually, lambda: len(load.seen) > 50, 30, "load on both workers")
            replaced_s = await asyncio.to_thread(kill_one, served)
            ended = len(load.seen)
            await asyncio.to_thread(eventually, lambda: len(load.seen) > ended + 100, 30, "calls after it")
            load.stopping = True
            await clients
            books = await complete_books(served, load, upstream)

    assert 0 < len(load.failures) < CLIENTS, "those that were in flight there"
    assert not any("Connect" in each for each in load.failures), "the listening socket is never gone"
    assert not any(each[0].isdigit() for each in load.failures), "no answer but 200"
    outcomes = [each.outcome for each in books.entries]
    assert outcomes.count("abandoned") <= len(load.failures)
    assert set(outcomes) <= {"answered", "abandoned"}
    assert not list(b.doubled(load.seen, {}, books))
    say(
        f"a killed worker of two: {len(load.failures)} calls in flight failed, replaced in {replaced_s:.2f} s"
    )


def kill_one(served: Served) -> float:
    """How many seconds until another serves in its place."""
    victim, other = served.workers()
    victim.kill()
    began = time.monotonic()
    eventually(lambda: is_replaced(served, {victim.pid, other.pid}), 20, "the next worker")
    return time.monotonic() - began


def is_replaced(served: Served, known: set[int]) -> bool:
    """Whether a process that was not there has a journal of its own, which it opens when it serves."""
    fresh = [each for each in served.workers() if each.pid not in known]
    return any("/journal/" in file.path for each in fresh for file in each.open_files())


def test_a_stop_in_the_middle_of_a_rolling_restart_is_a_stop(var_dir, redis):
    with serve(var_dir, REDIS_URL=redis.url, WORKERS="2") as served:
        os.kill(served.process.pid, signal.SIGUSR2)
        eventually(lambda: len(served.workers()) == 3, 20, what="a new worker beside the old ones")
        family = psutil.Process(served.process.pid).children(recursive=True)

        assert served.stop() == 0

        psutil.wait_procs(family, timeout=10)
        assert [each for each in family if each.is_running()] == []


def test_after_a_restart_a_dead_worker_is_replaced_too(var_dir, redis):
    with serve(var_dir, REDIS_URL=redis.url, WORKERS="2") as served:
        restart(served)
        kill_one(served)
        assert call(served, served.api_key).status_code == 200


def test_a_stream_that_outlasts_a_restart_is_told_and_booked(var_dir, tmp_path, redis):
    with (
        simulator_in_a_thread(tmp_path / "upstream.jsonl", speed=0.05) as upstream,
        serve(
            var_dir,
            REDIS_URL=redis.url,
            WORKERS="2",
            DRAIN_S="1",
            **provider_of(upstream.base_url, *MODEL_NAMES),
        ) as served,
    ):
        stream = started(served, max_tokens=4000)
        restart(served)
        stream.join(10)

        assert b'"code":"overloaded"' in stream.body
        assert b"[DONE]" not in stream.body
        eventually(lambda: served.rows("SELECT outcome FROM gateway_entry") == [("truncated",)], what="it")
