"""A change that a command made is said to the processes that serve."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.feed import CHANGES
from tests.redis import RunningRedis, running_redis

HERE = Path(__file__).parents[2]
CHANGE = "from accounts.changes import note_change; note_change()"


@pytest.fixture
def redis_server() -> Iterator[RunningRedis]:
    with running_redis() as running:
        yield running


def manage(var_dir: Path, url: str, *words: str) -> str:
    """What `manage.py` said."""
    environ = {**os.environ, "VAR_DIR": str(var_dir), "REDIS_URL": url}
    environ["DJANGO_SETTINGS_MODULE"] = "dashboard.settings"
    done = subprocess.run(
        [sys.executable, "manage.py", *words],
        cwd=HERE,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr


def test_a_command_says_what_it_changed(redis_server: RunningRedis, var_dir: Path) -> None:
    manage(var_dir, redis_server.url, "migrate", "--verbosity=0")
    with redis_server.client() as client, client.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe(CHANGES)
        pubsub.get_message(timeout=5)
        for _ in range(3):  # a command waits but for a moment, which a busy machine may miss
            manage(var_dir, redis_server.url, "shell", "--verbosity=0", "-c", CHANGE)
            if said := pubsub.get_message(timeout=5):
                break

    assert said is not None
    assert b'"type":"changed"' in said["data"]

    redis_server.kill()
    assert "did not take" in manage(var_dir, redis_server.url, "shell", "--verbosity=0", "-c", CHANGE)
