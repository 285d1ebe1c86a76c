"""What it costs to carry a call onto the ledger and to roll it up: on SQLite, and on PostgreSQL.

    python -m benchmarks.books

Prints CPU time of the writing process in microseconds a call, with one attempt, four rate limits and
two quotas: from the journal's bytes to the commit. A database server's own time is left out.
Of a minute with 60,000 calls, how long its rollups take by the wall clock.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from benchmarks.figures import Figure
from benchmarks.processes import CannotMeasure, Cores, on_core, two_cores
from tests.postgres import running_postgres
from tests.served import ROOT

LONGEST_S = 300


def measure(cores: Cores, rounds: int) -> tuple[Figure, ...]:
    """Raises CannotMeasure. The writer works on one core, PostgreSQL on the other."""
    what = "CPU of carrying a call onto the ledger"
    with on_core(cores.tested):
        on_sqlite = _carried({}, rounds)
    with on_core(cores.other), running_postgres(quick=False) as server, on_core(cores.tested):
        on_postgresql = _carried({"DATABASE_URL": server.url}, rounds)
    minute = "a minute with 60,000 calls rolled up"
    return (
        Figure(f"{what}, SQLite", "µs", tuple(on_sqlite["written_us"]), 40),
        Figure(f"{what}, PostgreSQL", "µs", tuple(on_postgresql["written_us"]), 30),
        Figure(f"{minute}, SQLite", "s", (on_sqlite["rolled_s"],), 1),
        Figure(f"{minute}, PostgreSQL", "s", (on_postgresql["rolled_s"],), 1),
    )


def _carried(settings: Mapping[str, str], rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.carry_over", str(rounds)],
            cwd=ROOT,
            env={**os.environ, "VAR_DIR": folder, **settings},
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
    if done.returncode:
        raise CannotMeasure(f"calls could not be carried onto a ledger: {done.stderr[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    for each in measure(two_cores(), rounds=5):
        values = ", ".join(f"{value:.1f}" for value in each.values)
        print(f"{each.what}: {each.median:.2f} {each.unit} ({values})")


if __name__ == "__main__":
    main()
