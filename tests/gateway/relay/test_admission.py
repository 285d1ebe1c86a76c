"""Stories of rate limits and quotas, with real providers on real sockets and counters in this process."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from accounts.caller import Caller, Owner, Quota, RateLimit
from gateway import errors
from gateway.ledger.sweeper import read
from gateway.relay import pricing
from gateway.relay.catalog import Price, Rates
from gateway.relay.lifeline import Cut
from gateway.relay.limits import Figures, counter_of
from gateway.relay.records import Opened, Seen
from gateway.simulator import Fault, RunningSimulator, Step
from tests.gateway.relay.carried import ALICE, PRICE, Client, House, call_to, house_of
from tests.gateway.relay.test_attempts import route, target, until

KEY, TEAM = Owner("key", 11, "ci"), Owner("team", 1, "Search")
DAY = Quota(1, TEAM, "money", 10**9, "day", "UTC", hard=True)


def limited(*quotas: Quota, limits: tuple[RateLimit, ...] = ()) -> Caller:
    return replace(ALICE, quotas=quotas, rate_limits=limits)


def a_minute(amount: int, **fields: Any) -> RateLimit:
    return RateLimit(1, KEY, "requests", amount, **fields)


def home_of(tmp_path: Path, caller: Caller, *targets: Any, **fields: Any) -> Any:
    return house_of(route(*targets, **fields), tmp_path / "journal", caller=caller)


async def figures(home: House, quota: Quota = DAY) -> Figures:
    name = counter_of(quota, home.books.entries[-1].started_at_us)[0]
    return (await home.counters.figures([name]))[name]


async def worst_case(upstream: RunningSimulator, tmp_path: Path, call: Any) -> int:
    """What a hard quota holds of this call, in nano-units."""
    async with home_of(tmp_path, limited(DAY), target(upstream)) as home:
        await home.carry(call)
        opened = next(each for each in read(home.journal.folder) if isinstance(each, Opened))
    return opened.holds[0].amount


async def test_500_calls_at_once_against_a_budget_for_20(upstream: RunningSimulator, tmp_path: Path) -> None:
    """With answers that use all of their bound, and all of which are under way together."""
    call = call_to(max_tokens=10)
    each_nanos = await worst_case(upstream, tmp_path / "first", call)
    quota = replace(DAY, amount=20 * each_nanos)
    upstream.script([Step(delay_s=0.5, count=None)])

    async with home_of(tmp_path, limited(quota), target(upstream, max_concurrency=500)) as home:
        clients = await asyncio.gather(*[home.carry(call_to(max_tokens=10)) for _ in range(500)])
        after = await figures(home)

    refused = [each.error for each in clients if each.error is not None]
    assert len(home.books.entries) == 20
    assert {type(each) for each in refused} == {errors.QuotaExhausted}
    assert len(refused) == 480
    assert after.held == after.expired == 0
    assert after.spent == sum(each.cost_nanos for each in home.books.entries) <= quota.amount


async def test_what_was_not_used_can_be_used_by_the_next_call(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    each_nanos = await worst_case(upstream, tmp_path / "first", call_to(max_tokens=10))
    quota = replace(DAY, amount=2 * each_nanos)
    async with home_of(tmp_path, limited(quota), target(upstream)) as home:
        clients = [await home.carry(call_to(max_tokens=10)) for _ in range(4)]
    assert [each.error for each in clients[:2]] == [None, None]
    assert sum(each.cost_nanos for each in home.books.entries) <= quota.amount


async def test_a_refusal_names_the_limit_its_owner_the_figure_and_when_to_come_back(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    caller = limited(limits=(a_minute(1),))
    async with home_of(tmp_path, caller, target(upstream)) as home:
        await home.carry(call_to())
        second = await home.carry(call_to())
    why = second.error
    assert isinstance(why, errors.RateLimited)
    assert (why.status, why.code) == (429, "rate_limit_exceeded")
    assert "'ci'" in why.message
    assert "1 request" in why.message
    assert 50 < (why.retry_after_s or 0) <= 61
    assert home.books.refusals == [(1, 11, "gpt-4o-mini", "rate_limit_exceeded")]
    [kept] = home.books.refused_calls
    assert (kept.message, kept.limits) == (why.message, (Seen("key", "requests", "minute", 1, 1, 1),))
    assert len(upstream.journal.received()) == 1


async def test_an_entry_keeps_its_limits_with_their_figures_and_its_plan(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    soft = Quota(2, KEY, "requests", 500, "month", "Asia/Tokyo")
    caller = limited(DAY, soft, limits=(a_minute(10), RateLimit(2, TEAM, "concurrent", 4)))
    targets = target(upstream, 1), replace(target(upstream, 2), order=1)
    async with home_of(tmp_path, caller, *targets) as home:
        await home.carry(call_to())
        await home.carry(call_to(max_tokens=10))
    first, entry = home.books.entries
    [_, asked] = [each.holds[0].amount for each in read(home.journal.folder) if isinstance(each, Opened)]
    assert entry.limits == (
        Seen("key", "requests", "minute", 10, 1, 1),
        Seen("team", "concurrent", "call", 4, 0, 1),
        Seen("team", "money", "day", 10**9, first.cost_nanos, asked, hard=True),
        Seen("key", "requests", "month", 500, 1, 1),
    )
    assert entry.plan == tuple(str(each) for each in targets)


async def test_an_attempt_keeps_its_first_byte_and_how_its_price_was_applied(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    async with home_of(tmp_path, limited(), target(upstream)) as home:
        await home.carry(call_to())
    [attempt] = home.books.entry.attempts
    assert attempt.first_byte_us is not None
    assert 0 < attempt.first_byte_us <= attempt.latency_us
    assert 0 <= attempt.pool_wait_us <= attempt.queued_us
    how = pricing.read(attempt.price)
    assert how is not None
    assert how.price_id == PRICE.id
    assert pricing.cost_of(attempt.usage, how) == attempt.cost_nanos


async def test_a_quota_says_not_to_try_again(upstream: RunningSimulator, tmp_path: Path) -> None:
    async with home_of(tmp_path, limited(replace(DAY, amount=0)), target(upstream)) as home:
        client = await home.carry(call_to())
    assert isinstance(client.error, errors.QuotaExhausted)
    assert (b"x-should-retry", b"false") in client.error.headers()
    assert "'Search'" in client.error.message
    assert home.books.entries == []


async def test_a_call_that_is_refused_at_the_gate_has_used_nothing(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    upstream.script([Step(delay_s=1.0)])
    caller = limited(DAY, limits=(a_minute(2),))
    only = target(upstream, max_concurrency=1, max_waiting=0)
    async with home_of(tmp_path, caller, only) as home:
        first, _ = home.start(call_to(), Client())
        await until(lambda: not home.targets.of(only).gate.has_place(1, "normal"))
        assert isinstance((await home.carry(call_to())).error, errors.Overloaded)
        await first
        assert (await home.carry(call_to())).error is None
        after = await figures(home)
    assert (after.held, after.spent) == (0, sum(each.cost_nanos for each in home.books.entries))


async def test_a_fallback_that_the_quota_cannot_cover_is_passed_over(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    """The first target is down, the second too dear, the third fits."""
    each_nanos = await worst_case(upstream, tmp_path / "first", call_to(max_tokens=10))
    rates = PRICE.rates
    dear = Price(
        4,
        0,
        Rates(100 * rates.input_nanos, 100 * rates.cached_input_nanos, 100 * rates.output_nanos),
    )
    down = replace(target(upstream, 1), base_url="http://127.0.0.1:9/v1")
    second = replace(target(upstream, 2), order=1, prices=(dear,))
    third = replace(target(upstream, 3), order=2)
    quota = replace(DAY, amount=3 * each_nanos)

    async with home_of(tmp_path, limited(quota), down, second, third) as home:
        client = await home.carry(call_to(max_tokens=10))
    assert client.error is None
    assert home.books.entry.attempts[-1].provider == "p3"
    assert "p2" not in [each.provider for each in home.books.entry.attempts]


async def test_a_retry_is_made_only_if_what_the_first_attempt_may_have_cost_is_covered_too(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    """A 504 says nothing of the work that was done, so it counts at its worst case until the books close."""
    call = call_to(max_tokens=10)
    each_nanos = await worst_case(upstream, tmp_path / "first", call)
    for budget, attempts in ((each_nanos * 3 // 2, 1), (each_nanos * 2, 2)):
        upstream.forget_script()
        upstream.script([Step(fault=Fault.GATEWAY_TIMEOUT)])
        quota = replace(DAY, amount=budget)
        async with home_of(tmp_path / str(attempts), limited(quota), target(upstream)) as home:
            client = await home.carry(call_to(max_tokens=10))
            after = await figures(home)
        assert len(home.books.entry.attempts) == attempts
        assert (client.error is None) == (attempts == 2)
        assert (after.held, after.spent) == (0, home.books.entry.cost_nanos)
        assert after.spent <= budget


async def test_a_stream_that_ignores_its_bound_is_cut_where_nothing_more_is_held(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    upstream.script([Step(fault=Fault.MAX_TOKENS_IGNORED, text="word " * 2000, count=None)])
    async with home_of(tmp_path, limited(DAY), target(upstream)) as home:
        client = await home.carry(call_to(max_tokens=10, stream=True))
        entry, after = home.books.entry, await figures(home)
        [opened] = [each for each in read(home.journal.folder) if isinstance(each, Opened)]
    assert (entry.outcome, entry.attempts[0].code) == ("truncated", "past_reservation")
    assert b"[DONE]" not in client.body
    assert b'"error"' in client.body
    one_token = PRICE.rates.output_nanos // 1_000_000
    assert entry.cost_nanos <= opened.holds[0].amount + 2 * one_token
    assert after.spent == entry.cost_nanos


async def test_an_answer_within_its_bound_is_never_cut(upstream: RunningSimulator, tmp_path: Path) -> None:
    async with home_of(tmp_path, limited(DAY), target(upstream)) as home:
        for most in (1, 7, 60):
            client = await home.carry(call_to(max_tokens=most, stream=True))
            assert client.error is None
            assert client.body.endswith(b"data: [DONE]\n\n")
    assert {each.outcome for each in home.books.entries} == {"answered"}


async def test_a_call_ended_because_its_key_was_revoked_is_told_so_and_settled(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    upstream.script([Step(fault=Fault.STALL, pause_s=60.0, after_tokens=2)])
    client = Client()
    async with home_of(tmp_path, limited(DAY), target(upstream)) as home:
        task, line = home.start(call_to(stream=True), client)
        await client.first_byte.wait()
        line.cut_off(Cut.REVOKED)
        await task
        after = await figures(home)
    assert b"invalid_api_key" in client.body
    assert b"[DONE]" not in client.body
    assert (home.books.entry.outcome, home.books.entry.code) == ("truncated", "invalid_api_key")
    assert (after.held, after.spent) == (0, home.books.entry.cost_nanos)


async def test_a_call_is_not_counted_against_a_limit_of_another_route(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    caller = limited(limits=(a_minute(1, model_name="gpt-5"),))
    async with home_of(tmp_path, caller, target(upstream)) as home:
        clients = [await home.carry(call_to()) for _ in range(3)]
    assert [each.error for each in clients] == [None, None, None]


async def test_nothing_is_held_for_a_call_whose_journal_is_full(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    async with home_of(tmp_path, limited(DAY), target(upstream)) as home:
        await home.carry(call_to())
        before = await figures(home)
        home.journal.broken = True
        assert isinstance((await home.carry(call_to())).error, errors.JournalFull)
        assert await figures(home) == before


TOOLS = [
    {"type": "function", "function": {"name": f"tool_{each}", "description": "x" * 500}} for each in range(40)
]


@pytest.mark.parametrize(
    "amplified",
    [
        {"n": 16},
        {"max_tokens": 5000},
        {"tools": TOOLS},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a" * 5000, "schema": {}}}},
        {"prediction": {"type": "content", "content": "x" * 5000}},
    ],
    ids=lambda each: next(iter(each)),
)
async def test_what_makes_a_call_dearer_is_held_before_it_goes(
    upstream: RunningSimulator, tmp_path: Path, amplified: dict[str, Any]
) -> None:
    fields = {"max_tokens": 20, **amplified}
    plain = await worst_case(upstream, tmp_path / "plain", call_to(max_tokens=20))
    async with home_of(tmp_path / "amplified", limited(DAY), target(upstream)) as home:
        client = await home.carry(call_to(**fields))
        [opened] = [each for each in read(home.journal.folder) if isinstance(each, Opened)]
    assert client.error is None
    assert opened.holds[0].amount > 5 * plain
    assert home.books.entry.cost_nanos <= opened.holds[0].amount
