"""`manage.py simulate_upstream` as a process of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from django.core.management import CommandError, call_command

from gateway.simulator import read_journal
from tests.gateway.simulator.helpers import chat

ROOT = Path(__file__).resolve().parents[3]
MANAGE = [sys.executable, str(ROOT / "manage.py"), "simulate_upstream"]
READY = "simulator listening on "


@pytest.fixture
def environ(tmp_path):
    """No database is made here, and none is needed."""
    return {**os.environ, "VAR_DIR": str(tmp_path)}


@contextmanager
def started(command, environ, cwd=None):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=environ, cwd=cwd, **pipes)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def complete(base_url):
    request = urllib.request.Request(
        f"{base_url}/chat/completions",
        data=json.dumps(chat()).encode(),
        headers={"authorization": "Bearer x", "x-request-id": "call-7"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def test_it_says_where_it_listens_answers_and_ends_cleanly(environ, tmp_path):
    """Two at once, one for each signal: starting a process is what takes the time."""
    journal = tmp_path / "journal.jsonl"
    command = [*MANAGE, "--speed", "0", "--journal", str(journal)]
    with started(command, environ) as one, started(command, environ) as other:
        for process, number in ((one, signal.SIGTERM), (other, signal.SIGINT)):
            line = process.stdout.readline().strip()
            assert line.startswith(READY + "http://127.0.0.1:")
            assert complete(line.removeprefix(READY))["system_fingerprint"] == "simulated"
            process.send_signal(number)
            rest, errors = process.communicate(timeout=10)
            assert (process.returncode, rest, errors) == (0, "", "")
    assert [each.request_id for each in read_journal(journal)] == ["call-7"] * 4
    assert list(tmp_path.glob("*.sqlite3")) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux's")
def test_it_dies_with_its_parent(environ):
    """The parent prints its child's pid and what the child said, then waits to be killed."""
    parent = (
        "import subprocess, sys\n"
        "child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)\n"
        "print(child.pid, child.stdout.readline(), end='', flush=True)\n"
        "child.wait()\n"
    )
    with started([sys.executable, "-c", parent, *MANAGE, "--with-parent"], environ) as process:
        pid, _, line = process.stdout.readline().partition(" ")
        assert line.startswith(READY)
        child = psutil.Process(int(pid))
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs([child], timeout=10)
        for orphan in alive:
            orphan.kill()
    assert alive == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux's")
def test_it_ends_where_its_parent_has_gone_already(environ):
    asks = (
        "import sys, time\n"
        "from gateway.management.commands.simulate_upstream import end_with_parent\n"
        "end_with_parent(int(sys.argv[1]))\n"
        "time.sleep(60)\n"
    )
    with started([sys.executable, "-c", asks, str(os.getppid())], environ, cwd=ROOT) as process:
        process.communicate(timeout=10)
    assert process.returncode == -signal.SIGTERM


def test_a_port_in_use_is_one_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(CommandError, match=r"^cannot start the simulator: .*in use"):
            call_command("simulate_upstream", port=taken.getsockname()[1])


def test_a_journal_that_cannot_be_written_is_one_sentence(tmp_path):
    with pytest.raises(CommandError, match=r"^cannot start the simulator: .*nowhere"):
        call_command("simulate_upstream", journal=str(tmp_path / "nowhere" / "journal.jsonl"))


@pytest.mark.parametrize("speed", ["-1", "fast", "inf", "nan"])
def test_a_wrong_speed_is_refused(speed):
    with pytest.raises(CommandError, match="--speed"):
        call_command("simulate_upstream", f"--speed={speed}")
