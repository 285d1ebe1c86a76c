"""The relay as a raw ASGI application: `/v1/*` in, OpenAI-shaped answers and errors out.

Django's handlers cost more than the whole relay, so none stands in front of it.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from ipaddress import ip_address
from typing import Any

import msgspec

from accounts.caller import Caller, KeyCannotBeChecked, Network, Priority, RateLimitKind
from gateway import edge
from gateway.addresses import client_address
from gateway.errors import (
    GatewayError,
    InvalidApiKey,
    InvalidCall,
    NotPermitted,
    RouteNotAllowed,
    Unavailable,
)
from gateway.relay.admission import Reservation, Trying
from gateway.relay.attempt import Limits
from gateway.relay.call import new_call_id, understand
from gateway.relay.catalog import Route
from gateway.relay.lifeline import NEVER, Cut, Lifeline, Lifelines
from gateway.relay.limits import Standing
from gateway.relay.pipeline import Relay, cut_before_it_began, stopping
from gateway.relay.ports import Keys, Routes

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON = (b"content-type", b"application/json")
EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
NO_STORE = (b"cache-control", b"no-store")
NOSNIFF = (b"x-content-type-options", b"nosniff")
LARGEST_SEND = 256 * 1024
"""Bytes handed to the server at once: it waits for a slow reader between sends, not within one."""
RATELIMIT_NAMES: tuple[tuple[RateLimitKind, bytes], ...] = (("requests", b"requests"), ("tokens", b"tokens"))
FAREWELL_S = 5.0
"""How long a failed stream's last event may take to be read."""


class Reply:
    """The client's end of one request."""

    __slots__ = ("_send", "begun", "call_id", "clock")

    def __init__(self, send: Send, clock: Callable[[], float]) -> None:
        self._send, self.clock = send, clock
        self.call_id = ""
        self.begun = False

    async def whole(self, body: bytes, reservation: Reservation) -> None:
        own_ms = (self.clock() - reservation.call.began) * 1000 - _spent_ms(reservation)
        attempts = len(reservation.ended)
        headers = [
            JSON,
            (b"content-length", b"%d" % len(body)),
            *self._facts(reservation, own_ms, attempts),
        ]
        await self._whole(200, headers, body)

    async def begin_stream(self, trying: Trying, reservation: Reservation) -> None:
        self.begun = True
        waited_ms = (trying.queued_us + trying.backoff_us) / 1000
        own_ms = (trying.began - reservation.call.began) * 1000 - _spent_ms(reservation) - waited_ms
        headers = [EVENTS, *self._facts(reservation, own_ms, trying.attempt_no)]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def chunk(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end_stream(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def fail_stream(self, data: bytes) -> None:
        """The last event of a stream that failed; a client that does not read it in time goes without."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                await self.end_stream(data)

    async def json(self, body: bytes) -> None:
        await self._whole(
            200, [JSON, (b"content-length", b"%d" % len(body)), NO_STORE, NOSNIFF, self._id()], body
        )

    async def error(self, why: GatewayError) -> None:
        body = why.body()
        headers = [
            JSON,
            (b"content-length", b"%d" % len(body)),
            NO_STORE,
            NOSNIFF,
            self._id(),
            *why.headers(),
        ]
        await self._whole(why.status, headers, body)

    async def _whole(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        for start in range(0, max(1, len(body)), LARGEST_SEND):
            end = start + LARGEST_SEND
            await self._send(
                {"type": "http.response.body", "body": body[start:end], "more_body": end < len(body)}
            )

    def _id(self) -> tuple[bytes, bytes]:
        return (b"x-request-id", (self.call_id or new_call_id(time.time_ns())).encode())

    def _facts(self, reservation: Reservation, own_ms: float, attempts: int) -> list[tuple[bytes, bytes]]:
        step = reservation.step
        assert step is not None
        facts = [
            NO_STORE,
            NOSNIFF,
            self._id(),
            (b"x-penstock-target", str(step.target).encode("ascii", "replace")),
            (b"x-penstock-attempts", b"%d" % attempts),
            (b"x-penstock-overhead-ms", b"%.3f" % own_ms),
        ]
        if reservation.standings:
            facts += ratelimit_headers(reservation.standings)
        if step.dropped:
            facts.append((b"x-penstock-dropped", ", ".join(step.dropped).encode("ascii", "replace")))
        if step.trimmed:
            facts.append((b"x-penstock-trimmed", b"%d" % step.trimmed))
        return facts


def ratelimit_headers(standings: Sequence[Standing]) -> list[tuple[bytes, bytes]]:
    """OpenAI's headers, of the rate limit of each kind that is nearest to its end.

    A limit is as at first once the window has forgotten the call that was let in just now.
    https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers
    """
    nearest_of: dict[str, Standing] = {}
    for each in standings:
        other = nearest_of.get(each.limit.kind)
        if other is None or each.remaining < other.remaining:
            nearest_of[each.limit.kind] = each
    found = []
    for kind, name in RATELIMIT_NAMES:
        nearest = nearest_of.get(kind)
        if nearest is not None:
            found += [
                (b"x-ratelimit-limit-" + name, b"%d" % nearest.limit.amount),
                (b"x-ratelimit-remaining-" + name, b"%d" % nearest.remaining),
                (b"x-ratelimit-reset-" + name, b"1m1s"),
            ]
    return found


def _spent_ms(reservation: Reservation) -> float:
    """What the attempts that ended took, with the waits before them: none of it is overhead of ours."""
    return sum(each.latency_us + each.queued_us + each.backoff_us for each in reservation.ended) / 1000


class RelayApplication:
    """ASGI 3 for `/v1/*`. Understands HTTP; the relay does the rest."""

    def __init__(
        self,
        relay: Relay,
        keys: Keys,
        routes: Routes,
        lines: Lifelines,
        limits: Limits,
        *,
        max_body_bytes: int,
        body_timeout_s: float,
        trusted_proxies: tuple[Network, ...] = (),
    ) -> None:
        self._trusted_proxies = trusted_proxies
        self._relay, self._keys, self._routes = relay, keys, routes
        self.lines, self._limits = lines, limits
        self._max_body_bytes, self._body_timeout_s = max_body_bytes, body_timeout_s
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; nothing but a hang-up leaves it unanswered."""
        clock = self.lines.clock
        began = clock()
        reply = Reply(send, clock)
        task = asyncio.current_task()
        assert task is not None
        line = self.lines.open(task, began, self._limits.call_timeout_s)
        try:
            await self._answer(scope, receive, reply, line, began)
        except GatewayError as why:
            await reply.error(why)
        except asyncio.CancelledError:
            if line.cut is None:
                raise
            if not reply.begun and (told := cut_before_it_began(line.cut)):
                line.recover()
                await reply.error(told)
        except Exception:  # the outermost edge: a client gets an answer, never a traceback
            log.exception("a call failed for a reason of our own")
            if not reply.begun:
                await reply.error(GatewayError("Something went wrong inside the gateway. Try again."))
        finally:
            self.lines.close(line)

    async def _answer(
        self, scope: Scope, receive: Receive, reply: Reply, line: Lifeline, began: float
    ) -> None:
        head = edge.read_head(scope["headers"])
        path, method = scope["path"], scope["method"]
        if path == "/v1/chat/completions":
            if method != "POST":
                raise _wrong_method("POST")
            edge.check_json(head, self._max_body_bytes)
            await self._chat(scope, head, receive, reply, line, began)
        elif path == "/v1/models" or path.startswith("/v1/models/"):
            if method != "GET":
                raise _wrong_method("GET")
            caller = await self._caller(scope, head)
            await reply.json(_models(self._routes.current().routes, path[len("/v1/models/") :], caller))
        else:
            raise InvalidCall(
                "There is nothing here. This gateway has POST /v1/chat/completions and GET /v1/models.",
                status=404,
                code="unknown_url",
                closes_connection=True,
            )

    async def _chat(
        self, scope: Scope, head: edge.Head, receive: Receive, reply: Reply, line: Lifeline, began: float
    ) -> None:
        if self.draining:
            raise stopping()
        caller = await self._known(head)
        try:
            self._let_in(caller, scope, head)
            priority = _priority(head, caller)
        except NotPermitted as why:
            reply.call_id = new_call_id(time.time_ns())
            self._relay.turned_away(why, caller, reply.call_id, "", "normal")
            raise
        line.secret_id, line.team_id, line.priority = caller.secret_id, caller.team_id, priority
        body = await self._body(receive, head.content_length, line, began)
        tags = {**(head.tags or {}), **caller.tags} if caller.tags else head.tags
        call = understand(body, self.lines.clock(), tags, priority, head.timeout_s)
        reply.call_id = call.call_id
        ear = Ear(receive, line)
        try:
            await self._relay.carry(call, caller, line, reply)
        finally:
            ear.close()

    async def _caller(self, scope: Scope, head: edge.Head) -> Caller:
        """Who is calling, let in from where they are. Raises InvalidApiKey, NotPermitted, Unavailable."""
        caller = await self._known(head)
        self._let_in(caller, scope, head)
        return caller

    async def _known(self, head: edge.Head) -> Caller:
        """Whose API key it is. Raises InvalidApiKey, Unavailable."""
        presented = edge.api_key_of(head)
        try:
            caller = self._keys.remembered(presented) or await self._keys.look_up(presented)
        except KeyCannotBeChecked:
            raise Unavailable(
                "This API key cannot be checked at the moment. Try again in a few seconds."
            ) from None
        if caller is None:
            raise InvalidApiKey
        return caller

    def _let_in(self, caller: Caller, scope: Scope, head: edge.Head) -> None:
        """Note where and by what program the key is used. Raises NotPermitted."""
        address = self._address(scope)
        if caller.networks:
            _check_address(address, caller.networks)
        self._keys.used(caller, address, head.user_agent)

    def _address(self, scope: Scope) -> str:
        """Where the call comes from; a proxy's word counts only where it is a configured one's."""
        client = scope.get("client")
        peer: str = client[0] if client else ""
        if not self._trusted_proxies:
            return peer
        told = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
        return client_address(peer, told.decode("latin-1"), self._trusted_proxies)

    async def _body(self, receive: Receive, length: int | None, line: Lifeline, began: float) -> bytes:
        """The whole body. Raises InvalidCall 413 at the first byte too many, 408 when it does not come."""
        line.expect(began + self._body_timeout_s, Cut.SLOW_BODY)
        try:
            body = await self._drain(receive, length)
        except asyncio.CancelledError:
            if line.cut is not Cut.SLOW_BODY:
                raise
            line.recover()
            raise edge.slow_body(self._body_timeout_s) from None
        line.expect(NEVER, Cut.DEADLINE)
        return body

    async def _drain(self, receive: Receive, length: int | None) -> bytes:
        """Read to the end; where the length was announced, nothing needs to say that it is the end."""
        body = b""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise edge.broken_body()
            part = message.get("body", b"")
            size += len(part)
            if size > self._max_body_bytes:
                raise edge.body_too_large(self._max_body_bytes)
            if body:
                parts.append(part)
            else:
                body = part
            if size == length or not message.get("more_body", False):
                return body + b"".join(parts) if parts else body


class Ear:
    """Hears the client hang up, for the whole call.

    A server's `receive()` is a coroutine or, under Granian, already a future; a callback serves both,
    and under Granian spares a task for each call.
    """

    __slots__ = ("_heard", "_line", "_receive")

    def __init__(self, receive: Receive, line: Lifeline) -> None:
        self._receive, self._line = receive, line
        self._listen()

    def _listen(self) -> None:
        heard: Any = self._receive()
        self._heard: asyncio.Future[Message] = (
            heard if hasattr(heard, "add_done_callback") else asyncio.ensure_future(heard)
        )
        self._heard.add_done_callback(self._hear)

    def _hear(self, heard: "asyncio.Future[Message]") -> None:
        if heard.cancelled():
            return
        if heard.result()["type"] == "http.disconnect":
            self._line.hang_up()
        else:
            self._listen()

    def close(self) -> None:
        self._heard.remove_done_callback(self._hear)
        self._heard.cancel()


URGENCY = {"urgent": 0, "normal": 1, "batch": 2}


def _priority(head: edge.Head, caller: Caller) -> Priority:
    """What the call asks for, else normal or less. Raises NotPermitted above the key's ceiling."""
    ceiling = caller.priority_ceiling
    if head.priority is None:
        return "batch" if ceiling == "batch" else "normal"
    if URGENCY[head.priority] < URGENCY[ceiling]:
        raise NotPermitted(
            f"This API key's calls may be {ceiling} at most, and this one asks to be {head.priority}. "
            "Leave X-Penstock-Priority out, or ask the key's owner."
        )
    return head.priority


def _check_address(address: str, networks: tuple[Network, ...]) -> None:
    """Raises NotPermitted for an address outside all of the key's ranges, or one that is not known."""
    try:
        found = ip_address(address)
    except ValueError:
        found = None
    mapped = getattr(found, "ipv4_mapped", None) or found
    if mapped is None or not any(mapped in each for each in networks):
        raise NotPermitted(
            f"This API key may not be used from {address or 'an unknown address'}: "
            "its owner has named the address ranges that its calls may come from."
        )


def _wrong_method(right: str) -> InvalidCall:
    why = InvalidCall(
        f"This address takes {right} only.", status=405, code="method_not_allowed", closes_connection=True
    )
    why.allow = right
    return why


def _models(routes: Mapping[str, Route], name: str, caller: Caller) -> bytes:
    """The routes that this caller may use, or the one of that name. Raises RouteNotAllowed."""
    open_to = {
        each: route
        for each, route in routes.items()
        if route.targets and caller.may_use(route.model_name) and (not name or each == name)
    }
    if not name:
        found = [_model(each, route) for each, route in sorted(open_to.items())]
        return msgspec.json.encode({"object": "list", "data": found})
    if name not in open_to:
        raise RouteNotAllowed(name)
    return msgspec.json.encode(_model(name, open_to[name]))


def _model(name: str, route: Route) -> dict[str, object]:
    return {"id": name, "object": "model", "created": route.created_at_s, "owned_by": "penstock"}
