"""Webhooks: what an address may be, and the secret that messages are signed with."""

import pytest

from accounts import services, webhooks
from accounts.models import AuditEvent, Team, User, Webhook
from accounts.services import WrongValue

pytestmark = pytest.mark.django_db


@pytest.fixture
def alice():
    return User.objects.create_user("alice@example.com")


@pytest.fixture
def team(alice) -> Team:
    return services.create_team("Hydro", alice)


def test_the_secret_is_derived_and_not_kept(team, alice, settings):
    webhook = webhooks.add_webhook(team, "https://hooks.example/", alice)
    secret = webhooks.secret_of(webhook)

    assert webhooks.secret_of(Webhook.objects.get()) == secret
    settings.SECRET_KEY = "another secret of the house, long enough"
    assert webhooks.secret_of(webhook) != secret


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "hooks.example",
            "ftp://hooks.example/",
            "https://",
            "https://[::1/",
            "https://h.example:99999/",
        ),
        *(
            "https://user:word@h.example/",
            "https://h.example/#x",
            "https://h.example/a b",
            "https://h.example/\nx",
        ),
        *("https://a<textarea>/x", 'https://a"b/', "https://h.example&amp;/", "https://[fe80::1%eth0]/"),
        *("https://h.example\\@evil.example/", "https://hööks.example/", "https://h.example/" + "x" * 500),
    ],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(WrongValue):
        webhooks.clean_url(url)


@pytest.mark.parametrize(
    "url",
    ["https://h.example", "http://10.0.0.7:8080/a?b=<c>", "https://[2001:db8::1]/x", "https://a_b.c-d/"],
)
def test_an_address_stays_as_it_was_given(url):
    assert webhooks.clean_url(f" {url} ") == url


def test_one_owner_has_so_many_at_most(team, alice):
    for number in range(webhooks.MOST_WEBHOOKS):
        webhooks.add_webhook(team, f"https://{number}.example/", alice)

    with pytest.raises(WrongValue, match="already"):
        webhooks.add_webhook(team, "https://more.example/", alice)
    webhooks.add_webhook(None, "https://all.example/", alice)


def test_the_audit_keeps_the_host_of_an_address_and_not_what_may_be_a_secret(team, alice):
    webhook = webhooks.add_webhook(team, "https://hooks.example/T0KEN?key=T1KEN", alice)
    webhooks.change_webhook(webhook, {"url": "https://hooks.example/T2KEN"})
    webhooks.remove_webhook(webhook)

    events = list(AuditEvent.objects.filter(action__startswith="webhook.").values())

    assert len(events) == 3
    assert "KEN" not in str(events)
    assert {each["subject_name"] for each in events} == {"https://hooks.example/…"}
