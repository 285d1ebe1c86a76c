"""What stands where something is missing: nothing there, not allowed, a database that fails."""

import re

import pytest
from django.db import OperationalError, connection

from tests.dashboard.test_access_matrix import PAGES, client_of, world

__all__ = ["world"]

FILES = re.compile(r"\.(csv|js)\b")
GETS = [name for name in PAGES if name.startswith("GET ") and not FILES.search(name)]
READING = [name for name in GETS if name != "GET /styleguide/"]
REFUSING = [name for name in GETS if "no" in PAGES[name].values()]
WHO_ASKS = re.compile(r'"(django_session|accounts_user|usersessions_\w+)"')
"""Tables that say whose request it is: without them nobody is signed in."""


def failing(execute, sql, *asked):
    if "FROM" in sql and not WHO_ASKS.search(sql.partition("FROM")[2]):
        raise OperationalError("disk I/O error")
    return execute(sql, *asked)


@pytest.mark.parametrize("name", REFUSING)
def test_a_page_that_is_not_theirs_says_so(name, world):
    refused = next(who for who, answer in PAGES[name].items() if answer == "no")

    answer = client_of(refused, world).get(name.partition(" ")[2].format(**world))

    assert answer.status_code == 403
    assert 'data-state="forbidden"' in answer.content.decode()


@pytest.mark.parametrize("name", READING)
def test_a_page_whose_database_fails_says_so(name, world):
    who = "owner" if PAGES[name]["owner"] == "yes" else "administrator"
    client = client_of(who, world)
    client.raise_request_exception = False

    with connection.execute_wrapper(failing):
        answer = client.get(name.partition(" ")[2].format(**world))

    body = answer.content.decode()
    assert answer.status_code == 503
    assert 'data-state="error"' in body
    assert "disk I/O" not in body
    assert "Traceback" not in body
