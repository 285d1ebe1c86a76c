"""Rollups of what nobody marked: of before there were any, of what is asked for, of older code."""

from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from accounts.models import ApiKey, Team
from gateway.ledger import rebuilding, rollups
from gateway.ledger.cover import DAY, MINUTE, floor
from gateway.ledger.marks import AGAIN
from gateway.ledger.measuring import minute_of
from gateway.ledger.writer import book
from gateway.models import Entry, Rollup, Stale
from tests.gateway.ledger import naive
from tests.gateway.records import AT_US, opened, settled

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime.fromtimestamp(AT_US / 1e6, UTC)
NOW_MINUTE = minute_of(NOW)
TODAY = floor(NOW_MINUTE, DAY)


@pytest.fixture
def team() -> Team:
    return Team.objects.create(name="Tide", slug="tide")


@pytest.fixture
def call(team: Team) -> dict[str, Any]:
    key = ApiKey.objects.create(team=team, name="alice's")
    return {"team_id": team.pk, "key_id": key.pk}


def book_at(call: dict[str, Any], *minutes: int) -> None:
    book([settled(opened(**call, started_at_us=each * 60_000_000)) for each in minutes])


def rebuild(**options: Any) -> list[str]:
    said = StringIO()
    call_command("rebuild_rollups", stdout=said, **options)
    return said.getvalue().splitlines()


def spoil() -> None:
    """As no code of ours would do."""
    Rollup.objects.update(calls=77)


def test_everything_is_marked_once_where_there_are_no_rollups(call: dict[str, Any]) -> None:
    book_at(call, NOW_MINUTE - 3 * DAY, NOW_MINUTE)
    Stale.objects.all().delete()

    for _ in range(2):
        rebuilding.begin()

    assert rebuilding.days_left() == 4
    rollups.work(NOW)
    rebuilding.begin()
    assert rebuilding.days_left() == 0
    assert naive.found() == naive.expected([MINUTE]) | {
        key: row for key, row in naive.expected([15, DAY]).items() if key[1] < TODAY
    }


def test_a_ledger_without_calls_has_nothing_to_mark(team: Team) -> None:
    rebuilding.begin()
    assert not Stale.objects.exists()


def test_what_is_rebuilt_is_right_again(call: dict[str, Any]) -> None:
    book_at(call, NOW_MINUTE - 3 * DAY, NOW_MINUTE)
    rollups.work(NOW)
    spoil()

    assert rebuild() == ["4 days are worked out anew.", "Done."]

    assert naive.found() == naive.expected()


def test_a_rebuild_takes_away_what_is_on_no_ledger(call: dict[str, Any]) -> None:
    book_at(call, NOW_MINUTE, NOW_MINUTE - 1)
    rollups.work(NOW)
    Entry.objects.first().delete()

    rebuild()

    assert naive.found() == naive.expected()


def test_a_rebuild_is_of_the_team_and_the_days_that_are_named(call: dict[str, Any]) -> None:
    other = Team.objects.create(name="Ebb", slug="ebb")
    book_at(call, NOW_MINUTE - 3 * DAY, NOW_MINUTE)
    book_at(call | {"team_id": other.pk}, NOW_MINUTE)
    rollups.work(NOW)
    spoil()

    rebuild(team="tide", since=f"{NOW:%Y-%m-%d}")

    spoilt = Rollup.objects.filter(size=MINUTE, calls=77)
    assert set(spoilt.values_list("team_id", "start")) == {
        (call["team_id"], NOW_MINUTE - 3 * DAY),
        (other.pk, NOW_MINUTE),
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"team": "nobody"}, "There is no team 'nobody'."),
        ({"since": "June"}, "--since must be a day such as 2026-07-01, not 'June'."),
    ],
)
def test_a_rebuild_of_nothing_says_so(db: None, options: dict[str, str], said: str) -> None:
    with pytest.raises(CommandError, match=said):
        rebuild(**options)


def test_a_rebuild_that_was_stopped_goes_on_with_the_job(call: dict[str, Any]) -> None:
    book_at(call, NOW_MINUTE - 3 * DAY, NOW_MINUTE)
    rollups.work(NOW)
    spoil()
    rebuilding.again(None, None)
    rebuilding.mark_a_day()

    while not rollups.work(NOW, budget_s=0.001):
        assert Stale.objects.exists()

    assert not Stale.objects.filter(size=AGAIN).exists()
    assert not Rollup.objects.filter(calls=77).exists()


def test_calls_that_older_code_booked_are_found(call: dict[str, Any]) -> None:
    book_at(call, NOW_MINUTE - 5, NOW_MINUTE)
    rollups.work(NOW)
    book_at(call, NOW_MINUTE - 5, NOW_MINUTE - 1)
    Stale.objects.filter(size=MINUTE).delete()
    book_at(call, NOW_MINUTE)  # with its mark

    assert rebuilding.verify(NOW) == 2

    rollups.work(NOW)
    assert rebuilding.verify(NOW) == 0
    assert naive.found() == naive.expected([MINUTE])
