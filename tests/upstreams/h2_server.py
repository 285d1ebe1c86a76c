"""A provider's stand-in that speaks HTTP/2 over TLS. See `tests.upstreams.upstream` for how it is used.

Of its own it adds `go_away`: the connection takes no more streams, and ends.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from hyperframe.frame import GoAwayFrame

from tests.upstreams.upstream import EVENTS, Connection, Exchange, Step, Upstream, answer, listening

NAMES = ("localhost", "127.0.0.1")


class H2Exchange(Exchange):
    """A stream."""

    def __init__(
        self, server: "_H2Protocol", stream_id: int, headers: list[tuple[str, str]], body: bytes
    ) -> None:
        super().__init__(server.connection, headers, body)
        self._server, self.stream_id = server, stream_id
        self.reset_code: int | None = None
        """Why the client reset the stream; None: it did not."""

    async def begin(self, status: int = 200, headers: dict[str, str] | None = None) -> None:
        fields = [(":status", str(status)), *(headers or {}).items()]
        self._server.h2.send_headers(self.stream_id, fields)
        self._server.flush()

    async def send(self, data: bytes) -> None:
        while data and not self.left.is_set():
            room = await self._server.room(self)
            self._server.h2.send_data(self.stream_id, data[:room])
            self._server.flush()
            data = data[room:]

    async def end(self) -> None:
        if not self.left.is_set():
            self._server.h2.end_stream(self.stream_id)
            self._server.flush()

    async def reset(self, code: int = h2.errors.ErrorCodes.INTERNAL_ERROR) -> None:
        self._server.h2.reset_stream(self.stream_id, code)
        self._server.flush()

    async def go_away(self, *, unseen: bool = False, code: int = 0) -> None:
        """Take no new streams on this connection; with `unseen`, not even this one.

        Those that were taken may still be answered, as HTTP/2 has it; `close` ends them too.
        """
        last = max(self.stream_id - 2, 0) if unseen else self.stream_id
        self._server.flush()
        self._server.transport.write(GoAwayFrame(0, last_stream_id=last, error_code=code).serialize())

    async def close(self) -> None:
        """End the connection."""
        self._server.transport.close()


@dataclass
class _Request:
    headers: list[tuple[str, str]]
    body: bytearray


class _H2Protocol(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, upstream: Upstream, takes_little: bool, most_streams: int | None) -> None:
        self._upstream, self._takes_little, self._most_streams = upstream, takes_little, most_streams
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        self._requests: dict[int, _Request] = {}
        self._exchanges: dict[int, H2Exchange] = {}
        self._widened = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.connection: Connection = self._upstream.connected()
        limits = {}
        if self._most_streams is not None:
            limits[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = self._most_streams
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values=limits)
        self.h2.initiate_connection()  # goes out with the first bytes that answer the client's own greeting

    def flush(self) -> None:
        self.transport.write(self.h2.data_to_send())

    async def room(self, exchange: H2Exchange) -> int:
        """Bytes that may be sent now; waits for some."""
        while (
            not (room := self.h2.local_flow_control_window(exchange.stream_id)) and not exchange.left.is_set()
        ):
            self._widened.clear()
            await self._widened.wait()
        return min(room, self.h2.max_outbound_frame_size)

    def data_received(self, data: bytes) -> None:
        try:
            events = self.h2.receive_data(data)
        except h2.exceptions.ProtocolError:
            self.flush()
            self.transport.close()
            return
        for event in events:
            self._take(event)
        self.flush()

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self._requests[event.stream_id] = _Request(list(event.headers), bytearray())
        elif isinstance(event, h2.events.DataReceived):
            self._requests[event.stream_id].body += event.data
            if not self._takes_little:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self._perform(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self._left(event.stream_id, event.error_code)
        elif isinstance(event, h2.events.WindowUpdated | h2.events.RemoteSettingsChanged):
            self._widened.set()

    def _perform(self, stream_id: int) -> None:
        request = self._requests.pop(stream_id)
        exchange = H2Exchange(self, stream_id, request.headers, bytes(request.body))
        self._exchanges[stream_id] = exchange
        self._upstream.perform(exchange)

    def _left(self, stream_id: int, code: int | None) -> None:
        if exchange := self._exchanges.get(stream_id):
            exchange.reset_code = code
            exchange.left.set()
            self._widened.set()

    def connection_lost(self, why: Exception | None) -> None:
        self.connection.closed.set()
        for exchange in self._exchanges.values():
            exchange.left.set()
        self._widened.set()


def go_away(
    *, unseen: bool = False, code: int = 0, after: bytes | None = None, then: Step | None = None
) -> Step:
    """End the connection: before the headers, or after these bytes of a stream.

    With `then`, it only takes no new streams, and this one goes on with that step.
    """

    async def step(exchange: H2Exchange) -> None:
        if after is not None:
            await exchange.begin(200, {"content-type": EVENTS})
            await exchange.send(after)
        await exchange.go_away(unseen=unseen, code=code)
        if then is not None:
            await then(exchange)
        else:
            await exchange.close()

    return step


@asynccontextmanager
async def h2_upstream(
    *, names: tuple[str, ...] = NAMES, takes_little: bool = False, most_streams: int | None = None
) -> AsyncIterator[Upstream]:
    """A running stand-in. `takes_little`: 64 KiB of a request and no more; `most_streams`: at once."""
    upstream = Upstream(answer())
    protocol = lambda: _H2Protocol(upstream, takes_little, most_streams)  # noqa: E731
    async with listening(upstream, protocol, ["h2"], tls=True, names=names):
        yield upstream
