"""Where one is signed in, what ends a session, and what renews it."""

from contextlib import contextmanager
from datetime import timedelta

import pytest
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.sessions.backends import db
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.utils import timezone

from accounts import services, sessions
from accounts.models import ApiKey, AuditEvent
from tests.accounts.conftest import PASSWORD

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:131.0) Gecko/20100101 Firefox/131.0"
CHROME = "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari/537.36"


def signed_in(user, agent=FIREFOX, address="192.0.2.1") -> Client:
    client = Client(headers={"User-Agent": agent}, REMOTE_ADDR=address)
    client.post("/accounts/login/", {"login": user.email, "password": PASSWORD})
    assert get_user(client) == user
    return client


def page_of(client: Client) -> str:
    return client.get("/account/").content.decode()


def is_in(client: Client) -> bool:
    return client.get("/keys/").status_code == 200


def row_of(client: Client) -> UserSession:
    return UserSession.objects.get(session_key=client.session.session_key)


def test_each_browser_is_listed_with_address_and_the_own_one_first(alice, bob):
    here, _, _ = signed_in(alice), signed_in(alice, CHROME, "192.0.2.2"), signed_in(bob, CHROME, "192.0.2.3")

    listed = sessions.signed_in(alice, here.session.session_key)

    assert [(each.browser, each.address, each.is_this) for each in listed] == [
        ("Firefox on Linux", "192.0.2.1", True),
        ("Chrome on Windows", "192.0.2.2", False),
    ]
    page = page_of(here)
    assert page.count("This browser") == 1
    assert "Chrome on Windows" in page
    assert "192.0.2.3" not in page


def test_one_is_ended_and_the_others_go_on(alice):
    here, there, elsewhere = (signed_in(alice) for _ in range(3))

    assert here.post(f"/account/sessions/{row_of(there).pk}/end/")["Location"] == "/account/#sessions"

    assert [is_in(each) for each in (here, there, elsewhere)] == [True, False, True]
    assert AuditEvent.objects.filter(action="session.ended", subject_name="Firefox on Linux").count() == 1


def test_all_others_are_ended(alice, bob):
    here, there, elsewhere, bobs = (
        signed_in(alice),
        signed_in(alice),
        signed_in(alice, CHROME),
        signed_in(bob),
    )

    here.post("/account/sessions/end-others/")

    assert "2 other browsers are signed out" in page_of(here)
    assert [is_in(each) for each in (here, there, elsewhere, bobs)] == [True, False, False, True]


def test_nobody_ends_a_session_of_somebody_else(alice, bob, ada):
    alices = signed_in(alice)

    for other in (bob, ada):
        assert signed_in(other).post(f"/account/sessions/{row_of(alices).pk}/end/").status_code == 404
    assert is_in(alices)


def test_sessions_that_are_over_are_not_listed(alice):
    here, over, signed_out = (signed_in(alice) for _ in range(3))
    session = over.session
    session.set_expiry(timedelta(seconds=-1))
    session.save()
    signed_out.post("/accounts/logout/")

    assert len(sessions.signed_in(alice, here.session.session_key)) == 1


def test_sessions_of_an_earlier_password_are_not_listed(alice):
    signed_in(alice)
    alice.set_password("another long passphrase 2")
    alice.save()

    assert sessions.signed_in(alice, None) == []


def seen_before(client: Client) -> UserSession:
    """As if the sign-in were an hour ago."""
    session = client.session
    session[sessions.SIGNED_IN_S] -= 3600
    session.save()
    row = row_of(client)
    row.last_seen_at -= timedelta(hours=1)
    row.save()
    return row


def test_a_browser_is_noted_when_it_is_seen_but_not_with_every_page(alice):
    client = signed_in(alice)
    row = seen_before(client)

    client.get("/keys/", REMOTE_ADDR="192.0.2.9")
    row.refresh_from_db()
    assert timezone.now() - row.last_seen_at < timedelta(minutes=1)
    assert row.ip == "192.0.2.9"

    client.get("/keys/", REMOTE_ADDR="192.0.2.10")
    row.refresh_from_db()
    assert row.ip == "192.0.2.9"


def test_a_browser_that_signed_in_before_this_was_kept_is_noted_when_it_is_seen(alice):
    client = signed_in(alice)
    seen_before(client).delete()
    cache.clear()

    client.get("/keys/")

    assert row_of(client).user == alice


@pytest.mark.django_db(transaction=True)
def test_a_change_of_role_renews_the_session_with_the_next_page(alice, bob):
    team = services.create_team("Search", alice)
    client = signed_in(bob)
    before = client.session.session_key

    services.add_member(team, bob, "member")
    client.get("/words.js", headers={"Sec-Fetch-Mode": "no-cors"})
    assert client.session.session_key == before  # beside a page, its other parts still come with the old id

    assert is_in(client)
    assert client.session.session_key != before
    assert row_of(client).user == bob
    stale = Client()
    stale.cookies[settings.SESSION_COOKIE_NAME] = before
    assert not get_user(stale).is_authenticated

    renewed = client.session.session_key
    assert is_in(client)
    assert client.session.session_key == renewed


def test_whoever_ends_sessions_elsewhere_ends_keys_of_the_playground(alice, bob):
    team = services.create_team("Search", alice)
    services.add_member(team, bob, "member")
    here, there, elsewhere = signed_in(alice), signed_in(alice), signed_in(alice)

    for ask in (f"/account/sessions/{row_of(elsewhere).pk}/end/", "/account/sessions/end-others/"):
        of_bob, _ = services.open_playground(team, bob)
        there.post("/playground/search/key/")
        here.post(ask)
        assert list(ApiKey.objects.filter(revoked_at=None)) == [of_bob]
    assert not is_in(there)
    last = AuditEvent.objects.filter(action="key.revoked").latest("id")
    assert last.after["because"] == "alice@example.com was signed out of a browser"


class SessionStore(db.SessionStore):
    """Of a moment in which all sessions end as soon as one was read."""

    def load(self):
        read = super().load()
        Session.objects.all().delete()
        return read


def test_sessions_that_end_while_a_role_is_changed_stay_ended(alice, settings):
    """One of them after it was read, the other before."""
    signed_in(alice), signed_in(alice)
    settings.SESSION_ENGINE = __name__

    sessions.renew_soon(alice.pk)

    assert not Session.objects.exists()


@pytest.fixture
def read_only(db):
    """The database, for the code in it."""

    @contextmanager
    def held():
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA query_only = ON")
            try:
                yield
            finally:
                cursor.execute("PRAGMA query_only = OFF")

    return held


@pytest.mark.sqlite
def test_a_database_that_cannot_write_is_no_session_that_ended(alice, read_only):
    signed_in(alice)

    with read_only(), pytest.raises(UpdateError):
        sessions.renew_soon(alice.pk)
