"""An hour of mixed traffic with faults: nothing grows, nothing is left open, and every call is on the books.

`SOAK_SECONDS` is how long the proof takes; its samples go into the folder `SOAK_FOLDER` as JSON, where that
is set.
"""

import asyncio
import os
import random
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from tests.served import eventually
from tests.system import books as b
from tests.system import soaking_figures as s
from tests.system.soaking import (
    A_SECOND,
    ATTEMPTS_A_CALL,
    INSIDE,
    MODEL_NAMES,
    REST_S,
    Load,
    People,
    Scales,
    faults_in,
    people,
    teams_and_keys,
    trouble,
)
from tests.system.test_killed import all_booked, live_and_ledger, plants
from tests.system.together.crowds import connected
from tests.system.together.findings import Standing, drifted
from tests.system.together.house import Together, together
from tests.system.together.keys import person
from tests.system.upstream_side.provider import running_provider

ENVIRON = {
    **dict.fromkeys(("KEY_REQUESTS_PER_MINUTE", "TEAM_REQUESTS_PER_MINUTE", "TEAM_TOKENS_PER_MINUTE"), "0"),
    "PYTHONWARNINGS": "default::ResourceWarning,default::RuntimeWarning",
    "PYTHONPATH": str(INSIDE),
}
WARM_S = 5.0
PLANTED = 10
LONG_ENOUGH_S = 3000
"""A third of it is longer than the live page takes to fill; less tells nothing of what grows."""


@dataclass(frozen=True)
class Pace:
    """Of one run, in seconds."""

    load_s: float
    weigh_every_s: float
    page_every_s: float
    key_every_s: float
    kept_s: float
    """How long idle connections to the provider are kept."""

    @property
    def warm_up_s(self) -> float:
        return self.load_s * s.WARM_UP_SHARE


@dataclass(frozen=True)
class Soaked:
    """All that came of it."""

    scales: Scales
    load: Load
    at_work: People
    books: b.Books
    standing: Standing
    live: tuple[b.Total, b.Total]
    not_back: Sequence[str]
    planted: Sequence[str]
    """What is found while connections are left open on purpose."""
    warnings: Sequence[str]

    def calls(self) -> dict[str, list[b.Upstream]]:
        return b.upstream_calls(self.scales.lines)


async def soak(folder: Path, pace: Pace, seed: int, kept: Path | None = None) -> Soaked:
    """`kept` is the folder in which the samples stay, whatever comes of it."""
    inside = folder / "inside"
    inside.mkdir()
    environ = {**ENVIRON, "SOAK_INSIDE": str(inside), "SOAK_EVERY_S": str(pace.weigh_every_s)}
    with (
        running_provider(folder, speed=1.0, seed=seed) as provider,
        together(folder, provider, None, 1, *MODEL_NAMES, **environ) as house,
    ):
        idle = {name: {"keepalive_expiry_s": pace.kept_s} for name in MODEL_NAMES}
        await asyncio.to_thread(house.house.change, idle)
        scales = Scales(house, inside, pace.weigh_every_s)
        try:
            found = await _soak(scales, pace, random.Random(seed))
        finally:
            keep(scales, kept)
        await asyncio.to_thread(house.house.served.stop)
        return Soaked(*found, warnings=s.warnings_in(house.house.served.errors()))


async def _soak(scales: Scales, pace: Pace, rng: random.Random) -> tuple:
    house = scales.house
    async with person(house.house.served) as someone:
        owners, keys = await teams_and_keys(house, someone)
        load = Load(house.house.served, keys, rng)
        await load.run(WARM_S)
        before = await asyncio.to_thread(scales.at_rest)
        async with people(house, keys, someone, pace.page_every_s, pace.key_every_s) as at_work:
            await under_load(scales, load, pace)
    books = await complete(house, load, scales)
    live = await live_and_ledger(house.house.served, books)
    standing = await asyncio.to_thread(house.at_rest, *owners)
    not_back = await asyncio.to_thread(given_back, scales, before)
    wires = await connected(house.port, PLANTED)
    planted = s.not_back(before, await asyncio.to_thread(scales.fresh))
    for wire in wires:
        wire.leave()
    return scales, load, at_work, books, standing, live, not_back, planted


async def under_load(scales: Scales, load: Load, pace: Pace) -> None:
    provider = scales.house.house.provider
    provider.script(*trouble(load.rng, int(A_SECOND * pace.load_s * ATTEMPTS_A_CALL)))
    scales.began = time.monotonic()
    async with asyncio.TaskGroup() as both:
        weighing = both.create_task(scales.run())
        await load.run(pace.load_s)
        weighing.cancel()


async def complete(house: Together, load: Load, scales: Scales) -> b.Books:
    """The books when all is on them that anybody knows of."""
    await asyncio.to_thread(house.house.wait_for_rest, 60)
    await asyncio.to_thread(scales.read_provider)
    known = {each.call_id for each in load.seen if each.call_id is not None and not each.refused}
    known |= set(b.upstream_calls(scales.lines))
    await asyncio.to_thread(eventually, lambda: all_booked(house.house.served, known), 30, "the last entries")
    return b.read_books(house.house.served.rows)


def given_back(scales: Scales, before: Mapping[str, s.Sample]) -> list[str]:
    """What is still held more than before, when there was time enough to give it back."""
    deadline = time.monotonic() + REST_S
    while (found := s.not_back(before, scales.at_rest())) and time.monotonic() < deadline:
        continue
    return found


def keep(scales: Scales, folder: Path | None) -> None:
    """For a plot: the samples, and what each process said of itself."""
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "samples.json").write_bytes(msgspec.json.encode(scales.samples))
    for each in scales.inside.glob("*.jsonl"):
        shutil.copy(each, folder)
    shutil.copy(scales.house.house.served.var_dir / "err.txt", folder / "log.txt")


def told(soaked: Soaked, pace: Pace) -> str:
    """One paragraph with all figures."""
    attempts = sum(len(each) for each in soaked.calls().values())
    faults = list(faults_in(soaked.scales.lines))
    at_work = soaked.at_work
    return (
        f"O8  {pace.load_s:.0f} s, {len(soaked.load.seen)} calls; {attempts} attempts, "
        f"{len(faults)} of them faulty ({s.counted(faults)}). "
        f"Clients saw {s.counted_of(soaked.load.answers)}. "
        f"Entries: {s.counted(each.outcome for each in soaked.books.entries)}; joined to the call: 0 wrong. "
        f"Meanwhile {at_work.frames} frames of the live page, {at_work.pages} pages, "
        f"{at_work.made} keys made, rotated and revoked. {len(soaked.warnings)} warnings. "
        f"After {pace.warm_up_s:.0f} s of warm-up: {s.told(soaked.scales.samples, pace.warm_up_s)}. "
        f"At rest: {'; '.join(soaked.not_back) or 'sockets and tasks are back to what they were'}."
    )


def check(soaked: Soaked) -> None:
    """The books to the call, the counters to the unit, and nothing left open."""
    calls = soaked.calls()
    assert soaked.load.surprises == []
    assert b.findings(soaked.load.seen, calls, soaked.books) == []
    assert list(drifted(soaked.standing)) == []
    assert soaked.live[0] == soaked.live[1]
    assert soaked.warnings == []
    assert soaked.not_back == []
    assert len(soaked.planted) == 1
    assert soaked.planted[0].startswith("worker: ")
    check_detectors(soaked, calls)


def check_detectors(soaked: Soaked, calls: dict[str, list[b.Upstream]]) -> None:
    """Each finds its own fault in copies of these very books."""
    whole = {each.call_id for each in soaked.load.seen if each.whole}
    tries = {call_id: len(each) for call_id, each in soaked.books.attempts_by_call().items()}
    once, again = (
        next(each for each, n in tries.items() if each in whole and n == tried) for tried in (1, 2)
    )
    for kind, planted in plants(soaked.books, once, again).items():
        assert any(each.startswith(kind) for each in b.findings(soaked.load.seen, calls, planted)), kind


async def test_half_a_minute_of_everything_leaves_nothing_open_and_right_books(tmp_path, say):
    pace = Pace(load_s=20, weigh_every_s=1, page_every_s=1, key_every_s=4, kept_s=1)
    soaked = await soak(tmp_path, pace, seed=20)

    say(told(soaked, pace))
    check(soaked)


@pytest.mark.prove
async def test_an_hour_of_everything_leaves_nothing_open_and_right_books_and_nothing_grows(tmp_path, say):
    pace = Pace(
        float(os.environ.get("SOAK_SECONDS", "3600")),
        weigh_every_s=10,
        page_every_s=15,
        key_every_s=60,
        kept_s=30,
    )
    folder = os.environ.get("SOAK_FOLDER")
    soaked = await soak(tmp_path, pace, seed=60, kept=Path(folder) if folder else None)

    say(told(soaked, pace))
    check(soaked)
    if pace.load_s >= LONG_ENOUGH_S:
        assert s.leaks(soaked.scales.samples, pace.warm_up_s) == []
