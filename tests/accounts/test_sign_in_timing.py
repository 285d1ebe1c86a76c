"""The time of a sign-in or a forgotten password must not tell who has an account (goal S11)."""

import gc
import random
import time

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.core import mail

from accounts.models import User
from tests.accounts.answers import Server
from tests.accounts.test_timing import MOST_T, welch_t, without_interruptions

PAIRS = 500
KNOWN, UNKNOWN = "alice@example.com", "nobody@example.com"


class QuickHasher(PBKDF2PasswordHasher):
    """A fiftieth of the usual work, so that whatever else differs weighs fifty times as much."""

    iterations = PBKDF2PasswordHasher.iterations // 50


class Asking:
    """A browser that is answered, and how long the answer takes: without what comes after it."""

    def __init__(self, path: str, field: str, **more: str) -> None:
        self.path, self.field, self.more = path, field, more
        self.server = Server()

    def took_ns(self, email: str) -> int:
        request = self.server.form(self.path, **{self.field: email, **self.more})
        began = time.perf_counter_ns()
        answer = self.server.answer(request)
        ended = time.perf_counter_ns()
        assert answer.status_code in (200, 302)
        self.server.let_go(answer)
        return ended - began


def t_of_tries(asking: Asking, pairs: int) -> float:
    """Of interleaved pairs, each in an order drawn by lot."""
    lots, took = random.Random(1), {KNOWN: [], UNKNOWN: []}
    asking.took_ns(KNOWN), asking.took_ns(UNKNOWN)  # what is made once is made
    gc.collect()
    gc.disable()
    try:
        for _ in range(pairs):
            for email in (KNOWN, UNKNOWN) if lots.random() < 0.5 else (UNKNOWN, KNOWN):
                took[email].append(asking.took_ns(email))
    finally:
        gc.enable()
    return welch_t(*without_interruptions(took[KNOWN], took[UNKNOWN]))


@pytest.mark.prove
@pytest.mark.django_db
def test_a_refused_sign_in_takes_as_long_for_a_known_address_as_for_an_unknown_one(settings, capsys):
    settings.PASSWORD_HASHERS = [f"{__name__}.{QuickHasher.__qualname__}"]
    settings.ACCOUNT_RATE_LIMITS = False
    User.objects.create_user(KNOWN, "a long enough password 1")
    assert_tells_nothing("sign-in", Asking("/accounts/login/", "login", password="wrong"), capsys)


@pytest.mark.prove
@pytest.mark.django_db
def test_a_forgotten_password_takes_as_long_for_a_known_address_as_for_an_unknown_one(settings, capsys):
    settings.ACCOUNT_RATE_LIMITS = False
    User.objects.create_user(KNOWN, "a long enough password 1")
    assert_tells_nothing("password reset", Asking("/accounts/password/reset/", "email"), capsys)
    assert {message.to[0] for message in mail.outbox} == {KNOWN}


def assert_tells_nothing(what: str, asking: Asking, capsys) -> None:
    # The best of three: one in 150,000 runs passes the bound by chance, and a busy machine tries harder.
    runs = [abs(t_of_tries(asking, PAIRS)) for _ in range(3)]
    with capsys.disabled():
        print(f"\n{what}: |t| {', '.join(f'{run:.2f}' for run in runs)} over {PAIRS:,} pairs each")
    assert min(runs) < MOST_T, runs
