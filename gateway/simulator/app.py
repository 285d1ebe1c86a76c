"""The simulator as an ASGI application: requests in, answers and faults out.

Needs a server that offers the `penstock.transport` extension: `gateway.simulator.server`.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import msgspec

from gateway.simulator.answers import Answer, ChatRequest, compose, decode_request
from gateway.simulator.exchange import ClientGone, Exchange, Receive, Scope, Send
from gateway.simulator.faults import BREAKS_OFF, HEADERS_FIRST, JSON, Delivery, Header, delivery, ready_answer
from gateway.simulator.journal import Journal, encode_lines
from gateway.simulator.pace import Tempo
from gateway.simulator.rendering import Piece, error_json
from gateway.simulator.script import Fault, Script, Step, UnknownFault, decode_steps

MODEL_NAMES = ("gpt-4.1", "gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5", "gemini-2.5-flash", "deepseek-v3.2")
LINES: Header = (b"content-type", b"application/x-ndjson")

# So that a client has read what came before the reset: a kernel may throw unread bytes away with it.
BEFORE_RESET_S = 0.02

EMPTY = Piece(b"")


class Refusal(Exception):
    """The request itself is at fault."""

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(f"Simulated: {message}")
        self.status, self.code = status, code


class Simulator:
    """A provider that answers at once or believably slowly, and fails as told.

    Accepts everyone, unless `api_key` says which.
    Does not keep prompts or answers, except in a journal with `keep_bodies`.
    """

    def __init__(
        self, *, speed: float = 1.0, seed: int = 0, journal: Journal | None = None, api_key: str | None = None
    ) -> None:
        self.journal = journal or Journal()
        self.script = Script()
        self._tempo = Tempo(speed, seed)
        self._api_key = api_key
        self._numbers = count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(next(self._numbers), scope, receive, send)
        try:
            body = await exchange.body()
            if exchange.path.startswith("/control/"):
                await self._control(exchange, body)
            else:
                await self._answer(exchange, body)
        except ClientGone:
            return

    async def _answer(self, exchange: Exchange, body: bytes) -> None:
        request, refusal = self._understood(exchange, body)
        async with self._journalled(exchange, body):
            if refusal is not None:
                await _refuse(exchange, refusal)
            elif request is None:
                await _send_json(exchange, 200, _models())
            else:
                await self._chat(exchange, request)

    @asynccontextmanager
    async def _journalled(self, exchange: Exchange, body: bytes) -> AsyncIterator[None]:
        """A line when a request was received and a line at its end, however it ends."""
        self.journal.append(exchange.as_received(body, self.journal.keep_bodies))
        try:
            yield
        except ClientGone:
            exchange.client_gone = True
        finally:
            self.journal.append(exchange.as_ended())

    def _understood(self, exchange: Exchange, body: bytes) -> tuple[ChatRequest | None, Refusal | None]:
        """The chat request (None: the model names are asked for), or what is wrong with it."""
        try:
            request = self._parsed(exchange, body)
        except Refusal as refusal:
            return None, refusal
        if request is not None:
            exchange.model_name, exchange.streamed = request.model_name, bool(request.stream)
        return request, None

    def _parsed(self, exchange: Exchange, body: bytes) -> ChatRequest | None:
        self._check_bearer(exchange)
        match exchange.method, exchange.path:
            case "GET", "/v1/models":
                return None
            case "POST", "/v1/chat/completions":
                return _decoded(body)
            case method, ("/v1/models" | "/v1/chat/completions") as path:
                raise Refusal(405, f"{method} is not allowed for {path}.", "method_not_allowed")
            case method, path:
                raise Refusal(404, f"unknown request URL: {method} {path}.", "unknown_url")

    def _check_bearer(self, exchange: Exchange) -> None:
        if self._api_key is not None and exchange.credential != self._api_key:
            raise Refusal(401, "incorrect API key provided.", "invalid_api_key")

    async def _control(self, exchange: Exchange, body: bytes) -> None:
        """For whoever reaches the port; with an `api_key`, only for who has it."""
        try:
            if self._api_key is not None:
                self._check_bearer(exchange)
            await self._controlled(exchange, body)
        except Refusal as refusal:
            await _refuse(exchange, refusal)

    async def _controlled(self, exchange: Exchange, body: bytes) -> None:
        match exchange.method, exchange.path:
            case "POST", "/control/script":
                self.script.extend(_steps(body))
                await _send_json(exchange, 200, {"steps": len(self.script)})
            case "DELETE", "/control/script":
                self.script.clear()
                await _send_json(exchange, 200, {"steps": 0})
            case "GET", "/control/journal":
                await _send(exchange, 200, (LINES,), encode_lines(self.journal.lines()))
            case method, path:
                raise Refusal(404, f"no such control: {method} {path}.", "unknown_url")

    async def _chat(self, exchange: Exchange, request: ChatRequest) -> None:
        try:
            step = self.script.take(request.model_name)
        except UnknownFault:
            await _refuse(exchange, Refusal(404, f"no model {request.model_name}.", "model_not_found"))
            return
        exchange.fault = step.fault
        await exchange.pause(step.delay_s)
        ready = ready_answer(step, exchange.credential, exchange.headers.get("host", ""), time.time())
        if ready is not None:
            await _send(exchange, ready.status, ready.headers, ready.body)
            return
        answer = compose(request, step, exchange.number, int(time.time()))
        await Performance(exchange, self._tempo, answer, step).play(delivery(request, answer, step))


class Performance:
    """Sends one answer at its pace and breaks off where its step says.

    Does not decide which bytes: those are the delivery's.
    """

    def __init__(self, exchange: Exchange, tempo: Tempo, answer: Answer, step: Step) -> None:
        self._exchange, self._tempo, self._answer, self._step = exchange, tempo, answer, step

    async def play(self, deliver: Delivery) -> None:
        match self._step.fault:
            case Fault.SILENCE:
                await self._exchange.until_gone()
            case Fault.RESET_BEFORE_HEADERS:
                self._exchange.wire.reset()
            case _:
                self._exchange.prompt_tokens = self._answer.prompt_tokens
                await self._open(deliver.headers)
                await self._send_all(deliver)

    async def _open(self, headers: tuple[Header, ...]) -> None:
        """Headers leave with the first bytes of the body, unless the fault sends them ahead."""
        if self._step.fault not in HEADERS_FIRST:
            await self._exchange.pause(self._first_wait_s())
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
        if self._step.fault not in BREAKS_OFF:
            await self._exchange.finish(last)
            return
        await self._exchange.write(last)
        match self._step.fault:
            case Fault.STALL:
                await self._exchange.until_gone()
            case Fault.CLOSE_MID_STREAM:
                self._exchange.wire.close()
            case Fault.RESET_MID_STREAM:
                await self._reset()
            case _:
                await self._exchange.finish(EMPTY, whole=False)

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


def _decoded(body: bytes) -> ChatRequest:
    try:
        return decode_request(body)
    except msgspec.DecodeError as why:
        raise Refusal(400, f"{why}.", "invalid_request") from None


def _steps(body: bytes) -> list[Step]:
    try:
        return decode_steps(body)
    except msgspec.DecodeError as why:
        raise Refusal(400, f"{why}.", "invalid_script") from None


async def _refuse(exchange: Exchange, refusal: Refusal) -> None:
    said = error_json(str(refusal), "invalid_request_error", refusal.code)
    await _send_json(exchange, refusal.status, said)


async def _send_json(exchange: Exchange, status: int, value: Any) -> None:
    await _send(exchange, status, (JSON,), msgspec.json.encode(value))


async def _send(exchange: Exchange, status: int, headers: tuple[Header, ...], body: bytes) -> None:
    await exchange.start(status, headers)
    await exchange.finish(Piece(body))


def _models() -> dict[str, Any]:
    names = (*MODEL_NAMES, *(fault.model_name for fault in Fault))
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": 0, "owned_by": "simulated"} for name in names],
    }
