"""Many calls over kept connections to a provider that breaks HTTP: nobody is given another's answer.

Each call asks for an answer of its own, which the test knows in advance, word for word.
An answer that nobody asked for and that comes while the next call is under way is not among the faults:
HTTP/1.1 has nothing by which a client could tell it from its own. So whatever follows an answer here
comes in the same breath with it, or while the connection lies idle.
"""

import asyncio
import logging
import random
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.relay.breaker import BreakerPolicy
from gateway.relay.catalog import Route, Secret, Target, TransportName
from gateway.relay.records import CallOutcome, Settled
from gateway.simulator import Fault, RunningSimulator, Step, running_simulator
from gateway.simulator.answers import compose, decode_request
from gateway.simulator.breaches import SMUGGLED, second_answer
from gateway.simulator.rendering import UsageStyle, stream_pieces, whole_body
from tests.gateway import records
from tests.gateway.relay import witnessed
from tests.gateway.relay.carried import CREDENTIAL, PRICE, House, house_of
from tests.gateway.relay.failing import OF_EVENTS, OF_JSON, OK, call_ids_at, said
from tests.gateway.relay.faults import PATIENT
from tests.gateway.relay.witnessed import DONE, Heard, ask, front_of
from tests.upstreams.h1_server import H1Exchange, h1_upstream
from tests.upstreams.upstream import EVENTS, event
from tests.upstreams.upstream import Step as Spoken

AT_ONCE = 12
FAULTS = (
    *(Fault.LENGTH_TOO_SHORT, Fault.LENGTH_TOO_LONG, Fault.UNASKED_INTERIM, Fault.CLOSE_AFTER_ANSWER),
    *(Fault.HALF_CLOSE, Fault.CLOSE_IN_HEADERS, Fault.TRUNCATED_CHUNK, Fault.CLOSE_MID_STREAM),
    *(Fault.RESET_MID_STREAM, Fault.RESET_BEFORE_HEADERS, Fault.NOT_HTTP, Fault.TRUNCATED),
    *(Fault.ERROR_EVENT, Fault.UNAVAILABLE),
)
SAID_LATER = (Fault.SECOND_ANSWER, Fault.SECOND_ANSWER_LATER)
GOOD_SHARE = 0.5
MARKER = re.compile(r"\b[0-9a-f]{16}\b")
NEVER_OPENS = BreakerPolicy(consecutive=10**9)
EIGHT_HOURS_S = 8 * 3600.0


@dataclass
class Asked:
    """One call, and the only words that may answer it."""

    marker: str
    heard: Heard
    words: str


def asked(dice: random.Random) -> Asked:
    marker = f"{dice.getrandbits(64):016x}"
    heard = witnessed.request(f"call {marker}", streamed=dice.random() < 0.5)
    request = decode_request(heard.asked.replace(b"gpt-4o-mini", b"gpt-4o"))
    return Asked(marker, heard, "".join(compose(request, Step(), 0, 0).choices[0].tokens))


def wrong_with(call: Asked, entry: Settled, markers: set[str]) -> str | None:
    """What of another call's answer, or of its own a second time, this one was given; None: nothing."""
    body = call.heard.body.decode()
    if SMUGGLED in body:
        return "an answer that nobody asked for"
    if {*MARKER.findall(body)} & markers - {call.marker}:
        return "another call's answer"
    text = call.heard.text if call.heard.status == 200 else ""
    if entry.outcome == "answered" and text != call.words:
        return f"an answer that is not its own: {text}"
    if not call.words.startswith(text):
        return f"words that are not the beginning of its answer: {text}"
    return None


@asynccontextmanager
async def home_beside(base_url: str, transport: TransportName, folder: Path) -> AsyncIterator[House]:
    target = Target(
        1,
        "openai",
        base_url,
        "gpt-4o",
        Secret(CREDENTIAL),
        prices=(PRICE,),
        transport=transport,
        pool=PATIENT,
    )
    route = Route("gpt-4o-mini", (target,), timeout_s=EIGHT_HOURS_S)
    async with house_of({"gpt-4o-mini": route}, folder, breaker=NEVER_OPENS) as home:
        yield home
        assert await witnessed.settled(lambda: witnessed.is_free(home, target))


async def carry_all(home: House, calls: list[Asked]) -> None:
    """So many at once, one after another."""
    front, left = front_of(home), iter(calls)

    async def carry() -> None:
        for call in left:
            await ask(front, call.heard, within_s=60.0)

    await asyncio.gather(*(carry() for _ in range(AT_ONCE)))


def check(calls: list[Asked], home: House, received: list[str | None]) -> Counter[str]:
    """Look at every call; says how many ended in which way."""
    entries = {each.call_id: each for each in home.books.entries}
    assert len(entries) == len(calls)
    markers = {each.marker for each in calls}
    for call in calls:
        witnessed.check_framing(call.heard)
    wrong = [wrong_with(each, entries[each.heard.call_id], markers) for each in calls]
    assert [each for each in wrong if each is not None] == []
    requests = Counter(received)
    assert requests.keys() <= entries.keys()
    for entry in entries.values():  # an attempt on a connection that had just ended was never received
        assert requests[entry.call_id] <= len(entry.attempts)
    return Counter(each.outcome for each in entries.values())


def script(simulator: RunningSimulator, dice: random.Random, count: int, faults: tuple[Fault, ...]) -> None:
    """So many steps, every other one a fault."""
    chosen = [None if dice.random() < GOOD_SHARE else dice.choice(faults) for _ in range(count)]
    simulator.script([Step(fault=each, after_tokens=dice.randrange(6)) for each in chosen])


async def carry_beside_broken_http(transport: TransportName, count: int, folder: Path) -> Counter[str]:
    dice = random.Random(f"{transport} {count}")
    calls = [asked(dice) for _ in range(count)]
    async with running_simulator(journal=folder / "upstream.jsonl") as simulator:
        script(simulator, dice, 3 * count, FAULTS)
        async with home_beside(simulator.base_url, transport, folder / "journal") as home:
            await carry_all(home, calls)
            return check(calls, home, [each.request_id for each in simulator.journal.received()])


async def carry_in_waves(transport: TransportName, waves: int, folder: Path) -> Counter[str]:
    """The next calls come when the provider has said all that nobody asked for."""
    dice = random.Random(f"{transport} {waves}")
    calls: list[Asked] = []
    async with running_simulator() as simulator:
        journal = simulator.journal
        async with home_beside(simulator.base_url, transport, folder / "journal") as home:
            for _ in range(waves):
                script(simulator, dice, AT_ONCE, SAID_LATER)
                wave = [asked(dice) for _ in range(AT_ONCE)]
                calls += wave
                await carry_all(home, wave)
                await journal.until(lambda book: len(book.ended()) == len(book.received()))
            return check(calls, home, [each.request_id for each in journal.received()])


def echo(dice: random.Random) -> Spoken:
    """The answer that was asked for, and every other time more in the same breath."""
    spoiled, which = dice.random() > GOOD_SHARE, dice.randrange(6)

    async def step(exchange: H1Exchange) -> None:
        request = decode_request(exchange.body)
        answer = compose(request, Step(), 0, 0)
        pieces = stream_pieces(answer, answer.usage, UsageStyle.LAST)
        body = b"".join(each.data for each in pieces) if request.stream else whole_body(answer, answer.usage)
        more = (second_answer(request, 0, 0), b"\r\n\r\n", b"0\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"\0", b"{}")
        lines = (OK, OF_EVENTS if request.stream else OF_JSON, f"content-length: {len(body)}")
        await said(*lines, body=body + more[which] * spoiled, counted=False)(exchange)

    return step


async def carry_with_more_after_answers(transport: TransportName, count: int, folder: Path) -> Counter[str]:
    dice = random.Random(f"{transport} {count}")
    calls = [asked(dice) for _ in range(count)]
    async with h1_upstream() as upstream:
        upstream.will(*(echo(dice) for _ in range(3 * count)))
        async with home_beside(upstream.base_url, transport, folder / "journal") as home:
            await carry_all(home, calls)
            return check(calls, home, [*call_ids_at(upstream)()])


TRANSPORTS = pytest.mark.parametrize("transport", ["http1", "aiohttp", "httpx"])


@TRANSPORTS
async def test_nobody_is_given_anothers_answer_or_a_word_twice(
    transport: TransportName, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes = await carry_beside_broken_http(transport, 500, tmp_path)
    assert outcomes["answered"] > 250
    assert outcomes["truncated"] > 10
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR] == []


@TRANSPORTS
async def test_what_follows_an_answer_in_the_same_breath_is_nobodys(
    transport: TransportName, tmp_path: Path
) -> None:
    outcomes = await carry_with_more_after_answers(transport, 500, tmp_path)
    assert outcomes["answered"] > 250


@TRANSPORTS
async def test_what_was_said_on_an_idle_connection_is_nobodys_answer(
    transport: TransportName, tmp_path: Path
) -> None:
    assert await carry_in_waves(transport, 10, tmp_path) == {"answered": 120}


@pytest.mark.prove
@TRANSPORTS
async def test_nobody_is_given_anothers_answer_in_ten_thousand_calls(
    transport: TransportName, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = await carry_beside_broken_http(transport, 10_000, tmp_path)
    followed = await carry_with_more_after_answers(transport, 10_000, tmp_path / "followed")
    idle = await carry_in_waves(transport, 200, tmp_path / "idle")
    assert idle == {"answered": 2400}
    with capsys.disabled():
        print(f"\n{transport}: 0 wrong answers of {dict(broken)}, {dict(followed)} and {dict(idle)}")


def streamed(words: str) -> list[dict[str, Any]]:
    """What a client hears of a stream with these words."""
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", EVENTS.encode())]}
    return [start, {"type": "http.response.body", "body": event(words) + DONE, "more_body": False}]


def entry_of(outcome: CallOutcome) -> Settled:
    return records.settled(records.opened(), outcome=outcome)


def test_a_crossed_answer_would_be_noticed() -> None:
    dice = random.Random(1)
    mine, other = asked(dice), asked(dice)
    markers = {mine.marker, other.marker}
    entry = entry_of("answered")
    mine.heard.sent = streamed(mine.words)
    assert wrong_with(mine, entry, markers) is None
    mine.heard.sent = streamed(other.words)
    assert wrong_with(mine, entry, markers) == "another call's answer"
    mine.heard.sent = streamed(SMUGGLED)
    assert wrong_with(mine, entry, markers) == "an answer that nobody asked for"
    mine.heard.sent = streamed(mine.words[:20] + mine.words)
    assert "not its own" in str(wrong_with(mine, entry, markers))
    assert "not the beginning" in str(wrong_with(mine, entry_of("truncated"), markers))
