"""Counters in a real Redis, shared by several processes of one machine."""

import asyncio
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

import pytest
from msgspec import structs

from accounts.caller import Quota
from gateway.errors import Unavailable
from gateway.relay.counters import LocalCounters
from gateway.relay.holdings import OpenHold, Survey
from gateway.relay.limits import Admitted, Ask, Exceeded, Figures, QuotaAsk, Spent
from gateway.relay.redis_counters import RedisCounters, steady_s
from gateway.relay.redis_scripts import ENROL, SETTLE, encode, quota_row, rate_row, script
from gateway.relay.redis_trips import ENDS_KEPT
from tests.gateway.relay.counters_contract import (
    LIVES_S,
    NOON_US,
    TEAM,
    Clock,
    CountersContract,
    Ledger,
    MakeCounters,
    admitted,
    asking,
    at_once,
    budget,
    counter,
    figures_of,
    refused,
    requests,
    tokens,
    used_of,
)
from tests.redis import RunningRedis, running_redis


@pytest.fixture(scope="module")
def server() -> Iterator[RunningRedis]:
    with running_redis() as running:
        yield running


@pytest.fixture
def redis(server: RunningRedis) -> RunningRedis:
    """Empty."""
    with server.client() as client:
        client.flushall()
    return server


class TestTheContract(CountersContract):
    @pytest.fixture
    def make(self, redis: RunningRedis) -> MakeCounters:
        @asynccontextmanager
        async def opened(*, clock: Clock, ledger: Ledger) -> AsyncIterator[RedisCounters]:
            counters = RedisCounters(
                redis.url,
                "one",
                survey=ledger.survey,
                share=lambda: (0, 1),
                clock=clock,
                wall_clock=clock.wall,
                timeout_s=5.0,  # which a busy machine keeps
                patience_s=10.0,
            )
            await counters.open()
            try:
                yield counters
            finally:
                await counters.close()

        return opened


class Books:
    """The ledger and the journals, as a survey tells of them; keeps who was open while Redis lost it."""

    def __init__(self) -> None:
        self.spent: dict[str, int] = {}
        self.open: list[OpenHold] = []
        self.asked: list[Sequence[QuotaAsk] | None] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.away = False

    async def survey(self, wanted: Sequence[QuotaAsk] | None) -> Survey:
        self.asked.append(wanted)
        found = Survey(dict(self.spent), tuple(self.open))
        await self.may_answer.wait()
        if self.away:
            raise ConnectionError("the database is away")
        return found


@dataclass
class Machine:
    """Processes that share one Redis and one steady clock."""

    redis: RunningRedis
    books: Books = field(default_factory=Books)
    clock: Clock = field(default_factory=Clock)
    processes: dict[str, RedisCounters] = field(default_factory=dict)
    boot: str = "first"

    async def process(self, name: str = "one", *, url: str = "", timeout_s: float = 5.0) -> RedisCounters:
        """With a timeout that a busy machine keeps, but where the waiting itself is tried."""
        found = RedisCounters(
            url or self.redis.url,
            name,
            survey=self.books.survey,
            share=lambda: (list(self.processes).index(name), len(self.processes)),
            clock=self.clock,
            wall_clock=self.clock.wall,
            boot=self.boot,
            timeout_s=timeout_s,
            patience_s=10.0,
        )
        await found.open()
        self.processes[name] = found
        return found

    async def restart_redis(self) -> None:
        """It forgets everything."""
        self.redis.kill()
        for each in self.processes.values():
            await until(lambda each=each: each.away)
        await asyncio.to_thread(self.redis.start)
        await self.back()

    async def back(self) -> None:
        for each in self.processes.values():
            await until(lambda each=each: not each.away)


async def until(true: Callable[[], bool], deadline_s: float = 20.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not true():  # noqa: ASYNC110 - any condition
            await asyncio.sleep(0.01)


@pytest.fixture
async def machine(redis: RunningRedis) -> AsyncIterator[Machine]:
    found = Machine(redis)
    yield found
    for each in found.processes.values():
        await each.close()


@pytest.fixture
def own_redis() -> Iterator[RunningRedis]:
    """One that may be killed and frozen."""
    with running_redis() as running:
        yield running


@pytest.fixture
async def fragile(own_redis: RunningRedis) -> AsyncIterator[Machine]:
    found = Machine(own_redis)
    yield found
    own_redis.thaw()
    for each in found.processes.values():
        await each.close()


def held_open(ask: Ask, process: str = "one") -> list[OpenHold]:
    """As the journal tells of a call under way."""
    expires_at_us = NOON_US + int(ask.lives_s * 1e6)
    return [OpenHold(ask.call_id, process, each.counter, each.amount, expires_at_us) for each in ask.quotas]


class TestSeveralProcesses:
    async def test_a_thousand_calls_offered_at_once_to_four_share_one_limit(self, machine: Machine) -> None:
        limit = requests(100)
        four = [await machine.process(name) for name in ("one", "two", "three", "four")]

        answers = await asyncio.gather(*(four[at % 4].admit(asking(limit)) for at in range(1000)))

        assert sum(isinstance(each, Admitted) for each in answers) == 100

    async def test_no_minute_has_more_than_the_limit_and_almost_as_many_are_let_in(
        self, machine: Machine
    ) -> None:
        limit = requests(100)
        two = [await machine.process("one"), await machine.process("two")]
        let_in: list[float] = []
        for step in range(300):
            answers = await asyncio.gather(*(two[at % 2].admit(asking(limit)) for at in range(30)))
            let_in += [machine.clock()] * sum(isinstance(each, Admitted) for each in answers)
            machine.clock.advance(0.5 + 0.001 * (step % 3))
        lasted_s = machine.clock() - 1000.0

        most = max(sum(at <= each < at + 60.0 for each in let_in) for at in let_in)
        assert most == 100
        assert len(let_in) / (lasted_s / 60.0) >= 98

    async def test_a_hard_quota_is_never_overshot(self, machine: Machine) -> None:
        quota = budget(100)
        four = [await machine.process(name) for name in ("one", "two", "three", "four")]

        async def carry(at: int) -> int:
            """What it cost; -1 where it was refused."""
            ask = asking(quota, amount=5)
            answer = await four[at % 4].admit(ask)
            if isinstance(answer, Exceeded):
                return -1
            four[(at + 1) % 4].settle(ask.call_id, Spent(cost_nanos=at % 6))
            return at % 6

        spent = 0
        while max(costs := await asyncio.gather(*(carry(at) for at in range(100)))) >= 0:
            spent += sum(max(0, each) for each in costs)
            for each in four:
                await each.figures([])  # after all that it settled

        assert 95 < spent <= 100
        assert await figures_of(four[0], quota) == Figures(spent=spent)

    async def test_a_counter_that_all_miss_is_surveyed_once(self, machine: Machine) -> None:
        quota = budget(100)
        four = [await machine.process(name) for name in ("one", "two", "three", "four")]
        machine.books.spent = {counter(quota): 80}

        answers = await asyncio.gather(*(four[at % 4].admit(asking(quota, amount=5)) for at in range(40)))

        assert sum(isinstance(each, Admitted) for each in answers) == 4
        assert [each and [ask.counter for ask in each] for each in machine.books.asked] == [
            None,
            [counter(quota)],
        ]


class TestMakingCounters:
    async def test_a_restarted_redis_is_told_of_what_was_spent_and_is_held(self, fragile: Machine) -> None:
        one, two = await fragile.process("one"), await fragile.process("two")
        quota = budget(100)
        ask = asking(quota, amount=30)
        await admitted(one, ask)
        fragile.books.spent = {counter(quota): 50}
        fragile.books.open = held_open(ask)

        await fragile.restart_redis()

        exceeded = await refused(two, asking(quota, amount=21))
        assert (exceeded.used, exceeded.held) == (50, 30)
        one.settle(ask.call_id, Spent(cost_nanos=7))
        assert await figures_of(one, quota) == Figures(spent=57)

    async def test_what_ended_while_redis_was_away_is_counted_when_it_is_back(self, fragile: Machine) -> None:
        one = await fragile.process()
        quota = budget(100)
        ended, going_on = asking(quota, amount=30), asking(quota, amount=20)
        await admitted(one, ended)
        await admitted(one, going_on)
        fragile.redis.freeze()
        one.settle(ended.call_id, Spent(cost_nanos=7))
        fragile.redis.thaw()

        assert await figures_of(one, quota) == Figures(spent=7, held=20)

    async def test_a_call_that_ends_while_counters_are_made_is_counted_once(self, fragile: Machine) -> None:
        one = await fragile.process()
        quota = budget(100)
        ask, released = asking(quota, amount=30), asking(quota, amount=20)
        await admitted(one, ask)
        await admitted(one, released)
        fragile.books.open = [*held_open(ask), *held_open(released)]
        fragile.books.may_answer.clear()

        await fragile.restart_redis()
        await until(lambda: len(fragile.books.asked) == 3)
        one.settle(ask.call_id, Spent(cost_nanos=7))
        one.release(released.call_id)
        assert await figures_of(one, quota) is None
        fragile.books.may_answer.set()

        await admitted(one, asking(quota, amount=1))
        assert await figures_of(one, quota) == Figures(spent=7, held=1)

    async def test_whoever_makes_counters_and_dies_holds_nobody_up_for_good(self, machine: Machine) -> None:
        with machine.redis.client() as client:
            client.set("pst:making", "a process that is dead", px=300)
        one = await machine.process()

        await admitted(one, asking(budget(100)))

    async def test_an_epoch_that_is_taken_away_makes_the_counters_anew(self, machine: Machine) -> None:
        one = await machine.process()
        quota = budget(100)
        ask, unseen = asking(quota, amount=30), asking(quota, amount=9)
        await admitted(one, ask)
        await admitted(one, unseen)
        machine.books.open = held_open(ask)
        machine.books.spent = {counter(quota): 11}
        with machine.redis.client() as client:
            client.delete("pst:epoch")

        await admitted(one, asking(quota, amount=1))
        assert await figures_of(one, quota) == Figures(spent=11, held=31)
        one.settle(unseen.call_id, Spent(cost_nanos=9))  # the survey knew it as ended
        one.settle(ask.call_id, Spent(cost_nanos=2))
        assert await figures_of(one, quota) == Figures(spent=13, held=1)

    async def test_while_the_books_do_not_answer_hard_quotas_refuse_within_the_time(
        self, machine: Machine
    ) -> None:
        machine.books.may_answer.clear()
        one = await machine.process(timeout_s=0.25)

        with pytest.raises(Unavailable) as refusal:
            await one.admit(asking(budget(100)))
        assert refusal.value.retry_after_s == 1.0
        await admitted(one, asking(budget(100, hard=False), requests(5)))
        machine.books.may_answer.set()

    async def test_a_survey_that_failed_is_not_asked_for_again_at_once(self, machine: Machine) -> None:
        machine.books.away = True
        one = await machine.process()
        for _ in range(3):
            with pytest.raises(Unavailable):
                await one.admit(asking(budget(100)))
        assert len(machine.books.asked) == 1

        machine.books.away = False
        machine.clock.advance(1.5)

        await admitted(one, asking(budget(100)))

    async def test_many_counters_are_made_in_parts(self, machine: Machine) -> None:
        quotas = [budget(100) for _ in range(1200)]
        machine.books.spent = {counter(each): at % 90 for at, each in enumerate(quotas)}
        one = await machine.process()

        await admitted(one, asking(quotas[-1]))

        found = await one.figures([counter(each) for each in quotas[:-1]])
        assert [each.spent for each in found.values()] == [at % 90 for at in range(1199)]
        assert machine.books.asked == [None]


class TestAway:
    async def test_no_call_waits_twice_for_a_redis_that_is_frozen(self, fragile: Machine) -> None:
        one = await fragile.process(timeout_s=1.0)
        limit, quota = requests(100), budget(100)
        await admitted(one, asking(quota))
        fragile.redis.freeze()

        first = await one.admit(asking(limit))
        assert isinstance(first, Admitted)
        assert one.away
        answers = [one.admit(asking(limit)) for _ in range(150)]
        ended = [await each for each in answers]  # none of them waits, so this ends
        assert sum(isinstance(each, Admitted) for each in ended) == 99
        with pytest.raises(Unavailable) as refusal:
            await one.admit(asking(quota))
        assert refusal.value.retry_after_s == 1.0
        fragile.redis.thaw()
        await fragile.back()
        await admitted(one, asking(quota))

    async def test_a_process_that_was_late_itself_does_not_hurry_redis(self, machine: Machine) -> None:
        one = await machine.process(timeout_s=1.0)
        call = asyncio.ensure_future(one.admit(asking(requests(100))))
        await asyncio.sleep(0)
        time.sleep(1.0)  # noqa: ASYNC251 - this is what makes the process late, before Redis was asked
        while not one._trips._sent.asks:  # noqa: ASYNC110 - the next turn sends it
            await asyncio.sleep(0)

        assert one._trips._timer is not None
        left_s = one._trips._timer.when() - asyncio.get_running_loop().time()

        assert left_s > 0.5  # and the last quarter after that
        assert isinstance(await call, Admitted)

    async def test_processes_share_a_limit_while_redis_is_away(self, fragile: Machine) -> None:
        three = [await fragile.process(name) for name in ("one", "two", "three")]
        fragile.redis.kill()
        for each in three:
            await until(lambda each=each: each.away)
        limit = requests(100)

        answers = await asyncio.gather(*(three[at % 3].admit(asking(limit)) for at in range(300)))

        assert sum(isinstance(each, Admitted) for each in answers) == 100
        await asyncio.to_thread(fragile.redis.start)

    async def test_what_was_let_in_meanwhile_is_counted_when_redis_is_back(self, fragile: Machine) -> None:
        one = await fragile.process(timeout_s=1.0)
        limit, place, quota = tokens(100), at_once(2), budget(100, hard=False)
        await admitted(one, asking(quota, amount=10))
        fragile.redis.freeze()
        ended, going_on = asking(limit, place, quota, amount=30), asking(limit, place, quota, amount=20)
        await admitted(one, ended)
        await admitted(one, going_on)
        one.settle(ended.call_id, Spent(tokens=5, cost_nanos=7))
        fragile.redis.thaw()
        await fragile.back()

        assert await figures_of(one, quota) == Figures(spent=7, held=30)
        assert [await used_of(one, each) for each in (limit, place)] == [25, 1]
        one.settle(going_on.call_id, Spent(tokens=4, cost_nanos=1))
        assert await figures_of(one, quota) == Figures(spent=8, held=10)
        assert [await used_of(one, each) for each in (limit, place)] == [9, 0]

    async def test_a_frozen_redis_that_runs_our_script_late_leaves_no_leak(self, fragile: Machine) -> None:
        one = await fragile.process(timeout_s=1.0)
        quota, limit = budget(100, hard=False), tokens(100)
        call_id = await admitted(one, asking(quota, amount=10))
        fragile.redis.freeze()
        hard = asking(budget(100), amount=10)
        further = asking(quota, limit, amount=20, call_id=call_id)

        answers = await asyncio.gather(one.admit(hard), one.admit(further), return_exceptions=True)
        assert isinstance(answers[0], Unavailable)
        assert isinstance(answers[1], Admitted)
        fragile.redis.thaw()
        await fragile.back()

        assert await figures_of(one, quota) == Figures(held=30)
        assert await used_of(one, limit) == 20
        one.settle(call_id, Spent(tokens=3, cost_nanos=4))
        assert await figures_of(one, quota) == Figures(spent=4)
        assert await used_of(one, limit) == 3
        assert await figures_of(one, hard.quotas[0].quota) in (None, Figures())

    async def test_it_may_be_away_from_the_beginning(self, fragile: Machine) -> None:
        fragile.redis.kill()
        one = await fragile.process()
        assert one.away

        await asyncio.to_thread(fragile.redis.start)
        await fragile.back()

        await admitted(one, asking(budget(100)))

    async def test_ends_beyond_the_bound_are_dropped_and_it_is_said(
        self, fragile: Machine, caplog: pytest.LogCaptureFixture
    ) -> None:
        one = await fragile.process()
        fragile.redis.kill()
        await until(lambda: one.away)

        for number in range(ENDS_KEPT + 5):
            one.settle(f"call-{number}", Spent())

        assert one.unsent == ENDS_KEPT
        assert sum("dropped" in each.message for each in caplog.records) == 1
        await asyncio.to_thread(fragile.redis.start)
        await fragile.back()
        await one.figures([])
        assert one.unsent == 0


class TestLostReplies:
    async def test_an_answer_that_is_lost_leaves_nothing_held_and_no_end_uncounted(
        self, machine: Machine
    ) -> None:
        async with losing(machine.redis) as wire:
            one = await machine.process(url=wire.url, timeout_s=1.0)
            quota = budget(100)
            call_id = await admitted(one, asking(quota, amount=30))

            wire.losing = True
            one.settle(call_id, Spent(cost_nanos=7))
            with pytest.raises(Unavailable):
                await one.admit(asking(quota, amount=20))
            assert wire.lost > 0
            wire.losing = False
            await machine.back()

            assert await figures_of(one, quota) == Figures(spent=7)

    async def test_an_end_that_never_arrived_is_sent_again(self, machine: Machine) -> None:
        async with losing(machine.redis) as wire:
            one = await machine.process(url=wire.url, timeout_s=1.0)
            quota = budget(100)
            call_id = await admitted(one, asking(quota, amount=30))

            wire.deaf = True
            one.settle(call_id, Spent(cost_nanos=7))
            await until(lambda: wire.lost > 0 and one.away)
            wire.deaf = False
            await machine.back()

            assert await figures_of(one, quota) == Figures(spent=7)

    async def test_what_was_let_in_alone_and_is_told_twice_counts_once(self, machine: Machine) -> None:
        one = await machine.process()
        quota, limit = budget(100), tokens(100)
        await admitted(one, asking(quota))
        ask = asking(quota, limit, amount=30)
        with machine.redis.client() as client:
            epoch = client.get("pst:epoch").decode()
            rows = [rate_row(each) for each in ask.rates], [quota_row(each) for each in ask.quotas]
            enrolled = (ENROL, ask.call_id, 1, "one", epoch, machine.clock(), LIVES_S, *rows)
            ends = [enrolled, (SETTLE, ask.call_id, 5, 0, 7)]

            for _ in range(2):
                client.eval(script("settle"), 0, encode((machine.clock(), machine.boot, ends)))
                client.eval(script("settle"), 0, encode((machine.clock(), machine.boot, ends[:1])))

        assert await figures_of(one, quota) == Figures(spent=7, held=1)
        assert await used_of(one, limit) == 5

    async def test_a_call_that_gives_up_waiting_holds_nothing(self, machine: Machine) -> None:
        one = await machine.process()
        quota, limit = budget(100), requests(10)
        await admitted(one, asking(quota))
        ask = asking(quota, limit, amount=50)
        task = asyncio.create_task(one.admit(ask))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        await one.figures([])
        assert await figures_of(one, quota) == Figures(held=1)
        assert await used_of(one, limit) == 0


class TestAdoption:
    async def test_a_dead_processs_calls_are_settled_and_all_else_of_it_is_given_back(
        self, machine: Machine
    ) -> None:
        dead, heir = await machine.process("dead"), await machine.process("heir")
        quota, limit, place = budget(1000), tokens(1000), at_once(10)
        abandoned, never_sent = asking(quota, limit, place, amount=30), asking(quota, limit, place, amount=20)
        long_ago, of_heir = asking(quota, amount=40, lives_s=5.0), asking(quota, limit, place, amount=3)
        for ask in (abandoned, never_sent, long_ago):
            await admitted(dead, ask)
        await admitted(heir, of_heir)
        machine.clock.advance(6.0)
        assert await figures_of(heir, quota) == Figures(held=53, expired=40)

        for _ in range(2):
            await asyncio.to_thread(heir.adopt, "dead", [(abandoned.call_id, Spent(25, 12))])

        assert await figures_of(heir, quota) == Figures(spent=12, held=3)
        assert [await used_of(heir, each) for each in (limit, place)] == [28, 1]

    async def test_what_the_dead_process_had_sent_is_not_admitted_after_it(self, machine: Machine) -> None:
        dead, heir = await machine.process("dead"), await machine.process("heir")
        await asyncio.to_thread(heir.adopt, "dead", [])
        limit = requests(5)

        await dead.admit(asking(limit))  # it finds itself away, and says so by answering alone

        assert await used_of(heir, limit) == 0

    async def test_adoption_fails_while_redis_is_away_and_may_be_tried_again(self, fragile: Machine) -> None:
        heir = await fragile.process("heir")
        fragile.redis.kill()

        with pytest.raises(Unavailable):
            await asyncio.to_thread(heir.adopt, "dead", [])

        await asyncio.to_thread(fragile.redis.start)
        await asyncio.to_thread(heir.adopt, "dead", [])


class TestClocks:
    async def test_processes_that_start_after_the_machine_did_go_on_where_it_was(
        self, machine: Machine
    ) -> None:
        before = await machine.process("before")
        limit = requests(1)
        await admitted(before, asking(limit))

        await machine.processes.pop("before").close()
        machine.clock.now_s, machine.boot = 10.0, "second"
        after = await machine.process("after")
        await refused(after, asking(limit))
        machine.clock.advance(59.0)
        await refused(after, asking(limit))
        machine.clock.advance(2.0)
        await admitted(after, asking(limit))

    async def test_a_moment_that_arrives_late_does_not_turn_time_back(self, machine: Machine) -> None:
        one = await machine.process("one")
        limit = requests(1)
        machine.clock.advance(30.0)
        await admitted(one, asking(limit))

        machine.clock.advance(-20.0)
        exceeded = await refused(one, asking(limit))
        assert 60.0 <= exceeded.retry_after_s <= 61.0
        machine.clock.advance(20.0 + exceeded.retry_after_s)
        await admitted(one, asking(limit))

    async def test_everything_in_redis_ends_and_outlives_a_wall_clock_that_jumps_by_a_day(
        self, machine: Machine
    ) -> None:
        one = await machine.process()
        bounds = requests(9), tokens(900), at_once(9), budget(900)
        for amount in (1, 2, 3):
            call_id = await admitted(one, asking(*bounds, amount=amount, lives_s=5.0 if amount == 3 else 60))
        machine.clock.advance(6.0)
        assert await figures_of(one, budget(1)) is None
        one.settle(call_id, Spent())
        await one.figures([])

        with machine.redis.client() as client:
            left_s = {key.decode(): client.ttl(key) for key in client.keys("*")}

        assert all(key.startswith("pst:") for key in left_s)
        assert len(left_s) >= 9
        day_s, month_s = 86_400, 31 * 86_400
        assert {key: ttl for key, ttl in left_s.items() if not 2 * day_s < ttl < 2 * month_s} == {}

    @pytest.mark.parametrize("name", ["admit", "settle", "build", "look"])
    def test_no_script_asks_redis_for_the_time(self, name: str) -> None:
        assert not re.search(r"call\(\s*['\"]time", script(name), re.IGNORECASE)

    def test_the_steady_clock_is_that_of_the_machine(self) -> None:
        first = steady_s()
        told = subprocess.run(
            [sys.executable, "-c", "from gateway.relay.redis_counters import steady_s; print(steady_s())"],
            capture_output=True,
            check=True,
        )

        assert first < float(told.stdout) < steady_s()


class TestBesideCountersInProcess:
    @pytest.mark.parametrize("seed", range(10))
    async def test_both_say_the_same_of_anything_that_calls_do(self, machine: Machine, seed: int) -> None:
        random = Random(seed)
        ledger = Ledger()
        local = LocalCounters(ledger.survey, clock=machine.clock, wall_clock=machine.clock.wall)
        shared = await machine.process()
        bounds = (requests(9), requests(15, TEAM), tokens(400), at_once(4), budget(500), budget(900, TEAM))
        calls: list[str] = []
        for _ in range(400):
            what = random.choice(["ask", "ask", "ask", "further", "settle", "settle", "release", "wait"])
            call_id = random.choice(calls) if calls else None
            if what in ("ask", "further"):
                some = random.sample(bounds, random.randint(1, 6))
                ask = asking(*some, amount=random.randint(1, 120), lives_s=1e6)
                if what == "further" and call_id:
                    ask = structs.replace(ask, call_id=call_id)
                answer = await local.admit(ask)
                assert await shared.admit(ask) == answer
                if isinstance(answer, Admitted) and ask.call_id not in calls:
                    calls.append(ask.call_id)
            elif what == "wait":
                machine.clock.advance(random.choice([0.25, 1.0, 7.5, 20.0]))  # no window is idle for long
            elif call_id:
                spent = Spent(random.randint(0, 150), random.randint(0, 150))
                for each in (local, shared):
                    each.settle(call_id, spent) if what == "settle" else each.release(call_id)
                if random.random() < 0.9:
                    calls.remove(call_id)
        for each in bounds:
            if isinstance(each, Quota):
                assert await figures_of(shared, each) == await figures_of(local, each)
            else:
                assert await used_of(shared, each) == await used_of(local, each)
        await local.close()


class Losing:
    """Passes on to Redis all that is sent, and back what is answered, unless told to lose one of them."""

    def __init__(self, folder: str) -> None:
        self.socket = f"{folder}/wire.sock"
        self.losing = False
        """The answers."""
        self.deaf = False
        """To what is sent."""
        self.lost = 0

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"


@asynccontextmanager
async def losing(server: RunningRedis) -> AsyncIterator[Losing]:
    with tempfile.TemporaryDirectory(prefix="pst-wire-") as folder:
        wire, pumps = Losing(folder), set()

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: bool) -> None:
            while data := await reader.read(65536):
                if wire.losing if back else wire.deaf:
                    wire.lost += 1
                    continue
                writer.write(data)
                await writer.drain()
            writer.close()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, to = await asyncio.open_unix_connection(str(server.socket))
            both = [
                asyncio.ensure_future(forward(reader, to, False)),
                asyncio.ensure_future(forward(there, writer, True)),
            ]
            pumps.update(both)
            await asyncio.gather(*both, return_exceptions=True)
            for each in (writer, to):
                each.close()

        async with await asyncio.start_unix_server(connected, wire.socket):
            yield wire
        for each in pumps:
            each.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
