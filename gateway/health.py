"""`/healthz` and `/readyz`: alive, and whether calls are served."""

from typing import Any

import msgspec

from gateway.endpoints import JSON, NO_STORE, Send
from gateway.lifespan import Gateway

PATHS = ("/healthz", "/readyz")


async def answer(gateway: Gateway, path: str, send: Send) -> None:
    """200 while calls are served, `degraded` with what; 503 only when starting, draining or refusing."""
    status, body = _state(gateway) if path == "/readyz" else (200, {"status": "alive"})
    data = msgspec.json.encode(body)
    headers = [JSON, NO_STORE, (b"content-length", b"%d" % len(data))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data, "more_body": False})


def _state(gateway: Gateway) -> tuple[int, dict[str, Any]]:
    if gateway.state != "ready":
        return 503, {"status": gateway.state}
    if refusing := gateway.refusing():
        return 503, {"status": "refusing", "because": refusing}
    degraded = gateway.degraded()
    return (200, {"status": "degraded", "degraded": degraded}) if degraded else (200, {"status": "ready"})
