"""What hard quotas and rate limits of key and team add to a call, against a key without any (M11)."""

import asyncio
import time
from statistics import median, quantiles

import pytest

from tests.redis import running_redis
from tests.system.together.house import PLENTY, USUAL, Key, Together, together
from tests.system.upstream_side.clients import wires_to

PAIRS = 10_000
BLOCKS = 20
WARM = 200
P50_S, P99_S = 0.0003, 0.001
QUOTAS = [("money", PLENTY, "month"), ("tokens", PLENTY, "day")]
LIMITS = [(kind, 10**9, "minute") for kind in ("requests", "tokens")]


async def pairs(gateway: Together, plain: Key, strict: Key) -> list[tuple[float, float]]:
    """Seconds of a call with each key, one right after the other; who goes first takes turns."""
    found = []
    async with wires_to(gateway.port) as wires:
        for number in range(WARM + PAIRS):
            order = (plain, strict) if number % 2 else (strict, plain)
            took = {}
            for key in order:
                trial = f"{number:05}"
                request = gateway.house.request(USUAL, key=key.text, trial=trial, max_tokens=8)
                began_at = time.perf_counter()
                answer = await wires.ask(request)
                took[key.id] = time.perf_counter() - began_at
                assert answer.status == 200
            found.append((took[plain.id], took[strict.id]))
    return found[WARM:]


def added(found: list[tuple[float, float]]) -> tuple[float, float]:
    """At the median and the 99th percentile, each the median over blocks of pairs: a hiccup is no cost."""
    size = len(found) // BLOCKS
    blocks = [found[at : at + size] for at in range(0, len(found), size)]
    at_p50 = [median(strict for _, strict in each) - median(plain for plain, _ in each) for each in blocks]
    at_p99 = [_p99([s for _, s in each]) - _p99([p for p, _ in each]) for each in blocks]
    return median(at_p50), median(at_p99)


def _p99(values: list[float]) -> float:
    return quantiles(values, n=100)[-1]


@pytest.mark.prove
@pytest.mark.parametrize("where", ["in process", "in Redis"])
def test_strictness_costs_next_to_nothing(tmp_path, provider, say, where):
    with (
        running_redis() as redis,
        together(tmp_path, provider, redis if where == "in Redis" else None, 1, USUAL) as gateway,
    ):
        strict = gateway.team("strict", {"key": [*LIMITS, *QUOTAS]}, [*LIMITS, *QUOTAS]).keys["key"]
        plain = gateway.key("plain")
        found = asyncio.run(pairs(gateway, plain, strict))
    p50_s, p99_s = added(found)
    say(
        f"M11  4 rate limits and 4 hard quotas counted {where} add {p50_s * 1000:.3f} ms at p50 and "
        f"{p99_s * 1000:.3f} ms at p99 to a call of {median(p for p, _ in found) * 1000:.2f} ms, "
        f"{PAIRS} pairs"
    )
    late = [(plain_s, strict_s + P50_S) for plain_s, strict_s in found]
    assert added(late)[0] > P50_S  # what costs more is seen
    assert p50_s <= P50_S
    assert p99_s <= P99_S
