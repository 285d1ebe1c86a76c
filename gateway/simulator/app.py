"""The simulator as an ASGI application: requests in, answers and faults out.

Needs a server that offers the `penstock.transport` extension: `gateway.simulator.server`.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import msgspec

from gateway.simulator.answers import ChatRequest, compose, decode_request
from gateway.simulator.exchange import ClientGone, Exchange, Receive, Scope, Send
from gateway.simulator.faults import JSON, Header, delivery, ready_answer
from gateway.simulator.journal import Journal, encode_lines
from gateway.simulator.pace import Tempo
from gateway.simulator.performance import Performance
from gateway.simulator.rendering import Piece, error_json
from gateway.simulator.script import Fault, Script, Step, UnknownFault, decode_steps

MODEL_NAMES = ("gpt-4.1", "gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5", "gemini-2.5-flash", "deepseek-v3.2")
LINES: Header = (b"content-type", b"application/x-ndjson")


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
        performance = Performance(exchange, self._tempo, request, answer, step)
        await performance.play(delivery(request, answer, step))


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
