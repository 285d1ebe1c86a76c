"""Changed settings of a target: at work within a moment, without a restart, and no running call is cut."""

import asyncio
import contextlib
import json
import time
from urllib.parse import urlsplit

import pytest

from gateway.simulator import Ended, Fault, Received, Step
from tests.served import eventually
from tests.system.upstream_side.clients import Wire, connect, wires_to
from tests.system.upstream_side.house import open_house
from tests.system.upstream_side.provider import running_provider
from tests.upstreams.h1_server import H1Exchange, h1_upstream
from tests.upstreams.h2_server import H2Exchange, h2_upstream
from tests.upstreams.upstream import stream

MODEL_NAME = "gpt-4o"
LONG = "gpt-4o-long"
TLS = "gpt-4o-tls"
DONE = b"data: [DONE]\n\n"
BEGUN = b'"role"'


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    folder = tmp_path_factory.mktemp("settings")
    with running_provider(folder) as provider, open_house(folder, provider, MODEL_NAME, LONG) as opened:
        yield opened


class Listening:
    """A client with a stream open."""

    def __init__(self, wire: Wire) -> None:
        self.wire, self.heard = wire, b""
        self.begun = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        self.heard = await self.wire.reader.readuntil(b"\r\n\r\n")
        async for chunk in self.wire.chunks():
            self.heard += chunk
            self.begun.set()

    async def to_its_end(self) -> bytes:
        async with asyncio.timeout(30):
            await self._reading
        self.wire.leave()
        return self.heard


async def listen(house, model_name) -> Listening:
    """A stream whose first chunk has come."""
    wire = await connect(house.served.port)
    wire.writer.write(house.request(model_name, stream=True, max_tokens=40))
    listening = Listening(wire)
    async with asyncio.timeout(20):
        await listening.begun.wait()
    return listening


async def change(house, model_name, **changes) -> None:
    """From another process; heard of when this returns."""
    places = changes.setdefault("max_concurrency", 50)
    await asyncio.to_thread(house.change, {model_name: changes})
    await asyncio.to_thread(
        eventually, lambda: house.figure("penstock_gate_places", model_name) == places, what="the change"
    )


async def statuses(house, count, model_name=MODEL_NAME):
    async with wires_to(house.served.port) as wires:
        answers = await asyncio.gather(*(wires.ask(house.request(model_name)) for _ in range(count)))
    return sorted(answer.status for answer in answers)


def most_at_once(lines):
    """The most of these calls that the provider had at once; an end may be that of an earlier one."""
    began = {line.number for line in lines if isinstance(line, Received)}
    mine = [line for line in lines if line.number in began]
    moments = [(line.at_us, 1 if isinstance(line, Received) else -1) for line in mine]
    at_once = most = 0
    for _, step in sorted(moments):
        at_once += step
        most = max(most, at_once)
    return most


def test_fewer_places_and_connections_hold_from_the_next_call_on(house):
    async def story():
        # So slow where calls come together, and faster where two of them at a time are the most there are.
        at_once = Step(model_name=MODEL_NAME, delay_s=2, count=8)
        house.provider.script(at_once, Step(model_name=MODEL_NAME, delay_s=0.5, count=8), at_once)
        house.provider.news()
        before = await statuses(house, 8)
        at_first = most_at_once(house.provider.news())
        await change(house, MODEL_NAME, max_concurrency=2)
        fewer = await statuses(house, 8)
        with_fewer = most_at_once(house.provider.news())
        await change(house, MODEL_NAME, max_concurrency=9, max_connections=3, pool_timeout_s=0.1)
        shed = await statuses(house, 8)
        return (before, at_first), (fewer, with_fewer), (shed, most_at_once(house.provider.news()))

    before, fewer, shed = asyncio.run(story())

    assert before == ([200] * 8, 8)
    assert fewer == ([200] * 8, 2)
    assert shed[1] == 3
    assert house.figure("penstock_pool_pool_timeouts_total", MODEL_NAME) > 0
    assert set(shed[0]) <= {200, 503}  # who found no connection in time tries again a little later
    house.provider.forget_script()


def test_every_setting_at_once_cuts_no_running_stream(house):
    """Also those that need other connections: the streams end on the ones that they have."""
    changes = {
        "transport": "httpx",
        "max_connections": 7,
        "max_keepalive_connections": 2,
        "keepalive_expiry_s": 5.0,
        "connect_timeout_s": 3.0,
        "read_timeout_s": 0.5,
        "write_timeout_s": 4.0,
        "pool_timeout_s": 1.0,
        "max_concurrency": 4,
        "max_waiting": 6,
    }

    async def story():
        # They last 12 s, longer than it takes to make a change and hear of it.
        house.provider.script(Step(model_name=LONG, fault=Fault.SLOW_DRIP, pause_s=0.3, count=6))
        house.provider.script(Step(model_name=LONG, fault=Fault.STALL))
        streams = await asyncio.gather(*(listen(house, LONG) for _ in range(6)))
        await change(house, LONG, **changes)
        still_open = [DONE not in each.heard for each in streams]
        began = time.monotonic()
        stalled = await (await listen(house, LONG)).to_its_end()
        lasted_s = time.monotonic() - began
        return [await each.to_its_end() for each in streams], still_open, stalled, lasted_s

    house.provider.news()
    heard, still_open, stalled, lasted_s = asyncio.run(story())

    assert any(still_open)
    assert all(each.endswith(DONE) for each in heard)
    ends = [line for line in house.provider.news_at_rest() if isinstance(line, Ended)]
    assert sum(each.sent_whole and not each.client_gone for each in ends) == 6
    assert json.loads(stalled.rpartition(b"data: ")[2])["error"]["code"] == "upstream_timeout"
    assert lasted_s < 40  # of the 60 s before the change; some of it, it waits for a place that a stream has
    house.provider.forget_script()


# --- HTTP/2, and another library, while a stream runs


@contextlib.asynccontextmanager
async def one_door(http1: int, http2: int):
    """A port that leads to one or the other, by what the client's TLS greeting offers (RFC 7301)."""

    async def pipe(reader, writer):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    writers = []

    async def enter(reader, writer):
        hello = await reader.read(65536)
        back, forth = await asyncio.open_connection("127.0.0.1", http2 if b"\x02h2" in hello else http1)
        writers.extend((writer, forth))
        forth.write(hello)
        await asyncio.gather(pipe(reader, forth), pipe(back, writer))

    server = await asyncio.start_server(enter, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for each in writers:
            each.transport.abort()


async def test_another_http_version_cuts_no_running_stream(house):
    """From HTTP/1.1 by http1 to HTTP/2 by httpx and back, a stream open at each change."""
    goes_on = asyncio.Event()
    steps = stream("a", "b", goes_on=goes_on)
    async with h1_upstream(tls=True) as one, h2_upstream() as two:
        one.will(steps)
        two.will(steps)
        async with one_door(urlsplit(one.base_url).port, urlsplit(two.base_url).port) as port:
            await asyncio.to_thread(
                house.add_provider, "tls", f"https://localhost:{port}/v1", TLS, ca_pem=one.ca_pem + two.ca_pem
            )
            over_http1 = await listen(house, TLS)
            await change(house, TLS, transport="httpx", http2=True, max_concurrency=40)
            over_http2 = await listen(house, TLS)
            await change(house, TLS, transport="http1", http2=False, max_concurrency=30)
            again = await statuses(house, 1, TLS)
            goes_on.set()
            ends = [await each.to_its_end() for each in (over_http1, over_http2)]

    assert again == [200]
    assert [each.endswith(DONE) and b'"b"' in each for each in ends] == [True, True]
    assert [type(each) for each in one.exchanges] == [H1Exchange, H1Exchange]
    assert [type(each) for each in two.exchanges] == [H2Exchange]
    assert not any(each.left.is_set() for each in (one.exchanges[0],))
