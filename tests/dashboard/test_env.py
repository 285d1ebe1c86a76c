"""What a setting may be, and the sentence that a wrong one stops the start with."""

import stat

import pytest
from cryptography.fernet import Fernet

from dashboard.env import WrongSetting, address, kept_credential_key, kept_secret, load, own_folder

KEY, OLDER = Fernet.generate_key().decode(), Fernet.generate_key().decode()


def refusal(**environ):
    with pytest.raises(WrongSetting) as why:
        load(environ)
    return str(why.value)


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("currency", ["usd", "US", "USDT", "U$D", "ÄÖÜ", "dollars"])
def test_a_currency_is_three_capital_letters(currency):
    assert refusal(LEDGER_CURRENCY=currency).startswith("LEDGER_CURRENCY must be three capital letters")
    assert load({"LEDGER_CURRENCY": "JPY"}).ledger_currency == "JPY"


@pytest.mark.parametrize(
    "wrong", ["abc", f"{KEY},abc", KEY[:-2], "ключ"], ids=["short", "one of two", "cut", "not ASCII"]
)
def test_a_key_of_credentials_that_is_no_fernet_key_is_refused_and_not_shown(wrong):
    said = refusal(CREDENTIAL_KEYS=wrong)

    assert said.startswith("CREDENTIAL_KEYS has one that is no Fernet key")
    assert wrong not in said


def test_several_keys_of_credentials_are_taken_newest_first():
    assert load({"CREDENTIAL_KEYS": f"{KEY}, {OLDER}"}).credential_keys == (KEY, OLDER)


@pytest.mark.parametrize(
    "wrong",
    [
        "mail.example.com:25",
        "http://mail.example.com",
        "smtp://",
        "smtp://alice:hush-hush@",
        "smtp://alice:hush#hush@mail.example.com",
        "smtp://alice:hush/hush@mail.example.com",
        "smtp://mail.example.com:port",
        "smtp://[mail",
    ],
)
def test_a_mail_server_that_cannot_be_one_is_refused_and_not_shown(wrong):
    said = refusal(EMAIL_URL=wrong)

    assert said.startswith("EMAIL_URL must be smtp:// or smtps://")
    assert "hush" not in said


@pytest.mark.parametrize("url", ["smtp://localhost", "smtps://alice:p%2Fw@mail.example.com:465/"])
def test_a_mail_server_is_taken_as_it_is(url):
    assert load({"EMAIL_URL": url}).email_url == url


def test_a_kept_key_of_credentials_is_made_once(tmp_path):
    kept = kept_credential_key(tmp_path)

    assert Fernet(kept)
    assert kept_credential_key(tmp_path) == kept


def test_a_kept_key_of_credentials_that_is_cut_off_is_refused(tmp_path):
    path = tmp_path / "secrets" / "credential_key"
    path.parent.mkdir()
    path.write_text(KEY[:40])

    with pytest.raises(WrongSetting, match=r"no Fernet key.*backup") as why:
        kept_credential_key(tmp_path)
    assert str(path) in str(why.value)


def test_a_folder_made_here_is_its_owners_alone(tmp_path):
    kept_secret(tmp_path / "var", "secret_key")

    assert mode_of(tmp_path / "var") == 0o700
    assert mode_of(tmp_path / "var" / "secrets") == 0o700


def test_a_folder_that_is_there_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o750)

    assert mode_of(own_folder(tmp_path)) == 0o750


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("localhost", "http://localhost:8000"),
        ("0.0.0.0", "http://localhost:8000"),
        ("::", "http://localhost:8000"),
        ("::1", "http://[::1]:8000"),
        ("gateway.example.com", "http://gateway.example.com:8000"),
    ],
)
def test_the_address_is_one_that_a_browser_here_can_open(host, url):
    assert address(host, 8000) == url


@pytest.mark.parametrize("url", ["https://llm.example.com", "http://10.0.0.7:8000", "https://[::1]:8443"])
def test_a_public_address_is_taken_without_its_closing_slash(url):
    assert load({"PUBLIC_URL": url}).public_url == url
    assert load({"PUBLIC_URL": f"{url}/"}).public_url == url


@pytest.mark.parametrize(
    "wrong",
    [
        "llm.example.com",
        "ftp://llm.example.com",
        "https://",
        "https://llm.example.com/penstock",
        "https://llm.example.com?x=1",
        "https://me@llm.example.com",
        "https://llm.example.com:port",
        "https://llm example.com",
    ],
)
def test_a_public_address_that_cannot_be_one_is_refused(wrong):
    assert refusal(PUBLIC_URL=wrong).startswith("PUBLIC_URL must be http:// or https:// and a host")


def test_printing_the_settings_shows_no_secret():
    pepper, mail = "p" * 32, "smtp://alice:hush@mail.example.com"
    env = load({"SECRET_KEY": f"{KEY}x", "KEY_PEPPERS": pepper, "CREDENTIAL_KEYS": OLDER, "EMAIL_URL": mail})

    for secret in (KEY, pepper, OLDER, "hush"):
        assert secret not in repr(env)
    assert "port=8000" in repr(env)


def test_a_database_url_is_kept_as_it_is_and_never_shown():
    url = "postgres://penstock:s3cr%40t@db.internal/books?sslmode=require"
    found = load({"DATABASE_URL": url})
    assert found.database_url == url
    assert "s3cr" not in repr(found)


def test_a_database_may_be_behind_a_socket_or_on_several_hosts():
    for url in (
        "postgresql://u@%2Frun%2Fpostgresql/books",
        "postgresql:///books?host=/run/postgresql",
        "postgresql://u@one.internal,two.internal/books",
    ):
        assert load({"DATABASE_URL": url}).database_url == url


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("mysql://u:hidden@host/books", "must begin with postgresql://"),
        ("postgresql://u:hidden@host", "names no database"),
        ("postgresql://u:hidden@host/", "names no database"),
        ("postgresql://u:hidden@host:99999/books", "a port that is no number from 1 to 65535"),
        ("postgresql://u:hid@den:x@host/books", "a port that is no number"),
        ("postgresql://u:hid/den@host/books", "a port that is no number"),
        ("postgresql://u:5/hidden@host/books", "a / or @ in the name of the database"),
        ("postgresql://u:pass@hidden@host/books", "a / or @ in the host"),
        ("postgresql://u:pass@host,hid@den/books", "a / or @ in the host"),
        ("postgresql://u:pass@@hidden/books", "a / or @ in the host"),
        ("postgresql://u:pass@hid%2Fden/books", "a / or @ in the host"),
        ("postgresql://u:hidden@host/books?sslmod=require", "parameters that libpq knows"),
        ("postgresql://u:hidden@[::1/books", "cannot be read"),
        ("postgresql://u:hidden%zz@host/books", "cannot be read"),
    ],
)
def test_a_wrong_database_url_is_told_without_its_password(url, sentence):
    with pytest.raises(WrongSetting, match="DATABASE_URL ") as told:
        load({"DATABASE_URL": url})
    assert sentence in str(told.value)
    assert "hid" not in str(told.value)
    assert told.value.__cause__ is None
