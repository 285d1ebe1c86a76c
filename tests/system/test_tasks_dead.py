"""O5: the worker of background tasks and its clock are dead while calls flow, and come back to what piled up.

Each has a process of its own here (`up --role`), so that one can be killed without the other.
"""

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.simulator import RunningSimulator, running_simulator
from tests.gateway.receivers import MailServer, mail_server
from tests.served import Served, eventually, provider_of, serve
from tests.system.conftest import MODEL_NAMES, enter_prices
from tests.system.test_rolling import Load, complete_books

CLEARED_WITHIN_S = 60.0
PATIENCE_S = 180.0
"""Of a test that judges no time."""
MAILS = 20
TASKS_READY = "celery@"


@dataclass
class Tasks:
    """The process of background tasks, which may be killed and started again."""

    gateway: Served
    served: Served
    starts: int = 0

    def start(self) -> None:
        """Returns when it takes messages."""
        self.starts += 1
        self.served.launch()
        eventually(lambda: self.gateway.errors().count(TASKS_READY) == self.starts, 90, "the tasks' start")

    def kill(self) -> None:
        """Worker, clock and who looks after them, at once."""
        self.served.kill()


@contextlib.contextmanager
def tasks_of(gateway: Served) -> Iterator[Tasks]:
    tasks = Tasks(
        gateway, Served(gateway.var_dir, gateway.environ, args=("--role", "worker"), out="tasks.txt")
    )
    tasks.start()
    try:
        yield tasks
    finally:
        tasks.kill()


@dataclass
class Dead:
    """What was seen while nobody did the tasks, and afterwards."""

    calls: int = 0
    failures: list[str] = field(default_factory=list)
    marks: int = 0
    """At minutes that wait to be worked out when the tasks come back; each batch of calls leaves one."""
    cleared_s: float = 0.0
    told: dict[str, Any] = field(default_factory=dict)


@contextlib.asynccontextmanager
async def calls_under_way(gateway: Served, upstream: RunningSimulator) -> AsyncIterator[Load]:
    """Ends when everything is on the ledger."""
    load = Load(gateway, random.Random(5))
    clients = asyncio.create_task(load.run())
    try:
        yield load
    finally:
        load.stopping = True
        await clients
    await complete_books(gateway, load, upstream)


async def dead_for(dead_s: float, var_dir: Path, tmp_path: Path) -> Dead:
    dead = Dead()
    async with running_simulator(speed=1.0, seed=5, journal=tmp_path / "upstream.jsonl") as upstream:
        provider = provider_of(upstream.base_url, *MODEL_NAMES)
        with mail_server() as mail:
            environ = {**provider, "EMAIL_URL": f"smtp://127.0.0.1:{mail.port}"}
            with serve(var_dir, args=("--role", "relay"), **environ) as gateway:
                await asyncio.to_thread(enter_prices, gateway)
                with tasks_of(gateway) as tasks:
                    async with calls_under_way(gateway, upstream) as load:
                        await asyncio.to_thread(die_and_come_back, tasks, mail, load, dead_s, dead)
                    await asyncio.to_thread(eventually, lambda: not marked(gateway), PATIENCE_S, "no mark")
                    dead.calls, dead.failures = len(load.seen), load.failures
                    dead.told = await asyncio.to_thread(ask, gateway)
    assert Counter(mail.addresses) == {f"reader-{number}@example.com": 1 for number in range(MAILS)}
    return dead


def die_and_come_back(tasks: Tasks, mail: MailServer, load: Load, dead_s: float, dead: Dead) -> None:
    """Killed while calls flow, and once more while it works on what piled up."""
    gateway = tasks.gateway
    eventually(lambda: gateway.rows("SELECT 1 FROM gateway_rollup LIMIT 1"), 60, "the first rollup")
    tasks.kill()
    began_s, before = time.monotonic(), len(load.seen)
    leave_work(gateway)
    rolled_up = rollups(gateway)
    time.sleep(max(0.0, began_s + dead_s - time.monotonic()))  # so long they are to be dead
    assert len(load.seen) > before, "calls go on"
    assert rollups(gateway) == rolled_up
    assert mail.took == []
    dead.marks = marked(gateway)
    assert dead.marks > 0

    tasks.start()
    back_s, back_minute = time.monotonic(), int(time.time()) // 60
    eventually(lambda: gateway.rows("SELECT 1 FROM gateway_correction LIMIT 1"), PATIENCE_S, "a correction")
    tasks.kill()
    tasks.start()
    eventually(lambda: is_cleared(gateway, mail, back_minute), PATIENCE_S, "the backlog")
    dead.cleared_s = time.monotonic() - back_s


def leave_work(gateway: Served) -> None:
    """Mail to send, and calls to price again."""
    since = datetime.now(UTC) - timedelta(hours=1)
    gateway.manage(
        *("shell", "--no-imports", "-c"),
        "import datetime; from tests.system import clearing; "
        f"clearing.write_mails({MAILS}); clearing.enter_late_price({since!r})",
    )


def is_cleared(gateway: Served, mail: MailServer, minute: int) -> bool:
    """Nothing is left of what there was in that minute, counted from the Unix epoch."""
    [(left,)] = gateway.rows("SELECT COUNT(*) FROM gateway_repricing WHERE finished_at IS NULL")
    return len(mail.took) >= MAILS and not left and not marked(gateway, minute)


def marked(gateway: Served, before_minute: int = 1 << 31) -> int:
    """Marks at minutes before one."""
    query = "SELECT COUNT(*) FROM gateway_stale WHERE size = 1 AND start < ?"
    [(count,)] = gateway.rows(query, before_minute)
    return int(count)


def rollups(gateway: Served) -> list[tuple[Any, ...]]:
    return gateway.rows("SELECT id, calls FROM gateway_rollup ORDER BY id")


def ask(gateway: Served) -> dict[str, Any]:
    code = "from tests.system import clearing; print(clearing.told())"
    told: dict[str, Any] = json.loads(gateway.manage("shell", "--no-imports", "-c", code))
    return told


def check(dead: Dead) -> None:
    """No call failed, and every task did its work once."""
    assert dead.failures == []
    told = dead.told
    assert told["calls"] == dead.calls
    assert told["rolled_up"] > 0
    assert told["wrong_rollups"] == []
    assert told["corrections"] == told["counted"] > 0
    assert told["doubled"] == 0
    assert told["wrong_costs"] == []


async def test_tasks_that_were_dead_clear_what_piled_up_and_do_it_once(var_dir: Path, tmp_path: Path):
    check(await dead_for(15, var_dir, tmp_path))


@pytest.mark.prove
async def test_tasks_that_were_dead_for_ten_minutes_are_through_within_one(
    var_dir: Path, tmp_path: Path, say: Callable[[str], None]
):
    dead = await dead_for(600, var_dir, tmp_path)
    check(dead)
    say(
        f"O5  tasks dead for 10 minutes, killed once more when they came back: {dead.calls:,} calls, none "
        f"failed; {dead.marks:,} marks, {dead.told['corrections']:,} corrections and {MAILS} mails "
        f"were done {dead.cleared_s:.1f} s after the start, each once"
    )
    assert dead.cleared_s <= CLEARED_WITHIN_S
