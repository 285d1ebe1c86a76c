import pytest
from cryptography.fernet import Fernet
from django.conf import settings

from accounts import notices, services
from accounts.models import Outbox, Webhook

pytestmark = pytest.mark.django_db

NEWS = {"subject": "Half of it is spent", "text": "…", "data": {"share": 50}, "dedupe": "quota:7:50"}


def told() -> set[str]:
    return {row.email or row.webhook.url for row in Outbox.objects.all()}


@pytest.fixture
def webhooks(team, charlie):
    other = services.create_team("Billing", charlie)
    for owner, url, enabled in (
        (team, "https://ours", True),
        (team, "https://off", False),
        (other, "https://theirs", True),
        (None, "https://everybody's", True),
    ):
        Webhook.objects.create(team=owner, url=url, salt="x", enabled=enabled)


def test_owners_and_webhooks_are_told(team, alice, bob, webhooks):
    services.set_role(team, bob, "owner", by=alice)
    key, _ = services.create_key(team, "web", alice)
    assert notices.tell("quota.reached", team=team, key=key, **NEWS) == 4
    assert told() == {alice.email, bob.email, "https://ours", "https://everybody's"}
    assert Outbox.objects.first().data == {
        "share": 50,
        "team": {"id": team.pk, "name": "Search"},
        "key": {"id": key.pk, "name": "web"},
        "url": f"{settings.PUBLIC_URL}/keys/{key.pk}/",
    }


def test_a_notice_ends_with_a_link_to_what_it_is_about(team, ada):
    key, _ = services.create_key(team, "web", None)
    for of, about, path in (
        (team, key, f"/keys/{key.pk}/"),
        (team, None, "/teams/search/"),
        (None, None, "/"),
    ):
        notices.tell("x", team=of, key=about, **NEWS | {"dedupe": path})
        assert Outbox.objects.last().text == f"…\n\n{settings.PUBLIC_URL}{path}\n"


def test_others_whom_it_concerns_are_told_while_they_are_in_the_team(team, alice, bob, charlie):
    notices.tell("key.expired", team=team, key=None, **NEWS, also=[bob, charlie, alice])
    assert told() == {alice.email, bob.email}
    assert Outbox.objects.count() == 2


def test_the_same_news_is_told_once_to_each(team, alice, bob):
    assert notices.tell("quota.reached", team=team, key=None, **NEWS) == 1
    assert notices.tell("quota.reached", team=team, key=None, **NEWS) == 0
    services.set_role(team, bob, "owner", by=alice)
    assert notices.tell("quota.reached", team=team, key=None, **NEWS) == 1


def test_an_owner_who_is_switched_off_is_not_told(team, alice):
    alice.is_active = False
    alice.save()
    assert notices.tell("quota.reached", team=team, key=None, **NEWS) == 0


def test_news_of_no_team_is_for_administrators(team, ada, webhooks):
    notices.tell("counter.repaired", team=None, key=None, **NEWS)
    assert told() == {ada.email, "https://everybody's"}


def test_a_subject_is_one_line_of_bearable_length(team):
    notices.tell("x", team=team, key=None, subject="a\r\nBcc: b\n" + "c" * 300, text="", data={}, dedupe="x")
    subject = Outbox.objects.get().subject
    assert subject.startswith("a Bcc: b c")
    assert len(subject) == 200


def test_a_mail_is_written_once(db):
    assert notices.mail("dora@example.com", "Hello", "…", "greeting", "greeting:1") == 1
    assert notices.mail("dora@example.com", "Hello", "…", "greeting", "greeting:1") == 0


def test_an_invitation_is_sealed(team, alice):
    _, secret = services.invite(team, alice, "member", email="dora@example.com")
    message = Outbox.objects.get()
    assert notices.is_sealed(message)
    assert secret not in message.text
    assert f"/invitations/{secret}/" in notices.text_of(message)


def test_a_sealed_text_needs_its_key(team, alice, settings):
    services.invite(team, alice, "member", email="dora@example.com")
    old, new = settings.CREDENTIAL_KEYS[0], Fernet.generate_key().decode()
    settings.CREDENTIAL_KEYS = (new, old)
    assert "invites you" in notices.text_of(Outbox.objects.get())
    settings.CREDENTIAL_KEYS = (new,)
    with pytest.raises(notices.Unreadable, match="CREDENTIAL_KEYS"):
        notices.text_of(Outbox.objects.get())
