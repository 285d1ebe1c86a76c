"""The relay when much is asked of it at once, or when its provider is ill for long; real sockets, real time.

What the provider received stands in its own journal; the waits and attempts are those of the entries.
"""

import asyncio
import gc
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import msgspec
import pytest

from accounts.caller import Caller, Priority
from gateway import errors
from gateway.relay.breaker import POLICY as BREAKER
from gateway.relay.breaker import BreakerPolicy
from gateway.relay.call import Call
from gateway.relay.catalog import PoolConfig, Route, Secret, Target
from gateway.relay.lifeline import Cut
from gateway.relay.records import Settled
from gateway.relay.retry import POLICY as RETRY
from gateway.relay.retry import RetryPolicy
from gateway.simulator import Fault, RunningSimulator, Step, running_simulator
from tests.gateway.relay.carried import CREDENTIAL, PRICE, SOON, Client, House, call_to, house_of

MODEL_NAME = "gpt-4o-mini"
ALICE, BOB, CHARLIE = 1, 2, 3
"""Three teams; Alice's is the greedy one."""
URGENCIES: tuple[Priority, ...] = ("urgent", "normal", "batch")
PLACES = 10

Say = Callable[[str], None]


def target(base_url: str, number: int = 1, **fields: Any) -> Target:
    return Target(number, f"p{number}", base_url, "gpt-4o", Secret(CREDENTIAL), prices=(PRICE,), **fields)


def route(*targets: Target, **fields: Any) -> dict[str, Route]:
    return {MODEL_NAME: Route(MODEL_NAME, targets, **fields)}


async def until(holds: Callable[[], object], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110 - what is waited for knows nothing of tests
            await asyncio.sleep(0.005)


async def carry(home: House, call: Call, team_id: int = ALICE) -> errors.GatewayError | None:
    """Carry a call of a team; what its client was told, if it was no answer."""
    task = asyncio.current_task()
    assert task is not None
    line = home.lines.open(task, time.monotonic(), 120.0)
    try:
        await home.relay.carry(call, Caller(key_id=team_id, team_id=team_id), line, Client())
    except errors.GatewayError as why:
        return why
    finally:
        home.lines.close(line)
    return None


# --- The gate: 200 urgent, 200 normal and 200 batch calls on 10 places, three teams


def of_priority(priority: Priority, **fields: Any) -> Call:
    call = call_to(MODEL_NAME, **fields)
    call.priority = priority
    return call


async def crowd(
    upstream: RunningSimulator,
    folder: Path,
    each: dict[int, int],
    hold_s: float,
    priorities: Iterable[Priority] = URGENCIES,
) -> list[Settled]:
    """So many calls of each priority by each team, as fast as they can come; each takes the provider
    about `hold_s`."""
    rng = random.Random(3)
    calls = [(team, one) for team, count in each.items() for one in priorities for _ in range(count)]
    rng.shuffle(calls)
    upstream.script([Step(delay_s=rng.uniform(0.5, 1.5) * hold_s) for _ in calls])
    made = target(upstream.base_url, max_concurrency=PLACES)
    async with house_of(route(made), folder) as home:
        coming = []
        for team, one in calls:
            coming.append(asyncio.create_task(carry(home, of_priority(one), team)))
            await asyncio.sleep(0)  # or all that come would lengthen the stay of the first ten
        told = await asyncio.gather(*coming)
    assert told == [None] * len(calls)
    return home.books.entries


def waits_s(entries: Iterable[Settled], priority: Priority) -> list[float]:
    return [each.attempts[0].queued_us / 1e6 for each in entries if each.priority == priority]


def p95(values: list[float]) -> float:
    return quantiles(values, n=20)[-1]


def p99(values: list[float]) -> float:
    return quantiles(values, n=100)[-1]


def out_of_order(entries: list[Settled]) -> list[str]:
    """Where a more urgent call did not wait less than a less urgent one."""
    found = []
    for name, figure in (("median", median), ("p95", p95)):
        waits = [figure(waits_s(entries, each)) for each in URGENCIES]
        found += [f"{name} {waits}" for a, b in pairwise(waits) if a >= b]
    return found


def shares(entries: list[Settled]) -> dict[int, float]:
    """Of the place-seconds that were used while every team had a call in or waiting.

    Seven hundred calls do not all arrive at once, so it begins when the last team has its first place.
    """
    spans = [(each.team_id, each.attempts[0].started_at_us, each.attempts[0].latency_us) for each in entries]
    begins: dict[int, list[int]] = defaultdict(list)
    for team, began, _ in spans:
        begins[team].append(began)
    since, until = max(map(min, begins.values())), min(map(max, begins.values()))
    used: dict[int, int] = defaultdict(int)
    for team, began, lasted in spans:
        used[team] += max(0, min(began + lasted, until) - max(began, since))
    return {team: each / sum(used.values()) for team, each in used.items()}


async def test_urgent_calls_wait_less_than_normal_ones_and_those_less_than_batch(
    upstream: RunningSimulator, tmp_path: Path, say: Say
) -> None:
    entries = await crowd(upstream, tmp_path / "j", {ALICE: 67, BOB: 67, CHARLIE: 66}, 0.05)

    assert len(upstream.journal.received()) == len(entries) == 600
    assert out_of_order(entries) == []
    swapped = [replaced_priority(each) for each in entries]
    assert out_of_order(swapped) != []
    told = ", ".join(
        f"{each} {median(w):.2f} and {p95(w):.2f} s" for each in URGENCIES if (w := waits_s(entries, each))
    )
    say(f"Gate  600 calls on 10 places, waits at the median and p95: {told}")


def replaced_priority(entry: Settled) -> Settled:
    """Urgent for batch and the other way round: the plant for what must be seen as out of order."""
    return msgspec.structs.replace(entry, priority=URGENCIES[2 - URGENCIES.index(entry.priority)])


async def test_no_team_gets_more_than_its_share_by_asking_more(
    upstream: RunningSimulator, tmp_path: Path, say: Say
) -> None:
    each = {ALICE: 600, BOB: 60, CHARLIE: 60}
    found = shares(await crowd(upstream, tmp_path / "j", each, 0.05, ["normal"]))

    say(f"Gate  teams that ask 10, 1 and 1: shares {', '.join(f'{found[t]:.1%}' for t in sorted(found))}")
    assert [found[each] for each in (ALICE, BOB, CHARLIE)] == pytest.approx([1 / 3] * 3, abs=0.03)


@pytest.mark.prove
async def test_batch_calls_progress_under_a_lasting_overload_of_urgent_ones(
    upstream: RunningSimulator, tmp_path: Path, say: Say
) -> None:
    """Twenty clients keep ten places busy with urgent calls; batch ones are overdue after 30 s."""
    upstream.script([Step(delay_s=0.2, count=None)])
    made = target(upstream.base_url, max_concurrency=PLACES)
    async with house_of(route(made), tmp_path / "j") as home:
        over = asyncio.Event()

        async def urgent() -> None:
            while not over.is_set():
                assert await carry(home, of_priority("urgent"), ALICE) is None

        async with asyncio.TaskGroup() as clients:
            for _ in range(20):
                clients.create_task(urgent())
            batch = [clients.create_task(carry(home, of_priority("batch"), BOB)) for _ in range(100)]
            await asyncio.wait(batch, timeout=90)
            over.set()

    assert [each.result() for each in batch] == [None] * 100
    waits = {each: waits_s(home.books.entries, each) for each in URGENCIES}
    say(
        f"Gate  100 batch calls beside a lasting overload of urgent ones: the first after "
        f"{min(waits['batch']):.1f} s, the last after {max(waits['batch']):.1f} s; "
        f"urgent p95 {p95(waits['urgent']):.2f} s"
    )
    assert max(waits["batch"]) < 60


# --- Outages: how many attempts they cost, and what retries and a fallback win back


@dataclass
class Tally:
    """Calls at a rate, open loop: they come whatever became of the ones before."""

    home: House
    told: list[errors.GatewayError | None] = field(default_factory=list)

    async def at_a_rate(self, a_second: float, count: int, **fields: Any) -> None:
        began = time.monotonic()
        async with asyncio.TaskGroup() as calls:
            for number in range(count):
                await asyncio.sleep(max(0.0, began + number / a_second - time.monotonic()))
                calls.create_task(self._one(fields))

    async def _one(self, fields: dict[str, Any]) -> None:
        self.told.append(await carry(self.home, call_to(MODEL_NAME, **fields)))

    @property
    def success(self) -> float:
        return self.told.count(None) / len(self.told)

    def attempts(self, target_id: int) -> int:
        """By the books."""
        entries = self.home.books.entries
        return sum(each.target_id == target_id for entry in entries for each in entry.attempts)


@asynccontextmanager
async def nobody() -> AsyncIterator[str]:
    """An address at which nobody listens any more."""
    async with running_simulator() as gone:
        base_url = gone.base_url
    yield base_url


OUTAGES = {
    "5xx": Fault.SERVER_ERROR,
    "throttled": Fault.THROTTLED,
    "reset": Fault.RESET_BEFORE_HEADERS,
    "timeouts": Fault.SILENCE,
}


async def outage(
    kind: str, folder: Path, a_second: float, count: int, policy: BreakerPolicy = BREAKER
) -> tuple[int, int]:
    """A total outage, streamed calls: its attempts by the books and by the provider's journal.

    Retries are as at work. A silent provider is given up after 0.3 s, and its silence may be retried.
    """
    async with running_simulator(journal=folder / f"{kind}-{a_second}.jsonl") as upstream, nobody() as dead:
        upstream.script([Step(fault=OUTAGES.get(kind), count=None)])
        base_url = dead if kind == "refused" else upstream.base_url
        made = target(base_url, pool=PoolConfig(read_timeout_s=0.3 if kind == "timeouts" else 60.0))
        journal = folder / f"{kind}-{a_second}"
        async with house_of(route(made), journal, retry=RETRY, breaker=policy) as home:
            tally = Tally(home)
            await tally.at_a_rate(a_second, count, stream=True)
        assert tally.success == 0
        assert len(home.books.entries) == count
        return tally.attempts(1), len(upstream.journal.received())


def too_many(attempts: int, requests: int) -> bool:
    """More attempts than a total outage may cost."""
    return attempts > 1.10 * requests + 10


async def outages(folder: Path, a_second: float, seconds: float, policy: BreakerPolicy) -> list[str]:
    """Every kind at once; the figures in words."""
    count = int(a_second * seconds)
    kinds = ("refused", *OUTAGES)
    found = await asyncio.gather(*(outage(each, folder, a_second, count, policy) for each in kinds))
    for kind, (booked, received) in zip(kinds, found, strict=True):
        if kind == "timeouts":
            assert received <= booked  # the time may be over before the request is there
        else:
            assert received == (0 if kind == "refused" else booked)
        assert not too_many(booked, count), (kind, booked, count)
    told = ", ".join(f"{kind} {booked}" for kind, (booked, _) in zip(kinds, found, strict=True))
    return [f"{count} requests at {a_second:g}/s: {told} attempts"]


def test_the_bound_on_attempts_is_passed_by_a_relay_that_always_retries() -> None:
    assert too_many(3 * 100, 100)


async def test_a_total_outage_costs_few_attempts(tmp_path: Path, say: Say) -> None:
    told = await outages(tmp_path, 50, 3, BreakerPolicy(open_s=1.0))
    say(f"U2  {'; '.join(told)}; open for 1 s at a time")


async def test_the_retry_budget_alone_bounds_a_partial_outage(tmp_path: Path, say: Say) -> None:
    """A breaker that never opens: what is left is the budget, 0.4 of the calls and ten a second."""
    never = BreakerPolicy(consecutive=1_000_000, surely=1_000_000)
    began = time.monotonic()
    attempts, received = await outage("5xx", tmp_path, 100, 400, never)
    seconds = int(time.monotonic() - began) + 2  # of the clock, the first and the last in part

    say(f"U2  with the breaker out of the way: 400 requests at 100/s, {attempts} attempts")
    assert attempts == received
    assert 400 < attempts <= 400 * 1.4 + 10 * seconds


@pytest.mark.prove
@pytest.mark.parametrize("open_s", [BREAKER.open_s, 1.0])
async def test_a_total_outage_costs_few_attempts_at_every_rate(
    tmp_path: Path, say: Say, open_s: float
) -> None:
    for a_second in (1, 10, 100, 300):
        told = await outages(tmp_path, a_second, 20 if a_second < 300 else 5, BreakerPolicy(open_s=open_s))
        say(f"U2  {'; '.join(told)}; open for {open_s:g} s at a time")


def random_trouble(count: int, seed: int, share: float = 0.2) -> list[Step]:
    """So many answers, of which that share at random are 429 or 5xx; a run of good ones is one step."""
    rng = random.Random(seed)
    faults = (Fault.THROTTLED, Fault.SERVER_ERROR, Fault.BAD_GATEWAY, Fault.UNAVAILABLE, Fault.OVERLOADED)
    steps: list[Step] = []
    good = 0
    for _ in range(count):
        if rng.random() >= share:
            good += 1
            continue
        steps += [Step(count=good)] if good else []
        steps.append(Step(fault=rng.choice(faults)))
        good = 0
    return steps


@dataclass(frozen=True)
class Fared:
    """How calls fared beside random trouble."""

    success: float
    a_second: float
    attempts: int
    opened: int


async def fare(
    folder: Path, a_second: float, count: int, policy: RetryPolicy, *, fallback: bool, seed: int
) -> Fared:
    async with running_simulator() as upstream, running_simulator() as healthy:
        upstream.script(random_trouble(2 * count, seed))
        targets = [target(upstream.base_url)]
        if fallback:
            targets.append(target(healthy.base_url, 2, order=1))
        async with house_of(route(*targets), folder / f"{seed}", retry=policy) as home:
            tally = Tally(home)
            await tally.at_a_rate(a_second, count)
        opened = sum(change.after == "open" for _, change in home.news.changes)
        return Fared(tally.success, a_second, tally.attempts(1), opened)


THEORY = 1 - 0.2**3


async def test_retries_win_back_what_random_trouble_takes(tmp_path: Path) -> None:
    """Retries come soon here, so that the test does; the full number waits as at work."""
    once = RetryPolicy(attempts=1)
    alone, retried, with_fallback = await asyncio.gather(
        fare(tmp_path, 150, 600, once, fallback=False, seed=1),
        fare(tmp_path, 150, 600, SOON, fallback=False, seed=2),
        fare(tmp_path, 150, 600, SOON, fallback=True, seed=3),
    )

    assert alone.success < 0.9
    assert retried.success >= 0.975
    assert with_fallback.success == 1.0


@pytest.mark.prove
async def test_retries_win_back_what_random_trouble_takes_from_10_000_calls(tmp_path: Path, say: Say) -> None:
    """With the waits of work, at 20, 50 and 200 calls a second; the rates side by side."""
    found = await asyncio.gather(
        *(fare(tmp_path, rate, 10_000, RETRY, fallback=False, seed=rate) for rate in (20, 50, 200)),
        fare(tmp_path, 100, 10_000, RETRY, fallback=True, seed=4),
    )
    *alone, with_fallback = found
    for each in alone:
        say(
            f"U3  20 % random 429 and 5xx, one target, 10,000 calls at {each.a_second:g}/s: "
            f"{each.success:.2%} "
            f"(theory {THEORY:.2%}), {each.attempts} attempts, opened {each.opened} times"
        )
        assert each.success >= 0.989
        assert each.success == pytest.approx(THEORY, abs=0.003)
    say(f"U3  with a healthy fallback, 10,000 calls at 100/s: {with_fallback.success:.3%}")
    assert with_fallback.success >= 0.9995


# --- The breaker's effect


async def refusals_ms(upstream: RunningSimulator, folder: Path) -> list[float]:
    """How long each refusal took while a dead provider's breaker was open, for 1 s here; then one probe."""
    upstream.script([Step(fault=Fault.SERVER_ERROR, count=None)])
    policy, once = BreakerPolicy(open_s=1.0), RetryPolicy(attempts=1)
    made = target(upstream.base_url)
    async with house_of(route(made), folder, retry=once, breaker=policy) as home:
        for _ in range(5):
            await carry(home, call_to(MODEL_NAME))
        breaker = home.targets.of(made).breaker
        found = []
        while not breaker.permits(time.monotonic() + 0.05):
            began = time.perf_counter()
            assert isinstance(await carry(home, call_to(MODEL_NAME)), errors.NoTargetAvailable)
            found.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(0.001)
        assert len(upstream.journal.received()) == 5

        upstream.forget_script()
        await until(lambda: breaker.permits(time.monotonic()))
        told = [await carry(home, call_to(MODEL_NAME)) for _ in range(2)]
    assert told == [None, None]
    assert [each.probe for entry in home.books.entries[-2:] for each in entry.attempts] == [True, False]
    assert [(change.before, change.after) for _, change in home.news.changes] == [
        ("closed", "open"),
        ("open", "half_open"),
        ("half_open", "closed"),
    ]
    return found


async def test_a_dead_provider_is_left_alone_and_called_again_by_one_probe(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    assert len(await refusals_ms(upstream, tmp_path / "j")) > 5


@pytest.mark.prove
async def test_calls_to_a_dead_provider_are_refused_fast(
    upstream: RunningSimulator, tmp_path: Path, say: Say
) -> None:
    found = await refusals_ms(upstream, tmp_path / "j")
    say(f"U12  {len(found)} calls at an open breaker: p50 {median(found):.2f} ms, p99 {p99(found):.2f} ms")
    assert p99(found) <= 5.0


# --- Nothing is left behind

LEAVABLE = (Fault.SILENCE, Fault.STALL, Fault.SLOW_DRIP)
TROUBLE = (
    *(Fault.BAD_REQUEST, Fault.UNAUTHORIZED, Fault.THROTTLED_MS, Fault.SERVER_ERROR, Fault.UNAVAILABLE),
    *(Fault.TRUNCATED, Fault.ERROR_EVENT, Fault.RESET_MID_STREAM, Fault.RESET_BEFORE_HEADERS),
    *(Fault.GARBAGE_JSON, Fault.GARBAGE_SSE, Fault.TRUNCATED_CHUNK, Fault.USAGE_MISSING),
)


@dataclass
class Mix:
    """Calls of every kind, a tenth of them faulty or abandoned, twenty at once."""

    home: House
    rng: random.Random
    kept: list[Client] | None = None
    """The plant: a list that nobody empties."""

    async def run(self, count: int) -> None:
        numbers = iter(range(count))

        async def client() -> None:
            for _ in numbers:
                await self._one()

        async with asyncio.TaskGroup() as clients:
            for _ in range(20):
                clients.create_task(client())
        self.home.books.entries.clear()
        self.home.books.refusals.clear()

    async def _one(self) -> None:
        pick = self.rng.random()
        client = Client()
        if self.kept is not None:
            self.kept.append(client)
        streamed = self.rng.random() < 0.5
        if pick < 0.05:
            await self._leave(client, streamed)
        else:
            name = self.rng.choice(TROUBLE).model_name if pick < 0.1 else MODEL_NAME
            await self.home.start(call_to(name, stream=streamed, max_tokens=5), client)[0]

    async def _leave(self, client: Client, streamed: bool) -> None:
        name = self.rng.choice(LEAVABLE).model_name
        task, line = self.home.start(call_to(name, stream=streamed, max_tokens=5), client)
        await asyncio.sleep(self.rng.uniform(0.001, 0.02))  # the moment of leaving, not a wait for anything
        line.cut_off(Cut.HUNG_UP)
        await task


def left_behind(home: House) -> dict[str, int]:
    """Everything that should be as it was before a call once the call is over."""
    gc.collect()
    gc.collect()
    states = home.targets.states(home.routes.current(), home.transport)
    pools = [each.pool for each in states if each.pool]
    return {
        "objects": len(gc.get_objects()),
        "tasks": len(asyncio.all_tasks()),
        "lifelines": len(home.lines.lines),
        "at the gates": sum(each.gate.in_use + sum(each.gate.waiting.values()) for each in states),
        "in the pools": sum(each.in_use + each.waiting for each in pools),
        "probes": sum(each.ready_in_s > 0 for each in states),
    }


def growth(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """What there is more of; less than an object a call is caches and free connections,
    and the provider, which is in this process too, may still be ending a call or two."""
    allowed = {"objects": 1000, "tasks": 5}
    found = {name: count - before[name] for name, count in after.items()}
    return {name: more for name, more in found.items() if more > allowed.get(name, 0)}


@asynccontextmanager
async def busy_house(upstream: RunningSimulator, folder: Path) -> AsyncIterator[House]:
    """A route for every kind of trouble; its breakers never open, so that the trouble goes on."""
    names = (MODEL_NAME, *(each.model_name for each in (*TROUBLE, *LEAVABLE)))
    routes = {
        name: Route(
            name, (Target(number, "p", upstream.base_url, name, Secret(CREDENTIAL), prices=(PRICE,)),)
        )
        for number, name in enumerate(names, 1)
    }
    never = BreakerPolicy(consecutive=1_000_000, surely=1_000_000)
    soon = RetryPolicy(first_wait_s=0.002, longest_wait_s=0.01)
    async with house_of(routes, folder, retry=soon, breaker=never) as home:
        yield home


async def test_calls_of_every_kind_leave_nothing_behind(
    upstream: RunningSimulator, tmp_path: Path, say: Say
) -> None:
    async with busy_house(upstream, tmp_path / "j") as home:
        mix = Mix(home, random.Random(5))
        await mix.run(500)
        before = left_behind(home)
        await mix.run(1500)
        after = left_behind(home)
        mix.kept = []
        await mix.run(400)
        planted = left_behind(home)

    say(f"Left behind by 1,500 calls: {after['objects'] - before['objects']} objects of {after['objects']}")
    assert growth(before, after) == {}
    assert growth(after, planted).keys() == {"objects"}
