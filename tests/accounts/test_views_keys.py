"""The page of a key: settings, secrets, rotation, limits."""

import html
import re
from dataclasses import dataclass
from datetime import timedelta

import pytest
from django.contrib.messages import get_messages
from django.test import Client
from django.utils import timezone

from accounts import keys, served, services
from accounts.models import ApiKey, AuditEvent, KeySecret, KeyUse, Quota, RateLimit
from tests.accounts.pages import inline_parts

LATER = timedelta(hours=24)


def text_of(response) -> str:
    return html.unescape(response.content.decode())


def said(response) -> list[str]:
    return [str(message) for message in get_messages(response.wsgi_request)]


def once(client: Client, path: str) -> str:
    return re.search(r'name="once" value="([^"]+)"', text_of(client.get(path)))[1]


def shown(page: str) -> str:
    return re.search(r'id="key">(pst_\w+)<', page)[1]


@pytest.fixture
def key(team, alice) -> ApiKey:
    return services.create_key(team, "nightly index", alice)[0]


@pytest.fixture
def bobs(team, bob) -> ApiKey:
    return services.create_key(team, "bob's", bob)[0]


@dataclass
class Figures:
    spent: int = 0
    held: int = 0
    expired: int = 0


@pytest.fixture
def serving():
    """This process serves two model names and knows what is used of quotas, as the test says."""
    before = served._served
    used: dict[int, Figures] = {}
    served.install(
        lambda: ["gpt-4o", "gpt-4o-mini"], lambda ids: {each: used[each] for each in ids if each in used}
    )
    yield used
    served._served = before


def used_by(secret: KeySecret, address: str, user_agent: str, ago: timedelta = timedelta(0)) -> None:
    at = timezone.now() - ago
    KeyUse.objects.create(
        secret=secret, address=address, user_agent=user_agent, first_used_at=at, last_used_at=at, uses=3
    )


PAGES = ["", "settings/", "rotate/", "revoke/", "rate-limit/", "quota/", "secrets/{secret}/end/"]


class TestPages:
    @pytest.mark.parametrize("page", PAGES)
    def test_hold_nothing_inline_and_take_few_queries(
        self, as_, key, alice, page, django_assert_max_num_queries
    ):
        old = key.secrets.get()
        services.rotate_key(key, alice)
        services.set_quota(key, "tokens", 1000, by_administrator=False)
        client = as_(alice)
        with django_assert_max_num_queries(12):
            response = client.get(f"/keys/{key.pk}/{page.format(secret=old.pk)}")
        assert response.status_code == 200
        assert inline_parts(response.content.decode()) == []

    @pytest.mark.parametrize("page", PAGES)
    def test_of_another_team_are_not_there(self, as_, key, charlie, page):
        path = f"/keys/{key.pk}/{page.format(secret=key.secrets.get().pk)}"
        assert as_(charlie).get(path).status_code == 404
        assert as_(charlie).post(path).status_code in (404, 405)

    @pytest.mark.parametrize("page", PAGES[1:])
    def test_that_change_something_are_not_for_everybody(self, as_, key, bob, vera, page):
        path = f"/keys/{key.pk}/{page.format(secret=key.secrets.get().pk)}"
        for person in (bob, vera):
            for ask in (as_(person).get, as_(person).post):
                response = ask(path)
                assert response.status_code == 403
                assert "owner of the team" in text_of(response)

    def test_ask_who_you_are(self, key):
        response = Client().get(f"/keys/{key.pk}/")
        assert response["Location"] == f"/accounts/login/?next=/keys/{key.pk}/"

    def test_show_a_viewer_the_key_without_buttons_and_audit(self, as_, key, vera):
        page = text_of(as_(vera).get(f"/keys/{key.pk}/"))
        assert "nightly index" in page
        assert f"/keys/{key.pk}/rotate/" not in page
        assert "What was done with it" not in page

    def test_show_an_owner_what_was_done_with_it(self, as_, key, alice):
        services.update_key(key, {"name": "hourly index"})
        page = text_of(as_(alice).get(f"/keys/{key.pk}/"))
        assert "Key changed" in page
        assert "<del>nightly index</del>" in page

    def test_offer_nothing_on_a_revoked_key(self, as_, key, alice):
        services.revoke_key(key, by=alice)
        page = text_of(as_(alice).get(f"/keys/{key.pk}/"))
        assert "Revoked" in page
        assert "/rotate/" not in page
        assert "/rate-limit/" not in page


class TestRotation:
    def test_shows_the_new_secret_once_and_lets_the_old_one_work(self, as_, key, alice):
        client, old = as_(alice), key.secrets.get()
        path = f"/keys/{key.pk}/rotate/"
        response = client.post(path, {"once": once(client, path), "overlap_s": "86400"})
        new = shown(text_of(response))

        current = KeySecret.objects.get(key=key, ends_at=None)
        old.refresh_from_db()
        assert keys.take_apart(new).public_id == current.public_id
        assert abs(old.ends_at - timezone.now() - LATER) < timedelta(minutes=1)
        assert inline_parts(response.content.decode()) == []
        assert new not in text_of(client.get(f"/keys/{key.pk}/"))

    def test_is_not_done_again_by_a_reload(self, as_, key, alice):
        client, path = as_(alice), f"/keys/{key.pk}/rotate/"
        form = {"once": once(client, path), "overlap_s": "0"}
        client.post(path, form)
        again = client.post(path, form)
        assert again["Location"] == f"/keys/{key.pk}/"
        assert "sent already" in said(again)[0]
        assert key.secrets.count() == 2

    @pytest.mark.parametrize("overlap_s", ["-1", "2592001", "a", ""])
    def test_takes_an_overlap_of_the_list_only(self, as_, key, alice, overlap_s):
        client, path = as_(alice), f"/keys/{key.pk}/rotate/"
        response = client.post(path, {"once": once(client, path), "overlap_s": overlap_s})
        assert response.status_code == 422
        assert key.secrets.count() == 1

    def test_is_for_the_maker_too(self, as_, bobs, bob):
        client, path = as_(bob), f"/keys/{bobs.pk}/rotate/"
        assert client.post(path, {"once": once(client, path), "overlap_s": "0"}).status_code == 200

    def test_of_a_revoked_key_says_why_not(self, as_, key, alice):
        client, path = as_(alice), f"/keys/{key.pk}/rotate/"
        mark = once(client, path)
        services.revoke_key(key, by=alice)
        response = client.post(path, {"once": mark, "overlap_s": "0"})
        assert "is revoked for good" in said(response)[0]


class TestOverlap:
    @pytest.fixture
    def old(self, key, alice) -> KeySecret:
        old = key.secrets.get()
        services.rotate_key(key, alice, LATER)
        return old

    def test_is_shown_with_the_programs_that_still_use_the_old_secret(self, as_, key, old, alice):
        used_by(old, "10.0.0.1", "indexer/1.0")
        used_by(old, "10.0.0.2", "<script>")
        one, all_ = (as_(alice).get(path).content.decode() for path in (f"/keys/{key.pk}/", "/keys/"))
        for page in (one, all_):
            assert "2 programs still use the old secret" in page
            assert re.search(
                r"the old secret ends in\s+(<strong>)?<time [^>]+>23 h 59 min</time>", page, re.I
            )
        assert re.search(r"works for another <time [^>]+>23 h 59 min</time>", one)
        assert "indexer/1.0" in one
        assert "&lt;script&gt;" in one

    def test_says_nothing_where_nobody_uses_the_old_secret(self, as_, key, old, alice):
        used_by(old, "10.0.0.1", "indexer/1.0", ago=timedelta(hours=2))
        assert "still use" not in text_of(as_(alice).get("/keys/"))

    def test_is_extended(self, as_, key, old, alice):
        as_(alice).post(f"/keys/{key.pk}/secrets/{old.pk}/extend/", {"length_s": "604800"})
        old.refresh_from_db()
        assert abs(old.ends_at - timezone.now() - timedelta(days=7)) < timedelta(minutes=1)

    def test_is_extended_to_the_longest_that_there_is(self, as_, key, old, alice):
        as_(alice).post(f"/keys/{key.pk}/secrets/{old.pk}/extend/", {"length_s": "2592000"})
        old.refresh_from_db()
        assert old.ends_at > timezone.now() + timedelta(days=29)

    @pytest.mark.parametrize("length_s", ["", "0", "99999999"])
    def test_is_extended_by_a_length_of_the_list_only(self, as_, key, old, alice, length_s):
        before = old.ends_at
        response = as_(alice).post(f"/keys/{key.pk}/secrets/{old.pk}/extend/", {"length_s": length_s})
        assert said(response) == ["Choose how long the old secret shall go on working."]
        old.refresh_from_db()
        assert old.ends_at != before
        assert old.ends_at < timezone.now() + LATER

    def test_is_ended_after_a_question(self, as_, key, old, alice):
        path = f"/keys/{key.pk}/secrets/{old.pk}/end/"
        used_by(old, "10.0.0.1", "indexer/1.0")
        assert "indexer/1.0 at 10.0.0.1" in text_of(as_(alice).get(path))
        as_(alice).post(path)
        old.refresh_from_db()
        assert old.ends_at <= timezone.now()

    def test_of_the_current_secret_does_not_exist(self, as_, key, old, alice):
        current = KeySecret.objects.get(key=key, ends_at=None)
        response = as_(alice).post(f"/keys/{key.pk}/secrets/{current.pk}/end/")
        assert "is the key's current secret" in said(response)[0]

    def test_of_another_key_is_not_there(self, as_, old, bobs, alice):
        assert as_(alice).post(f"/keys/{bobs.pk}/secrets/{old.pk}/end/").status_code == 404

    def test_is_not_changed_by_others(self, as_, key, old, bob):
        for change in ("extend", "end"):
            path = f"/keys/{key.pk}/secrets/{old.pk}/{change}/"
            assert as_(bob).post(path, {"length_s": "3600"}).status_code == 403


SETTINGS = {
    "name": "nightly index",
    "kind": "service",
    "expires_at": "",
    "priority_ceiling": "normal",
    "every_route": "on",
    "networks": "",
    "tags": "",
}


class TestSettings:
    def change(self, client: Client, key: ApiKey, **form):
        return client.post(f"/keys/{key.pk}/settings/", SETTINGS | form)

    def test_are_changed(self, as_, key, alice, serving):
        form = {
            "every_route": "",
            "routes": ["gpt-4o"],
            "networks": "10.0.0.0/8\n\n 2001:db8::/32 ",
            "tags": "env=production\nwho=me=you",
            "priority_ceiling": "batch",
            "expires_at": "2099-01-02T03:04",
        }
        assert self.change(as_(alice), key, **form).status_code == 302
        key.refresh_from_db()
        assert key.routes == ["gpt-4o"]
        assert key.networks == ["10.0.0.0/8", "2001:db8::/32"]
        assert key.tags == {"env": "production", "who": "me=you"}
        assert key.priority_ceiling == "batch"
        assert key.expires_at.isoformat() == "2099-01-02T03:04:00+00:00"

    def test_that_were_not_touched_stay(self, as_, key, alice):
        expires_at = timezone.now() + timedelta(days=3, seconds=7)
        services.update_key(key, {"expires_at": expires_at})
        shown = f"{expires_at:%Y-%m-%dT%H:%M}"
        events = AuditEvent.objects.count()
        assert self.change(as_(alice), key, expires_at=shown).status_code == 302
        key.refresh_from_db()
        assert key.expires_at == expires_at
        assert AuditEvent.objects.count() == events

    @pytest.mark.parametrize(
        ("wrong", "sentence"),
        [
            ({"name": " "}, "This field is required"),
            ({"networks": "10.0.0.0/99"}, "An address range looks like"),
            ({"tags": "nonsense"}, "Write each tag as name=text"),
            ({"every_route": ""}, "Name at least one route"),
            ({"routes": ["gpt-4o"]}, "Switch this off to allow only the routes"),
            ({"every_route": "", "routes": ["nope"]}, "not one of the available choices"),
            ({"expires_at": "2001-01-01T00:00"}, "would have expired already"),
            ({"priority_ceiling": "urgent"}, "not one of the available choices"),
        ],
    )
    def test_that_cannot_be_are_told_beside_their_field(self, as_, key, alice, serving, wrong, sentence):
        response = self.change(as_(alice), key, **wrong)
        assert response.status_code == 422
        assert sentence in text_of(response)
        key.refresh_from_db()
        assert (key.name, key.routes, key.networks, key.tags) == ("nightly index", None, [], {})

    def test_open_a_restricted_key_again_with_one_tick(self, as_, key, alice, serving):
        services.update_key(key, {"routes": ["gpt-4o"]})
        assert self.change(as_(alice), key, routes=["gpt-4o"]).status_code == 302
        key.refresh_from_db()
        assert key.routes is None

    def test_keep_a_route_that_is_gone_until_it_is_taken_off(self, as_, key, alice, serving):
        services.update_key(key, {"routes": ["gone", "gpt-4o"]})
        assert self.change(as_(alice), key, every_route="", routes=["gone"]).status_code == 302
        key.refresh_from_db()
        assert key.routes == ["gone"]

    def test_may_be_urgent_by_an_administrator_alone(self, as_, key, alice, ada):
        assert self.change(as_(ada), key, priority_ceiling="urgent").status_code == 302
        key.refresh_from_db()
        assert key.priority_ceiling == "urgent"
        assert self.change(as_(alice), key, priority_ceiling="urgent").status_code == 302, "it stays so"

    def test_take_no_other_fields(self, as_, key, alice, charlie):
        other = services.create_team("Billing", charlie)
        services.add_member(other, alice, "owner")
        self.change(as_(alice), key, team=other.pk, created_by=charlie.pk, revoked_at="2020-01-01", id=7)
        unchanged = ApiKey.objects.get(pk=key.pk)
        assert (unchanged.team, unchanged.created_by, unchanged.revoked_at) == (key.team, alice, None)


class TestLimits:
    def test_are_set_changed_and_removed(self, as_, key, alice, serving):
        client, path = as_(alice), f"/keys/{key.pk}/rate-limit/"
        form = {"kind": "tokens", "amount": "5000", "model_name": "gpt-4o"}
        assert client.post(path, form)["Location"] == f"/keys/{key.pk}/#limits"
        limit = RateLimit.objects.get(key=key)
        assert "5,000 tokens a minute of gpt-4o" in text_of(client.get(f"/keys/{key.pk}/"))

        client.post(f"{path}?change={limit.pk}", {"amount": "6000"})
        limit.refresh_from_db()
        assert (limit.kind, limit.amount, limit.model_name) == ("tokens", 6000, "gpt-4o")

        assert client.post(f"/rate-limits/{limit.pk}/remove/")["Location"] == f"/keys/{key.pk}/#limits"
        assert not RateLimit.objects.exists()

    def test_in_money_are_written_in_the_currency(self, as_, key, alice, serving):
        client, path = as_(alice), f"/keys/{key.pk}/quota/"
        form = {"kind": "money", "amount": "12.5", "period": "month", "zone": "Europe/Berlin", "hard": "on"}
        assert client.post(path, form | {"warn_at": "80, 50%"}).status_code == 302
        quota = Quota.objects.get(key=key)
        assert (quota.amount, quota.zone, quota.hard, quota.warn_at) == (
            *(12_500_000_000, "Europe/Berlin", True, [50, 80]),
        )
        page = text_of(client.get(f"/keys/{key.pk}/"))
        assert "$12.50 a month" in page
        assert "is not known to this process" in page
        assert 'value="12.5"' in text_of(client.get(f"{path}?change={quota.pk}"))

        serving[quota.pk] = Figures(spent=10_000_000_000, held=500_000_000, expired=1_000_000_000)
        page = re.sub(r"<[^>]+>", "", text_of(client.get(f"/keys/{key.pk}/")))
        assert re.search(r"Used\s*\$11.00\s*Reserved\s*\$0.500\s*Left\s*\$1.00", page)

        client.post(f"/quotas/{quota.pk}/remove/")
        assert not Quota.objects.exists()

    @pytest.mark.parametrize(
        ("wrong", "sentence"),
        [
            ({"kind": "tokens", "amount": "1.5"}, "whole numbers"),
            ({"amount": "-1"}, "greater than or equal to 0"),
            ({"amount": "99999999999"}, "more than can be counted"),
            ({"amount": "0.0000000001"}, "9 decimal places"),
            ({"zone": "Europe/Atlantis"}, "not one of the available choices"),
            ({"warn_at": "many"}, "Write percents"),
            ({"warn_at": "0"}, "from 1 to 100"),
        ],
    )
    def test_that_cannot_be_are_told(self, as_, key, alice, wrong, sentence):
        right = {"kind": "money", "amount": "1", "period": "day", "zone": "UTC", "warn_at": "50"}
        response = as_(alice).post(f"/keys/{key.pk}/quota/", right | wrong)
        assert response.status_code == 422
        assert sentence in text_of(response)
        assert not Quota.objects.exists()

    def test_of_the_administrator_stay_as_they_are(self, as_, key, alice, ada):
        as_(ada).post(f"/keys/{key.pk}/rate-limit/", {"kind": "requests", "amount": "7"})
        limit = RateLimit.objects.get(key=key)
        assert limit.by_administrator
        client = as_(alice)
        page = text_of(client.get(f"/keys/{key.pk}/"))
        assert "set by an administrator" in page
        assert f"/rate-limits/{limit.pk}/remove/" not in page
        for refused in (
            client.get(f"/keys/{key.pk}/rate-limit/?change={limit.pk}"),
            client.post(f"/rate-limits/{limit.pk}/remove/"),
        ):
            assert refused.status_code == 403
            assert "An administrator set this" in text_of(refused)
        again = client.post(f"/keys/{key.pk}/rate-limit/", {"kind": "requests", "amount": "9"})
        assert again.status_code == 422
        assert "An administrator set this" in text_of(again)
        limit.refresh_from_db()
        assert limit.amount == 7

    def test_of_others_are_not_there(self, as_, key, team, charlie, bob):
        limit = services.set_rate_limit(key, "requests", 7, by_administrator=False)
        quota = services.set_quota(team, "requests", 7, by_administrator=False)
        for path in (f"/rate-limits/{limit.pk}/remove/", f"/quotas/{quota.pk}/remove/"):
            assert as_(charlie).post(path).status_code == 404
            assert as_(bob).post(path).status_code == 403
        assert as_(charlie).get(f"/teams/{team.slug}/quota/?change={quota.pk}").status_code == 404

    def test_a_number_that_no_limit_has_is_not_there(self, as_, key, alice):
        for number in ("9" * 5000, "9" * 19, "0"):
            assert as_(alice).get(f"/keys/{key.pk}/quota/?change={number}").status_code == 404

    def test_of_another_owner_are_not_changed_through_this_one(self, as_, key, team, alice):
        quota = services.set_quota(team, "requests", 7, by_administrator=False)
        assert as_(alice).get(f"/keys/{key.pk}/quota/?change={quota.pk}").status_code == 404


@pytest.mark.parametrize("by_htmx", [False, True])
@pytest.mark.parametrize("more", ["", "s" * 200])
def test_a_whole_key_that_is_looked_for_is_kept_by_no_page_and_no_address(as_, alice, team, by_htmx, more):
    """Even one that is too long to look for."""
    _, text = services.create_key(team, "nightly index", alice)
    client = as_(alice)
    headers = {"HX-Request": "true"} if by_htmx else {}

    answer = client.get("/keys/", {"q": f" {text}{more}", "state": "active"}, headers=headers)
    assert answer.status_code == 302
    assert text not in answer["Location"]

    answer = client.get(answer["Location"], headers=headers)
    page = text_of(answer)
    assert text not in page + answer.get("HX-Push-Url", "")
    assert "nightly index" in page
    if not more:
        assert f'value="{text[:16]}"' in page
        assert answer.get("HX-Push-Url") == (f"/keys/?q={text[:16]}&state=active" if by_htmx else None)
