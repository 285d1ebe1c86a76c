"""What is looked up first and written then, by two at the same moment. On both databases."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, transaction

from accounts import services, webhooks
from accounts.models import ApiKey, KeySecret, Membership, Quota, RateLimit, Team, User, Webhook
from accounts.turns import Turn, take_turn


def at_once(*work: Callable[[], object]) -> list[BaseException | None]:
    """Each in a thread of its own, begun together; how each failed."""
    meet = threading.Barrier(len(work))

    def run(do: Callable[[], object]) -> None:
        try:
            meet.wait(30)
            do()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(work)) as threads:
        return [each.exception(60) for each in [threads.submit(run, do) for do in work]]


def failures(found: list[BaseException | None]) -> list[type]:
    return [type(each) for each in found if each is not None]


@pytest.fixture
def alice(transactional_db) -> User:
    return User.objects.create_user("alice@example.com")


@pytest.fixture
def bob(transactional_db) -> User:
    return User.objects.create_user("bob@example.com")


@pytest.fixture
def team(alice, bob) -> Team:
    made = services.create_team("Hydro", alice)
    services.add_member(made, bob, "owner")
    return made


@pytest.mark.postgresql
def test_whose_turn_it_is_keeps_the_others_waiting(transactional_db):
    inside, waited = threading.Event(), []

    def second() -> None:
        inside.wait(30)
        with transaction.atomic():
            take_turn(Turn.TEAM_NAMES)
            waited.append("second")
        connection.close()

    thread = threading.Thread(target=second)
    with transaction.atomic():
        take_turn(Turn.TEAM_NAMES)
        thread.start()
        inside.set()
        with connection.cursor() as cursor:
            while True:
                cursor.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
                if cursor.fetchone():
                    break
        waited.append("first")
    thread.join(60)
    assert waited == ["first", "second"]


@pytest.mark.parametrize("number", range(3))
def test_of_two_teams_of_one_name_there_is_one(alice, bob, number):
    found = at_once(lambda: services.create_team("Solar", alice), lambda: services.create_team("SOLAR", bob))
    assert failures(found) == [services.NameTaken]
    assert Team.objects.filter(name__iexact="solar").count() == 1


def test_of_two_teams_renamed_alike_one_has_the_name(alice):
    one, other = services.create_team("One", alice), services.create_team("Other", alice)
    found = at_once(lambda: services.rename_team(one, "Solar"), lambda: services.rename_team(other, "solar"))
    assert failures(found) == [services.NameTaken]


@pytest.mark.parametrize("number", range(3))
def test_two_owners_cannot_both_leave(team, alice, bob, number):
    found = at_once(lambda: services.leave_team(team, alice), lambda: services.leave_team(team, bob))
    assert failures(found) == [services.LastOwner]
    assert Membership.objects.filter(team=team, role="owner").count() == 1


def test_two_rotations_leave_one_secret_without_an_end(team, alice):
    key, _ = services.create_key(team, "nightly", alice)
    found = at_once(*[lambda: services.rotate_key(ApiKey.objects.get(pk=key.pk), alice)] * 4)
    assert failures(found) == []
    assert KeySecret.objects.filter(key=key, ends_at=None).count() == 1
    assert KeySecret.objects.filter(key=key).count() == 5


def test_a_key_that_is_revoked_and_rotated_at_once_is_revoked(team, alice):
    key, _ = services.create_key(team, "nightly", alice)
    at_once(
        lambda: services.rotate_key(ApiKey.objects.get(pk=key.pk), alice),
        lambda: services.revoke_key(ApiKey.objects.get(pk=key.pk), alice),
    )
    assert ApiKey.objects.get(pk=key.pk).revoked_at is not None


def test_a_limit_that_two_set_at_once_is_one(team):
    before = RateLimit.objects.count()
    found = at_once(
        *(
            lambda amount=amount: services.set_rate_limit(
                Team.objects.get(), "tokens", amount, "gpt-4o", by_administrator=True
            )
            for amount in (5, 6)
        )
    )
    assert failures(found) == []
    assert RateLimit.objects.count() == before + 1


def test_a_quota_removed_and_changed_at_once_is_gone_or_made_anew(team):
    quota = services.set_quota(team, "requests", 10, by_administrator=True)
    found = at_once(
        lambda: services.remove_quota(Quota.objects.get(pk=quota.pk)),
        lambda: services.set_quota(Team.objects.get(), "requests", 20, by_administrator=True),
    )
    assert failures(found) == []
    assert set(Quota.objects.values_list("amount", flat=True)) <= {20}


def test_there_are_no_more_webhooks_than_there_may_be(team, alice):
    for number in range(webhooks.MOST_WEBHOOKS - 1):
        webhooks.add_webhook(team, f"https://example.com/{number}", alice)
    found = at_once(
        *[lambda: webhooks.add_webhook(Team.objects.get(), "https://example.com/last", alice)] * 3
    )
    assert failures(found) == [services.WrongValue] * 2
    assert Webhook.objects.count() == webhooks.MOST_WEBHOOKS


def test_many_changes_at_once_are_all_counted(team, alice):
    """Nobody waits in a circle: whoever changes something counts it last."""
    keys = [services.create_key(team, f"key {number}", alice)[0] for number in range(4)]
    found = at_once(
        *(lambda key=each: services.rotate_key(ApiKey.objects.get(pk=key.pk), alice) for each in keys),
        lambda: services.rename_team(Team.objects.get(), "Solar"),
        lambda: services.set_rate_limit(Team.objects.get(), "tokens", 7, by_administrator=True),
        lambda: services.create_team("Tide", alice),
    )
    assert failures(found) == []
