"""Calls of our own to a provider that is a real one, and the words for what came of them."""

import json

import pytest

from gateway import probing
from gateway.probing import Failure, Run, Tried
from gateway.relay.catalog import Secret, Target
from gateway.relay.transports.choice import Transports
from tests.upstreams.h1_server import h1_upstream
from tests.upstreams.upstream import Upstream, reset, whole

CREDENTIAL = "sk-live-0123456789abcdef"
LIST = json.dumps({"object": "list", "data": [{"id": "gpt-4o-mini"}, {"id": "models/gemini"}]}).encode()


@pytest.fixture
async def provider():
    async with h1_upstream() as listening:
        yield listening


def target(provider: Upstream, **more) -> Target:
    facts = {"id": 1, "provider": "acme", "base_url": provider.base_url, "upstream_model": "gpt-4o-mini"}
    return Target(**{**facts, "credential": Secret(CREDENTIAL), **more})


async def called(provider: Upstream, **more) -> Tried:
    transport = Transports()
    try:
        return await probing.call_once(transport, target(provider, **more))
    finally:
        await transport.close()


def run(*latencies_ms: int, failures=()) -> Run:
    answered = [Tried(each * 1000) for each in latencies_ms]
    return Run("gpt-4o-mini", [*answered, *(Tried(10_000_000, None, each) for each in failures)])


async def test_a_call_that_is_answered_has_a_latency_and_its_usage(provider):
    tried = await called(provider)

    assert tried.failure is None
    assert tried.latency_us > 0
    assert tried.usage is not None
    assert (tried.usage.input_tokens, tried.usage.output_tokens) == (9, 2)


async def test_it_says_hi_with_our_credential_and_bounds_the_answer(provider):
    await called(provider)
    await called(provider, parameters={"max_tokens": "translate"})

    first, second = provider.exchanges
    assert first.headers["authorization"] == f"Bearer {CREDENTIAL}"
    assert first.json == {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 16,
    }
    assert second.json["max_completion_tokens"] == 16
    assert "max_tokens" not in second.json


async def test_an_error_is_told_in_the_providers_words_without_the_credential(provider):
    error = {"error": {"message": f"{CREDENTIAL} is not known here."}}
    provider.will(whole(json.dumps(error).encode(), 401))

    tried = await called(provider)

    assert probing.said(tried.failure) == (
        "It does not accept the credential (401 Unauthorized). *** is not known here."
    )


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (404, "It does not have this (404 Not Found): the model name or the base URL is wrong."),
        (429, "It is throttling this gateway (429 Too Many Requests)."),
        (503, "It answered with 503 Service Unavailable."),
    ],
)
async def test_a_status_is_a_sentence(provider, status, told):
    provider.will(whole(b"<html>no</html>", status))

    tried = await called(provider)

    assert probing.said(tried.failure) == told


async def test_whoever_does_not_listen_cannot_be_reached():
    async with h1_upstream() as gone:
        closed = target(gone)
    transport = Transports()

    tried = await probing.call_once(transport, closed)
    listed = await probing.models_of(closed, allow_private=True)
    await transport.close()

    assert tried.failure == listed.failure == Failure("unreachable", None, "the connection was refused")
    assert probing.said(tried.failure) == "It cannot be reached: the connection was refused."


async def test_an_answer_that_is_none_is_a_failure(provider):
    provider.will(whole(b'{"choices": '))

    tried = await called(provider)

    assert tried.failure is not None
    assert tried.failure.code == "not_an_answer"


async def test_a_connection_that_ends_is_a_failure(provider):
    provider.will(*[reset()] * 4)  # a GET is tried again once

    tried = await called(provider)
    listed = await probing.models_of(target(provider), allow_private=True)

    assert "without an answer" in probing.said(tried.failure)
    assert "without an answer" in probing.said(listed.failure)


async def test_a_run_makes_so_many_calls_and_begins_none_after_its_time(provider):
    transport = Transports()
    ticks = iter(range(1000))

    run_of_four = await probing.measure(transport, target(provider), 4)
    cut = await probing.measure(transport, target(provider), 9, for_s=5, clock=lambda: float(next(ticks)))
    await transport.close()

    assert len(run_of_four.tries) == 4
    assert len(cut.tries) == 2  # each look at this clock takes a second


async def test_a_provider_lists_its_models(provider):
    provider.will(whole(LIST))

    listed = await probing.models_of(target(provider), allow_private=True)

    assert listed.failure is None
    assert listed.names == ("gemini", "gpt-4o-mini")
    assert provider.exchanges[0].headers["authorization"] == f"Bearer {CREDENTIAL}"


async def test_a_private_address_is_not_asked_where_none_may_be(provider):
    listed = await probing.models_of(target(provider), allow_private=False)

    assert "where no provider may be" in probing.said(listed.failure)
    assert provider.exchanges == []


async def test_what_is_no_list_is_told(provider):
    provider.will(whole(b"<html>", 200), whole(b"", 404))

    page = await probing.models_of(target(provider), allow_private=True)
    missing = await probing.models_of(target(provider), allow_private=True)

    assert probing.said(page.failure) == "What came is not a list of models."
    assert probing.said(missing.failure).startswith("It does not have this (404 Not Found)")


@pytest.mark.parametrize(
    "body",
    [
        b'{"object": "list", "data": [{"id": "b"}, {"id": "models/a"}, {"id": "b"}]}',
        b'[{"id": "a"}, {"id": "b"}]',
    ],
)
def test_lists_come_in_two_shapes(body):
    assert probing._names(body) == ("a", "b")


def test_a_long_list_is_taken_whole():
    body = b'{"data": [%s]}' % b",".join(b'{"id": "vendor/model-%04d"}' % number for number in range(400))

    assert len(probing._names(body)) == 400


def test_a_line_is_a_providers_name_and_three_figures():
    assert probing.line("HolySheep AI", run(32, 35, 68)) == "HolySheep AI: avg=45ms, min=32ms, max=68ms"


def test_failures_are_named_and_not_averaged_in():
    late = Failure("timeout")

    assert probing.line("OpenAI", run(100, 200, failures=[late])) == (
        "OpenAI: avg=150ms, min=100ms, max=200ms "
        "(1 of 3 calls failed: No whole answer came within 10 seconds)"
    )
    assert probing.line("OpenAI", run(failures=[late, late])) == (
        "OpenAI: 2 of 2 calls failed: No whole answer came within 10 seconds"
    )


def test_the_best_is_so_many_times_faster_than_each_other():
    holysheep, openai, deepseek = run(45), run(189), run(90)

    assert probing.verdict([("OpenAI", openai), ("HolySheep AI", holysheep)]) == (
        "HolySheep AI is 4.2 times faster than OpenAI."
    )
    assert probing.verdict([("OpenAI", openai), ("DeepSeek", deepseek), ("HolySheep AI", holysheep)]) == (
        "HolySheep AI is 2.0 times faster than DeepSeek and is 4.2 times faster than OpenAI."
    )
    assert probing.verdict([("A", run(45)), ("B", run(45))]) == "A is as fast as B."


def test_who_did_not_answer_is_not_compared():
    failed = run(failures=[Failure("timeout")])

    assert probing.verdict([("A", run(45)), ("B", failed)]) == (
        "Only A answered, so there is nothing to compare it with."
    )
    assert probing.verdict([("B", failed)]) == "No provider answered."
