from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from django.template import Context, Template
from django.utils.translation import override

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


AT = datetime(2026, 11, 22, 14, 3, 9, tzinfo=UTC)


class Reader(NamedTuple):
    zone: str


def shown(tag, zone="", language="en"):
    with override(language):
        return Template("{% load moments %}" + tag).render(Context({"user": Reader(zone), "at": AT}))


@pytest.mark.parametrize(
    ("zone", "language", "words"),
    [
        ("", "en", "22 Nov 2026, 14:03 UTC"),
        ("Asia/Tokyo", "en", "22 Nov 2026, 23:03 JST"),
        ("Asia/Tokyo", "ja", "2026/11/22 23:03 JST"),
        ("America/Sao_Paulo", "en", "22 Nov 2026, 11:03 UTC-03"),
        ("Nowhere/Land", "en", "22 Nov 2026, 14:03 UTC"),
    ],
)
def test_a_moment_is_in_the_zone_and_the_language_of_its_reader(zone, language, words):
    assert f">{words}</time>" in shown("{% moment at %}", zone, language)


def test_programs_read_the_same_moment_in_utc_whoever_reads_the_page():
    assert 'datetime="2026-11-22T14:03:09+00:00"' in shown("{% moment at %}", "Asia/Tokyo")
    assert 'title="22 Nov 2026, 23:03:09 JST"' in shown('{% moment at "ago" %}', "Asia/Tokyo")


def test_a_table_sorts_as_it_reads_and_says_the_zone_in_its_head():
    assert ">2026-11-22 23:03</time>" in shown('{% moment at "table" %}', "Asia/Tokyo")
    assert ">2026-11-22 14:03:09</time>" in shown('{% moment at "table seconds" %}')
    assert ">2026-11-23</time>" in shown('{% moment at "day" %}', "Pacific/Auckland")
    assert shown("{% zone %}", "Asia/Tokyo") == "JST"
