from datetime import timedelta

import pytest
from django.conf import settings as configured
from django.utils import timezone

from accounts import keys, services, tokens
from accounts.authentication import WrongPeppers, check_peppers
from accounts.models import AccessToken

NEWER = "a newer pepper " * 3


@pytest.fixture
def made(alice) -> tuple[AccessToken, str]:
    return tokens.make_token(alice, "deploy", ["keys", "read"])


def test_a_token_opens_for_its_maker_with_its_scopes(made, alice):
    found = tokens.token_owner(made[1], timezone.now())
    assert (found.user, found.scopes) == (alice, ["read", "keys"])


def test_a_token_is_stored_as_a_digest_only(made, audited):
    _, text = made
    secret = keys.take_apart(text, keys.ACCESS_PREFIX).secret
    assert text.startswith("pat_")
    assert secret not in repr(AccessToken.objects.values().get()) + repr([e.__dict__ for e in audited()])
    assert bytes(AccessToken.objects.get().digest) == keys.digest(secret, configured.KEY_PEPPERS[0])


@pytest.mark.parametrize("text", ["", "pat_", "é" * 66, "\ud800" * 66, "x" * 100_000])
def test_garbage_opens_nothing_and_asks_nobody(db, text, django_assert_num_queries):
    with django_assert_num_queries(0):
        assert tokens.token_owner(text, timezone.now()) is None


def test_an_unknown_or_wrong_or_foreign_one_opens_nothing(made, team, alice):
    public_id = keys.take_apart(made[1], keys.ACCESS_PREFIX).public_id
    wrong = keys.Parts(public_id, keys.mint().secret, keys.ACCESS_PREFIX).text
    _, api_key = services.create_key(team, "web", alice)
    for text in (wrong, keys.mint(keys.ACCESS_PREFIX).text, api_key):
        assert tokens.token_owner(text, timezone.now()) is None
    assert AccessToken.objects.get().last_used_at is None


def test_a_revoked_token_opens_nothing_and_is_revoked_once(made):
    token, text = made
    tokens.revoke_token(token)
    assert tokens.token_owner(text, timezone.now()) is None
    with pytest.raises(services.AlreadyRevoked):
        tokens.revoke_token(token)


def test_a_token_stops_at_its_moment(alice):
    ends = timezone.now() + timedelta(hours=1)
    _, text = tokens.make_token(alice, "deploy", ["read"], ends)
    assert tokens.token_owner(text, ends - timedelta(microseconds=1))
    assert tokens.token_owner(text, ends) is None
    with pytest.raises(services.ExpiryPassed):
        tokens.make_token(alice, "deploy", ["read"], timezone.now())


def test_a_switched_off_account_opens_nothing(made, alice):
    alice.is_active = False
    alice.save()
    assert tokens.token_owner(made[1], timezone.now()) is None


@pytest.mark.parametrize("scopes", [[], ["everything"], ["read", "root"]])
def test_scopes_are_of_the_known_ones(alice, scopes):
    with pytest.raises(services.WrongValue) as refused:
        tokens.make_token(alice, "deploy", scopes)
    assert refused.value.field == "scopes"
    assert not AccessToken.objects.exists()


def test_the_last_use_is_written_once_a_minute(made, django_assert_num_queries):
    _, text = made
    now = timezone.now()
    with django_assert_num_queries(2):  # the token with its user, its use
        tokens.token_owner(text, now, "192.0.2.7")
    with django_assert_num_queries(1):  # the token with its user
        tokens.token_owner(text, now + timedelta(seconds=59), "192.0.2.8")
    tokens.token_owner(text, now + timedelta(seconds=60), "192.0.2.9")
    stored = AccessToken.objects.get()
    assert (stored.last_used_at, stored.last_used_from) == (now + timedelta(seconds=60), "192.0.2.9")


def test_a_token_moves_to_the_newest_pepper_when_it_is_used(made, settings):
    older = settings.KEY_PEPPERS
    settings.KEY_PEPPERS = (NEWER, *older)
    with pytest.raises(WrongPeppers):
        check_peppers((NEWER,))
    assert tokens.token_owner(made[1], timezone.now())
    settings.KEY_PEPPERS = (NEWER,)
    check_peppers((NEWER,))
    assert tokens.token_owner(made[1], timezone.now())


def test_a_token_whose_pepper_is_gone_opens_nothing(made, settings):
    settings.KEY_PEPPERS = (NEWER,)
    assert tokens.token_owner(made[1], timezone.now()) is None


def test_making_and_revoking_are_audited(made, audited):
    tokens.revoke_token(made[0])
    assert [event.action for event in audited()] == ["access_token.created", "access_token.revoked"]
    assert audited()[0].after["scopes"] == ["read", "keys"]
