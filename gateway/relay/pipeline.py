"""The way of one call through the relay."""

import asyncio
import contextlib
import time
from collections.abc import Callable

from accounts.caller import Caller
from gateway import errors
from gateway.relay import routing
from gateway.relay.admission import Admission, Reservation
from gateway.relay.attempts import Attempts
from gateway.relay.call import Call
from gateway.relay.lifeline import Cut, Lifeline
from gateway.relay.ports import Answer, Client, Journal, Listener, Routes
from gateway.relay.records import CallOutcome
from gateway.relay.stream import DONE, error_event

GONE = 499
"""Status on the books of a call whose client had left (as nginx writes it)."""
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
        attempts: Attempts,
        journal: Journal,
        listener: Listener,
        clock: Callable[[], float],
    ) -> None:
        self._routes, self._admission, self._attempts = routes, admission, attempts
        self._journal, self._listener, self._clock = journal, listener, clock

    async def carry(self, call: Call, caller: Caller, line: Lifeline, client: Client) -> None:
        """Answer the client, whatever happens. Raises GatewayError where nothing was sent to it yet."""
        try:
            plan = routing.plan(call.model_name, caller, self._routes.current(), time.time_ns() // 1000)
            reservation = self._admission.admit(call, caller, plan)
        except errors.Refused as why:
            self._listener.refused(caller.team_id, caller.key_id, call.model_name[:200], why.code or "")
            raise
        with reservation:
            try:
                await (self._stream if call.streamed else self._whole)(reservation, line, client)
            except errors.GatewayError as why:
                await self._fail(why, reservation, client)
            except asyncio.CancelledError:
                if line.cut is None:
                    raise
                line.recover()
                await self._cut(line.cut, reservation, client)

    async def _whole(self, reservation: Reservation, line: Lifeline, client: Client) -> None:
        body = await self._attempts.whole(reservation.plan.steps[0], reservation, line)
        reservation.settle("answered", 200)
        await self._journal.on_disk()
        line.expect(self._clock() + self._attempts.limits.send_timeout_s, Cut.SLOW_READER)
        await client.whole(body, reservation)

    async def _stream(self, reservation: Reservation, line: Lifeline, client: Client) -> None:
        answer = await self._attempts.streamed(reservation.plan.steps[0], reservation, line, client)
        try:
            reservation.settle("answered", 200)
            await self._journal.on_disk()
            line.expect(self._clock() + self._attempts.limits.send_timeout_s, Cut.SLOW_READER)
            await client.end_stream(DONE)
            line.expect(self._clock() + LINGER_S, Cut.SILENT)
            await _to_its_end(answer)
        finally:
            answer.close()

    async def _fail(self, why: errors.GatewayError, reservation: Reservation, client: Client) -> None:
        """Settle first, then tell the client: as an answer of its own, or as the last event of its stream."""
        outcome: CallOutcome = "failed"
        if isinstance(why, errors.UpstreamRejected):
            outcome = "rejected"
        elif client.begun:
            outcome = "truncated"
        reservation.settle(outcome, 200 if client.begun else why.status, why.code or "")
        with contextlib.suppress(errors.Unavailable):  # the client hears of a failure in any case
            await self._journal.on_disk()
        if not client.begun:
            raise why
        await client.fail_stream(error_event(why.body()))

    async def _cut(self, cut: Cut, reservation: Reservation, client: Client) -> None:
        """The call was ended from outside."""
        if reservation.settled:
            return
        provider = reservation.plan.steps[0].target.provider
        if cut in (Cut.HUNG_UP, Cut.SLOW_READER):
            reservation.settle("hung_up", GONE, "hung_up" if cut is Cut.HUNG_UP else "slow_reader")
        elif cut is Cut.STOPPING:
            await self._fail(stopping(), reservation, client)
        else:
            told = errors.UpstreamTimedOut(f"The provider '{provider}' did not answer in time: {cut.value}.")
            await self._fail(told, reservation, client)


async def _to_its_end(answer: Answer) -> None:
    """Read what follows `[DONE]`, usually nothing, so that the connection can be used again."""
    async for _ in answer.chunks():
        continue


def stopping() -> errors.Overloaded:
    """What a client is told while the gateway stops."""
    return errors.Overloaded("The gateway is stopping. Try again in a moment.")
