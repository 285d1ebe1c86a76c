"""The way of one call through the relay."""

import asyncio
import contextlib
import time
from collections.abc import Callable

from accounts.caller import Caller, Priority
from gateway import errors
from gateway.relay import routing
from gateway.relay.admission import Admission, Reservation, refused_call
from gateway.relay.attempt import Attempt, Passage
from gateway.relay.attempts import Attempts
from gateway.relay.call import Call
from gateway.relay.lifeline import Cut, Lifeline
from gateway.relay.ports import Answer, Client, Journal, Listener, Routes, Transport
from gateway.relay.records import CallOutcome
from gateway.relay.retry import POLICY, RetryPolicy
from gateway.relay.routing import Plan
from gateway.relay.stream import DONE, error_event
from gateway.relay.targets import Targets
from gateway.relay.transports import TransportError

GONE = 499
"""Status on the books of a call whose client had left (as nginx writes it)."""
EXPIRES_AFTER_S = 60.0
"""How long after its deadline a call's reservation still waits to be settled."""
LINGER_S = 1.0
"""How long the end of a provider's stream is waited for, so that its connection can be used again."""


class Relay:
    """Carry one call to a provider and back.

        authenticate | route | admit | attempt | stream | settle

    Knows the order of the steps and nothing else.
    Does not decide who may call, where a call goes, or what it costs.
    """

    def __init__(
        self,
        routes: Routes,
        admission: Admission,
        targets: Targets,
        transport: Transport,
        attempt: Attempt,
        journal: Journal,
        listener: Listener,
        draw: Callable[[], float],
        policy: RetryPolicy = POLICY,
    ) -> None:
        self._routes, self._admission, self._attempt = routes, admission, attempt
        self._journal, self._listener, self._clock = journal, listener, attempt.clock
        self._draw = draw
        self._attempts = Attempts(targets, transport, attempt.clock, draw, self._rerouted, policy)

    async def carry(self, call: Call, caller: Caller, line: Lifeline, client: Client) -> None:
        """Answer the client, whatever happens. Raises GatewayError where nothing was sent to it yet."""
        model_name = call.model_name
        try:
            plan = routing.plan(call, caller, self._routes.current(), time.time_ns() // 1000, self._draw)
            model_name = plan.model_name
            configured_s = plan.route.timeout_s or self._attempt.limits.call_timeout_s
            lives_s = (call.timeout_s or configured_s) + plan.route.hang_up_drain_s
            reservation = await self._admission.admit(call, caller, plan, lives_s + EXPIRES_AFTER_S)
        except errors.Refused as why:
            self.turned_away(why, caller, call.call_id, model_name, call.priority)
            raise
        line.ends_at = call.began + (call.timeout_s or configured_s)
        passage = Passage(reservation, line, client, configured_s, list(plan.steps))
        with reservation:
            try:
                await (self._stream if call.streamed else self._whole)(passage)
            except errors.GatewayError as why:
                await self._fail(why, passage)
            except asyncio.CancelledError:
                if line.cut is None:
                    raise
                line.recover()
                await self._cut(line.cut, passage)

    def turned_away(
        self, why: errors.Refused, caller: Caller, call_id: str, model_name: str, priority: Priority
    ) -> None:
        """Count a call that is not let in, and keep why."""
        self._listener.refused(refused_call(why, caller, call_id, model_name, priority))

    def _rerouted(self, reservation: Reservation) -> Plan:
        """Another route for messages that are too long for this one, checked and priced anew."""
        return routing.rerouted(
            reservation.plan.route,
            reservation.call,
            reservation.caller,
            self._routes.current(),
            time.time_ns() // 1000,
            self._draw,
        )

    async def _whole(self, passage: Passage) -> None:
        body = await self._attempts.run(passage, self._attempt.whole)
        if await self._settle_answered(passage):
            await passage.client.whole(body, passage.reservation)

    async def _stream(self, passage: Passage) -> None:
        answer = await self._attempts.run(passage, self._attempt.streamed)
        try:
            if await self._settle_answered(passage):
                await passage.client.end_stream(DONE)
                passage.line.expect(self._clock() + LINGER_S, Cut.SILENT)
                await _to_its_end(answer)
        finally:
            answer.close()

    async def _settle_answered(self, passage: Passage) -> bool:
        """On the books first; from then on the client may take the answer's end. False: it has gone."""
        if passage.line.gone:
            self._settle_hung_up(passage.reservation)
            return False
        passage.reservation.settle("answered", 200)
        await self._journal.on_disk()
        passage.line.expect(self._clock() + self._attempt.limits.send_timeout_s, Cut.SLOW_READER)
        return True

    async def _fail(self, why: errors.GatewayError, passage: Passage) -> None:
        """Settle first, then tell the client: as an answer of its own, or as the last event of its stream."""
        reservation, client = passage.reservation, passage.client
        passage.line.expect_nothing()  # a deadline that passes now must not take the client's answer away
        if passage.line.gone:
            self._settle_hung_up(reservation)
            return
        if isinstance(why, errors.Refused) and not reservation.ended:
            reservation.release(why)
            try:
                raise why
            finally:
                # It leads to this frame: led back to it, the call would stay until the collector comes.
                del why
        outcome: CallOutcome = "truncated" if client.begun else "failed"
        if isinstance(why, errors.UpstreamRejected) and not client.begun:
            outcome = "rejected"
        reservation.settle(outcome, 200 if client.begun else why.status, why.code or "")
        with contextlib.suppress(errors.Unavailable):  # the client hears of a failure in any case
            await self._journal.on_disk()
        if not client.begun:
            try:
                raise why
            finally:
                del why  # as above
        await client.fail_stream(error_event(why.body()))

    async def _cut(self, cut: Cut, passage: Passage) -> None:
        """The call was ended from outside."""
        reservation = passage.reservation
        if reservation.settled:
            return
        if cut is Cut.HUNG_UP or passage.line.gone:
            self._settle_hung_up(reservation)
        elif cut is Cut.SLOW_READER:
            reservation.settle("hung_up", GONE, "slow_reader")
        elif cut is Cut.STOPPING:
            await self._fail(stopping(), passage)
        elif cut is Cut.REVOKED:
            await self._fail(errors.KeyRevoked(), passage)
        else:
            await self._fail(_too_late(cut, reservation), passage)

    def _settle_hung_up(self, reservation: Reservation) -> None:
        reservation.settle("hung_up", GONE, "hung_up")


def _too_late(cut: Cut, reservation: Reservation) -> errors.GatewayError:
    """What a client is told whose call took too long: at the provider's, or still in our line."""
    if not reservation.ended:
        return errors.Overloaded(
            "No place at a provider came free before the call's deadline. Try again later."
        )
    provider = reservation.ended[-1].provider
    late = errors.UpstreamTimedOut(f"The provider '{provider}' did not answer in time: {cut.value}.")
    late.cause = cut.name.lower()
    return late


async def _to_its_end(answer: Answer) -> None:
    """Read what follows `[DONE]`, usually nothing, so that the connection can be used again."""
    with contextlib.suppress(TransportError):  # the answer is whole; a broken connection is just not kept
        async for _ in answer.chunks():
            continue


def cut_before_it_began(cut: Cut) -> errors.GatewayError | None:
    """What a client is told whose call was ended from outside before it was let in; None: nobody is there."""
    if cut is Cut.REVOKED:
        return errors.KeyRevoked()
    if cut is Cut.STOPPING:
        return stopping()
    if cut.is_timeout:
        return errors.Overloaded("The call's deadline passed before it could be let in. Try again later.")
    return None


def stopping() -> errors.Overloaded:
    """What a client is told while the gateway stops."""
    return errors.Overloaded("The gateway is stopping. Try again in a moment.")
