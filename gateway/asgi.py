"""The relay alone as a server, for a machine that does nothing else: `granian gateway.asgi:application`."""

import os
from collections.abc import Iterable
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dashboard.settings")
django.setup()

from django.conf import settings  # noqa: E402

from gateway import health, metrics  # noqa: E402
from gateway.endpoints import Receive, Scope, Send  # noqa: E402
from gateway.glance import Glance  # noqa: E402
from gateway.lifespan import Gateway, lifespan  # noqa: E402
from gateway.peers import Peers  # noqa: E402
from gateway.relay.records import Refused, Settled  # noqa: E402


class Nobody:
    """A companion where there is no dashboard."""

    @property
    def listener(self) -> "Nobody":
        return self

    def settled(self, record: Settled, /) -> None:
        """The journal has it; nobody else listens."""

    def refused(self, refused: Refused, /) -> None:
        """The journal has it; nobody else listens."""

    def database(self, *, away: bool) -> None:
        """Nobody looks."""

    def rights_changed(self, user_id: int, /) -> None:
        """Nobody sees anything here."""

    def look_through(self, glance: Glance, /) -> None:
        """Nobody looks."""

    async def open(self, peers: Peers, /, *, publishes: bool) -> None:
        """Nothing to open."""

    def adopted(self, process: str, found: Iterable[Settled], /) -> None:
        """Nobody shows them."""

    def drain(self) -> None:
        """Nobody to send away."""

    async def close(self) -> None:
        """Nothing to close."""


gateway = Gateway(Nobody(), role="relay")


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI 3."""
    kind: Any = scope["type"]
    if kind == "lifespan":
        await lifespan(gateway, receive, send)
    elif kind == "http" and scope["path"] in health.PATHS:
        await health.answer(gateway, scope["path"], send)
    elif kind == "http" and scope["path"] == metrics.PATH:
        await metrics.answer(gateway, scope, send, settings.ENV.metrics_token)
    elif kind == "http" and gateway.relay is not None:
        await gateway.relay(scope, receive, send)
