"""On whose behalf a request changes something, and from where, as the audit will say it."""

import dataclasses

import pytest
from django.contrib.auth.models import AnonymousUser
from django.http import HttpResponse
from django.test import RequestFactory

from accounts.actor import SYSTEM, Actor, actor
from accounts.models import User
from dashboard.access import NOT_SIGNED_IN, Acting

pytestmark = pytest.mark.django_db


def acting(user, **meta):
    """Who acts while a page of this request is made."""
    request = RequestFactory().get("/", **meta)
    request.user = user
    seen = []
    Acting(lambda _: seen.append(actor()) or HttpResponse())(request)
    assert actor() == SYSTEM  # nobody acts any more
    return seen[0]


def test_a_page_acts_for_who_is_signed_in():
    alice = User.objects.create_user("alice@example.com")

    who = acting(alice, HTTP_USER_AGENT="Firefox", REMOTE_ADDR="198.51.100.7")

    assert who == Actor("person", "alice@example.com", alice.pk, "198.51.100.7", "Firefox")


def test_a_stranger_acts_as_nobody_from_somewhere():
    who = acting(AnonymousUser(), REMOTE_ADDR="198.51.100.7")

    assert (who.name, who.user_id, who.address) == (NOT_SIGNED_IN, None, "198.51.100.7")


def test_what_a_client_says_of_its_address_is_believed_of_trusted_proxies_alone(settings):
    forged = {"HTTP_X_FORWARDED_FOR": "203.0.113.9", "REMOTE_ADDR": "10.0.0.1"}

    assert acting(AnonymousUser(), **forged).address == "10.0.0.1"
    settings.ENV = dataclasses.replace(settings.ENV, trusted_proxies=("10.0.0.0/8",))
    assert acting(AnonymousUser(), **forged).address == "203.0.113.9"


def test_an_error_ends_the_acting_too():
    def fail(_):
        raise ZeroDivisionError

    request = RequestFactory().get("/")
    request.user = AnonymousUser()

    with pytest.raises(ZeroDivisionError):
        Acting(fail)(request)
    assert actor() == SYSTEM
