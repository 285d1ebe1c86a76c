"""The process's life, through the ASGI lifespan protocol."""

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx2 as httpx

from tests.served import ROOT, Served, eventually, serve

ALONE = """
import asyncio
from gateway.asgi import application

async def main():
    said = []
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    async def receive(): return next(messages)
    async def send(message): said.append(message)
    await application({"type": "lifespan"}, receive, send)
    print(said)

asyncio.run(main())
"""


def alone(var_dir: Path) -> str:
    environ = {**os.environ, "VAR_DIR": str(var_dir), "DJANGO_SETTINGS_MODULE": "dashboard.settings"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ALONE],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_second_relay_on_the_same_var_dir_says_why_it_does_not_start(served: Served) -> None:
    said = alone(served.var_dir)
    assert "lifespan.startup.failed" in said
    assert f"another gateway already runs on {served.var_dir}" in said


def test_a_database_that_was_never_migrated_is_said(var_dir: Path) -> None:
    assert "manage.py migrate" in alone(var_dir)


def test_the_relay_alone_starts_and_stops_on_what_up_left(var_dir: Path) -> None:
    with serve(var_dir):
        pass
    said = alone(var_dir)
    assert "lifespan.startup.complete" in said
    assert "lifespan.shutdown.complete" in said
    assert list((var_dir / "journal").iterdir()) == []


def test_ready_says_ready_and_alive_says_alive(served: Served) -> None:
    assert served.get("/readyz").endswith('{"status":"ready"}')
    assert served.get("/healthz").endswith('{"status":"alive"}')


def test_a_change_by_a_command_reaches_the_serving_process(served: Served) -> None:
    import time

    key = served.manage("create_key", "--team", "Default", "--name", "scripts").strip()
    assert key.startswith("pst_")
    head = f"Host: localhost\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n"
    request = f"GET /v1/models HTTP/1.1\r\n{head}"

    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(request.encode())
        answer = await reader.read()
        writer.close()
        return answer

    deadline = time.monotonic() + 30
    while b"200 OK" not in (answer := asyncio.run(ask())):
        assert time.monotonic() < deadline, answer
    assert b'"gpt-4o-mini"' in answer


def test_what_the_ledger_deleted_does_not_come_back_when_the_process_stops(served: Served) -> None:
    """Its calls were on the books, so its journal is not booked again."""
    answer = httpx.post(
        f"{served.base_url}/chat/completions",
        json={"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5},
        headers={"Authorization": f"Bearer {served.api_key}"},
        timeout=30,
    )
    assert answer.status_code == 200
    eventually(lambda: served.rows("SELECT call_id FROM gateway_entry"), what="the entry")
    with contextlib.closing(sqlite3.connect(served.var_dir / "penstock.sqlite3", timeout=30)) as books, books:
        books.execute("DELETE FROM gateway_attempt")
        books.execute("DELETE FROM gateway_entry")

    served.stop()

    assert served.rows("SELECT call_id FROM gateway_entry") == []
    assert list((served.var_dir / "journal").iterdir()) == []
