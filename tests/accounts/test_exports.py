import gc
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync
from django.db import connection, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.http import HttpRequest, StreamingHttpResponse
from django.test import AsyncRequestFactory, Client, RequestFactory
from ninja.errors import HttpError

from accounts import tokens
from accounts.api.exports import MOST_AT_ONCE, as_file, cell, lines
from accounts.models import User

Way = AsyncRequestFactory | RequestFactory


def asked(way: Way | None = None, person: int = 1) -> HttpRequest:
    request: HttpRequest = (way or AsyncRequestFactory()).get("/")
    request.user = User(pk=person)
    return request


class Parts:
    """A file of many parts that counts how many of them were made."""

    def __init__(self) -> None:
        self.made = 0

    def __iter__(self) -> Iterator[str]:
        for self.made in range(1, 1000):
            yield f"{self.made}\n"


@pytest.mark.parametrize("way", [AsyncRequestFactory(), RequestFactory()])
def test_a_file_has_a_name_and_a_type(way: Way) -> None:
    answer = as_file(asked(way), [], "calls.csv")

    assert answer["Content-Type"] == "text/csv"
    assert answer["Content-Disposition"] == 'attachment; filename="calls.csv"'


async def test_no_more_is_made_than_is_taken() -> None:
    parts = Parts()
    taken = aiter(as_file(asked(), parts, "calls.csv"))

    assert [await anext(taken), await anext(taken)] == [b"1\n", b"2\n"]
    assert parts.made == 2


async def test_what_goes_wrong_in_the_middle_ends_the_answer_with_it() -> None:
    def parts() -> Iterator[str]:
        yield "1\n"
        raise OSError("the database is gone")

    taken = aiter(as_file(asked(), parts(), "calls.csv"))

    assert await anext(taken) == b"1\n"
    with pytest.raises(OSError, match="gone"):
        await anext(taken)


@pytest.fixture
def opened(db: None, tmp_path: Path) -> Iterator[BaseDatabaseWrapper]:
    """A connection that can be closed, unlike one to a database in memory or in a test's transaction."""
    usual = connections["default"]
    connections["default"] = opened = usual.copy()
    if opened.vendor == "sqlite":
        opened.settings_dict["NAME"] = str(tmp_path / "sqlite3")
    yield opened
    opened.close()
    connections["default"] = usual


def looks(times: int) -> Iterator[str]:
    """A file that looks at the database for each of its parts, and cannot go on at its end."""
    for _ in range(times):
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            found = cursor.fetchone()
        yield f"{found}\n"
    raise OSError("the database is gone")


def test_no_connection_is_held_while_a_reader_is_slow(opened: BaseDatabaseWrapper) -> None:
    async def taken_slowly() -> list[bool]:
        parts = aiter(as_file(asked(), looks(2), "calls.csv"))
        held = [await anext(parts) and opened.connection is not None for _ in range(2)]
        with pytest.raises(OSError, match="gone"):
            await anext(parts)
        return [*held, opened.connection is not None]

    opened.ensure_connection()  # as who asks is looked up before

    assert async_to_sync(taken_slowly)() == [False, False, False]


def test_a_transaction_goes_on_between_parts(opened: BaseDatabaseWrapper) -> None:
    async def taken() -> bytes:
        return await anext(aiter(as_file(asked(), looks(1), "calls.csv")))

    with transaction.atomic():
        assert async_to_sync(taken)() == b"(1,)\n"
        assert opened.connection is not None


def test_a_reader_without_a_loop_gets_the_same() -> None:
    assert b"".join(as_file(asked(RequestFactory()), ["a\n", "b\n"], "calls.csv")) == b"a\nb\n"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\ta", "\ra"])
def test_what_looks_like_a_formula_is_kept_text(text: str) -> None:
    assert cell(text) == f" {text}"


@pytest.mark.parametrize(("value", "written"), [("b;=1+1", "b; =1+1"), ({"a": "b;=1+1"}, '{"a": "b; =1+1"}')])
def test_a_formula_behind_a_separator_is_kept_text(value: object, written: str) -> None:
    assert cell(value) == written


def test_cells_are_written_plainly() -> None:
    values = [None, True, -5, Decimal(-5) / 10**9, datetime(2030, 1, 1, tzinfo=UTC), {"a": "ä"}, "a,b"]

    assert lines([values]) == ',True,-5,-0.000000005,2030-01-01T00:00:00+00:00,"{""a"": ""ä""}","a,b"\r\n'


# How many at once


people = count(1000)


@pytest.fixture
def person() -> int:
    """Somebody who takes no file yet."""
    return next(people)


def taken(way: Way | None = None, *, person: int) -> StreamingHttpResponse:
    return as_file(asked(way, person), Parts(), "calls.csv")


def most(person: int, but: int = 0) -> list[StreamingHttpResponse]:
    return [taken(person=person) for _ in range(MOST_AT_ONCE - but)]


def test_one_more_than_the_most_files_of_a_person_is_refused_with_a_sentence(person: int) -> None:
    held = most(person)

    with pytest.raises(HttpError, match="3 files at once") as refused:
        taken(person=person)

    assert refused.value.status_code == 429
    assert len(held) == 3


def test_a_person_is_not_in_the_way_of_another(person: int) -> None:
    held = most(person)

    assert len(most(next(people))) == len(held)


async def test_a_file_that_is_read_to_its_end_makes_room(person: int) -> None:
    held = [as_file(asked(person=person), ["a\n"], "calls.csv"), *most(person, but=1)]

    assert [part async for part in held[0]] == [b"a\n"]

    assert taken(person=person)
    assert len(held) == MOST_AT_ONCE


def test_a_file_that_is_read_to_its_end_without_a_loop_makes_room(person: int) -> None:
    held = [as_file(asked(RequestFactory(), person), ["a\n"], "calls.csv"), *most(person, but=1)]

    assert list(held[0]) == [b"a\n"]

    assert taken(person=person)


async def test_a_file_that_goes_wrong_in_the_middle_makes_room(person: int) -> None:
    def parts() -> Iterator[str]:
        yield "1\n"
        raise OSError("the database is gone")

    held = [as_file(asked(person=person), parts(), "calls.csv"), *most(person, but=1)]
    with pytest.raises(OSError, match="gone"):
        [part async for part in held[0]]

    assert taken(person=person)


@pytest.mark.django_db
@pytest.mark.parametrize("way", [AsyncRequestFactory(), RequestFactory()])
def test_a_file_that_is_closed_before_it_began_makes_room_once(way: Way, person: int) -> None:
    held = [taken(way, person=person), *most(person, but=1)]

    held[0].close()
    held[0].close()
    held.append(taken(person=person))

    with pytest.raises(HttpError):
        taken(person=person)


async def test_a_reader_who_leaves_in_the_middle_makes_room(person: int) -> None:
    held = most(person)
    parts = aiter(held[0])
    await anext(parts)

    held[0].close()

    assert taken(person=person)


def test_a_file_that_nobody_ever_sent_makes_room(person: int) -> None:
    held = most(person)
    held.pop()
    gc.collect()

    assert taken(person=person)


@pytest.mark.django_db
def test_a_session_and_an_access_token_of_a_person_count_together(person: int) -> None:
    alice = User.objects.create(pk=person, email="alice@example.com")
    token = tokens.make_token(alice, "program", ["read"])[1]
    page, program = Client(), Client(headers={"Authorization": f"Bearer {token}"})
    page.force_login(alice)
    held = [each.get("/api/audit.csv") for each in (page, page, program)]

    refused = [each.get("/api/audit.csv") for each in (page, program)]

    assert [each.status_code for each in held] == [200] * 3
    for each in refused:
        assert (each.status_code, each["Content-Type"]) == (429, "application/problem+json")
        assert each.json()["detail"] == "You take 3 files at once already: wait until one is done."
