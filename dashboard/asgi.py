"""Everything on one port: `/v1/` to the relay, sockets to Channels, the rest to Django."""

import asyncio
import os
import time

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dashboard.settings")

from django.conf import settings
from django.core.asgi import get_asgi_application

pages = get_asgi_application()

from dashboard import problems  # noqa: E402
from dashboard.companion import Live  # noqa: E402
from dashboard.consumers import websocket_application  # noqa: E402
from gateway import edge, health, metrics  # noqa: E402
from gateway.endpoints import JSON, Message, Receive, Reply, Scope, Send  # noqa: E402
from gateway.errors import InvalidCall  # noqa: E402
from gateway.lifespan import Gateway, lifespan  # noqa: E402

LARGEST_FORM = 1024 * 1024
"""Bytes; every form of ours is far smaller."""

NO_CALLS_HERE = InvalidCall(
    "This process serves pages only. Calls are answered by a gateway that runs as `up --role relay` or `up`.",
    status=404,
    code="unknown_url",
    closes_connection=True,
)

gateway = Gateway(Live())


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI 3."""
    kind = scope["type"]
    if kind == "http":
        await _http(scope, receive, send)
    elif kind == "websocket":
        await _socket(scope, receive, send)
    else:
        await lifespan(gateway, receive, send)


async def pages_alone(scope: Scope, receive: Receive, send: Send) -> None:
    """The same without calls, for `up --role pages`. ASGI 3.

    A call that came here took a wrong turn; 404, because trying again would not help.
    """
    if scope["type"] == "lifespan":
        gateway.role = "pages"
    if scope["type"] == "http" and _is_call(scope["path"]):
        await Reply(send, time.monotonic).error(NO_CALLS_HERE)
    else:
        await application(scope, receive, send)


async def calls_alone(scope: Scope, receive: Receive, send: Send) -> None:
    """The same without pages, for `up --role relay`; others' live pages show its calls. ASGI 3."""
    if scope["type"] == "lifespan":
        gateway.role = "relay"
    kind = scope["type"]
    if kind == "http" and scope["path"] not in (*health.PATHS, metrics.PATH):
        assert gateway.relay is not None
        await gateway.relay(scope, receive, send)
    elif kind == "websocket":
        await send({"type": "websocket.close", "code": 4404})
    else:
        await application(scope, receive, send)


def _is_call(path: str) -> bool:
    return path.startswith("/v1/") or path == "/v1"


async def _http(scope: Scope, receive: Receive, send: Send) -> None:
    path = scope["path"]
    if _is_call(path):
        assert gateway.relay is not None
        await gateway.relay(scope, receive, send)
    elif path in health.PATHS:
        await health.answer(gateway, path, send)
    elif path == metrics.PATH:
        await metrics.answer(gateway, scope, send, settings.ENV.metrics_token)
    else:
        await _page(scope, receive, send)


async def _page(scope: Scope, receive: Receive, send: Send) -> None:
    """Django would write a body of any size to a file, and wait for it for ever: it is read here."""
    try:
        edge.check_host(scope["headers"])
        async with asyncio.timeout(settings.ENV.body_timeout_s):
            body = await _form(receive)
    except InvalidCall as why:
        await _refuse(scope, send, why)
    except TimeoutError:
        await _refuse(scope, send, edge.slow_body(settings.ENV.body_timeout_s))
    else:
        await pages(dict(scope), _once_more(body, receive), send)  # type: ignore[arg-type]


async def _refuse(scope: Scope, send: Send, why: InvalidCall) -> None:
    """In the shape that whoever asked knows."""
    if not scope["path"].startswith(problems.PREFIX):
        await Reply(send, time.monotonic).error(why)
        return
    body = problems.body(why.status, why.message)
    headers = [
        (b"content-type", problems.MEDIA_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        *why.headers(),
    ]
    await send({"type": "http.response.start", "status": why.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _form(receive: Receive) -> bytes:
    """The whole body of a page's request. Raises InvalidCall."""
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise edge.broken_body()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > LARGEST_FORM:
            raise edge.body_too_large(LARGEST_FORM)
        more = message.get("more_body", False)
    return b"".join(parts)


def _once_more(body: bytes, receive: Receive) -> Receive:
    """A receive that tells of the body as if it came now, then of what comes after it."""
    told = False

    async def hear() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return hear


async def _socket(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        edge.check_host(scope["headers"])
    except InvalidCall as why:
        body = why.body()
        headers = [JSON, (b"content-length", b"%d" % len(body)), *why.headers()]
        await send({"type": "websocket.http.response.start", "status": why.status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body, "more_body": False})
        return
    await websocket_application(dict(scope), receive, send)  # type: ignore[arg-type]
