"""An address is kept in lower case, and an administrator vouches for it."""

import pytest
from allauth.account.models import EmailAddress
from django.contrib.auth import authenticate
from django.db import IntegrityError
from django.utils import timezone

from accounts import services
from accounts.models import ApiKey, User
from tests.accounts.conftest import PASSWORD


def addresses(user: User) -> list[tuple[str, bool, bool]]:
    rows = EmailAddress.objects.filter(user=user)
    return [(row.email, row.verified, row.primary) for row in rows]


@pytest.mark.parametrize("make", [User.objects.create_user, User.objects.create_superuser])
def test_an_address_is_kept_in_lower_case_and_vouched_for(db, make):
    user = make("Ada@Example.COM", PASSWORD)
    assert user.email == "ada@example.com"
    assert addresses(user) == [("ada@example.com", True, True)]


def test_a_person_is_found_by_an_address_in_any_case(db):
    user = User.objects.create_user("Ada@Example.com", PASSWORD)
    assert authenticate(username="ADA@example.com", password=PASSWORD) == user


def test_a_changed_address_takes_the_place_of_the_old_one(alice):
    alice.email = "Alice@Example.org"
    alice.save(update_fields=["email"])
    alice.refresh_from_db()
    assert alice.email == "alice@example.org"
    assert addresses(alice) == [("alice@example.org", True, True)]


def test_signing_in_does_not_write_the_address_again(alice, django_assert_num_queries):
    alice.last_login = timezone.now()
    with django_assert_num_queries(1):  # the moment
        alice.save(update_fields=["last_login"])


def test_the_database_itself_refuses_a_capital_letter(alice):
    with pytest.raises(IntegrityError):
        User.objects.filter(pk=alice.pk).update(email="Alice@example.com")


def test_the_database_itself_refuses_a_priority_that_does_not_exist(team, alice):
    key, _ = services.create_key(team, "web", alice)
    with pytest.raises(IntegrityError):
        ApiKey.objects.filter(pk=key.pk).update(priority_ceiling="at once")
