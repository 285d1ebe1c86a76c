"""What a power cut can take: nothing that a client was told the end of (strict), or 50 ms of it (group).

`kill -9` cannot show this, because the page cache outlives it. So the disk is watched instead:
every fdatasync really happens, behind a gate that a test may hold shut.
"""

import asyncio
import json
import os
import random
import statistics
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from accounts.caller import Caller
from gateway.endpoints import RelayApplication
from gateway.ledger.journal import SYNC_EVERY_S, Journal
from gateway.relay.admission import Admission
from gateway.relay.attempt import Attempt, Limits
from gateway.relay.breaker import BreakerPolicy
from gateway.relay.catalog import Catalog
from gateway.relay.counters import LocalCounters
from gateway.relay.lifeline import Lifelines
from gateway.relay.pipeline import Relay
from gateway.relay.records import Opened, Refused, Settled
from gateway.relay.targets import Targets
from gateway.relay.transports.choice import Transports
from gateway.simulator import Fault
from tests.gateway.relay import carried
from tests.gateway.relay.carried import ALICE, SOON, EveryName, Routes, nothing_spent
from tests.served import Served, eventually, provider_of, serve
from tests.system.conftest import MODEL_NAMES, simulator_in_a_thread

ENDS = [
    ("gpt-4o", False),
    ("gpt-4o", True),
    (Fault.SERVER_ERROR.model_name, False),
    (Fault.SERVER_ERROR.model_name, True),
    (Fault.TRUNCATED.model_name, True),
]
"""Model name and whether streamed: a whole answer, a stream, failures, and a stream that breaks."""
NEVER_OPENS = BreakerPolicy(consecutive=1_000_000)
"""Every failure here is one of a provider that was really asked."""


@dataclass
class Sync:
    """One fdatasync: how much of the journal it covers, and when it ran, in monotonic seconds."""

    covers: int
    began: float
    returned: float | None = None


@dataclass
class Disk:
    """A disk that is watched. Shut, it takes as long as the test wants."""

    syncs: list[Sync] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    lag: Callable[[], float] = lambda: 0.0
    journal: Journal | None = None

    def __post_init__(self) -> None:
        self.gate.set()

    def to_disk(self, descriptor: int) -> None:
        sync = Sync(self.written(), time.monotonic())
        self.syncs.append(sync)
        assert self.gate.wait(30)
        time.sleep(self.lag())  # how slow this disk is
        os.fdatasync(descriptor)
        sync.returned = time.monotonic()

    def written(self) -> int:
        """How far the journal has been appended to."""
        assert self.journal is not None
        return self.journal.segments[-1].end

    def kept(self) -> int:
        """How much of the journal a power cut would leave."""
        return max((each.covers for each in self.syncs if each.returned is not None), default=0)


def journal_on(disk: Disk, folder: Path, *, strict: bool) -> Journal:
    journal = Journal(
        folder, max_bytes=1 << 28, segment_bytes=1 << 27, strict=strict, to_disk=disk.to_disk
    )  # one segment, so that a position says it all
    disk.journal = journal
    return journal


@dataclass
class Told:
    """What the client of one call was told: did the last byte leave, and what was safe on the disk then?"""

    begun: bool = False
    kept_at_the_end: int | None = None
    call_id: str = ""


class OneKey:
    """Every key is Alice's."""

    def used(self, caller: Caller, address: str, user_agent: str) -> None: ...

    def remembered(self, presented: str) -> Caller | None:
        return ALICE

    async def look_up(self, presented: str) -> Caller | None:
        return ALICE


class House:
    """The relay as it is, on a watched disk, asked without a network in front of it."""

    def __init__(self, base_url: str, disk: Disk, journal: Journal) -> None:
        self.disk, self.settled_at = disk, dict[str, int]()
        self.transport = Transports()
        lines, limits, clock = Lifelines(time.monotonic), Limits(), time.monotonic
        routes = Routes(Catalog(EveryName(base_url, {})))
        relay = Relay(
            routes,
            Admission(journal, self, clock, LocalCounters(nothing_spent), "USD"),
            Targets(carried.Told(), clock, NEVER_OPENS),
            self.transport,
            Attempt(limits, clock, time.time),
            journal,
            self,
            random.Random(7).random,
            SOON,
        )
        self.app = RelayApplication(
            relay, OneKey(), routes, lines, limits, max_body_bytes=1 << 20, body_timeout_s=5.0
        )

    def settled(self, record: Settled, /) -> None:
        """As a listener: the end of the call is in the journal up to here."""
        self.settled_at[record.call_id] = self.disk.written()

    def refused(self, refused: Refused, /) -> None:
        raise AssertionError(f"refused: {refused.code}")

    async def ask(self, model_name: str, streamed: bool, told: Told) -> None:
        body = {"model": model_name, "messages": [{"role": "user", "content": "Hello"}], "stream": streamed}
        parts = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

        async def receive() -> dict[str, Any]:
            return parts.pop() if parts else await asyncio.Future()

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                told.begun = True
                told.call_id = dict(message["headers"])[b"x-request-id"].decode()
            elif not message.get("more_body", False):
                told.kept_at_the_end = self.disk.kept()

        headers = [
            (b"host", b"localhost"),
            (b"authorization", b"Bearer pst_any"),
            (b"content-type", b"application/json"),
        ]
        path = "/v1/chat/completions"
        await self.app({"path": path, "method": "POST", "headers": headers}, receive, send)


@asynccontextmanager
async def house(base_url: str, disk: Disk, folder: Path, *, strict: bool) -> AsyncIterator[House]:
    journal = journal_on(disk, folder, strict=strict)
    made = House(base_url, disk, journal)
    try:
        yield made
    finally:
        disk.gate.set()
        await made.transport.close()
        journal.close()


async def until(holds: Callable[[], object], what: str) -> None:
    """Wait on this loop for a condition."""
    await asyncio.to_thread(eventually, holds, 10, what)


@pytest.mark.parametrize(("model_name", "streamed"), ENDS)
async def test_in_the_strict_setting_no_end_leaves_before_its_record_is_on_the_disk(
    upstream, tmp_path, model_name, streamed
):
    disk = Disk()
    async with house(upstream.base_url, disk, tmp_path / "mine", strict=True) as it:
        disk.gate.clear()
        told = Told()
        call = asyncio.create_task(it.ask(model_name, streamed, told))
        await until(lambda: it.settled_at, "the settlement")
        await until(lambda: disk.syncs, "a sync")
        assert told.kept_at_the_end is None, "the end left, and nothing is on the disk"

        disk.gate.set()
        await call

    assert told.kept_at_the_end is not None
    assert told.kept_at_the_end >= it.settled_at[told.call_id]


async def test_in_the_group_setting_an_end_does_not_wait_for_the_disk(upstream, tmp_path):
    """The contrast that shows the test above can fail."""
    disk = Disk()
    async with house(upstream.base_url, disk, tmp_path / "mine", strict=False) as it:
        disk.gate.clear()
        told = Told()
        await it.ask("gpt-4o", True, told)

    assert told.kept_at_the_end == 0


async def test_a_strict_stream_begins_before_the_disk_is_asked(upstream, tmp_path):
    disk = Disk()
    disk.gate.clear()
    async with house(upstream.base_url, disk, tmp_path / "mine", strict=True) as it:
        told = Told()
        call = asyncio.create_task(it.ask("gpt-4o", True, told))
        await until(lambda: told.begun, "the stream's beginning")

        assert told.kept_at_the_end is None
        disk.gate.set()
        await call


@pytest.mark.parametrize("seed", range(3))
async def test_the_order_holds_for_many_calls_at_once_on_an_uneven_disk(upstream, tmp_path, seed):
    picks = random.Random(seed)
    disk = Disk(lag=lambda: picks.uniform(0, 0.01))
    async with house(upstream.base_url, disk, tmp_path / "mine", strict=True) as it:
        calls = [Told() for _ in range(100)]
        await asyncio.gather(*(it.ask(*picks.choice(ENDS), told) for told in calls))

    early = [
        each
        for each in calls
        if each.kept_at_the_end is None or each.kept_at_the_end < it.settled_at[each.call_id]
    ]
    assert early == []


def note(journal: Journal, number: int) -> None:
    """One record more."""
    journal.open(Opened(f"call-{number}", 0, 1, 1, "gpt-4o", False, False))


def test_group_syncs_are_at_most_50_ms_apart():
    assert SYNC_EVERY_S <= 0.02


def test_in_the_group_setting_a_record_waits_for_one_sync_or_two(tmp_path):
    """It is in the next sync to begin; where one is under way, that is the one after it."""
    disk = Disk()
    journal = journal_on(disk, tmp_path / "mine", strict=False)
    disk.gate.clear()
    note(journal, 1)
    first = disk.written()
    [under_way] = eventually(lambda: disk.syncs[:1])
    note(journal, 2)
    second = disk.written()
    disk.gate.set()
    _, after = eventually(lambda: disk.syncs[:2] if len(disk.syncs) >= 2 else None)
    eventually(lambda: disk.kept() >= second)
    journal.close()

    assert under_way.covers == first
    assert after.covers == second


def test_nothing_is_synced_where_nothing_was_written(tmp_path):
    disk = Disk()
    journal = journal_on(disk, tmp_path / "mine", strict=False)
    note(journal, 1)
    eventually(disk.kept)
    journal.close()

    assert len(disk.syncs) == 1


def exposed(appended: list[tuple[int, float]], syncs: list[Sync]) -> list[tuple[float, float]]:
    """For each record: how long a power cut could have taken it, and the part that the disk itself took."""
    found = []
    for end, at in appended:
        safe = next(each for each in syncs if each.covers >= end)
        disk_s = sum(
            each.returned - max(each.began, at)
            for each in syncs
            if each.returned is not None and each.returned > at and each.began <= safe.began
        )
        assert safe.returned is not None
        found.append((safe.returned - at, disk_s))
    return found


@pytest.mark.prove
def test_how_long_a_record_is_exposed(tmp_path, say):
    disk = Disk()
    journal = journal_on(disk, tmp_path / "mine", strict=False)
    appended: list[tuple[int, float]] = []
    for number in range(10_000):
        note(journal, number)
        appended.append((disk.written(), time.monotonic()))
        time.sleep(0.001)  # the rate: a thousand records a second at most
    eventually(lambda: disk.kept() >= appended[-1][0])
    journal.close()

    windows = exposed(appended, disk.syncs)
    whole = [each for each, _ in windows]
    waiting = [each - disk_s for each, disk_s in windows]
    disk_s = [each.returned - each.began for each in disk.syncs if each.returned is not None]
    say(
        f"M3  group: a record is exposed {spread(whole)}; without the disk's own time {spread(waiting)}; "
        f"one sync takes {spread(disk_s)}; n = {len(appended)} records, {len(disk.syncs)} syncs"
    )


def spread(seconds: list[float]) -> str:
    """Median, 99th centile and the longest, in milliseconds."""
    ordered = sorted(seconds)
    found = (statistics.median(ordered), ordered[int(0.99 * len(ordered))], ordered[-1])
    return "p50 {:.1f}, p99 {:.1f}, max {:.1f} ms".format(*(each * 1000 for each in found))


@pytest.mark.prove
async def test_what_strictness_costs(tmp_path, say):
    """Two gateways side by side, asked in turns, so that a busy machine slows both."""
    with simulator_in_a_thread(tmp_path / "upstream.jsonl") as upstream:
        provider = provider_of(upstream.base_url, *MODEL_NAMES)
        with (
            serve(tmp_path / "group", **provider, JOURNAL_SYNC="group") as group,
            serve(tmp_path / "strict", **provider, JOURNAL_SYNC="strict") as strict,
        ):
            times = await in_turns(group, strict, n=1000)
    group_ms, strict_ms = (statistics.median(each) * 1000 for each in times)
    say(
        f"M3  strict: p50 {strict_ms:.2f} ms beside {group_ms:.2f} ms in group "
        f"({strict_ms - group_ms:+.2f} ms, x {strict_ms / group_ms:.2f}); "
        f"a bare fdatasync on this disk {spread(bare_syncs(tmp_path / 'bare', 500))}; n = 1000 calls each"
    )


def bare_syncs(path: Path, n: int) -> list[float]:
    """What the disk takes for a small write when nobody else asks it."""
    times = []
    with path.open("wb") as file:
        for _ in range(n):
            file.write(bytes(400))
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return times


async def in_turns(*gateways: Served, n: int) -> list[list[float]]:
    """Seconds of each of n whole calls, one after the other; the first hundred are not counted."""
    times: list[list[float]] = [[] for _ in gateways]
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    async with aiohttp.ClientSession() as http:
        for number in range(n + 100):
            for place, each in enumerate(gateways):
                began = time.perf_counter()
                headers = {"Authorization": f"Bearer {each.api_key}"}
                async with http.post(
                    f"{each.base_url}/chat/completions", json=body, headers=headers
                ) as answer:
                    await answer.read()
                    assert answer.status == 200
                if number >= 100:
                    times[place].append(time.perf_counter() - began)
    return times
