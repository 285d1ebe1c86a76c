"""A key's secret is replaced again and again while five programs call with it, fifty times a second in all.

Each program goes on with its old secret until the new one has reached it, one after the other, as people do.
"""

import asyncio
import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tests.redis import RunningRedis
from tests.soon import soon
from tests.system.live import signed_in
from tests.system.together.crowds import at_once
from tests.system.together.findings import EXHAUSTED, LIMITED, wrong_answers
from tests.system.together.house import Together, together
from tests.system.together.keys import Crew, Made, Person, Watch, crew_of, is_let_in, person, told_ms
from tests.system.upstream_side.clients import Answer, Wires, wires_to
from tests.system.upstream_side.house import House
from tests.system.upstream_side.provider import Provider

MODEL_NAME = "gpt-4o"
PROGRAMS = ("ant/1.0", "bee/1.0", "cat/1.0", "dog/1.0", "elk/1.0")
CALLS_A_SECOND = 50
PROCESSES = 2
ENDED_S = 1.5
FLUSHED_S = 40.0
"""Uses are gathered in each process and written every ten seconds."""
UNDER_WAY = b"while the call was under way"
UNLIMITED = {
    "KEY_REQUESTS_PER_MINUTE": "0",
    "TEAM_REQUESTS_PER_MINUTE": "0",
    "TEAM_TOKENS_PER_MINUTE": "0",
}


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a program with one secret."""

    secret: str
    program: str
    status: int
    was_let_in: bool
    """Perhaps only to be ended under way."""

    @classmethod
    def of(cls, secret: str, program: str, answer: Answer) -> "Call":
        was_let_in = answer.status == 200 or UNDER_WAY in answer.body
        return cls(secret, program, answer.status, was_let_in)


@dataclass
class Program:
    """Calls at even distances with the secret it has, whatever becomes of the calls before."""

    house: House
    wires: Wires
    name: str
    key: Made
    calls: list[Call] = field(default_factory=list)
    stopping: bool = False

    async def run(self) -> None:
        due = time.monotonic()
        async with asyncio.TaskGroup() as calls:
            while not self.stopping:
                calls.create_task(self.call())
                due += len(PROGRAMS) / CALLS_A_SECOND
                await asyncio.sleep(due - time.monotonic())  # at once where it is late

    async def call(self) -> None:
        secret = self.key.text
        answer = await self.wires.ask(as_program(self.house, self.name, secret))
        self.calls.append(Call.of(secret, self.name, answer))

    def called_with(self, secret: str) -> bool:
        return self.calls[-1].secret == secret if self.calls else False


def as_program(house: House, name: str, secret: str) -> bytes:
    request = house.request(MODEL_NAME, key=secret, max_tokens=4)
    return request.replace(b"\r\n", f"\r\nUser-Agent: {name}\r\n".encode(), 1)


def refused(calls: Sequence[Call]) -> Iterator[str]:
    """No call that was sent before its secret's end may be refused."""
    for (program, status), count in Counter((each.program, each.status) for each in calls).items():
        if status != 200:
            yield f"{count} calls of {program} got {status}"


def miscounted(calls: Sequence[Call], secrets: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Each secret has as many uses as there were calls with it, by whom and from where they came."""
    uses: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for each in calls:
        if each.was_let_in:
            uses[each.secret][each.program] += 1
    for each in secrets:
        [mine] = [found for text, found in uses.items() if text.startswith(str(each["prefix"]))] or [
            Counter()
        ]
        if each["uses"] != mine.total():
            yield f"{each['prefix']} has {each['uses']} uses, not {mine.total()}"
        told = {program["user_agent"]: program["uses"] for program in each["programs"]}
        if told != dict(mine):
            yield f"{each['prefix']} has {told}, not {dict(mine)}"
        if mine and (each["last_user_agent"] not in mine or each["last_used_from"] != "127.0.0.1"):
            yield f"{each['prefix']} was last used by {each['last_user_agent']} from {each['last_used_from']}"


def test_a_refused_call_and_a_wrong_count_are_found() -> None:
    calls = [Call("pst_old_x", "ant/1.0", 200, True), Call("pst_old_x", "ant/1.0", 401, False)]
    secret = {"prefix": "pst_old", "uses": 1, "last_user_agent": "ant/1.0", "last_used_from": "127.0.0.1"}
    right = {**secret, "programs": [{"user_agent": "ant/1.0", "uses": 1}]}

    assert list(refused(calls)) == ["1 calls of ant/1.0 got 401"]
    assert list(miscounted(calls, [right])) == []
    assert list(miscounted(calls, [{**right, "uses": 2}])) == ["pst_old has 2 uses, not 1"]
    assert len(list(miscounted(calls, [{**right, "programs": []}]))) == 1
    assert len(list(miscounted(calls, [{**right, "last_used_from": ""}]))) == 1


@dataclass
class Scene:
    house: House
    person: Person
    crew: Crew
    programs: list[Program]
    ended_late: list[float] = field(default_factory=list)
    watched: list[Call] = field(default_factory=list)
    """Calls that asked every process whether an ended secret is let in."""
    _ending: asyncio.Task[None] | None = None

    @property
    def calls(self) -> list[Call]:
        return [*chain.from_iterable(each.calls for each in self.programs)]

    async def rotate(self, key: Made, old_id: int) -> tuple[Made, int]:
        """Replace the secret, hand the new one out to one program after the other, and end the old one.

        Whether the end is kept to is seen while the next rotation has begun.
        """
        fresh, fresh_id = await self.person.rotate(key)
        for each in self.programs:
            await self._are_calling([each], key)
            each.key = fresh
        await self._are_calling(self.programs, fresh)
        await self.ends()
        self._ending = asyncio.create_task(self._end(key, old_id))
        return fresh, fresh_id

    async def ends(self) -> None:
        """The last rotation's old secret is refused everywhere."""
        if self._ending is not None:
            await self._ending

    async def _are_calling(self, programs: Sequence[Program], key: Made) -> None:
        """Each of them has had an answer with this secret since now."""
        before = [len(each.calls) for each in programs]

        def all_called() -> bool:
            pairs = zip(programs, before, strict=True)
            return all(len(each.calls) > had and each.called_with(key.text) for each, had in pairs)

        await soon(all_called, "a call of every program", within_s=30)

    async def _end(self, key: Made, secret_id: int) -> None:
        request = as_program(self.house, "watch/1.0", key.text)
        watch = Watch(self.crew, request)
        self.ended_late.append(await watch.see(lambda: self.person.end_overlap(key, secret_id), is_let_in))
        self.watched += [Call.of(key.text, "watch/1.0", each.answer) for each in watch.probes]

    async def shows_a_plant(self, key: Made) -> Made:
        """An overlap of nothing, while every program still has the old secret: they are refused."""
        fresh, _ = await self.person.rotate(key, overlap_s=0)
        await soon(lambda: all(each.calls[-1].status == 401 for each in self.programs), "refused calls")
        for each in self.programs:
            each.key = fresh
        await self._are_calling(self.programs, fresh)
        return fresh


@contextlib.asynccontextmanager
async def calling(opened: Together) -> AsyncIterator[tuple[Scene, Made]]:
    """Five programs that call with the first secret of one key."""
    house = opened.house
    async with person(house.served) as by, contextlib.AsyncExitStack() as stack:
        key = await by.make_key("rotated")
        crew = await stack.enter_async_context(crew_of(house.served, each=2))
        programs = []
        for name in PROGRAMS:
            wires = await stack.enter_async_context(wires_to(house.served.port))
            programs.append(Program(house, wires, name, key))
        running = [asyncio.create_task(each.run()) for each in programs]
        try:
            yield Scene(house, by, crew, programs), key
        finally:
            for each in programs:
                each.stopping = True
            await asyncio.gather(*running)


async def rotate_under_load(
    folder: Path, provider: Provider, redis: RunningRedis, rotations: int, slack: float = 1
) -> list[str]:
    """`slack` is for machines that do much else: times may be so many times the bound."""
    opened = together(folder, provider, redis, PROCESSES, MODEL_NAME, **UNLIMITED)
    with opened as two:
        async with calling(two) as (scene, key):
            [first] = await scene.person.secrets(key)
            secret_id, began = first["id"], time.monotonic()
            for _ in range(rotations):
                key, secret_id = await scene.rotate(key, secret_id)
            await scene.ends()
            took_s = time.monotonic() - began
            good = scene.calls
            assert list(refused(good)) == []
            key = await scene.shows_a_plant(key)
            assert list(refused(scene.calls)) != []
        assert max(scene.ended_late) <= ENDED_S * slack, scene.ended_late
        async with person(two.house.served) as by:
            await right_at_the_end(two, by, key, scene)
            await one_quota_for_both(two, by)
    rate = len(good) / took_s
    return [
        f"S5  {rotations} rotations, {PROCESSES} processes: {len(good)} calls, {rate:.0f} a second, "
        "0 refused; every secret's uses, programs and address right",
        f"S5  an ended secret: let in for {told_ms(scene.ended_late)}, then never",
    ]


async def right_at_the_end(two: Together, by: Person, key: Made, scene: Scene) -> None:
    """Three of five programs take a new secret at once, two do not; all figures are as the clients know."""
    fresh, _ = await by.rotate(key)
    async with wires_to(two.port) as wires:
        for number, each in enumerate(scene.programs):
            each.wires, each.key = wires, fresh if number < 3 else key
            await each.call()
    calls = scene.calls + scene.watched
    deadline = time.monotonic() + FLUSHED_S
    while wrong := list(miscounted(calls, await by.secrets(key))):
        assert time.monotonic() < deadline, wrong
        await asyncio.sleep(0.5)
    async with signed_in(two.house.served) as browser, browser.get(f"/keys/{key.id}/") as page:
        text = await page.text()
    assert "2 programs still use the old secret" in text


async def one_quota_for_both(two: Together, by: Person) -> None:
    """Forty calls a day, and forty a minute: ten with each secret, and twenty of sixty sent at once."""
    for bounds, code in ((("requests", 40, "day"), EXHAUSTED), (("requests", 40, "minute"), LIMITED)):
        made = two.key(f"bounded by {code}", bounds)
        old = Made(made.id, made.text)
        fresh, _ = await by.rotate(old)
        either = [two.house.request(MODEL_NAME, key=each.text, max_tokens=4) for each in (old, fresh)]
        for request in either:
            assert list(wrong_answers(await at_once(two.port, [request] * 10), 10, code)) == []
        assert list(wrong_answers(await at_once(two.port, either * 30), 20, code)) == []


async def test_programs_notice_nothing_of_ten_rotations(tmp_path, provider, redis, say):
    for line in await rotate_under_load(tmp_path, provider, redis, 10, slack=10):
        say(line)


@pytest.mark.prove
async def test_programs_notice_nothing_of_two_hundred_rotations(tmp_path, provider, redis, say):
    for line in await rotate_under_load(tmp_path, provider, redis, 200):
        say(line)
