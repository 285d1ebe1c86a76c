"""The version before, as far as it touches the ledger: it knows the columns of its own schema and no others.

Writes and reads in threads of its own and times every statement, so that who waits for a migration is seen.
"""

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from gateway.relay.call import new_call_id
from tests.served import ROOT, eventually

BEFORE = {"accounts": "0003", "gateway": "0003"}
"""The last migration of each app that it knows."""
ENTRY: Mapping[str, str] = {
    "call_id": "{id}",
    "team_id": "1",
    "key_id": "1",
    "route": "'gpt-4o'",
    "streamed": "false",
    "simulated": "false",
    "outcome": "'answered'",
    "status": "200",
    "code": "''",
    "started_at": "{at}",
    "ended_at": "{at}",
    "latency_us": "400000",
    "first_token_us": "NULL",
    "input_tokens": "10",
    "cached_tokens": "0",
    "output_tokens": "35",
    "usage_basis": "'reported'",
    "cost_nanos": "22500",
    "unpriced": "false",
    "tags": "'{{}}'",
    "priority": "'normal'",
    "skipped": "'[]'",
}
"""Every column of an entry, and what it writes there."""
ATTEMPT: Mapping[str, str] = {
    "entry_id": "{id}",
    "attempt_no": "1",
    "target_id": "7",
    "provider": "'openai'",
    "upstream_model": "'gpt-4o'",
    "outcome": "'answered'",
    "status": "200",
    "started_at": "{at}",
    "latency_us": "400000",
    "first_token_us": "NULL",
    "input_tokens": "10",
    "cached_tokens": "0",
    "output_tokens": "35",
    "usage_basis": "'reported'",
    "price_id": "3",
    "cost_nanos": "22500",
    "code": "''",
    "queued_us": "0",
    "backoff_us": "0",
    "probe": "false",
    "trimmed": "0",
}
"""The same of an attempt, but for its number, which the database counts."""
TABLES = {"gateway_entry": ENTRY, "gateway_attempt": ATTEMPT}
SET_UP = f"""
from django.core.management import call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader
before = {BEFORE!r}
for app in sorted(MigrationLoader(connection).migrated_apps, key=lambda app: app not in before):
    call_command("migrate", app, *filter(None, [before.get(app)]), verbosity=0)
"""
SURVEY = """
SELECT key_id, COUNT(*), SUM(input_tokens + output_tokens), SUM(cost_nanos) FROM gateway_entry
WHERE team_id = 1 AND started_at >= {at} GROUP BY key_id
"""
"""What quotas ask."""
LATEST = f"SELECT {', '.join(ENTRY)} FROM gateway_entry ORDER BY ended_at DESC LIMIT 50"
FILLED_FROM_S = 1_767_225_600
"""The start of 2026."""
CALLS_AT_ONCE = 10
PAUSE_S = 0.01
"""Between two transactions, so that SQLite's lock, which knows no queue, is to be had by others."""
PATIENCE_S = 5
"""Of its connections for a lock, on either database."""


@dataclass(frozen=True)
class Database:
    """One that is migrated: a file of SQLite in VAR_DIR, or PostgreSQL at an address."""

    var_dir: Path
    url: str = ""

    def migrate(self, *args: str) -> None:
        """As an operator does."""
        self.run("manage.py", "migrate", "--verbosity=0", *args)

    def run(self, *command: str) -> str:
        """Python, with the environment of the gateway; what it printed."""
        environ = {name: each for name, each in os.environ.items() if name != "DATABASE_URL"}
        environ |= {"DJANGO_SETTINGS_MODULE": "dashboard.settings", "VAR_DIR": str(self.var_dir)}
        environ |= {"DATABASE_URL": self.url} if self.url else {}
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def set_up(self) -> None:
        """Every app as far as the version before knows it."""
        self.run("manage.py", "shell", "--no-imports", "-c", SET_UP)

    def columns(self, table: str) -> set[str]:
        with contextlib.closing(self.connect()) as connection:
            cursor = connection.execute(f"SELECT * FROM {table} LIMIT 0")
            return {each[0] for each in cursor.description}

    def read(self) -> dict[str, Any]:
        """What the present version reads."""
        found: dict[str, Any] = json.loads(self.run("-m", "tests.system.newer", "read"))
        return found

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(self.connect()) as connection:
            found: list[tuple[Any, ...]] = connection.execute(query).fetchall()
            return found

    def connect(self) -> Any:
        """Each statement is a transaction of its own, unless one is begun."""
        if self.url:
            options = f"-c lock_timeout={PATIENCE_S}s -c TimeZone=UTC"
            return psycopg.connect(self.url, autocommit=True, options=options)
        file = self.var_dir / "penstock.sqlite3"
        return sqlite3.connect(file, timeout=PATIENCE_S, isolation_level=None)

    @property
    def named(self) -> str:
        """How a statement says which parameter it means."""
        return "%({})s" if self.url else ":{}"

    @property
    def begin(self) -> str:
        return "BEGIN" if self.url else "BEGIN IMMEDIATE"

    def fill(self, calls: int) -> None:
        """A call a second from the start of 2026 on, each with one attempt."""
        ms = f"{FILLED_FROM_S}000 + g * 1000"
        if self.url:
            call_id = f"(lpad(to_hex({ms}), 12, '0') || '70008000' || lpad(to_hex(g), 12, '0'))::uuid"
            at = f"to_timestamp({FILLED_FROM_S} + g)"
            analyze = "ANALYZE gateway_entry, gateway_attempt"
        else:
            call_id = f"printf('%012x70008000%012x', {ms}, g)"
            at = f"strftime('%Y-%m-%d %H:%M:%f', {FILLED_FROM_S} + g, 'unixepoch')"
            analyze = "PRAGMA wal_checkpoint(TRUNCATE)"
        numbers = f"n(g) AS (SELECT 1 UNION ALL SELECT g + 1 FROM n WHERE g < {calls})"
        with contextlib.closing(self.connect()) as connection:
            for table, columns in TABLES.items():
                values = ", ".join(columns.values()).format(id=call_id, at=at)
                connection.execute(
                    f"INSERT INTO {table} ({', '.join(columns)}) "
                    f"WITH RECURSIVE {numbers} SELECT {values} FROM n"
                )
            connection.execute(analyze)


@dataclass
class Older:
    """A writer and a reader. Every wait is noted under what else was going on."""

    database: Database
    doing: str = ""
    booked: list[str] = field(default_factory=list)
    """Call ids whose transaction was committed."""
    reads: int = 0
    failures: list[str] = field(default_factory=list)
    longest_s: dict[str, float] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)

    def __str__(self) -> str:
        waits = ", ".join(f"{doing} {wait_s * 1000:.0f} ms" for doing, wait_s in self.longest_s.items())
        return f"the longest waits: {waits}"

    @contextlib.contextmanager
    def beside(self, doing: str) -> Iterator[None]:
        """Something else goes on; afterwards it has written and read again, all of it undisturbed."""
        self.doing = doing
        yield
        for count in (lambda: len(self.booked), lambda: self.reads):
            done = count()
            eventually(lambda count=count, done=done: self.failures or count() > done, 30, "work of old code")

    def write(self) -> None:
        named = self.database.named
        inserts = [
            f"INSERT INTO {table} ({', '.join(columns)}) "
            f"VALUES ({', '.join(columns.values())}) ON CONFLICT DO NOTHING".format(
                id=named.format("id"), at=named.format("at")
            )
            for table, columns in TABLES.items()
        ]
        with contextlib.closing(self.database.connect()) as connection:
            while not self.over.wait(PAUSE_S):
                self._write_once(connection.cursor(), inserts)

    def _write_once(self, cursor: Any, inserts: list[str]) -> None:
        """Every batch twice, as when a journal is replayed."""
        calls = [{"id": new_call_id(time.time_ns()), "at": _now()} for _ in range(CALLS_AT_ONCE)]
        for _ in range(2):
            self._timed(lambda: cursor.execute(self.database.begin))
            for insert in inserts:
                self._timed(lambda insert=insert: cursor.executemany(insert, calls))
            self._timed(lambda: cursor.execute("COMMIT"))
        self.booked += [each["id"] for each in calls]

    def read(self) -> None:
        survey = SURVEY.format(at=self.database.named.format("at"))
        since = {"at": _now()}
        with contextlib.closing(self.database.connect()) as connection:
            while not self.over.wait(PAUSE_S):
                self._timed(lambda: connection.execute(survey, since).fetchall())
                self._timed(lambda: connection.execute(LATEST).fetchall())
                self.reads += 1

    def _timed(self, do: Callable[[], object]) -> None:
        began_s, doing = time.monotonic(), self.doing
        do()
        self.longest_s[doing] = max(self.longest_s.get(doing, 0.0), time.monotonic() - began_s)

    def keep(self, do: Callable[[], None]) -> None:
        """The outermost edge of a thread: what fails is told, and ends it."""
        try:
            do()
        except (sqlite3.Error, psycopg.Error) as why:
            self.failures.append(f"{self.doing}: {why}")


@contextlib.contextmanager
def at_work(database: Database) -> Iterator[Older]:
    older = Older(database)
    threads = [threading.Thread(target=older.keep, args=[each]) for each in (older.write, older.read)]
    for each in threads:
        each.start()
    try:
        yield older
    finally:
        older.over.set()
        for each in threads:
            each.join()


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}"
