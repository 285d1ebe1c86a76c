"""Clients that leave leave no reservation behind (M7)."""

import asyncio
import random
import time

import pytest

from tests.served import eventually
from tests.system.together import findings as f
from tests.system.together.house import PLENTY, SILENT, TALKING, USUAL, Key, Together
from tests.system.upstream_side.clients import connect

MODEL_NAMES = (SILENT, TALKING, TALKING, USUAL)
RELEASED_WITHIN_S = 1.0
QUOTAS = [(kind, PLENTY, "month") for kind in ("requests", "tokens", "money")]


async def leave(gateway: Together, key: Key, count: int, spread_s: float, seed: int) -> float:
    """So many clients leave, each at a moment of its own; returns when the last one did."""
    picks = random.Random(seed)

    async def one(number: int) -> None:
        model_name, early_s = picks.choice(MODEL_NAMES), picks.uniform(0, spread_s)
        stays_s, streamed, reset = picks.expovariate(2.0), picks.random() < 0.7, picks.random() < 0.5
        await asyncio.sleep(early_s)
        wire = await connect(gateway.port)
        trial = f"leaver-{number}"
        wire.writer.write(
            gateway.house.request(model_name, key=key.text, trial=trial, max_tokens=20, stream=streamed)
        )
        await asyncio.sleep(min(stays_s, 3.0))
        wire.leave(reset=reset)

    await asyncio.gather(*(one(number) for number in range(count)))
    return time.monotonic()


def held(gateway: Together, key: Key) -> int:
    found = [gateway.figures(each) for each in key.quotas.values()]
    return sum(each.held + each.expired for each in found if each is not None)


def disconnect(gateway: Together, key: Key, count: int, spread_s: float) -> tuple[str, float]:
    """A line for the reader, and the seconds until nothing was held."""
    check_that_a_hold_is_seen(gateway, key)
    left_at = asyncio.run(leave(gateway, key, count, spread_s, seed=count))
    eventually(lambda: held(gateway, key) == 0, 20, "nothing held")
    took_s = time.monotonic() - left_at
    standing = gateway.at_rest(key)
    assert list(f.drifted(standing)) == []
    booked = gateway.sums(key).requests
    return (
        f"M7  {count} clients left at random moments: {booked} calls on the ledger, nothing held "
        f"{took_s:.2f} s after the last, counters = ledger",
        took_s,
    )


def check_that_a_hold_is_seen(gateway: Together, key: Key) -> None:
    """While a client waits for a provider that is silent, its call holds of every quota."""

    async def wait() -> None:
        wire = await connect(gateway.port)
        wire.writer.write(gateway.house.request(SILENT, key=key.text, max_tokens=20))
        await asyncio.to_thread(eventually, lambda: held(gateway, key) > 0, 10, "a hold")
        assert len(list(f.drifted(gateway.standing(key)))) == len(QUOTAS)
        wire.leave()

    asyncio.run(wait())


def test_100_clients_that_leave_hold_nothing(gateway, say):
    told, _ = disconnect(gateway, gateway.key("leavers", *QUOTAS), count=100, spread_s=2.0)
    say(told)


@pytest.mark.prove
def test_1000_clients_that_leave_hold_nothing_a_second_later(gateway, say):
    told, took_s = disconnect(gateway, gateway.key("many-leavers", *QUOTAS), count=1000, spread_s=10.0)
    say(told)
    assert took_s <= RELEASED_WITHIN_S
