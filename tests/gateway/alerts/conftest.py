"""Alice owns the team, Bob is a member, Ada is the administrator; three channels lead to one receiver."""

import pytest
from django.core.cache import cache

from accounts import channels, services
from accounts.models import Channel, Team, User
from tests.gateway import receivers


@pytest.fixture(autouse=True)
def _no_tests_counted():
    cache.clear()


@pytest.fixture
def alice(db) -> User:
    return User.objects.create_user("alice@example.com")


@pytest.fixture
def bob(db) -> User:
    return User.objects.create_user("bob@example.com")


@pytest.fixture
def ada(db) -> User:
    return User.objects.create_superuser("ada@example.com")


@pytest.fixture
def team(alice, bob) -> Team:
    made = services.create_team("Search", alice)
    services.add_member(made, bob, "member")
    return made


@pytest.fixture
def receiver():
    with receivers.receiver() as made:
        yield made


@pytest.fixture
def slack(team, alice, receiver) -> Channel:
    return channels.add_channel(team, "slack", "#llm", f"{receiver.url}/services/T0/SECRET", alice)


@pytest.fixture
def webhook(team, alice, receiver) -> Channel:
    return channels.add_channel(team, "webhook", "Pager", f"{receiver.url}/hook", alice)


@pytest.fixture
def mail(team, alice) -> Channel:
    return channels.add_channel(team, "mail", "On call", "oncall@example.com, boss@example.com", alice)
