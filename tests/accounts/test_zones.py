"""Time zones that a person can choose."""

from datetime import UTC, datetime

import pytest

from accounts import zones

SUMMER, WINTER = datetime(2030, 7, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("Asia/Tokyo", "Asia/Tokyo"),
        (" asia/tokyo ", "Asia/Tokyo"),
        ("America/New York", "America/New_York"),
        ("utc", "UTC"),
        ("Tokyo", None),
        ("../../etc/passwd", None),
        ("Etc/GMT+3", None),
    ],
)
def test_a_zone_is_found_as_it_is_typed(typed, name):
    assert zones.found(typed) == name


def test_the_offset_is_of_the_moment():
    assert zones.offset("Asia/Kolkata", SUMMER) == "UTC+05:30"
    assert [zones.offset("America/New_York", at) for at in (SUMMER, WINTER)] == ["UTC-04:00", "UTC-05:00"]
    assert zones.offset("UTC", SUMMER) == "UTC+00:00"
