"""The playground's page and its key: who gets one, what it says to whom, and what the address holds."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import keys, services
from accounts.models import ApiKey, Membership, User
from gateway import services as upstream
from gateway.models import Price, Route


@pytest.fixture
def provider(transactional_db):
    return upstream.add_provider("acme", "Acme", "https://acme.example/v1")


@pytest.fixture
def routes(provider):
    """One with a price, and one without."""
    now = timezone.now()
    priced = upstream.add_target(upstream.add_route("gpt-4o-mini"), provider, "gpt-4o-mini")
    upstream.add_target(upstream.add_route("small"), provider, "small")
    shared = {"target": priced, "cached_input_nanos": 0}
    Price.objects.create(
        **shared, valid_from=now - timedelta(days=9), input_nanos=9_000_000_000, output_nanos=9_000_000_000
    )
    Price.objects.create(
        **shared, valid_from=now - timedelta(days=1), input_nanos=150_000_000, output_nanos=600_000_000
    )
    Price.objects.create(
        **shared, valid_from=now + timedelta(days=1), input_nanos=1_000_000_000, output_nanos=1_000_000_000
    )


def client_of(user):
    client = Client()
    client.force_login(user)
    return client


def someone(team, role):
    user = User.objects.create_user(f"{role}@example.com")
    Membership.objects.create(user=user, team=team, role=role)
    return user


def page(client, address="/playground/", status=200):
    answer = client.get(address)
    assert answer.status_code == status
    return answer.content.decode()


def test_who_is_on_no_team_is_told_whom_to_ask(transactional_db):
    nobody = User.objects.create_user("nobody@example.com")

    said = page(client_of(nobody))

    assert "You are on no team yet" in said
    assert "nobody@example.com" in said


def test_a_viewer_is_told_that_they_may_not_call(team, routes):
    vera = someone(team, "viewer")

    said = page(client_of(vera))

    assert "You may look, not call" in said
    assert "playground.js" not in said
    answer = client_of(vera).post("/playground/hydro/key/")
    assert answer.status_code == 403
    assert "ask an owner" in answer.json()["message"]
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize(("who", "sees_link"), [("alice", False), ("administrator", True)])
def test_without_a_model_name_it_says_what_is_missing(request, team, who, sees_link):
    said = page(client_of(request.getfixturevalue(who)))

    assert "No model names yet" in said
    assert ('href="/routes/new/"' in said) is sees_link


def test_each_model_name_is_shown_with_what_it_costs_now(alice, routes):
    said = page(client_of(alice))

    assert 'value="gpt-4o-mini" data-price="$0.150 in, $0.600 out" selected' in said
    assert 'value="small" data-price="no price"' in said


def test_a_switched_off_route_is_not_offered(alice, routes):
    Route.objects.filter(model_name="small").update(enabled=False)

    assert 'value="small"' not in page(client_of(alice))


def test_the_address_says_what_is_asked_for(alice, routes):
    said = page(client_of(alice), "/playground/?model=small&with=gpt-4o-mini&temperature=0.7&max_tokens=50")

    assert '<option value="small" data-price="no price" selected>' in said
    assert said.count(" selected>") == 2  # model name and comparison
    assert 'id="temperature" type="number" min="0" max="2" step="0.1" value="0.7"' in said
    assert 'id="max_tokens" type="number" min="1" step="1" value="50"' in said


@pytest.mark.parametrize("nonsense", ["temperature=9", "temperature=nan", "max_tokens=-1", "max_tokens=x"])
def test_what_makes_no_sense_in_the_address_is_left_out(alice, routes, nonsense):
    said = page(client_of(alice), f"/playground/?model=no-such&with=<script>&{nonsense}")

    assert 'value="gpt-4o-mini" data-price="$0.150 in, $0.600 out" selected' in said
    assert "<script>&" not in said
    assert said.count('value="" placeholder') == 2


def test_the_page_takes_twelve_queries_at_most(alice, routes):
    """Session, person, teams, roles, routes, targets, exchange rates, prices, and two for every page."""
    client = client_of(alice)
    page(client)

    with CaptureQueriesContext(connection) as queries:
        page(client)

    assert len(queries) <= 12


def test_an_archived_team_has_no_playground(alice, administrator, team, routes):
    client = client_of(alice)
    services.archive_team(team, by=administrator)

    assert "You are on no team yet" in page(client)
    page(client, "/playground/?team=hydro", status=404)
    answer = client.post("/playground/hydro/key/")
    assert (answer.status_code, "archived" in answer.json()["message"]) == (409, True)


def test_a_key_is_made_for_an_hour_and_told_once(alice, team):
    answer = client_of(alice).post("/playground/hydro/key/")

    assert answer.status_code == 200
    assert answer["Cache-Control"] == "no-store"
    assert answer.json()["lasts_s"] == 3600
    key = ApiKey.objects.get()
    assert (key.kind, key.created_by, key.team, key.tags) == (
        "playground",
        alice,
        team,
        {"source": "playground"},
    )
    assert keys.take_apart(answer.json()["api_key"]).public_id == key.secrets.get().public_id


def test_no_key_is_made_by_another_site_or_by_looking(alice, team):
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(alice)

    assert strict.post("/playground/hydro/key/").status_code == 403
    assert strict.get("/playground/hydro/key/").status_code == 405
    assert not ApiKey.objects.exists()


def test_signing_out_ends_the_key(alice, team):
    client = client_of(alice)
    client.post("/playground/hydro/key/")

    client.post("/accounts/logout/")

    assert ApiKey.objects.get().revoked_at is not None


def test_who_asks_for_ever_more_keys_is_told_to_wait(alice, team):
    client = client_of(alice)
    answers = [client.post("/playground/hydro/key/") for _ in range(21)]

    assert [each.status_code for each in answers] == [200] * 20 + [429]
    assert "at most 20 keys an hour" in answers[-1].json()["message"]
    assert ApiKey.objects.count() == 20
