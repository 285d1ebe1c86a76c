"""Alice owns the team, Bob is a member, Vera looks on, Charlie is not in it, Ada is the administrator."""

import pytest
from django.core.cache import cache
from django.test import Client

from accounts import services
from accounts.models import Team, User

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
