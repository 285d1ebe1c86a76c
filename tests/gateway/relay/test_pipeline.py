"""Stories of one call, through the real transport, a real upstream and a real journal."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from yarl import URL

from gateway import errors
from gateway.ledger.sweeper import ends, read
from gateway.relay.admission import Reservation, Trying
from gateway.relay.attempt import Limits
from gateway.relay.lifeline import Cut
from gateway.simulator import Fault, RunningSimulator
from tests.gateway.relay.carried import CREDENTIAL, Client, House, call_to, house

Ended = Callable[[], Awaitable[None]]


@pytest.fixture
async def home(upstream: RunningSimulator, tmp_path: Path) -> AsyncIterator[House]:
    async with house(upstream.base_url, tmp_path / "journal") as made:
        yield made


async def until(holds: Callable[[], object], within_s: float = 5.0) -> None:
    """Wait for a condition of another task's making."""
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110 - what is waited for knows nothing of tests
            await asyncio.sleep(0.005)


def events(client: Client) -> list[bytes]:
    return [each for each in client.body.split(b"\n\n") if each]


async def test_a_whole_answer_is_handed_on_and_booked(home: House) -> None:
    client = await home.carry(call_to(max_tokens=5))

    entry = home.books.entry
    assert client.answer["usage"]["completion_tokens"] == 5 == entry.usage.output_tokens
    assert (entry.outcome, entry.status, entry.usage.basis) == ("answered", 200, "reported")
    assert entry.cost_nanos == entry.usage.input_tokens * 150 + 5 * 600
    assert [each.outcome for each in entry.attempts] == ["answered"]
    assert entry.latency_us >= entry.attempts[0].latency_us > 0


async def test_a_stream_is_handed_on_and_booked(home: House) -> None:
    client = await home.carry(call_to(stream=True, max_tokens=5))

    entry = home.books.entry
    assert events(client)[-1] == b"data: [DONE]"
    assert b'"usage":{' not in client.body
    assert (entry.outcome, entry.usage.output_tokens, entry.usage.basis) == ("answered", 5, "reported")
    assert entry.first_token_us is not None
    assert 0 < entry.first_token_us <= entry.latency_us


async def test_usage_goes_to_a_client_that_asked(home: House) -> None:
    client = await home.carry(call_to(stream=True, stream_options={"include_usage": True}))
    assert b'"usage":{' in events(client)[-2]


async def test_the_books_are_written_before_the_answer_ends(home: House) -> None:
    seen = []

    class Watching(Client):
        async def end_stream(self, data: bytes) -> None:
            seen.extend(home.books.entries)
            await super().end_stream(data)

    task, _ = home.start(call_to(stream=True), Watching())
    await task
    assert [each.outcome for each in seen] == ["answered"]


async def test_the_journal_tells_the_same_story(home: House) -> None:
    await home.carry(call_to())
    await home.carry(call_to(stream=True))

    assert ends(read(home.journal.folder)) == home.books.entries


async def test_only_our_headers_go_upstream(home: House, upstream: RunningSimulator) -> None:
    call = call_to()
    await home.carry(call)

    [received] = upstream.journal.received()
    assert received.request_id == call.call_id
    assert received.headers["authorization"] == f"Bearer {CREDENTIAL}"
    assert set(received.headers) == {
        *("accept", "accept-encoding", "authorization", "content-length", "content-type", "host"),
        *("user-agent", "x-request-id"),
    }


async def test_an_unknown_route_is_refused_and_counted(home: House) -> None:
    client = await home.carry(call_to("nowhere"))

    assert isinstance(client.error, errors.RouteNotAllowed)
    assert home.books.refusals == [(1, 11, "nowhere", "model_not_found")]
    assert home.books.entries == []


async def test_an_unpriced_call_is_refused_or_flagged_never_booked_as_free(home: House) -> None:
    refused = await home.carry(call_to("unpriced"))
    await home.carry(call_to("unpriced-allowed"))

    assert isinstance(refused.error, errors.Unpriced)
    assert home.books.entry.unpriced


@pytest.mark.parametrize(
    ("fault", "basis", "is_zero"),
    [
        (Fault.USAGE_BESIDE_CHOICES, "reported", False),
        (Fault.USAGE_ON_EVERY_CHUNK, "reported", False),
        (Fault.USAGE_MISSING, "estimated", False),
        (Fault.USAGE_ZERO, "reported", True),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_usage_in_every_shape(
    home: House, fault: Fault, basis: str, is_zero: bool, stream: bool
) -> None:
    client = await home.carry(call_to(fault.model_name, stream=stream))

    usage = home.books.entry.usage
    assert usage.basis == basis
    assert (usage.output_tokens == 0) is is_zero
    if stream:
        assert events(client)[-1] == b"data: [DONE]"
        assert b'"usage":{' not in client.body


async def test_a_huge_answer_is_not_swallowed(upstream: RunningSimulator, tmp_path: Path) -> None:
    async with house(upstream.base_url, tmp_path / "journal", Limits(max_answer_bytes=10_000)) as home:
        client = await home.carry(call_to(Fault.HUGE_BODY.model_name))

    assert client.error is not None
    assert client.error.status == 502
    assert "too large" in client.error.message


async def test_a_provider_that_is_not_there_is_said_to_be_unreachable(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with house(f"http://127.0.0.1:{port}/v1", tmp_path / "journal") as home:
        client = await home.carry(call_to())

    assert isinstance(client.error, errors.UpstreamUnreachable)
    assert home.books.entry.cost_nanos == 0
    assert home.books.entry.usage.basis == "none"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_client_that_leaves_before_the_first_byte_pays_its_prompt(
    home: House, upstream: RunningSimulator, stream: bool
) -> None:
    task, line = home.start(call_to(Fault.SILENCE.model_name, stream=stream), Client())
    await until(upstream.journal.received)

    line.cut_off(Cut.HUNG_UP)
    await task

    entry = home.books.entry
    assert (entry.outcome, entry.status, entry.usage.basis) == ("hung_up", 499, "estimated")
    assert (entry.usage.input_tokens > 0, entry.usage.output_tokens) == (True, 0)
    await until(upstream.journal.ended, within_s=1.0)
    assert upstream.journal.ended()[0].client_gone


async def test_a_client_that_leaves_in_mid_stream_pays_what_was_written(
    home: House, upstream: RunningSimulator
) -> None:
    client = Client()
    task, line = home.start(call_to(Fault.STALL.model_name, stream=True), client)
    await client.first_byte.wait()
    await until(lambda: b"content" in client.body)

    line.cut_off(Cut.HUNG_UP)
    await task

    entry = home.books.entry
    assert (entry.outcome, entry.usage.basis) == ("hung_up", "estimated")
    await until(upstream.journal.ended, within_s=1.0)
    assert abs(entry.usage.output_tokens - upstream.journal.ended()[0].completion_tokens) <= 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_silent_provider_is_not_waited_for_beyond_the_deadline(
    home: House, upstream: RunningSimulator, stream: bool
) -> None:
    client = Client()
    task, line = home.start(call_to(Fault.SILENCE.model_name, stream=stream), client)
    await until(upstream.journal.received)

    line.cut_off(Cut.DEADLINE)
    await task

    assert isinstance(client.error, errors.UpstreamTimedOut)
    entry = home.books.entry
    assert (entry.outcome, entry.status, entry.attempts[0].outcome) == ("failed", 504, "timed_out")


async def test_a_stalled_stream_ends_with_an_error_event(upstream: RunningSimulator, tmp_path: Path) -> None:
    async with house(upstream.base_url, tmp_path / "journal", read_timeout_s=0.3) as home:
        client = await home.carry(call_to(Fault.STALL.model_name, stream=True))

    assert b'"code":"upstream_timeout"' in events(client)[-1]
    assert home.books.entry.outcome == "truncated"


async def test_a_client_that_does_not_read_is_cut(upstream: RunningSimulator, tmp_path: Path) -> None:
    async with house(upstream.base_url, tmp_path / "journal", Limits(send_timeout_s=0.3)) as home:
        client = Client()
        client.reads.clear()
        task, _ = home.start(call_to(stream=True), client)
        async with asyncio.timeout(10):
            await task

    assert (home.books.entry.outcome, home.books.entry.code) == ("hung_up", "slow_reader")


async def test_a_stopping_gateway_ends_streams_with_an_error_event(home: House) -> None:
    client = Client()
    task, _ = home.start(call_to(Fault.STALL.model_name, stream=True), client)
    await client.first_byte.wait()

    home.lines.cut_all(Cut.STOPPING)
    await task

    assert b'"code":"overloaded"' in events(client)[-1]
    assert home.books.entry.outcome == "truncated"


async def test_a_full_pool_is_our_own_shedding(upstream: RunningSimulator, tmp_path: Path) -> None:
    async with house(upstream.base_url, tmp_path / "journal", max_connections=1, pool_timeout_s=0.05) as home:
        first, line = home.start(call_to(Fault.SILENCE.model_name), Client())
        await until(upstream.journal.received)
        client = await home.carry(call_to(Fault.SILENCE.model_name))
        line.cut_off(Cut.HUNG_UP)
        await first

    assert isinstance(client.error, errors.Overloaded)
    assert client.error.retry_after_s
    assert home.books.refusals == [(1, 11, Fault.SILENCE.model_name, "overloaded")]
    assert [each.outcome for each in home.books.entries] == ["hung_up"]


async def test_a_client_that_leaves_the_line_for_a_connection_pays_nothing(
    upstream: RunningSimulator, tmp_path: Path
) -> None:
    async with house(upstream.base_url, tmp_path / "journal", max_connections=1) as home:
        first, first_line = home.start(call_to(Fault.SILENCE.model_name), Client())
        await until(upstream.journal.received)
        second, second_line = home.start(call_to(Fault.SILENCE.model_name), Client())
        await until(lambda: home.journal.segments[0].end > 300)
        second_line.cut_off(Cut.HUNG_UP)
        await second
        first_line.cut_off(Cut.HUNG_UP)
        await first

    left = home.books.entries[0]
    assert (left.outcome, left.usage.basis, left.cost_nanos, left.attempts) == ("hung_up", "none", 0, ())
    assert len(upstream.journal.received()) == 1


async def test_an_accident_of_our_own_in_mid_call_is_booked_as_if_the_provider_had_worked(
    home: House,
) -> None:
    class Bad(Client):
        async def begin_stream(self, trying: Trying, reservation: Reservation) -> None:
            raise RuntimeError("a bug")

    task, _ = home.start(call_to(stream=True), Bad())
    with pytest.raises(RuntimeError):
        await task

    entry = home.books.entry
    assert (entry.outcome, entry.code) == ("failed", "internal_error")
    assert entry.usage.basis != "none"


async def test_a_call_without_room_on_the_books_is_refused(home: House) -> None:
    home.journal._max_bytes = 0  # the bound is reached at the next segment
    home.journal.segments[0].end = home.journal.segments[0].size

    client = await home.carry(call_to())

    assert isinstance(client.error, errors.Unavailable)
    assert home.books.refusals == [(1, 11, "gpt-4o-mini", "journal_full")]


@asynccontextmanager
async def counted(upstream: RunningSimulator) -> AsyncIterator[tuple[str, list[asyncio.Task[object] | None]]]:
    """The same upstream behind a port that counts connections."""
    there = URL(upstream.base_url)
    made: list[asyncio.Task[object] | None] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        finally:
            writer.close()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.append(asyncio.current_task())
        far_reader, far_writer = await asyncio.open_connection(there.host, there.port)
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer), return_exceptions=True)

    async with await asyncio.start_server(meet, "127.0.0.1") as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", made
        await asyncio.wait([each for each in made if each is not None])


async def test_connections_are_used_again(upstream: RunningSimulator, tmp_path: Path) -> None:
    async with counted(upstream) as (base_url, made), house(base_url, tmp_path / "journal") as home:
        for _ in range(5):
            await home.carry(call_to(stream=True))
            await home.carry(call_to())

    assert len(made) == 1


async def test_many_calls_are_carried_at_once(home: House, upstream: RunningSimulator) -> None:
    clients = await asyncio.gather(*(home.carry(call_to(stream=bool(each % 2))) for each in range(200)))

    assert all(each.ended for each in clients)
    assert len({each.call_id for each in home.books.entries}) == 200
