"""Admission and settlement by themselves: the calls are real ones, and all of them are counted."""

import pytest

from benchmarks.configured import CALL_NANOS, LIMITED
from benchmarks.counters import CALLS, TIMEOUT_S, Round, nothing_spent
from gateway.relay.counters import LocalCounters
from gateway.relay.limits import counter_of, rate_counter
from gateway.relay.redis_counters import RedisCounters
from tests.redis import running_redis


@pytest.fixture(params=["in process", "in Redis"])
async def counters(request):
    if request.param == "in process":
        local = LocalCounters(nothing_spent)
        yield local
        await local.close()
        return
    with running_redis() as server:
        shared = RedisCounters(
            server.url, "bench", survey=nothing_spent, share=lambda: (0, 1), timeout_s=TIMEOUT_S
        )
        await shared.open()
        yield shared
        await shared.close()


async def test_every_call_of_a_round_is_counted_against_every_limit_and_nothing_stays_held(counters):
    measured = Round(counters)
    quotas = [counter_of(each, measured.began_at_us)[0] for each in LIMITED.quotas]

    assert await measured.run(callers=64) > 0

    figures = await counters.figures(quotas)
    used = await counters.used(LIMITED.rate_limits)
    assert [(each.spent, each.held) for each in figures.values()] == [(CALLS * CALL_NANOS, 0)] * 2
    requests = [used[rate_counter(each)] for each in LIMITED.rate_limits if each.kind == "requests"]
    assert requests == [CALLS, CALLS]
