"""A limit of 100 a minute lets 100 calls in, whichever of four processes they come to."""

import asyncio
from dataclasses import replace

import pytest

from tests.system.together import findings as f
from tests.system.together.conftest import PROCESSES
from tests.system.together.crowds import at_once
from tests.system.together.house import USUAL, Key, Together

LIMIT = 100
OFFERED = 1000
EARLY_S = 3.0
"""A place returns at most 1 s after the call that took it has left the minute."""
REQUESTS = ("requests", LIMIT, "minute")


def requests_of(gateway: Together, key: Key, count: int) -> list[bytes]:
    return [
        gateway.house.request(USUAL, key=key.text, trial=f"trial-{number:05}", max_tokens=4)
        for number in range(count)
    ]


def waits_s(answers) -> list[float]:
    return [int(each.header("Retry-After-Ms")) / 1000 for each in answers if each.status == 429]


def check_plants(answers) -> None:
    """One call too many, one too few, another refusal, and one that names no time are all found."""
    let_in = next(each for each in answers if each.status == 200)
    refusal = next(each for each in answers if each.status == 429)
    for planted in (let_in, replace(let_in, status=503, body=b'{"error": {"code": "overloaded"}}')):
        assert list(f.wrong_answers([*answers, planted], LIMIT, f.LIMITED)) != []
    fewer = [each for each in answers if each is not let_in]
    assert list(f.wrong_answers(fewer, LIMIT, f.LIMITED)) != []
    silent = replace(refusal, head=refusal.head.lower().replace(b"retry-after", b"x-other"))
    assert list(f.wrong_answers([*answers, silent], LIMIT, f.LIMITED)) != []


def check_that_no_limit_is_seen(gateway: Together, free: Key) -> None:
    """The same crowd with a key that has no limit of its own: all of it is let in, and that is found."""
    answers = asyncio.run(at_once(gateway.port, requests_of(gateway, free, OFFERED)))
    assert list(f.wrong_answers(answers, LIMIT, f.LIMITED)) == [f"{OFFERED} calls were answered, not {LIMIT}"]


def offer(gateway: Together, key: Key) -> tuple[str, float]:
    """A thousand at once; a line for the reader, and the longest time to come back."""
    dealt: list[int] = []
    crowd = at_once(
        gateway.port, requests_of(gateway, key, OFFERED), lambda: dealt.extend(gateway.dealt(OFFERED))
    )
    answers = asyncio.run(crowd)
    assert list(f.wrong_answers(answers, LIMIT, f.LIMITED)) == []
    check_plants(answers)
    assert list(f.alone(dealt, PROCESSES, LIMIT)) == []
    waits = waits_s(answers)
    assert 0 < min(waits) <= max(waits) <= 61
    told = (
        f"limits  {OFFERED} calls to {PROCESSES} processes ({' + '.join(map(str, dealt))}), "
        f"limit {LIMIT}: {LIMIT} let in, {OFFERED - LIMIT} refused, "
        f"to come back after {min(waits):.1f} to {max(waits):.1f} s"
    )
    return told, max(waits)


def test_four_processes_let_in_a_hundred_of_a_thousand(gateway, say):
    free, limited = gateway.keys(free=(), limited=[REQUESTS])
    check_that_no_limit_is_seen(gateway, free)
    told, _ = offer(gateway, limited)
    say(told)


@pytest.mark.prove
def test_whoever_comes_back_when_told_is_let_in_and_not_before(gateway, say):
    [key] = gateway.keys(patient=[REQUESTS])
    told, wait_s = offer(gateway, key)
    early, late = asyncio.run(early_and_late(gateway, key, wait_s))

    assert (early.status, f.code_of(early)) == (429, f.LIMITED)
    assert late.status == 200
    say(f"{told}; refused {EARLY_S:.0f} s before that, let in after it")


async def early_and_late(gateway: Together, key: Key, wait_s: float):
    """One call shortly before the time that was told, and one right at it."""
    [request] = requests_of(gateway, key, 1)
    await asyncio.sleep(wait_s - EARLY_S)
    [early] = await at_once(gateway.port, [request])
    await asyncio.sleep(int(early.header("Retry-After-Ms")) / 1000)
    [late] = await at_once(gateway.port, [request])
    return early, late
