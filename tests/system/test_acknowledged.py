"""A process that dies between the commit of a batch and the moment it knows: nothing twice, nothing stuck."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.postgres import running_postgres
from tests.served import ROOT
from tests.system.dying import CALLS


def died(var_dir: Path, deaths: int, **environ: str) -> Mapping[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.system.dying", str(deaths)],
        cwd=ROOT,
        env={**os.environ, "VAR_DIR": str(var_dir), **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def check(found: Mapping[str, Any], deaths: int) -> None:
    assert found["signals"] == [signal.SIGKILL] * deaths
    assert found["booked"] == {
        "entries": CALLS * deaths,
        "calls": CALLS * deaths,
        "attempts": CALLS * deaths,
        "abandoned": 0,
    }
    assert (found["entries"], found["calls"]) == ((CALLS + 1) * deaths,) * 2
    assert (found["attempts"], found["abandoned"]) == (CALLS * deaths, deaths)
    assert found["left"] == []


def test_twenty_deaths_after_the_commit_double_nothing(tmp_path: Path) -> None:
    check(died(tmp_path, 20), 20)


def test_twenty_deaths_after_the_commit_on_postgresql_double_nothing(tmp_path: Path) -> None:
    with running_postgres() as server:
        check(died(tmp_path, 20, DATABASE_URL=server.url), 20)


@pytest.mark.prove
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_500_deaths_after_the_commit_double_nothing(database: str, tmp_path: Path, say: Any) -> None:
    if database == "sqlite":
        found = died(tmp_path, 500)
    else:
        with running_postgres() as server:
            found = died(tmp_path, 500, DATABASE_URL=server.url)
    check(found, 500)
    say(f"M4  {database}: 500 deaths, 0 doubled, 0 stuck; all adopted in {found['took_s']:.1f} s")
