"""Stories of retry, fallback, breaker and gate, with real providers on real sockets."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway import errors
from gateway.ledger.sweeper import ends, read
from gateway.relay.attempt import Limits
from gateway.relay.breaker import BreakerPolicy
from gateway.relay.catalog import Catalog, PoolConfig, Route, Secret, Target
from gateway.relay.lifeline import Cut
from gateway.relay.retry import RetryPolicy
from gateway.simulator import Fault, RunningSimulator, Step, running_simulator
from tests.gateway.relay.carried import CREDENTIAL, PRICE, Client, House, call_to, house_of

WHOLE_AND_STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


def target(upstream: RunningSimulator, number: int = 1, **fields: Any) -> Target:
    return Target(
        number, f"p{number}", upstream.base_url, "gpt-4o", Secret(CREDENTIAL), prices=(PRICE,), **fields
    )


def route(*targets: Target, **fields: Any) -> dict[str, Route]:
    return {"gpt-4o-mini": Route("gpt-4o-mini", targets, **fields)}


@pytest.fixture
async def second() -> AsyncIterator[RunningSimulator]:
    async with running_simulator(keep_bodies=True) as running:
        yield running


@asynccontextmanager
async def home_of(tmp_path: Path, *targets: Target, **fields: Any) -> AsyncIterator[House]:
    async with house_of(route(*targets, **fields), tmp_path / "journal") as made:
        yield made


async def until(holds: Callable[[], object], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110 - what is waited for knows nothing of tests
            await asyncio.sleep(0.005)


def outcomes(home: House) -> list[tuple[str, str]]:
    return [(each.provider, each.outcome) for each in home.books.entry.attempts]


@WHOLE_AND_STREAMED
async def test_a_failure_that_may_pass_is_tried_again_at_the_same_target(
    upstream: RunningSimulator, tmp_path: Path, stream: bool
) -> None:
    upstream.script([Step(fault=Fault.UNAVAILABLE), Step(fault=Fault.RESET_BEFORE_HEADERS)])
    async with home_of(tmp_path, target(upstream)) as home:
        client = await home.carry(call_to(stream=stream))

    assert client.error is None
    assert client.ended
    entry = home.books.entry
    assert outcomes(home) == [("p1", "failed"), ("p1", "failed"), ("p1", "answered")]
    assert [each.code for each in entry.attempts] == ["status_503", "broken", ""]
    assert entry.attempts[0].backoff_us == 0 < entry.attempts[1].backoff_us
    assert entry.outcome == "answered"
    assert ends(read(home.journal.folder)) == home.books.entries


async def test_a_target_is_tried_three_times_and_then_the_client_is_told_not_to_go_on(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    upstream.script([Step(fault=Fault.SERVER_ERROR, count=None)])
    async with home_of(tmp_path, target(upstream)) as home:
        client = await home.carry(call_to())

    assert client.error is not None
    assert (client.error.status, dict(client.error.headers())[b"x-should-retry"]) == (502, b"false")
    assert outcomes(home) == [("p1", "failed")] * 3


@WHOLE_AND_STREAMED
async def test_a_call_falls_back_when_the_first_target_is_down(
    upstream: RunningSimulator, second: RunningSimulator, tmp_path: Path, stream: bool
) -> None:
    upstream.script([Step(fault=Fault.SERVER_ERROR, count=None)])
    async with home_of(tmp_path, target(upstream), target(second, 2, order=1)) as home:
        client = await home.carry(call_to(stream=stream))

    assert client.error is None
    assert outcomes(home) == [("p1", "failed")] * 3 + [("p2", "answered")]


@pytest.mark.parametrize("fault", [Fault.UNAUTHORIZED, Fault.PAYMENT_REQUIRED, Fault.FORBIDDEN])
async def test_a_refused_credential_falls_back_at_once_and_is_flagged(
    upstream: RunningSimulator, second: RunningSimulator, tmp_path: Path, fault: Fault
) -> None:
    upstream.script([Step(fault=fault, count=2)])
    async with home_of(tmp_path, target(upstream), target(second, 2, order=1)) as home:
        await home.carry(call_to())
        await home.carry(call_to())
        await home.carry(call_to())

    first, again, healed = home.books.entries
    assert [each.outcome for each in first.attempts] == ["failed", "answered"]
    assert [each.code for each in again.attempts] == ["credential_refused", ""]
    assert [each.provider for each in healed.attempts] == ["p1"]
    assert home.news.credentials == [("p1", fault.status), ("p1", None)]
    assert home.news.changes == []


async def test_the_callers_own_mistake_is_not_taken_elsewhere(
    upstream: RunningSimulator, second: RunningSimulator, tmp_path: Path
) -> None:
    upstream.script([Step(fault=Fault.BAD_REQUEST)])
    async with home_of(tmp_path, target(upstream), target(second, 2, order=1)) as home:
        client = await home.carry(call_to())

    assert isinstance(client.error, errors.UpstreamRejected)
    assert outcomes(home) == [("p1", "rejected")]


async def test_a_model_name_that_one_provider_lacks_is_asked_of_the_next(
    upstream: RunningSimulator, second: RunningSimulator, tmp_path: Path
) -> None:
    upstream.script([Step(fault=Fault.NOT_FOUND)])
    async with home_of(tmp_path, target(upstream), target(second, 2, order=1)) as home:
        await home.carry(call_to())

    assert outcomes(home) == [("p1", "rejected"), ("p2", "answered")]


async def test_nothing_is_tried_again_once_the_client_has_bytes(
    upstream: RunningSimulator, second: RunningSimulator, tmp_path: Path
) -> None:
    upstream.script([Step(fault=Fault.RESET_MID_STREAM)])
    async with home_of(tmp_path, target(upstream), target(second, 2, order=1)) as home:
        client = await home.carry(call_to(stream=True))

    assert outcomes(home) == [("p1", "failed")]
    assert b'data: {"error":' in client.body
    assert second.journal.received() == []


@WHOLE_AND_STREAMED
async def test_a_retry_after_is_honoured(upstream: RunningSimulator, tmp_path: Path, stream: bool) -> None:
    upstream.script([Step(fault=Fault.THROTTLED_MS, retry_after_s=0.3)])
    async with home_of(tmp_path, target(upstream)) as home:
        await home.carry(call_to(stream=stream))

    first, again = home.books.entry.attempts
    assert again.backoff_us == 300_000
    assert again.started_at_us - first.started_at_us >= 300_000


async def test_a_retry_after_that_is_too_long_goes_on_to_the_client(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    upstream.script([Step(fault=Fault.THROTTLED_SECONDS, retry_after_s=90)])
    async with home_of(tmp_path, target(upstream)) as home:
        client = await home.carry(call_to())

    assert isinstance(client.error, errors.UpstreamThrottled)
    headers = dict(client.error.headers())
    assert (headers[b"retry-after"], headers[b"x-should-retry"]) == (b"90", b"false")
    assert outcomes(home) == [("p1", "failed")]


async def test_a_long_wait_is_not_taken_while_another_target_is_ready(
    upstream: RunningSimulator, second: RunningSimulator, tmp_path: Path
) -> None:
    upstream.script([Step(fault=Fault.THROTTLED_SECONDS, retry_after_s=5)])
    async with home_of(tmp_path, target(upstream), target(second, 2, order=1)) as home:
        await home.carry(call_to())

    assert outcomes(home) == [("p1", "failed"), ("p2", "answered")]


async def test_no_retry_goes_past_the_deadline(upstream: RunningSimulator, tmp_path: Path) -> None:
    upstream.script([Step(fault=Fault.THROTTLED_SECONDS, retry_after_s=20)])
    async with home_of(tmp_path, target(upstream), timeout_s=10.0) as home:
        client = await home.carry(call_to())

    assert isinstance(client.error, errors.UpstreamThrottled)
    assert len(home.books.entry.attempts) == 1


@WHOLE_AND_STREAMED
async def test_the_calls_own_deadline_wins_over_the_routes(
    upstream: RunningSimulator, tmp_path: Path, stream: bool
) -> None:
    async with home_of(tmp_path, target(upstream), timeout_s=60.0) as home:
        call = call_to(stream=stream)
        call.timeout_s = 1.0
        upstream.script([Step(fault=Fault.SILENCE)])
        client = await home.carry(call)

    assert isinstance(client.error, errors.UpstreamTimedOut)
    assert [each.outcome for each in home.books.entry.attempts] == ["timed_out"]
    await until(lambda: upstream.journal.ended() and upstream.journal.ended()[0].client_gone)


async def test_a_silent_stream_is_tried_again_and_a_silent_whole_answer_is_not(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    patient = target(upstream, pool=PoolConfig(read_timeout_s=0.5))
    async with home_of(tmp_path, patient, timeout_s=4.0) as home:
        upstream.script([Step(fault=Fault.SILENCE)])
        streamed = await home.carry(call_to(stream=True))
        upstream.script([Step(fault=Fault.SILENCE)])
        whole = await home.carry(call_to())

    assert streamed.error is None
    assert isinstance(whole.error, errors.UpstreamTimedOut)
    first, last = home.books.entries
    assert [(each.outcome, each.code) for each in first.attempts] == [
        ("timed_out", "silent"),
        ("answered", ""),
    ]
    assert [each.code for each in last.attempts] == ["deadline"]


async def test_a_deadline_that_the_client_chose_does_not_speak_against_the_target(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    upstream.script([Step(fault=Fault.SILENCE, count=None)])
    async with home_of(tmp_path, target(upstream)) as home:
        for _ in range(6):
            call = call_to()
            call.timeout_s = 0.05
            await home.carry(call)
        assert home.news.changes == []

    busy = target(upstream, pool=PoolConfig(read_timeout_s=0.05))
    async with house_of(route(busy), tmp_path / "long") as home:
        upstream.forget_script()
        upstream.script([Step(fault=Fault.SLOW_DRIP, pause_s=0.02, count=6)])
        for _ in range(6):
            call = call_to(stream=True)
            call.timeout_s = 0.3
            await home.carry(call)
        assert home.news.changes == [], "words came all the time"

    upstream.script([Step(fault=Fault.SILENCE, count=None)])
    async with house_of(route(target(upstream), timeout_s=0.05), tmp_path / "other") as home:
        for _ in range(6):
            await home.carry(call_to())
        assert [each.after for _, each in home.news.changes] == ["open"]


async def test_an_answer_larger_than_we_take_speaks_against_nobody_and_is_booked(
    upstream: RunningSimulator, second: RunningSimulator, tmp_path: Path
) -> None:
    upstream.script([Step(fault=Fault.HUGE_BODY, body_bytes=200_000, count=None)])
    routes = route(target(upstream), target(second, 2, order=1))
    async with house_of(routes, tmp_path / "journal", Limits(max_answer_bytes=100_000)) as home:
        for _ in range(6):
            client = await home.carry(call_to())

    assert client.error is not None
    assert client.error.status == 502
    assert home.news.changes == []
    assert second.journal.received() == []
    assert all(each.usage.output_tokens > 20_000 for each in home.books.entries)


async def test_a_breaker_opens_and_calls_fail_fast_until_one_probe_closes_it(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    upstream.script([Step(fault=Fault.SERVER_ERROR, count=5)])
    policy = BreakerPolicy(open_s=0.4)
    async with house_of(route(target(upstream)), tmp_path / "journal", breaker=policy) as home:
        await home.carry(call_to())
        await home.carry(call_to())  # its second attempt is the fifth failure
        refused = await home.carry(call_to())
        assert isinstance(refused.error, errors.NoTargetAvailable)
        assert refused.error.retry_after_s is not None
        sent = len(upstream.journal.received())

        live = home.targets.of(home.routes.current().routes["gpt-4o-mini"].targets[0])
        await until(lambda: live.breaker.permits(asyncio.get_running_loop().time()))
        answered = await home.carry(call_to())

    assert answered.error is None
    assert sent == 5
    entry = home.books.entries[2]
    assert (entry.outcome, entry.status, entry.attempts) == ("failed", 503, ())
    assert [(each.provider, each.why) for each in entry.skipped] == [("p1", "open")]
    assert [each.probe for each in home.books.entries[3].attempts] == [True]
    assert [(each.before, each.after) for _, each in home.news.changes] == [
        ("closed", "open"),
        ("open", "half_open"),
        ("half_open", "closed"),
    ]


async def test_a_target_whose_breaker_is_open_is_passed_over(
    upstream: RunningSimulator, second: RunningSimulator, tmp_path: Path
) -> None:
    held = target(upstream, lever="open")
    async with home_of(tmp_path, held, target(second, 2, order=1)) as home:
        await home.carry(call_to())

        home.routes.change(Catalog(route(replace(held, lever="automatic"))))
        await home.carry(call_to())

    first, second_entry = home.books.entries
    assert [(each.provider, each.why) for each in first.skipped] == [("p1", "open")]
    assert [each.provider for each in second_entry.attempts] == ["p1"]


async def test_a_thousand_waiting_calls_send_one_probe(upstream: RunningSimulator, tmp_path: Path) -> None:
    policy = BreakerPolicy(open_s=0.2)
    once = RetryPolicy(attempts=1)
    made = target(upstream, max_concurrency=20)
    async with house_of(route(made), tmp_path / "journal", retry=once, breaker=policy) as home:
        upstream.script([Step(fault=Fault.SERVER_ERROR, count=5)])
        for _ in range(5):
            await home.carry(call_to())
        live = home.targets.of(made)
        await until(lambda: live.breaker.permits(asyncio.get_running_loop().time()))
        upstream.script([Step(delay_s=0.3)])

        clients = await asyncio.gather(*(home.carry(call_to()) for _ in range(1000)))

    assert sum(each.error is None for each in clients) == 1
    assert len(upstream.journal.received()) == 6
    assert sum(each.probe for entry in home.books.entries for each in entry.attempts) == 1
    assert live.breaker.state(asyncio.get_running_loop().time()) == "closed"


async def test_a_probe_whose_client_leaves_gives_its_permit_back(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    made = target(upstream)
    policy = BreakerPolicy(open_s=0.1)
    async with house_of(route(made), tmp_path / "j", retry=RetryPolicy(attempts=1), breaker=policy) as home:
        upstream.script([Step(fault=Fault.SERVER_ERROR, count=5), Step(fault=Fault.SILENCE)])
        for _ in range(5):
            await home.carry(call_to())
        live = home.targets.of(made)
        await until(lambda: live.breaker.permits(asyncio.get_running_loop().time()))
        task, line = home.start(call_to(), Client())
        await until(lambda: len(upstream.journal.received()) == 6)
        line.cut_off(Cut.HUNG_UP)
        await task
        after = await home.carry(call_to())

    assert after.error is None


async def test_a_probes_first_word_closes_the_breaker(upstream: RunningSimulator, tmp_path: Path) -> None:
    made = target(upstream)
    policy = BreakerPolicy(open_s=0.1)
    async with house_of(route(made), tmp_path / "j", retry=RetryPolicy(attempts=1), breaker=policy) as home:
        upstream.script([Step(fault=Fault.SERVER_ERROR, count=5), Step(fault=Fault.STALL)])
        for _ in range(5):
            await home.carry(call_to())
        live = home.targets.of(made)
        await until(lambda: live.breaker.permits(asyncio.get_running_loop().time()))
        client = Client()
        task, line = home.start(call_to(stream=True), client)
        await until(lambda: b"content" in client.body)
        during = await home.carry(call_to())
        line.cut_off(Cut.HUNG_UP)
        await task

    assert during.error is None


async def test_a_full_target_is_passed_over(
    upstream: RunningSimulator, second: RunningSimulator, tmp_path: Path
) -> None:
    async with home_of(tmp_path, target(upstream, max_concurrency=1), target(second, 2, order=1)) as home:
        upstream.script([Step(fault=Fault.SILENCE)])
        task, line = home.start(call_to(), Client())
        await until(upstream.journal.received)
        await home.carry(call_to())
        line.cut_off(Cut.HUNG_UP)
        await task

    entry = home.books.entries[0]
    assert [each.provider for each in entry.attempts] == ["p2"]
    assert [(each.provider, each.why) for each in entry.skipped] == [("p1", "full")]


async def test_a_call_waits_at_the_gate_for_its_turn(upstream: RunningSimulator, tmp_path: Path) -> None:
    async with home_of(tmp_path, target(upstream, max_concurrency=1)) as home:
        upstream.script([Step(delay_s=0.2)])
        first, second = await asyncio.gather(home.carry(call_to()), home.carry(call_to()))

    assert (first.error, second.error) == (None, None)
    waited = [entry.attempts[0].queued_us for entry in home.books.entries]
    assert waited[1] > 100_000 > waited[0]


async def test_a_call_that_finds_no_room_to_wait_is_refused_and_is_no_entry(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    async with home_of(tmp_path, target(upstream, max_concurrency=1, max_waiting=0)) as home:
        upstream.script([Step(fault=Fault.SILENCE)])
        task, line = home.start(call_to(), Client())
        await until(upstream.journal.received)
        refused = await home.carry(call_to())
        line.cut_off(Cut.HUNG_UP)
        await task

    assert isinstance(refused.error, errors.Overloaded)
    assert refused.error.retry_after_s is not None
    assert [each.outcome for each in home.books.entries] == ["hung_up"]
    assert home.books.refusals == [(1, 11, "gpt-4o-mini", "overloaded")]
    assert ends(read(home.journal.folder)) == home.books.entries


async def test_a_deadline_that_passes_at_the_gate_is_a_refusal(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    async with home_of(tmp_path, target(upstream, max_concurrency=1)) as home:
        upstream.script([Step(fault=Fault.SILENCE)])
        task, line = home.start(call_to(), Client())
        await until(upstream.journal.received)
        call = call_to()
        call.timeout_s = 0.2
        refused = await home.carry(call)
        line.cut_off(Cut.HUNG_UP)
        await task

    assert isinstance(refused.error, errors.Overloaded)
    assert [each.outcome for each in home.books.entries] == ["hung_up"]


async def test_our_own_shedding_never_opens_a_breaker(upstream: RunningSimulator, tmp_path: Path) -> None:
    made = target(upstream, max_concurrency=1, max_waiting=0)
    async with home_of(tmp_path, made) as home:
        upstream.script([Step(fault=Fault.SILENCE)])
        task, line = home.start(call_to(), Client())
        await until(upstream.journal.received)
        for _ in range(20):
            await home.carry(call_to())
        line.cut_off(Cut.HUNG_UP)
        await task
        after = await home.carry(call_to())

    assert after.error is None
    assert home.news.changes == []


async def test_an_answer_is_read_on_for_its_usage_where_the_route_says_so(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    async with home_of(tmp_path, target(upstream), hang_up_drain_s=5.0) as home:
        upstream.script([Step(fault=Fault.SLOW_DRIP, pause_s=0.02)])
        client = Client()
        task, line = home.start(call_to(stream=True, max_tokens=10), client)
        await until(lambda: b"content" in client.body)
        line.hang_up()
        await task

    entry = home.books.entry
    assert (entry.outcome, entry.status, entry.usage.basis) == ("hung_up", 499, "reported")
    assert entry.usage.output_tokens == 10
    assert b"[DONE]" not in client.body
    assert not upstream.journal.ended()[0].client_gone


async def test_reading_on_has_a_bound(upstream: RunningSimulator, tmp_path: Path) -> None:
    async with home_of(tmp_path, target(upstream), hang_up_drain_s=0.2) as home:
        upstream.script([Step(fault=Fault.STALL)])
        client = Client()
        task, line = home.start(call_to(stream=True), client)
        await until(lambda: b"content" in client.body)
        line.hang_up()
        await task

    entry = home.books.entry
    assert (entry.outcome, entry.usage.basis) == ("hung_up", "estimated")
    assert [(each.outcome, each.code) for each in entry.attempts] == [("cancelled", "hung_up")]
    await until(lambda: upstream.journal.ended() and upstream.journal.ended()[0].client_gone)


@WHOLE_AND_STREAMED
async def test_messages_that_the_provider_finds_too_long_are_shortened_where_the_route_says_so(
    upstream: RunningSimulator, tmp_path: Path, stream: bool
) -> None:
    upstream.script([Step(fault=Fault.CONTEXT_OVERFLOW)])
    call = call_to(stream=stream, messages=[{"role": "user", "content": str(each)} for each in range(9)])
    async with home_of(tmp_path, target(upstream), overflow="trim") as home:
        client = await home.carry(call)

    assert client.error is None
    first, again = home.books.entry.attempts
    assert (first.outcome, first.trimmed) == ("rejected", 0)
    assert again.outcome == "answered"
    assert again.trimmed > 0


async def test_messages_that_the_provider_finds_too_long_go_to_another_route_where_this_one_says_so(
    upstream: RunningSimulator, second: RunningSimulator, tmp_path: Path
) -> None:
    upstream.script([Step(fault=Fault.CONTEXT_OVERFLOW)])
    routes = {
        **route(target(upstream), overflow="reroute", overflow_route="long"),
        "long": Route("long", (target(second, 2),)),
    }
    async with house_of(routes, tmp_path / "journal") as home:
        client = await home.carry(call_to())

    assert client.error is None
    assert outcomes(home) == [("p1", "rejected"), ("p2", "answered")]
    assert home.books.entry.route == "gpt-4o-mini"


async def test_another_route_that_cannot_take_the_messages_either_leaves_the_providers_own_words(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    upstream.script([Step(fault=Fault.CONTEXT_OVERFLOW)])
    routes = route(target(upstream), overflow="reroute", overflow_route="gone")
    async with house_of(routes, tmp_path / "journal") as home:
        client = await home.carry(call_to())

    assert isinstance(client.error, errors.UpstreamRejected)


async def test_the_limits_of_one_attempt_do_not_cut_the_wait_for_the_next(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    upstream.script([Step(fault=Fault.THROTTLED_MS, retry_after_s=0.6)])
    hasty = target(upstream, pool=PoolConfig(read_timeout_s=0.3))
    async with home_of(tmp_path, hasty) as home:
        client = await home.carry(call_to(stream=True))

    assert client.error is None
    assert [each.outcome for each in home.books.entry.attempts] == ["failed", "answered"]


async def test_an_error_whose_words_do_not_come_is_told_by_its_status(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 50\r\n\r\n{")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(stall, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        there = replace(target(upstream), base_url=f"http://127.0.0.1:{port}/v1")
        async with home_of(tmp_path, there) as home:
            client = await home.carry(call_to())

    assert isinstance(client.error, errors.UpstreamRejected)
    assert "400" in client.error.message


async def test_messages_that_the_provider_finds_too_long_are_its_rejection_otherwise(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    upstream.script([Step(fault=Fault.CONTEXT_OVERFLOW)])
    async with home_of(tmp_path, target(upstream)) as home:
        client = await home.carry(call_to())

    assert isinstance(client.error, errors.UpstreamRejected)
    assert client.error.code == "context_length_exceeded"


async def test_each_attempt_that_the_provider_may_bill_is_on_the_books(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    upstream.script([Step(fault=Fault.RESET_AFTER_HEADERS)])
    async with home_of(tmp_path, target(upstream)) as home:
        await home.carry(call_to())

    first, again = home.books.entry.attempts
    assert first.usage.basis == "estimated"
    assert home.books.entry.cost_nanos == first.cost_nanos + again.cost_nanos
    assert home.books.entry.usage.basis == "estimated"
