"""A provider that says when to come back is not asked before; a wait not taken is the client's to know."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.relay.records import Settled
from gateway.simulator import Fault, RunningSimulator, Step
from tests.gateway.relay import witnessed
from tests.gateway.relay.carried import House, house
from tests.gateway.relay.witnessed import Heard, ask, front_of

AT_ONCE = 200


@dataclass
class Throttled:
    """A call to a model name of its own, whose provider asks it once to wait so long."""

    step: Step
    heard: Heard

    @property
    def asked_s(self) -> float:
        return self.step.retry_after_s


def throttled(number: int, fault: Fault, asked_s: float) -> Throttled:
    name = f"model-{number}"
    step = Step(fault=fault, model_name=name, retry_after_s=asked_s)
    return Throttled(step, witnessed.request(streamed=number % 2 == 0, model=name))


def soon(count: int) -> list[Throttled]:
    """Waits that are worth it: milliseconds, seconds, dates."""
    dice = random.Random(count)
    wait_s: dict[Fault, Callable[[], float]] = {
        Fault.THROTTLED_MS: lambda: dice.randrange(50, 900) / 1000,
        Fault.THROTTLED_SECONDS: lambda: 1.0,
        Fault.THROTTLED_DATE: lambda: 1.0,
    }
    faults = [dice.choice(list(wait_s)) for _ in range(count)]
    return [throttled(number, fault, wait_s[fault]()) for number, fault in enumerate(faults)]


def late(count: int) -> list[Throttled]:
    """Waits that no call takes: more than a minute, at most a day."""
    dice = random.Random(count)
    waits = [dice.randrange(61, 24 * 3600) for _ in range(count)]
    return [
        throttled(number, dice.choice((Fault.THROTTLED_MS, Fault.THROTTLED_SECONDS)), wait_s)
        for number, wait_s in enumerate(waits)
    ]


async def carry(home: House, upstream: RunningSimulator, calls: list[Throttled]) -> list[Settled]:
    """Many at once; their entries in the order of the calls."""
    upstream.script([each.step for each in calls])
    front = front_of(home)
    for start in range(0, len(calls), AT_ONCE):
        wave = calls[start : start + AT_ONCE]
        await asyncio.gather(*(ask(front, each.heard, within_s=60.0) for each in wave))
    entries = {each.call_id: each for each in home.books.entries}
    return [entries[each.heard.call_id] for each in calls]


def early_s(call: Throttled, entry: Settled) -> float:
    """How long before its time the provider was asked again. Moments on the books are whole microseconds."""
    first, again = entry.attempts
    ended_us = first.started_at_us + first.latency_us
    asked_s = again.backoff_us / 1e6 if call.step.fault is Fault.THROTTLED_DATE else call.asked_s
    return asked_s - (again.started_at_us - ended_us) / 1e6


async def honoured(count: int, upstream: RunningSimulator, folder: Path) -> None:
    async with house(upstream.base_url, folder) as home:
        calls = soon(count)
        entries = await carry(home, upstream, calls)
        for call, entry in zip(calls, entries, strict=True):
            assert [each.code for each in entry.attempts] == ["throttled", ""]
            assert early_s(call, entry) <= 0.002
            if call.step.fault is Fault.THROTTLED_DATE:  # whole seconds, and some of the first was gone
                assert 0 <= entry.attempts[1].backoff_us <= 2_000_000
            else:
                assert entry.attempts[1].backoff_us == pytest.approx(call.asked_s * 1e6, abs=1)


async def passed_on(count: int, upstream: RunningSimulator, folder: Path) -> None:
    async with house(upstream.base_url, folder) as home:
        calls = late(count)
        entries = await carry(home, upstream, calls)
        for call, entry in zip(calls, entries, strict=True):
            assert [each.code for each in entry.attempts] == ["throttled"]
            assert call.heard.status == 429
            assert float(call.heard.headers["retry-after"]) == call.asked_s
            assert float(call.heard.headers["retry-after-ms"]) == call.asked_s * 1000
            assert call.heard.headers["x-should-retry"] == "false"


async def test_no_provider_is_asked_again_before_it_said(upstream: RunningSimulator, tmp_path: Path) -> None:
    await honoured(100, upstream, tmp_path / "journal")


async def test_a_wait_that_is_not_taken_is_the_clients_to_know(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    await passed_on(100, upstream, tmp_path / "journal")


@pytest.mark.prove
async def test_no_provider_of_many_is_asked_again_before_it_said(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    await honoured(1000, upstream, tmp_path / "soon")
    await passed_on(1000, upstream, tmp_path / "late")
