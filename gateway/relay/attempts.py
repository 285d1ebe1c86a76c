"""One try at one target, whole or streamed, and what it means for the books."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from gateway import errors
from gateway.relay import upstream
from gateway.relay import usage as tokens
from gateway.relay.admission import NOTHING, Reservation, Trying
from gateway.relay.lifeline import NEVER, Cut, Lifeline
from gateway.relay.ports import Answer, Client, Place, Transport
from gateway.relay.records import AttemptOutcome, Usage
from gateway.relay.routing import Step
from gateway.relay.stream import EventReader
from gateway.relay.transports import (
    Broken,
    CannotConnect,
    ConnectTimedOut,
    PoolExhausted,
    TooLarge,
    TransportError,
)

LARGEST_EVENT = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one call; durations in seconds, sizes in bytes."""

    call_timeout_s: float = 600.0
    read_timeout_s: float = 60.0
    send_timeout_s: float = 60.0
    max_answer_bytes: int = 64 * 1024 * 1024


@dataclass(slots=True)
class Attempts:
    """Carries attempts to targets. Does not choose them and does not settle the call."""

    transport: Transport
    limits: Limits
    clock: Callable[[], float]
    now_s: Callable[[], float]

    async def whole(self, step: Step, reservation: Reservation, line: Lifeline) -> bytes:
        """The provider's whole answer. Raises UpstreamFailed, Overloaded; the attempt is then ended."""
        place = await self._place(step)
        trying = self._dispatch(step, place, reservation)
        call = reservation.call
        try:
            answer = await self._send(place, step, reservation, trying)
            try:
                body = await answer.whole(self.limits.max_answer_bytes)
            finally:
                answer.close()
            usage = upstream.usage_of_answer(body, call.prompt_bytes)
        except BaseException as why:  # noqa: BLE001 - however it ends, the attempt ends, and this goes on up
            raise _ended(why, reservation, trying, line.cut, None) from None
        reservation.attempt_ended("answered", usage)
        return body

    async def streamed(self, step: Step, reservation: Reservation, line: Lifeline, client: Client) -> Answer:
        """Hand a stream on up to its end, which is held back. Raises UpstreamFailed, Overloaded.

        The answer is returned unclosed: its last bytes may still be on their way.
        """
        place = await self._place(step)
        trying = self._dispatch(step, place, reservation)
        reader = EventReader(pass_usage=reservation.call.wants_usage, limit=LARGEST_EVENT)
        line.expect(self.clock() + self.limits.read_timeout_s, Cut.SILENT)
        answer: Answer | None = None
        try:
            answer = await self._send(place, step, reservation, trying)
            _check_stream(answer)
            await self._hand_on(answer, reader, trying, reservation, line, client)
        except BaseException as why:  # noqa: BLE001 - as above
            if answer is not None:
                answer.close()
            raise _ended(why, reservation, trying, line.cut, reader) from None
        reservation.attempt_ended("answered", usage_so_far(reservation, reader))
        return answer

    async def _place(self, step: Step) -> Place:
        """A place in the target's pool, before anything is dispatched: shedding is no attempt."""
        provider = step.target.provider
        try:
            return await self.transport.acquire(step.target)
        except PoolExhausted:
            raise errors.Overloaded(
                f"Every connection to the provider '{provider}' is in use. Try again in a moment."
            ) from None
        except TransportError as why:
            raise _told(why, provider) from None

    def _dispatch(self, step: Step, place: Place, reservation: Reservation) -> Trying:
        try:
            return reservation.dispatch(step)
        except BaseException:
            place.release()
            raise

    async def _send(self, place: Place, step: Step, reservation: Reservation, trying: Trying) -> Answer:
        call, target = reservation.call, step.target
        answer = await place.send(call.call_id, call.body_for(target.upstream_model))
        trying.status = answer.status
        if answer.status == 200:
            return answer
        try:
            raise await upstream.failure_of(answer, target, self.now_s())
        finally:
            answer.close()

    async def _hand_on(
        self,
        answer: Answer,
        reader: EventReader,
        trying: Trying,
        reservation: Reservation,
        line: Lifeline,
        client: Client,
    ) -> None:
        """Every byte as it comes, until `[DONE]`."""
        clock, limits = self.clock, self.limits
        async for data in answer.chunks():
            ready = reader.feed(data)
            if reader.spoke and trying.first_token is None:
                trying.first_token = clock()
            if ready:
                line.expect(clock() + limits.send_timeout_s, Cut.SLOW_READER)
                if not client.begun:
                    await client.begin_stream(trying, reservation)
                await client.chunk(ready)
            if reader.failure is not None:
                raise reader.failure
            if reader.done:
                line.expect(NEVER, Cut.DEADLINE)
                if not client.begun:
                    await client.begin_stream(trying, reservation)
                return
            line.expect(clock() + limits.read_timeout_s, Cut.SILENT)
        raise Broken("the provider's stream ended before its end")


def usage_so_far(reservation: Reservation, reader: EventReader | None) -> Usage:
    """As reported if it came; else the prompt, and as many tokens as were handed on."""
    if reader is not None and reader.usage is not None:
        return reader.usage
    return tokens.estimated(reservation.call.prompt_bytes, 0 if reader is None else reader.written_tokens)


def _check_stream(answer: Answer) -> None:
    if not answer.content_type.lower().startswith("text/event-stream"):
        raise errors.UpstreamFailed(
            "The provider answered a streamed call with something that is not a stream. "
            "Try again, or another model."
        )


def _ended(
    why: BaseException,
    reservation: Reservation,
    trying: Trying,
    cut: Cut | None,
    reader: EventReader | None,
) -> BaseException:
    """End the attempt on the books; returns what goes on up: what the client is told, or the cut itself."""
    told = why
    if isinstance(why, TransportError | errors.UpstreamFailed):
        told = _told(why, trying.step.target.provider)
        told.message = upstream.masked(told.message, trying.step.target)
    usage = usage_so_far(reservation, reader) if _may_be_billed(why, trying) else NOTHING
    reservation.attempt_ended(_outcome(told, cut), usage)
    return told


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
    if isinstance(why, CannotConnect | ConnectTimedOut):
        return False
    return trying.status in (None, 200, *upstream.TIMEOUTS)


def _told(why: TransportError | errors.UpstreamFailed, provider: str) -> errors.GatewayError:
    if isinstance(why, errors.UpstreamFailed):
        return why
    if isinstance(why, ConnectTimedOut):
        return errors.UpstreamTimedOut(
            f"The provider '{provider}' did not take a connection in time. Try again later."
        )
    if isinstance(why, TooLarge):
        return errors.UpstreamFailed(f"The answer of the provider '{provider}' is too large to be passed on.")
    return errors.UpstreamUnreachable(f"The provider '{provider}' cannot be reached: {why}. Try again later.")
