"""How soon every process goes by a change: a revoked key, a changed limit, a changed route.

A change is said to be done when the management API has answered, or a command in a process of its own has
committed. Calls sent from then on that still go by what was before are late.
"""

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.simulator import Step
from tests.redis import RunningRedis
from tests.served import ROOT, Served, provider_of, serve
from tests.soon import soon
from tests.system.conftest import enter_prices
from tests.system.together.channel import Channel, channel_to
from tests.system.together.house import ROOMY
from tests.system.together.keys import (
    Crew,
    Made,
    Person,
    Probe,
    Watch,
    crew_of,
    have_heard,
    is_let_in,
    late_s,
    p99_of,
    person,
    told_ms,
)
from tests.system.upstream_side.clients import Answer, Wire
from tests.system.upstream_side.house import House
from tests.system.upstream_side.provider import Provider, running_provider

PROCESSES = 4
MODEL_NAME, OTHER_NAME = "gpt-4o", "gpt-4o-mini"
UNLIMITED = {
    "KEY_REQUESTS_PER_MINUTE": "0",
    "TEAM_REQUESTS_PER_MINUTE": "0",
    "TEAM_TOKENS_PER_MINUTE": "0",
}
USUAL_S, WITHOUT_REDIS_S, STREAMS_S = 0.1, 1.5, 2.0
"""The bounds: at p99 through Redis; at most where it is dead or cut off; until a stream is ended."""

COMMAND = """
import sys, time
from accounts.models import ApiKey
from accounts.services import revoke_key
for line in sys.stdin:
    revoke_key(ApiKey.objects.get(pk=int(line)), by=None)
    print(time.monotonic(), flush=True)
"""
FORGET_TO_SAY = "UPDATE accounts_apikey SET revoked_at = '2030-01-01 00:00:00' WHERE id = ?"


@dataclass
class Scene:
    """Four processes that serve, and who changes what they go by."""

    house: House
    person: Person
    crew: Crew

    def watch(self, key: Made, model_name: str = MODEL_NAME) -> Watch:
        return Watch(self.crew, self.house.request(model_name, key=key.text, max_tokens=4))

    async def revoked(self, count: int, person: Person | None = None) -> list[float]:
        """How late the last process was to hear of each of so many revocations."""
        by = person or self.person
        keys = await self.person.make_keys(count)
        return [await self.watch(key).see(lambda key=key: by.revoke(key), is_let_in) for key in keys]

    async def revoked_by_command(self, count: int) -> list[float]:
        keys = await self.person.make_keys(count)
        async with command(self.house.served) as revoke:
            return [await self.watch(key).see(lambda key=key: revoke(key), is_let_in) for key in keys]

    async def limited(self, count: int) -> list[float]:
        key = await self.person.make_key("limited")
        await self.person.limit(key, 10**6)
        found = []
        for amount in range(10**6 + 1, 10**6 + 1 + count):

            def is_old(answer: Answer, amount: int = amount) -> bool:
                assert answer.status == 200, answer.body
                return answer.header("x-ratelimit-limit-requests") != str(amount)

            found.append(
                await self.watch(key).see(lambda amount=amount: self.person.limit(key, amount), is_old)
            )
        return found

    async def switched(self, count: int) -> list[float]:
        """A route is disabled and enabled by turns."""
        key = await self.person.make_key("routed")
        routes = (await self.person.ask("GET", "/routes"))["items"]
        [route_id] = [each["id"] for each in routes if each["model_name"] == OTHER_NAME]
        found = []
        for number in range(count + count % 2):  # so that it is enabled at the end
            enabled = bool(number % 2)

            async def switch(enabled: bool = enabled) -> float:
                await self.person.ask("PATCH", f"/routes/{route_id}", enabled=enabled)
                return time.monotonic()

            def is_old(answer: Answer, enabled: bool = enabled) -> bool:
                assert answer.status in (200, 404), answer.body
                return (answer.status == 200) != enabled

            found.append(await self.watch(key, OTHER_NAME).see(switch, is_old))
        return found

    async def shows_a_plant(self) -> None:
        """A key that is revoked behind everybody's back: nobody hears of it, and this is seen."""
        key = await self.person.make_key("planted")

        async def behind_their_backs() -> float:
            path = self.house.served.var_dir / "penstock.sqlite3"
            with contextlib.closing(sqlite3.connect(path, timeout=10)) as books, books:
                books.execute(FORGET_TO_SAY, (key.id,))
            return time.monotonic()

        with pytest.raises(AssertionError, match="no change in every process"):
            await self.watch(key).see(behind_their_backs, is_let_in, WITHOUT_REDIS_S)


@contextlib.asynccontextmanager
async def command(served: Served) -> AsyncIterator[Callable[[Made], Awaitable[float]]]:
    """Another process on the same database, which serves nobody; it says when it has committed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "manage.py", "shell", "--no-imports", "-c", COMMAND),
        cwd=ROOT,
        env=served._environ(),  # as `served.manage` gives it to commands that end
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    said, heard = process.stdin, process.stdout

    async def revoke(key: Made) -> float:
        said.write(b"%d\n" % key.id)
        return float(await heard.readline())

    try:
        yield revoke
    finally:
        said.close()
        await process.wait()


@contextlib.asynccontextmanager
async def scene(folder: Path, provider: Provider, redis: RunningRedis) -> AsyncIterator[Scene]:
    """All four are workers of one gateway."""
    with opened(folder, provider, REDIS_URL=redis.url, WORKERS=str(PROCESSES)) as house:
        await asyncio.to_thread(enter_prices, house.served)
        async with person(house.served) as by, crew_of(house.served) as crew:
            assert len(crew) == PROCESSES
            yield Scene(house, by, crew)


@contextlib.contextmanager
def opened(folder: Path, provider: Provider, **environ: str) -> Iterator[House]:
    """A gateway whose log may tell of a Redis that is away."""
    routed = provider_of(provider.base_url, MODEL_NAME, OTHER_NAME)
    with serve(folder / "var", ROOMY, **routed, **environ, **UNLIMITED) as served:
        house = House(served, provider)
        yield house
        mine = [line for line in house.complaints() if "Traceback" not in line]  # Celery's beat writes those
        assert mine == []


def test_who_is_late_is_found() -> None:
    """One process lets a call in 0.4 s after it was said, and again after it had refused one."""
    yes, no = Answer(200, b"", b"", 0.0), Answer(401, b"", b"", 0.0)
    good = [Probe(1, 9.9, yes), Probe(2, 9.95, yes), Probe(1, 10.1, no), Probe(2, 10.1, no)]
    planted = [*good, Probe(2, 10.4, yes)]

    assert late_s(good, 10.0, is_let_in) == 0.0
    assert late_s(planted, 10.0, is_let_in) == pytest.approx(0.4)
    assert have_heard(good, [1, 2], is_let_in, now=10.5)
    assert not have_heard(good, [1, 2], is_let_in, now=10.2)
    assert not have_heard(good, [1, 2, 3], is_let_in, now=10.5)
    assert not have_heard(planted, [1, 2], is_let_in, now=10.5)


def measured(setting: str, changes: Mapping[str, list[float]], slack: float) -> list[str]:
    """In sentences. `slack` is for machines that do much else: times may be so many times the bound."""
    for what, found in changes.items():
        assert max(found) <= WITHOUT_REDIS_S * slack, f"{what}: {found}"
    return [f"S4  {setting}, {what}: let in for {told_ms(found)}" for what, found in changes.items()]


async def hear_at_once(scene: Scene, revocations: int, others: int, slack: float = 1) -> list[str]:
    """What was measured, in sentences."""
    await scene.shows_a_plant()
    changes = {
        "revoked by the API": await scene.revoked(revocations),
        "revoked by a command": await scene.revoked_by_command(others),
        "a changed limit": await scene.limited(others),
        "a changed route": await scene.switched(others),
    }
    for what, found in changes.items():
        assert p99_of(found) <= USUAL_S * slack, f"{what}: {found}"
    return measured("4 processes", changes, slack)


@contextlib.contextmanager
def dead(redis: RunningRedis) -> Iterator[None]:
    """Killed between these lines."""
    redis.kill()
    try:
        yield
    finally:
        redis.start()


async def hear_without_redis(scene: Scene, redis: RunningRedis, count: int, slack: float = 1) -> list[str]:
    redis.freeze()
    frozen = await scene.revoked(count)
    redis.thaw()
    with dead(redis):
        changes = {
            "revoked with Redis frozen": frozen,
            "revoked with Redis dead": await scene.revoked(count),
            "revoked by a command with Redis dead": await scene.revoked_by_command(count),
            "a changed limit with Redis dead": await scene.limited(count),
            "a changed route with Redis dead": await scene.switched(count),
        }
    return measured("4 processes", changes, slack)


async def test_every_process_goes_by_a_change(tmp_path, provider, redis, say):
    async with scene(tmp_path, provider, redis) as four:
        for line in await hear_at_once(four, 15, 5, 10) + await hear_without_redis(four, redis, 3, 10):
            say(line)


@pytest.mark.prove
async def test_every_process_goes_by_two_hundred_revocations(tmp_path, provider, redis, say):
    async with scene(tmp_path, provider, redis) as four:
        for line in await hear_at_once(four, 200, 40):
            say(line)
        for line in await hear_without_redis(four, redis, 20):
            say(line)


@contextlib.asynccontextmanager
async def scene_of_two(
    folder: Path, provider: Provider, redis: RunningRedis
) -> AsyncIterator[tuple[Scene, Person, Channel]]:
    """Three processes of one gateway, and one of another, with its person, whose way to Redis can be cut."""
    routed = provider_of(provider.base_url, MODEL_NAME, OTHER_NAME)
    async with channel_to(redis) as channel, contextlib.AsyncExitStack() as stack:
        near = opened(folder, provider, REDIS_URL=redis.url, WORKERS="3")
        house = await asyncio.to_thread(stack.enter_context, near)
        far = serve(house.served.var_dir, out="far.txt", REDIS_URL=channel.url, **routed, **UNLIMITED)
        other = await asyncio.to_thread(stack.enter_context, far)
        await asyncio.to_thread(enter_prices, house.served)
        by = await stack.enter_async_context(person(house.served))
        cut_off = await stack.enter_async_context(person(other))
        crew = await stack.enter_async_context(crew_of(house.served, other))
        assert len(crew) == PROCESSES
        yield Scene(house, by, crew), cut_off, channel


async def hear_although_cut_off(
    folder: Path, provider: Provider, redis: RunningRedis, count: int, slack: float = 1
) -> list[str]:
    async with scene_of_two(folder, provider, redis) as (four, cut_off, channel):
        changes = {"revoked while it was not": await four.revoked(count)}
        channel.cut()
        changes |= {
            "revoked at one of the others": await four.revoked(count),
            "revoked at the one": await four.revoked(count, cut_off),
            "revoked by a command": await four.revoked_by_command(count),
            "a changed limit": await four.limited(count),
            "a changed route": await four.switched(count),
        }
        channel.mend()
        changes["revoked once it was mended"] = await four.revoked(count)
    return measured("one of 4 cut off from Redis", changes, slack)


async def test_a_process_that_is_cut_off_from_redis_hears_too(tmp_path, provider, redis, say):
    for line in await hear_although_cut_off(tmp_path, provider, redis, 3, 10):
        say(line)


@pytest.mark.prove
async def test_a_process_that_is_cut_off_from_redis_hears_twenty_times(tmp_path, provider, redis, say):
    for line in await hear_although_cut_off(tmp_path, provider, redis, 20):
        say(line)


@dataclass
class Stream:
    """An open stream of one key, as its client reads it."""

    wire: Wire
    came: list[tuple[float, bytes]] = field(default_factory=list)
    ended: bool = False

    async def read(self, request: bytes) -> None:
        """Until its end; `came` has the moments of its chunks."""
        self.wire.writer.write(request)
        head = await self.wire.reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head.partition(b"\r\n")[0], head
        async for chunk in self.wire.chunks():
            self.came.append((time.monotonic(), chunk))
        self.ended = True

    @property
    def last(self) -> bytes:
        return self.came[-1][1]


@contextlib.asynccontextmanager
async def streams(scene: Scene, key: Made, crew: Crew) -> AsyncIterator[list[Stream]]:
    """One at every process, each of them with some of its content."""
    request = scene.house.request(MODEL_NAME, key=key.text, stream=True, max_tokens=4000)
    found = [Stream(wires[0]) for wires in crew.values()]
    reading = [asyncio.create_task(each.read(request)) for each in found]
    try:
        await soon(lambda: all(len(each.came) > 2 for each in found), "the streams' beginning", within_s=20)
        yield found
    finally:
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)


async def cut_streams(scene: Scene, neighbour: Made, key: Made) -> list[float]:
    """When each stream of the key had ended, in seconds after the answer; the neighbour's go on."""
    served = scene.house.served
    async with (
        crew_of(served, each=1) as mine,
        crew_of(served, each=1) as theirs,
        streams(scene, key, mine) as ending,
        streams(scene, neighbour, theirs) as staying,
    ):
        said_at = await scene.person.revoke(key)
        await soon(lambda: all(each.ended for each in ending), "the streams' end", within_s=10)
        at = time.monotonic()
        await soon(lambda: all(each.came[-1][0] > at + 0.1 for each in staying), "the others' next chunk")
        assert not any(each.ended for each in staying)
    for each in ending:
        assert b'"code":"invalid_api_key"' in each.last
        assert not any(b"[DONE]" in chunk for _, chunk in each.came)
    query = "SELECT outcome FROM gateway_entry WHERE key_id = ?"
    await soon(lambda: served.rows(query, key.id) == [("truncated",)] * PROCESSES, "the entries")
    return [each.came[-1][0] - said_at for each in ending]


async def cut_all(scene: Scene, neighbour: Made, keys: Sequence[Made]) -> list[float]:
    return [late for key in keys for late in await cut_streams(scene, neighbour, key)]


async def end_open_streams(folder: Path, redis: RunningRedis, rounds: int, slack: float = 1) -> list[str]:
    with running_provider(folder / "slow", speed=0.5) as provider:
        provider.script(Step(count=None, text="The water goes down. " * 1000))
        async with scene(folder, provider, redis) as four:
            neighbour, *keys = await four.person.make_keys(2 * rounds + 1)
            usual = await cut_all(four, neighbour, keys[:rounds])
            with dead(redis):
                alone = await cut_all(four, neighbour, keys[rounds:])
    lines = []
    for what, found in (("", usual), (" with Redis dead", alone)):
        assert max(found) <= STREAMS_S * slack, found
        lines.append(f"S4  open streams of a revoked key{what}: ended after {told_ms(found)}")
    return lines


async def test_open_streams_of_a_revoked_key_end_and_others_go_on(tmp_path, redis, say):
    for line in await end_open_streams(tmp_path, redis, 2, 10):
        say(line)


@pytest.mark.prove
async def test_a_hundred_open_streams_of_revoked_keys_end(tmp_path, redis, say):
    for line in await end_open_streams(tmp_path, redis, 13):
        say(line)
