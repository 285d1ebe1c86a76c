"""The real server for tests: `manage.py up` as a process, on a port and a VAR_DIR of its own."""

import atexit
import contextlib
import functools
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parent.parent
ADMIN_EMAIL = "alice@example.com"
ADMIN_PASSWORD = "a-long-enough-passphrase"
KEY = re.compile(r"pst_[0-9A-Za-z_]+")
START_S = 60.0
BOOKS = "penstock.sqlite3"
HELPERS = ("simulate_upstream", "run_tasks", "resource_tracker")
"""Words of the commands of processes that `up` starts and that serve nobody."""
CONFIGURE = """
from accounts.changes import note_change
from gateway.management.commands.up import prepare
from gateway.models import Target
print(prepare().api_key)
Target.objects.update(**{fields!r})
note_change()
"""


def free_port() -> int:
    """Below the range of outgoing connections, one of which could take it meanwhile."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@functools.cache
def empty_books() -> Path:
    """A database with all its tables and nothing in them, made once for each process of a test run."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-books-"))
    atexit.register(shutil.rmtree, folder)
    Served(folder, tables_laid=False).manage("migrate")
    return folder / BOOKS


def eventually(holds: Callable[[], Any], within_s: float = 15.0, what: str = "it") -> Any:
    """Wait for a condition; returns its first true value."""
    deadline = time.monotonic() + within_s
    while not (value := holds()):
        assert time.monotonic() < deadline, f"{what} did not hold within {within_s} s"
        time.sleep(0.02)
    return value


@dataclass
class Served:
    """One gateway on one VAR_DIR; may be killed and started again."""

    var_dir: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    targets: Mapping[str, Any] = field(default_factory=dict)
    """Fields that every target gets before the first start."""
    args: tuple[str, ...] = ()
    """What `up` is called with."""
    out: str = "out.txt"
    """Where it prints; two on one VAR_DIR print apart."""
    tables_laid: bool = True
    """It finds its tables, empty: to make them takes half of a first start. Else as on a new machine."""
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None
    printed: str = ""
    api_key: str = ""

    @property
    def origin(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"

    def start(self) -> None:
        """Returns when calls are served."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Returns at once."""
        self._furnish()
        environ = self._environ()
        if self.targets:
            self.configure(**self.targets)
        out = self._out().open("w")
        err = (self.var_dir / "err.txt").open("a")
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "up", *self.args],
            cwd=ROOT,
            env=environ,
            stdout=out,
            stderr=err,
            text=True,
            start_new_session=True,
        )
        out.close()
        err.close()

    def _furnish(self) -> None:
        self.var_dir.mkdir(parents=True, exist_ok=True)
        books = self.var_dir / BOOKS
        if self.tables_laid and "DATABASE_URL" not in self.environ and not books.exists():
            shutil.copy(empty_books(), books)

    def wait(self) -> None:
        """Until calls are served."""
        eventually(self._is_ready, START_S, "the gateway's start")
        self.printed = self._out().read_text()
        self._note_key(self.printed)

    def _out(self) -> Path:
        return self.var_dir / self.out

    def _environ(self) -> dict[str, str]:
        return {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "dashboard.settings",
            "VAR_DIR": str(self.var_dir),
            "PORT": str(self.port),
            "PENSTOCK_ADMIN_EMAIL": ADMIN_EMAIL,
            "PENSTOCK_ADMIN_PASSWORD": ADMIN_PASSWORD,
            "DRAIN_S": "5",
            **self.environ,
        }

    def configure(self, **fields: Any) -> None:
        """Give every target these settings; before the first start this sets the gateway up."""
        self._note_key(self.manage("shell", "-c", CONFIGURE.format(fields=fields)))

    def _note_key(self, printed: str) -> None:
        if found := KEY.search(printed):
            self.api_key = found.group()

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the gateway did not start: {self.errors()}"
        return self.get("/readyz").startswith("HTTP/1.1 200")

    def get(self, path: str, within_s: float = 5) -> str:
        """A bare GET; empty where nobody answers, or says nothing for so long."""
        where = ("127.0.0.1", self.port)
        with contextlib.suppress(OSError), socket.create_connection(where, within_s) as wire:
            wire.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            return b"".join(iter(lambda: wire.recv(65536), b"")).decode("utf-8", "replace")
        return ""

    def figure(self, sample: str, **labels: str) -> float | None:
        """What /metrics says: the sum of the samples with these labels; None: there is none."""
        text = self.get("/metrics").partition("\r\n\r\n")[2]
        found = [
            each.value
            for family in text_string_to_metric_families(text)
            for each in family.samples
            if each.name == sample and labels.items() <= each.labels.items()
        ]
        return sum(found) if found else None

    def workers(self) -> list[psutil.Process]:
        """The processes that serve, without `up` itself and its helpers."""
        assert self.process is not None
        children = psutil.Process(self.process.pid).children()
        return [each for each in children if not _is_helper(_command(each))]

    def kill(self) -> None:
        """SIGKILL to every process of the gateway at once, as a crash of the machine's memory would."""
        assert self.process is not None
        for pid in [*_descendants(self.process.pid), self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, within_s: float = 30.0) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(within_s)

    def errors(self) -> str:
        return (self.var_dir / "err.txt").read_text()

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the books directly, not through the gateway."""
        with contextlib.closing(sqlite3.connect(self.var_dir / BOOKS, timeout=10)) as books:
            return books.execute(query, values).fetchall()

    def manage(self, *command: str) -> str:
        """Run a management command on the same VAR_DIR; returns what it printed."""
        self._furnish()
        done = subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=ROOT,
            env=self._environ(),
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout


def _command(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return process.cmdline()
    return []


def _is_helper(command: list[str]) -> bool:
    return not command or any(word in part for part in command for word in HELPERS)


def _descendants(pid: int) -> list[int]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return [each.pid for each in psutil.Process(pid).children(recursive=True)]
    return []


@contextlib.contextmanager
def serve(
    var_dir: Path,
    targets: Mapping[str, Any] | None = None,
    args: tuple[str, ...] = (),
    out: str = "out.txt",
    tables_laid: bool = True,
    **environ: str,
) -> Iterator[Served]:
    """A started gateway; whatever is left of it at the end is killed.

    `targets` are settings that every target gets, under their names in `gateway.models.Target`.
    The others are those of `Served`.
    """
    running = Served(var_dir, environ, targets or {}, args, out, tables_laid)
    try:
        running.start()
        yield running
    finally:
        if running.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.stop(10)
            running.kill()


def provider_of(base_url: str, *model_names: str) -> dict[str, str]:
    """The environment that makes a simulator of the test's own the only provider."""
    return {
        "OPENAI_COMPATIBLE_BASE_URL": base_url,
        "OPENAI_COMPATIBLE_API_KEY": "sk-upstream-credential-0123456789",
        "OPENAI_COMPATIBLE_MODELS": ",".join(model_names),
    }
