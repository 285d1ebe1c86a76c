"""What a browser is told and what it may not do for another site's page (goal S8)."""

import os
import subprocess
import sys

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import transaction
from django.test import Client

from accounts import services, sessions
from accounts.models import Membership, User
from dashboard import live
from tests.dashboard.conftest import session_of
from tests.dashboard.test_access_matrix import (  # noqa: F401  (`world` is a fixture)
    OWN_ACCOUNT,
    PAGES,
    a_client,
    world,
)
from tests.dashboard.test_consumers import (  # noqa: F401  (`hub` is a fixture)
    closed_with,
    hub,
    opened,
)

ADDRESSES = {method: [name for name in PAGES if name.startswith(method)] for method in ("GET", "POST")}
DOOR = ["/accounts/login/", "/accounts/password/reset/", "/no/such/page/", "/styleguide/"]
WITH_KEYS = "^"
"""Of django-allauth's addresses that hold a key from a mail, which a stranger does not know."""


def own_account(world):  # noqa: F811
    paths = (each for each in OWN_ACCOUNT if not each.startswith(WITH_KEYS))
    return ["/accounts/" + each.replace("<int:pk>", str(world["passkey_id"])) for each in paths]


def addresses(method, world):  # noqa: F811
    return [name.partition(" ")[2].format(**world) for name in ADDRESSES[method]] + own_account(world)


def told(answer):
    """The rules that an answer lacks."""
    policy = {
        each.split(" ")[0]: each.split(" ")[1:] for each in answer["Content-Security-Policy"].split("; ")
    }
    rules = {
        "default-src": policy["default-src"] == ["'none'"],
        "scripts": policy["script-src"] == ["'self'"],
        "styles": policy["style-src"] == ["'self'"],
        "frame-ancestors": policy["frame-ancestors"] == ["'none'"],
        "nosniff": answer["X-Content-Type-Options"] == "nosniff",
        "no-store": "no-store" in answer["Cache-Control"],
        "opener": answer["Cross-Origin-Opener-Policy"] == "same-origin",
        "frames": answer["X-Frame-Options"] == "DENY",
    }
    return [name for name, is_kept in rules.items() if not is_kept]


def test_every_page_tells_the_browser_the_strict_rules(world):  # noqa: F811
    client = a_client()
    client.force_login(world["people"]["administrator"])
    lacking = {}
    for path in [*addresses("GET", world), *DOOR]:
        if path != "/words.js":  # words for everybody, and no page
            with transaction.atomic():
                lacking[path] = told(client.get(path))
                transaction.set_rollback(True)

    assert len(lacking) > 60
    assert {path: rules for path, rules in lacking.items() if rules} == {}


@pytest.mark.parametrize("headers", [{}, {"Origin": "https://elsewhere.example"}, {"Origin": "null"}])
def test_no_form_is_taken_from_another_site(world, headers):  # noqa: F811
    """Without our mark; and with one that was stolen, where the browser says from where it comes."""
    client = Client(enforce_csrf_checks=True, headers=headers)
    client.force_login(world["people"]["administrator"])
    client.get("/account/")
    mark = client.cookies[settings.CSRF_COOKIE_NAME].value if headers else ""
    taken = []
    for path in addresses("POST", world):
        answer = client.post(path, headers={"X-CSRFToken": mark})
        if answer.status_code != 403:
            taken.append((path, answer.status_code))

    assert taken == []


def test_the_same_form_from_our_own_page_is_taken(world):  # noqa: F811
    """Else the test above would pass with a mark that is always wrong."""
    client = Client(enforce_csrf_checks=True, headers={"Origin": "http://testserver"})
    client.force_login(world["people"]["owner"])
    client.get("/account/")
    mark = client.cookies[settings.CSRF_COOKIE_NAME].value

    assert client.post("/account/", {"name": "Alice"}, headers={"X-CSRFToken": mark}).status_code == 302


DEPLOYED = """
import django; django.setup()
from django.core.management import call_command
from django.test import Client
from accounts.models import User
call_command("check", "--deploy", "--fail-level", "INFO")
call_command("migrate", verbosity=0)
user = User.objects.create_user("alice@example.com", "a long enough password 1")
client = Client()
answer = client.get("/accounts/login/", secure=True)
form = {"login": user.email, "password": "a long enough password 1"}
signed_in = client.post("/accounts/login/", form, secure=True)
client.post("/language/", {"language": "ja"}, secure=True)
assert signed_in.status_code == 302
assert "max-age=31536000" in answer["Strict-Transport-Security"]
for cookie in client.cookies.values():
    print(cookie.key, *(cookie[each] or "-" for each in ("secure", "httponly", "path", "domain", "samesite")))
"""


def test_a_deployed_gateway_has_nothing_to_check_and_binds_its_cookies_to_the_host(tmp_path):
    environ = {
        "PATH": os.environ["PATH"],
        "DJANGO_SETTINGS_MODULE": "dashboard.settings",
        "VAR_DIR": str(tmp_path / "var"),
        "SECURE_COOKIES": "1",
        "ALLOWED_HOSTS": "testserver",
    }
    done = subprocess.run(
        [sys.executable, "-c", DEPLOYED],
        cwd=settings.BASE_DIR,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    cookies = dict(line.split(" ", 1) for line in done.stdout.splitlines() if line.startswith("_"))
    assert set(cookies) == {"__Host-sessionid", "__Host-csrftoken", "__Host-known_browser", "__Host-language"}
    assert set(cookies.values()) == {"True True / - Lax"}, cookies
    assert len(done.stdout.splitlines()) == len(cookies) + 1, done.stdout  # and the check's own line


@pytest.fixture
def bob(team) -> User:
    """A member."""
    bob = User.objects.create_user("bob@example.com")
    Membership.objects.create(user=bob, team=team, role=Membership.Role.MEMBER)
    return bob


@pytest.mark.parametrize(
    "change",
    [
        lambda alice, bob, team: services.set_role(team, bob, "viewer", alice),
        lambda alice, bob, team: services.remove_member(team, bob),
        lambda alice, bob, team: services.leave_team(team, bob),
        lambda alice, bob, team: services.add_member(services.create_team("Wind", alice), bob, "member"),
        lambda alice, bob, team: sessions.end_others(bob, None),
    ],
    ids=["role", "removed", "left", "another team", "ended session"],
)
async def test_a_change_of_what_one_may_see_closes_the_socket(hub, alice, bob, team, change):  # noqa: F811
    session = await sync_to_async(session_of)(bob)
    await sync_to_async(noted)(bob, session)
    socket = await opened(session=session)

    await sync_to_async(change)(alice, bob, team)

    assert await closed_with(socket) == live.RIGHTS_CHANGED  # which waits five seconds at most
    await socket.leaves()


def noted(user: User, session: str) -> None:
    """A page that this session opened."""
    client = Client()
    client.cookies[settings.SESSION_COOKIE_NAME] = session
    assert client.get("/account/").status_code == 200
