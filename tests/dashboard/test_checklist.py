"""Getting started: ten items, from facts."""

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import pytest
from asgiref.sync import sync_to_async
from axe_playwright_python.async_playwright import Axe
from django.contrib.auth.models import AnonymousUser
from django.template import Context, Template
from django.test import Client
from django.urls import Resolver404, resolve

from accounts import services
from accounts.models import ApiKey, KeySecret, Membership, Milestone
from accounts.services import milestones
from dashboard.checklist import Facts, checklist
from dashboard.checklist_facts import facts_of
from gateway.ledger import rollups
from gateway.ledger.writer import book
from tests.accounts.pages import inline_parts
from tests.dashboard.called import a_call, that_fell_back
from tests.dashboard.conftest import session_of, signed_in

OWNER = Facts(makes_keys=True, sets_limits=True)
TICKS = {
    "has_key": "key",
    "key_used": "key_used",
    "has_entry": "entry",
    "cost_seen": "cost",
    "second_route": "second_route",
    "handled": "handled",
    "has_limit": "limit",
    "savings_seen": "savings",
    "alert_tested": "alert",
}
RIGHTS = ("makes_keys", "sets_limits")


def done(facts: Facts) -> set[str]:
    return {each.name for each in checklist(facts).items if each.done}


class TestItems:
    def test_are_ten_and_one_is_done_by_reading_them(self):
        found = checklist(OWNER)
        assert (len(found.items), done(OWNER), found.done) == (10, {"signed_in"}, 1)

    @pytest.mark.parametrize("fact", TICKS)
    def test_are_ticked_by_one_fact_each(self, fact):
        assert done(replace(OWNER, **{fact: True})) == {"signed_in", TICKS[fact]}

    def test_are_all_done_when_every_fact_is(self):
        found = checklist(Facts(**{each.name: True for each in fields(Facts)}))
        assert found.is_done
        assert found.next is None
        assert set(TICKS) == {each.name for each in fields(Facts)} - set(RIGHTS)

    def test_that_are_open_say_why_and_lead_to_a_page(self):
        for each in checklist(OWNER).items[1:]:
            assert str(each.why).endswith(".")
            assert str(each.words)
            try:
                resolve(each.address.partition("?")[0])
            except Resolver404:
                pytest.fail(f"{each.name} leads to {each.address}, where nothing is")

    def test_that_are_for_others_lead_nowhere_and_are_not_next(self):
        found = checklist(Facts())
        nowhere = {each.name for each in found.items if not each.address}
        assert nowhere == {"signed_in", "key", "limit"}
        assert found.next.name == "key_used"
        assert checklist(OWNER).next.name == "key"


NOW = datetime.now(UTC)


class TestFacts:
    def test_of_a_new_team_are_none(self, alice, team):
        assert facts_of(alice, NOW) == OWNER

    def test_of_a_viewer_say_what_they_may(self, alice, team):
        Membership.objects.update(role=Membership.Role.VIEWER)
        assert facts_of(alice, NOW) == Facts()

    def test_count_keys_that_are_not_revoked_nor_of_the_playground(self, alice, team):
        services.open_playground(team, alice)
        KeySecret.objects.update(last_used_at=NOW)
        assert facts_of(alice, NOW) == OWNER
        key, _ = services.create_key(team, "web", alice)
        assert facts_of(alice, NOW).has_key
        KeySecret.objects.filter(key=key).update(last_used_at=NOW)
        services.revoke_key(key, by=alice)
        found = facts_of(alice, NOW)
        assert (found.has_key, found.key_used) == (False, True)

    def test_count_calls_routes_and_what_was_handled(self, alice, team, api_key):
        book([a_call(team, api_key, NOW - timedelta(minutes=3))])
        rollups.work(NOW, budget_s=None)
        found = facts_of(alice, NOW)
        assert (found.has_entry, found.second_route, found.handled) == (True, False, False)
        book([a_call(team, api_key, NOW - timedelta(minutes=2), route="gpt-4o-mini")])
        rollups.work(NOW, budget_s=None)
        assert facts_of(alice, NOW).second_route
        book([that_fell_back(team, api_key, NOW - timedelta(minutes=2))])
        rollups.work(NOW, budget_s=None)
        assert facts_of(alice, NOW).handled

    @pytest.mark.parametrize("outcome", ["failed", "rejected", "truncated"])
    def test_count_an_error_that_the_caller_was_told_of(self, alice, team, api_key, outcome):
        book([a_call(team, api_key, NOW - timedelta(minutes=3), outcome=outcome, code="x", status=400)])
        rollups.work(NOW, budget_s=None)
        assert facts_of(alice, NOW).handled

    def test_of_other_teams_do_not_count(self, alice, other_team):
        key = ApiKey.objects.create(team=other_team, name="theirs")
        services.set_quota(other_team, "tokens", 5, by_administrator=False)
        book([that_fell_back(other_team, key, NOW - timedelta(minutes=3))])
        rollups.work(NOW, budget_s=None)
        assert facts_of(alice, NOW) == OWNER

    def test_count_limits_but_those_that_everybody_begins_with(self, alice, settings):
        settings.ENV = replace(settings.ENV, key_requests_per_minute=100, team_requests_per_minute=500)
        team = services.create_team("Usual", alice)
        key, _ = services.create_key(team, "web", alice)
        assert not facts_of(alice, NOW).has_limit
        services.set_rate_limit(key, "requests", 99, by_administrator=False)
        assert facts_of(alice, NOW).has_limit

    def test_count_a_quota(self, alice, team):
        services.set_quota(team, "money", 10**9, by_administrator=False)
        assert facts_of(alice, NOW).has_limit

    @pytest.mark.parametrize("name", ["cost_seen", "savings_seen", "alert_tested"])
    def test_count_milestones_of_ones_own(self, alice, administrator, name):
        milestones.reach(administrator, Milestone.Name(name))
        assert not getattr(facts_of(alice, NOW), name)
        milestones.reach(alice, Milestone.Name(name))
        assert getattr(facts_of(alice, NOW), name)

    def test_take_eight_queries_at_most(
        self, alice, team, api_key, administrator, django_assert_max_num_queries
    ):
        book([a_call(team, api_key, NOW - timedelta(minutes=3))])
        rollups.work(NOW, budget_s=None)
        for person in (alice, administrator):
            with django_assert_max_num_queries(8):
                assert facts_of(person, NOW).has_entry


@pytest.fixture
def client(alice) -> Client:
    client = Client()
    client.force_login(alice)
    return client


PART = {"HX-Request": "true", "HX-Target": "getting-started"}


class TestPage:
    def test_shows_what_is_open_and_holds_nothing_inline(self, client, django_assert_max_num_queries):
        with django_assert_max_num_queries(12):
            response = client.get("/getting-started/")
        page = response.content.decode()
        assert "1 of 10" in page
        assert 'href="/keys/new/"' in page
        assert inline_parts(page) == []

    def test_answers_other_pages_with_a_small_panel(self, client):
        part = client.get("/getting-started/", headers=PART).content.decode()
        assert "Next: Make an API key" in part
        assert "<html" not in part

    def test_is_put_away_and_found_again(self, client, alice):
        closed = Milestone.objects.filter(user=alice, name=Milestone.Name.CHECKLIST_CLOSED)
        response = client.post("/getting-started/", {"shown": "no", "from": "live"})
        assert (response["Location"], closed.exists()) == ("/", True)
        assert "Show it on the live page" in client.get("/getting-started/").content.decode()
        response = client.post("/getting-started/", {"shown": "yes"})
        assert (response["Location"], closed.exists()) == ("/getting-started/", False)

    def test_goes_away_when_all_is_done(self, client, alice, team, api_key):
        services.create_key(team, "web", alice)
        KeySecret.objects.update(last_used_at=NOW)
        services.set_quota(team, "money", 10**9, by_administrator=False)
        book([that_fell_back(team, api_key, NOW - timedelta(minutes=3))])
        book([a_call(team, api_key, NOW - timedelta(minutes=3), route="gpt-4o-mini")])
        rollups.work(NOW, budget_s=None)
        for name in ("cost_seen", "savings_seen", "alert_tested"):
            milestones.reach(alice, Milestone.Name(name))
        assert client.get("/getting-started/", headers=PART).content == b""
        assert Milestone.objects.filter(user=alice, name=Milestone.Name.CHECKLIST_CLOSED).exists()
        assert "All done" in client.get("/getting-started/").content.decode()

    def test_has_a_place_on_other_pages_until_it_is_put_away(self, alice, django_assert_num_queries):
        page = Template("{% load checklist %}{% checklist %}")
        with django_assert_num_queries(1):
            shown = page.render(Context({"user": alice}))
        assert 'hx-get="/getting-started/"' in shown
        milestones.reach(alice, Milestone.Name.CHECKLIST_CLOSED)
        assert page.render(Context({"user": alice})).strip() == ""
        assert page.render(Context({"user": AnonymousUser()})).strip() == ""

    def test_is_in_the_account_menu(self, client):
        assert 'href="/getting-started/"' in client.get("/account/").content.decode()


async def test_the_list_ticks_itself_while_one_looks_at_it(site, browser, alice, team):
    page, complaints = await signed_in(browser, site.origin, await sync_to_async(session_of)(alice))
    await page.goto(f"{site.origin}/getting-started/")
    assert await page.locator("#item-key.is-done").count() == 0
    found = await Axe().run(page)
    assert [each["id"] for each in found.response["violations"]] == []

    await sync_to_async(services.create_key)(team, "web", alice)
    await page.evaluate("dispatchEvent(new Event('focus'))")
    await page.locator("#item-key.is-done").wait_for(timeout=10_000)
    assert await page.locator(".checklist-progress").inner_text() == "2 of 10"
    assert complaints == []
