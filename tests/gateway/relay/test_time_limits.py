"""Connect, first byte, between chunks, total: each limit ends a call and its connection soon after it.

How soon depends on the ticker of `lifeline`, which looks ten times a second.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from gateway.relay.breaker import BreakerPolicy
from gateway.relay.catalog import PoolConfig, Route, Secret, Target, TransportName
from gateway.relay.lifeline import TICK_S
from gateway.relay.records import AttemptEnded, Settled
from gateway.relay.retry import RetryPolicy

# The engine is loaded when it is first asked for; here that would be within somebody's deadline.
from gateway.relay.transports import httpx as _engine  # noqa: F401
from gateway.simulator import Fault
from tests.gateway.relay import witnessed
from tests.gateway.relay.carried import CREDENTIAL, PRICE, house_of
from tests.gateway.relay.failing import Failing, at, sim
from tests.gateway.relay.witnessed import ask, connections_to, front_of
from tests.upstreams import wire

AT_ONCE = 20
LIMIT_S = 0.5
LONG_S = 30.0
ALLOWED_S = 0.25
"""What a call may take beyond its limit."""
GENEROUS_S = 10.0
"""The same where the machine may be busy with other things; without the limit it would be `LONG_S`."""
NEVER_OPENS = BreakerPolicy(consecutive=10**9)
ONCE = RetryPolicy(attempts=1)


def of_attempt(entry: Settled) -> float:
    [attempt] = entry.attempts
    return attempt.latency_us / 1e6


def since_first_token(entry: Settled) -> float:
    attempt: AttemptEnded = entry.attempts[0]
    assert attempt.first_token_us is not None
    return (attempt.latency_us - attempt.first_token_us) / 1e6


def of_call(entry: Settled) -> float:
    return entry.latency_us / 1e6


@dataclass(frozen=True)
class Limit:
    """One limit, and a provider that oversteps it."""

    name: str
    fails: Failing
    streamed: bool
    code: str
    took: Callable[[Settled], float]
    """How long what is limited lasted, in seconds."""
    limit_s: float = LIMIT_S
    """What it may last."""
    pool: PoolConfig = PoolConfig(connect_timeout_s=LONG_S, read_timeout_s=LONG_S)
    deadline_s: float = LONG_S

    def __str__(self) -> str:
        return self.name


TO_CONNECT = PoolConfig(connect_timeout_s=LIMIT_S, read_timeout_s=LONG_S)
TO_READ = PoolConfig(connect_timeout_s=LONG_S, read_timeout_s=LIMIT_S)
BEGUN_S = 1.5
"""A limit within which a provider begins to answer also where the machine is busy."""
TO_READ_ON = PoolConfig(connect_timeout_s=LONG_S, read_timeout_s=BEGUN_S)
tls_hang: Callable[[], AbstractAsyncContextManager[str]] = partial(wire.never_answers, "https")
drip = sim(Fault.SLOW_DRIP, pause_s=0.05)
LIMITS = (
    Limit(
        "connect", at("never made", wire.connect_hang), False, "connect_timeout", of_attempt, pool=TO_CONNECT
    ),
    Limit("TLS", at("TLS never answered", tls_hang), False, "connect_timeout", of_attempt, pool=TO_CONNECT),
    Limit("first byte", sim(Fault.SILENCE), True, "silent", of_attempt, pool=TO_READ),
    Limit("between chunks", sim(Fault.STALL), True, "silent", since_first_token, BEGUN_S, pool=TO_READ_ON),
    Limit("total, silent", sim(Fault.SILENCE), False, "deadline", of_call, deadline_s=LIMIT_S),
    Limit("total, dripping", drip, False, "deadline", of_call, deadline_s=LIMIT_S),
    Limit("total, dripping stream", drip, True, "deadline", of_call, deadline_s=LIMIT_S),
)


async def longest_overrun_s(limit: Limit, transport: TransportName, count: int, folder: Path) -> float:
    """Overstep the limit so often; how long after it the last call, and its connection, were over."""
    async with limit.fails.running() as provider:
        target = Target(
            1,
            "openai",
            provider.base_url,
            "gpt-4o",
            Secret(CREDENTIAL),
            prices=(PRICE,),
            transport=transport,
            pool=limit.pool,
        )
        route = Route("gpt-4o-mini", (target,), timeout_s=limit.deadline_s)
        async with house_of({"gpt-4o-mini": route}, folder, retry=ONCE, breaker=NEVER_OPENS) as home:
            others = connections_to(provider.base_url)
            front = front_of(home)
            for _ in range(count // AT_ONCE):
                heard = [witnessed.request(streamed=limit.streamed) for _ in range(AT_ONCE)]
                await asyncio.gather(*(ask(front, each, within_s=LONG_S) for each in heard))
            free = await witnessed.settled(lambda: witnessed.is_free(home, target), GENEROUS_S)
            assert free
            closed = await witnessed.settled(lambda: connections_to(provider.base_url) == others, GENEROUS_S)
            assert closed
            entries = home.books.entries
            assert [each.attempts[0].code for each in entries] == [limit.code] * count
            return max(limit.took(each) for each in entries) - limit.limit_s


EACH_LIMIT = pytest.mark.parametrize("limit", LIMITS, ids=str)
TRANSPORTS = pytest.mark.parametrize("transport", ["http1", "aiohttp", "httpx"])


@TRANSPORTS
@EACH_LIMIT
async def test_a_limit_ends_a_call_soon_after_it(
    limit: Limit, transport: TransportName, tmp_path: Path
) -> None:
    overrun_s = await longest_overrun_s(limit, transport, AT_ONCE, tmp_path / "journal")
    assert -0.01 <= overrun_s < GENEROUS_S


@pytest.mark.prove
@TRANSPORTS
@EACH_LIMIT
async def test_a_limit_ends_every_one_of_many_calls_soon_after_it(
    limit: Limit, transport: TransportName, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrun_s = await longest_overrun_s(limit, transport, 400, tmp_path / "journal")
    with capsys.disabled():
        print(f"\n{limit} over {transport}: at most {overrun_s * 1000:.0f} ms late in 400 calls")
    assert overrun_s <= ALLOWED_S


def test_the_ticker_leaves_time_to_end_a_call() -> None:
    assert TICK_S <= ALLOWED_S / 2
