"""Channels: what an address may be, what is kept of it, and what the audit is told."""

import pytest
from cryptography.fernet import Fernet
from django.core.management import call_command

from accounts import channels, services
from accounts.models import AuditEvent, Channel
from accounts.services import Archived, NoName, WrongValue

pytestmark = pytest.mark.django_db
SECRET = "https://hooks.slack.example/services/T0/B1/SECRET"


def test_a_slack_address_is_a_secret(team, alice):
    made = channels.add_channel(team, "slack", "#llm", SECRET, alice)
    channels.change_channel(made, {"address": f"{SECRET}2"})
    channels.remove_channel(Channel.objects.get())

    assert channels.url_of(made) == f"{SECRET}2"
    assert made.address == "https://hooks.slack.example/…"
    assert "SECRET" not in str(vars(made)) + str(list(AuditEvent.objects.values()))
    actions = ["channel.added", "channel.changed", "channel.removed"]
    found = AuditEvent.objects.filter(subject_kind="channel").order_by("id")
    assert list(found.values_list("action", flat=True)) == actions


def test_an_address_under_a_key_that_is_gone_is_to_be_entered_anew(team, alice, settings):
    made = channels.add_channel(team, "slack", "#llm", SECRET, alice)
    settings.CREDENTIAL_KEYS = ["M" * 43 + "="]

    with pytest.raises(channels.Unreadable, match="enter it anew"):
        channels.url_of(made)


def test_addresses_are_encrypted_anew_so_that_an_older_key_can_go(team, alice, settings):
    made = channels.add_channel(team, "slack", "#llm", SECRET, alice)
    older, newer = settings.CREDENTIAL_KEYS[0], Fernet.generate_key().decode()
    settings.CREDENTIAL_KEYS = [newer, older]

    call_command("rotate_credentials")

    settings.CREDENTIAL_KEYS = [newer]
    made.refresh_from_db()
    assert channels.url_of(made) == SECRET


def test_mail_goes_to_each_address_once(team, alice):
    made = channels.add_channel(team, "mail", "On call", "A@x.example; b@x.example,a@x.example", alice)

    assert channels.emails_of(made) == ["a@x.example", "b@x.example"]


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        ("mail", ""),
        ("mail", "nobody"),
        ("mail", " ".join(f"{number}@x.example" for number in range(11))),
        ("slack", "hooks.example"),
        ("webhook", "https://user:word@h.example/"),
    ],
)
def test_what_is_no_address_is_refused_at_its_field(kind, address, team, alice):
    with pytest.raises(WrongValue) as refused:
        channels.add_channel(team, kind, "One", address, alice)

    assert refused.value.field == "address"
    assert not Channel.objects.exists()


def test_of_an_archived_team_a_channel_can_only_be_switched_off_and_removed(team, alice):
    made = channels.add_channel(team, "mail", "One", "a@x.example", alice)
    services.archive_team(team, alice)

    with pytest.raises(Archived):
        channels.add_channel(team, "mail", "Two", "a@x.example", alice)
    for changes in ({"enabled": True}, {"address": "b@x.example"}, {"enabled": False, "name": "Three"}):
        with pytest.raises(Archived):
            channels.change_channel(made, changes)

    channels.change_channel(made, {"enabled": False})
    made.refresh_from_db()
    assert (made.enabled, made.name, made.address) == (False, "One", "a@x.example")
    channels.remove_channel(made)


def test_a_channel_has_a_name(team, alice):
    with pytest.raises(NoName):
        channels.add_channel(team, "mail", "  ", "a@x.example", alice)


def test_a_team_has_so_many_channels_and_no_more(team, alice):
    for number in range(channels.MOST_CHANNELS):
        channels.add_channel(team, "mail", f"{number}", "a@x.example", alice)

    with pytest.raises(WrongValue, match="remove one first"):
        channels.add_channel(team, "mail", "one more", "a@x.example", alice)
    channels.add_channel(services.create_team("Other", alice), "mail", "theirs", "a@x.example", alice)
