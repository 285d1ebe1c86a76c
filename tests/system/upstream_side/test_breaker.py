"""The breaker of a served gateway under a thousand calls at once, over HTTP (U11, U12)."""

import asyncio
import statistics
import time
from collections import Counter

import pytest

from gateway.simulator import Fault, Step
from tests.served import eventually
from tests.system.upstream_side.clients import closed_loop, wires_to
from tests.system.upstream_side.house import open_house
from tests.system.upstream_side.provider import running_provider

MODEL_NAME = "gpt-4o"
AT_ONCE = 1000
PLACES = 50
TIMELINE = "SELECT before, after FROM gateway_breakerchange ORDER BY at, id"
PROBES = "SELECT entry_id, outcome FROM gateway_attempt WHERE probe"
ILL = Step(fault=Fault.SERVER_ERROR, delay_s=0.05, count=None)


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    folder = tmp_path_factory.mktemp("breaker")
    with running_provider(folder) as provider, open_house(folder, provider, MODEL_NAME) as opened:
        yield opened


async def all_at_once(house, count=AT_ONCE):
    """So many calls, each on a connection of its own; statuses and codes."""
    async with wires_to(house.served.port) as wires:
        answers = await asyncio.gather(*(wires.ask(house.request(MODEL_NAME)) for _ in range(count)))
    return Counter(each.status for each in answers)


async def one_after_another(house, count):
    """Seconds of each refusal, as a client with a kept connection sees them."""
    async with wires_to(house.served.port) as wires:

        async def ask(_):
            began = time.perf_counter()
            answer = await wires.ask(house.request(MODEL_NAME))
            assert answer.status == 503, answer
            assert int(answer.header("retry-after")) >= 1
            return time.perf_counter() - began

        return await closed_loop(ask, 1, count)


def test_a_thousand_calls_at_once_open_it_and_are_refused_fast_from_then_on(house, say):
    house.provider.script(ILL)

    statuses = asyncio.run(all_at_once(house))
    received = house.provider.received()
    took_s = asyncio.run(one_after_another(house, 300))

    p99_ms = statistics.quantiles(took_s, n=100)[-1] * 1000
    say(
        f"U12  {AT_ONCE} calls at once at a dead provider: {received} attempts, {dict(statuses)}; "
        f"300 more over HTTP: p50 {statistics.median(took_s) * 1000:.2f} ms, p99 {p99_ms:.2f} ms"
    )
    assert set(statuses) <= {502, 503}
    assert 5 <= received <= 2 * PLACES
    assert house.provider.received() == 0
    eventually(lambda: house.served.rows(TIMELINE) == [("closed", "open")], what="the timeline")
    assert shown(house) == "open"


@pytest.mark.prove
def test_a_thousand_calls_at_once_send_one_probe_whose_success_closes_it(house, say):
    """After a minute; the probe takes half a second, and nobody else gets through meanwhile."""
    house.provider.forget_script()
    house.provider.script(ILL)
    asyncio.run(all_at_once(house))
    house.provider.forget_script()
    house.provider.script(Step(delay_s=0.5))
    house.provider.news()
    opened_at = time.monotonic()
    eventually(lambda: shown(house) == "half_open", 70, "the end of the open time")
    waited_s = time.monotonic() - opened_at

    statuses = asyncio.run(all_at_once(house))
    received = house.provider.received()
    after = asyncio.run(all_at_once(house))

    say(
        f"U11  {AT_ONCE} calls at once at a half-open breaker, {waited_s:.0f} s after: "
        f"{received} reached the provider, {dict(statuses)}; the next {AT_ONCE}: {dict(after)}"
    )
    assert received == 1
    assert statuses == {200: 1, 503: AT_ONCE - 1}
    assert after == {200: AT_ONCE}
    eventually(
        lambda: [outcome for _, outcome in house.served.rows(PROBES)] == ["answered"], what="one probe"
    )
    changes = [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]
    assert house.served.rows(TIMELINE)[-3:] == changes


def shown(house):
    """The breaker's state on /metrics."""
    mark = f'route="{MODEL_NAME}",state="'
    [state] = [
        labels.removeprefix(mark).partition('"')[0]
        for (name, labels), value in house.metrics().items()
        if name == "penstock_breaker" and labels.startswith(mark) and value
    ]
    return state
