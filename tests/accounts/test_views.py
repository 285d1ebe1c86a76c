import html
import re
from datetime import timedelta

import pytest
from django.contrib.messages import get_messages
from django.test import Client
from django.utils import timezone

from accounts import keys, services
from accounts.models import ApiKey, KeySecret, Membership
from tests.accounts.pages import inline_parts


def text_of(response) -> str:
    return response.content.decode()


def said(response) -> list[str]:
    return [str(message) for message in get_messages(response.wsgi_request)]


def once(client: Client, query: str = "") -> str:
    return re.search(r'name="once" value="([^"]+)"', text_of(client.get("/keys/new/" + query)))[1]


def key_on(page: str) -> str:
    return re.search(r'id="key">(pst_\w+)<', page)[1]


@pytest.mark.parametrize(
    "path", ["/keys/", "/keys/new/", "/keys/1/revoke/", "/teams/", "/teams/x/", "/account/"]
)
def test_pages_ask_who_you_are(db, path):
    response = Client().get(path)
    assert response.status_code == 302
    assert response["Location"] == f"/accounts/login/?next={path}"


@pytest.mark.parametrize(
    "path",
    [
        "/keys/",
        "/keys/new/",
        "/keys/{key}/revoke/",
        "/teams/",
        "/teams/search/",
        "/teams/search/members/{bob}/remove/",
        "/account/",
    ],
)
def test_pages_hold_no_inline_script_or_style_and_are_not_kept(as_, team, alice, bob, path):
    key, _ = services.create_key(team, "web", alice)
    response = as_(alice).get(path.format(key=key.pk, bob=bob.pk))
    assert response.status_code == 200
    assert inline_parts(text_of(response)) == []
    assert "no-store" in response["Cache-Control"]
    assert "unsafe" not in response["Content-Security-Policy"]


class TestListOfKeys:
    def test_shows_prefix_maker_last_use_and_state(self, as_, team, alice, bob):
        key, _ = services.create_key(team, "web", bob)
        KeySecret.objects.filter(key=key).update(last_used_at=timezone.now() - timedelta(minutes=7))
        page = html.unescape(text_of(as_(alice).get("/keys/")))
        assert f"pst_{key.secrets.get().public_id}…" in page
        assert "bob@example.com" in page
        assert "7\xa0minutes ago" in page
        assert "Active" in page

    def test_shows_nothing_of_a_secret(self, as_, team, alice):
        _, text = services.create_key(team, "web", alice)
        secret = keys.take_apart(text).secret
        digest = bytes(KeySecret.objects.get().digest).hex()
        page = text_of(as_(alice).get("/keys/"))
        assert secret not in page
        assert digest not in page

    def test_shows_own_teams_only(self, as_, team, charlie, alice, ada):
        other = services.create_team("Billing", charlie)
        services.create_key(other, "invoices", charlie)
        services.create_key(team, "web", alice)
        assert "invoices" not in text_of(as_(alice).get("/keys/"))
        assert "web" not in text_of(as_(charlie).get("/keys/"))
        everything = text_of(as_(ada).get("/keys/"))
        assert "invoices" in everything
        assert "web" in everything

    def test_offers_what_the_reader_may_do(self, as_, team, alice, bob, vera):
        mine, _ = services.create_key(team, "bob's", bob)
        theirs, _ = services.create_key(team, "alice's", alice)
        offered = {
            person.email.split("@")[0]: (
                "Make a key" in page,
                f"/keys/{mine.pk}/revoke/" in page,
                f"/keys/{theirs.pk}/revoke/" in page,
            )
            for person in (alice, bob, vera)
            for page in [text_of(as_(person).get("/keys/"))]
        }
        assert offered == {
            "alice": (True, True, True),
            "bob": (True, True, False),
            "vera": (False, False, False),
        }

    def test_takes_nine_queries_however_many_keys(self, as_, team, alice, django_assert_num_queries):
        other = services.create_team("Billing", alice)
        for number in range(10):
            services.create_key(team, f"key {number}", alice)
            services.create_key(other, f"key {number}", alice)
        client = as_(alice)
        # session, reader, places, how many, keys, secrets, marks of rollups, rollups, simulated?
        with django_assert_num_queries(9):
            client.get("/keys/")

    def test_escapes_names(self, as_, team, alice):
        services.create_key(team, "<script>alert(1)</script>", alice)
        assert "<script>alert" not in text_of(as_(alice).get("/keys/"))

    def test_narrows_by_what_the_address_says(self, as_, team, alice, charlie):
        other = services.create_team("Billing", alice)
        for where, name in ((team, "web"), (team, "Webhooks"), (other, "web shop"), (other, "nightly")):
            services.create_key(where, name, alice)
        client = as_(alice)

        def names(question: str) -> list[str]:
            return re.findall(r'/keys/\d+/"><strong>([^<]+)', text_of(client.get(f"/keys/{question}")))

        assert names("?q=WEB") == ["web shop", "Webhooks", "web"]
        assert names("?q=web&team=search") == ["Webhooks", "web"]
        assert names("?state=revoked") == []
        assert names("?team=nope&state=nope&page=nope") == names("")

    def test_says_what_to_do_where_nothing_is_found(self, as_, team, alice, bob, vera):
        assert "Make one, and a program can call in a minute." in text_of(as_(bob).get("/keys/"))
        assert 'data-state="forbidden"' in text_of(as_(vera).get("/keys/"))
        assert "No key is like this" in text_of(as_(alice).get("/keys/?q=nothing"))

    def test_answers_a_part_with_the_address_that_shows_the_same(self, as_, team, alice):
        services.create_key(team, "web", alice)
        asked = as_(alice).get("/keys/?q=web&team=&state=", headers={"HX-Request": "true"})
        assert asked["HX-Push-Url"] == "/keys/?q=web"
        assert "HX-Push-Url" not in as_(alice).get("/keys/?q=web")

    def test_comes_fifty_to_a_page_in_as_many_queries(self, as_, team, alice, django_assert_max_num_queries):
        ApiKey.objects.bulk_create(ApiKey(team=team, name=f"key {number}") for number in range(120))
        services.rotate_key(services.create_key(team, "rotated", alice)[0], alice)
        client = as_(alice)
        for page, shown in (("", 50), ("?page=3", 21), ("?page=9", 21), ("?q=key&page=2", 50)):
            with django_assert_max_num_queries(12):
                found = text_of(client.get(f"/keys/{page}"))
            assert found.count('class="lead"') == shown
        assert "101 to 121 of 121" in text_of(client.get("/keys/?page=3"))

    def test_tells_who_is_in_no_team_what_to_do(self, as_, charlie):
        assert "You are in no team yet" in text_of(as_(charlie).get("/keys/"))


class TestNewKey:
    def test_is_shown_once_with_snippets_that_use_it(self, as_, team, alice):
        client = as_(alice)
        response = client.post(
            "/keys/new/", {"team": "search", "name": "web", "expires": "", "once": once(client)}
        )
        page = html.unescape(text_of(response))
        shown = key_on(page)

        assert response.status_code == 200
        assert response["Cache-Control"] == "no-store"
        assert inline_parts(text_of(response)) == []
        assert KeySecret.objects.get().public_id == keys.take_apart(shown).public_id
        assert f'curl http://testserver/v1/chat/completions \\\n  -H "Authorization: Bearer {shown}"' in page
        assert f'base_url="http://testserver/v1",\n    api_key="{shown}"' in page
        assert f'baseURL: "http://testserver/v1",\n  apiKey: "{shown}"' in page
        assert shown not in text_of(client.get("/keys/"))

    def test_is_not_made_again_by_a_reload(self, as_, team, alice):
        client = as_(alice)
        form = {"team": "search", "name": "web", "expires": "", "once": once(client)}
        first = key_on(text_of(client.post("/keys/new/", form)))
        again = client.post("/keys/new/", form)
        assert again.status_code == 302
        assert said(again) == [
            "That form was sent already. A key is shown only once; make another if it is lost."
        ]
        assert first not in text_of(client.get(again["Location"]))
        assert ApiKey.objects.count() == 1

    def test_may_be_made_from_two_open_forms(self, as_, team, alice):
        client = as_(alice)
        marks = [once(client), once(client)]
        for mark in marks:
            client.post("/keys/new/", {"team": "search", "name": "web", "expires": "", "once": mark})
        assert ApiKey.objects.count() == 2

    def test_may_expire(self, as_, team, alice):
        client = as_(alice)
        client.post("/keys/new/", {"team": "search", "name": "web", "expires": "30", "once": once(client)})
        key = ApiKey.objects.get()
        assert key.expires_at - key.created_at == pytest.approx(timedelta(days=30), abs=timedelta(minutes=1))

    def test_starts_with_the_team_that_was_asked_for(self, as_, team, alice):
        services.create_team("Billing", alice)
        assert 'value="search" selected' in text_of(as_(alice).get("/keys/new/?team=search"))

    @pytest.mark.parametrize(("asked", "kept"), [("batch", "batch"), ("normal", "normal"), ("", "normal")])
    def test_may_be_for_batch_calls_alone(self, as_, team, alice, asked, kept):
        client = as_(alice)
        form = {"team": "search", "name": "web", "expires": "", "once": once(client)}
        client.post("/keys/new/", form | {"priority_ceiling": asked})
        assert ApiKey.objects.get().priority_ceiling == kept

    @pytest.mark.parametrize(
        "wrong",
        [
            *({"name": " "}, {"name": "x" * 101}, {"expires": "7000"}, {"team": "nope"}),
            {"priority_ceiling": "urgent"},  # nobody goes before others by their own choice
        ],
    )
    def test_is_not_made_from_a_wrong_form(self, as_, team, alice, wrong):
        client = as_(alice)
        right = {"team": "search", "name": "web", "expires": "", "once": once(client)}
        response = client.post("/keys/new/", right | wrong)
        assert response.status_code == 422
        assert 'class="field-errors"' in text_of(response)
        assert not ApiKey.objects.exists()

    def test_of_another_team_cannot_be_made(self, as_, team, charlie):
        services.create_team("Billing", charlie)
        client = as_(charlie)
        response = client.post(
            "/keys/new/", {"team": "search", "name": "web", "expires": "", "once": once(client)}
        )
        assert response.status_code == 422
        assert not ApiKey.objects.exists()

    def test_cannot_be_made_by_a_viewer(self, as_, team, vera):
        response = as_(vera).post("/keys/new/", {"team": "search", "name": "web", "expires": "", "once": "x"})
        assert response.status_code == 403
        assert "Your role does not allow you to make API keys" in text_of(response)
        assert not ApiKey.objects.exists()


class TestRevoking:
    @pytest.fixture
    def key(self, team, alice) -> ApiKey:
        return services.create_key(team, "web", alice)[0]

    def test_asks_first(self, as_, key, alice):
        page = text_of(as_(alice).get(f"/keys/{key.pk}/revoke/"))
        assert "Revoke web?" in page
        assert "streams" not in page
        key.refresh_from_db()
        assert key.revoked_at is None

    def test_happens_after_the_answer(self, as_, key, alice):
        response = as_(alice).post(f"/keys/{key.pk}/revoke/")
        assert response["Location"] == "/keys/"
        key.refresh_from_db()
        assert key.revoked_by == alice

    def test_happens_once(self, as_, key, alice):
        client = as_(alice)
        client.post(f"/keys/{key.pk}/revoke/")
        assert "was revoked already" in said(client.post(f"/keys/{key.pk}/revoke/"))[-1]

    def test_needs_the_right(self, as_, key, bob, vera):
        for person in (bob, vera):
            assert as_(person).post(f"/keys/{key.pk}/revoke/").status_code == 403
        key.refresh_from_db()
        assert key.revoked_at is None

    def test_of_another_teams_key_finds_nothing(self, as_, key, charlie):
        for ask in (as_(charlie).get, as_(charlie).post):
            assert ask(f"/keys/{key.pk}/revoke/").status_code == 404
        assert as_(charlie).get("/keys/999999/revoke/").status_code == 404

    def test_needs_the_forms_own_mark(self, key, alice):
        client = Client(enforce_csrf_checks=True)
        client.force_login(alice, backend="django.contrib.auth.backends.ModelBackend")
        response = client.post(f"/keys/{key.pk}/revoke/")
        assert response.status_code == 403
        assert "This form is too old" in text_of(response)


class TestTeams:
    def test_are_listed_with_role_and_counts(self, as_, team, alice):
        services.create_key(team, "web", alice)
        page = text_of(as_(alice).get("/teams/"))
        assert "Search" in page
        assert "Owner" in page
        assert re.search(r'data-label="Members">3<', page)
        assert re.search(r'data-label="Active keys">1<', page)

    def test_are_listed_in_six_queries_however_many(self, as_, alice, django_assert_num_queries):
        for number in range(10):
            services.create_team(f"Team {number}", alice)
        client = as_(alice)
        with django_assert_num_queries(6):  # session, reader, how many, teams with counts, roles, simulated?
            client.get("/teams/")

    def test_are_looked_for_by_a_part_of_their_name(self, as_, ada):
        for name in ("Search", "Research", "Billing"):
            services.create_team(name, ada)
        page = text_of(as_(ada).get("/teams/?q=SEARCH"))
        assert ("Search<" in page, "Research<" in page, "Billing<" in page) == (True, True, False)
        assert "No team is called like this" in text_of(as_(ada).get("/teams/?q=%25"))

    def test_come_fifty_to_a_page(self, as_, alice):
        for number in range(51):
            services.create_team(f"Team {number:02}", alice)
        client = as_(alice)
        first, second = (text_of(client.get(f"/teams/{page}")) for page in ("", "?page=2"))
        assert ("Team 49<" in first, "Team 50<" in first, "Team 50<" in second) == (True, False, True)
        assert 'href="/teams/?page=2"' in first
        assert "Team 50<" in text_of(client.get("/teams/?page=99999")), "the last one"

    def test_are_shown_in_ten_queries(self, as_, team, alice, django_assert_num_queries):
        client = as_(alice)
        # session, reader, team, role, members, invitations, rate limits, quotas, webhooks, simulated?
        with django_assert_num_queries(10):
            page = text_of(client.get("/teams/search/"))
        assert all(f"{name}@example.com" in page for name in ("alice", "bob", "vera"))

    def test_of_others_are_not_there(self, as_, team, charlie, bob):
        client = as_(charlie)
        for path in ("/teams/search/", f"/teams/search/members/{bob.pk}/remove/"):
            assert client.get(path).status_code == 404
            assert client.post(path).status_code == 404
        assert client.post(f"/teams/search/members/{bob.pk}/role/", {"role": "viewer"}).status_code == 404
        assert "Search" not in text_of(client.get("/teams/"))

    def test_show_forms_to_owners_only(self, as_, team, alice, bob):
        assert "Invite somebody" in text_of(as_(alice).get("/teams/search/"))
        assert "<select" not in text_of(as_(bob).get("/teams/search/"))

    def test_take_in_somebody_who_has_an_account(self, as_, team, alice, charlie):
        response = as_(alice).post("/teams/search/", {"email": "Charlie@Example.com", "role": "viewer"})
        assert response["Location"] == "/teams/search/"
        assert Membership.objects.get(user=charlie).role == "viewer"

    @pytest.mark.parametrize(
        ("email", "sentence"),
        [
            ("nobody@example.com", "There is no account with this address"),
            ("bob@example.com", "is in Search already"),
            ("no address", "Enter a valid email address"),
        ],
    )
    def test_say_why_somebody_cannot_be_taken_in(self, as_, team, alice, email, sentence):
        response = as_(alice).post("/teams/search/", {"email": email, "role": "viewer"})
        assert response.status_code == 422
        assert sentence in text_of(response)

    def test_show_an_administrator_the_way_to_a_new_account(self, as_, team, alice, ada):
        form, way = {"email": "nobody@example.com", "role": "viewer"}, 'href="/admin/accounts/user/add/"'
        assert way in text_of(as_(ada).post("/teams/search/", form))
        assert way not in text_of(as_(alice).post("/teams/search/", form))

    def test_change_a_role(self, as_, team, alice, bob):
        as_(alice).post(f"/teams/search/members/{bob.pk}/role/", {"role": "owner"})
        assert Membership.objects.get(user=bob).role == "owner"

    @pytest.mark.parametrize("role", ["viewer", "emperor", ""])
    def test_keep_their_last_owner_and_know_three_roles(self, as_, team, alice, role):
        response = as_(alice).post(f"/teams/search/members/{alice.pk}/role/", {"role": role})
        assert said(response) != []
        assert Membership.objects.get(user=alice).role == "owner"

    def test_are_not_changed_by_members(self, as_, team, bob, vera, charlie):
        client = as_(bob)
        assert client.post("/teams/search/", {"email": charlie.email, "role": "owner"}).status_code == 403
        assert client.post(f"/teams/search/members/{bob.pk}/role/", {"role": "owner"}).status_code == 403
        assert client.post(f"/teams/search/members/{vera.pk}/remove/").status_code == 403
        assert Membership.objects.filter(team=team).count() == 3

    def test_let_somebody_go(self, as_, team, alice, bob):
        client = as_(alice)
        assert "Remove bob@example.com?" in text_of(client.get(f"/teams/search/members/{bob.pk}/remove/"))
        assert Membership.objects.filter(user=bob).exists()
        client.post(f"/teams/search/members/{bob.pk}/remove/")
        assert not Membership.objects.filter(user=bob).exists()

    def test_do_not_let_their_last_owner_go(self, as_, team, alice):
        response = as_(alice).post(f"/teams/search/members/{alice.pk}/remove/")
        assert "needs an owner" in said(response)[0]

    def test_are_left_by_an_owner_who_sees_them_no_more(self, as_, team, alice, bob):
        services.set_role(team, bob, "owner", by=alice)
        response = as_(alice).post(f"/teams/search/members/{alice.pk}/remove/")
        assert response["Location"] == "/teams/"


def test_an_administrator_sees_the_way_to_the_admin(as_, alice, ada):
    assert 'href="/admin/"' not in text_of(as_(alice).get("/account/"))
    assert 'href="/admin/"' in text_of(as_(ada).get("/account/"))


def test_simulated_answers_are_named_on_every_page(as_, alice):
    from gateway.models import Provider

    sentence = "Answers are simulated: no provider is configured."
    client = as_(alice)
    assert sentence not in text_of(client.get("/account/"))
    Provider.objects.create(
        slug="simulator", name="Simulator", base_url="http://127.0.0.1/v1", simulated=True
    )
    assert sentence in text_of(client.get("/account/"))

    Provider.objects.create(slug="acme", name="Acme", base_url="https://acme.example/v1")
    assert sentence not in text_of(client.get("/account/"))
    assert "Some answers are simulated" in text_of(client.get("/account/"))


def test_a_page_that_is_not_there_says_so_in_our_words(as_, alice):
    response = as_(alice).get("/nope/")
    assert response.status_code == 404
    assert "Nothing here" in text_of(response)
    assert inline_parts(text_of(response)) == []
