"""Alerts as the task looks at them: figures from rollups, one message to each place, whoever looks."""

import json
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from msgspec.structs import replace

from accounts import services as accounts
from accounts.models import Channel, Outbox
from gateway import delivery
from gateway import services as upstream
from gateway.alerts import services
from gateway.alerts.evaluating import evaluate, look
from gateway.alerts.measuring import measure
from gateway.models import Alert, AlertEvent, BreakerChange
from tests.gateway.past_calls import call, keep
from tests.gateway.receivers import status

pytestmark = pytest.mark.django_db(transaction=True)

MINUTE = timedelta(minutes=1)
DOLLAR = 10**9


@pytest.fixture
def now():
    """The minute before it is of the same month."""
    at = timezone.now().replace(second=30, microsecond=0)
    return max(at, at.replace(day=1, hour=0, minute=1))


@pytest.fixture
def spent(team, now):
    """So much, by one call of the last minute, rolled up."""

    def spend(nanos):
        keep(call(now - MINUTE, cost=nanos / DOLLAR, team_id=team.pk))

    return spend


def spend_alert(team, alice, channels=(), **values):
    usual = {"name": "Spend", "threshold": 5 * DOLLAR, "tell_owners": False}
    return services.add_alert(team, "spend", usual | values, list(channels), alice)


def told():
    return [(each.event, each.email or each.to.name) for each in Outbox.objects.order_by("id")]


def test_spend_beyond_the_threshold_is_told_to_every_channel_and_the_owners(
    team, alice, bob, slack, webhook, mail, spent, now
):
    alert = spend_alert(team, alice, [slack, webhook, mail], tell_owners=True)
    spent(4 * DOLLAR)
    assert evaluate(now) == 0
    spent(2 * DOLLAR)

    assert evaluate(now + MINUTE) == 1

    assert sorted(told()) == sorted(
        ("alert.fired", where)
        for where in ("alice@example.com", "#llm", "Pager", "oncall@example.com", "boss@example.com")
    )
    alert.refresh_from_db()
    assert (alert.state, alert.figure, alert.checked_at) == ("firing", 6 * DOLLAR, now + MINUTE)
    event = alert.events.get()
    assert (event.figure, event.threshold, event.resolved_at) == (6 * DOLLAR, 5 * DOLLAR, None)


def test_the_figure_never_comes_from_the_ledger_and_takes_few_queries(team, alice, slack, spent, now):
    alert = spend_alert(team, alice, [slack])
    spent(DOLLAR)

    with CaptureQueriesContext(
        connection,
    ) as made:
        look(alert, now)

    asked = [each["sql"] for each in made.captured_queries]
    assert not [each for each in asked if "gateway_entry" in each or "gateway_attempt" in each]
    assert len([each for each in asked if each.startswith("SELECT") or " SELECT " in each]) <= 8


def test_it_is_told_once_whoever_looks_and_how_often(team, alice, slack, spent, now):
    alert = spend_alert(team, alice, [slack])
    spent(6 * DOLLAR)

    assert [look(alert, now), look(alert, now), evaluate(now + MINUTE)] == [True, False, 0]

    assert told() == [("alert.fired", "#llm")]
    assert AlertEvent.objects.count() == 1


def test_it_is_over_when_the_window_has_passed_and_says_so_to_whoever_was_told(
    team, alice, slack, spent, now
):
    alert = spend_alert(team, alice, [slack])
    spent(6 * DOLLAR)
    evaluate(now)

    for minutes in range(60, 66):
        evaluate(now + minutes * MINUTE)

    alert.refresh_from_db()
    assert alert.state == "ok"
    assert alert.events.get().resolved_at is not None
    assert told() == [("alert.fired", "#llm"), ("alert.resolved", "#llm")]


def test_an_error_rate_waits_for_enough_calls(team, alice, now):
    values = {"name": "Errors", "threshold": 2000, "window_minutes": 5, "least_calls": 4}
    alert = services.add_alert(team, "error_rate", values, [], alice)
    answered = call(now - MINUTE, team_id=team.pk)
    failed = [call(now - MINUTE, team_id=team.pk) for _ in range(3)]
    keep(*(replace(each, outcome="failed", status=502) for each in failed))

    assert not look(alert, now)
    keep(answered)
    assert look(alert, now + MINUTE)

    alert.refresh_from_db()
    assert alert.figure == 7500


def test_latency_is_the_95th_percentile_of_the_named_route(team, alice, now):
    values = {"name": "Slow", "threshold": 1000, "window_minutes": 5, "route": "gpt-4o"}
    alert = services.add_alert(team, "latency", values, [], alice)
    keep(replace(call(now - MINUTE, team_id=team.pk, route="other"), latency_us=9_000_000))
    assert not look(alert, now)

    keep(replace(call(now - MINUTE, team_id=team.pk), latency_us=3_000_000))

    assert look(alert, now + MINUTE)
    alert.refresh_from_db()
    assert alert.figure == pytest.approx(3000, rel=0.02)


def test_a_quota_is_told_of_by_its_fullest(team, alice, spent, now):
    accounts.set_quota(team, "money", 10 * DOLLAR, by_administrator=False)
    accounts.set_quota(team, "requests", 1000, by_administrator=False)
    alert = services.add_alert(team, "quota", {"name": "Quota", "threshold": 90}, [], alice)
    spent(9 * DOLLAR)
    assert not look(alert, now)
    spent(DOLLAR // 2)

    assert look(alert, now + MINUTE)

    alert.refresh_from_db()
    assert (alert.figure, alert.detail) == (95, "Search: money a month")


def test_a_breaker_that_stays_open_is_told_of_until_it_is_closed(ada, now):
    provider = upstream.add_provider("acme", "Acme", "https://acme.example/v1")
    target = upstream.add_target(upstream.add_route("gpt-4o"), provider, "gpt-4o")
    alert = services.add_alert(None, "breaker", {"name": "Breaker", "threshold": 120}, [], ada)

    def change(at, before, after):
        BreakerChange.objects.create(
            target_id=target.pk, provider="acme", upstream_model="gpt-4o", at=at, before=before, after=after
        )

    change(now - 2 * MINUTE, "closed", "open")
    change(now - MINUTE, "open", "half_open")
    assert [look(alert, now), look(alert, now + MINUTE)] == [False, True]
    assert told() == [("alert.fired", "ada@example.com")]
    assert alert.events.get().detail == "acme/gpt-4o"

    change(now + MINUTE, "half_open", "closed")
    for minutes in range(2, 6):
        look(alert, now + minutes * MINUTE)
    assert told()[1:] == [("alert.resolved", "ada@example.com")]


def test_people_are_told_in_their_language_and_channels_in_english(team, alice, slack, spent, now):
    alice.language = "ja"
    alice.save()
    spend_alert(team, alice, [slack], tell_owners=True)
    spent(6 * DOLLAR)

    evaluate(now)

    assert Outbox.objects.get(to=slack).subject == "Spend: fired, at 6.00 USD"


def test_slack_hears_one_text_without_a_signature_and_names_stay_names(
    team, alice, slack, receiver, spent, now
):
    spend_alert(team, alice, [slack], name="<!channel> & co")
    spent(6 * DOLLAR)
    evaluate(now)

    delivery.deliver()

    [heard] = receiver.heard
    assert heard.path == "/services/T0/SECRET"
    assert list(heard.said) == ["text"]
    assert heard.said["text"].startswith("*&lt;!channel&gt; &amp; co: fired, at 6.00 USD*\n")
    assert "/alerts/" in heard.said["text"]
    assert not [each for each in heard.headers if each.startswith("webhook-")]
    assert "SECRET" not in json.dumps(list(Channel.objects.values()), default=str)


def test_what_the_far_side_refuses_waits_with_its_reason(team, alice, slack, receiver, spent, now):
    spend_alert(team, alice, [slack])
    spent(6 * DOLLAR)
    evaluate(now)
    receiver.will(status(404), status(200))

    delivery.deliver()
    waiting = Outbox.objects.get()
    assert (waiting.sent_at, waiting.last_error) == (None, "it answered 404")
    delivery.deliver(now=lambda: timezone.now() + delivery.FIRST_RETRY + MINUTE)

    sent = Outbox.objects.get()
    assert (sent.sent_at is not None, sent.answer) == (True, "it answered 200")


def test_what_is_switched_off_or_of_an_archived_team_is_not_looked_at(team, alice, spent, now):
    off = spend_alert(team, alice, tell_owners=True)
    spent(6 * DOLLAR)
    services.change_alert(off, {"enabled": False})
    assert evaluate(now) == 0

    services.change_alert(off, {"enabled": True})
    accounts.archive_team(team, alice)
    assert evaluate(now + MINUTE) == 0
    assert Alert.objects.get().checked_at is None


def test_what_was_firing_of_an_archived_team_is_over_and_nobody_is_told(team, alice, spent, now):
    alert = spend_alert(team, alice, tell_owners=True)
    spent(6 * DOLLAR)
    evaluate(now)
    accounts.archive_team(team, alice)

    assert evaluate(now + MINUTE) == 0

    alert.refresh_from_db()
    assert (alert.state, alert.since_at, alert.figure) == ("waiting", None, None)
    assert alert.events.get().resolved_at == now + MINUTE
    assert told() == [("alert.fired", "alice@example.com")]


def test_it_is_over_without_a_figure_where_the_calls_stopped(team, alice, now):
    values = {"name": "Errors", "threshold": 2000, "window_minutes": 5}
    alert = services.add_alert(team, "error_rate", values, [], alice)
    keep(replace(call(now - MINUTE, team_id=team.pk), outcome="failed", status=502))

    for minutes in range(12):
        look(alert, now + minutes * MINUTE)

    fired, over = Outbox.objects.order_by("id")
    assert (fired.subject, over.subject) == ("Errors: fired, at 100 %", "Errors: over")
    assert "has been over since" in over.text
    assert "The rule: more than 20 % of calls failed in 5 minutes\n" in over.text


def test_a_quota_alert_takes_as_many_queries_however_many_quotas_there_are(team, alice, ada, now):
    def limited(owner):
        for kind, amount in (("money", 10 * DOLLAR), ("requests", 1000), ("tokens", 10**6)):
            accounts.set_quota(owner, kind, amount, by_administrator=True)

    def asked():
        with CaptureQueriesContext(connection) as made:
            measure(alert, now)
        return len(made.captured_queries)

    key, _ = accounts.create_key(team, "first", alice)
    limited(team)
    limited(key)
    alert = services.add_alert(None, "quota", {"name": "Quotas", "threshold": 90}, [], ada)
    few = asked()
    for number in range(3):
        other = accounts.create_team(f"Team {number}", alice)
        more, _ = accounts.create_key(other, "key", alice)
        limited(other)
        limited(more)

    assert asked() == few


def test_quotas_are_asked_for_once_in_one_evaluation(team, alice, ada, now):
    accounts.set_quota(team, "requests", 1000, by_administrator=False)
    for number in range(3):
        services.add_alert(None, "quota", {"name": f"Quotas {number}", "threshold": 90}, [], ada)

    with CaptureQueriesContext(connection) as made:
        evaluate(now)

    listed = [each for each in made.captured_queries if 'FROM "accounts_quota"' in each["sql"]]
    assert len(listed) == 2, "of teams, and of API keys"


def test_the_quota_of_a_key_counts_its_own_calls(team, alice, now):
    fuller, _ = accounts.create_key(team, "fuller", alice)
    other, _ = accounts.create_key(team, "other", alice)
    for key in (fuller, other):
        accounts.set_quota(key, "requests", 4, by_administrator=False)
    values = {"name": "Of one", "threshold": 50}
    of_all = services.add_alert(team, "quota", values, [], alice)
    of_one = services.add_alert(team, "quota", values | {"key": other}, [], alice)
    keep(*(call(now - MINUTE, team_id=team.pk, key_id=fuller.pk) for _ in range(3)))
    keep(call(now - MINUTE, team_id=team.pk, key_id=other.pk))

    assert [look(of_all, now), look(of_one, now)] == [True, False]

    of_all.refresh_from_db()
    of_one.refresh_from_db()
    assert (of_all.figure, of_all.detail) == (75, "fuller: requests a month")
    assert (of_one.figure, of_one.detail) == (25, "other: requests a month")
