"""Clients leave at random moments: the provider is left with them, and the books say what is known (M8)."""

import asyncio
import json
import random
import threading
import time
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import msgspec
import pytest

from gateway.simulator import Fault, Step
from tests.served import eventually
from tests.system.upstream_side import hang_ups as h
from tests.system.upstream_side.clients import Wire, connect
from tests.system.upstream_side.house import House, open_house
from tests.system.upstream_side.provider import running_provider

TEXT = (
    "Water carries hydroelectric turbines; reservoirs measurably overflow unforgettably beneath Wrocław. " * 2
)
QUEUED = h.Plan("gpt-4o-queued", queued=True)
SILENT = h.Plan("gpt-4o-silent", silent=True)
WHOLE = h.Plan("gpt-4o-silent", streamed=False, silent=True)
TALKING = h.Plan("gpt-4o-talking", max_tokens=14, text=TEXT)
ENDING = h.Plan("gpt-4o-ending", max_tokens=2, text=TEXT)
FREE = h.Plan("gpt-4o-free", max_tokens=2, text=TEXT, free=True)
DRAINED = h.Plan("gpt-4o-drained", max_tokens=6, text=TEXT, drain_s=20.0)
CAPPED = h.Plan("gpt-4o-capped", max_tokens=60, text=TEXT, drain_s=0.5)
PLANS = (QUEUED, SILENT, WHOLE, TALKING, ENDING, FREE, DRAINED, CAPPED)
WEIGHTS = (3, 2, 1, 4, 5, 2, 2, 1)
DRIP_S = 0.1
LAST_DRIP_S = 0.4
"""Between the last chunks, so that one can leave between them."""
SCRIPT = (
    Step(model_name=QUEUED.model_name, fault=Fault.SILENCE, count=None),
    Step(model_name=SILENT.model_name, fault=Fault.SILENCE, count=None),
    Step(model_name=TALKING.model_name, fault=Fault.SLOW_DRIP, pause_s=DRIP_S, text=TEXT, count=None),
    Step(model_name=ENDING.model_name, fault=Fault.SLOW_DRIP, pause_s=LAST_DRIP_S, text=TEXT, count=None),
    Step(
        model_name=FREE.model_name,
        fault=Fault.SLOW_DRIP,
        pause_s=LAST_DRIP_S,
        text=TEXT,
        prompt_tokens=0,
        completion_tokens=0,
        count=None,
    ),
    Step(model_name=DRAINED.model_name, fault=Fault.SLOW_DRIP, pause_s=DRIP_S, text=TEXT, count=None),
    Step(model_name=CAPPED.model_name, fault=Fault.SLOW_DRIP, pause_s=DRIP_S, text=TEXT, count=None),
)
LOOK_S = 0.02
ENTRIES = (
    "SELECT call_id, tags, outcome, status, usage_basis, input_tokens, output_tokens, cost_nanos"
    " FROM gateway_entry"
)
ATTEMPTS = "SELECT entry_id, outcome, code FROM gateway_attempt ORDER BY attempt_no"


@dataclass
class Watch:
    """Looks at the ledger again and again, and notes when each entry was first there."""

    house: House
    seen_at_us: dict[str, int] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        rows = self.house.served.rows("SELECT call_id FROM gateway_entry")
        now_us = time.time_ns() // 1000
        for (call_id,) in rows:
            self.seen_at_us.setdefault(call_id, now_us)

    @contextmanager
    def watching(self):
        def watch():
            while not self._over.wait(LOOK_S):
                self.look()

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join()

    def entries(self) -> dict[str, list[h.Booked]]:
        """By trial."""
        attempts = defaultdict(list)
        for call_id, outcome, code in self.house.served.rows(ATTEMPTS):
            attempts[call_id].append((outcome, code))
        found = defaultdict(list)
        for call_id, tags, *rest in self.house.served.rows(ENTRIES):
            booked = h.Booked(call_id, *rest, tuple(attempts[call_id]), self.seen_at_us[call_id])
            found[json.loads(tags).get("trial", "")].append(booked)
        return dict(found)


@dataclass
class Leaver:
    """One client: it calls, and goes away at a moment of its own."""

    house: House
    picks: random.Random
    trial: str
    plan: h.Plan
    saw: bytes = b""

    async def call_and_leave(self) -> h.Left:
        wire = await connect(self.house.served.port)
        wire.writer.write(self._request())
        reading = asyncio.create_task(self._read(wire))
        await self._until_it_is_time()
        saw_usage = b'"usage":{' in self.saw
        at_us = time.time_ns() // 1000
        wire.leave(reset=self.picks.random() < 0.5)
        reading.cancel()
        await asyncio.wait([reading])
        return h.Left(self.trial, self.plan, at_us, saw_usage)

    def _request(self) -> bytes:
        plan = self.plan
        fields = {"max_tokens": plan.max_tokens}
        if plan.streamed:
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
        return self.house.request(plan.model_name, trial=self.trial, **fields)

    async def _read(self, wire: Wire) -> None:
        while data := await wire.reader.read(65536):
            self.saw += data

    async def _until_it_is_time(self) -> None:
        """A random moment: of the silence, of the stream, or of what comes after its last word."""
        uniform = self.picks.uniform
        if self.plan in (ENDING, FREE):
            async with asyncio.timeout(20):
                while b'"finish_reason":"length"' not in self.saw:  # noqa: ASYNC110 - a client only reads
                    await asyncio.sleep(0.005)
            await asyncio.sleep(uniform(0.0, 1.9 * LAST_DRIP_S))
        else:
            await asyncio.sleep(uniform(0.15, 1.0 if self.plan.silent or self.plan.queued else 1.7))


async def leave(house: House, count: int, spread_s: float, seed: int) -> list[h.Left]:
    """So many clients within so many seconds, while one call holds the only place of the queued ones."""
    picks = random.Random(seed)
    holder = await connect(house.served.port)
    holder.writer.write(house.request(QUEUED.model_name, trial="holder", stream=True))
    await until(lambda: house.figure("penstock_gate_in_use", QUEUED.model_name) == 1)

    async def one(number: int) -> h.Left:
        mine = random.Random(picks.random())
        plan = mine.choices(PLANS, WEIGHTS)[0]
        await asyncio.sleep(mine.uniform(0, spread_s))
        return await Leaver(house, mine, f"trial-{number}", plan).call_and_leave()

    left = await asyncio.gather(*(one(number) for number in range(count)))
    at_us = time.time_ns() // 1000
    holder.leave()
    return [*left, h.Left("holder", replace(QUEUED, queued=False, silent=True), at_us, saw_usage=False)]


async def until(holds) -> None:
    await asyncio.to_thread(eventually, holds)


def hang_up(
    folder, count: int, spread_s: float, seed: int, transport: str = "http1", slack: float = 1
) -> str:
    """Everything the row asks for, joined; returns the summary."""
    names = sorted({plan.model_name for plan in PLANS})
    roomy = {"max_concurrency": 1000, "max_connections": 1000, "transport": transport}
    with (
        running_provider(folder) as provider,
        open_house(folder, provider, *names, targets=roomy) as house,
    ):
        provider.script(*SCRIPT)
        house.change(
            {QUEUED.model_name: {"max_concurrency": 1}},
            {each.model_name: {"hang_up_drain_s": each.drain_s} for each in (DRAINED, CAPPED)},
        )
        eventually(lambda: house.figure("penstock_gate_places", QUEUED.model_name) == 1, what="the change")
        with Watch(house).watching() as watch:
            left = asyncio.run(leave(house, count, spread_s, seed))
            house.wait_for_rest(30)
            expected = len(left)
            eventually(lambda: len(watch.seen_at_us) >= expected, 10 * slack, "an entry for every call")
        upstream, entries = h.sides(provider.news_at_rest()), watch.entries()

    assert h.findings(left, upstream, entries, slack) == []
    check_plants(left, upstream, entries, slack)
    return summary(left, upstream, entries)


def check_plants(left, upstream, entries, slack) -> None:
    """Each thing that may be wrong is found where it is planted."""
    states = {h.state_of(each, upstream.get(each.trial, ())): each for each in left if not each.plan.drain_s}
    for state in h.STATES:
        victim = states[state]
        [entry] = entries[victim.trial]
        plants = {
            "0 entries": [],
            "2 entries": [entry, entry],
            "the entry is answered": [replace(entry, outcome="answered")],
            "the entry came": [replace(entry, seen_at_us=victim.at_us + int(2_100_000 * slack))],
        }
        other_basis = "reported" if entry.basis == "estimated" else "estimated"
        plants[f"{other_basis}"] = [replace(entry, basis=other_basis, output_tokens=entry.output_tokens + 1)]
        if state != "before dispatch":
            plants["tokens"] = [replace(entry, output_tokens=entry.output_tokens + 3, basis="estimated")]
        for what, planted in plants.items():
            found = h.findings([victim], upstream, entries | {victim.trial: planted}, slack)
            assert found, (state, what)
            assert any(what in each for each in found) or what == "tokens", (state, what, found)
    lingering = states["in mid-stream"]
    [side] = upstream[lingering.trial]
    late = replace(side, ended=_later(side.ended, int(1_000_000 * slack)))
    assert h.findings([lingering], upstream | {lingering.trial: [late]}, entries, slack) != []
    assert h.findings([lingering], upstream | {lingering.trial: [side, side]}, entries, slack) != []


def _later(ended, by_us):
    return msgspec.structs.replace(ended, at_us=ended.at_us + by_us)


def summary(left, upstream, entries) -> str:
    states = Counter(h.state_of(each, upstream.get(each.trial, ())) for each in left if not each.plan.drain_s)
    undrained = [each for each in left if not each.plan.drain_s]
    gone = [s.ended.at_us - each.at_us for each in undrained for s in upstream.get(each.trial, ())]
    booked = [entries[each.trial][0].seen_at_us - each.at_us for each in undrained]
    told = ", ".join(f"{states[state]} {state}" for state in (*h.STATES, "too late"))
    return (
        f"M8  {len(left)} clients left: {told}, {len(left) - len(undrained)} read on; "
        f"the provider was left after at most {max(gone) / 1000:.0f} ms, "
        f"the entry was there after at most {max(booked) / 1000:.0f} ms"
    )


def test_whoever_hangs_up_takes_the_provider_along_and_is_on_the_books(tmp_path, say):
    say(hang_up(tmp_path, count=80, spread_s=2.0, seed=8, slack=10))


@pytest.mark.prove
@pytest.mark.parametrize("transport", ["http1", "aiohttp", "httpx"])
def test_500_clients_hang_up_at_random_moments(tmp_path, say, transport):
    told = hang_up(tmp_path, count=500, spread_s=10.0, seed=500, transport=transport)
    say(f"{told} ({transport})")
