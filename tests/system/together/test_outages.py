"""Redis dies or freezes in mid-load, and so does a process.

What is let in meanwhile, and what the counters are afterwards.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest

from gateway.reconcile import EVERY_S
from tests.served import eventually
from tests.system import books as b
from tests.system.together import findings as f
from tests.system.together.conftest import PROCESSES
from tests.system.together.crowds import connected
from tests.system.together.house import PLENTY, TALKING, USUAL, Key, Team, Together
from tests.system.upstream_side.clients import Answer, Wire, connect

PERIODS = (("hard", "month"), ("soft", "soft month"))
LIMIT = 60
A_SECOND = 25.0
"""Calls of each kind of key."""
BEFORE_S, AFTER_S = 2.0, 3.0
NOTICED_S = 1.0
"""By then every process knows that Redis is away, or back, though the machine is busy."""
DEADLINE_S = 15.0
TOO_LATE_S = DEADLINE_S + 2.0
ANSWERED_SHARE = 0.999
ADOPTED_WITHIN_S = 60.0
COMPARED_WITHIN_S = 2 * EVERY_S
CLIENTS = 60


@dataclass(frozen=True, slots=True)
class Trial:
    """One call, its key's name, and when it was sent and answered, in seconds of the test's clock."""

    key: str
    began_at: float
    answer: Answer

    @property
    def took_s(self) -> float:
        return self.answer.at - self.began_at


@dataclass(frozen=True, slots=True)
class Look:
    """What /readyz said, and when it was asked and had answered."""

    began_at: float
    ended_at: float
    said: dict


@dataclass
class Outage:
    """When Redis was away, as whoever took it away knows."""

    began_at: float = 0.0
    gone_at: float = 0.0
    """By then it was surely away."""
    returns_at: float = 0.0
    """Until then."""
    ended_at: float = 0.0
    looks: list[Look] = field(default_factory=list)

    def surely(self, trial: Trial) -> bool:
        """Every process knew of it from the call's beginning to its end."""
        return self.gone_at + NOTICED_S <= trial.began_at and trial.answer.at <= self.returns_at

    def surely_not(self, trial: Trial) -> bool:
        return trial.answer.at < self.began_at or self.ended_at + NOTICED_S * 2 < trial.began_at


async def call_on(
    gateway: Together, keys: dict[str, Key], outage: Outage, stop: asyncio.Event
) -> list[Trial]:
    """Calls of every key at an even pace until told to stop; and what /readyz says meanwhile."""
    tasks: list[asyncio.Task[Trial]] = []
    watching = asyncio.create_task(_watch(gateway, outage, stop))
    # Some connections to each process, taken in turn: which process has which is the kernel's choice.
    free: dict[str, list[Wire]] = {name: await connected(gateway.port, 8 * PROCESSES) for name in keys}
    due, number = time.monotonic(), 0
    while not stop.is_set():
        for name, key in keys.items():
            number += 1
            tasks.append(asyncio.create_task(_call(gateway, name, key, number, free[name])))
        due += 1 / A_SECOND
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    found = await asyncio.gather(*tasks)
    await watching
    for wires in free.values():
        for each in wires:
            each.leave()
    return list(found)


async def _call(gateway: Together, name: str, key: Key, number: int, free: list[Wire]) -> Trial:
    wire = free.pop(0) if free else await connect(gateway.port)
    request = gateway.house.request(USUAL, key=key.text, trial=f"{name}-{number}", max_tokens=8)
    began_at = time.monotonic()
    answer = await wire.ask(request)
    if b"connection: close" in answer.head.lower():
        wire = await connect(gateway.port)
    free.append(wire)
    return Trial(name, began_at, answer)


async def _watch(gateway: Together, outage: Outage, stop: asyncio.Event) -> None:
    while not stop.is_set():
        began_at = time.monotonic()
        said = await asyncio.to_thread(gateway.state)
        outage.looks.append(Look(began_at, time.monotonic(), said))
        await asyncio.sleep(0.2)


async def through(
    gateway: Together, keys: dict[str, Key], take: Callable[[], None], give: Callable[[], None], away_s: float
) -> tuple[list[Trial], Outage]:
    """Load before, while and after Redis is away."""
    outage, stop = Outage(), asyncio.Event()
    load = asyncio.create_task(call_on(gateway, keys, outage, stop))
    await asyncio.sleep(BEFORE_S)  # these are the lengths of the load's parts, not waits for anything
    outage.began_at = time.monotonic()
    await asyncio.to_thread(take)
    outage.gone_at = time.monotonic()
    await asyncio.sleep(away_s)
    outage.returns_at = time.monotonic()
    await asyncio.to_thread(give)
    outage.ended_at = time.monotonic()
    await asyncio.to_thread(eventually, lambda: gateway.state() == {"status": "ready"}, 20, "ready again")
    await asyncio.sleep(AFTER_S)
    stop.set()
    return await load, outage


def wrong_while_away(trials: Sequence[Trial], outage: Outage, kind: str) -> Iterator[str]:
    """Hard quotas refuse while Redis is away, only then, and say when to come back; nothing else does so."""
    for each in trials:
        said = each.answer.status, f.code_of(each.answer)
        if each.took_s > TOO_LATE_S:
            yield f"{kind}: a call of {each.key} took {each.took_s:.1f} s"
        if each.key == "hard" and outage.surely(each):
            if said != (503, f.UNAVAILABLE) or each.answer.header("Retry-After") is None:
                yield f"{kind}: a call under a hard quota got {said} while Redis was away"
        elif said[0] == 503 and (each.key != "hard" or outage.surely_not(each)):
            yield f"{kind}: a call of {each.key} got {said}"


def too_many(trials: Sequence[Trial], outage: Outage, kind: str) -> Iterator[str]:
    """Shares add up to the limit: so many are let in before, and so many again while Redis is away.

    What was let in meanwhile is counted when it is back. So no minute has more than twice the limit,
    and what happens while it is away alone has no more than the limit.
    """
    let_in = [each for each in trials if each.key == "limited" and each.answer.status == 200]
    meanwhile = sum(outage.surely(each) for each in let_in)
    if meanwhile > LIMIT:
        yield f"{kind}: {meanwhile} calls were let in while Redis was away, the limit is {LIMIT}"
    if len(let_in) > 2 * LIMIT:
        yield f"{kind}: {len(let_in)} calls were let in in all, twice the limit is {2 * LIMIT}"


def too_few(trials: Sequence[Trial], kind: str) -> Iterator[str]:
    """Calls that need no counter, or may do without, are answered."""
    others = [each for each in trials if each.key in ("free", "soft")]
    answered = sum(each.answer.status == 200 for each in others)
    if answered < ANSWERED_SHARE * len(others):
        yield f"{kind}: {answered} of {len(others)} calls without a hard quota were answered"


def not_said(outage: Outage, kind: str) -> Iterator[str]:
    """`/readyz` tells of it while it lasts, and not before."""
    noticed_at = outage.gone_at + 2 * NOTICED_S
    away = [
        each.said
        for each in outage.looks
        if noticed_at <= each.began_at and each.ended_at <= outage.returns_at
    ]
    if not away or any(each != {"status": "degraded", "degraded": ["redis"]} for each in away):
        yield f"{kind}: /readyz said {away} while Redis was away"
    before = [each.said for each in outage.looks if each.ended_at <= outage.began_at]
    if any(each != {"status": "ready"} for each in before):
        yield f"{kind}: /readyz said {before} before"


def all_wrong(trials: Sequence[Trial], outage: Outage, kind: str) -> list[str]:
    return [
        *wrong_while_away(trials, outage, kind),
        *too_many(trials, outage, kind),
        *too_few(trials, kind),
        *not_said(outage, kind),
    ]


def check_plants(trials: Sequence[Trial], outage: Outage, kind: str) -> None:
    """Each thing that may be wrong is found where it is planted."""
    good = next(each for each in trials if each.key == "free" and outage.surely(each))
    refusal = next(each for each in trials if each.key == "hard" and outage.surely(each))
    limited = replace(good, key="limited")
    plants = {
        "let in under a hard quota": replace(good, key="hard"),
        "refused without one": replace(refusal, key="soft"),
        "hung": replace(good, answer=replace(good.answer, at=good.began_at + TOO_LATE_S + 1)),
        "no time to come back": replace(
            refusal,
            answer=replace(refusal.answer, head=refusal.answer.head.lower().replace(b"retry-after", b"x")),
        ),
    }
    for what, planted in plants.items():
        assert list(wrong_while_away([*trials, planted], outage, kind)), what
    assert list(too_many([*trials, *[limited] * (LIMIT + 1)], outage, kind))
    assert list(too_few([*trials, *[replace(refusal, key="soft")] * len(trials)], kind))
    silent = replace(outage, looks=[replace(each, said={"status": "ready"}) for each in outage.looks])
    assert list(not_said(silent, kind))


def survive(
    gateway: Together, kind: str, take: Callable[[], None], give: Callable[[], None], away_s: float
) -> str:
    quotas = {
        name: [(unit, PLENTY, period) for unit in ("requests", "tokens", "money")] for name, period in PERIODS
    }
    team = gateway.team(
        f"{kind}-{away_s:.0f}", {**quotas, "limited": [("requests", LIMIT, "minute")], "free": ()}
    )
    trials, outage = asyncio.run(through(gateway, dict(team.keys), take, give, away_s))
    assert all_wrong(trials, outage, kind) == []
    check_plants(trials, outage, kind)
    right_after_s = wait_until_right(gateway, team)
    return _told(kind, trials, outage, away_s, right_after_s)


def wait_until_right(gateway: Together, team: Team) -> float:
    """Seconds until the counters are what the ledger says and nothing is held.

    Calls under a soft quota are let in while it cannot be counted; the comparison with the ledger adds them.
    """
    began_at = time.monotonic()
    for key, within_s in ((team.keys["hard"], 20.0), (team.keys["soft"], COMPARED_WITHIN_S)):
        standing = gateway.at_rest(key, within_s=within_s)
        assert list(f.drifted(standing)) == []
        assert all(ledger for _, ledger in standing.values())
    return time.monotonic() - began_at


def _told(kind: str, trials: Sequence[Trial], outage: Outage, away_s: float, right_after_s: float) -> str:
    away = [each for each in trials if outage.surely(each)]
    hard = Counter(each.answer.status for each in away if each.key == "hard")
    limited = [each for each in trials if each.key == "limited" and each.answer.status == 200]
    others = [each for each in trials if each.key in ("free", "soft")]
    answered = sum(each.answer.status == 200 for each in others)
    return (
        f"Redis {kind} for {away_s:.0f} s: {len(trials)} calls; under hard quotas {hard[503]} of "
        f"{hard.total()} refused with 503 meanwhile, {answered} of {len(others)} others answered, "
        f"of a limit of {LIMIT} {sum(map(outage.surely, limited))} let in meanwhile "
        f"and {len(limited)} in all; the longest call took {max(each.took_s for each in trials):.2f} s; "
        f"counters = ledger and nothing held {right_after_s:.1f} s after the last"
    )


def die(gateway: Together, away_s: float) -> str:
    """Killed, and started again empty."""
    return survive(gateway, "dead", gateway.redis.kill, gateway.redis.start, away_s)


def freeze(gateway: Together, away_s: float) -> str:
    return survive(gateway, "frozen", gateway.redis.freeze, gateway.redis.thaw, away_s)


def test_redis_may_be_killed_and_start_again_empty(fragile, say):
    say(die(fragile, 5.0))


def test_redis_may_be_frozen(fragile, say):
    say(freeze(fragile, 5.0))


@pytest.mark.prove
def test_redis_may_be_dead_for_20_s(fragile, say):
    say(die(fragile, 20.0))


@pytest.mark.prove
def test_redis_may_be_frozen_for_20_s(fragile, say):
    say(freeze(fragile, 20.0))


# One process of four dies


async def _answered(port: int, request: bytes) -> bool:
    """Whether the answer came whole. While a worker is missing, its connections may be cut or refused."""
    try:
        wire = await connect(port)
    except OSError:
        return False
    try:
        return (await wire.ask(request)).status == 200
    except (OSError, asyncio.IncompleteReadError):
        return False
    finally:
        wire.leave()


async def _until_dead_and_on(gateway: Together, key: Key, load_s: float) -> tuple[int, float]:
    """Streams without a pause, one process killed in the middle; how many were cut off, and its moment."""
    over = asyncio.Event()
    lost = 0

    async def client(name: int) -> None:
        nonlocal lost
        number = 0
        while not over.is_set():
            number += 1
            trial = f"client-{name}-{number}"
            request = gateway.house.request(TALKING, key=key.text, trial=trial, max_tokens=6, stream=True)
            answered = await _answered(gateway.port, request)
            lost += not answered

    async with asyncio.TaskGroup() as clients:
        for name in range(CLIENTS):
            clients.create_task(client(name))
        await asyncio.sleep(load_s)  # the moment of death, not a wait for anything
        victim = gateway.house.served.workers()[0]
        victim.kill()
        killed_at = time.monotonic()
        await asyncio.sleep(load_s)
        over.set()
    return lost, killed_at


def kill_one(gateway: Together, load_s: float) -> str:
    quotas = [(kind, PLENTY, "month") for kind in ("requests", "tokens", "money")]
    key = gateway.key(f"killed-{load_s}", *quotas)
    gateway.house.provider.news()
    lost, killed_at = asyncio.run(_until_dead_and_on(gateway, key, load_s))
    assert lost > 0, "no call was under way in the process that was killed"
    eventually(
        lambda: not list(f.drifted(gateway.standing(key))),
        ADOPTED_WITHIN_S,
        "counters = ledger, nothing held",
    )
    adopted_s = time.monotonic() - killed_at
    received = list(b.upstream_calls(gateway.house.provider.news()))
    rows = gateway.house.served.rows("SELECT call_id, outcome FROM gateway_entry WHERE key_id = ?", key.id)
    booked = [b.with_dashes(call_id) for call_id, _ in rows]
    assert list(f.lost_or_doubled(received, booked)) == []
    assert len(list(f.lost_or_doubled(received, [*booked[1:], booked[-1]]))) == 2
    outcomes = Counter(outcome for _, outcome in rows)
    assert adopted_s <= ADOPTED_WITHIN_S
    return (
        f"M7  one of {PROCESSES} processes killed under load: {len(rows)} calls on the ledger once each, "
        f"{outcomes['abandoned']} of them abandoned ({lost} cut off), none lost; "
        f"nothing held and counters = ledger {adopted_s - load_s:.1f} s after the load, "
        f"{adopted_s:.1f} s after the death"
    )


def test_a_killed_process_leaves_no_reservation_behind(fragile, say):
    say(kill_one(fragile, 2.0))


@pytest.mark.prove
def test_a_killed_process_leaves_no_reservation_behind_in_longer_load(fragile, say):
    say(kill_one(fragile, 10.0))
