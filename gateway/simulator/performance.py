"""One answer, sent at its pace and broken off where its step says."""

import time

from gateway.simulator.answers import Answer, ChatRequest
from gateway.simulator.breaches import INSIDE_A_CHUNK, INTERIM, Breach, instead_of_answer, second_answer
from gateway.simulator.exchange import Exchange
from gateway.simulator.faults import BREAKS_OFF, HEADERS_FIRST, Delivery, Header
from gateway.simulator.pace import Tempo
from gateway.simulator.rendering import Piece
from gateway.simulator.script import Fault, Step

# So that a client has read what came before: a kernel may throw unread bytes away with a reset.
BEFORE_RESET_S = 0.02
LATER_S = 0.05
"""Long enough for a client to have put the connection by."""
FLOOD_EVERY_S = 0.001
"""Faster than any client should put up with, and yet others on this event loop have their turn."""

EMPTY = Piece(b"")


class Performance:
    """Sends one answer at its pace and breaks off where its step says.

    Does not decide which bytes: those are the delivery's and the breaches'.
    """

    def __init__(
        self, exchange: Exchange, tempo: Tempo, request: ChatRequest, answer: Answer, step: Step
    ) -> None:
        self._exchange, self._tempo = exchange, tempo
        self._request, self._answer, self._step = request, answer, step

    async def play(self, deliver: Delivery) -> None:
        if (breach := instead_of_answer(self._step)) is not None:
            await self._breach(breach)
        elif self._step.fault is Fault.SILENCE:
            await self._exchange.until_gone()
        elif self._step.fault is Fault.RESET_BEFORE_HEADERS:
            self._exchange.wire.reset()
        else:
            self._exchange.prompt_tokens = self._answer.prompt_tokens
            await self._open(deliver.headers)
            await self._send_all(deliver)

    async def _breach(self, breach: Breach) -> None:
        await self._exchange.spill(breach.opening)
        while breach.flood:
            await self._exchange.spill(breach.flood)
            await self._exchange.pause(FLOOD_EVERY_S)
        self._exchange.wire.close()

    async def _open(self, headers: tuple[Header, ...]) -> None:
        """Headers leave with the first bytes of the body, unless the fault sends them ahead."""
        if self._step.fault not in HEADERS_FIRST:
            await self._exchange.pause(self._first_wait_s())
        if self._step.fault is Fault.UNASKED_INTERIM:
            await self._exchange.spill(INTERIM)
        await self._exchange.start(200, headers)
        if self._step.fault in HEADERS_FIRST:
            await self._exchange.write(EMPTY)
        if self._step.fault is Fault.SLOW_FIRST_TOKEN:
            await self._exchange.pause(self._step.pause_s)

    async def _send_all(self, deliver: Delivery) -> None:
        """One piece is held back, so that the last one leaves together with the end of the body."""
        if self._step.fault is Fault.RESET_AFTER_HEADERS:
            await self._reset()
            return
        held: Piece | None = None
        for piece in deliver.pieces:
            if held is not None:
                await self._exchange.write(held)
            await self._exchange.pause(self._wait_before_s(piece, first=held is None))
            held = piece
        await self._end(held or EMPTY)

    async def _end(self, last: Piece) -> None:
        if self._step.fault in BREAKS_OFF:
            await self._exchange.write(last)
            await self._break_off()
        else:
            await self._finish(last)

    async def _break_off(self) -> None:
        """No more of the answer is sent; how the connection goes on is the fault's."""
        match self._step.fault:
            case Fault.STALL | Fault.ENDLESS_LINE:
                await self._exchange.until_gone()
            case Fault.HALF_CLOSE:
                self._exchange.wire.half_close()
                await self._exchange.until_gone()
            case Fault.CLOSE_MID_STREAM:
                self._exchange.wire.close()
            case Fault.TRUNCATED_CHUNK:
                await self._exchange.spill(INSIDE_A_CHUNK)
                self._exchange.wire.close()
            case Fault.RESET_MID_STREAM:
                await self._reset()
            case _:
                await self._exchange.finish(EMPTY, whole=False)

    async def _finish(self, last: Piece) -> None:
        """The answer's end, and what the fault does after it."""
        miscounted = self._step.fault in (Fault.LENGTH_TOO_LONG, Fault.LENGTH_TOO_SHORT)
        await self._exchange.finish(last, whole=not miscounted)
        match self._step.fault:
            case Fault.LENGTH_TOO_LONG | Fault.CLOSE_AFTER_ANSWER:
                self._exchange.wire.close()
            case Fault.SECOND_ANSWER:
                await self._answer_again()
            case Fault.SECOND_ANSWER_LATER:
                await self._exchange.pause(LATER_S)
                await self._answer_again()

    async def _answer_again(self) -> None:
        await self._exchange.spill(second_answer(self._request, self._exchange.number, int(time.time())))

    async def _reset(self) -> None:
        await self._exchange.pause(BEFORE_RESET_S)
        self._exchange.wire.reset()

    def _first_wait_s(self) -> float:
        """To the first token of a stream, or to the last of a whole answer."""
        model_name = self._answer.model_name
        wait_s = self._tempo.first_token_s(model_name)
        if self._exchange.streamed:
            return wait_s
        return wait_s + self._answer.completion_tokens * self._tempo.token_s(model_name)

    def _wait_before_s(self, piece: Piece, *, first: bool) -> float:
        if first:
            return 0.0
        if self._step.fault is Fault.SLOW_DRIP:
            return self._step.pause_s
        if piece.tokens and self._exchange.streamed:
            return self._tempo.token_s(self._answer.model_name)
        return 0.0
