"""A stream that breaks, wherever and however: the official SDK raises its own error, and the books say so."""

import asyncio
import gc
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway.relay.breaker import BreakerPolicy
from gateway.relay.catalog import PoolConfig, Route, Secret, Target
from gateway.relay.retry import RetryPolicy
from gateway.simulator.server import SimulatorServer
from tests.gateway.relay.carried import CREDENTIAL, PRICE, House, house_of
from tests.gateway.relay.failing import DONE
from tests.gateway.relay.witnessed import front_of
from tests.upstreams.h1_server import H1Exchange, h1_upstream
from tests.upstreams.upstream import EVENTS, Step, Upstream, event

WORDS = [f"word{number} " for number in range(20)]
GOOD = b"".join(event(each) for each in WORDS)
NEVER_OPENS = BreakerPolicy(consecutive=10**9)
ONCE = RetryPolicy(attempts=1)
READ_TIMEOUT_S = 0.3
LEFT_BY_THE_SDK = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""When the SDK raises, it leaves its generators to the collector, where they get into each other's way."""
MALFORMED = (
    *(b"{oops", b'{"choices": [', b'{"choices": [{"delta": {"content": "a', b"undefined", b"<html>", b"NaN"),
    *(b"null", b"[]", b"5", b'"text"', b"true", b'{"a": NaN}', b'{"a": 1e}', b"{'a': 1}", b'{"a": 1,}', b""),
    *(b'{"a": "\xff\xfe"}', b'{"a": "\xed\xa0\x80"}', b'{"a": "\\ud800"}', b'{"a": "\t"}', b'{"a": "\x00"}'),
    *(b'{"choices": []} {"choices": []}', b"[DONE", b"[done]", b'{"a":' + b"[" * 5000),
)
"""What may stand after `data: ` and is no chunk of a stream."""


@dataclass
class Received:
    """What a program had when its SDK raised."""

    text: str = ""
    raised: Exception | None = None


@dataclass
class Streams:
    """The relay behind a real server, and its provider."""

    home: House
    upstream: Upstream
    base_url: str

    async def read(self, step: Step, *, blocking: bool = False) -> Received:
        """One stream, read to its end by a program."""
        self.upstream.will(step)
        if blocking:
            return await asyncio.to_thread(self._read_blocking)
        received = Received()
        async with openai.AsyncOpenAI(base_url=self.base_url, api_key="known", max_retries=0) as sdk:
            try:
                async for chunk in await sdk.chat.completions.create(**ASKED):
                    received.text += said_in(chunk)
            except Exception as why:  # noqa: BLE001 - which one it is, is what is asked
                received.raised = why
        return received

    def _read_blocking(self) -> Received:
        received = Received()
        with openai.OpenAI(base_url=self.base_url, api_key="known", max_retries=0) as sdk:
            try:
                for chunk in sdk.chat.completions.create(**ASKED):
                    received.text += said_in(chunk)
            except Exception as why:  # noqa: BLE001 - as above
                received.raised = why
        return received


ASKED: Any = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "Hello"}],
    "stream": True,
}


def said_in(chunk: Any) -> str:
    return "".join(choice.delta.content or "" for choice in chunk.choices)


@asynccontextmanager
async def streaming(folder: Path) -> AsyncIterator[Streams]:
    async with h1_upstream() as upstream:
        target = Target(
            1,
            "openai",
            upstream.base_url,
            "gpt-4o",
            Secret(CREDENTIAL),
            prices=(PRICE,),
            pool=PoolConfig(read_timeout_s=READ_TIMEOUT_S),
        )
        route = Route("gpt-4o-mini", (target,), timeout_s=10.0)
        async with house_of({"gpt-4o-mini": route}, folder, retry=ONCE, breaker=NEVER_OPENS) as home:
            server = SimulatorServer(front_of(home))
            await server.start()
            try:
                yield Streams(home, upstream, server.base_url)
            finally:
                await server.stop()
                gc.collect()  # what the SDK left is this test's to clear away


async def end(exchange: H1Exchange) -> None:
    await exchange.end()


async def reset(exchange: H1Exchange) -> None:
    await exchange.reset()


async def break_a_chunk(exchange: H1Exchange) -> None:
    exchange.raw(b"1000\r\nhalf of it")
    await exchange.reset()


async def say_no_number(exchange: H1Exchange) -> None:
    exchange.raw(b"zz\r\n")


async def fall_silent(exchange: H1Exchange) -> None:
    await exchange.left.wait()


WAYS: tuple[Callable[[H1Exchange], Any], ...] = (end, reset, break_a_chunk, say_no_number, fall_silent)


def cut(dice: random.Random) -> Step:
    """The good stream up to some byte before `[DONE]`, and one of the ways in which it may end there."""
    place, way = dice.randrange(len(GOOD) + 1), dice.choice(WAYS)

    async def step(exchange: H1Exchange) -> None:
        await exchange.begin(200, {"content-type": EVENTS})
        if place:
            await exchange.send(GOOD[:place])
        await way(exchange)

    return step


def malformed(dice: random.Random) -> Step:
    """The good stream with one event that is no chunk, at some place."""
    place, what = dice.randrange(len(WORDS)), dice.choice(MALFORMED)
    before = b"".join(event(each) for each in WORDS[:place])
    after = b"".join(event(each) for each in WORDS[place:])

    async def step(exchange: H1Exchange) -> None:
        await exchange.begin(200, {"content-type": EVENTS})
        await exchange.send(before + b"data: " + what + b"\n\n" + after + DONE)
        await exchange.end()

    return step


async def raised_by(
    breaking: Callable[[random.Random], Step], count: int, folder: Path
) -> Counter[tuple[str, str]]:
    """So many broken streams, each looked at; how often which error met which outcome."""
    dice = random.Random(f"{breaking.__name__} {count}")
    async with streaming(folder) as streams:
        found: Counter[tuple[str, str]] = Counter()
        for number in range(count):
            received = await streams.read(breaking(dice), blocking=number % 5 == 0)
            entry = streams.home.books.entries[-1]
            assert len(streams.home.books.entries) == number + 1
            assert isinstance(received.raised, openai.APIError), f"{received} and {entry}"
            assert "".join(WORDS).startswith(received.text)
            assert entry.outcome == ("truncated" if entry.status == 200 else "failed")
            found[type(received.raised).__name__, entry.outcome] += 1
    return found


BREAKING = pytest.mark.parametrize("breaking", [cut, malformed], ids=["cut", "malformed"])


async def test_the_sdk_reads_a_good_stream(tmp_path: Path) -> None:
    async def step(exchange: H1Exchange) -> None:
        await exchange.begin(200, {"content-type": EVENTS})
        await exchange.send(GOOD + DONE)
        await exchange.end()

    async with streaming(tmp_path / "journal") as streams:
        for blocking in (False, True):
            received = await streams.read(step, blocking=blocking)
            assert (received.text, received.raised) == ("".join(WORDS), None)


@LEFT_BY_THE_SDK
@BREAKING
async def test_the_sdk_raises_whatever_breaks_a_stream(
    breaking: Callable[[random.Random], Step], tmp_path: Path
) -> None:
    found = await raised_by(breaking, 40, tmp_path / "journal")
    assert {outcome for _, outcome in found} == {"truncated", "failed"}


@pytest.mark.prove
@LEFT_BY_THE_SDK
@BREAKING
async def test_the_sdk_raises_whatever_breaks_any_of_many_streams(
    breaking: Callable[[random.Random], Step], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = await raised_by(breaking, 1000, tmp_path / "journal")
    with capsys.disabled():
        print(f"\n{breaking.__name__}: {dict(found)}")
