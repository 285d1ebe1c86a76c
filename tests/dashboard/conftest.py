"""People, teams, and a small site: the pages, the sockets and a ticking hub, on a real port."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from datetime import UTC, datetime

import pytest
import uvicorn
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.test import Client
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from accounts.models import ApiKey, Membership, Team, User
from dashboard import live
from dashboard.consumers import websocket_application
from dashboard.frames import Fold, Frame
from gateway.glance import Seen, UnderWay
from gateway.relay.records import Settled
from tests.served import eventually, free_port

CHROMIUM = "/usr/bin/chromium"
CHROMIUM_ARGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]

expect.set_options(timeout=20_000)  # on a machine that has much else to do


@pytest.fixture
def team(transactional_db) -> Team:
    return Team.objects.create(name="Hydro", slug="hydro")


@pytest.fixture
def other_team(transactional_db) -> Team:
    return Team.objects.create(name="Solar", slug="solar")


@pytest.fixture
def alice(team) -> User:
    """Owns the team."""
    alice = User.objects.create_user("alice@example.com")
    Membership.objects.create(user=alice, team=team, role=Membership.Role.OWNER)
    return alice


@pytest.fixture
def administrator(transactional_db) -> User:
    return User.objects.create_superuser("root@example.com")


@pytest.fixture
def api_key(team) -> ApiKey:
    return ApiKey.objects.create(team=team, name="nightly batch")


def session_of(user: User) -> str:
    """A signed-in session's cookie value."""
    client = Client()
    client.force_login(user)
    return client.cookies[settings.SESSION_COOKIE_NAME].value


class Site:
    """The pages and sockets of `dashboard`, with a hub that ticks as in the real process.

    What the relay would tell the fold, the test tells it.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.fold = Fold()
        self.hub: live.Hub | None = None
        self.sockets_refused = False
        self.ticks = True
        """A second that is over is published; False: the test does it."""
        self.missing: tuple[str, ...] = ()
        """What frames lack from now on."""
        self.under_way: UnderWay | None = None
        """Calls under way from now on, by team."""
        self.seen: Seen | None = None
        """How targets are from now on."""
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._application,
                port=self.port,
                interface="asgi3",
                lifespan="off",
                ws="websockets-sansio",
                log_level="error",
            )
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    @property
    def origin(self) -> str:
        return f"http://localhost:{self.port}"

    def __enter__(self) -> "Site":
        self._thread.start()
        eventually(lambda: self._server.started, what="the site's start")
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pages = get_asgi_application()
        self.hub, stop = live.Hub(), asyncio.Event()
        await asyncio.to_thread(live.load_history, self.fold, datetime.now(UTC))
        live.install(self.hub)
        ticking = asyncio.create_task(live.run(self.fold, self._publish, stop))
        await self._server.serve()
        live.install(None)
        stop.set()
        await ticking
        self.hub.close_all()

    def _publish(self, frame: Frame) -> None:
        if not self.ticks:
            return
        frame.under_way = self.under_way
        self.hub.see(self.seen)
        self.hub.publish(frame, self.missing)

    async def _application(self, scope, receive, send) -> None:
        if scope["type"] == "http":
            await self._pages(scope, receive, send)
        elif self.sockets_refused:
            await receive()
            await send({"type": "websocket.close"})
        else:
            await websocket_application(scope, receive, send)

    def happened(self, *calls: Settled) -> None:
        """Tell the fold of calls that ended; returns when it knows."""
        self.on_loop(lambda: [self.fold.add(call) for call in calls])

    def stand_still(self) -> int:
        """Publish no more; returns the last second that was published."""

        def stop() -> None:
            self.ticks = False

        self.on_loop(stop)
        return self.hub.last_id

    def on_loop(self, do) -> None:
        assert self._loop is not None
        done: Future[None] = Future()

        def work() -> None:
            try:
                do()
            finally:
                done.set_result(None)

        self._loop.call_soon_threadsafe(work)
        done.result(10)


@pytest.fixture
def site(transactional_db) -> Iterator[Site]:
    with Site() as running:
        yield running


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
        yield launched
        await launched.close()


async def signed_in(browser: Browser, origin: str, session: str) -> tuple[Page, list[str]]:
    """A page with this session's cookie, and whatever its console complains about."""
    context: BrowserContext = await browser.new_context(viewport={"width": 1440, "height": 1000})
    await context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": origin}])
    page = await context.new_page()
    complaints: list[str] = []
    page.on(
        "console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return page, complaints
