"""Pages are in the language that their reader chose, or that the browser asks for."""

import pytest
from django.test import Client


@pytest.fixture
def client(alice):
    made = Client()
    made.force_login(alice)
    return made


def language_of(client, **headers):
    answer = client.get("/keys/", headers=headers)
    assert f'<html lang="{answer["Content-Language"]}" ' in answer.content.decode()
    return answer["Content-Language"]


def test_the_browser_is_asked(client):
    assert language_of(client) == "en"
    assert language_of(client, accept_language="ja,en;q=0.5") == "ja"
    assert language_of(client, accept_language="tlh") == "en"


def test_a_choice_is_kept_with_the_person_wherever_they_sign_in(client, alice):
    answer = client.post("/language/", {"language": "ja", "next": "/keys/"})

    assert (answer.status_code, answer["Location"]) == (302, "/keys/")
    elsewhere = Client()
    elsewhere.force_login(alice)
    assert language_of(elsewhere, accept_language="en") == "ja"


def test_who_is_not_signed_in_may_choose(db):
    client = Client()
    client.post("/language/", {"language": "ja"})

    assert client.get("/accounts/login/")["Content-Language"] == "ja"


def test_what_is_not_offered_is_not_taken(client, alice):
    client.post("/language/", {"language": "tlh", "next": "https://elsewhere.example/"})

    alice.refresh_from_db()
    assert alice.language == ""
    assert language_of(client) == "en"


def test_nobody_is_sent_to_another_site(client):
    assert (
        client.post("/language/", {"language": "ja", "next": "https://elsewhere.example/"})["Location"] == "/"
    )
