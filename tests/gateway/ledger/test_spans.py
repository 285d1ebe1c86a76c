from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.ledger.spans import MOST_DRAWN, Step, TooMany, edges, midnight, step_for

BERLIN = ZoneInfo("Europe/Berlin")
MOMENTS = some.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=some.just(UTC))  # noqa: DTZ001


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def hours(found: list[datetime]) -> list[float]:
    return [(later - earlier) / timedelta(hours=1) for earlier, later in pairwise(found)]


def test_days_have_23_and_25_hours_where_the_clocks_change() -> None:
    spring = edges(midnight(date(2026, 3, 28), BERLIN), midnight(date(2026, 3, 31), BERLIN), BERLIN, "day")
    autumn = edges(midnight(date(2026, 10, 24), BERLIN), midnight(date(2026, 10, 27), BERLIN), BERLIN, "day")

    assert hours(spring) == [24, 23, 24]
    assert hours(autumn) == [24, 25, 24]


def test_the_hour_that_comes_twice_is_two_hours() -> None:
    found = edges(at("2026-10-24T23:00"), at("2026-10-25T03:00"), BERLIN, "hour")

    assert found == [
        at(f"2026-10-{text}") for text in ("24T23:00", "25T00:00", "25T01:00", "25T02:00", "25T03:00")
    ]


def test_hours_begin_on_the_clocks_of_the_zone() -> None:
    found = edges(at("2026-07-01T00:00"), at("2026-07-01T02:00"), ZoneInfo("Asia/Kathmandu"), "hour")

    assert found == [at(f"2026-07-01T{text}") for text in ("00:00", "00:15", "01:15", "02:00")]


def test_where_half_an_hour_is_set_back_an_hour_is_longer() -> None:
    found = edges(at("2026-04-04T14:00"), at("2026-04-04T17:00"), ZoneInfo("Australia/Lord_Howe"), "hour")

    assert hours(found) == [1.5, 1, 0.5]


def test_a_midnight_that_the_clocks_skip_is_the_moment_of_the_change() -> None:
    assert midnight(date(2018, 11, 4), ZoneInfo("America/Sao_Paulo")) == at("2018-11-04T03:00")


def test_a_date_that_a_zone_never_had_is_no_bucket() -> None:
    apia = ZoneInfo("Pacific/Apia")

    found = edges(midnight(date(2011, 12, 29), apia), midnight(date(2012, 1, 1), apia), apia, "day")

    assert hours(found) == [24, 24]


def test_weeks_begin_on_monday_and_months_on_the_first() -> None:
    weeks = edges(at("2026-09-30T00:00"), at("2026-10-14T00:00"), ZoneInfo("UTC"), "week")
    months = edges(at("2026-09-30T00:00"), at("2026-11-14T00:00"), ZoneInfo("UTC"), "month")

    assert [each.date().isoformat() for each in weeks] == [
        "2026-09-30",
        "2026-10-05",
        "2026-10-12",
        "2026-10-14",
    ]
    assert [each.date().isoformat() for each in months] == [
        "2026-09-30",
        "2026-10-01",
        "2026-11-01",
        "2026-11-14",
    ]


@pytest.mark.parametrize(
    ("days", "step"),
    [(1, "hour"), (4, "hour"), (5, "day"), (93, "day"), (94, "week"), (600, "week"), (740, "month")],
)
def test_the_step_is_chosen_by_the_length_of_the_span(days: int, step: Step) -> None:
    assert step_for(at("2026-01-01T00:00"), at("2026-01-01T00:00") + timedelta(days=days)) == step


@given(
    MOMENTS,
    some.integers(1, 365 * 8 * 96),
    some.sampled_from(["UTC", "Asia/Kolkata", "America/St_Johns", "Pacific/Apia"]),
)
def test_edges_grow_from_the_first_moment_to_the_last_and_are_few(
    since: datetime, quarters: int, zone: str
) -> None:
    until = since + timedelta(minutes=15 * quarters)

    found = edges(since, until, ZoneInfo(zone))

    assert (found[0], found[-1]) == (since, until)
    assert all(earlier < later for earlier, later in pairwise(found))
    assert len(found) <= MOST_DRAWN + 2


@given(
    MOMENTS, some.sampled_from(["Asia/Kolkata", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu"])
)
def test_every_inner_edge_is_a_whole_quarter_hour(since: datetime, zone: str) -> None:
    found = edges(since, since + timedelta(days=3), ZoneInfo(zone), "hour")

    assert all(each.timestamp() % 900 == 0 for each in found[1:-1])


def test_a_span_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ValueError, match="ends before it begins"):
        edges(at("2026-01-02T00:00"), at("2026-01-01T00:00"), BERLIN)


def test_too_many_points_are_refused() -> None:
    with pytest.raises(TooMany, match="longer step"):
        edges(at("2026-01-01T00:00"), at("2027-01-01T00:00"), BERLIN, "hour")
