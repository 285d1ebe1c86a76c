"""One's own account: access tokens."""

import html
import re
from datetime import timedelta

import pytest
from django.contrib.messages import get_messages
from django.test import Client
from django.utils import timezone

from accounts import tokens
from accounts.models import AccessToken, AuditEvent
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


def profile(**more) -> dict[str, str]:
    return {"name": "Alice Ríos", "language": "ja", "zone": "asia/tokyo"} | more


def test_a_profile_is_kept_and_pages_follow_it(as_, alice):
    client = as_(alice)
    tokens.make_token(alice, "report", ["read"])

    assert client.post("/account/", profile())["Location"] == "/account/"

    alice.refresh_from_db()
    assert (alice.get_full_name(), alice.language, alice.zone) == ("Alice Ríos", "ja", "Asia/Tokyo")
    page = client.get("/account/")
    assert page["Content-Language"] == "ja"
    assert "JST" in text_of(page)
    event = AuditEvent.objects.get(action="user.profile_changed")
    assert event.before == {"first_name": "", "language": "", "zone": ""}


def test_nobody_chose_utc_and_the_browsers_language_by_an_empty_form(as_, alice):
    client = as_(alice)
    client.post("/account/", profile())
    client.post("/account/", profile(name=" ", language="", zone=""))

    alice.refresh_from_db()
    assert (alice.get_full_name(), alice.language, alice.zone) == ("", "", "")
    assert 'value="UTC"' in text_of(client.get("/account/"))


def test_a_name_in_two_parts_is_left_alone_until_it_is_changed(as_, alice):
    alice.first_name, alice.last_name = "Alice", "Ríos"
    alice.save()
    as_(alice).post("/account/", profile())

    alice.refresh_from_db()
    assert (alice.first_name, alice.last_name) == ("Alice", "Ríos")


@pytest.mark.parametrize("wrong", [{"zone": "Atlantis"}, {"language": "tlh"}, {"name": "a" * 151}])
def test_a_profile_that_cannot_be_is_not_kept(as_, alice, wrong):
    response = as_(alice).post("/account/", profile(**wrong))

    assert response.status_code == 422
    assert 'class="field-errors"' in text_of(response)
    alice.refresh_from_db()
    assert alice.zone == ""


def test_a_profile_says_nothing_of_address_or_rights(as_, alice):
    as_(alice).post("/account/", profile(email="root@example.com", is_superuser="on", is_staff="on"))

    alice.refresh_from_db()
    assert (alice.email, alice.is_superuser, alice.is_staff) == ("alice@example.com", False, False)


@pytest.mark.parametrize(
    ("path", "section"),
    [("2fa/", "sign-in"), ("2fa/webauthn/", "passkeys"), ("sessions/", "sessions")],
)
def test_lists_of_one_account_are_sections_of_its_page(as_, alice, path, section):
    assert as_(alice).get(f"/accounts/{path}")["Location"] == f"/account/#{section}"
    assert f'id="{section}"' in text_of(as_(alice).get("/account/"))
