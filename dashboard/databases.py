"""Django's settings of the two databases. Nothing here connects."""

from pathlib import Path
from typing import Any

from dashboard.env import Env, database_params

CONNECT_S = 3
"""A database on the same network answers in milliseconds; longer than this it is away."""
WAIT_S = 5.0
"""For one of a process's connections to be free."""
LOCK_S = 5
"""Nobody holds a row for long, so whoever waits as long for one is in a knot that will not come undone."""
IDLE_S = 60
"""In the middle of a transaction: its process is frozen, and others wait for its locks."""
GONE_S = 10
"""The far side's kernel has not confirmed anything for so long: the connection is dead."""


def sqlite(var_dir: Path) -> dict[str, Any]:
    """A file in VAR_DIR. One writer at a time, who knows from the start that it will write."""
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": var_dir / "penstock.sqlite3",
        "TEST": {"NAME": var_dir / "test.sqlite3"},  # a file, as in real use: threads share it
        "OPTIONS": {
            "timeout": 5,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-32000;",
        },
    }


def postgresql(env: Env) -> dict[str, Any]:
    """That of DATABASE_URL, whose own parameters win over ours."""
    params = database_params(env.database_url)
    own = {
        "NAME": params.pop("dbname"),
        "USER": params.pop("user", ""),
        "PASSWORD": params.pop("password", ""),
        "HOST": params.pop("host", ""),
        "PORT": params.pop("port", ""),
    }
    options = {**_patience(), **params, "options": _session(env, params.get("options", ""))}
    pool = {"most": env.database_connections, "wait_s": WAIT_S, "statement_s": env.database_timeout_s}
    return {"ENGINE": "dashboard.postgresql", **own, "OPTIONS": {**options, "pool": pool}}


def _patience() -> dict[str, Any]:
    """libpq's own parameters, so that a server that is cut off is noticed."""
    return {
        "application_name": "penstock",
        "connect_timeout": CONNECT_S,
        "keepalives_idle": GONE_S,
        "keepalives_interval": GONE_S // 3,
        "keepalives_count": 3,
        "tcp_user_timeout": GONE_S * 1000,
    }


def _session(env: Env, asked: str) -> str:
    """What the server sets for each connection, in the syntax of its command line."""
    ours = {
        "TimeZone": "UTC",  # moments go to the books without their zone
        "statement_timeout": f"{env.database_timeout_s * 1000:.0f}ms",
        "lock_timeout": f"{LOCK_S}s",
        "jit": "off",  # it costs more than these questions take
        "work_mem": "32MB",  # a busy minute's calls are grouped in memory
        "idle_in_transaction_session_timeout": f"{IDLE_S}s",
    }
    return " ".join([*(f"-c {name}={value}" for name, value in ours.items()), asked]).strip()
