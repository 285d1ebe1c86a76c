import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from django.db import connections

from accounts import services, uses
from accounts.models import KeySecret, KeyUse
from accounts.uses import Uses

DAY_S = 86400.0
BEGAN_S = 1_900_000_000.0

pytestmark = pytest.mark.django_db


@pytest.fixture
def secret(team, alice) -> KeySecret:
    key, _ = services.create_key(team, "web", alice)
    return key.secrets.get()


def programs(secret: KeySecret) -> dict[tuple[str, str], int]:
    return {(each.address, each.user_agent): each.uses for each in secret.programs.all()}


def moment(at_s: float) -> datetime:
    return datetime.fromtimestamp(at_s, UTC)


def test_programs_are_told_apart_by_address_and_name(secret):
    gathered = Uses()
    gathered.add(secret.pk, "192.0.2.1", "curl/8", BEGAN_S)
    gathered.add(secret.pk, "192.0.2.1", "curl/8", BEGAN_S + 2)
    gathered.add(secret.pk, "192.0.2.1", "python", BEGAN_S + 1)
    gathered.add(secret.pk, "192.0.2.2", "curl/8", BEGAN_S + 3)
    gathered.flush()

    assert programs(secret) == {
        ("192.0.2.1", "curl/8"): 2,
        ("192.0.2.1", "python"): 1,
        ("192.0.2.2", "curl/8"): 1,
    }
    secret.refresh_from_db()
    assert (secret.uses, secret.last_used_from, secret.last_used_at) == (4, "192.0.2.2", moment(BEGAN_S + 3))


def test_later_flushes_add_up(secret):
    gathered = Uses()
    for number in range(3):
        gathered.add(secret.pk, "192.0.2.1", "curl/8", BEGAN_S + number)
        gathered.flush()
    (program,) = secret.programs.all()
    assert (program.uses, program.first_used_at, program.last_used_at) == (
        3,
        moment(BEGAN_S),
        moment(BEGAN_S + 2),
    )


def test_two_processes_add_up_and_the_latest_use_stays_the_latest(secret):
    ours, theirs = Uses(), Uses()
    ours.add(secret.pk, "192.0.2.1", "curl/8", BEGAN_S)
    theirs.add(secret.pk, "192.0.2.1", "curl/8", BEGAN_S + 60)
    theirs.flush()
    ours.flush()
    secret.refresh_from_db()
    assert (secret.uses, secret.last_used_at) == (2, moment(BEGAN_S + 60))
    assert secret.programs.get().last_used_at == moment(BEGAN_S + 60)


def test_programs_beyond_the_bound_count_under_their_secret_alone(secret):
    gathered = Uses(at_most=2)
    for number in range(5):
        gathered.add(secret.pk, "192.0.2.1", f"bot {number}", BEGAN_S)
    gathered.flush()
    assert programs(secret) == {("192.0.2.1", "bot 0"): 1, ("192.0.2.1", "bot 1"): 1}
    secret.refresh_from_db()
    assert secret.uses == 5


def test_a_client_with_ever_new_names_cannot_fill_the_database(secret):
    gathered = Uses()
    for number in range(uses.PROGRAMS_AT_MOST + 30):
        gathered.add(secret.pk, "192.0.2.1", f"bot {number}", BEGAN_S)
    gathered.flush()
    assert secret.programs.count() == uses.PROGRAMS_AT_MOST

    gathered.add(secret.pk, "192.0.2.1", "bot 0", BEGAN_S + DAY_S + 1)
    gathered.add(secret.pk, "192.0.2.1", "newcomer", BEGAN_S + DAY_S + 1)
    gathered.flush()
    assert ("192.0.2.1", "newcomer") not in programs(secret)
    gathered.add(secret.pk, "192.0.2.1", "newcomer", BEGAN_S + DAY_S + 2)
    gathered.flush()
    assert programs(secret) == {("192.0.2.1", "bot 0"): 2, ("192.0.2.1", "newcomer"): 1}


def test_what_is_too_long_is_cut(secret):
    gathered = Uses()
    gathered.add(secret.pk, "192.0.2.1", "x" * 10_000, BEGAN_S)
    gathered.flush()
    assert programs(secret) == {("192.0.2.1", "x" * 200): 1}


def test_uses_of_a_secret_that_is_gone_hold_up_nobody(secret):
    gathered = Uses()
    gathered.add(secret.pk + 1, "192.0.2.1", "curl/8", BEGAN_S)
    gathered.add(secret.pk, "192.0.2.1", "curl/8", BEGAN_S)
    gathered.flush()
    assert KeyUse.objects.count() == 1
    assert repr(gathered) == "<Uses of 0 programs to write>"


@pytest.mark.django_db(transaction=True)
def test_no_use_is_lost_between_a_flush_and_the_calls_that_go_on(secret):
    gathered, over = Uses(), threading.Event()

    def keep_flushing() -> None:
        try:
            while not over.is_set():
                gathered.flush()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        flushing = pool.submit(keep_flushing)
        for _ in range(20_000):
            gathered.add(secret.pk, "192.0.2.1", "curl/8", BEGAN_S)
        over.set()
        flushing.result()
    gathered.flush()
    secret.refresh_from_db()
    assert secret.uses == 20_000
    assert programs(secret) == {("192.0.2.1", "curl/8"): 20_000}
