"""Sockets in: who may watch which team, and the frames that go out.

`websocket_application` is mounted by `asgi.py` for every WebSocket.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any
from urllib.parse import parse_qs, urlsplit

from channels.auth import AuthMiddlewareStack
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.security.websocket import WebsocketDenier
from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.http.request import validate_host

from accounts.models import Team, User
from accounts.queries import teams_of
from dashboard import live
from dashboard.frames import ALL

log = logging.getLogger(__name__)

SEND_TIMEOUT_S = 60
"""A reader that takes nothing for so long is gone."""
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

DEFAULT_PORTS = {"http": 80, "https": 443}


class LiveConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels is untyped
    """`/ws/live/?team=<slug>&run=<id>&since=<id>`: frames of a team, or of all teams for an administrator.

    `run` and `since` are of the last message that the page had; it gets what came after.
    """

    hub: live.Hub | None = None
    socket: live.Socket | None = None
    writer: asyncio.Task[None] | None = None

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """However the socket ends, its place at the hub is given back."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            if self.writer is not None:
                self.writer.cancel()
            if self.hub is not None and self.socket is not None:
                self.hub.leave(self.socket)

    async def connect(self) -> None:
        user = self.scope["user"]
        if not user.is_authenticated:
            await self.close()
            return
        self.hub = live.current()
        if self.hub is None:
            await self.accept()
            await self.close(live.TRY_LATER, "This process serves no live frames.")
            return
        # Joined before the rights are read, so that a change in between is heard.
        self.socket = self.hub.join(user.pk)
        asked = parse_qs(self.scope["query_string"].decode("ascii", "replace"))
        team_id = await database_sync_to_async(_team_to_watch)(
            user.pk, self.scope["session"].session_key, asked.get("team", [""])[0]
        )
        if team_id is None or self.socket.closing:
            await self.close()
            return
        await self.accept()
        self.socket.watch(team_id, asked.get("run", [""])[0], _whole(asked.get("since", [""])[0]))
        self.writer = asyncio.create_task(self._write(self.socket))

    async def _write(self, socket: live.Socket) -> None:
        try:
            async for message in socket.messages():
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await self.send(text_data=message)
            await self.close(*(socket.closing or ()))
        except TimeoutError:
            await self.close(live.TRY_LATER, "Nothing was read for too long.")
        except (OSError, RuntimeError) as gone:  # how servers say that the reader has left
            log.debug("A live socket ended while it was written to: %s", gone)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """A page has nothing to say."""
        await self.close(1008, "Nothing is expected from you.")


def _team_to_watch(user_id: int, session_key: str, slug: str) -> int | None:
    """The team's id, `ALL` for an administrator who named none, or None for who may not.

    Reads session, person and rights afresh.
    """
    user = User.objects.filter(pk=user_id, is_active=True).first()
    session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    if user is None or session.get(SESSION_KEY) != str(user_id):
        return None
    if not slug:
        return ALL if user.is_superuser else None
    team: Team | None = teams_of(user).filter(slug=slug).first()
    return None if team is None else team.pk


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def same_origin(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether the page that opened this socket came from the host that it talks to."""
    origins = [value.decode("latin1") for name, value in headers if name.lower() == b"origin"]
    hosts = [value.decode("latin1") for name, value in headers if name.lower() == b"host"]
    if len(origins) != 1 or len(hosts) != 1:
        return False
    try:
        origin, host = urlsplit(origins[0]), urlsplit(f"//{hosts[0]}")
        default = DEFAULT_PORTS.get(origin.scheme)
        same = (origin.hostname, origin.port or default) == (host.hostname, host.port or default)
    except ValueError:  # a port that is none, or half an IPv6 address
        return False
    return default is not None and same and bool(host.hostname) and _allowed(host.hostname or "")


def _allowed(hostname: str) -> bool:
    return validate_host(f"[{hostname}]" if ":" in hostname else hostname, settings.ALLOWED_HOSTS)


class _Line:
    """One socket's two directions, so that closing lets go of hearing first.

    Granian's close waits for a pending receive, and so for the reader to say something.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._hearing: asyncio.Task[Message] | None = None
        self._closed: asyncio.Future[None] | None = None

    async def hear(self) -> Message:
        """The next message; once we have closed, that the socket is closed."""
        if self._closed is None:
            self._hearing = asyncio.create_task(self._hear())
            try:
                return await self._hearing
            except asyncio.CancelledError:
                self._hearing.cancel()
                if self._closed is None:
                    raise
        await self._closed
        return {"type": "websocket.disconnect", "code": 1000}

    async def _hear(self) -> Message:  # Granian's receive() is no coroutine, and a task needs one
        return await self._receive()

    async def say(self, message: Message) -> None:
        if message["type"] != "websocket.close" or self._closed is not None:
            await self._send(message)
            return
        self._closed = asyncio.get_running_loop().create_future()
        try:
            if self._hearing is not None:
                self._hearing.cancel()
                await asyncio.wait([self._hearing])
            await self._send(message)
        finally:
            self._closed.set_result(None)


_paths = {"/ws/live/": AuthMiddlewareStack(LiveConsumer.as_asgi())}


async def websocket_application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """A socket from our own pages goes to its consumer; any other, and an unknown path, is refused."""
    known = _paths.get(scope["path"])
    if known is None or not same_origin(scope["headers"]):
        known = WebsocketDenier.as_asgi()
    line = _Line(receive, send)
    await known(scope, line.hear, line.say)
