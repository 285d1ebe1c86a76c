from datetime import UTC, datetime, timedelta

import pytest

from accounts.templatetags.moments import ago

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "just now"),
        (0, "just now"),
        (59, "just now"),
        (60, "1\xa0minute ago"),
        (7 * 60, "7\xa0minutes ago"),
        (86_400, "1\xa0day ago"),
    ],
)
def test_a_moment_is_told_in_words(seconds, words):
    assert ago(NOW - timedelta(seconds=seconds), NOW) == words
