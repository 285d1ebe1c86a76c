import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from accounts import keys, services
from accounts.models import ApiKey, KeySecret


@pytest.fixture
def key(team, alice) -> ApiKey:
    return services.create_key(team, "web", alice)[0]


def test_a_rotated_key_keeps_its_id_and_gets_a_new_secret(key, alice, audited, heard, committing):
    (old,) = key.secrets.all()
    with committing():
        new, text = services.rotate_key(key, by=alice)

    assert keys.take_apart(text).public_id == new.public_id != old.public_id
    assert new.ends_at is None
    old.refresh_from_db()
    left = old.ends_at - timezone.now()
    assert timedelta(hours=23, minutes=59) < left <= timedelta(hours=24)
    assert heard == ["changed"]
    (event,) = audited("key.rotated")
    assert (event.before, event.subject_id) == ({"secret": str(old)}, str(key.pk))
    assert event.after == {
        "secret": str(new),
        "earlier_one_ends_at": old.ends_at.isoformat(),
        "by": alice.email,
    }


def test_without_an_overlap_the_old_secret_ends_at_once(key, alice):
    (old,) = key.secrets.all()
    services.rotate_key(key, by=alice, overlap=timedelta(0))
    old.refresh_from_db()
    assert old.ends_at <= timezone.now()


@pytest.mark.parametrize("overlap", [timedelta(seconds=-1), timedelta(days=30, seconds=1)])
def test_an_overlap_lasts_from_0_to_30_days(key, alice, overlap):
    with pytest.raises(services.WrongValue, match="from 0 to 30 days"):
        services.rotate_key(key, by=alice, overlap=overlap)
    assert KeySecret.objects.count() == 1


def test_rotating_again_keeps_each_earlier_secret_until_its_own_end(key, alice):
    first = key.secrets.get()
    second, _ = services.rotate_key(key, by=alice, overlap=timedelta(days=3))
    first.refresh_from_db()
    ends_at = first.ends_at
    third, _ = services.rotate_key(key, by=alice, overlap=timedelta(hours=1))

    first.refresh_from_db()
    second.refresh_from_db()
    assert first.ends_at == ends_at
    assert second.ends_at < ends_at
    assert third.ends_at is None


def test_an_overlap_is_extended_from_today_by_30_days_at_most(key, alice, audited):
    old = key.secrets.get()
    services.rotate_key(key, by=alice, overlap=timedelta(hours=1))
    until = timezone.now() + timedelta(days=29)

    services.extend_overlap(old, until)

    old.refresh_from_db()
    assert old.ends_at == until
    (event,) = audited("key.overlap_extended")
    assert event.after == {"secret": str(old), "ends_at": until.isoformat()}
    for wrong in (timezone.now(), timezone.now() + timedelta(days=31)):
        with pytest.raises(services.WrongValue, match="next 30 days"):
            services.extend_overlap(old, wrong)


def test_an_overlap_is_ended_at_once_and_stays_ended(key, alice, audited, heard, committing):
    old = key.secrets.get()
    services.rotate_key(key, by=alice)
    with committing():
        services.end_overlap(old)
    old.refresh_from_db()
    assert old.ends_at <= timezone.now()
    assert heard == ["changed"]
    assert len(audited("key.overlap_ended")) == 1
    with pytest.raises(services.NotOverlapping, match="stays ended"):
        services.extend_overlap(old, timezone.now() + timedelta(hours=1))
    with pytest.raises(services.NotOverlapping, match="stays ended"):
        services.end_overlap(old)


def test_the_current_secret_has_no_overlap(key):
    current = key.secrets.get()
    with pytest.raises(services.NotOverlapping, match="current secret"):
        services.end_overlap(current)
    with pytest.raises(services.NotOverlapping, match="current secret"):
        services.extend_overlap(current, timezone.now() + timedelta(hours=1))


def test_a_revoked_key_is_not_rotated_nor_its_overlap_extended(key, alice):
    old = key.secrets.get()
    services.rotate_key(key, by=alice)
    services.revoke_key(key, by=alice)
    with pytest.raises(services.AlreadyRevoked):
        services.rotate_key(key, by=alice)
    with pytest.raises(services.AlreadyRevoked):
        services.extend_overlap(old, timezone.now() + timedelta(hours=1))
    assert KeySecret.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_of_many_rotations_at_once_one_secret_is_current(key, alice):
    together = threading.Barrier(6)

    def rotate(_: int) -> str:
        try:
            together.wait(10)
            return services.rotate_key(ApiKey.objects.get(pk=key.pk), by=alice)[1]
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        shown = list(pool.map(rotate, range(6)))
    assert {keys.take_apart(text).public_id for text in shown} < set(
        key.secrets.values_list("public_id", flat=True)
    )
    assert key.secrets.count() == 7
    assert key.secrets.filter(ends_at=None).count() == 1


def test_the_database_holds_a_key_to_one_current_secret(key):
    with pytest.raises(IntegrityError), transaction.atomic():
        KeySecret.objects.create(key=key, public_id="0" * 12, digest=b"", pepper_id="x")
