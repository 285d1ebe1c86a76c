"""The golden table: as a pure function, as a whole answer, and as a stream, down to the books."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from msgspec import Raw

from gateway.ledger.sweeper import ends, read
from gateway.relay import pricing
from gateway.relay.records import Settled
from gateway.relay.tokenizer import SaidSoFar
from gateway.relay.usage import reported
from gateway.simulator import Fault, RunningSimulator, Step
from gateway.simulator.script import ToldUsage
from tests.gateway.relay.carried import Client, House, call_to, house
from tests.gateway.relay.golden_usage import GPT_4O, TABLE, Golden, said

Priced = Callable[[pricing.Price], AbstractAsyncContextManager[House]]

golden = pytest.mark.parametrize("row", TABLE, ids=[row.name for row in TABLE])


@pytest.fixture
def priced(upstream: RunningSimulator, tmp_path: Path) -> Priced:
    """A relay whose every target has this price."""

    @asynccontextmanager
    async def made(price: pricing.Price) -> AsyncIterator[House]:
        async with house(upstream.base_url, tmp_path / "journal", target={"prices": (price,)}) as home:
            yield home

    return made


def settled(home: House) -> Settled:
    """The one entry, as the journal has it: what the books are made of."""
    [entry] = ends(read(home.journal.folder))
    assert entry == home.books.entry
    return entry


def check(entry: Settled, row: Golden) -> None:
    assert (entry.outcome, entry.usage, entry.cost_nanos) == ("answered", row.usage, row.cost_nanos)
    [attempt] = entry.attempts
    assert (attempt.usage, attempt.cost_nanos) == (row.usage, row.cost_nanos)
    how = pricing.read(attempt.price)
    assert how is not None
    assert pricing.cost_of(attempt.usage, how) == row.cost_nanos


def told(client: Client) -> int:
    """How often the client was told usage beside the choices of an event."""
    return sum(b'],"usage":{' in each for each in client.body.split(b"\n\n"))


@golden
def test_what_it_is_and_what_it_costs(row: Golden) -> None:
    usage = reported(Raw(row.said.encode()))

    assert usage == row.usage
    assert pricing.cost_nanos(usage, row.price) == row.cost_nanos


@golden
async def test_a_whole_answer_is_booked_so(row: Golden, upstream: RunningSimulator, priced: Priced) -> None:
    upstream.script([Step(text="Hello", usages=(said(row.said),))])
    async with priced(row.price) as home:
        client = await home.carry(call_to())
        check(settled(home), row)

    assert row.said.encode() in client.body


@golden
@pytest.mark.parametrize("asks", [False, True], ids=["unasked", "asked"])
async def test_a_stream_is_booked_so(
    row: Golden, asks: bool, upstream: RunningSimulator, priced: Priced
) -> None:
    upstream.script([Step(text="Hello", usages=row.on_a_stream)])
    options = {"stream_options": {"include_usage": True}} if asks else {}
    async with priced(row.price) as home:
        client = await home.carry(call_to(stream=True, **options))
        check(settled(home), row)

    assert told(client) == (sum(each.place == "chunk" for each in row.on_a_stream) if asks else 0)
    for each in row.on_a_stream:
        if asks or each.place != "chunk":
            assert bytes(each.said) in client.body


def test_the_table_has_every_kind_of_token_and_of_price() -> None:
    usages, prices = [row.usage for row in TABLE], [row.price for row in TABLE]

    assert len({row.name for row in TABLE}) == len(TABLE) >= 30
    parts = ("cached", "cache_write", "reasoning", "audio_input", "audio_output")
    for name in parts:
        assert any(getattr(usage, f"{name}_tokens") for usage in usages)
        field = "cached_input_nanos" if name == "cached" else f"{name}_nanos"
        assert any(getattr(price.rates, field) for price in prices)
    assert any(
        price.rates_for(usage.input_tokens) != price.rates
        for usage, price in zip(usages, prices, strict=True)
    )
    assert any(price.request_nanos for price in prices)
    assert any(price.exchange.denominator > 1 for price in prices)


UNUSABLE = {
    "null": "null",
    "empty": "{}",
    "a-list": "[1]",
    "a-text": '"9"',
    "a-number": "9",
    "negative": '{"prompt_tokens":-1,"completion_tokens":2}',
    "texts": '{"prompt_tokens":"9","completion_tokens":"2"}',
    "a-null-answer": '{"prompt_tokens":9,"completion_tokens":null}',
    "huge": '{"prompt_tokens":9,"completion_tokens":99999999999999999999999999}',
    "half-a-token": '{"prompt_tokens":9,"completion_tokens":2.5}',
    "nested": '{"prompt_tokens":{"tokens":[9]},"completion_tokens":2}',
}


@pytest.mark.parametrize(
    "usages", [(), *[(said(each),) for each in UNUSABLE.values()]], ids=["missing", *UNUSABLE]
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_usage_that_is_none_is_estimated_and_costs_what_was_counted(
    usages: tuple[ToldUsage, ...], stream: bool, upstream: RunningSimulator, priced: Priced
) -> None:
    upstream.script([Step(text="Hello water", usages=usages)])
    async with priced(GPT_4O) as home:
        await home.carry(call_to("gpt-4o", stream=stream))
        entry = settled(home)

    counted = SaidSoFar()
    counted.add(b'"Hello water"')
    usage = entry.usage
    assert (entry.outcome, usage.basis, usage.output_tokens) == (
        "answered",
        "estimated",
        counted.tokens("gpt-4o"),
    )
    assert usage.input_tokens > 0
    assert entry.cost_nanos == usage.input_tokens * 2500 + usage.output_tokens * 10_000


async def test_a_stream_that_breaks_off_after_its_last_usage_is_booked_as_reported(
    upstream: RunningSimulator, priced: Priced
) -> None:
    usages = (said('{"prompt_tokens":25,"completion_tokens":3}', 1),)
    text = "Hello quiet water"
    upstream.script([Step(text=text, fault=Fault.CLOSE_MID_STREAM, after_tokens=1, usages=usages)])
    async with priced(GPT_4O) as home:
        await home.carry(call_to("gpt-4o", stream=True))
        entry = settled(home)

    assert (entry.outcome, entry.usage.basis) == ("truncated", "reported")
    assert entry.cost_nanos == 25 * 2500 + 3 * 10_000


async def test_a_stream_that_said_more_after_its_usage_and_broke_off_is_counted(
    upstream: RunningSimulator, priced: Priced
) -> None:
    usages = (said('{"prompt_tokens":25,"completion_tokens":0}', 0),)
    text = "Hello quiet water"
    upstream.script([Step(text=text, fault=Fault.CLOSE_MID_STREAM, after_tokens=2, usages=usages)])
    async with priced(GPT_4O) as home:
        await home.carry(call_to("gpt-4o", stream=True))
        entry = settled(home)

    assert (entry.outcome, entry.usage.basis) == ("truncated", "estimated")
    assert entry.usage.output_tokens > 0
