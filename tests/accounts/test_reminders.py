from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings

from accounts import services
from accounts.models import AccessToken, ApiKey, KeySecret, KeyUse, Outbox, Webhook
from accounts.reminders import days_reached, is_nearly_over, is_news, remind

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@pytest.mark.parametrize(
    ("began", "ends", "reached"),
    [
        (-30 * DAY, 15 * DAY, None),
        (-30 * DAY, 14 * DAY, 14),
        (-30 * DAY, 4 * DAY, 14),
        (-30 * DAY, 3 * DAY, 3),
        (-30 * DAY, DAY, 1),
        (-30 * DAY, timedelta(seconds=1), 1),
        (-30 * DAY, timedelta(0), None),
        (-HOUR, 2 * DAY, None),
        (-DAY, DAY, 1),
        (-HOUR, HOUR, None),
    ],
)
def test_the_tightest_share_of_days_is_told(began, ends, reached):
    assert days_reached(NOW + began, NOW + ends, NOW) == reached


@pytest.mark.parametrize(
    ("began", "ends", "nearly"),
    [
        (-11 * HOUR, 13 * HOUR, False),
        (-12 * HOUR, 12 * HOUR, True),
        (-10 * DAY, 25 * HOUR, False),
        (-10 * DAY, 24 * HOUR, True),
        (-10 * DAY, timedelta(0), False),
    ],
)
def test_an_overlap_is_nearly_over_in_its_last_day_and_its_second_half(began, ends, nearly):
    assert is_nearly_over(NOW + began, NOW + ends, NOW) is nearly


def test_what_is_made_for_a_day_is_no_news():
    assert not is_news(NOW, NOW + DAY)
    assert is_news(NOW, NOW + DAY + HOUR)


pytestmark = pytest.mark.django_db


def key_until(team, by, expires_at, name="web") -> ApiKey:
    key, _ = services.create_key(team, name, by)
    ApiKey.objects.filter(pk=key.pk).update(created_at=NOW - 60 * DAY, expires_at=expires_at)
    key.refresh_from_db()
    return key


def rotated(team, by, ends_at, replaced_at=NOW - 10 * DAY, last_used_at=None) -> KeySecret:
    """A key's old secret."""
    key, _ = services.create_key(team, "web", by)
    old = key.secrets.get()
    new, _ = services.rotate_key(key, by)
    KeySecret.objects.filter(pk=new.pk).update(created_at=replaced_at)
    KeySecret.objects.filter(pk=old.pk).update(ends_at=ends_at, last_used_at=last_used_at)
    old.refresh_from_db()
    return old


def used(secret, last_used_at, user_agent="openai-python/1.0", address="10.0.0.3") -> None:
    KeyUse.objects.create(
        secret=secret,
        address=address,
        user_agent=user_agent,
        first_used_at=last_used_at,
        last_used_at=last_used_at,
    )


def written() -> list[tuple[str, str]]:
    return [(each.event, each.email or each.webhook.url) for each in Outbox.objects.all()]


def test_owners_the_maker_and_webhooks_are_reminded_of_a_key(team, alice, bob, vera):
    Webhook.objects.create(team=team, url="https://ours", salt="x")
    key = key_until(team, bob, NOW + 14 * DAY)

    assert remind(NOW) == 3

    assert written() == [
        ("key.expires_soon", alice.email),
        ("key.expires_soon", bob.email),
        ("key.expires_soon", "https://ours"),
    ]
    message = Outbox.objects.last()
    assert message.subject == "The API key web of Search expires within 14 days"
    assert "expires on 6 December 2026, 12:00 UTC" in message.text
    assert f"{settings.PUBLIC_URL}/keys/{key.pk}/" in message.text
    assert message.data["days"] == 14
    assert message.data["expires_at"] == "2026-12-06T12:00:00+00:00"


def test_a_key_is_told_of_three_times_and_when_it_has_expired(team, alice):
    key_until(team, alice, NOW + 20 * DAY)
    told = [remind(NOW + hours * HOUR) for hours in range(0, 24 * 24, 7)]
    assert sum(told) == 4
    assert [event for event, _ in written()] == ["key.expires_soon"] * 3 + ["key.expired"]
    assert list(Outbox.objects.values_list("subject", flat=True))[2:] == [
        "The API key web of Search expires within a day",
        "The API key web of Search has expired",
    ]


def test_a_moved_expiry_is_told_of_anew(team, alice):
    key = key_until(team, alice, NOW + 3 * DAY)
    remind(NOW)
    ApiKey.objects.filter(pk=key.pk).update(expires_at=NOW + 2 * DAY)
    assert remind(NOW) == 1


def test_keys_that_nobody_can_use_are_not_told_of(team, alice, charlie):
    revoked = key_until(team, alice, NOW + DAY)
    services.revoke_key(revoked, alice)
    other = services.create_team("Billing", charlie)
    key_until(other, charlie, NOW + DAY)
    services.archive_team(other, by=charlie)
    key_until(team, alice, NOW - 4 * DAY)  # long ago
    assert remind(NOW) == 0


def test_programs_that_still_use_the_old_secret_are_named(team, alice):
    old = rotated(team, alice, NOW + 20 * HOUR)
    used(old, NOW - 2 * HOUR)
    used(old, NOW - HOUR, "cron\nBcc: x" + "y" * 180, "10.0.0.4")
    used(old, NOW - 11 * DAY, "before", "10.0.0.5")

    assert remind(NOW) == 1

    message = Outbox.objects.get()
    assert message.event == "key.overlap_ends_soon"
    assert message.subject == "2 programs still use the old secret of web, which ends soon"
    assert "- openai-python/1.0 at 10.0.0.3, last on 22 November 2026, 10:00 UTC\n" in message.text
    assert "- cron Bcc: xyyy" in message.text
    assert "before" not in message.text.replace("before that", "")
    assert [each["address"] for each in message.data["programs"]] == ["10.0.0.4", "10.0.0.3"]
    assert remind(NOW + HOUR) == 0


def test_of_many_programs_ten_are_named(team, alice):
    old = rotated(team, alice, NOW + HOUR)
    for number in range(12):
        used(old, NOW - HOUR, address=f"10.0.0.{number}")
    remind(NOW)
    assert "- and 2 more\n" in Outbox.objects.get().text


def test_an_overlap_that_nobody_needs_any_more_ends_quietly(team, alice):
    old = rotated(team, alice, NOW + HOUR)
    used(old, NOW - 9 * DAY)
    assert remind(NOW) == 0


def test_an_ended_overlap_is_told_of_once(team, alice):
    rotated(team, alice, NOW, last_used_at=NOW - HOUR)
    assert remind(NOW) == 1
    assert remind(NOW + HOUR) == 0
    message = Outbox.objects.get()
    assert message.event == "key.overlap_ended"
    assert "last used on 22 November 2026, 11:00 UTC" in message.text


def test_an_ended_overlap_that_nobody_used_says_so(team, alice):
    rotated(team, alice, NOW, last_used_at=NOW - 11 * DAY)
    remind(NOW)
    assert "No program used it after" in Outbox.objects.get().text


def test_the_overlap_of_a_key_that_nobody_can_use_is_not_told_of(team, alice):
    old = rotated(team, alice, NOW, last_used_at=NOW - HOUR)
    services.revoke_key(old.key, alice)
    assert remind(NOW) == 0


def test_who_made_an_access_token_is_reminded_of_it(team, alice, bob):
    for owner, until in ((bob, NOW + 3 * DAY), (bob, NOW - HOUR), (alice, None), (alice, NOW + 15 * DAY)):
        token = AccessToken.objects.create(
            user=owner, name="ci", public_id=str(until)[:16], digest=b"", pepper_id="", expires_at=until
        )
        AccessToken.objects.filter(pk=token.pk).update(created_at=NOW - 60 * DAY)

    assert remind(NOW) == 2
    assert remind(NOW) == 0

    assert written() == [("access_token.expires_soon", bob.email), ("access_token.expired", bob.email)]
    first, second = Outbox.objects.all()
    assert first.subject == "Your access token ci expires within 3 days"
    assert second.subject == "Your access token ci has expired"
    assert f"{settings.PUBLIC_URL}/account/" in first.text


def test_people_and_tokens_that_are_out_are_not_reminded(team, bob, charlie):
    for owner in (bob, charlie):
        AccessToken.objects.create(
            user=owner, name="ci", public_id=owner.email[:16], digest=b"", pepper_id="", expires_at=NOW + DAY
        )
    AccessToken.objects.update(created_at=NOW - 60 * DAY)
    AccessToken.objects.filter(user=bob).update(revoked_at=NOW)
    charlie.is_active = False
    charlie.save()
    assert remind(NOW) == 0


def test_looking_when_there_is_nothing_to_tell_asks_three_questions(team, django_assert_num_queries):
    with django_assert_num_queries(3):  # keys, secrets, access tokens
        remind(NOW)
