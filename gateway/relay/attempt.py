"""One try at one target, whole or streamed, and what it means for the books."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from msgspec import Struct

from accounts.caller import Priority
from gateway import errors
from gateway.relay import upstream
from gateway.relay.admission import NOTHING, Reservation, Trying
from gateway.relay.lifeline import NEVER, Cut, Lifeline
from gateway.relay.parameters import ASKING_USAGE
from gateway.relay.ports import Answer, Client, Place
from gateway.relay.records import AttemptOutcome, Usage
from gateway.relay.routing import Step
from gateway.relay.stream import EventReader
from gateway.relay.transports import (
    Broken,
    CannotConnect,
    ConnectTimedOut,
    TooLarge,
    TransportError,
    WriteTimedOut,
)
from gateway.relay.usage import tokens_of_text

LARGEST_EVENT = 4 * 1024 * 1024
"""Bytes of a stream's event; what is not whole by then is given up."""

NoAnswer = errors.UpstreamFailed | errors.Refused
"""What an attempt, or the wait for one, ends in where there is no answer."""


class Passage(Struct, eq=False):
    """One call on its way through its plan: what its attempts share."""

    reservation: Reservation
    line: Lifeline
    client: Client
    configured_timeout_s: float
    """The call's deadline, had its client not chosen one."""
    steps: list[Step]
    """Targets that have not given up."""
    asked_s: float = 0.0
    """Waits that providers asked for, so far."""
    trims: int = 0
    failure: errors.UpstreamFailed | None = None
    refusal: errors.Refused | None = None

    @property
    def team_id(self) -> int:
        return self.reservation.caller.team_id

    @property
    def priority(self) -> Priority:
        return self.reservation.call.priority

    @property
    def client_waits(self) -> bool:
        """The client is there and has no byte of an answer yet, so another attempt would still serve it."""
        return not (self.client.begun or self.line.gone)

    def note(self, why: NoAnswer) -> None:
        """Keep what the client is told if no target answers."""
        if isinstance(why, errors.Refused):
            self.refusal = why
        elif not isinstance(why, errors.NoTargetAvailable):  # that is said where nothing else can be
            self.failure = why

    def last_word(self) -> NoAnswer | None:
        """What the client is told, once: an exception that is raised leads to the frames that hold this
        passage, so what keeps it would keep the call and its body until the collector comes.
        """
        why = self.failure or self.refusal
        self.failure = self.refusal = None
        return why


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one call; durations in seconds, sizes in bytes."""

    call_timeout_s: float = 600.0
    send_timeout_s: float = 60.0
    max_answer_bytes: int = 24 * 1024 * 1024


@dataclass(slots=True)
class Attempt:
    """Carries one attempt to its target. Does not choose the target and does not settle the call.

    However an attempt ends, it is ended on the books when these return or raise.
    """

    limits: Limits
    clock: Callable[[], float]
    now_s: Callable[[], float]

    async def whole(self, place: Place, trying: Trying, passage: Passage) -> bytes:
        """The provider's whole answer. Raises UpstreamFailed."""
        reservation = passage.reservation
        try:
            answer = await self._send(place, trying, passage)
            try:
                body = await answer.whole(self.limits.max_answer_bytes)
            finally:
                answer.close()
            usage = upstream.usage_of_answer(body)
        except BaseException as why:  # noqa: BLE001 - however it ends, the attempt ends, and this goes on up
            raise _ended(why, passage, trying, None) from None
        if usage is None:
            written = upstream.tokens_of_answer(body, trying.step.target.upstream_model)
            usage = reservation.prompt_usage(written)
        reservation.attempt_ended("answered", usage)
        return body

    async def streamed(self, place: Place, trying: Trying, passage: Passage) -> Answer:
        """Hand a stream on up to its end, which is held back. Raises UpstreamFailed.

        The answer is returned unclosed: its last bytes may still be on their way.
        """
        reservation, line, client = passage.reservation, passage.line, passage.client
        reader = EventReader(pass_usage=reservation.call.wants_usage, limit=LARGEST_EVENT)
        line.expect(self.clock() + trying.step.target.pool.read_timeout_s, Cut.SILENT)
        answer: Answer | None = None
        try:
            answer = await self._send(place, trying, passage)
            _check_stream(answer)
            await self._hand_on(answer, reader, trying, passage)
        except BaseException as why:  # noqa: BLE001 - as above
            if answer is not None:
                answer.close()
            if line.cut is Cut.SILENT and not client.begun and isinstance(why, asyncio.CancelledError):
                line.resume()
                why = _silent(trying)
            line.expect(NEVER, Cut.DEADLINE)
            reader.failure = None  # raised by now; it leads to the frames that hold the reader
            raise _ended(why, passage, trying, reader) from None
        reservation.attempt_ended("answered", _usage_so_far(reservation, trying, reader))
        return answer

    async def _send(self, place: Place, trying: Trying, passage: Passage) -> Answer:
        """The answer's head has come, and it is one. Raises TransportError, UpstreamFailed."""
        call, step = passage.reservation.call, trying.step
        asks_usage = ASKING_USAGE not in step.target.parameters
        body = call.body_for(step.target.upstream_model, step.fields, asks_usage=asks_usage)
        answer = await place.send(call.call_id, body)
        trying.status = answer.status
        trying.first_byte_us = int((self.clock() - trying.began) * 1e6)
        try:
            if answer.status != 200:
                passage.line.expect(NEVER, Cut.DEADLINE)  # its words have a shorter limit of their own
                raise await upstream.failure_of(answer, step.target, self.now_s())
            if answer.content_encoding.lower() not in ("", "identity"):
                raise upstream.not_an_answer("The provider sent a compressed answer that nobody asked for.")
        except BaseException:
            answer.close()
            raise
        return answer

    async def _hand_on(self, answer: Answer, reader: EventReader, trying: Trying, passage: Passage) -> None:
        """Every byte as it comes, until `[DONE]`."""
        reservation, line, client = passage.reservation, passage.line, passage.client
        clock, send_timeout_s = self.clock, self.limits.send_timeout_s
        read_timeout_s = trying.step.target.pool.read_timeout_s
        reader.allowance = reservation.allowance(reader.said)
        try:
            async for data in answer.chunks():
                ready = reader.feed(data)
                if reader.spoke and trying.first_token is None:
                    trying.first_token = clock()
                    if trying.spoke is not None:
                        trying.spoke()
                if ready and not line.gone:
                    line.expect(clock() + send_timeout_s, Cut.SLOW_READER)
                    if not client.begun:
                        await client.begin_stream(trying, reservation)
                    await client.chunk(ready)
                if reader.failure is not None:
                    raise reader.failure
                if reader.done:
                    break
                line.expect(clock() + read_timeout_s, Cut.SILENT)
        except Broken as why:
            why.after_bytes = reader.spoke
            raise
        if not reader.ends_here():
            raise _cut_short(trying, again=not reader.spoke)
        line.expect(NEVER, Cut.DEADLINE)
        if not client.begun and not line.gone:
            await client.begin_stream(trying, reservation)


def _usage_so_far(
    reservation: Reservation, trying: Trying, reader: EventReader | None, came_bytes: int = 0
) -> Usage:
    """As reported if it came; else the prompt, and what was handed on, counted.

    Of a whole answer that cannot be read, its bytes are counted.
    """
    if reader is None:
        return reservation.prompt_usage(tokens_of_text(came_bytes))
    if reader.usage is not None:
        return reader.usage
    return reservation.prompt_usage(reader.said.tokens(trying.step.target.upstream_model))


def _check_stream(answer: Answer) -> None:
    if not answer.content_type.lower().startswith("text/event-stream"):
        raise upstream.not_an_answer(
            "The provider answered a streamed call with something that is not a stream. "
            "Try again, or another model."
        )


def _silent(trying: Trying) -> errors.UpstreamTimedOut:
    target = trying.step.target
    why = errors.UpstreamTimedOut(
        f"The provider '{target.provider}' was silent for {target.pool.read_timeout_s:g} seconds. "
        "Try again later."
    )
    why.cause, why.again = "silent", True
    return why


def _cut_short(trying: Trying, *, again: bool) -> errors.UpstreamUnreachable:
    why = errors.UpstreamUnreachable(
        f"The stream of the provider '{trying.step.target.provider}' ended before its end. Try again later."
    )
    why.cause, why.again = "cut_short", again
    return why


def _ended(why: BaseException, passage: Passage, trying: Trying, reader: EventReader | None) -> BaseException:
    """End the attempt on the books; returns what goes on up: what the client is told, or the cut itself."""
    reservation, line = passage.reservation, passage.line
    told = why
    if isinstance(why, TransportError | errors.UpstreamFailed):
        told = _told(why, trying)
        told.message = upstream.masked(told.message, trying.step.target)[: upstream.LONGEST_TOLD]
    came = why.came if isinstance(why, TransportError) else 0
    usage = _usage_so_far(reservation, trying, reader, came) if _may_be_billed(why, trying) else NOTHING
    cut = Cut.HUNG_UP if line.gone else line.cut
    reservation.attempt_ended(_outcome(told, cut), usage, code_of(told, cut))
    return told


def code_of(told: BaseException, cut: Cut | None) -> str:
    """What went wrong, in a word, for the attempt's record."""
    if isinstance(told, errors.UpstreamFailed):
        return told.cause
    if isinstance(told, asyncio.CancelledError):
        return "cancelled" if cut is None else cut.name.lower()
    return "internal_error"


def _outcome(told: BaseException, cut: Cut | None) -> AttemptOutcome:
    if isinstance(told, errors.UpstreamRejected):
        return "rejected"
    if isinstance(told, errors.UpstreamTimedOut):
        return "timed_out"
    if isinstance(told, asyncio.CancelledError):
        return "timed_out" if cut is not None and cut.is_timeout else "cancelled"
    return "failed"


def _may_be_billed(why: BaseException, trying: Trying) -> bool:
    """The provider had the whole call and may have worked on it, whatever became of its answer."""
    if isinstance(why, TransportError) and why.unseen:
        return False
    return trying.status in (None, 200, *upstream.TIMEOUTS)


def _told(why: TransportError | errors.UpstreamFailed, trying: Trying) -> errors.UpstreamFailed:
    if isinstance(why, errors.UpstreamFailed):
        return why
    provider = trying.step.target.provider
    if isinstance(why, TooLarge):
        large = errors.UpstreamFailed(
            f"The answer of the provider '{provider}' is too large to be passed on."
        )
        # The client may have asked for so much, so it speaks against nobody, and is asked of nobody else.
        large.cause, large.sick, large.elsewhere = "too_large", None, False
        return large
    if isinstance(why, ConnectTimedOut | WriteTimedOut):
        what = "take a connection" if isinstance(why, ConnectTimedOut) else "take the call"
        late = errors.UpstreamTimedOut(f"The provider '{provider}' did not {what} in time. Try again later.")
        late.cause = "connect_timeout" if isinstance(why, ConnectTimedOut) else "write_timeout"
        late.again = True
        return late
    lost = errors.UpstreamUnreachable(f"The provider '{provider}' cannot be reached: {why}. Try again later.")
    lost.cause = "cannot_connect" if isinstance(why, CannotConnect) else "broken"
    lost.again = not (isinstance(why, Broken) and why.after_bytes)
    return lost
