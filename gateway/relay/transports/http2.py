"""One HTTP/2 connection that many calls share: httpcore2's, with its loose ends tied."""

import asyncio
from contextlib import suppress

import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import httpcore2
from hyperframe.frame import Frame, GoAwayFrame
from typing_extensions import Buffer

from gateway.relay.transports.wire import Wire

STREAM_WINDOW = 64 * 1024
"""Bytes beyond HTTP/2's own 64 KiB that a provider may send ahead of a slow reader.
A hundred streams of twice this fit into the connection's 16 MiB, so no reader can hold up the others."""


FRAME_HEAD_BYTES = 9
"""Of which the first three are the length of the body (RFC 9113, 4.1)."""


class ConnectionState(h2.connection.H2Connection):
    """h2's, but a slow reader holds up nobody, and a farewell ends only what it must."""

    last_stream_id: int | None = None
    """The provider takes no new streams, and will not act on any above this one; None: it takes some."""

    def receive_data(self, data: Buffer) -> list[h2.events.Event]:
        """A frame that is too long is told by its head; h2 would wait for megabytes of its body first."""
        events = super().receive_data(data)
        held = self.incoming_buffer._data
        if len(held) >= FRAME_HEAD_BYTES and int.from_bytes(held[:3]) > self.max_inbound_frame_size:
            self._terminate_connection(h2.errors.ErrorCodes.FRAME_SIZE_ERROR)
            raise h2.exceptions.FrameTooLargeError("the provider sent a frame that is too long")
        return events

    def increment_flow_control_window(self, increment: int, stream_id: int | None = None) -> None:
        """httpcore2 opens each stream's window as wide as the whole connection's; here it is narrower."""
        if stream_id is not None:
            increment = min(increment, STREAM_WINDOW)
        super().increment_flow_control_window(increment, stream_id)

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[h2.events.Event]]:
        """After a GOAWAY without an error, streams up to its last go on to their end (RFC 9113, 6.8).

        h2 would end them all, though servers say this after every so many requests.
        Those above it were not acted on: they end as if the provider had refused them.
        """
        if frame.error_code != h2.errors.ErrorCodes.NO_ERROR:
            return super()._receive_goaway_frame(frame)
        self.last_stream_id = frame.last_stream_id
        return [], [_refused(id) for id in self.streams if id > frame.last_stream_id]


def _refused(stream_id: int) -> h2.events.StreamReset:
    return h2.events.StreamReset(stream_id=stream_id, error_code=h2.errors.ErrorCodes.REFUSED_STREAM)


class Http2Connection(httpcore2.AsyncHTTP2Connection):
    """Also ends a stream that is left early, notices a provider that takes nothing, and counts its calls.

    httpcore2 only forgets such a stream: the provider would go on with it to its end, and what it had sent
    would be missing from the connection's window for ever.
    It has no public seam for this, so some of its inner methods are taken up here.
    The contract tests notice if a new httpcore2 calls them no longer.
    """

    _h2_state: ConnectionState

    def __init__(
        self, origin: httpcore2.Origin, wire: Wire, keepalive_expiry_s: float, write_timeout_s: float
    ) -> None:
        super().__init__(origin, wire, keepalive_expiry_s)
        self._h2_state = ConnectionState(self.CONFIG)
        self.wire, self.calls = wire, 0
        self._write_timeout_s = write_timeout_s

    def has_room(self) -> bool:
        """Whether one more call may go here."""
        if self.is_spent:
            return False
        ours, theirs = self._h2_state.local_settings, self._h2_state.remote_settings
        return self.calls < min(ours.max_concurrent_streams, theirs.max_concurrent_streams)

    @property
    def is_spent(self) -> bool:
        """It will take no further call."""
        said_farewell = self._h2_state.last_stream_id is not None
        return said_farewell or self.wire.has_ended or not self.is_available()

    async def _receive_remote_settings_change(self, event: h2.events.RemoteSettingsChanged) -> None:
        """A provider that names no limit of streams sets none (RFC 9113, 6.5.2).

        httpcore2 would go on with one stream at a time.
        """
        limit = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS
        theirs = self._h2_state.remote_settings.max_concurrent_streams
        event.changed_settings.setdefault(limit, h2.settings.ChangedSetting(limit, None, theirs))
        await super()._receive_remote_settings_change(event)

    async def _send_request_headers(self, request: httpcore2.Request, stream_id: int) -> None:
        if self._h2_state.last_stream_id is not None:  # it came while this call waited for a free stream
            raise httpcore2.ConnectionNotAvailable
        await super()._send_request_headers(request, stream_id)

    async def _response_closed(self, stream_id: int) -> None:
        self._leave(stream_id)
        await super()._response_closed(stream_id)

    def _leave(self, stream_id: int) -> None:
        """Give back the window that its unread data took, and reset the stream if it has not ended."""
        with suppress(h2.exceptions.ProtocolError):  # the stream, or the whole connection, had ended
            for event in self._events.get(stream_id, ()):
                if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                    self._h2_state.acknowledge_received_data(event.flow_controlled_length, stream_id)
            self._h2_state.reset_stream(stream_id, h2.errors.ErrorCodes.CANCEL)
        self.wire.say(self._h2_state.data_to_send())

    async def _wait_for_outgoing_flow(self, request: httpcore2.Request, stream_id: int) -> int:
        if self._h2_state.local_flow_control_window(stream_id) > 0:
            return await super()._wait_for_outgoing_flow(request, stream_id)
        try:
            async with asyncio.timeout(self._write_timeout_s):
                return await super()._wait_for_outgoing_flow(request, stream_id)
        except TimeoutError:
            raise httpcore2.WriteTimeout("the stream's window stayed shut") from None
