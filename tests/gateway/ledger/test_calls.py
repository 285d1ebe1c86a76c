"""Lists of calls: what is asked for, the newest first, found without looking through the ledger."""

import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import ApiKey, Team
from gateway.ledger import calls, rollups
from gateway.ledger.calls import Asked, Bucket, Likeness, Place, Span
from gateway.ledger.cover import DAY, QUARTER
from gateway.ledger.writer import book
from gateway.models import Correction, Entry, Refusal, Repricing, Rollup, Stale, TagName
from gateway.relay.call import new_call_id
from gateway.relay.records import Refusals
from tests.gateway.records import opened, refused, settled

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2026, 9, 21, 12, 7, 30, tzinfo=UTC)
ROUTES = ("gpt-4o", "gpt-4o", "gpt-4o", "rare")
OUTCOMES = ("answered",) * 9 + ("failed",)


@pytest.fixture
def team() -> Team:
    return Team.objects.create(name="Tide", slug="tide")


@pytest.fixture
def other_team() -> Team:
    return Team.objects.create(name="Solar", slug="solar")


def key_of(team):
    return ApiKey.objects.get_or_create(team=team, name=f"key of {team.name}")[0]


def call_at(team, moment, **changes):
    """A call that started then, as a record."""
    at_us = int(moment.timestamp() * 1_000_000)
    call = opened(
        call_id=new_call_id(at_us * 1000),
        started_at_us=at_us,
        team_id=team.pk,
        key_id=key_of(team).pk,
        tags=changes.pop("tags", None),
        route=changes.pop("route", "gpt-4o"),
    )
    return settled(call, **{"ended_at_us": at_us + 400_100, **changes})


def some_calls(teams, number, seed=1):
    """Over four days, most of them today; every fourth has a tag."""
    draw = random.Random(seed)
    found = []
    for each in range(number):
        ago = timedelta(hours=96 * draw.random() ** 3, microseconds=draw.randrange(10**6))
        found.append(
            call_at(
                draw.choice(teams),
                NOW - ago,
                route=draw.choice(ROUTES),
                outcome=draw.choice(OUTCOMES),
                priority=draw.choice(("normal", "batch")),
                tags={"app": draw.choice("abc")} if each % 4 == 0 else None,
                unpriced=draw.random() < 0.1,
                latency_us=draw.randrange(1, 1_000_000),
                cost_nanos=draw.randrange(100),
            )
        )
    return found


def all_pages(asked, most):
    """Every line, page by page. A page may be short, but the list comes to an end."""
    found, after = [], None
    for _ in range(200):
        page = calls.page(asked, most, after)
        assert len(page.lines) <= most
        found += page.lines
        if page.next is None:
            return found
        after = calls.place(str(page.next))
    raise AssertionError("the list has no end")


def naive(asked):
    """The same by looking at every entry."""
    rows = Entry.objects.order_by("-started_at", "-call_id")
    if asked.team_ids is not None:
        rows = rows.filter(team_id__in=asked.team_ids)
    rows = rows.filter(**asked.alike)
    return [
        each.call_id
        for each in rows
        if (asked.key_id in (None, each.key_id))
        and (asked.tag is None or each.tags.get(asked.tag[0]) == asked.tag[1])
        and (not asked.unpriced or each.unpriced)
        and (asked.since is None or each.started_at >= asked.since)
        and (asked.until is None or each.started_at < asked.until)
        and (asked.streamed in (None, each.streamed))
        and each.latency_us >= asked.min_latency_us
        and each.cost_nanos >= asked.min_cost_nanos
        and (asked.ids is None or asked.ids[0] <= each.call_id <= asked.ids[1])
        and (asked.like is None or is_like(each, asked.like))
    ]


def is_like(entry, like):
    words = like.words.casefold()
    by_name = words and (words in entry.route or words in entry.target or entry.code.startswith(words))
    return bool(by_name) or entry.key_id in like.key_ids


def questions(team, other_team):
    own = (team.pk,)
    now_ms = int(NOW.timestamp() * 1000)
    lately = (UUID(int=(now_ms - 2 * 3_600_000) << 80), UUID(int=now_ms << 80))
    return [
        Asked(own),
        Asked(None),
        Asked((team.pk, other_team.pk)),
        Asked(own, route="rare"),
        Asked(None, route="rare", outcome="failed"),
        Asked((team.pk, other_team.pk), outcome="failed", priority="batch"),
        Asked(own, key_id=key_of(team).pk, target="openai/gpt-4o"),
        Asked(own, key_id=key_of(other_team).pk),
        Asked(own, route="nobody asked for it"),
        Asked(own, unpriced=True),
        Asked(own, like=Likeness("GPT", ())),
        Asked(None, like=Likeness("rar", ())),
        Asked(None, like=Likeness("upstream", ()), outcome="failed"),
        Asked(None, like=Likeness("", (key_of(other_team).pk,))),
        Asked(own, like=Likeness("", ())),
        Asked(own, like=Likeness("%", ())),
        Asked(own, ids=lately),
        Asked(None, ids=lately, outcome="failed"),
        Asked(own, streamed=True),
        Asked(None, streamed=False, min_latency_us=600_000),
        Asked((team.pk, other_team.pk), min_latency_us=900_000, route="rare"),
        Asked(own, min_cost_nanos=50),
        Asked(own, tag=("app", "b")),
        Asked(own, tag=("app", "b"), outcome="failed", since=NOW - timedelta(days=2)),
        Asked(own, outcome="failed", since=NOW - timedelta(hours=30), until=NOW - timedelta(minutes=7)),
        Asked(None, since=NOW - timedelta(hours=30), until=NOW - timedelta(minutes=7)),
    ]


@pytest.mark.parametrize("worked_out", ["nothing", "half", "all"])
def test_every_question_finds_what_looking_at_every_entry_finds(team, other_team, worked_out):
    TagName.objects.create(team=team, name="app")
    records = some_calls([team, other_team], 160)
    book(records[:80])
    if worked_out != "nothing":
        rollups.work(NOW, budget_s=None)
    book(records[80:])
    if worked_out == "all":
        rollups.work(NOW, budget_s=None)
        assert not Stale.objects.filter(size=1).exists()

    for asked in questions(team, other_team):
        found = [each.call_id for each in all_pages(asked, 25)]
        assert found == naive(asked), asked


def test_what_was_never_worked_out_is_found_too(team, other_team):
    book(some_calls([team], 60))
    Stale.objects.all().delete()
    days = {
        int(each.timestamp()) // 86400 * DAY for each in Entry.objects.values_list("started_at", flat=True)
    }
    Stale.objects.bulk_create(Stale(size=0, start=day, team_id=team.pk) for day in days)

    asked = Asked((team.pk,), route="rare")

    assert [each.call_id for each in all_pages(asked, 50)] == naive(asked) != []


def day_of(moment):
    return int(moment.timestamp()) // 86400 * DAY


def test_a_list_ends_where_entries_are_kept_no_more(team):
    book([call_at(team, NOW - timedelta(days=days), outcome="failed") for days in range(1, 6)])
    rollups.work(NOW, budget_s=None)
    Entry.objects.filter(started_at__lt=NOW - timedelta(days=2, hours=1)).delete()

    found = all_pages(Asked((team.pk,), outcome="failed"), 1)

    assert len(found) == 2


@pytest.mark.sqlite  # whose plans it reads
def test_no_question_looks_through_the_ledger(team, other_team):
    TagName.objects.create(team=team, name="app")
    book(some_calls([team, other_team], 100))
    rollups.work(NOW, budget_s=None)

    for asked in questions(team, other_team):
        after = calls.page(asked, 5).next
        with CaptureQueriesContext(connection) as asked_of_it:
            calls.page(asked, 5, after)
        assert len(asked_of_it) <= 8, asked
        for query in asked_of_it.captured_queries:
            for step in plan_of(query["sql"]):
                assert not ("SCAN" in step and "gateway_entry" in step), (asked, step)


def plan_of(sql):
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN QUERY PLAN " + sql.replace("%", "%%"), ())
        return [row[3] for row in cursor.fetchall()]


def test_a_tag_that_is_not_declared_cannot_be_asked_for(team, other_team):
    TagName.objects.create(team=other_team, name="app")

    with pytest.raises(calls.NotDeclared, match="'app' is not declared"):
        calls.page(Asked((team.pk,), tag=("app", "a")), 10)


def test_a_tag_may_have_any_name(team):
    for name in ('a"b', "7", "x.y", "it's"):
        TagName.objects.create(team=team, name=name)
        book([call_at(team, NOW, tags={name: "yes"}), call_at(team, NOW, tags={name: "no"})])

        [line] = calls.page(Asked((team.pk,), tag=(name, "yes")), 10).lines

        assert line.tags == {name: "yes"}


def test_costs_are_told_with_their_corrections(team):
    book([call_at(team, NOW, cost_nanos=0, unpriced=True)])
    entry = Entry.objects.get()
    repricing = Repricing.objects.create(target_id=7, from_at=NOW, until_at=NOW, cause="A price was entered.")
    Correction.objects.create(
        call_id=entry.pk,
        attempt_no=1,
        repricing=repricing,
        team_id=team.pk,
        started_at=entry.started_at,
        before_nanos=0,
        after_nanos=900,
        prices=True,
        price="",
    )

    [line] = calls.page(Asked((team.pk,)), 10).lines

    assert (line.cost_nanos, line.unpriced, line.key) == (900, False, "key of Tide")
    assert calls.page(Asked((team.pk,), unpriced=True), 10).lines == []


def test_somebody_without_teams_sees_nothing(team):
    book([call_at(team, NOW)])

    assert calls.page(Asked(()), 10) == ([], None)


def test_a_place_is_read_as_it_was_written():
    place = calls.Place(NOW + timedelta(microseconds=1), UUID(opened().call_id))

    assert calls.place(str(place)) == place
    for text in ("", "x", "AAAA", "ä", "/" * 40, str(place)[:-4], str(place) + "AAAA"):
        with pytest.raises(calls.NoSuchPlace):
            calls.place(text)


def test_a_place_after_any_call_is_none():
    with pytest.raises(calls.NoSuchPlace):
        calls.place(str(calls.Place(datetime.max.replace(tzinfo=UTC), UUID(opened().call_id))))


def test_the_newest_buckets_are_chosen_until_they_hold_enough():
    buckets = [Bucket(1, start, QUARTER, 10) for start in (0, 15, 30, 45)]

    assert calls.chosen(buckets, 15, 99) == (buckets[:1:-1], 30)
    assert calls.chosen(buckets, 100, 99) == (buckets[::-1], None)
    assert calls.chosen(buckets, 15, stop=50) == (buckets[:0:-1], 15)  # the newest was shown in part


def test_a_quarter_hour_is_read_whole_where_its_minutes_are_not_all_there():
    quarters = [Bucket(1, 0, QUARTER, 3), Bucket(1, 15, QUARTER, 3), Bucket(1, 30, QUARTER, None)]
    minutes = [Bucket(1, 2, 1, 3), Bucket(1, 16, 1, 1), Bucket(1, 31, 1, None)]

    assert calls.finest(quarters, minutes) == [minutes[0], quarters[1], minutes[2]]


def test_neighbouring_buckets_of_a_team_are_read_as_one():
    found = calls.spans([Bucket(1, 5, 1, 1), Bucket(2, 6, 1, 1), Bucket(1, 4, 1, 1), Bucket(1, 8, 1, 1)])

    assert found == [Span(1, 8, 9), Span(2, 6, 7), Span(1, 4, 6)]


def refusals_of(team, number, **changes):
    rows = [
        refused(
            call_id=new_call_id((1_790_000_000_000 + each) * 1_000_000),
            at_us=(1_790_000_000_000 + each) * 1000,
            team_id=team.pk,
            key_id=key_of(team).pk,
            **changes,
        )
        for each in range(number)
    ]
    book([], [Refusals(each.call_id, each.at_us, (), (each,)) for each in rows])


@pytest.mark.parametrize("for_all", [False, True])
def test_refusals_come_the_newest_first_page_by_page(team, other_team, for_all):
    refusals_of(team, 5)
    refusals_of(team, 2, code="insufficient_quota")
    refusals_of(other_team, 1, code="insufficient_quota")
    own = None if for_all else (team.pk,)

    found, after = [], None
    while True:
        rows, after = calls.refusals(Asked(own), 2, after)
        found += [each.pk for each in rows]
        if after is None:
            break

    expected = Refusal.objects.all() if for_all else Refusal.objects.filter(team_id=team.pk)
    assert len(found) == len(set(found)) == expected.count() == 7 + for_all
    rows, _ = calls.refusals(Asked(own, code="insufficient_quota"), 10)
    assert len(rows) == 2 + for_all


def test_rollups_of_refusals_lead_to_no_calls(team):
    Rollup.objects.create(
        size=DAY, start=day_of(NOW), team_id=team.pk, key_id=1, route="rare",
        target="", outcome="refused", code="overloaded", priority="normal", calls=9,
    )  # fmt: skip

    assert calls.page(Asked((team.pk,), route="rare"), 10) == ([], None)


def test_what_rollups_do_not_know_is_sifted_out_of_a_bounded_number_of_calls(team):
    book([call_at(team, NOW - timedelta(seconds=each), latency_us=1000 * each) for each in range(40)])

    for teams in ((team.pk,), None):
        first = calls.page(Asked(teams, min_latency_us=15_000), 50, most_sifted=10)
        second = calls.page(Asked(teams, min_latency_us=15_000), 50, first.next, most_sifted=10)

        assert first.lines == []
        assert first.next is not None
        assert [each.latency_us for each in second.lines] == [15_000, 16_000, 17_000, 18_000, 19_000]


def test_a_tail_tells_of_calls_by_their_end(team, other_team):
    long_ago = call_at(team, NOW - timedelta(minutes=9), ended_at_us=int((NOW.timestamp() - 5) * 1e6))
    over = call_at(team, NOW - timedelta(minutes=3))
    fresh = call_at(team, NOW - timedelta(seconds=20), outcome="failed")
    book([long_ago, over, fresh, call_at(other_team, NOW - timedelta(seconds=9))])
    since = NOW - timedelta(seconds=30)

    def told(asked):
        return [str(each.call_id) for each in calls.booked_of_late(asked, since, 10, None)]

    assert told(Asked((team.pk,))) == [fresh.call_id, long_ago.call_id]
    assert told(Asked((team.pk,), outcome="failed")) == [fresh.call_id]
    assert len(told(Asked(None))) == 3


def test_neighbours_are_those_of_the_teams_list(team, other_team):
    records = [call_at(team, NOW - timedelta(seconds=each)) for each in range(3)]
    book([*records, call_at(other_team, NOW - timedelta(seconds=1.5))])
    newest, middle, oldest = (Entry.objects.get(pk=each.call_id) for each in records)

    def beside(look, entry):
        return look(team.pk, Place(entry.started_at, entry.call_id))

    assert beside(calls.earlier, newest) == middle.call_id
    assert beside(calls.later, oldest) == middle.call_id
    assert beside(calls.later, middle) == newest.call_id
    assert beside(calls.later, newest) is None
    assert beside(calls.earlier, oldest) is None
