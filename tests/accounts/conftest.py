"""Alice owns the team, Bob is a member, Vera looks on, Charlie is not in it, Ada is the administrator."""

import dataclasses
from collections.abc import Iterator

import pytest
from django.core.cache import cache
from django.test import Client

from accounts import services
from accounts.models import AuditEvent, Team, User
from accounts.signals import changed, rights_changed

PASSWORD = "a long enough password 1"


@pytest.fixture(autouse=True)
def _fresh_rate_limits():
    cache.clear()


@pytest.fixture(autouse=True)
def _cheap_password_hashes(settings):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def alice(db) -> User:
    return User.objects.create_user("alice@example.com", PASSWORD)


@pytest.fixture
def bob(db) -> User:
    return User.objects.create_user("bob@example.com", PASSWORD)


@pytest.fixture
def vera(db) -> User:
    return User.objects.create_user("vera@example.com", PASSWORD)


@pytest.fixture
def charlie(db) -> User:
    return User.objects.create_user("charlie@example.com", PASSWORD)


@pytest.fixture
def ada(db) -> User:
    return User.objects.create_superuser("ada@example.com", PASSWORD)


@pytest.fixture
def team(alice, bob, vera) -> Team:
    made = services.create_team("Search", alice)
    services.add_member(made, bob, "member")
    services.add_member(made, vera, "viewer")
    return made


@pytest.fixture
def as_(db):
    """A browser in which somebody is signed in."""

    def browser(user: User) -> Client:
        client = Client()
        client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
        return client

    return browser


@pytest.fixture
def usual_limits(settings):
    """The rate limits that teams and keys begin with outside tests."""
    settings.ENV = dataclasses.replace(
        settings.ENV,
        key_requests_per_minute=100,
        team_requests_per_minute=500,
        team_tokens_per_minute=100_000,
    )


@pytest.fixture
def heard() -> Iterator[list[object]]:
    """What went up as news: `changed`, or the id of the person whose rights changed."""
    news: list[object] = []

    def on_change(**_: object) -> None:
        news.append("changed")

    def on_rights(user_id: int, **_: object) -> None:
        news.append(user_id)

    changed.connect(on_change)
    rights_changed.connect(on_rights)
    yield news
    changed.disconnect(on_change)
    rights_changed.disconnect(on_rights)


@pytest.fixture
def committing(django_capture_on_commit_callbacks):
    return lambda: django_capture_on_commit_callbacks(execute=True)


@pytest.fixture
def audited(db):
    """The audit so far, oldest first: who did what to which, before and after."""

    def read(action: str = "") -> list[AuditEvent]:
        events = AuditEvent.objects.order_by("id")
        return list(events.filter(action=action) if action else events)

    return read
