"""What stands around every page: what is logged, and how much of it."""

import logging
import secrets
import sys

import pytest
from django.conf import settings

from dashboard.access import OneLine, WithoutTraceback


def logged(level, **options):
    """A record as Django makes one of an exception, after the filter."""
    try:
        raise PermissionError("not for Charlie")
    except PermissionError:
        record = logging.LogRecord("django.request", level, __file__, 1, "Forbidden", None, sys.exc_info())
    assert WithoutTraceback(**options).filter(record)
    return record


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
def test_what_a_client_did_wrong_is_one_line(level):
    assert logged(level, below=logging.ERROR).exc_info is None


def test_what_we_did_wrong_keeps_its_traceback():
    assert logged(logging.ERROR, below=logging.ERROR).exc_info


def test_what_strangers_cause_at_will_is_one_line_whatever_its_level():
    assert logged(logging.ERROR).exc_info is None


@pytest.mark.django_db
def test_a_page_that_is_refused_is_one_line_in_the_log(client, caplog):
    """Through the real logger: a page that is not there raises, and Django logs it."""
    assert client.get("/no/such/page/").status_code == 404

    assert [each.exc_info for each in caplog.records if each.name == "django.request"] == [None]


def test_wrong_passwords_are_few_of_one_address_and_at_one_account():
    assert settings.ACCOUNT_RATE_LIMITS["login_failed"].split(",") == ["10/m/ip", "10/m/key", "100/h/key"]


def test_the_log_has_no_link_of_an_invitation():
    """A weak password or a missing CSRF token is logged with its path, and the invitation is still open."""
    secret = secrets.token_urlsafe(32)
    record = logging.LogRecord(
        "django.request", logging.WARNING, "", 0, "%s: %s", ("Bad", f"/invitations/{secret}/"), None
    )

    line = OneLine("%(message)s").format(record)

    assert line == "Bad: /invitations/…/"
