"""The process's life, through the ASGI lifespan protocol."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from tests.served import ROOT, Served, serve

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

    deadline = time.monotonic() + 5
    while b"200 OK" not in (answer := asyncio.run(ask())):
        assert time.monotonic() < deadline, answer
    assert b'"gpt-4o-mini"' in answer
