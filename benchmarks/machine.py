"""What the figures were measured on."""

import os
import platform
import sqlite3
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("granian", "uvloop", "aiohttp", "msgspec", "Django", "channels")
LINE = "model name"


def facts(version_of_ours: str) -> dict[str, str]:
    """Facts that a reader needs to judge the figures; taken before the load begins."""
    busy = os.getloadavg()[0]
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "Penstock": version_of_ours,
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
        "load before the run": f"{busy:.1f} (of others: near 0 on a quiet machine)",
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        **{name: version(name) for name in PACKAGES},
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith(LINE)]
    return named[0] if named else platform.machine()
