"""Sign-in and what belongs to it, as django-allauth does it in our look."""

import json
import re
import stat
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pyotp
import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal import auth as totp
from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.hashers import MD5PasswordHasher
from django.core import mail
from django.core.cache import cache
from django.test import Client, override_settings
from django.urls import NoReverseMatch, get_resolver, reverse
from fido2.cose import ES256
from fido2.utils import websafe_decode, websafe_encode
from fido2.webauthn import (
    Aaguid,
    AttestationObject,
    AttestedCredentialData,
    AuthenticatorData,
    CollectedClientData,
)

from accounts import services
from accounts.models import ApiKey, User
from tests.accounts.conftest import PASSWORD
from tests.accounts.pages import inline_parts

NEW_PASSWORD = "another long passphrase 2"


ONLY_WITH_A_SECOND_FACTOR = {
    "/accounts/2fa/totp/deactivate/",
    "/accounts/2fa/recovery-codes/",
    "/accounts/2fa/recovery-codes/download/",
}


def text_of(response) -> str:
    return response.content.decode()


def sign_in(email: str, password: str = PASSWORD, client: Client | None = None):
    client = client or Client()
    return client, client.post("/accounts/login/", {"login": email, "password": password})


def confirm_password(client: Client) -> None:
    """What is sensitive asks for the password again."""
    client.post("/accounts/reauthenticate/", {"password": PASSWORD})


def turn_on_totp(client: Client) -> str:
    confirm_password(client)
    page = text_of(client.get("/accounts/2fa/totp/activate/"))
    secret = re.search(r'id="authenticator_secret"[^>]* value="([A-Z2-7]+)"', page)[1]
    client.post("/accounts/2fa/totp/activate/", {"code": pyotp.TOTP(secret).now()})
    return secret


@pytest.mark.parametrize(("steps_ago", "is_in"), [(0, True), (1, True), (2, False)])
def test_a_code_is_good_for_half_a_minute_longer(alice, steps_ago, is_in, monkeypatch):
    client, _ = sign_in(alice.email)
    secret = turn_on_totp(client)
    cache.clear()  # or the code would be one that was used

    client, answer = sign_in(alice.email)
    now = time.time()
    monkeypatch.setattr(totp, "time", SimpleNamespace(time=lambda: now))  # allauth takes no clock
    code = pyotp.TOTP(secret).at(now - 30 * steps_ago)
    client.post(answer["Location"], {"code": code})

    assert client.get("/account/").status_code == (200 if is_in else 302)


def allauth_paths() -> list[str]:
    """Every page of django-allauth that is reachable without a made-up argument."""
    names = {name for name in get_resolver().reverse_dict if isinstance(name, str)}
    paths = []
    for name in sorted(names):
        if name.startswith(("account_", "mfa_")):
            try:
                paths.append(reverse(name))
            except NoReverseMatch:  # it needs a key from a mail; those have tests of their own
                continue
    return paths


def test_the_walk_finds_the_pages():
    assert {"/accounts/login/", "/accounts/password/reset/", "/accounts/2fa/totp/activate/"} <= set(
        allauth_paths()
    )


@pytest.mark.parametrize("path", allauth_paths())
@pytest.mark.parametrize("who", ["nobody", "alice", "alice with a second factor"])
def test_every_page_keeps_the_policy(request, db, who, path):
    client = Client()
    if who != "nobody":
        client, _ = sign_in(request.getfixturevalue("alice").email)
        confirm_password(client)
    if "factor" in who:
        turn_on_totp(client)
    response = client.get(path, follow=True)
    is_not_there = path == "/accounts/email/" or (who == "alice" and path in ONLY_WITH_A_SECOND_FACTOR)
    assert response.status_code == (404 if is_not_there else 200)
    if response["Content-Type"].startswith("text/html"):
        assert inline_parts(text_of(response)) == []
        assert "penstock.css" in text_of(response)


def test_right_password_signs_in(alice):
    client, response = sign_in("Alice@example.com")
    assert response["Location"] == "/"
    assert get_user(client) == alice


def test_an_administrator_with_a_capital_letter_signs_in(db):
    grace = User.objects.create_superuser("Grace@Example.com", PASSWORD)
    client, _ = sign_in("Grace@Example.com")
    assert get_user(client) == grace
    assert client.get("/admin/").status_code == 200


def test_after_sign_in_one_is_where_one_wanted_to_go(alice):
    client = Client()
    page = client.get("/keys/", follow=True)
    assert 'name="next" value="/keys/"' in text_of(page)
    response = client.post("/accounts/login/", {"login": alice.email, "password": PASSWORD, "next": "/keys/"})
    assert response["Location"] == "/keys/"


def test_nobody_is_sent_elsewhere_after_sign_in(alice):
    client = Client()
    form = {"login": alice.email, "password": PASSWORD, "next": "https://example.org/"}
    assert client.post("/accounts/login/", form)["Location"] == "/"


def test_a_wrong_password_and_an_unknown_address_get_the_same_answer(alice):
    answers = []
    for email in (alice.email, "nobody@example.com"):
        client, response = sign_in(email, "wrong")
        assert response.status_code == 200
        assert not get_user(client).is_authenticated
        answers.append(re.search(r'class="notice error"[^>]*>([^<]+)<', text_of(response))[1])
    assert answers[0] == answers[1]


def test_an_inactive_account_does_not_get_in(alice):
    alice.is_active = False
    alice.save()
    client, _ = sign_in(alice.email)
    assert not get_user(client).is_authenticated


def wrong_passwords_until_told_to_wait(email: str) -> int:
    """How many wrong passwords are looked at before the door closes; forty at most."""
    for number in range(40):
        if "Too many" in text_of(sign_in(email, "wrong")[1]):
            return number
    return 40


def test_guessing_a_password_is_slowed_down(alice):
    assert wrong_passwords_until_told_to_wait(alice.email) <= 10
    client, response = sign_in(alice.email)
    assert not get_user(client).is_authenticated
    assert "Too many failed login attempts" in text_of(response)


def wrong_passwords_from_everywhere(email: str, tries: int) -> int:
    """Each from another address; how many of them were looked at."""
    answers = [
        sign_in(email, "wrong", Client(REMOTE_ADDR=f"192.0.2.{number}"))[1] for number in range(1, tries + 1)
    ]
    return sum("Too many" not in text_of(answer) for answer in answers)


def test_an_account_is_guessed_at_ten_times_a_minute_from_all_addresses_together(alice):
    assert wrong_passwords_from_everywhere(alice.email, 30) == 10


def test_tries_at_others_do_not_wash_out_what_was_counted_of_an_account(alice):
    """Of the settings that hold where there is no Redis."""
    wrong_passwords_from_everywhere(alice.email, 10)
    for number in range(1000):
        cache.set(f"of_somebody_else_{number}", [time.time()], 3600)

    assert "Too many" in text_of(sign_in(alice.email, client=Client(REMOTE_ADDR="198.51.100.1"))[1])


def test_an_unknown_address_is_held_off_like_a_known_one(alice):
    assert wrong_passwords_from_everywhere("nobody@example.com", 30) == 10


def test_guessing_does_not_lock_out_a_browser_that_the_account_knows(alice):
    client, _ = sign_in(alice.email)
    client.post("/accounts/logout/")
    wrong_passwords_from_everywhere(alice.email, 30)

    sign_in(alice.email, client=client)
    assert get_user(client) == alice


def test_a_browser_that_knows_one_account_is_a_stranger_to_another(alice, bob):
    client, _ = sign_in(bob.email)
    client.post("/accounts/logout/")
    wrong_passwords_from_everywhere(alice.email, 30)

    assert "Too many" in text_of(sign_in(alice.email, client=client)[1])


def test_a_known_browser_may_not_guess_for_ever_either(alice):
    client, _ = sign_in(alice.email)
    client.post("/accounts/logout/")
    answers = [
        text_of(
            client.post(
                "/accounts/login/",
                {"login": alice.email, "password": "wrong"},
                REMOTE_ADDR=f"192.0.2.{number}",
            )
        )
        for number in range(1, 13)
    ]
    assert ["Too many" in answer for answer in answers] == [False] * 10 + [True] * 2


def test_whoever_resets_the_password_by_mail_gets_in_while_somebody_guesses(alice):
    client = Client()
    client.post("/accounts/password/reset/", {"email": alice.email})
    page = client.get(
        re.search(r"http\S+(/accounts/password/reset/key/\S+)", mail.outbox[0].body)[1], follow=True
    )
    client.post(page.redirect_chain[-1][0], {"password1": NEW_PASSWORD, "password2": NEW_PASSWORD})
    wrong_passwords_from_everywhere(alice.email, 30)

    assert "Too many" in text_of(sign_in(alice.email, NEW_PASSWORD, Client(REMOTE_ADDR="198.51.100.1"))[1])
    sign_in(alice.email, NEW_PASSWORD, client)
    assert get_user(client) == alice


class CountingHasher(MD5PasswordHasher):
    """Cheap, and says how often it was asked."""

    hashes = 0

    def encode(self, password: str, salt: str) -> str:
        type(self).hashes += 1
        return super().encode(password, salt)


def hashes_of(email: str) -> int:
    before = CountingHasher.hashes
    sign_in(email, "wrong", Client(REMOTE_ADDR="198.51.100.1"))
    return CountingHasher.hashes - before


def test_a_try_costs_as_many_hashes_whoever_is_meant(alice, bob, settings):
    settings.PASSWORD_HASHERS = [f"{__name__}.{CountingHasher.__qualname__}"]
    bob.is_active = False
    bob.save()

    counts = {hashes_of(email) for email in (alice.email, bob.email, "nobody@example.com")}

    assert len(counts) == 1
    assert counts != {0}


def test_a_session_gets_another_id_at_sign_in_confirmation_and_a_new_password(alice):
    client = Client()
    client.get("/accounts/login/")
    session = client.session  # a stranger's, planted before
    session["planted"] = True
    session.save()
    client.cookies[settings.SESSION_COOKIE_NAME] = session.session_key
    ids = [session.session_key]
    for step in (
        lambda: sign_in(alice.email, client=client),
        lambda: confirm_password(client),
        lambda: client.post(
            "/accounts/password/change/",
            {"oldpassword": PASSWORD, "password1": NEW_PASSWORD, "password2": NEW_PASSWORD},
        ),
    ):
        step()
        ids.append(client.session.session_key)
    assert len(set(ids)) == 4
    assert get_user(client) == alice
    old = [Client() for _ in ids[:3]]
    for each, key in zip(old, ids, strict=False):
        each.cookies[settings.SESSION_COOKIE_NAME] = key
    assert not any(get_user(each).is_authenticated for each in old)


def test_a_flood_of_tries_gets_a_page_of_ours(alice):
    last = [sign_in(f"somebody{number}@example.com", "wrong")[1] for number in range(40)][-1]
    assert last.status_code in (200, 429)
    assert "Too many" in text_of(last)
    assert inline_parts(text_of(last)) == []


def test_sign_out_needs_a_click(as_, alice):
    client = as_(alice)
    client.get("/accounts/logout/")
    assert get_user(client).is_authenticated
    response = client.post("/accounts/logout/")
    assert response["Location"] == "/accounts/login/"
    assert not get_user(client).is_authenticated


def test_nobody_signs_themselves_up(db):
    form = {"email": "new@example.com", "password1": NEW_PASSWORD, "password2": NEW_PASSWORD}
    response = Client().post("/accounts/signup/", form)
    assert "made by an administrator" in text_of(response)
    assert not User.objects.exists()
    assert "sign up" not in text_of(Client().get("/accounts/login/")).lower()


def test_an_address_is_not_changed_by_its_owner(as_, alice):
    for ask in (as_(alice).get, as_(alice).post):
        assert ask("/accounts/email/").status_code in (404, 405)


def test_a_password_is_changed_and_other_browsers_are_signed_out(alice):
    here, _ = sign_in(alice.email)
    elsewhere, _ = sign_in(alice.email)
    form = {"oldpassword": PASSWORD, "password1": NEW_PASSWORD, "password2": NEW_PASSWORD}
    assert here.post("/accounts/password/change/", form)["Location"] == "/account/"
    assert get_user(here).is_authenticated
    assert elsewhere.get("/keys/").status_code == 302
    assert get_user(sign_in(alice.email, NEW_PASSWORD)[0]).is_authenticated


def test_a_new_password_ends_keys_of_the_playground(alice, bob, ada):
    """One's own, one that an administrator gives, and (below) one by mail."""
    team = services.create_team("Search", alice)
    services.add_member(team, bob, "member")
    of_bob, _ = services.open_playground(team, bob)
    services.open_playground(team, alice)
    here, _ = sign_in(alice.email)
    form = {"oldpassword": PASSWORD, "password1": NEW_PASSWORD, "password2": NEW_PASSWORD}
    here.post("/accounts/password/change/", form)
    assert list(ApiKey.objects.filter(revoked_at=None)) == [of_bob]

    administrator, _ = sign_in(ada.email)
    form = {"password1": NEW_PASSWORD, "password2": NEW_PASSWORD, "usable_password": "true"}
    administrator.post(f"/admin/accounts/user/{bob.pk}/password/", form)
    assert not ApiKey.objects.filter(revoked_at=None).exists()


def test_a_weak_password_is_refused(alice):
    client, _ = sign_in(alice.email)
    form = {"oldpassword": PASSWORD, "password1": "short", "password2": "short"}
    page = text_of(client.post("/accounts/password/change/", form))
    assert 'class="field-errors"' in page
    assert inline_parts(page) == []


def test_a_forgotten_password_is_reset_by_mail(alice):
    services.open_playground(services.create_team("Search", alice), alice)
    client = Client()
    with override_settings(PUBLIC_URL="https://gateway.example.com"):
        response = client.post("/accounts/password/reset/", {"email": alice.email}, follow=True)
    assert "The link is on its way" in text_of(response)

    link = re.search(r"https://gateway\.example\.com(/accounts/password/reset/key/\S+)", mail.outbox[0].body)[
        1
    ]
    page = client.get(link, follow=True)
    assert inline_parts(text_of(page)) == []
    assert "Choose a new password" in text_of(page)
    form = {"password1": NEW_PASSWORD, "password2": NEW_PASSWORD}
    done = client.post(page.redirect_chain[-1][0], form, follow=True)
    assert "Your password is changed" in text_of(done)
    assert not ApiKey.objects.filter(revoked_at=None).exists()
    assert get_user(sign_in(alice.email, NEW_PASSWORD)[0]).is_authenticated
    assert "does not work any more" in text_of(Client().get(link, follow=True))


@override_settings(PUBLIC_URL="https://gateway.example.com", ALLOWED_HOSTS=["localhost"])
def test_mail_has_nothing_from_the_host_header(alice):
    Client(HTTP_HOST="localhost:6666").post("/accounts/password/reset/", {"email": alice.email})
    (message,) = mail.outbox
    assert message.subject == "Penstock: Reset your password"
    assert "https://gateway.example.com/accounts/password/reset/key/" in message.body
    assert "localhost" not in message.body
    assert message.body.endswith("Penstock\nhttps://gateway.example.com")


def test_a_reset_that_a_stranger_asked_for_bars_nobody_from_a_second_factor(alice):
    Client().post("/accounts/password/reset/", {"email": alice.email})
    client, _ = sign_in(alice.email)
    turn_on_totp(client)
    assert Authenticator.objects.filter(user=alice, type="totp").exists()


FORM_TOKEN = re.compile(r'(?<=name="csrfmiddlewaretoken" value=")\w+')
"""Of the choice of a language, and another in each answer."""


def test_a_reset_does_not_tell_who_has_an_account(alice):
    pages = [
        FORM_TOKEN.sub("", text_of(Client().post("/accounts/password/reset/", {"email": email}, follow=True)))
        for email in (alice.email, "nobody@example.com")
    ]
    assert pages[0] == pages[1]
    assert [message.to for message in mail.outbox] == [[alice.email]]


def test_where_no_mail_server_is_configured_the_page_says_where_mail_goes(db, settings):
    where = "VAR_DIR/mail"
    assert where in text_of(Client().get("/accounts/password/reset/done/"))
    settings.ENV = replace(settings.ENV, email_url="smtp://mail.example.com:25")
    assert where not in text_of(Client().get("/accounts/password/reset/done/"))


def test_without_a_mail_server_the_mail_is_a_private_file(alice, settings, tmp_path: Path):
    settings.EMAIL_BACKEND = "accounts.mail.PrivateFiles"
    settings.EMAIL_FILE_PATH = tmp_path / "mail"
    Client().post("/accounts/password/reset/", {"email": alice.email})
    (written,) = (tmp_path / "mail").iterdir()
    assert "/accounts/password/reset/key/" in written.read_text()
    assert stat.S_IMODE(written.stat().st_mode) == 0o600


def test_a_second_factor_is_asked_for_after_the_password(alice):
    client, _ = sign_in(alice.email)
    secret = turn_on_totp(client)
    client.post("/accounts/logout/")

    client, response = sign_in(alice.email)
    assert response["Location"].startswith("/accounts/2fa/authenticate/")
    assert not get_user(client).is_authenticated
    page = client.get("/accounts/2fa/authenticate/")
    assert inline_parts(text_of(page)) == []
    client.post("/accounts/2fa/authenticate/", {"code": "000000"})
    assert not get_user(client).is_authenticated
    client.post("/accounts/2fa/authenticate/", {"code": recovery_codes(alice)[0]})
    assert get_user(client).is_authenticated
    assert secret not in text_of(client.get("/accounts/2fa/"))


def recovery_codes(user: User) -> list[str]:
    return Authenticator.objects.get(user=user, type="recovery_codes").wrap().get_unused_codes()


def passkey_for(client: Client, flags: AuthenticatorData.FLAG) -> dict[str, str]:
    """What a browser sends to the page that adds one, made by a device that says this of itself."""
    page = text_of(client.get("/accounts/2fa/webauthn/add/"))
    asked = json.loads(re.search(r'<script[^>]*type="application/json">(.*?)</script>', page)[1])
    challenge = websafe_decode(asked["creation_options"]["publicKey"]["challenge"])
    key = ES256({1: 2, 3: -7, -1: 1, -2: b"x" * 32, -3: b"y" * 32})
    made = AttestedCredentialData.create(Aaguid.NONE, b"of one device", key)
    device = AuthenticatorData.create(sha256(b"testserver").digest(), flags, 0, made)
    said = CollectedClientData.create("webauthn.create", challenge, "https://testserver")
    response = {
        "clientDataJSON": websafe_encode(said),
        "attestationObject": websafe_encode(AttestationObject.create("none", device, {})),
    }
    name = websafe_encode(b"of one device")
    credential = {"id": name, "rawId": name, "type": "public-key", "response": response}
    return {"name": "laptop", "credential": json.dumps(credential)}


def test_a_passkey_must_prove_who_holds_it(alice):
    """Whatever the browser was told: it signs in alone."""
    flag = AuthenticatorData.FLAG
    client, _ = sign_in(alice.email)
    confirm_password(client)

    client.post("/accounts/2fa/webauthn/add/", passkey_for(client, flag.UP | flag.AT))
    assert not Authenticator.objects.filter(type="webauthn").exists()

    client.post("/accounts/2fa/webauthn/add/", passkey_for(client, flag.UP | flag.AT | flag.UV))
    assert Authenticator.objects.filter(type="webauthn").exists()

    client.get("/accounts/2fa/webauthn/reauthenticate/")
    assert client.session["mfa.webauthn.state"]["user_verification"] == "required"


def test_recovery_codes_are_shown_to_be_kept(alice):
    client, _ = sign_in(alice.email)
    turn_on_totp(client)
    page = text_of(client.get("/accounts/2fa/recovery-codes/"))
    assert all(code in page for code in recovery_codes(alice))
    assert 'data-copy="recovery-codes"' in page


def test_the_account_page_says_whether_a_second_factor_is_on(alice):
    client, _ = sign_in(alice.email)
    assert ">Off</span>" in text_of(client.get("/account/"))
    turn_on_totp(client)
    page = text_of(client.get("/account/"))
    assert ">On</span>" in page
    assert "10 recovery codes are left" in page


def test_the_authenticator_secret_can_be_selected_and_copied(alice):
    client, _ = sign_in(alice.email)
    confirm_password(client)
    page = text_of(client.get("/accounts/2fa/totp/activate/"))
    field = re.search(r'<input[^>]*id="authenticator_secret"[^>]*>', page)[0]
    assert "readonly" in field
    assert "disabled" not in field
    assert 'data-copy="authenticator_secret"' in page


@pytest.mark.parametrize(
    ("path", "ours", "theirs"),
    [
        ("/accounts/login/", "Remember me", "Remember Me"),
        ("/accounts/password/change/", "New password (again)", "New Password"),
        ("/accounts/password/change/", "Change password", "Change Password"),
        ("/accounts/2fa/webauthn/add/", "Add a passkey", "Add Security Key"),
        ("/accounts/2fa/totp/activate/", "Authenticator app", "Authenticator App"),
        ("/accounts/2fa/recovery-codes/generate/", "Recovery codes", "Recovery Codes"),
        ("/accounts/logout/", "Sign out", "Sign Out"),
        ("/accounts/reauthenticate/", "Confirm that it is you", "Confirm Access"),
    ],
)
def test_pages_are_written_in_sentence_case(alice, path, ours, theirs):
    client = Client()
    if path != "/accounts/login/":
        sign_in(alice.email, client=client)
        if path != "/accounts/reauthenticate/":
            turn_on_totp(client) if "recovery" in path else confirm_password(client)
    page = text_of(client.get(path))
    assert ours in page
    assert theirs not in page


def test_the_admin_signs_in_by_the_same_door(ada):
    response = Client().get("/admin/", follow=True)
    assert response.redirect_chain[-1][0].startswith("/accounts/login/")
    response = Client().post("/admin/login/", {"username": ada.email, "password": PASSWORD})
    assert response.status_code == 302
    assert response["Location"].startswith("/accounts/login/")


def test_mail_without_a_server_goes_to_private_files():
    """pytest-django takes the setting's place during tests, so the file itself is read."""
    assert "accounts.mail.PrivateFiles" in (settings.BASE_DIR / "dashboard" / "settings.py").read_text()
