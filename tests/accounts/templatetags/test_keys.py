from datetime import UTC, datetime, timedelta

import pytest
from django.template import Context

from accounts.templatetags.keys import countdown, left

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (2 * 86_400 + 3 * 3600 + 59 * 60, "2 d 3 h"),
        (86_400, "1 d 0 h"),
        (86_399, "23 h 59 min"),
        (3599, "59 min 59 s"),
        (59, "59 s"),
        (0, "0 s"),
        (-5, "0 s"),
    ],
)
def test_what_is_left_is_told_in_its_two_largest_units(seconds, words):
    assert left(seconds) == words


def test_a_countdown_says_what_is_left_and_holds_the_moment_for_a_script():
    html = countdown(Context({}), NOW + timedelta(days=2, hours=3), NOW)
    assert html == (
        '<time class="countdown" datetime="2026-11-25T15:00:00+00:00"'
        ' title="25 Nov 2026, 15:00:00 UTC" data-ends-at>2 d 3 h</time>'
    )
