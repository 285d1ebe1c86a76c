from datetime import timedelta

import pytest
from django.utils import timezone

from accounts import notices, services
from accounts.models import IdempotentAnswer, KeySecret, KeyUse, Outbox, Team, User
from dashboard.celery import SCHEDULE_S, app
from gateway import tasks

NOW = timezone.now()


@pytest.fixture
def alice(db) -> User:
    return User.objects.create_user("alice@example.com")


@pytest.fixture
def team(alice: User) -> Team:
    return services.create_team("Search", alice)


@pytest.fixture
def api_key(team, alice):
    return services.create_key(team, "web", alice)[0]


def uses(secret: KeySecret, days: int) -> KeyUse:
    at = NOW - timedelta(days=days)
    return KeyUse.objects.create(secret=secret, address="10.0.0.1", first_used_at=at, last_used_at=at)


def test_every_scheduled_task_is_there():
    app.loader.import_default_modules()
    assert set(SCHEDULE_S) <= set(app.tasks)


@pytest.mark.django_db(transaction=True)
def test_what_is_due_is_reminded_of_and_delivered(team, alice, mailoutbox):
    key, _ = services.create_key(team, "web", alice, NOW + timedelta(days=2))
    key.created_at = NOW - timedelta(days=30)
    key.save()

    for _ in range(2):
        tasks.remind()
        tasks.deliver_outbox()

    [mail] = mailoutbox
    assert mail.to == [alice.email]
    assert mail.subject == "Penstock: The API key web of Search expires within 3 days"


def test_old_answers_go(alice):
    for hours in (23, 25):
        row = IdempotentAnswer.objects.create(user=alice, idempotency_key=str(hours), request_digest="")
        IdempotentAnswer.objects.filter(pk=row.pk).update(created_at=NOW - timedelta(hours=hours))

    assert tasks.tidy_up(NOW) == 1

    assert IdempotentAnswer.objects.get().idempotency_key == "23"


@pytest.mark.parametrize("ending", ["sent_at", "given_up_at"])
def test_messages_go_when_they_were_over_for_longer_than_a_month(db, ending):
    for days in (0, 31, 41):
        notices.mail("dora@example.com", str(days), "…", "greeting", str(days))
        Outbox.objects.filter(dedupe=str(days)).update(**{ending: NOW - timedelta(days=days)})

    assert tasks.tidy_up(NOW) == 1

    assert set(Outbox.objects.values_list("dedupe", flat=True)) == {"0", "31"}


def test_a_message_that_waits_stays(db):
    notices.mail("dora@example.com", "Hello", "…", "greeting", "greeting")
    Outbox.objects.update(created_at=NOW - timedelta(days=400))
    assert tasks.tidy_up(NOW) == 0


def test_programs_go_90_days_after_their_secret_ended(api_key, alice):
    old = api_key.secrets.get()
    new, _ = services.rotate_key(api_key, alice)
    old.ends_at = NOW - timedelta(days=91)
    old.save()
    uses(old, 92)
    kept = uses(new, 200)

    assert tasks.tidy_up(NOW) == 1

    assert KeyUse.objects.get() == kept


@pytest.mark.parametrize(("days", "gone"), [(89, 0), (91, 1)])
def test_programs_go_90_days_after_their_key_was_revoked(api_key, days, gone):
    uses(api_key.secrets.get(), 100)
    api_key.revoked_at = NOW - timedelta(days=days)
    api_key.save()
    assert tasks.tidy_up(NOW) == gone
    assert KeyUse.objects.count() == 1 - gone


def test_tidying_is_a_task(alice):
    IdempotentAnswer.objects.create(user=alice, idempotency_key="1", request_digest="")
    IdempotentAnswer.objects.update(created_at=NOW - timedelta(days=2))
    tasks.tidy()
    assert not IdempotentAnswer.objects.exists()
