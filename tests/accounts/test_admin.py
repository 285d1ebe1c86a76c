import pytest
from allauth.account.models import EmailAddress
from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user
from django.test import Client
from django.utils import timezone

from accounts import keys, services, tokens
from accounts.changes import change_number
from accounts.models import ApiKey, KeySecret, Membership, Team, User, Webhook

PAGES = ["user", "team", "apikey", "auditevent", "outbox", "accesstoken", "webhook"]


def text_of(response) -> str:
    return response.content.decode()


def rows(name: str, rows: list[dict[str, object]], existing: int = 0) -> dict[str, object]:
    """What the rows of a table on another's page send."""
    form: dict[str, object] = {
        f"{name}-TOTAL_FORMS": len(rows),
        f"{name}-INITIAL_FORMS": existing,
        f"{name}-MIN_NUM_FORMS": 0,
        f"{name}-MAX_NUM_FORMS": 1000,
    }
    for number, row in enumerate(rows):
        form |= {f"{name}-{number}-{field}": value for field, value in row.items()}
    return form


def new_person(email: str) -> dict[str, str]:
    """What the form for a new person sends."""
    password = "a fine long phrase 7"
    return {"email": email, "password1": password, "password2": password, "usable_password": "true"}


@pytest.mark.parametrize("page", [*(f"accounts/{name}/" for name in PAGES), "mfa/authenticator/", ""])
def test_an_administrator_sees_the_lists(as_, ada, team, page):
    services.create_key(team, "web", ada)
    assert as_(ada).get(f"/admin/{page}").status_code == 200


@pytest.mark.parametrize("page", [f"accounts/{name}/" for name in PAGES])
def test_others_do_not(as_, alice, page):
    assert as_(alice).get(f"/admin/{page}", follow=True).status_code == 403


def test_a_person_is_made_with_an_address_and_a_password(as_, ada):
    before = change_number()
    response = as_(ada).post("/admin/accounts/user/add/", new_person("new@example.com"))
    assert response.status_code == 302, text_of(response)
    assert User.objects.get(email="new@example.com").check_password("a fine long phrase 7")
    assert change_number() == before + 1


def test_an_address_is_not_given_twice_in_another_case(as_, ada, alice):
    response = as_(ada).post("/admin/accounts/user/add/", new_person("ALICE@example.com"))
    assert response.status_code == 200
    assert text_of(response).count("Somebody has this address already.") == 1
    assert "Constraint" not in text_of(response)
    assert User.objects.filter(email__iexact="alice@example.com").count() == 1


def test_a_person_made_with_a_capital_letter_can_sign_in(as_, ada):
    as_(ada).post("/admin/accounts/user/add/", new_person("Grace@Example.com"))
    browser = Client()
    browser.post("/accounts/login/", {"login": "Grace@Example.com", "password": "a fine long phrase 7"})
    assert get_user(browser) == User.objects.get(email="grace@example.com")


def test_an_address_is_changed_and_still_vouched_for(as_, ada, alice):
    form = {"email": "Alice@Example.org", "is_active": "on"}
    response = as_(ada).post(f"/admin/accounts/user/{alice.pk}/change/", form)
    assert response.status_code == 302, text_of(response)
    vouched_for = EmailAddress.objects.get(user=alice)
    assert (vouched_for.email, vouched_for.verified, vouched_for.primary) == ("alice@example.org", True, True)


def test_a_person_page_shows_no_password_hash(as_, ada, alice):
    response = as_(ada).get(f"/admin/accounts/user/{alice.pk}/change/")
    assert response.status_code == 200
    assert alice.password not in text_of(response)


def test_a_team_is_made_with_an_owner_and_the_usual_limits(as_, ada, alice, usual_limits, audited):
    before = change_number()
    response = as_(ada).post("/admin/accounts/team/add/", {"name": "Search & Find", "owner": alice.pk})
    assert response.status_code == 302, text_of(response)
    team = Team.objects.get(slug="search-find")
    assert Membership.objects.get(team=team, user=alice).role == "owner"
    assert {(each.kind, each.amount) for each in team.rate_limits.all()} == {
        ("requests", 500),
        ("tokens", 100_000),
    }
    assert change_number() > before
    assert [event.actor_name for event in audited("team.created")] == ["ada@example.com"]


@pytest.mark.parametrize(
    ("form", "sentence"),
    [({"name": "Search"}, "This field is required"), ({"name": "sEARCH"}, "There is a team called")],
)
def test_a_team_is_not_made_without_an_owner_or_with_a_name_that_is_taken(
    as_, ada, bob, team, form, sentence
):
    owner = {"owner": bob.pk} if "called" in sentence else {}
    response = as_(ada).post("/admin/accounts/team/add/", form | owner)
    assert response.status_code == 200
    assert sentence in text_of(response)
    assert Team.objects.count() == 1


def test_a_team_is_renamed_and_its_people_and_limits_are_changed_through_the_services(
    as_, ada, team, alice, bob, vera, charlie, audited
):
    personal, _ = services.create_key(team, "bob's", bob, kind="personal")
    limit = services.set_rate_limit(team, "requests", 500, by_administrator=False)
    places = {each.user: each for each in Membership.objects.filter(team=team)}
    form = {
        "name": "Find",
        **rows(
            "memberships",
            [
                {"id": places[alice].pk, "user": alice.pk, "role": "member"},
                {"id": places[bob].pk, "user": bob.pk, "role": "member", "DELETE": "on"},
                {"id": places[vera].pk, "user": vera.pk, "role": "owner"},
                {"user": charlie.pk, "role": "viewer"},
            ],
            existing=3,
        ),
        **rows(
            "rate_limits",
            [
                {"id": limit.pk, "kind": "requests", "amount": 50, "model_name": ""},
                {"kind": "tokens", "amount": 9000, "model_name": "gpt-4o"},
            ],
            existing=1,
        ),
        **rows(
            "quotas", [{"kind": "money", "amount": "2.5", "period": "day", "zone": "UTC", "warn_at": "50"}]
        ),
    }
    response = as_(ada).post(f"/admin/accounts/team/{team.pk}/change/", form)
    assert response.status_code == 302, text_of(response)

    team.refresh_from_db()
    assert team.name == "Find"
    assert dict(Membership.objects.filter(team=team).values_list("user__email", "role")) == {
        "alice@example.com": "member",
        "vera@example.com": "owner",
        "charlie@example.com": "viewer",
    }
    personal.refresh_from_db()
    assert personal.revoked_at is not None
    assert {(each.kind, each.amount, each.by_administrator) for each in team.rate_limits.all()} == {
        ("requests", 50, True),
        ("tokens", 9000, True),
    }
    quota = team.quotas.get()
    assert (quota.amount, quota.warn_at, quota.by_administrator) == (2_500_000_000, [50], True)
    told = {event.action for event in audited() if event.actor_name == "ada@example.com"}
    assert told == {
        *("team.renamed", "member.added", "member.removed", "member.role_changed", "key.revoked"),
        *("rate_limit.changed", "rate_limit.set", "quota.set"),
    }


def test_a_team_keeps_an_owner(as_, ada, team, alice):
    place = Membership.objects.get(team=team, user=alice)
    form = {
        "name": "Search",
        **rows("memberships", [{"id": place.pk, "user": alice.pk, "role": "viewer"}], existing=1),
        **rows("rate_limits", []),
        **rows("quotas", []),
    }
    response = as_(ada).post(f"/admin/accounts/team/{team.pk}/change/", form)
    assert "A team needs at least one owner." in text_of(response)
    assert Membership.objects.get(pk=place.pk).role == "owner"


def test_a_team_is_archived_and_restored_and_never_deleted(as_, ada, team):
    client = as_(ada)
    assert client.post(f"/admin/accounts/team/{team.pk}/delete/", {"post": "yes"}).status_code == 403
    chosen = {"_selected_action": [team.pk]}
    client.post("/admin/accounts/team/", chosen | {"action": "delete_selected", "post": "yes"})
    client.post("/admin/accounts/team/", chosen | {"action": "archive"})
    team.refresh_from_db()
    assert team.archived_at is not None
    assert client.get(f"/admin/accounts/team/{team.pk}/change/").status_code == 200
    page = client.post("/admin/accounts/team/", chosen | {"action": "archive"}, follow=True)
    assert "is archived already" in text_of(page)
    client.post("/admin/accounts/team/", chosen | {"action": "restore"})
    team.refresh_from_db()
    assert team.archived_at is None


def test_a_limit_of_another_kind_takes_the_place_of_the_one_before(as_, ada, team):
    key, _ = services.create_key(team, "web", ada)
    quota = services.set_quota(key, "tokens", 7, "day", by_administrator=False)
    row = {"id": quota.pk, "kind": "requests", "amount": 9, "period": "day", "zone": "UTC", "warn_at": ""}
    form = {**rows("rate_limits", []), **rows("quotas", [row], existing=1)}
    response = as_(ada).post(f"/admin/accounts/apikey/{key.pk}/change/", form)
    assert response.status_code == 302, text_of(response)
    left = key.quotas.get()
    assert (left.kind, left.amount, left.warn_at, left.by_administrator) == ("requests", 9, [], True)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"amount": "1.5"}, "whole numbers"),
        ({"warn_at": "200"}, "from 1 to 100"),
        ({"zone": "Mars"}, "not one of"),
    ],
)
def test_a_quota_that_cannot_be_is_not_set(as_, ada, team, wrong, sentence):
    key, _ = services.create_key(team, "web", ada)
    row = {"kind": "tokens", "amount": "9", "period": "day", "zone": "UTC", "warn_at": "50"} | wrong
    form = {**rows("rate_limits", []), **rows("quotas", [row])}
    response = as_(ada).post(f"/admin/accounts/apikey/{key.pk}/change/", form)
    assert response.status_code == 200
    assert sentence in text_of(response)
    assert not key.quotas.exists()


def test_a_revoked_key_gets_no_limits(as_, ada, team):
    key, _ = services.create_key(team, "web", ada)
    services.revoke_key(key, by=ada)
    assert "rate_limits-TOTAL_FORMS" not in text_of(as_(ada).get(f"/admin/accounts/apikey/{key.pk}/change/"))


@pytest.mark.parametrize("table", ["auditevent", "outbox"])
def test_the_audit_and_the_outbox_are_looked_at_only(as_, ada, team, table):
    services.invite(team, ada, "member", "new@example.com")
    row = apps.get_model("accounts", table).objects.first()
    client = as_(ada)
    page = client.get(f"/admin/accounts/{table}/{row.pk}/change/")
    assert page.status_code == 200
    assert "/invitations/" not in text_of(page)
    for path in ("add/", f"{row.pk}/change/", f"{row.pk}/delete/"):
        assert client.post(f"/admin/accounts/{table}/{path}", {"post": "yes"}).status_code == 403


def test_access_tokens_are_revoked_and_show_nothing_of_their_secret(as_, ada, alice):
    token, text = tokens.make_token(alice, "report", ["read"])
    client = as_(ada)
    page = text_of(client.get(f"/admin/accounts/accesstoken/{token.pk}/change/"))
    assert "report" in page
    assert bytes(token.digest).hex() not in page
    client.post("/admin/accounts/accesstoken/", {"action": "revoke", "_selected_action": [token.pk]})
    assert tokens.token_owner(text, timezone.now()) is None


def test_a_webhook_of_everybody_is_added_changed_and_removed(as_, ada, audited):
    client = as_(ada)
    client.post("/admin/accounts/webhook/add/", {"team": "", "url": "https://example.com/hook"})
    made = Webhook.objects.get()
    assert (made.team, made.enabled, len(made.salt)) == (None, True, 32)
    wrong = client.post(f"/admin/accounts/webhook/{made.pk}/change/", {"url": "ftp://example.com"})
    assert "begins with https" in text_of(wrong)
    client.post(f"/admin/accounts/webhook/{made.pk}/change/", {"url": "https://example.com/other"})
    made.refresh_from_db()
    assert (made.url, made.enabled) == ("https://example.com/other", False)
    client.post(f"/admin/accounts/webhook/{made.pk}/delete/", {"post": "yes"})
    assert not Webhook.objects.exists()
    assert [event.action for event in audited()] == ["webhook.added", "webhook.changed", "webhook.removed"]


def test_a_key_is_looked_at_without_its_secret(as_, ada, team):
    key, text = services.create_key(team, "web", ada)
    for path in ("/admin/accounts/apikey/", f"/admin/accounts/apikey/{key.pk}/change/"):
        page = text_of(as_(ada).get(path))
        assert text[:16] in page
        assert keys.take_apart(text).secret not in page
        assert bytes(KeySecret.objects.get().digest).hex() not in page


def test_a_key_is_neither_made_changed_nor_deleted_here(as_, ada, team):
    key, _ = services.create_key(team, "web", ada)
    client = as_(ada)
    assert client.post("/admin/accounts/apikey/add/", {"name": "x"}).status_code == 403
    form = {"name": "x", "team": 7, **rows("rate_limits", []), **rows("quotas", [])}
    assert client.post(f"/admin/accounts/apikey/{key.pk}/change/", form).status_code == 302
    assert client.post(f"/admin/accounts/apikey/{key.pk}/delete/", {"post": "yes"}).status_code == 403
    assert ApiKey.objects.get().name == "web"


def test_selected_keys_are_revoked(as_, ada, team):
    chosen = [services.create_key(team, name, ada)[0] for name in ("one", "two")]
    services.create_key(team, "three", ada)
    services.revoke_key(chosen[0], by=None)
    as_(ada).post(
        "/admin/accounts/apikey/", {"action": "revoke", "_selected_action": [key.pk for key in chosen]}
    )
    assert set(ApiKey.objects.exclude(revoked_at=None).values_list("name", flat=True)) == {"one", "two"}
    assert ApiKey.objects.get(name="two").revoked_by == ada


def test_the_list_of_keys_takes_few_queries(as_, ada, team, django_assert_max_num_queries):
    for number in range(10):
        services.create_key(team, f"key {number}", ada)
    client = as_(ada)
    client.get("/admin/accounts/apikey/")
    with django_assert_max_num_queries(12):  # the same for ten keys as for one
        client.get("/admin/accounts/apikey/")


@pytest.mark.parametrize(
    ("action", "ceiling"), [("up_to_urgent", "urgent"), ("up_to_normal", "normal"), ("only_batch", "batch")]
)
def test_an_administrator_says_how_urgent_a_keys_calls_may_be(as_, ada, team, action, ceiling):
    started = "batch" if ceiling == "normal" else "normal"
    chosen, _ = services.create_key(team, "one", ada, priority_ceiling=started)
    other, _ = services.create_key(team, "two", ada)
    before = change_number()

    page = as_(ada).post(
        "/admin/accounts/apikey/", {"action": action, "_selected_action": [chosen.pk]}, follow=True
    )

    chosen.refresh_from_db()
    other.refresh_from_db()
    assert (chosen.priority_ceiling, other.priority_ceiling) == (ceiling, "normal")
    assert change_number() == before + 1
    assert f"Calls are {ceiling} at most now with: one." in text_of(page)
    assert LogEntry.objects.get(user=ada).change_message == f"Priority ceiling set to {ceiling}."
