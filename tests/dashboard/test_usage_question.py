"""Which span is asked for, and which one it is compared with."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.http import QueryDict

from dashboard.usage_question import Span, UsageQuestion, as_long_before, preset, preset_before

NOW = datetime(2026, 3, 30, 10, 17, tzinfo=UTC)
"""A Monday; clocks in Berlin went forward the day before."""
BERLIN = ZoneInfo("Europe/Berlin")
A_MINUTE = timedelta(minutes=1)


def at(text):
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("name", "since", "before_since", "before_until"),
    [
        ("hour", "2026-03-30T09:18Z", "2026-03-30T08:18Z", "2026-03-30T09:18Z"),
        ("24h", "2026-03-29T10:18Z", "2026-03-28T10:18Z", "2026-03-29T10:18Z"),
        ("today", "2026-03-30T00:00Z", "2026-03-29T00:00Z", "2026-03-29T10:18Z"),
        ("", "2026-03-24T00:00Z", "2026-03-17T00:00Z", "2026-03-23T10:18Z"),
        ("30d", "2026-03-01T00:00Z", "2026-01-30T00:00Z", "2026-02-28T10:18Z"),
        ("month", "2026-03-01T00:00Z", "2026-02-01T00:00Z", "2026-03-01T00:00Z"),  # it has 28 days
    ],
)
def test_a_preset_ends_now_and_is_compared_with_as_much_before(name, since, before_since, before_until):
    span = preset(name, ZoneInfo("UTC"), NOW)

    assert span == Span(at(since), NOW + A_MINUTE)
    assert preset_before(name, ZoneInfo("UTC"), span) == Span(at(before_since), at(before_until))


def test_this_month_is_compared_with_the_last_one_to_the_same_minute():
    span = preset("month", BERLIN, NOW - timedelta(days=10))

    assert preset_before("month", BERLIN, span).until == at("2026-02-20T11:18+01:00")


def test_last_month_is_whole_and_so_is_the_one_before():
    span = preset("last_month", BERLIN, datetime(2026, 5, 9, tzinfo=UTC))

    assert span == Span(at("2026-04-01T00:00+02:00"), at("2026-05-01T00:00+02:00"))
    before = preset_before("last_month", BERLIN, span)
    assert before == Span(at("2026-03-01T00:00+01:00"), at("2026-04-01T00:00+02:00"))


def test_the_day_before_ends_at_the_same_time_of_day_though_clocks_changed():
    span = preset("today", BERLIN, NOW - timedelta(days=1))

    before = preset_before("today", BERLIN, span)

    assert span.until.astimezone(BERLIN).time() == before.until.astimezone(BERLIN).time()
    assert before.since == at("2026-03-28T00:00+01:00")


def test_any_other_span_is_compared_with_one_as_long():
    span = Span(at("2026-03-03T08:00Z"), at("2026-03-05T20:00Z"))

    assert as_long_before(span) == Span(at("2026-02-28T20:00Z"), at("2026-03-03T08:00Z"))


def question(text):
    return UsageQuestion(QueryDict(text), all_teams=False)


@pytest.mark.parametrize(
    ("asked", "since", "until"),
    [
        ("since=2026-03-01&until=2026-03-02", "2026-03-01T00:00Z", "2026-03-03T00:00Z"),
        ("since=2026-03-01T08:30&until=2026-03-01T09:00", "2026-03-01T08:30Z", "2026-03-01T09:00Z"),
        ("since=2026-03-01&until=2999-01-01", "2026-03-01T00:00Z", "2026-03-30T10:18Z"),
        ("since=0001-01-01&until=2000-01-03", "2000-01-01T00:00Z", "2000-01-04T00:00Z"),
        ("", "2026-03-24T00:00Z", "2026-03-30T10:18Z"),
        ("since=9999-12-31T23:59", "2026-03-24T00:00Z", "2026-03-30T10:18Z"),
    ],
)
def test_a_span_of_ones_own_is_within_what_can_be(asked, since, until):
    assert question(f"range=custom&{asked}").span(NOW) == Span(at(since), at(until))
