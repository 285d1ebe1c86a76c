"""The pages of alerts and channels: who sees what, and a way from nothing to a tested alert."""

import pytest
from asgiref.sync import sync_to_async
from axe_playwright_python.async_playwright import Axe
from django.core.cache import cache
from django.test import Client
from django.utils import timezone
from playwright.async_api import expect

from accounts import channels
from accounts import services as accounts
from accounts.models import Channel, Membership, Milestone, Outbox, User
from gateway.alerts import services
from gateway.alerts.evaluating import look
from gateway.alerts.trying import A_MINUTE
from gateway.models import Alert
from tests.dashboard.conftest import session_of, signed_in
from tests.gateway import receivers
from tests.gateway.past_calls import call, keep

MOST_QUERIES = 12
SECRET = "https://hooks.slack.example/services/SECRET"


@pytest.fixture(autouse=True)
def _no_tests_counted():
    cache.clear()


@pytest.fixture
def owner(team) -> User:
    made = User.objects.create_user("olga@example.com")
    Membership.objects.create(team=team, user=made, role="owner")
    return made


@pytest.fixture
def member(team) -> User:
    made = User.objects.create_user("mia@example.com")
    Membership.objects.create(team=team, user=made, role="member")
    return made


@pytest.fixture
def receiver():
    with receivers.receiver() as made:
        yield made


def client_of(person) -> Client:
    client = Client()
    client.force_login(person)
    return client


def spend_alert(team, owner, *chosen) -> Alert:
    values = {"name": "Spend of a day", "threshold": 10**9, "window_minutes": 1440}
    return services.add_alert(team, "spend", values, chosen, owner)


@pytest.fixture
def fired(team, owner) -> Alert:
    """Eight times, each told to two places."""
    slack = channels.add_channel(team, "slack", "#llm", SECRET, owner)
    alert = spend_alert(team, owner, slack)
    keep(call(timezone.now(), cost=2, team_id=team.pk))
    for _ in range(8):
        look(alert, timezone.now())
        alert.events.update(resolved_at=timezone.now())
        Alert.objects.update(state="ok", told_at=None)
    return alert


def test_every_page_takes_few_queries_however_much_there_is(
    fired, owner, administrator, django_assert_max_num_queries
):
    channel = Channel.objects.get()
    pages = (
        *("/alerts/", f"/alerts/{fired.pk}/", f"/alerts/{fired.pk}/settings/", "/alerts/new/?kind=latency"),
        *("/channels/", f"/channels/{channel.pk}/", "/channels/new/?kind=slack"),
    )
    for person in (owner, administrator):
        client = client_of(person)
        client.get("/alerts/")
        for each in pages:
            with django_assert_max_num_queries(MOST_QUERIES):
                assert client.get(each).status_code == 200, each


def test_whoever_is_no_owner_sees_alerts_and_not_who_is_told(fired, member, owner):
    page = client_of(member).get(f"/alerts/{fired.pk}/").content.decode()

    assert "2.00 USD" in page
    assert not [each for each in ("#llm", "olga@example.com", "Send a test") if each in page]
    assert "#llm" in client_of(owner).get(f"/alerts/{fired.pk}/").content.decode()


def test_the_address_of_slack_is_never_shown(fired, owner):
    channel = Channel.objects.get()
    pages = [f"/channels/{channel.pk}/", "/channels/", f"/alerts/{fired.pk}/", f"/api/channels/{channel.pk}"]

    assert not [each for each in pages if "SECRET" in client_of(owner).get(each).content.decode()]


def test_an_address_is_text_wherever_it_is_shown(fired, owner):
    """Also one that was kept when more was taken for a host name than is today."""
    Channel.objects.update(address="https://a<textarea>/…")
    pages = ["/channels/", f"/channels/{Channel.objects.get().pk}/", f"/alerts/{fired.pk}/"]

    for each in pages:
        shown = client_of(owner).get(each).content.decode()
        assert "a<textarea>" not in shown, each
        assert "https://a&lt;textarea&gt;/…" in shown, each


def test_whoever_sends_too_many_tests_is_told_so(team, owner, receiver):
    channel = channels.add_channel(team, "slack", "#llm", receiver.url, owner)
    alert, client = spend_alert(team, owner, channel), client_of(owner)

    paths = [f"/alerts/{alert.pk}/test/", f"/channels/{channel.pk}/test/"] * (A_MINUTE + 1)
    pages = [client.post(each, follow=True).content.decode() for each in paths]

    # Two more than twice as many as a minute allows: enough where a full minute began meanwhile.
    said = "At most 5 tests a minute and 30 an hour: wait, then send the next."
    refused = [each for each in pages if said in each]
    assert refused
    assert len(receiver.heard) + len(refused) == len(pages)


def test_a_test_in_an_archived_team_is_refused_with_a_sentence(team, owner, fired):
    accounts.archive_team(team, owner)

    page = client_of(owner).post(f"/alerts/{fired.pk}/test/", follow=True).content.decode()

    assert f"{team.name} is archived: restore it first." in page


def test_a_form_that_leaves_the_address_empty_keeps_it(fired, owner):
    channel = Channel.objects.get()

    client_of(owner).post(f"/channels/{channel.pk}/", {"name": "#ops", "address": ""})

    channel.refresh_from_db()
    assert (channel.name, channels.url_of(channel)) == ("#ops", SECRET)


def test_a_wrong_value_is_said_at_its_field(team, owner):
    answer = client_of(owner).post(
        f"/channels/new/?team={team.slug}&kind=mail", {"name": "On call", "address": "nobody"}
    )

    assert answer.status_code == 422
    assert "“nobody” is not an e-mail address." in answer.content.decode()


def test_a_form_takes_people_s_units(team, owner):
    sent = {"name": "Errors", "threshold": "2.5", "window_minutes": 15, "least_calls": 20}
    more = {"hold_minutes": 5, "pause_minutes": 60, "tell_owners": "on"}

    answer = client_of(owner).post(f"/alerts/new/?team={team.slug}&kind=error_rate", sent | more)

    made = Alert.objects.get()
    assert answer["Location"] == f"/alerts/{made.pk}/"
    assert (made.threshold, made.least_calls, made.hold_minutes, made.tell_owners) == (250, 20, 5, True)


def test_a_form_that_is_sent_as_it_came_changes_nothing(team, owner):
    """Also where the key was revoked since, the model name is gone, and the API set the pace."""
    key, _ = accounts.create_key(team, "nightly", owner)
    values = {"name": "Spend", "threshold": 10**9, "window_minutes": 1440, "key": key, "route": "gone"}
    pace = {"hold_minutes": 30, "pause_minutes": 90, "tell_owners": False}
    alert = services.add_alert(team, "spend", values | pace, [], owner)
    accounts.revoke_key(key, owner)
    client, address = client_of(owner), f"/alerts/{alert.pk}/settings/"

    shown = client.get(address)
    assert "nightly (revoked)" in shown.content.decode()
    assert client.post(address, as_a_browser_sends(shown.context["form"])).status_code == 302

    alert.refresh_from_db()
    assert {name: getattr(alert, name) for name in values | pace} == values | pace


def as_a_browser_sends(form):
    """Of a list the choice that is there, else the first one."""
    sent = {}
    for each in form:
        value = "" if each.value() is None else str(each.value())
        choices = [str(value) for value, _ in getattr(each.field, "choices", ())]
        sent[each.name] = choices[0] if choices and value not in choices else value
    return {name: value for name, value in sent.items() if name not in ("channels", "tell_owners")}


def test_of_an_archived_team_none_is_firing(fired, team, owner):
    Alert.objects.update(state="firing")
    assert "1 alert is firing." in client_of(owner).get("/alerts/").content.decode()
    accounts.archive_team(team, owner)

    page = client_of(owner).get("/alerts/").content.decode()

    assert "None is firing." in page
    assert '<span class="badge">Archived</span>' in page


def test_what_a_quota_counts_is_in_the_language_of_the_reader(team, owner):
    accounts.set_quota(team, "money", 10**9, by_administrator=False)
    alert = services.add_alert(team, "quota", {"name": "Quota", "threshold": 90}, [], owner)
    keep(call(timezone.now(), cost=2, team_id=team.pk))
    look(alert, timezone.now())
    owner.language = "ja"
    owner.save()

    page = client_of(owner).get(f"/alerts/{alert.pk}/").content.decode()

    assert page.count(f"{team.name}: 1か月あたりの金額") == 2, "now, and in the history"


def test_an_empty_list_says_what_an_alert_is(owner, member):
    assert "An alert tells people when" in client_of(owner).get("/alerts/").content.decode()
    assert "The owners of your teams make them." in client_of(member).get("/alerts/").content.decode()


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_an_owner_makes_a_channel_and_an_alert_and_tests_them(
    site, browser, team, owner, receiver, theme
):
    session = await sync_to_async(session_of)(owner)
    page, complaints = await signed_in(browser, site.origin, session)
    await page.emulate_media(color_scheme=theme, reduced_motion="reduce")

    await page.goto(f"{site.origin}/channels/new/?kind=slack")
    await page.get_by_label("Name").fill("#llm")
    await page.get_by_label("Address of the incoming webhook").fill(f"{receiver.url}/hook")
    await page.get_by_role("button", name="Add the channel").click()
    await page.goto(f"{site.origin}/alerts/")
    await page.get_by_role("link", name="Make an alert").first.click()
    await page.get_by_role("link", name="Choose Spend").click()
    await page.get_by_label("Name", exact=True).fill("Spend of a day")
    await page.get_by_label("#llm · Slack-compatible").check()
    await page.get_by_role("button", name="Make the alert").click()
    await page.get_by_role("button", name="Send a test").click()

    await expect(page.get_by_text("Sent to #llm: it answered 204.")).to_be_visible()
    assert (await Axe().run(page)).response["violations"] == []
    assert [each.path for each in receiver.heard] == ["/hook"]
    assert complaints == []
    assert await Outbox.objects.filter(sent_at=None).acount() == 0
    assert await Milestone.objects.filter(user=owner, name="alert_tested").aexists()
