"""The page of the audit."""

import csv
import html
import io
import re
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from accounts import services
from accounts.actor import Actor, acting_as
from accounts.models import AuditEvent
from tests.accounts.pages import inline_parts


def text_of(response) -> str:
    return html.unescape(response.content.decode())


def subjects(page: str) -> list[str]:
    return re.findall(r"</strong> · (.*?)(?: <span|</span>)", page)


@pytest.fixture
def billing(charlie):
    with acting_as(Actor("person", "charlie@example.com", charlie.pk)):
        return services.create_team("Billing", charlie)


def test_says_who_did_what_from_where_with_before_and_after(as_, team, alice):
    with acting_as(Actor("person", "alice@example.com", alice.pk, "192.0.2.7", "Firefox")):
        services.rename_team(team, "Find")
    page = text_of(as_(alice).get("/audit/"))
    assert "Team renamed" in page
    assert "alice@example.com from 192.0.2.7" in page
    assert "Firefox" in page
    assert "<del>Search</del>" in page
    assert "<ins>Find</ins>" in page


def test_what_a_page_changed_is_told_with_the_readers_name(as_, team, alice):
    as_(alice).post("/teams/search/rename/", {"name": "Find"}, HTTP_USER_AGENT="Lynx")
    event = AuditEvent.objects.get(action="team.renamed")
    assert (event.actor_name, event.actor_id, event.address) == ("alice@example.com", alice.pk, "127.0.0.1")
    assert event.user_agent == "Lynx"


def test_shows_owners_their_teams_and_administrators_all(as_, team, billing, alice, charlie, ada):
    assert "Billing" not in text_of(as_(alice).get("/audit/"))
    assert "Search" not in text_of(as_(charlie).get("/audit/"))
    everything = text_of(as_(ada).get("/audit/"))
    assert "Billing" in everything
    assert "Search" in everything


def test_is_not_for_members(as_, team, bob, vera):
    for person in (bob, vera):
        response = as_(person).get("/audit/")
        assert response.status_code == 403
        assert "for its owners" in text_of(response)


def test_of_another_team_is_not_there(as_, team, billing, alice, charlie):
    assert as_(alice).get("/audit/?team=billing").status_code == 404
    services.add_member(billing, alice, "member")
    assert as_(alice).get("/audit/?team=billing").status_code == 403


def test_asks_who_you_are(db):
    assert Client().get("/audit/")["Location"] == "/accounts/login/?next=/audit/"


def test_finds_by_team_person_action_subject_and_day(as_, team, billing, alice, ada):
    key, _ = services.create_key(team, "web", alice)
    with acting_as(Actor("person", "bob@example.com")):
        services.update_key(key, {"name": "api"})
    client, today = as_(ada), timezone.now().date()

    def found(query: str) -> list[str]:
        return subjects(text_of(client.get(f"/audit/?{query}")))

    assert found("team=billing") == ["Billing"]
    assert found("actor=BOB@example.com") == ["api"]
    assert found("action=key") == ["api", "web"]
    assert found("action=key.changed") == ["api"]
    assert found(f"subject_kind=apikey&subject_id={key.pk}") == ["api", "web"]
    tomorrow, yesterday = today + timedelta(1), today - timedelta(1)
    assert found(f"since={yesterday}&until={tomorrow}&action=key.changed") == ["api"]
    assert found(f"since={tomorrow + timedelta(1)}") == []
    assert found(f"until={yesterday - timedelta(1)}") == []


@pytest.mark.parametrize("query", ["since=never", "until=2020-13-01", "subject_kind=soul"])
def test_says_what_it_cannot_read(as_, team, alice, query):
    response = as_(alice).get(f"/audit/?{query}")
    assert response.status_code == 422
    assert 'class="field-errors"' in text_of(response)


@pytest.mark.parametrize("query", ["until=9999-12-31", "before=9" * 30, "before=-1", "before=x", "actor=%00"])
def test_stands_odd_questions(as_, team, alice, query):
    assert as_(alice).get(f"/audit/?{query}").status_code in (200, 422)


def test_comes_in_pages_that_new_events_do_not_shift(as_, team, alice):
    key, _ = services.create_key(team, "web", alice)
    for number in range(60):
        services.update_key(key, {"name": f"name {number:02}"})
    client = as_(alice)
    first = text_of(client.get("/audit/?action=key.changed"))
    assert subjects(first) == [f"name {number:02}" for number in range(59, 9, -1)]
    onward = re.search(r'href="(/audit/\?[^"]+)" rel="next"', first)[1]
    services.update_key(key, {"name": "newer"})
    second = text_of(client.get(onward))
    assert subjects(second) == [f"name {number:02}" for number in range(9, -1, -1)]
    assert 'rel="next"' not in second
    assert "newer" in text_of(client.get(re.search(r'href="([^"]+)">The latest', second)[1]))


def test_takes_the_same_few_queries_however_much_happened(as_, team, alice, django_assert_max_num_queries):
    key, _ = services.create_key(team, "web", alice)
    for number in range(60):
        services.update_key(key, {"name": f"name {number}"})
    client = as_(alice)
    for query in ("", "?team=search"):
        with django_assert_max_num_queries(12):
            response = client.get(f"/audit/{query}")
        assert inline_parts(response.content.decode()) == []


def test_escapes_what_others_wrote(as_, team, alice):
    key, _ = services.create_key(team, "<script>alert(1)</script>", alice)
    services.update_key(key, {"tags": {"a": "<b>"}})
    page = as_(alice).get("/audit/").content.decode()
    assert "<script>alert" not in page
    assert "<b>" not in page


def test_is_exported_as_asked_with_nothing_that_a_spreadsheet_runs(as_, team, billing, alice, ada):
    services.create_key(team, "=cmd|'/c calc'!A1", alice)
    client = as_(ada)
    link = re.search(r'href="([^"]+)">Export as CSV', text_of(client.get("/audit/?team=search&action=key")))[
        1
    ]
    response = client.get(link)
    assert response["Content-Type"].startswith("text/csv")
    [row] = csv.DictReader(io.StringIO(b"".join(response.streaming_content).decode()))
    assert row["action"] == "key.created"
    assert row["subject_name"].endswith("=cmd|'/c calc'!A1")
    assert row["subject_name"][0] not in "=+-@"
