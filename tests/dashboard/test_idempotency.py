"""A change that is asked for twice is made once, also where the first asking came to a bad end."""

import threading
from datetime import timedelta

import pytest
from cryptography.fernet import Fernet
from django.db import connection
from django.utils import timezone

from accounts.models import IdempotentAnswer, Team, User
from dashboard.idempotency import KEPT_FOR, UNDER_WAY_FOR, Answer, Refused, digest_of, once
from tests.served import eventually

KEYS = [Fernet.generate_key().decode()]
pytestmark = pytest.mark.django_db


@pytest.fixture
def alice():
    return User.objects.create_user("alice@example.com")


class Making:
    """A change that can be counted."""

    def __init__(self, status=201):
        self.times = 0
        self.status = status

    def __call__(self):
        self.times += 1
        Team.objects.create(name=f"team {self.times}", slug=f"team-{self.times}")
        return Answer(self.status, b"made %d" % self.times)


def ask(user, do, key="k", digest="d", now=None, keys=KEYS):
    return once(user, key, digest, now or timezone.now(), keys, do)


def test_the_second_asking_gets_the_first_answer(alice):
    making = Making()

    first, second = ask(alice, making), ask(alice, making)

    assert (first.body, second.body, making.times) == (b"made 1", b"made 1", 1)
    assert (first.is_repeated, second.is_repeated) == (False, True)


def test_another_request_with_the_key_is_refused(alice):
    ask(alice, Making())

    with pytest.raises(Refused, match="another request") as why:
        ask(alice, Making(), digest="other")
    assert why.value.status == 422


def test_a_refusal_takes_back_what_was_written_and_is_not_kept(alice):
    refused = ask(alice, Making(status=409))

    assert refused.status == 409
    assert not Team.objects.exists()
    assert not IdempotentAnswer.objects.exists()
    assert ask(alice, Making()).status == 201


def test_an_error_takes_back_what_was_written_and_is_not_kept(alice):
    def fail():
        Making()()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask(alice, fail)
    assert not Team.objects.exists()
    assert ask(alice, Making()).status == 201


def test_after_a_day_the_key_is_free(alice):
    making = Making()
    ask(alice, making)

    ask(alice, making, digest="other", now=timezone.now() + KEPT_FOR + timedelta(seconds=1))

    assert making.times == 2
    assert IdempotentAnswer.objects.count() == 1


def test_while_the_first_is_under_way_the_second_is_told_so(alice):
    IdempotentAnswer.objects.create(user=alice, idempotency_key="k", request_digest="d")

    with pytest.raises(Refused, match="under way") as why:
        ask(alice, Making())
    assert why.value.status == 409


def test_what_a_killed_process_began_can_be_asked_again(alice):
    """It changed nothing: the change and its answer are written together."""
    IdempotentAnswer.objects.create(user=alice, idempotency_key="k", request_digest="d")

    answer = ask(alice, Making(), now=timezone.now() + UNDER_WAY_FOR + timedelta(seconds=1))

    assert (answer.status, answer.is_repeated) == (201, False)


def test_a_first_asking_that_took_too_long_changes_nothing(alice):
    """The second has begun meanwhile; both would else be done."""

    def slow():
        later = timezone.now() + UNDER_WAY_FOR + timedelta(seconds=1)
        assert IdempotentAnswer.objects.filter(created_at__lt=later).delete()[0] == 1
        return Making()()

    with pytest.raises(Refused, match="took too long"):
        ask(alice, slow)
    assert not Team.objects.exists()


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb", "\x7f"])
def test_a_key_is_printable_text(alice, key):
    with pytest.raises(Refused) as why:
        ask(alice, Making(), key=key)
    assert why.value.status == 422


def test_an_answer_is_still_shown_after_the_servers_keys_were_rotated(alice):
    ask(alice, Making())
    newer = Fernet.generate_key().decode()

    assert ask(alice, Making(), keys=[newer, *KEYS]).body == b"made 1"
    with pytest.raises(Refused, match="can no longer be shown"):
        ask(alice, Making(), keys=[newer])


def test_what_makes_two_requests_the_same():
    same = digest_of("POST", "/api/teams", b"{}")

    others = [("PUT", "/api/teams", b"{}"), ("POST", "/api/team", b"{}"), ("POST", "/api/teams", b"{ }")]
    assert digest_of("POST", "/api/teams", b"{}") == same
    assert same not in {digest_of(*each) for each in others}


@pytest.mark.django_db(transaction=True)
def test_of_many_at_once_one_is_done(alice):
    done, told = [], []

    def asks():
        try:
            told.append(ask(alice, lambda: done.append(1) or Making()()).body)
        except Refused as why:
            told.append(why.status)
        finally:
            connection.close()

    threads = [threading.Thread(target=asks) for _ in range(8)]
    for each in threads:
        each.start()
    eventually(lambda: not any(each.is_alive() for each in threads))

    assert len(done) == 1
    assert set(told) <= {b"made 1", 409}
    assert len(told) == 8
