"""Wall clocks that jump by an hour, by a day and back open no quota's period twice and skip none (M9).

Two processes' counters on one Redis, each with a wall clock of its own that jumps between and during calls.
A call's period is that of the moment it began at, as on the ledger; so each counter must be the ledger's sum.
That nobody asks Redis for the time, and that windows go by the machine's steady clock, is shown in
`tests/gateway/relay/test_redis_counters.py`.
"""

import random
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from accounts.caller import Owner, Quota, RateLimit
from gateway.relay.holdings import Survey
from gateway.relay.limits import Admitted, Ask, QuotaAsk, RateAsk, Spent, counter_of
from gateway.relay.redis_counters import RedisCounters

HOUR_S, DAY_S = 3600, 86_400
JUMPS_S = (HOUR_S, -HOUR_S, DAY_S, -DAY_S)
START_S = int(datetime(2026, 2, 28, 23, 0, tzinfo=UTC).timestamp())
"""An hour before a day and a month end."""
PLENTY = 10**12
OWNER = Owner("key", 7, "prod")
DAYS = Quota(1, OWNER, "tokens", PLENTY, "day", "UTC", True, ())
MONTHS = Quota(2, OWNER, "tokens", PLENTY, "month", "UTC", True, ())
LIMIT = RateLimit(3, OWNER, "requests", 10, "")


@dataclass
class Clocks:
    """A machine's steady clock, and a wall clock that anybody may set."""

    steady_s: float = 1000.0
    wall_s: float = START_S

    def advance(self, seconds: float) -> None:
        self.steady_s += seconds
        self.wall_s += seconds


@dataclass
class Ledger:
    """Tokens of settled calls, by the counter of the period they began in."""

    sums: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    async def survey(self, wanted) -> Survey:
        return Survey({each.counter: self.sums[each.counter] for each in wanted or ()})

    def book(self, started_at_us: int, tokens: int) -> None:
        for quota in (DAYS, MONTHS):
            name, start_us, end_us = counter_of(quota, started_at_us)
            assert start_us <= started_at_us < end_us
            self.sums[name] += tokens


def asking(call_id: str, started_at_us: int, tokens: int) -> Ask:
    found = []
    for quota in (DAYS, MONTHS):
        name, _, end_us = counter_of(quota, started_at_us)
        found.append(QuotaAsk(quota, name, tokens, end_us))
    return Ask(call_id, 10_000.0, (), tuple(found))


async def opened(redis, name: str, clocks: Clocks, ledger: Ledger) -> RedisCounters:
    found = RedisCounters(
        redis.url,
        name,
        survey=ledger.survey,
        share=lambda: (0, 2),
        clock=lambda: clocks.steady_s,
        wall_clock=lambda: clocks.wall_s,
        timeout_s=5.0,  # which a busy machine keeps
    )
    await found.open()
    return found


@pytest.mark.parametrize("seed", range(5))
async def test_every_period_counts_what_began_in_it_however_the_clock_jumps(redis, seed):
    picks, clocks, ledger = random.Random(seed), Clocks(), Ledger()
    processes = [await opened(redis, name, clocks, ledger) for name in ("one", "two")]
    under_way: list[tuple[str, int, int]] = []
    by_end = Ledger()
    for number in range(300):
        clocks.advance(picks.uniform(0, 30))
        if number % 10 == 0:
            clocks.wall_s += picks.choice(JUMPS_S)
        if under_way and picks.random() < 0.5:
            call_id, started_at_us, tokens = under_way.pop(picks.randrange(len(under_way)))
            used = picks.randrange(tokens + 1)
            ledger.book(started_at_us, used)
            by_end.book(int(clocks.wall_s * 1e6), used)
            picks.choice(processes).settle(call_id, Spent(used))
        else:
            started_at_us, tokens = int(clocks.wall_s * 1e6), picks.randint(1, 1000)
            call_id = f"call-{number}"
            answer = await picks.choice(processes).admit(asking(call_id, started_at_us, tokens))
            assert isinstance(answer, Admitted)
            under_way.append((call_id, started_at_us, tokens))
    for call_id, started_at_us, tokens in under_way:
        ledger.book(started_at_us, tokens)
        by_end.book(int(clocks.wall_s * 1e6), tokens)
        processes[0].settle(call_id, Spent(tokens))
    for each in processes:
        await each.figures([])  # what was to be told of ends is told

    names = list(ledger.sums)
    counted = await processes[1].figures(names)
    for each in processes:
        await each.close()

    assert len(names) >= 4, "no clock jumped into another period"
    assert {name: each.spent for name, each in counted.items()} == dict(ledger.sums)
    assert [each for each in counted.values() if each.held or each.expired] == []
    # The same calls by the moment of their end, as a counter without the start in its name would have them.
    assert by_end.sums != ledger.sums


async def test_a_rate_limit_lets_in_nothing_extra_however_the_clock_jumps(redis):
    clocks, ledger = Clocks(), Ledger()
    processes = [await opened(redis, name, clocks, ledger) for name in ("one", "two")]
    let_in = []
    for number in range(480):
        clocks.advance(0.25)
        clocks.wall_s += JUMPS_S[number % len(JUMPS_S)]
        answer = await processes[number % 2].admit(Ask(f"call-{number}", 60.0, (RateAsk(LIMIT, 1),)))
        if isinstance(answer, Admitted):
            let_in.append(clocks.steady_s)
    for each in processes:
        await each.close()

    in_a_minute = max(sum(at <= each < at + 60 for each in let_in) for at in let_in)
    assert in_a_minute == LIMIT.amount
    assert len(let_in) > LIMIT.amount, "two minutes passed, and places came back in only one"
