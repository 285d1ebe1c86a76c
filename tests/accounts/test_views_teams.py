"""The page of a team: invitations, roles, limits, webhooks, and the team itself."""

import dataclasses
import html
import re
from datetime import timedelta

import pytest
from django.contrib.auth import get_user
from django.contrib.messages import get_messages
from django.test import Client
from django.utils import timezone

from accounts import notices, services, webhooks
from accounts.models import Invitation, Membership, Outbox, Quota, RateLimit, Team, User, Webhook
from tests.accounts.conftest import PASSWORD
from tests.accounts.pages import inline_parts

NEW_PASSWORD = "a fine long phrase 7"


def text_of(response) -> str:
    return html.unescape(response.content.decode())


def said(response) -> list[str]:
    return [str(message) for message in get_messages(response.wsgi_request)]


def once(client: Client) -> str:
    return re.search(r'name="once" value="([^"]+)"', text_of(client.get("/teams/search/invite/")))[1]


def link_on(page: str) -> str:
    return re.search(r'id="link">[^<]*(/invitations/[^<]+)<', page)[1]


PAGES = ["", "archive/", "leave/", "hand-over/", "invite/", "rate-limit/", "quota/", "webhooks/"]
WRITES = ["rename/", "restore/"]


@pytest.mark.parametrize("page", PAGES)
def test_pages_hold_nothing_inline_and_take_few_queries(
    as_, team, alice, page, django_assert_max_num_queries
):
    services.invite(team, alice, "member", "new@example.com")
    services.set_quota(team, "tokens", 1000, by_administrator=False)
    webhooks.add_webhook(team, "https://example.com/hook", alice)
    client = as_(alice)
    with django_assert_max_num_queries(12):
        response = client.get(f"/teams/search/{page}")
    assert response.status_code == 200
    assert inline_parts(response.content.decode()) == []


@pytest.mark.parametrize("page", [*PAGES, *WRITES])
def test_pages_of_another_team_are_not_there(as_, team, charlie, page):
    client = as_(charlie)
    assert client.get(f"/teams/search/{page}").status_code in (404, 405)
    assert client.post(f"/teams/search/{page}").status_code == 404


@pytest.mark.parametrize("page", [each for each in [*PAGES, *WRITES] if each != "leave/"])
def test_what_an_owner_does_is_not_for_members(as_, team, bob, vera, page):
    for person in (bob, vera):
        response = as_(person).post(f"/teams/search/{page}")
        assert response.status_code == 403
        assert "owner" in text_of(response)


class TestInvitations:
    def invite(self, client: Client, **form) -> object:
        right = {"once": once(client), "email": "", "role": "member", "days": "7"}
        return client.post("/teams/search/invite/", right | form)

    def link(self, client: Client, **form) -> str:
        return link_on(text_of(self.invite(client, **form)))

    def test_by_mail_are_sent_and_listed(self, as_, team, alice):
        client = as_(alice)
        response = self.invite(client, email="New@Example.com", role="viewer")
        assert response["Location"] == "/teams/search/"
        mail = Outbox.objects.get()
        assert mail.email == "new@example.com"
        page = text_of(client.get("/teams/search/"))
        assert "new@example.com" in page
        token = re.search(r"/invitations/([^/]+)/", notices.text_of(mail))[1]
        assert token not in page

    @pytest.mark.parametrize(
        ("email_url", "sentence"),
        [("smtp://mail.example.com", "is on its way to new@example.com"), ("", "is written to VAR_DIR/mail")],
    )
    def test_by_mail_say_where_the_mail_goes(self, as_, team, alice, settings, email_url, sentence):
        settings.ENV = dataclasses.replace(settings.ENV, email_url=email_url)
        assert sentence in said(self.invite(as_(alice), email="new@example.com"))[0]

    def test_by_link_are_shown_once(self, as_, team, alice):
        client = as_(alice)
        response = self.invite(client)
        path = link_on(text_of(response))
        assert inline_parts(response.content.decode()) == []
        assert path not in text_of(client.get("/teams/search/"))
        assert Client().get(path)["Location"] == f"/accounts/login/?next={path}"

    def test_are_not_made_again_by_a_reload(self, as_, team, alice):
        client = as_(alice)
        form = {"once": once(client), "email": "", "role": "member", "days": "7"}
        client.post("/teams/search/invite/", form)
        assert client.post("/teams/search/invite/", form)["Location"] == "/teams/search/"
        assert Invitation.objects.count() == 1

    @pytest.mark.parametrize(
        ("wrong", "sentence"),
        [
            ({"email": "bob@example.com"}, "is in Search already"),
            ({"email": "no address"}, "Enter a valid email address"),
            ({"role": "emperor"}, "not one of the available choices"),
            ({"days": "99"}, "not one of the available choices"),
        ],
    )
    def test_that_cannot_be_are_told(self, as_, team, alice, wrong, sentence):
        client = as_(alice)
        response = self.invite(client, **wrong)
        assert response.status_code == 422
        assert sentence in text_of(response)
        again = re.search(r'name="once" value="([^"]+)"', text_of(response))[1]
        form = {"once": again, "email": "", "role": "member", "days": "7"}
        assert client.post("/teams/search/invite/", form).status_code == 200, "the form can be sent again"

    def test_are_accepted_by_one_button(self, as_, team, alice, charlie):
        path, client = self.link(as_(alice)), as_(charlie)
        assert "Join Search" in text_of(client.get(path))
        assert not Membership.objects.filter(user=charlie).exists()
        assert client.post(path)["Location"] == "/teams/search/"
        assert Membership.objects.get(user=charlie).role == "member"

    def test_are_accepted_after_signing_in(self, team, as_, alice, charlie):
        path, browser = self.link(as_(alice)), Client()
        sign_in = browser.get(path)["Location"]
        response = browser.post(sign_in, {"login": "charlie@example.com", "password": PASSWORD, "next": path})
        assert response["Location"] == path
        assert "Join the team" in text_of(browser.get(path))

    def test_of_somebody_else_cannot_be_accepted(self, as_, team, alice, charlie):
        _, token = services.invite(team, alice, "member", "new@example.com")
        client = as_(charlie)
        assert "is for new@example.com" in text_of(client.get(f"/invitations/{token}/"))
        assert "is for new@example.com" in said(client.post(f"/invitations/{token}/"))[0]
        assert not Membership.objects.filter(user=charlie).exists()

    def test_make_an_account_and_sign_it_in(self, team, alice):
        _, token = services.invite(team, alice, "member", "new@example.com")
        browser = Client()
        response = browser.get(f"/invitations/{token}/")
        assert "Choose a password" in text_of(response)
        assert inline_parts(response.content.decode()) == []
        browser.get("/accounts/login/")
        session = browser.session
        session["left by a stranger"] = "here"
        session.save()
        before = session.session_key
        browser.cookies["sessionid"] = before

        form = {"password": NEW_PASSWORD, "again": NEW_PASSWORD}
        response = browser.post(f"/invitations/{token}/", form)

        assert response["Location"] == "/teams/search/"
        made = get_user(browser)
        assert made == User.objects.get(email="new@example.com")
        assert made.check_password(NEW_PASSWORD)
        assert Membership.objects.get(user=made).role == "member"
        assert browser.session.session_key != before
        assert browser.get("/teams/search/").status_code == 200

    @pytest.mark.parametrize(
        ("password", "again", "sentence"),
        [
            ("short", "short", "too short"),
            ("password123", "password123", "too common"),
            (NEW_PASSWORD, "another long phrase 8", "The two passwords differ"),
            ("new@example.com", "new@example.com", "too similar"),
            ("", "", "This field is required"),
        ],
    )
    def test_make_no_account_with_a_bad_password(self, team, alice, password, again, sentence):
        _, token = services.invite(team, alice, "member", "new@example.com")
        response = Client().post(f"/invitations/{token}/", {"password": password, "again": again})
        assert response.status_code == 422
        assert sentence in text_of(response)
        assert not User.objects.filter(email="new@example.com").exists()

    def test_to_an_address_with_an_account_ask_to_sign_in(self, team, alice, charlie):
        _, token = services.invite(team, alice, "member", charlie.email)
        path = f"/invitations/{token}/"
        for ask in (Client().get, Client().post):
            assert ask(path)["Location"] == f"/accounts/login/?next={path}"

    def test_that_are_not_open_all_answer_alike(self, as_, team, alice, charlie):
        used, withdrawn, expired = (services.invite(team, alice, "member") for _ in range(3))
        services.accept_invitation(used[1], charlie)
        services.withdraw_invitation(withdrawn[0])
        Invitation.objects.filter(pk=expired[0].pk).update(expires_at=timezone.now() - timedelta(1))
        tokens = [used[1], withdrawn[1], expired[1], "nothing", "ü" * 500]
        for client in (Client(), as_(charlie)):
            answers = [client.get(f"/invitations/{token}/") for token in tokens]
            assert [each.status_code for each in answers] == [404] * len(tokens)
            assert all("not open any more" in text_of(each) for each in answers)
            assert all("Search" not in text_of(each) for each in answers)

    def test_cannot_be_tried_without_end(self, team):
        tries = [Client().get(f"/invitations/{number}/").status_code for number in range(31)]
        assert tries == [404] * 30 + [429]

    def test_are_counted_by_who_tries_and_not_by_the_proxy(self, team, settings):
        settings.ENV = dataclasses.replace(settings.ENV, trusted_proxies=("127.0.0.1",))
        tries = [
            Client(headers={"X-Forwarded-For": f"192.0.2.{number}"}).get("/invitations/x/").status_code
            for number in range(32)
        ]
        assert tries == [404] * 32

    def test_are_withdrawn(self, as_, team, alice):
        made, token = services.invite(team, alice, "member")
        as_(alice).post(f"/teams/search/invitations/{made.pk}/withdraw/")
        assert services.open_invitation(token) is None

    def test_of_another_team_are_not_withdrawn(self, as_, team, alice, bob, charlie):
        services.create_team("Billing", charlie)
        made, token = services.invite(team, alice, "member")
        assert as_(charlie).post(f"/teams/billing/invitations/{made.pk}/withdraw/").status_code == 404
        assert as_(bob).post(f"/teams/search/invitations/{made.pk}/withdraw/").status_code == 403
        assert services.open_invitation(token) is not None


class TestTheTeamItself:
    def test_is_renamed(self, as_, team, alice, charlie):
        services.create_team("Billing", charlie)
        client = as_(alice)
        client.post("/teams/search/rename/", {"name": "Find"})
        assert Team.objects.get(slug="search").name == "Find"
        assert "There is a team called" in said(client.post("/teams/search/rename/", {"name": "billing"}))[-1]
        assert "1 to 100" in said(client.post("/teams/search/rename/", {"name": "x" * 101}))[-1]
        assert Team.objects.get(slug="search").name == "Find"

    def test_is_archived_after_a_question_and_restored(self, as_, team, alice):
        client = as_(alice)
        assert "Archive Search?" in text_of(client.get("/teams/search/archive/"))
        client.post("/teams/search/archive/")
        team.refresh_from_db()
        assert team.archived_at is not None
        page = text_of(client.get("/teams/search/"))
        assert "Archived" in page
        assert "Invite somebody" not in page
        assert "/teams/search/quota/" not in page
        assert "Make a key" not in text_of(client.get("/keys/"))
        client.post("/teams/search/restore/")
        team.refresh_from_db()
        assert team.archived_at is None

    def test_is_left_after_a_question(self, as_, team, bob):
        client = as_(bob)
        assert "Leave Search?" in text_of(client.get("/teams/search/leave/"))
        assert client.post("/teams/search/leave/")["Location"] == "/teams/"
        assert not Membership.objects.filter(user=bob).exists()

    def test_is_not_left_by_its_last_owner_or_by_who_is_not_in_it(self, as_, team, alice, ada):
        assert "needs an owner" in said(as_(alice).post("/teams/search/leave/"))[0]
        assert as_(ada).post("/teams/search/leave/").status_code == 403
        assert Membership.objects.filter(user=alice).exists()

    def test_is_handed_over(self, as_, team, alice, bob):
        client = as_(alice)
        page = text_of(client.get("/teams/search/hand-over/"))
        assert "bob@example.com" in page
        assert "charlie@example.com" not in page
        client.post("/teams/search/hand-over/", {"to": bob.pk})
        roles = dict(Membership.objects.filter(team=team).values_list("user__email", "role"))
        assert roles == {
            "alice@example.com": "member",
            "bob@example.com": "owner",
            "vera@example.com": "viewer",
        }

    def test_is_handed_over_to_a_member_only(self, as_, team, alice, charlie):
        response = as_(alice).post("/teams/search/hand-over/", {"to": charlie.pk})
        assert response.status_code == 422
        assert not Membership.objects.filter(user=charlie).exists()

    def test_shows_an_owner_the_way_to_its_audit(self, as_, team, alice, bob):
        assert "/audit/?team=search" in text_of(as_(alice).get("/teams/search/"))
        assert "/audit/" not in text_of(as_(bob).get("/teams/search/"))


class TestLimits:
    @pytest.mark.parametrize(
        ("page", "which"), [("rate-limit/", "kind and route"), ("quota/", "kind and period")]
    )
    def test_say_which_one_they_replace(self, as_, team, alice, page, which):
        assert f"the same {which} is replaced" in text_of(as_(alice).get(f"/teams/search/{page}"))

    def test_are_set_by_an_owner_and_shown_to_all(self, as_, team, alice, vera):
        form = {"kind": "requests", "amount": "1000", "period": "day", "zone": "UTC", "warn_at": "50"}
        as_(alice).post("/teams/search/quota/", form)
        as_(alice).post("/teams/search/rate-limit/", {"kind": "concurrent", "amount": "20"})
        page = text_of(as_(vera).get("/teams/search/"))
        assert "1,000 requests a day" in page
        assert "20 calls at once" in page
        assert not Quota.objects.get().by_administrator

    def test_set_by_an_administrator_are_shown_as_such(self, as_, team, alice, ada):
        as_(ada).post("/teams/search/rate-limit/", {"kind": "tokens", "amount": "100000"})
        page = text_of(as_(alice).get("/teams/search/"))
        assert "set by an administrator" in page
        assert "?change=" not in page
        assert f"?change={RateLimit.objects.get().pk}" in text_of(as_(ada).get("/teams/search/"))


class TestWebhooks:
    @pytest.fixture
    def webhook(self, team, alice) -> Webhook:
        return webhooks.add_webhook(team, "https://example.com/hook", alice)

    def test_are_added(self, as_, team, alice):
        as_(alice).post("/teams/search/webhooks/", {"url": "https://example.com/hook"})
        made = Webhook.objects.get()
        assert (made.team, made.url, made.enabled) == (team, "https://example.com/hook", True)

    @pytest.mark.parametrize(
        "url", ["", "ftp://example.com", "https://user@example.com", "javascript:alert(1)"]
    )
    def test_have_a_web_address(self, as_, team, alice, url):
        response = as_(alice).post("/teams/search/webhooks/", {"url": url})
        assert response.status_code == 422
        assert not Webhook.objects.exists()

    def test_show_their_secret_to_owners_only(self, as_, webhook, alice, bob):
        secret = webhooks.secret_of(webhook)
        assert secret in text_of(as_(alice).get("/teams/search/"))
        page = text_of(as_(bob).get("/teams/search/"))
        assert secret not in page
        assert "example.com/hook" not in page

    def test_are_switched_and_removed(self, as_, webhook, alice):
        client, path = as_(alice), f"/teams/search/webhooks/{webhook.pk}"
        client.post(f"{path}/switch/", {"enabled": "off"})
        webhook.refresh_from_db()
        assert not webhook.enabled
        assert (
            said(client.post(f"{path}/switch/", {"enabled": "maybe"}))[-1]
            == "A webhook is switched on or off."
        )
        client.post(f"{path}/remove/")
        assert not Webhook.objects.exists()

    def test_of_another_team_are_not_there(self, as_, webhook, charlie, bob):
        services.create_team("Billing", charlie)
        for change in ("switch", "remove"):
            path = f"webhooks/{webhook.pk}/{change}/"
            assert as_(charlie).post(f"/teams/billing/{path}").status_code == 404
            assert as_(bob).post(f"/teams/search/{path}").status_code == 403
        assert Webhook.objects.exists()
