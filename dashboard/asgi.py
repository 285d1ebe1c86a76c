"""Everything on one port: `/v1/` to the relay, sockets to Channels, the rest to Django."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dashboard.settings")

from django.core.asgi import get_asgi_application

pages = get_asgi_application()

from dashboard.companion import Live  # noqa: E402
from dashboard.consumers import websocket_application  # noqa: E402
from gateway import edge, health  # noqa: E402
from gateway.endpoints import Receive, Reply, Scope, Send  # noqa: E402
from gateway.errors import InvalidCall  # noqa: E402
from gateway.lifespan import Gateway, lifespan  # noqa: E402

gateway = Gateway(Live())


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI 3."""
    kind = scope["type"]
    if kind == "http":
        await _http(scope, receive, send)
    elif kind == "websocket":
        await websocket_application(dict(scope), receive, send)
    else:
        await lifespan(gateway, receive, send)


async def _http(scope: Scope, receive: Receive, send: Send) -> None:
    path = scope["path"]
    if path.startswith("/v1/") or path == "/v1":
        assert gateway.relay is not None
        await gateway.relay(scope, receive, send)
    elif path in health.PATHS:
        await health.answer(gateway, path, send)
    else:
        await _page(scope, receive, send)


async def _page(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        edge.check_host(scope["headers"])
    except InvalidCall as why:
        await Reply(send, lambda: 0.0).error(why)
        return
    await pages(dict(scope), receive, send)  # type: ignore[arg-type]
