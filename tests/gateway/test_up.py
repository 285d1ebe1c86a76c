"""`manage.py up` as a process: what it prints, what keeps it from starting, and how it ends."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from gateway.management.commands.up import not_deaf_to_ctrl_c
from gateway.presets import VARIABLES
from gateway.simulator import Fault
from tests.served import ADMIN_EMAIL, ROOT, START_S, Served, eventually, free_port, serve


def up(var_dir, *args, **environ):
    """Run it where it cannot start; returns when it has given up."""
    clean = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return subprocess.run(
        [sys.executable, "manage.py", "up", *args],
        cwd=ROOT,
        env={**clean, "VAR_DIR": str(var_dir), "PORT": str(free_port()), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def assert_one_sentence(done, *fragments):
    assert done.returncode == 1
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("penstock: ")
    for fragment in fragments:
        assert fragment in line


@contextlib.contextmanager
def listening():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def family(pid):
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]


def whole_family(served, size, who):
    """When there are so many; the tasks' process comes after the first call could."""
    eventually(lambda: len(family(served.process.pid)) == size, what=who)
    return family(served.process.pid)


def all_gone(processes):
    return not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes)


def test_a_port_in_use_is_one_sentence(var_dir):
    with listening() as port:
        done = up(var_dir, PORT=str(port))

    assert_one_sentence(done, f"localhost:{port}", "Address already in use", "HOST and PORT")


def test_a_host_that_is_not_here_is_one_sentence(var_dir):
    assert_one_sentence(up(var_dir, HOST="192.0.2.1"), "cannot listen on 192.0.2.1")


def test_an_unwritable_var_dir_is_one_sentence(tmp_path):
    file = tmp_path / "var"
    file.write_text("in the way")

    assert_one_sentence(up(file), "VAR_DIR", str(file))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("PORT", "http"),
        ("DRAIN_S", "-1"),
        ("PENSTOCK_ADMIN_PASSWORD", "admin"),
        ("PENSTOCK_ADMIN_EMAIL", "nobody"),
        ("OPENAI_COMPATIBLE_BASE_URL", "http://127.0.0.1:1/v1"),
        ("CREDENTIAL_KEYS", "abc"),
        ("EMAIL_URL", "mail.example.com:25"),
        ("LEDGER_CURRENCY", "dollars"),
    ],
)
def test_a_wrong_setting_is_one_sentence_that_names_it(var_dir, setting, value):
    assert_one_sentence(up(var_dir, **{setting: value}), setting)


def test_several_workers_without_redis_are_one_sentence(var_dir):
    assert_one_sentence(up(var_dir, WORKERS="2"), "WORKERS is 2", "REDIS_URL is not set", "WORKERS=1")


def test_a_database_that_is_none_is_one_sentence(var_dir):
    var_dir.mkdir()
    (var_dir / "penstock.sqlite3").write_text("no database, " * 100)

    assert_one_sentence(up(var_dir), "penstock.sqlite3", "cannot be used")


def test_lost_peppers_are_one_sentence(var_dir):
    with serve(var_dir):
        pass

    assert_one_sentence(up(var_dir, KEY_PEPPERS="another-pepper-of-32-characters-or-more"), "KEY_PEPPERS")


def test_another_currency_than_that_of_the_books_is_one_sentence(var_dir):
    with serve(var_dir, LEDGER_CURRENCY="EUR"):
        pass

    assert_one_sentence(up(var_dir), "the books of this VAR_DIR are in EUR, not USD", "LEDGER_CURRENCY")


def test_a_first_run_from_start_to_stop(var_dir):
    """One start, because each takes seconds: what is printed, who else may start, and what is left."""
    with serve(var_dir, tables_laid=False, PENSTOCK_ADMIN_PASSWORD="") as served:
        assert f"{served.origin}/\n" in served.printed
        assert re.search(r"Password   \S{16}   \(shown only now\)", served.printed)
        assert "answers are simulated" in served.printed
        assert "hello" in curl(served).lower()

        second = up(var_dir)
        assert_one_sentence(second, f"process {served.process.pid}", str(var_dir), "REDIS_URL")

        served.process.send_signal(signal.SIGUSR2)
        eventually(lambda: "a rolling restart needs REDIS_URL" in served.errors(), what="the refusal")

        everybody = whole_family(served, 4, "the server, its worker, the simulator and the tasks")
        assert served.stop() == 0
        assert all_gone(everybody)

    for path in [
        *var_dir.glob("secrets/*"),
        *var_dir.glob("penstock.sqlite3*"),
        *var_dir.glob("journal/**/*"),
    ]:
        assert path.stat().st_mode & 0o077 == 0, f"{path} is open to others"


def curl(served):
    """What the printed command prints, run as it stands."""
    command = served.printed[served.printed.index("curl ") :].split("\n\n")[0]
    return subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, check=True, timeout=30
    ).stdout


def test_a_second_run_says_that_nothing_was_changed(var_dir):
    with serve(var_dir) as served:
        first = served.rows("select * from gateway_provider")
        assert served.stop() == 0
        served.start()

        assert "nothing was changed" in served.printed
        assert "shown only now" not in served.printed
        assert "Answers are simulated" in served.printed
        assert f"changepassword {ADMIN_EMAIL}`" in served.printed
        assert "pst_" not in served.printed
        assert served.rows("select * from gateway_provider") == first


def test_a_simulator_whose_port_is_taken_moves(var_dir):
    with serve(var_dir) as served:
        [(url,)] = served.rows("select base_url from gateway_provider")
        key, first = served.api_key, served.printed
        assert served.stop() == 0
        with socket.socket() as other:
            other.bind(("127.0.0.1", int(url.split(":")[2].split("/")[0])))
            other.listen()
            served.start()

            assert served.rows("select base_url from gateway_provider") != [(url,)]
            served.printed, served.api_key = first, key
            assert "choices" in curl(served)


@pytest.fixture
def hangups_count():
    """Also where these tests run under nohup, whose ignoring the gateway would inherit and heed."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_a_closed_terminal_is_a_stop_like_any_other(var_dir, hangups_count):
    with serve(var_dir) as served:
        everybody = family(served.process.pid)
        os.killpg(served.process.pid, signal.SIGHUP)

        assert served.process.wait(30) == 0
        assert all_gone(everybody)
        assert "Traceback" not in served.errors()


def test_a_gateway_killed_alone_leaves_no_process_behind_and_starts_again(var_dir):
    with serve(var_dir) as served:
        everybody = family(served.process.pid)
        os.kill(served.process.pid, signal.SIGKILL)
        served.process.wait()

        served.start()

        eventually(lambda: all_gone(everybody), what="the end of its children")


@pytest.mark.parametrize(
    "helper", [["run_tasks"], ["simulate_upstream", "--port", "0"]], ids=["tasks", "simulator"]
)
def test_a_helper_whose_gateway_was_killed_before_it_looked_ends_by_itself(var_dir, helper):
    done = subprocess.run(
        [sys.executable, "manage.py", *helper, "--with-parent", str(os.getppid())],  # ours, not its own
        cwd=ROOT,
        env={**os.environ, "VAR_DIR": str(var_dir)},
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert done.returncode in (-signal.SIGKILL, 0)


def test_a_worker_killed_alone_is_replaced_and_refuses_nobody(var_dir):
    with serve(var_dir) as served:
        first = served.workers()[0]
        first.kill()

        answer = served.get("/healthz", START_S)
        assert answer.startswith("HTTP/1.1 200"), "answered by the next worker"
        assert served.workers()[0].pid != first.pid


def test_a_provider_of_the_environment_needs_no_simulator(var_dir):
    with serve(var_dir, OPENAI_API_KEY="sk-not-used") as served:
        assert "OpenAI answers to gpt-4.1" in served.printed
        whole_family(served, 3, "the server, its worker and the tasks")
        assert "sk-not-used" not in served.printed + served.errors()
        assert served.stop() == 0

        served.environ = {}
        served.start()
        assert "No model name is served now: set a provider key" in " ".join(served.printed.split())


def test_a_second_ctrl_c_ends_open_streams_at_once_and_leaves_nothing_behind(var_dir):
    stalls = {"upstream_model": Fault.STALL.model_name, "read_timeout_s": 300}
    with serve(var_dir, stalls, DRAIN_S="120") as served, open_stream(served):
        everybody = family(served.process.pid)
        served.process.send_signal(signal.SIGINT)
        eventually(lambda: "Ctrl-C again ends them now." in served.errors(), what="what Ctrl-C says")
        assert "open streams have up to 120 s" in served.errors()
        assert served.process.poll() is None

        served.process.send_signal(signal.SIGINT)

        assert served.process.wait(60) == 130
        assert all_gone(everybody)
        assert "Traceback" not in served.errors()


@contextlib.contextmanager
def open_stream(served):
    """A call whose answer has begun; it goes on for as long as its provider takes."""
    asked = {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    body = json.dumps(asked)
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {served.api_key}\r\n"
    )
    with socket.create_connection(("127.0.0.1", served.port), 20) as wire:
        wire.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        received = b""
        while b"chat.completion.chunk" not in received:
            said = wire.recv(65536)
            assert said, received
            received += said
        yield


@pytest.fixture
def heeded():
    """Ctrl-C raises KeyboardInterrupt, here and in what is started here, whatever started this run."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_stop_while_it_starts_is_no_traceback(var_dir, heeded):
    served = Served(var_dir)
    var_dir.mkdir()
    with subprocess.Popen(
        [sys.executable, "manage.py", "up"],
        cwd=ROOT,
        env={**os.environ, "VAR_DIR": str(var_dir), "PORT": str(served.port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            eventually((var_dir / "up.lock").exists, what="its first deed")
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=40)
        finally:
            process.kill()

    assert process.returncode in (0, 130)
    assert "Traceback" not in errors


def test_ctrl_c_is_heeded_also_where_what_it_raises_is_lost(heeded):
    with (
        pytest.raises(KeyboardInterrupt),
        not_deaf_to_ctrl_c(),
        contextlib.suppress(KeyboardInterrupt),  # as a callback of C code does
    ):
        signal.raise_signal(signal.SIGINT)

    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_who_ignores_ctrl_c_goes_on_ignoring_it(heeded):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with not_deaf_to_ctrl_c():
        signal.raise_signal(signal.SIGINT)

    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
