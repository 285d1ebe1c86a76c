"""Who sees which live page, and how many queries it takes."""

import pytest
from django.test import Client

from accounts.models import Membership
from gateway.models import Provider, Route, Target


@pytest.fixture
def browser_of():
    def signed_in(user):
        client = Client()
        client.force_login(user)
        return client

    return signed_in


def test_a_visitor_is_asked_to_sign_in(db):
    answer = Client().get("/")
    assert (answer.status_code, answer["Location"]) == (302, "/accounts/login/?next=/")


def test_a_member_sees_the_own_team_and_is_offered_no_other(browser_of, alice, other_team):
    page = browser_of(alice).get("/").content.decode()
    assert 'data-team="hydro"' in page
    assert "Solar" not in page


def test_a_foreign_team_looks_like_none_at_all(browser_of, alice, other_team):
    for slug in ("solar", "nobody"):
        assert browser_of(alice).get("/", {"team": slug}).status_code == 404


def test_a_member_of_two_teams_chooses(browser_of, alice, other_team):
    Membership.objects.create(user=alice, team=other_team, role=Membership.Role.VIEWER)
    page = browser_of(alice).get("/", {"team": "solar"}).content.decode()
    assert 'data-team="solar"' in page
    assert '<option value="hydro">Hydro</option>' in page
    assert "All teams" not in page


def test_an_administrator_sees_all_teams_together(browser_of, administrator, team):
    page = browser_of(administrator).get("/").content.decode()
    assert 'data-team=""' in page
    assert "All teams" in page


def test_a_person_without_a_team_is_told_what_to_do(browser_of, alice):
    Membership.objects.all().delete()
    answer = browser_of(alice).get("/")
    assert answer.status_code == 200
    assert "You are on no team yet" in answer.content.decode()


def test_the_first_call_is_spelled_out_for_the_address_that_was_used(browser_of, alice):
    Route.objects.create(model_name="deepseek-v3.2")
    page = browser_of(alice).get("/", headers={"host": "localhost:8123"}).content.decode()
    assert "curl http://localhost:8123/v1/chat/completions" in page
    assert "{&quot;model&quot;" not in page
    assert '"model": "deepseek-v3.2"' in page


def test_names_in_the_page_cannot_become_markup(browser_of, alice, team, api_key):
    api_key.name = "</script><script>alert(1)</script>"
    api_key.save()
    assert "<script>alert(1)" not in browser_of(alice).get("/").content.decode()


def test_the_page_takes_nine_queries_however_many_teams_and_keys(
    browser_of, administrator, team, other_team, api_key, django_assert_num_queries
):
    provider = Provider.objects.create(slug="openai", name="OpenAI", base_url="https://api.openai.com/v1")
    route = Route.objects.create(model_name="gpt-4o")
    Target.objects.create(route=route, provider=provider, upstream_model="gpt-4o")
    client = browser_of(administrator)
    # session, person, teams, routes, key names, whether anything is simulated;
    # targets, what their breakers did of late, and whether the first steps are put away
    with django_assert_num_queries(9):
        client.get("/")


def test_the_page_has_no_inline_script_or_style(browser_of, alice):
    page = browser_of(alice).get("/").content.decode()
    assert " style=" not in page
    assert "<style" not in page
    assert "onclick" not in page


def test_places_and_connections_are_for_administrators_who_look_at_all_teams(
    browser_of, alice, administrator
):
    refused = "is shown to administrators, who look at all teams"
    of_member = browser_of(alice).get("/").content.decode()
    assert refused in of_member
    assert 'data-busiest="teams"' not in of_member
    of_all = browser_of(administrator).get("/").content.decode()
    assert refused not in of_all
    assert 'data-busiest="teams"' in of_all


def test_without_a_target_the_panels_say_what_would_fill_them(browser_of, administrator):
    page = browser_of(administrator).get("/").content.decode()
    assert page.count("No target is in use") == 2
