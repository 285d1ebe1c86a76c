"""The least that an ASGI application can do, on the gateway's own server: what is beside it is the gateway's.

    python -m benchmarks.empty_app PORT

Drains the body and answers with fixed bytes, whole or as a stream of as many chunks as were asked for.
"""

import sys
from typing import Any

from benchmarks.wire import ANSWER, event_stream, wanted
from dashboard.env import Env
from gateway.server import Server, listen

LENGTH = (b"content-length", str(len(ANSWER)).encode())
WHOLE = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), LENGTH],
}
STREAM = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream; charset=utf-8")],
}
BODY = {"type": "http.response.body", "body": ANSWER, "more_body": False}
DRAIN_S = 1.0


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """ASGI 3."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    asked = wanted(body)
    if asked.streamed:
        await _stream(send, asked.chunks)
    else:
        await send(WHOLE)
        await send(BODY)


async def _stream(send: Any, chunks: int) -> None:
    await send(STREAM)
    *most, last = _events(chunks)
    for each in most:
        await send({"type": "http.response.body", "body": each, "more_body": True})
    await send({"type": "http.response.body", "body": last, "more_body": False})


_kept: dict[int, list[bytes]] = {}


def _events(chunks: int) -> list[bytes]:
    if chunks not in _kept:
        _kept[chunks] = event_stream(chunks, usage=False)
    return _kept[chunks]


async def _lifespan(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


if __name__ == "__main__":
    listeners = listen("127.0.0.1", int(sys.argv[1]), Env().send_timeout_s)
    Server(listeners, DRAIN_S, "benchmarks.empty_app:application").serve()
