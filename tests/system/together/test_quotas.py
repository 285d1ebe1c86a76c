"""A hard quota is never overshot, however many calls are under way in however many processes (M5)."""

import asyncio
import itertools
import json
import random
from collections.abc import Iterator

import pytest

from gateway.relay import tokenizer
from gateway.simulator import Step
from tests.redis import running_redis
from tests.system.conftest import OUTPUT_NANOS
from tests.system.together import findings as f
from tests.system.together.conftest import ALL, PROCESSES
from tests.system.together.crowds import at_once
from tests.system.together.house import IGNORING, PLENTY, WHOLE, WORDY, Key, Together, together
from tests.system.upstream_side.clients import Answer, closed_loop, wires_to

MAX_TOKENS = 50
FIT = 20
OFFERED = 500
DOLLAR_NANOS = 1_000_000_000
CLIENTS = 64


def request(gateway: Together, key: Key, number: int = 0) -> bytes:
    """All of one length, so that all hold the same."""
    trial = f"trial-{number:05}"
    return gateway.house.request(WHOLE, key=key.text, trial=trial, max_tokens=MAX_TOKENS)


def worst_case(gateway: Together) -> tuple[int, int]:
    """What one such call holds, in tokens and in nano-units, as its opening in the journal says."""
    key = gateway.key("measured", ("tokens", PLENTY, "month"), ("money", PLENTY, "month"))
    [answer] = asyncio.run(at_once(gateway.port, [request(gateway, key)]))
    assert answer.status == 200
    holds = gateway.holds(key)
    [tokens], [nanos] = holds["tokens"], holds["money"]
    return tokens, nanos


def crowd(gateway: Together, key: Key, processes: int) -> tuple[list[Answer], list[int]]:
    """Their answers, and how many came to each process: to every one more than the quota fits."""
    dealt: list[int] = []
    requests = [request(gateway, key, number) for number in range(OFFERED)]
    answers = asyncio.run(at_once(gateway.port, requests, lambda: dealt.extend(gateway.dealt(OFFERED))))
    assert list(f.alone(dealt, processes, FIT)) == []
    return answers, dealt


def fit_twenty(gateway: Together, processes: int) -> str:
    """A quota of twenty worst cases, and answers that use all of it; first what is no hard quota."""
    tokens, nanos = worst_case(gateway)
    whole = Step(
        model_name=WHOLE, prompt_tokens=tokens - MAX_TOKENS, completion_tokens=MAX_TOKENS, count=None
    )
    gateway.house.provider.script(whole)
    amounts = {"money": FIT * nanos}
    soft, key = gateway.keys(
        soft=[("money", FIT * nanos, "soft month")], hard=[("money", FIT * nanos, "month")]
    )
    check_that_a_soft_one_is_overshot(gateway, soft, amounts, processes)
    answers, dealt = crowd(gateway, key, processes)
    assert list(f.wrong_answers(answers, FIT, f.EXHAUSTED)) == []
    standing = gateway.at_rest(key)
    [(figures, ledger)] = standing.values()
    assert list(f.overshot(standing, amounts)) == []
    assert list(f.drifted(standing)) == []
    assert figures.spent == ledger == FIT * nanos  # or the answers did not use all of it
    return (
        f"M5  {OFFERED} calls at once to {processes} processes "
        f"({' + '.join(str(each) for each in dealt)}), a hard quota of {FIT} worst cases: {FIT} let in, "
        f"{OFFERED - FIT} refused, overshoot {max(0, ledger - amounts['money'])}"
    )


def check_that_a_soft_one_is_overshot(
    gateway: Together, key: Key, amounts: dict[str, int], processes: int
) -> None:
    """Only the worst case keeps to the amount; the detectors see what expecting less does."""
    answers, _ = crowd(gateway, key, processes)
    assert list(f.wrong_answers(answers, FIT, f.EXHAUSTED)) != []
    assert len(list(f.overshot(gateway.at_rest(key), amounts))) == 2


def test_of_500_calls_at_once_four_processes_let_in_the_twenty_that_fit(gateway, say):
    say(fit_twenty(gateway, PROCESSES))


@pytest.mark.prove
@pytest.mark.parametrize("processes", [1, 2])
def test_one_and_two_processes_let_in_the_twenty_that_fit(tmp_path, provider, say, processes):
    with (
        running_redis() as redis,
        together(tmp_path, provider, redis if processes > 1 else None, processes, *ALL) as gateway,
    ):
        say(fit_twenty(gateway, processes) + (" (without Redis)" if processes == 1 else ""))


def test_four_processes_spend_a_dollar_and_no_more(gateway, say):
    say(spend_a_dollar(gateway, count=600, max_tokens=600))


@pytest.mark.prove
def test_a_dollar_is_spent_by_3000_calls_and_no_more(gateway, say):
    say(spend_a_dollar(gateway, count=3000, max_tokens=600))


def test_a_stream_whose_provider_goes_on_is_cut(gateway, say):
    say(cut_streams(gateway, count=40))


# A dollar


def spend_a_dollar(gateway: Together, count: int, max_tokens: int) -> str:
    """Calls of all sizes, half of them streamed, until no more fit."""
    key = gateway.key(f"dollar-{count}", ("money", DOLLAR_NANOS, "month"))
    picks = random.Random(1)

    async def ask_all() -> list[Answer]:
        async with wires_to(gateway.port) as wires:
            numbers = itertools.count()

            async def ask(_: int) -> Answer:
                fields = {"max_tokens": picks.randint(1, max_tokens), "stream": picks.random() < 0.5}
                trial = f"dollar-{next(numbers)}"
                return await wires.ask(gateway.house.request(WORDY, key=key.text, trial=trial, **fields))

            return await closed_loop(ask, CLIENTS, count)

    answers = asyncio.run(ask_all())
    let_in = sum(each.status == 200 for each in answers)
    assert 0 < let_in < count, "the dollar was not used up"
    assert list(f.wrong_answers(answers, let_in, f.EXHAUSTED)) == []
    standing = gateway.at_rest(key)
    [(_, ledger)] = standing.values()
    assert list(f.overshot(standing, {"money": DOLLAR_NANOS})) == []
    assert list(f.drifted(standing)) == []
    assert list(f.overshot(standing, {"money": ledger - 1})) != []
    return (
        f"quota  a hard quota of 1 USD, {count} calls: {let_in} let in, {count - let_in} refused, "
        f"{ledger / 1e9:.9f} USD on the ledger and on the counter, overshoot {max(0, ledger - DOLLAR_NANOS)}"
    )


# A provider that does not keep to `max_tokens`


def cut_streams(gateway: Together, count: int) -> str:
    """Streams whose provider says more than it was told; without a hard quota they go on to their end."""
    bounds = [("money", PLENTY, "month"), ("tokens", PLENTY, "month")]
    hard, free = gateway.keys(cut=bounds, uncut=())
    answers = {
        key.id: asyncio.run(at_once(gateway.port, streams(gateway, key, count))) for key in (hard, free)
    }
    standing = gateway.at_rest(hard)
    [nanos] = gateway.holds(hard)["money"]
    found = [list(past_the_hold(each, nanos)) for each in answers[hard.id]]
    assert found == [[]] * count
    assert all(list(past_the_hold(each, nanos)) for each in answers[free.id])
    assert all(b"[DONE]" not in each.body for each in answers[hard.id])

    costs = [cost for (cost,) in gateway.house.served.rows(COSTS, hard.id)]
    assert len(costs) == count
    assert list(f.drifted(standing)) == []
    chunks = max(len(said(each)) for each in answers[hard.id])
    whole = max(len(said(each)) for each in answers[free.id])
    over = max(costs) - nanos
    return (
        f"M5  {count} streams of a provider that ignores max_tokens ({MAX_TOKENS}): cut after at most "
        f"{chunks} chunks of {whole}, the dearest is {over:+} nano-units past what it held "
        f"(a token costs {OUTPUT_NANOS // 10**6})"
    )


COSTS = "SELECT cost_nanos FROM gateway_entry WHERE key_id = ?"


def streams(gateway: Together, key: Key, count: int) -> list[bytes]:
    return [
        gateway.house.request(
            IGNORING, key=key.text, trial=f"cut-{number:05}", max_tokens=MAX_TOKENS, stream=True
        )
        for number in range(count)
    ]


def said(answer: Answer) -> list[str]:
    """The text of each chunk of a stream that has any."""
    events = [line[6:] for line in answer.body.split(b"\n") if line.startswith(b"data: {")]
    choices = [json.loads(each).get("choices", []) for each in events]
    return [found for each in choices if each and (found := each[0]["delta"].get("content"))]


def past_the_hold(answer: Answer, nanos: int) -> Iterator[str]:
    """Without its last chunk a stream cost no more than was held for it; its output alone, to be sure."""
    tokens = tokenizer.count("".join(said(answer)[:-1]), IGNORING)
    if tokens * OUTPUT_NANOS > nanos * 1_000_000:
        yield f"{tokens} tokens before the last chunk"
