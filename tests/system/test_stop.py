"""An orderly end: what is open may finish, what is late is told, nothing is left behind."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import psutil
import pytest

from gateway.simulator import Fault, Step
from tests.served import Served, eventually, provider_of, serve
from tests.system.conftest import simulator_in_a_thread

READ_ON = "from gateway.models import Route; Route.objects.update(hang_up_drain_s=20)"


class Stream(threading.Thread):
    """A streamed call in a thread of its own; keeps what came."""

    def __init__(self, served: Served, model_name: str = "gpt-4o", **fields: object) -> None:
        super().__init__(daemon=True)
        self._served = served
        self._body = {
            "model": model_name,
            "stream": True,
            "messages": [{"role": "user", "content": "Hello"}],
            **fields,
        }
        self.body = b""

    def run(self) -> None:
        headers = {"Authorization": f"Bearer {self._served.api_key}"}
        url = f"{self._served.base_url}/chat/completions"
        with (
            contextlib.suppress(httpx.TransportError),  # a killed gateway says no goodbye
            httpx.stream("POST", url, json=self._body, headers=headers, timeout=60) as answer,
        ):
            for each in answer.iter_bytes():
                self.body += each


@pytest.fixture
def gateway(var_dir: Path) -> Iterator[Served]:
    with serve(var_dir, DRAIN_S="20") as running:
        yield running


@pytest.fixture
def slow_gateway(var_dir: Path, tmp_path: Path) -> Iterator[Served]:
    """A stream takes its provider 20 s and more, so that a test's next step comes in the middle of it."""
    with simulator_in_a_thread(tmp_path / "upstream.jsonl") as upstream:
        upstream.script([Step(fault=Fault.SLOW_DRIP, pause_s=0.5, count=None)])
        with serve(var_dir, DRAIN_S="0", **provider_of(upstream.base_url, "gpt-4o")) as running:
            yield running


def processes_of(served: Served) -> list[psutil.Process]:
    assert served.process is not None
    top = psutil.Process(served.process.pid)
    return [top, *top.children(recursive=True)]


def started(served: Served, **fields: object) -> Stream:
    stream = Stream(served, **fields)  # type: ignore[arg-type]
    stream.start()
    eventually(lambda: b"content" in stream.body, what="the stream's first content")
    return stream


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_an_open_stream_may_end_and_no_process_stays(gateway: Served, stop: signal.Signals) -> None:
    stream = started(gateway, max_tokens=30)
    family = processes_of(gateway)

    os.kill(family[0].pid, stop)
    stream.join(20)
    psutil.wait_procs(family, timeout=20)

    assert stream.body.rstrip().endswith(b"data: [DONE]")
    assert [each for each in family if each.is_running()] == []
    assert gateway.rows("SELECT outcome FROM gateway_entry") == [("answered",)]
    assert list((gateway.var_dir / "journal").iterdir()) == []


def test_a_stream_that_is_late_ends_with_an_error_event(slow_gateway: Served) -> None:
    stream = started(slow_gateway)
    slow_gateway.stop()
    stream.join(20)

    assert b'"code":"overloaded"' in stream.body
    assert b"[DONE]" not in stream.body
    assert slow_gateway.rows("SELECT outcome FROM gateway_entry") == [("truncated",)]


@pytest.fixture
def reading_on(var_dir: Path, tmp_path: Path) -> Iterator[Served]:
    """What a client asked for that hung up is read on, which takes some seconds."""
    with simulator_in_a_thread(tmp_path / "upstream.jsonl") as upstream:
        upstream.script([Step(fault=Fault.SLOW_DRIP, pause_s=0.2, count=None)])
        environ = {"DRAIN_S": "20", **provider_of(upstream.base_url, "gpt-4o")}
        before = Served(var_dir, environ)
        before.configure(read_timeout_s=60.0)
        before.manage("shell", "--no-imports", "-c", READ_ON)
        with serve(var_dir, **environ) as running:
            running.api_key = before.api_key
            yield running


def test_calls_whose_clients_hung_up_settle_before_the_books_close(reading_on: Served) -> None:
    answer = httpx.stream(
        "POST",
        f"{reading_on.base_url}/chat/completions",
        json={
            "model": "gpt-4o",
            "stream": True,
            "max_tokens": 15,
            "messages": [{"role": "user", "content": "Hello"}],
        },
        headers={"Authorization": f"Bearer {reading_on.api_key}"},
        timeout=60,
    )
    with answer as stream:
        next(stream.iter_bytes())

    assert reading_on.stop() == 0

    assert reading_on.rows("SELECT outcome, output_tokens, usage_basis FROM gateway_entry") == [
        ("hung_up", 15, "reported")
    ]
    assert "Traceback" not in reading_on.errors()


def test_ctrl_c_reaches_the_whole_process_group_and_still_drains(gateway: Served) -> None:
    stream = started(gateway, max_tokens=30)
    family = processes_of(gateway)

    os.killpg(os.getpgid(family[0].pid), signal.SIGINT)
    stream.join(20)
    psutil.wait_procs(family, timeout=20)

    assert stream.body.rstrip().endswith(b"data: [DONE]")
    assert [each for each in family if each.is_running()] == []


def test_a_worker_that_was_killed_is_replaced_and_its_calls_are_on_the_books(slow_gateway: Served) -> None:
    stream = started(slow_gateway)
    [worker] = slow_gateway.workers()

    worker.kill()

    eventually(lambda: "200 OK" in slow_gateway.get("/readyz"), within_s=20, what="the new worker")
    eventually(
        lambda: slow_gateway.rows("SELECT outcome FROM gateway_entry") == [("abandoned",)], what="the entry"
    )
    stream.join(10)
