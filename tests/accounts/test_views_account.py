"""One's own account: access tokens."""

import html
import re
from datetime import timedelta

import pytest
from django.contrib.messages import get_messages
from django.test import Client
from django.utils import timezone

from accounts import tokens
from accounts.models import AccessToken
from tests.accounts.pages import inline_parts


def text_of(response) -> str:
    return html.unescape(response.content.decode())


def form(client: Client, **more) -> dict[str, object]:
    page = text_of(client.get("/account/tokens/new/"))
    mark = re.search(r'name="once" value="([^"]+)"', page)[1]
    return {"once": mark, "name": "report", "scopes": ["read", "keys"], "expires": "30"} | more


def test_an_access_token_is_shown_once_and_works(as_, alice):
    client = as_(alice)
    response = client.post("/account/tokens/new/", form(client))
    text = re.search(r'id="token">(pat_\w+)<', text_of(response))[1]
    made = AccessToken.objects.get()
    assert tokens.token_owner(text, timezone.now()) == made
    assert made.scopes == ["read", "keys"]
    assert abs(made.expires_at - timezone.now() - timedelta(days=30)) < timedelta(minutes=1)
    assert inline_parts(response.content.decode()) == []
    page = text_of(client.get("/account/"))
    assert "report" in page
    assert text not in page


def test_an_access_token_is_not_made_again_by_a_reload(as_, alice):
    client = as_(alice)
    sent = form(client)
    client.post("/account/tokens/new/", sent)
    again = client.post("/account/tokens/new/", sent)
    assert again["Location"] == "/account/"
    assert "sent already" in str(next(iter(get_messages(again.wsgi_request))))
    assert AccessToken.objects.count() == 1


@pytest.mark.parametrize(
    "wrong", [{"scopes": []}, {"scopes": ["everything"]}, {"name": " "}, {"expires": "7"}]
)
def test_an_access_token_that_cannot_be_is_not_made(as_, alice, wrong):
    client = as_(alice)
    response = client.post("/account/tokens/new/", form(client, **wrong))
    assert response.status_code == 422
    assert 'class="field-errors"' in text_of(response)
    assert not AccessToken.objects.exists()


def test_an_access_token_belongs_to_who_made_it_whatever_the_form_says(as_, alice, bob):
    client = as_(alice)
    client.post("/account/tokens/new/", form(client, user=bob.pk, public_id="x"))
    assert AccessToken.objects.get().user == alice


def test_an_access_token_is_revoked_after_a_question(as_, alice):
    token, text = tokens.make_token(alice, "report", ["read"])
    client, path = as_(alice), f"/account/tokens/{token.pk}/revoke/"
    assert "Revoke report?" in text_of(client.get(path))
    assert tokens.token_owner(text, timezone.now()) is not None
    assert client.post(path)["Location"] == "/account/"
    assert tokens.token_owner(text, timezone.now()) is None
    assert "Revoked" in text_of(client.get("/account/"))


def test_an_access_token_of_somebody_else_is_not_there(as_, alice, ada):
    token, text = tokens.make_token(alice, "report", ["read"])
    for ask in (as_(ada).get, as_(ada).post):
        assert ask(f"/account/tokens/{token.pk}/revoke/").status_code == 404
    assert "report" not in text_of(as_(ada).get("/account/"))
    assert tokens.token_owner(text, timezone.now()) is not None


@pytest.mark.parametrize("path", ["/account/", "/account/tokens/new/", "/account/tokens/{token}/revoke/"])
def test_pages_hold_nothing_inline_and_take_few_queries(as_, alice, path, django_assert_max_num_queries):
    made = [tokens.make_token(alice, f"report {number}", ["read"])[0] for number in range(10)]
    client = as_(alice)
    with django_assert_max_num_queries(12):
        response = client.get(path.format(token=made[0].pk))
    assert response.status_code == 200
    assert inline_parts(response.content.decode()) == []
