"""Who gets a socket, who does not, and when it is taken away."""

import asyncio
import contextlib
import json
import re

import aiohttp
import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore
from django.test import Client

from accounts.models import Membership
from accounts.signals import rights_changed
from dashboard import live
from dashboard.consumers import _team_to_watch, same_origin, websocket_application
from dashboard.frames import Frame
from tests.dashboard.conftest import session_of
from tests.dashboard.records import settled
from tests.served import ADMIN_EMAIL, ADMIN_PASSWORD

NOW = 1_700_000_000
OWN = "http://localhost:8000"


@pytest.fixture
def hub():
    hub = live.Hub()
    live.install(hub)
    yield hub
    live.install(None)


class Visitor(ApplicationCommunicator):
    """A browser's side of one socket."""

    async def connects(self):
        await self.send_input({"type": "websocket.connect"})
        return (await self.receive_output(5))["type"] == "websocket.accept"

    async def hears(self):
        message = await self.receive_output(5)
        assert message["type"] == "websocket.send"
        return json.loads(message["text"])

    async def leaves(self):
        await self.send_input({"type": "websocket.disconnect", "code": 1000})
        await self.wait(5)


def knock(path="/ws/live/?team=hydro", session="", origin=OWN):
    headers = [(b"host", b"localhost:8000")]
    if origin is not None:
        headers.append((b"origin", origin.encode()))
    if session:
        headers.append((b"cookie", f"{settings.SESSION_COOKIE_NAME}={session}".encode()))
    path, _, query = path.partition("?")
    scope = {"type": "websocket", "path": path, "query_string": query.encode(), "headers": headers}
    return Visitor(websocket_application, scope)


async def opened(**asked):
    socket = knock(**asked)
    assert await socket.connects()
    return socket


async def refused(**asked):
    socket = knock(**asked)
    accepted = await socket.connects()
    await socket.leaves()
    return not accepted


async def closed_with(socket):
    """The code with which the server closes, after whatever was still on the way."""
    while (message := await socket.receive_output(5))["type"] != "websocket.close":
        pass
    return message["code"]


@pytest.fixture
def alices_session(alice):
    return session_of(alice)


@pytest.fixture
def administrators_session(administrator):
    return session_of(administrator)


async def test_a_member_gets_the_frames_of_the_team(hub, team, alices_session):
    frame = Frame(NOW)
    frame.add(settled(NOW, team_id=team.pk))
    hub.publish(frame)

    socket = await opened(session=alices_session)
    snapshot = await socket.hears()
    assert [each["id"] for each in snapshot["frames"]] == [NOW]
    await socket.leaves()
    assert len(hub) == 0


async def test_a_socket_that_comes_back_says_where_it_was(hub, team, alices_session):
    for second in (NOW, NOW + 1):
        frame = Frame(second)
        frame.add(settled(second, team_id=team.pk))
        hub.publish(frame)

    socket = await opened(path=f"/ws/live/?team=hydro&run={hub.run_id}&since={NOW}", session=alices_session)
    snapshot = await socket.hears()
    assert (snapshot["full"], [each["id"] for each in snapshot["frames"]]) == (False, [NOW + 1])
    await socket.leaves()


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",
        "http://elsewhere.example:8000",
        "http://localhost:8001",
        "http://localhost",
        "https://localhost.elsewhere.example:8000",
        "http://localhost:8000@elsewhere.example",
        "localhost:8000",
        "ftp://localhost:8000",
        "http://localhost:port",
        "",
    ],
)
async def test_another_origin_is_refused(hub, alices_session, origin):
    assert await refused(session=alices_session, origin=origin)


def test_an_origin_without_a_port_means_the_usual_one():
    assert same_origin([(b"host", b"localhost"), (b"origin", b"https://localhost:443")])
    assert same_origin([(b"host", b"LOCALHOST:80"), (b"origin", b"http://localhost")])
    assert same_origin([(b"host", b"[::1]:8000"), (b"origin", b"http://[::1]:8000")])


def test_a_host_that_is_not_ours_or_doubled_is_refused():
    assert not same_origin([(b"host", b"evil.example"), (b"origin", b"http://evil.example")])
    assert not same_origin([(b"host", b"localhost"), (b"host", b"a"), (b"origin", b"http://localhost")])


async def test_without_a_session_a_socket_is_refused(hub, team):
    assert await refused()
    assert await refused(session="made-up")


async def test_a_foreign_team_and_no_team_at_all_are_refused_alike(hub, other_team, alices_session):
    assert await refused(path="/ws/live/?team=solar", session=alices_session)
    assert await refused(path="/ws/live/?team=nobody", session=alices_session)
    assert await refused(path="/ws/live/", session=alices_session)
    assert len(hub) == 0


async def test_an_administrator_watches_any_team_and_all_of_them(hub, other_team, administrators_session):
    for path in ("/ws/live/?team=solar", "/ws/live/"):
        socket = await opened(path=path, session=administrators_session)
        await socket.leaves()


async def test_an_unknown_path_is_refused_and_is_no_exception(hub, alices_session):
    assert await refused(path="/ws/elsewhere/", session=alices_session)


async def test_where_no_frames_are_served_the_socket_is_told_so(team, alices_session):
    socket = await opened(session=alices_session)
    assert await socket.receive_output(5) == {
        "type": "websocket.close",
        "code": live.TRY_LATER,
        "reason": "This process serves no live frames.",
    }
    await socket.leaves()


async def test_signing_out_closes_the_sockets_at_once(hub, alice, alices_session):
    socket = await opened(session=alices_session)
    client = Client()
    client.cookies[settings.SESSION_COOKIE_NAME] = alices_session
    await sync_to_async(client.logout)()

    assert await closed_with(socket) == live.RIGHTS_CHANGED
    await socket.leaves()
    assert await refused(session=alices_session)


async def test_leaving_a_team_closes_the_sockets_at_once(hub, alice, alices_session):
    socket = await opened(session=alices_session)
    await sync_to_async(Membership.objects.all().delete)()
    await asyncio.to_thread(rights_changed.send, sender=Membership, user_id=alice.pk)

    assert await closed_with(socket) == live.RIGHTS_CHANGED
    await socket.leaves()
    assert await refused(session=alices_session)


@pytest.mark.parametrize(("field", "value"), [("password", "another"), ("is_active", False)])
async def test_a_changed_password_throws_out_whoever_is_in(hub, alice, alices_session, field, value):
    socket = await opened(session=alices_session)
    setattr(alice, field, value)
    await sync_to_async(alice.save)()

    assert await closed_with(socket) == live.RIGHTS_CHANGED
    await socket.leaves()


async def test_signing_in_elsewhere_closes_nothing(hub, alice, alices_session):
    socket = await opened(session=alices_session)
    await socket.hears()
    await sync_to_async(alice.save)(update_fields=["last_login"])

    hub.publish(Frame(NOW))
    assert (await socket.hears())["id"] == NOW
    await socket.leaves()


async def test_somebody_elses_change_closes_nothing(hub, alice, administrator, alices_session):
    socket = await opened(session=alices_session)
    await socket.hears()
    await asyncio.to_thread(rights_changed.send, sender=Membership, user_id=administrator.pk)

    hub.publish(Frame(NOW))
    assert (await socket.hears())["id"] == NOW
    await socket.leaves()


async def test_a_socket_that_talks_is_closed(hub, alices_session):
    socket = await opened(session=alices_session)
    await socket.send_input({"type": "websocket.receive", "text": "hello"})

    assert await closed_with(socket) == 1008
    await socket.leaves()


async def test_a_person_who_was_switched_off_is_refused(hub, alice, alices_session):
    alice.is_active = False
    await sync_to_async(alice.save)()
    assert await refused(session=alices_session)


@pytest.mark.django_db(transaction=True)
def test_a_session_that_ended_while_its_socket_was_opened_watches_nothing(alice, alices_session):
    assert _team_to_watch(alice.pk, alices_session, "hydro") == alice.teams.get().pk
    SessionStore(alices_session).delete()
    assert _team_to_watch(alice.pk, alices_session, "hydro") is None


@contextlib.asynccontextmanager
async def administrators_browser(served):
    """A signed-in client of the real server, with the form token that its pages carry."""
    headers = {"Origin": served.origin, "Referer": served.origin}
    async with aiohttp.ClientSession(served.origin, headers=headers) as client:

        async def send(path, **fields):
            async with client.get("/accounts/login/" if fields else "/") as page:
                token = re.search(r'csrfmiddlewaretoken" value="([^"]+)', await page.text())[1]
            async with client.post(path, data={"csrfmiddlewaretoken": token, **fields}) as answer:
                assert answer.status == 200

        await send("/accounts/login/", login=ADMIN_EMAIL, password=ADMIN_PASSWORD)
        yield client, send


async def closing_of(socket):
    """The code that the server's closing message carries."""
    async with asyncio.timeout(5):
        while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
            pass
        return message.data


async def test_the_real_server_closes_sockets_at_once_whether_or_not_they_say_anything(served):
    async with administrators_browser(served) as (client, send):
        socket = await client.ws_connect("/ws/live/")
        await send("/accounts/logout/")
        assert await closing_of(socket) == live.RIGHTS_CHANGED

    async with administrators_browser(served) as (client, _):
        socket = await client.ws_connect("/ws/live/")
        stopping = asyncio.create_task(asyncio.to_thread(served.stop))
        # Granian, told to stop in the same moment, may be quicker to drop the connection.
        assert await closing_of(socket) in (live.GOING_AWAY, None)
        assert await stopping == 0
