"""What HTTP/2 brings of its own: many calls on one connection, farewells, resets, windows."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import h2.errors
import pytest

from gateway.relay.transports import Broken, CannotConnect
from tests.gateway.relay.transports.conftest import Line, eventually, line_of
from tests.upstreams.h1_server import h1_upstream
from tests.upstreams.h2_server import H2Exchange, go_away
from tests.upstreams.upstream import (
    Upstream,
    answer,
    event,
    listening,
    reset,
    stall,
    stall_after,
    stream,
    whole,
    within,
)


async def test_calls_at_once_share_a_connection(http2: Line) -> None:
    answers = await within(asyncio.gather(*(http2.call() for _ in range(50))))
    assert {status for status, _ in answers} == {200}
    assert len(http2.upstream.connections) == 1
    assert (http2.figures.opened, http2.figures.reused, http2.figures.idle) == (1, 49, 1)


async def test_a_provider_that_takes_few_streams_gets_more_connections() -> None:
    async with line_of("httpx-http2", most_streams=2) as line:
        await line.call()  # the limit is known from the first answer on
        line.upstream.will(*[stall_after("one")] * 6)
        running = [await within(line.begin()) for _ in range(6)]
        assert len(line.upstream.connections) == 3
        for each in running:
            each.close()


async def test_a_call_that_is_left_resets_its_stream_and_no_other(http2: Line) -> None:
    goes_on = asyncio.Event()
    http2.upstream.will(stall, stream("one", "two", goes_on=goes_on))
    left = asyncio.create_task(http2.call())
    exchange: H2Exchange = await http2.upstream.request()
    stays = await http2.begin()

    left.cancel()
    await within(exchange.left.wait())
    goes_on.set()

    assert exchange.reset_code == h2.errors.ErrorCodes.CANCEL
    assert (await stays.whole(1 << 20)).endswith(b"[DONE]\n\n")
    stays.close()
    assert len(http2.upstream.connections) == 1


async def test_calls_that_leave_at_any_moment_disturb_no_other(http2: Line) -> None:
    """A frame that a cancelled call left half-written would end the connection for all."""
    rng = random.Random(7)
    http2.limit(max_connections=1000)

    async def leaver() -> None:
        call = asyncio.create_task(http2.call(body=b"x" * rng.randrange(20_000)))
        for _ in range(rng.randrange(40)):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])

    for _ in range(10):
        calls = [http2.call() for _ in range(10)]
        answers, *_ = await within(asyncio.gather(asyncio.gather(*calls), *(leaver() for _ in range(20))), 30)
        assert {status for status, _ in answers} == {200}
    await http2.is_free()
    assert len(http2.upstream.connections) <= 3
    assert http2.figures.connection_errors == 0


async def test_what_a_left_stream_had_sent_does_not_use_up_the_window(http2: Line) -> None:
    """Together they are more than the connection's whole window of 16 MiB."""
    for _ in range(140):
        http2.upstream.will(whole(b"x" * 128 * 1024))
        left = await within(http2.begin())
        await within(http2.call())  # who reads takes in what came for the others too
        left.close()
        await http2.is_free()

    http2.upstream.will(whole(b"x" * (1 << 20)))
    assert len((await within(http2.call(limit=2 << 20)))[1]) == 1 << 20
    assert len(http2.upstream.connections) == 1


async def test_a_stream_that_failed_gives_its_room_back() -> None:
    async with line_of("httpx-http2", most_streams=1) as line:
        await line.call()
        for _ in range(3):
            line.upstream.will(reset())
            with pytest.raises(Broken):
                await within(line.call())
        await line.call()
        assert len(line.upstream.connections) == 1


async def test_a_connection_that_ended_without_a_farewell_is_not_used_again(http2: Line) -> None:
    async def step(exchange: H2Exchange) -> None:
        await answer()(exchange)
        await exchange.close()

    http2.upstream.will(step)
    await http2.call()
    await eventually(lambda: not http2.figures.idle)
    assert (await http2.call())[0] == 200
    assert http2.figures.connection_errors == 0


async def test_a_slow_reader_holds_up_no_other_call(http2: Line) -> None:
    http2.upstream.will(*[whole(b"x" * (1 << 20))] * 90)
    slow = [await within(http2.begin()) for _ in range(90)]

    http2.upstream.will(whole(b"y" * (1 << 20)))
    assert len((await within(http2.call(limit=2 << 20)))[1]) == 1 << 20

    for each in slow:
        each.close()


# Farewells


async def test_calls_under_way_are_answered_after_a_farewell(http2: Line) -> None:
    goes_on = asyncio.Event()
    http2.upstream.will(
        stream("one", "two", goes_on=goes_on), go_away(then=stream("one", "two", goes_on=goes_on))
    )
    first, second = await http2.begin(), await http2.begin()

    assert (await http2.call())[0] == 200  # on a new connection
    goes_on.set()

    for each in (first, second):
        assert (await within(each.whole(1 << 20))).endswith(b"[DONE]\n\n")
        each.close()
    assert len(http2.upstream.connections) == 2
    await within(http2.upstream.connections[0].closed.wait())


async def test_a_call_that_the_provider_did_not_look_at_goes_up_again(http2: Line) -> None:
    http2.upstream.will(go_away(unseen=True), answer())
    assert (await http2.call())[0] == 200
    assert (http2.figures.requests, http2.figures.connection_errors) == (1, 0)


async def test_a_stream_that_the_provider_refused_goes_up_again(http2: Line) -> None:
    async def refuse(exchange: H2Exchange) -> None:
        await exchange.reset(h2.errors.ErrorCodes.REFUSED_STREAM)

    http2.upstream.will(refuse, answer())
    assert (await http2.call())[0] == 200


async def test_a_farewell_that_comes_while_no_call_is_on_it_breaks_no_call(http2: Line) -> None:
    goes_on = asyncio.Event()

    async def step(exchange: H2Exchange) -> None:
        await answer()(exchange)
        await goes_on.wait()
        await exchange.go_away(code=h2.errors.ErrorCodes.INTERNAL_ERROR)

    http2.upstream.will(step)
    await http2.call()
    goes_on.set()
    await within(http2.upstream.exchanges[0].done.wait())

    assert (await http2.call())[0] == 200
    assert http2.figures.connection_errors == 0


async def test_calls_that_wait_for_a_stream_go_elsewhere_after_a_farewell() -> None:
    async with line_of("httpx-http2", most_streams=1) as line:
        line.upstream.will(go_away(then=answer()))
        answers = await within(asyncio.gather(*(line.call() for _ in range(3))))
        assert {status for status, _ in answers} == {200}
        assert [exchange.connection.number for exchange in line.upstream.exchanges].count(1) == 1


async def test_a_provider_that_never_looks_is_given_up(http2: Line) -> None:
    http2.upstream.will(*[go_away(unseen=True)] * 9)
    with pytest.raises(Broken, match="before it took the request"):
        await within(http2.call())
    assert len(http2.upstream.exchanges) == 3


async def test_a_farewell_with_an_error_breaks_the_call(http2: Line) -> None:
    http2.upstream.will(go_away(code=h2.errors.ErrorCodes.ENHANCE_YOUR_CALM))
    with pytest.raises(Broken, match="GOAWAY ENHANCE_YOUR_CALM"):
        await within(http2.call())
    assert (await http2.call())[0] == 200


async def test_a_farewell_with_an_error_in_mid_stream_breaks_the_call(http2: Line) -> None:
    http2.upstream.will(go_away(code=h2.errors.ErrorCodes.INTERNAL_ERROR, after=event("one")))
    with pytest.raises(Broken, match="broke off"):
        await within(http2.call())
    await http2.is_free()


async def test_a_reset_stream_breaks_its_call_and_no_other(http2: Line) -> None:
    goes_on = asyncio.Event()
    http2.upstream.will(stream("one", "two", goes_on=goes_on), reset(after=event("one")))
    stays = await http2.begin()
    with pytest.raises(Broken, match="RST_STREAM INTERNAL_ERROR"):
        await within(http2.call())
    goes_on.set()
    assert (await stays.whole(1 << 20)).endswith(b"[DONE]\n\n")
    stays.close()
    assert len(http2.upstream.connections) == 1


# Connecting


async def test_a_provider_that_only_speaks_http_1_is_spoken_to_in_it() -> None:
    async with h1_upstream(tls=True) as upstream, line_of("httpx-http2") as line:
        line.change(base_url=upstream.base_url, ca_pem=upstream.ca_pem)
        answers = await within(asyncio.gather(*(line.call() for _ in range(5))))
        assert {status for status, _ in answers} == {200}
        assert line.figures.http_version == "1.1"
        opened = line.figures.opened
        await line.call()
        assert line.figures.opened == opened == len(upstream.connections)


async def test_connections_to_a_provider_that_only_speaks_http_1_are_made_side_by_side() -> None:
    async with h1_upstream(tls=True) as upstream, held_up(upstream) as gate, line_of("httpx-http2") as line:
        line.change(base_url=gate.base_url, ca_pem=upstream.ca_pem)
        upstream.will(stall_after("one"))
        first = await within(line.begin())

        calls = [asyncio.create_task(line.call()) for _ in range(2)]
        await eventually(lambda: gate.connections == 3)
        gate.opens.set()

        assert {status for status, _ in await within(asyncio.gather(*calls))} == {200}
        first.close()


@dataclass
class Gate:
    """Hands bytes on; all connections but the first wait until it opens."""

    base_url: str = ""
    connections: int = 0
    opens: asyncio.Event = field(default_factory=asyncio.Event)
    serving: list[Any] = field(default_factory=list)


@asynccontextmanager
async def held_up(upstream: Upstream) -> AsyncIterator[Gate]:
    gate = Gate()
    behind = int(upstream.base_url.split(":")[2].split("/")[0])

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gate.connections += 1
        gate.serving.append(asyncio.current_task())
        if gate.connections > 1:
            await gate.opens.wait()
        there, back = await asyncio.open_connection("127.0.0.1", behind)
        await asyncio.gather(pour(reader, back), pour(there, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        gate.base_url = f"https://localhost:{server.sockets[0].getsockname()[1]}/v1"
        yield gate
        await within(asyncio.gather(*gate.serving))


async def test_a_provider_that_hangs_up_on_everybody_is_given_up(http2: Line) -> None:
    class HangsUp(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            http2.upstream.connected()
            transport.close()

    async with listening(http2.upstream, HangsUp, ["h2"], tls=True, names=("localhost",)):
        http2.change(base_url=http2.upstream.base_url, ca_pem=http2.upstream.ca_pem)
        with pytest.raises(Broken):
            await within(http2.call())
    assert len(http2.upstream.connections) <= 3


async def test_one_failure_to_connect_is_told_to_all_who_wait_for_it(http2: Line) -> None:
    http2.change(ca_pem="")
    results = await within(asyncio.gather(*(http2.call() for _ in range(20)), return_exceptions=True))
    assert {type(each) for each in results} == {CannotConnect}
    assert http2.figures.in_use == 0


async def test_who_comes_first_may_leave_while_the_others_wait_for_the_connection(http2: Line) -> None:
    first, *others = [asyncio.create_task(http2.call()) for _ in range(3)]
    await eventually(lambda: http2.transport.figures().get(7) and http2.figures.in_use == 3)
    first.cancel()
    assert {status for status, _ in await within(asyncio.gather(*others))} == {200}
