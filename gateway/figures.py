"""What all processes together do: each puts its figures where the others find them, and adds up theirs.

    take ──► Redis: one field a process ──► every process's view ──► together
                     └── whose process is gone: folded into one sum, so that no counter goes down

Adding up is pure. Counters (what was ever counted) are kept of processes that are gone;
gauges (what is now) are those of live ones only.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Final, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from prometheus_client import ProcessCollector

from gateway.meter import Taken, Tally
from gateway.peers import Peers
from gateway.redis_client import AWAY, QUICK_S, connect, end
from gateway.relay.gate import PRIORITIES, GateFigures
from gateway.relay.ports import BreakerState, PoolFigures
from gateway.relay.targets import TargetState

log = logging.getLogger(__name__)

PUBLISH_EVERY_S: Final = 1.0
LATEST: Final = "pst:figures"
GONE: Final = "pst:figures:gone"

# What is known of processes that are gone is put back where Redis has forgotten it (so is, by `RESTORE`,
# what is known of the others).
SWAP: Final = """
if ARGV[1] ~= '' then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
if ARGV[3] ~= '' then redis.call('SET', KEYS[2], ARGV[3], 'NX') end
return {redis.call('HGETALL', KEYS[1]), redis.call('GET', KEYS[2])}
"""

RESTORE: Final = """
for i = 1, #ARGV, 2 do redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1]) end
"""

# Only if neither changed since they were read, so that nothing is folded twice.
FOLD: Final = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[3] then return 0 end
redis.call('SET', KEYS[2], ARGV[4])
return redis.call('HDEL', KEYS[1], ARGV[1])
"""

CPU: Final = "process_cpu_seconds"
STARTED: Final = "process_start_time_seconds"
STATES: Final[tuple[BreakerState, ...]] = ("open", "half_open", "closed")
"""The one that an operator must know of first."""


class Figures(Struct, frozen=True):
    """A reading, of one process or of several together."""

    taken: Taken
    targets: list[TargetState]
    process: dict[str, float] = {}
    """What the operating system says, by Prometheus' name."""
    processes: int = 1
    missing: int = 0
    """Processes that are known and whose figures are not, or are not up to date."""
    journal_bytes: int = 0
    """Of the journals of live processes. What the ledger has is forgotten a segment at a time."""
    behind: int = 0
    """Processes whose journal the database does not take at present."""


NONE: Final = Figures(Taken({}, {}), [], processes=0)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Figures).decode

Number = TypeVar("Number", int, float)


def of_this_process() -> dict[str, float]:
    """Processor time, memory, open files and the moment of the start; empty where they are not known."""
    families = ProcessCollector(registry=None).collect()
    return {each.name: each.samples[0].value for each in families}


def together(
    own: Figures | None, live: Iterable[Figures], gone: Iterable[Figures], missing: int = 0
) -> Figures:
    """The sum. Targets are those of this process, where it has any: its catalog is as good as the others'."""
    alive = [_standing(each) for each in chain([] if own is None else [own], live)]
    ended = [at_rest(each) for each in gone]
    everyone = [*alive, *ended]
    return Figures(
        taken=taken_together(each.taken for each in everyone),
        targets=targets_together(None if own is None else own.targets, (each.targets for each in everyone)),
        process=_processes_together([each.process for each in everyone]),
        processes=len(alive),
        missing=missing,
        journal_bytes=sum(each.journal_bytes for each in alive),
        behind=sum(each.behind for each in alive),
    )


def _standing(figures: Figures) -> Figures:
    """Of one process: each breaker's state stands beside the others'."""
    targets = [replace(each, breakers=each.breakers or (each.breaker,)) for each in figures.targets]
    return replace(figures, targets=targets)


def at_rest(figures: Figures) -> Figures:
    """Of a process that is gone: what it counted, and nothing that is now."""
    process = {CPU: figures.process[CPU]} if CPU in figures.process else {}
    return replace(figures, targets=[_target_at_rest(each) for each in figures.targets], process=process)


def taken_together(readings: Iterable[Taken]) -> Taken:
    """Every route and outcome, and every reason for a refusal."""
    tallies: dict[tuple[str, str], Tally] = {}
    refusals: dict[str, int] = {}
    for taken in readings:
        for key, tally in taken.tallies.items():
            tallies.setdefault(key, Tally()).add(tally)
        refusals = _summed(refusals, taken.refusals)
    return Taken(tallies, refusals)


def targets_together(
    own: list[TargetState] | None, readings: Iterable[Iterable[TargetState]]
) -> list[TargetState]:
    """Each target once, in the order of its id."""
    found: dict[int, TargetState] = {}
    for each in (target for targets in readings for target in targets):
        before = found.get(each.target_id)
        found[each.target_id] = each if before is None else _target_sum(before, each)
    known = found.keys() if own is None else {each.target_id for each in own}
    return [found[each] for each in sorted(found) if each in known]


def _target_sum(one: TargetState, other: TargetState) -> TargetState:
    return replace(
        one,
        breaker=min((one.breaker, other.breaker), key=STATES.index),
        held=one.held or other.held,
        ready_in_s=max(one.ready_in_s, other.ready_in_s),
        retries=one.retries + other.retries,
        gate=_gate_sum(one.gate, other.gate),
        pool=_pool_sum(one.pool, other.pool),
        breakers=one.breakers + other.breakers,
    )


def _target_at_rest(target: TargetState) -> TargetState:
    gate = replace(
        target.gate,
        places=0,
        kept=0,
        in_use=0,
        waiting=dict.fromkeys(PRIORITIES, 0),
        longest_wait_s=dict.fromkeys(PRIORITIES, 0.0),
        hold_s=0.0,
    )
    pool = target.pool
    if pool is not None:
        pool = replace(pool, in_use=0, waiting=0, idle=None if pool.idle is None else 0)
    return replace(target, breaker="closed", held=False, ready_in_s=0.0, breakers=(), gate=gate, pool=pool)


def _gate_sum(one: GateFigures, other: GateFigures) -> GateFigures:
    """Of the longest wait, and of how long a place is held, the longer counts."""
    return GateFigures(
        places=one.places + other.places,
        kept=one.kept + other.kept,
        in_use=one.in_use + other.in_use,
        waiting=_summed(one.waiting, other.waiting),
        longest_wait_s={
            each: max(one.longest_wait_s[each], other.longest_wait_s[each]) for each in PRIORITIES
        },
        entered=_summed(one.entered, other.entered),
        wait_s=_summed(one.wait_s, other.wait_s),
        wait_buckets={each: _pairs(one.wait_buckets[each], other.wait_buckets[each]) for each in PRIORITIES},
        refused=one.refused + other.refused,
        left=one.left + other.left,
        hold_s=max(one.hold_s, other.hold_s),
    )


def _pool_sum(one: PoolFigures | None, other: PoolFigures | None) -> PoolFigures | None:
    if one is None or other is None:
        return one or other
    return PoolFigures(
        in_use=one.in_use + other.in_use,
        waiting=one.waiting + other.waiting,
        acquired=one.acquired + other.acquired,
        acquire_s=one.acquire_s + other.acquire_s,
        acquire_buckets=_pairs(one.acquire_buckets, other.acquire_buckets),
        pool_timeouts=one.pool_timeouts + other.pool_timeouts,
        connect_timeouts=one.connect_timeouts + other.connect_timeouts,
        connection_errors=one.connection_errors + other.connection_errors,
        requests=one.requests + other.requests,
        answers=one.answers + other.answers,
        http_version=one.http_version or other.http_version,
        idle=_known_sum(one.idle, other.idle),
        opened=_known_sum(one.opened, other.opened),
        reused=_known_sum(one.reused, other.reused),
    )


def _known_sum(one: int | None, other: int | None) -> int | None:
    """What is not known of one process is not known of both: a sum of half of them would look like all."""
    return None if one is None or other is None else one + other


Key = TypeVar("Key")


def _summed(one: Mapping[Key, Number], other: Mapping[Key, Number]) -> dict[Key, Number]:
    return {**one, **{key: one[key] + value if key in one else value for key, value in other.items()}}


def _pairs(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(mine + theirs for mine, theirs in zip(one, other, strict=True))


def _processes_together(readings: list[dict[str, float]]) -> dict[str, float]:
    """Sums, but the earliest start."""
    found: dict[str, float] = {}
    for each in readings:
        found = _summed(found, each)
    if started := [each[STARTED] for each in readings if STARTED in each]:
        found[STARTED] = min(started)
    return found


def _readable(data: bytes) -> Figures | None:
    """None: nothing was published, or by a process of another release that counts other things."""
    try:
        return _decode(data) if data else None
    except msgspec.DecodeError:
        return None


class Together:
    """Publishes this process's figures once a second, and knows everybody's latest. Lives on one event loop.

    Asked, it publishes its own and reads all at one moment, so that whichever process is asked
    no counter is lower than before; while Redis is away the others' last known figures stand.
    Alone it is this process's figures.
    """

    def __init__(
        self,
        peers: Peers,
        take: Callable[[], Figures] | None,
        is_gone: Callable[[str], bool],
        *,
        timeout_s: float = QUICK_S,
    ) -> None:
        """`take` reads this process, None where it serves no calls;
        `is_gone` says of a process's id that it surely counts no more, not that it is merely silent."""
        self._peers, self._take, self._is_gone = peers, take, is_gone
        self._timeout_s = timeout_s
        self._client = connect(peers.url, timeout_s=timeout_s) if peers.url else None
        self._others: dict[str, bytes] = {}
        """As they were published, by process id."""
        self._gone = b""
        self._away = False
        self._publishing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Together {len(self._others)} others{', Redis away' if self._away else ''}>"

    async def open(self) -> None:
        if self._client is not None:
            await self._swap(self._own())
            self._publishing = asyncio.get_running_loop().create_task(self._keep_publishing())

    async def close(self) -> None:
        """Once more, so that what was counted to the end is counted. A second time does nothing."""
        client = self._client
        if client is None:
            return
        if self._publishing is not None:
            await end([self._publishing])
        await self._swap(self._own())
        self._client = None
        await client.aclose()

    async def figures(self) -> Figures:
        """Of all processes, at this moment."""
        own = self._own()
        if self._client is not None:
            await self._swap(own)
        return self.latest(own)

    def latest(self, own: Figures | None) -> Figures:
        """Of all processes; of the others as they were when last heard of. Waits for nothing."""
        serving = set(self._peers.serving) - {self._peers.process}
        others = {name: each for name, data in self._others.items() if (each := _readable(data))}
        live = [each for name, each in others.items() if name in serving]
        gone = [each for name, each in others.items() if name not in serving]
        if before := _readable(self._gone):
            gone.append(before)
        missing = len(serving) if self._away else len(serving - others.keys())
        return together(own, live, gone, missing)

    async def _keep_publishing(self) -> None:
        while True:
            await asyncio.sleep(PUBLISH_EVERY_S)
            await self._swap(self._own())
            if self._peers.leader:
                await self._fold_one()

    def _own(self) -> Figures | None:
        return None if self._take is None else self._take()

    async def _swap(self, own: Figures | None) -> None:
        """Publish what is, and read what the others published."""
        assert self._client is not None
        mine = ("", b"") if own is None else (self._peers.process, _encode(own))
        try:
            async with asyncio.timeout(self._timeout_s):
                latest, gone = await self._client.eval(SWAP, 2, LATEST, GONE, *mine, self._gone)
                forgotten = self._read(dict(zip(latest[::2], latest[1::2], strict=True)), gone)
                if forgotten:
                    pairs = [part for pair in forgotten.items() for part in pair]
                    await self._client.eval(RESTORE, 1, LATEST, *pairs)
            self._away = False
        except AWAY as why:
            if not self._away:
                log.warning("the other processes' figures stay as they were: %r", why)
            self._away = True

    def _read(self, latest: dict[bytes, bytes], gone: bytes | None) -> dict[str, bytes]:
        """Keep what the others published. Returns what Redis has forgotten of it.

        Whose figures are not there any more has been folded into the sum, which then has changed.
        """
        others = {name.decode(): data for name, data in latest.items()}
        others.pop(self._peers.process, None)
        is_same = (gone or b"") == self._gone
        forgotten = {name: self._others[name] for name in self._others.keys() - others.keys() if is_same}
        self._others, self._gone = others | forgotten, gone or b""
        return forgotten

    async def _fold_one(self) -> None:
        """Add a process that is gone to the sum of those that are; one at a time is often enough."""
        name = next((each for each in self._others if self._is_over(each)), None)
        if name is None:
            return
        assert self._client is not None
        data = self._others[name]
        before = _readable(self._gone) or NONE
        after = together(None, [], filter(None, (before, _readable(data))))
        after = replace(after, processes=before.processes + 1)  # so that it changes with every one
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._client.eval(FOLD, 2, LATEST, GONE, name, data, self._gone, _encode(after))
        except AWAY as why:
            log.info("the figures of %s are folded later: %r", name, why)

    def _is_over(self, process: str) -> bool:
        return process not in self._peers.serving and self._is_gone(process)
