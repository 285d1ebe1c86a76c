"""Django's settings of the two databases."""

from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from dashboard import env
from dashboard.databases import postgresql, sqlite

URL = "postgresql://penstock:s3cr%40t@db.internal:5433/books?sslmode=require"


def settings(url: str = URL, **more: str) -> dict:
    return postgresql(env.load({"DATABASE_URL": url, **more}))


def session(found: dict) -> dict[str, str]:
    """What the server sets for a connection."""
    return dict(each.removeprefix("-c ").split("=") for each in found["OPTIONS"]["options"].split(" -c "))


def test_a_file_in_var_dir_is_the_usual_one(tmp_path: Path):
    assert sqlite(tmp_path)["NAME"] == tmp_path / "penstock.sqlite3"


def test_the_address_is_taken_apart():
    found = settings()
    assert {name: found[name] for name in ("NAME", "USER", "PASSWORD", "HOST", "PORT")} == {
        "NAME": "books",
        "USER": "penstock",
        "PASSWORD": "s3cr@t",
        "HOST": "db.internal",
        "PORT": "5433",
    }
    assert found["OPTIONS"]["sslmode"] == "require"


@pytest.mark.parametrize(
    "url", ["postgresql:///books?host=/run/postgresql", "postgresql://%2Frun%2Fpostgresql/books"]
)
def test_it_may_be_a_socket(url):
    assert (settings(url)["HOST"], settings(url)["NAME"]) == ("/run/postgresql", "books")


def test_no_wait_is_without_an_end():
    found = settings(DATABASE_TIMEOUT_S="2.5")
    assert session(found) == session(found) | {
        "TimeZone": "UTC",
        "statement_timeout": "2500ms",
        "lock_timeout": "5s",
        "idle_in_transaction_session_timeout": "60s",
    }
    assert found["OPTIONS"]["connect_timeout"] == 3
    assert found["OPTIONS"]["tcp_user_timeout"] == 10_000
    assert found["OPTIONS"]["pool"] == {"most": 12, "wait_s": 5.0, "statement_s": 2.5}


def test_what_the_address_says_wins():
    found = settings(f"{URL}&connect_timeout=9&options=-c%20search_path%3Dllm&application_name=two")
    assert found["OPTIONS"]["connect_timeout"] == "9"
    assert found["OPTIONS"]["application_name"] == "two"
    assert session(found)["search_path"] == "llm"
    assert list(session(found))[-1] == "search_path"


def test_libpq_knows_every_parameter():
    options = {name: value for name, value in settings()["OPTIONS"].items() if name != "pool"}
    assert make_conninfo(**options)
