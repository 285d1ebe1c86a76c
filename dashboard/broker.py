"""Where messages to the tasks wait: in Redis, or in files where there is none. Pure."""

import ssl
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

PREFIX = "pst:celery:"
WAIT_S = 5.0
"""Nobody waits for the tasks; a Redis that is slow for them is better than one asked again and again."""


def address(redis_url: str) -> str:
    """The broker's, in Celery's words. It calls a Unix socket by another name; a blank URL means files."""
    if not redis_url:
        return "filesystem://localhost"  # a name that nobody looks up; without one Celery's library warns
    parts = urlsplit(redis_url)
    if parts.scheme != "unix":
        return redis_url
    credentials, at, _ = parts.netloc.rpartition("@")
    [number] = parse_qs(parts.query).get("db", ["0"])[:1]
    return f"redis+socket://{credentials}{at}{parts.path}?virtual_host={number}"


def transport(redis_url: str) -> str | None:
    """Who carries the messages, where it is not whom Celery knows by the address."""
    return None if redis_url else "dashboard.files_broker.Transport"


def options(redis_url: str, var_dir: Path) -> dict[str, Any]:
    """Of the broker's transport. The folders are made by whoever sends or takes messages."""
    if redis_url:
        return {"global_keyprefix": PREFIX, "socket_connect_timeout": WAIT_S}
    queue = str(var_dir / "celery" / "queue")
    return {
        "data_folder_in": queue,
        "data_folder_out": queue,
        "control_folder": str(var_dir / "celery" / "control"),
    }


def encryption(redis_url: str) -> dict[str, Any] | None:
    """Of a rediss:// address: the certificate is checked, as everywhere else."""
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED} if redis_url.startswith("rediss://") else None
