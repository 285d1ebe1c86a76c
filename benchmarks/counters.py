"""What it costs to let a call in and to count what it used: in this process, and in Redis.

    python -m benchmarks.counters

Prints CPU time in microseconds a call. Measured are what a call needs of quotas, what it asks of four rate
limits and two hard quotas, the answer, and the settlement. It ends as soon as it is let in: books, route and
provider are left out.
"""

import asyncio
import shutil
import time
from collections.abc import Sequence
from typing import Final

import msgspec
import uvloop

from benchmarks.configured import CALL_NANOS, LIMITED, PRICE
from benchmarks.figures import Figure
from benchmarks.processes import CannotMeasure, Cores, cpu_s, on_core, two_cores
from benchmarks.wire import MODEL_NAME, USAGE, Wanted, request
from gateway.relay import routing
from gateway.relay.admission import ask_of, need_of, weigh
from gateway.relay.call import Call, new_call_id, understand
from gateway.relay.catalog import Catalog, Route, Target
from gateway.relay.counters import LocalCounters
from gateway.relay.holdings import Survey
from gateway.relay.limits import Admitted, QuotaAsk, Spent
from gateway.relay.ports import Counters
from gateway.relay.redis_counters import RedisCounters
from tests.redis import RunningRedis, running_redis

CALLERS: Final = 64
CALLS: Final = 6_400
"""A round, some tenths of a second."""
LIVES_S: Final = 600.0
TIMEOUT_S: Final = 10.0
"""Longer than a call waits: on a busy machine the run must not fail because Redis was not given the core."""
CATALOG: Final = Catalog(
    {
        MODEL_NAME: Route(
            MODEL_NAME,
            (Target(1, "bench", "http://upstream/v1", MODEL_NAME, None, prices=(PRICE,)),),
        )
    }
)
SPENT: Final = Spent(USAGE["total_tokens"], CALL_NANOS)


async def nothing_spent(wanted: Sequence[QuotaAsk] | None) -> Survey:
    """The ledger of a house that has just been built."""
    return Survey({each.counter: 0 for each in wanted or ()})


def calls() -> list[Call]:
    """As many as a round has; they differ in their ids."""
    body = request(Wanted(), 8000, "pst_any").partition(b"\r\n\r\n")[2]
    one = understand(body, began=0.0)
    return [msgspec.structs.replace(one, call_id=new_call_id(time.time_ns())) for _ in range(CALLS)]


class Round:
    """So many callers who share the calls of one round."""

    def __init__(self, counters: Counters) -> None:
        self._counters, self._calls = counters, calls()
        self.began_at_us = self._calls[0].started_at_us
        self._plan = routing.plan(self._calls[0], LIMITED, CATALOG, self.began_at_us, lambda: 0.0)

    async def run(self, callers: int) -> float:
        """CPU time of this process for one call, in microseconds."""
        began = time.process_time()
        await asyncio.gather(*[self._caller() for _ in range(callers)])
        return (time.process_time() - began) / CALLS * 1e6

    async def _caller(self) -> None:
        counters, plan = self._counters, self._plan
        while self._calls:
            call = self._calls.pop()
            ask = ask_of(call, LIMITED, plan, need_of(call, plan, weigh(plan, plan.steps[0])), LIVES_S)
            answer = counters.admit_now(ask) or await counters.admit(ask)
            assert isinstance(answer, Admitted)
            counters.settle(call.call_id, SPENT)


async def _rounds(counters: Counters, callers: int, rounds: int) -> list[float]:
    """The first round, which makes the counters, is not counted."""
    await Round(counters).run(callers)
    return [await Round(counters).run(callers) for _ in range(rounds)]


async def in_process(rounds: int) -> tuple[Figure, ...]:
    found = await _rounds(LocalCounters(nothing_spent), CALLERS, rounds)
    return (Figure("CPU of admission and settlement, counted in process", "µs", tuple(found), 15),)


async def in_redis(server: RunningRedis, rounds: int) -> tuple[Figure, ...]:
    """Of this process, with many callers and with one; and of Redis itself."""
    assert server.process is not None
    counters = RedisCounters(
        server.url, "bench", survey=nothing_spent, share=lambda: (0, 1), timeout_s=TIMEOUT_S
    )
    await counters.open()
    before = cpu_s(server.process.pid)
    many = await _rounds(counters, CALLERS, rounds)
    its_us = (cpu_s(server.process.pid) - before) / (CALLS * (rounds + 1)) * 1e6
    alone = await _rounds(counters, 1, rounds)
    await counters.close()
    what = "CPU of admission and settlement, counted in Redis"
    return (
        Figure(f"{what}, {CALLERS} callers", "µs", tuple(many), 80),
        Figure(f"{what}, one caller", "µs", tuple(alone)),
        Figure(f"CPU of Redis itself for a call, {CALLERS} callers", "µs", (its_us,)),
    )


def measure(cores: Cores, rounds: int) -> tuple[Figure, ...]:
    """Raises CannotMeasure. This process works on one core, Redis on the other."""
    if shutil.which("redis-server") is None:
        raise CannotMeasure("The benchmark needs redis-server: Debian's package of that name has it.")
    with on_core(cores.tested):
        found = uvloop.run(in_process(rounds))
    with on_core(cores.other), running_redis() as server, on_core(cores.tested):
        return found + uvloop.run(in_redis(server, rounds))


def main() -> None:
    for each in measure(two_cores(), rounds=5):
        values = ", ".join(f"{value:.1f}" for value in each.values)
        print(f"{each.what}: {each.median:.1f} us a call ({values})")


if __name__ == "__main__":
    main()
