import pytest
from allauth.account.models import EmailAddress
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user
from django.test import Client

from accounts import keys, services
from accounts.changes import change_number
from accounts.models import ApiKey, KeySecret, Membership, Team, User

PAGES = ["user", "team", "apikey"]


def text_of(response) -> str:
    return response.content.decode()


def members(*rows: tuple[User, str], existing: int = 0) -> dict[str, object]:
    """What the membership rows of a team's form send."""
    form: dict[str, object] = {
        "memberships-TOTAL_FORMS": len(rows),
        "memberships-INITIAL_FORMS": existing,
        "memberships-MIN_NUM_FORMS": 1,
        "memberships-MAX_NUM_FORMS": 1000,
    }
    for number, (person, role) in enumerate(rows):
        form |= {f"memberships-{number}-user": person.pk, f"memberships-{number}-role": role}
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


def test_a_team_is_made_with_an_owner(as_, ada, alice):
    form = {"name": "Search", "slug": "search"} | members((alice, "owner"))
    before = change_number()
    response = as_(ada).post("/admin/accounts/team/add/", form)
    assert response.status_code == 302, text_of(response)
    assert Membership.objects.get(team__slug="search", user=alice).role == "owner"
    assert change_number() > before


@pytest.mark.parametrize("role", ["member", "viewer"])
def test_a_team_is_not_made_without_an_owner(as_, ada, alice, role):
    form = {"name": "Search", "slug": "search"} | members((alice, role))
    response = as_(ada).post("/admin/accounts/team/add/", form)
    assert "A team needs at least one owner." in text_of(response)
    assert not Team.objects.exists()


def test_a_team_without_keys_is_deleted_and_that_is_a_change(as_, ada, team):
    before = change_number()
    as_(ada).post(f"/admin/accounts/team/{team.pk}/delete/", {"post": "yes"})
    assert not Team.objects.exists()
    assert change_number() == before + 1


def test_teams_are_deleted_together_and_that_is_a_change(as_, ada, team):
    before = change_number()
    as_(ada).post(
        "/admin/accounts/team/",
        {"action": "delete_selected", "_selected_action": [team.pk], "post": "yes"},
    )
    assert not Team.objects.exists()
    assert change_number() == before + 1


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
    assert client.post(f"/admin/accounts/apikey/{key.pk}/change/", {"name": "x"}).status_code == 403
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
