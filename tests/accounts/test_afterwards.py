import logging

import pytest
from django.core import mail
from django.test import Client

from accounts.models import User
from tests.accounts.answers import Server

RESET = "/accounts/password/reset/"


@pytest.fixture
def alice(db):
    return User.objects.create_user("alice@example.com", "a long enough password 1", language="ja")


def test_a_forgotten_password_is_answered_before_its_mail_is_sent(alice):
    server = Server()

    answer = server.answer(server.form(RESET, email=alice.email))
    assert answer.status_code == 302
    assert mail.outbox == []

    server.let_go(answer)
    assert [message.to for message in mail.outbox] == [[alice.email]]


@pytest.mark.parametrize("email", ["alice@example.com", "nobody@example.com"])
def test_a_mail_server_that_is_away_tells_nobody_who_has_an_account(alice, email, settings, caplog):
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 9  # nothing listens there

    with caplog.at_level(logging.WARNING, "accounts.afterwards"):
        answer = Client().post(RESET, {"email": email})

    assert (answer.status_code, answer["Location"]) == (302, f"{RESET}done/")
    refused = ["a mail could not be sent: ConnectionRefusedError"] if email == alice.email else []
    assert [record.message for record in caplog.records] == refused
