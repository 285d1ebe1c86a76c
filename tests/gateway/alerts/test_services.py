"""What an alert may be, and what a test of one sends."""

import threading

import pytest
from django.db import connection, transaction

from accounts import channels
from accounts import services as accounts
from accounts.models import AuditEvent, Milestone, Outbox
from accounts.services import Archived, WrongValue
from gateway import delivery
from gateway.alerts import services
from gateway.alerts.trying import TooManyTests
from gateway.models import Alert, AlertEvent
from tests.gateway.receivers import status

pytestmark = pytest.mark.django_db(transaction=True)

VALUES = {"name": "Spend", "threshold": 10**9}


@pytest.mark.parametrize(
    ("kind", "changes", "field"),
    [
        ("spend", {"threshold": -1}, "threshold"),
        ("error_rate", {"threshold": 10_000, "window_minutes": 5}, "threshold"),
        ("quota", {"threshold": 90, "route": "gpt-4o"}, "route"),
        ("spend", {"window_minutes": 61}, "window_minutes"),
        ("latency", {"threshold": 5, "window_minutes": 1440}, "window_minutes"),
        ("spend", {"pause_minutes": 10_081}, "pause_minutes"),
        ("breaker", {"threshold": 5}, "kind"),
    ],
)
def test_what_can_never_be_is_refused_at_its_field(kind, changes, field, team, alice):
    with pytest.raises(WrongValue) as refused:
        services.add_alert(team, kind, VALUES | changes, [], alice)

    assert refused.value.field == field
    assert not Alert.objects.exists()


def test_an_alert_tells_and_counts_only_what_is_its_teams(team, alice, bob):
    other = accounts.create_team("Billing", bob)
    theirs = channels.add_channel(other, "mail", "Theirs", "x@x.example", bob)
    key, _ = accounts.create_key(other, "theirs", bob)

    for changes, chosen in (({}, [theirs]), ({"key": key}, [])):
        with pytest.raises(WrongValue):
            services.add_alert(team, "spend", VALUES | changes, chosen, alice)


def test_a_test_is_sent_now_and_says_what_was_answered(team, alice, slack, receiver):
    alert = services.add_alert(team, "spend", VALUES | {"tell_owners": False}, [slack], alice)
    receiver.will(status(200), status(500))

    [sent] = services.try_alert(alert, alice)
    [unsent] = services.try_channel(slack, alice)

    assert (sent.answer, unsent.last_error) == ("it answered 200", "it answered 500")
    assert unsent.sent_at is None
    assert receiver.heard[0].said["text"].startswith("*[Test] Spend*\nThis is a test by alice@example.com.")
    assert alice.milestones.get().name == Milestone.Name.ALERT_TESTED
    assert not AlertEvent.objects.exists()


def test_a_webhook_is_signed_and_names_the_alert(team, alice, webhook, receiver):
    from accounts.webhooks import secret_of

    alert = services.add_alert(team, "spend", VALUES | {"tell_owners": False}, [webhook], alice)

    services.try_alert(alert, alice)

    [heard] = receiver.heard
    assert heard.is_signed_with(secret_of(webhook))
    assert heard.said["type"] == "alert.tested"
    assert heard.said["data"]["alert"] == {"id": alert.pk, "name": "Spend", "kind": "spend"}


def test_the_places_of_an_alert_are_sent_its_test_at_once(team, alice, slack, webhook, receiver):
    both = threading.Barrier(2)

    def once_both_are_there(handler):
        both.wait(10)
        status(204)(handler)

    receiver.usually = once_both_are_there
    alert = services.add_alert(team, "spend", VALUES | {"tell_owners": False}, [slack, webhook], alice)

    assert [each.answer for each in services.try_alert(alert, alice)] == ["it answered 204"] * 2


def test_while_a_test_is_under_way_there_is_no_other_of_the_same(team, alice, slack, webhook, receiver):
    refused = []

    def again(handler):
        try:
            services.try_channel(slack, alice)
        except TooManyTests as why:
            refused.append(str(why))
        services.try_channel(webhook, alice)
        connection.close()  # this thread's own
        status(204)(handler)

    receiver.will(again)
    services.try_channel(slack, alice)

    assert refused == ["A test is under way already: wait until it is over."]
    assert [each.path for each in receiver.heard] == ["/services/T0/SECRET", "/hook"]


def test_within_a_transaction_a_test_is_left_to_the_next_delivery(team, alice, slack, receiver):
    """It would be held open as long as the far side takes."""
    with transaction.atomic():
        [waiting] = services.try_channel(slack, alice)

    assert (receiver.heard, waiting.tries, waiting.sent_at) == ([], 0, None)
    assert delivery.deliver().sent == 1


def test_of_an_archived_team_an_alert_can_only_be_switched_off_and_removed(team, alice, slack, receiver):
    alert = services.add_alert(team, "spend", VALUES, [slack], alice)
    accounts.archive_team(team, alice)

    for refused in (
        lambda: services.add_alert(team, "spend", VALUES, [], alice),
        lambda: services.change_alert(alert, {"enabled": True}),
        lambda: services.change_alert(alert, {"enabled": False}, []),
        lambda: services.change_alert(alert, {"threshold": 5}),
        lambda: services.try_alert(alert, alice),
        lambda: services.try_channel(slack, alice),
    ):
        with pytest.raises(Archived):
            refused()

    assert (receiver.heard, Outbox.objects.count()) == ([], 0)
    services.change_alert(alert, {"enabled": False})
    services.remove_alert(alert)
    assert not Alert.objects.exists()


def test_what_was_kept_when_more_was_taken_can_be_switched_off(team, alice):
    alert = services.add_alert(
        team, "error_rate", {"name": "Errors", "threshold": 5, "window_minutes": 5}, [], alice
    )
    quota = services.add_alert(team, "quota", {"name": "Quota", "threshold": 90}, [], alice)
    Alert.objects.filter(pk=alert.pk).update(threshold=10_000)
    Alert.objects.filter(pk=quota.pk).update(route="gpt-4o")

    for each in (alert, quota):
        services.change_alert(each, {"enabled": False})

    assert (alert.enabled, alert.threshold, quota.enabled, quota.route) == (False, 10_000, False, "")


def test_an_alert_that_tells_nobody_is_no_tested_one(team, alice):
    alert = services.add_alert(team, "spend", VALUES | {"tell_owners": False}, [], alice)

    assert services.try_alert(alert, alice) == []
    assert not alice.milestones.exists()


def test_a_channel_that_is_switched_off_is_told_nothing(team, alice, slack, receiver):
    channels.change_channel(slack, {"enabled": False})
    alert = services.add_alert(team, "spend", VALUES | {"tell_owners": False}, [slack], alice)

    assert services.try_alert(alert, alice) == []
    assert (Outbox.objects.count(), receiver.heard) == (0, [])


def test_a_private_address_is_for_the_operator_to_allow(team, alice, slack, receiver, settings):
    import dataclasses

    settings.ENV = dataclasses.replace(settings.ENV, allow_private_webhooks=False)

    [unsent] = services.try_channel(slack, alice)

    assert "where no webhook may be" in unsent.last_error
    assert receiver.heard == []


def test_changes_are_audited_by_what_they_changed(team, alice, slack):
    alert = services.add_alert(team, "spend", VALUES, [], alice)

    services.change_alert(alert, {"threshold": 2 * 10**9}, [slack])
    services.change_alert(alert, {"threshold": 2 * 10**9}, [slack])
    services.remove_alert(alert)

    events = AuditEvent.objects.filter(subject_kind="alert").order_by("id")
    assert [each.action for each in events] == ["alert.added", "alert.changed", "alert.removed"]
    assert events[1].before == {"threshold": 10**9, "channels": []}
    assert events[1].after == {"threshold": 2 * 10**9, "channels": ["#llm"]}
