"""What is said while the database is away, without a database."""

import json

import pytest
from django.db import InterfaceError, OperationalError, connection
from django.test import Client

from dashboard.outage import is_away
from dashboard.problems import MEDIA_TYPE


def refuse(*_: object) -> None:
    raise OperationalError("connection refused")


@pytest.fixture
def client() -> Client:
    """Of a browser that was signed in."""
    client = Client(raise_request_exception=False)
    client.cookies["sessionid"] = "a" * 32
    return client


def test_a_page_says_so_and_when_to_come_back(client, db):
    with connection.execute_wrapper(refuse):
        answer = client.get("/keys/")
    assert answer.status_code == 503
    assert int(answer["Retry-After"]) > 0
    assert b"The database is away" in answer.content


def test_the_management_api_says_so_as_a_problem(client, db):
    with connection.execute_wrapper(refuse):
        answer = client.get("/api/teams")
    assert (answer.status_code, answer["Content-Type"]) == (503, MEDIA_TYPE)
    assert int(answer["Retry-After"]) > 0
    assert "The database does not answer" in json.loads(answer.content)["detail"]


def test_another_failure_stays_one(client, db):
    def break_down(*_: object) -> None:
        raise ZeroDivisionError

    with connection.execute_wrapper(break_down):
        answer = client.get("/keys/")
    assert answer.status_code == 500
    assert b"Something broke" in answer.content


@pytest.mark.parametrize(
    ("why", "away"),
    [
        (OperationalError("database is locked"), True),
        (InterfaceError("connection already closed"), True),
        (OperationalError("no such table: gateway_entry"), False),
        (ValueError("no"), False),
        (None, False),
    ],
)
def test_what_later_will_mend(why, away):
    assert is_away(why) is away
