import csv
import io
import tracemalloc
from collections.abc import Iterable, Iterator
from datetime import timedelta
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import ApiKey, Team
from gateway import usage_csv
from gateway.ledger import spans
from gateway.ledger.queries import OTHER, Scope
from gateway.ledger.statement import Month
from gateway.ledger.writer import book
from gateway.models import Correction, Entry, ExchangeRate, Repricing, Rollup, Stale
from gateway.relay.records import Settled
from tests.gateway.ledger.usages import at, made, naive, rolled_up

pytestmark = pytest.mark.django_db

SINCE, UNTIL = at("2026-10-24T00:00"), at("2026-10-27T00:00")
BERLIN = ZoneInfo("Europe/Berlin")
OCTOBER = "2026-10"
Rows = list[dict[str, str]]


def read(parts: Iterable[str]) -> Rows:
    return list(csv.DictReader(io.StringIO("".join(parts))))


def total(rows: Rows, column: str = "cost") -> Decimal:
    return sum((Decimal(each[column]) for each in rows), Decimal(0))


def units(nanos: int) -> Decimal:
    return Decimal(nanos) / 10**9


@pytest.fixture
def calls() -> list[Settled]:
    found = made(teams=2, keys=2, calls=120, since=SINCE, until=UNTIL)
    rolled_up(found)
    book(found)
    Stale.objects.all().delete()  # these rollups are made by hand
    return found


@pytest.fixture
def team(calls: list[Settled]) -> Team:
    return Team.objects.get(slug="team1")


def of(team: Team, calls: list[Settled]) -> list[Settled]:
    return [each for each in calls if each.team_id == team.pk]


# Usage


def test_a_series_as_a_file_adds_up_to_the_unit(calls: list[Settled]) -> None:
    edges = spans.edges(SINCE, UNTIL, BERLIN, "hour")

    rows = read(usage_csv.usage(Scope(None), edges, "route", ""))

    assert total(rows) == units(naive(calls, SINCE, UNTIL).cost_nanos)
    assert sum(int(each["calls"]) for each in rows) == len(calls)
    assert {each["value"] for each in rows} == {"gpt-4o", "fast", "wise"}
    assert {each["currency"] for each in rows} == {"USD"}


def test_values_beyond_the_dearest_are_one_line_of_their_span(calls: list[Settled]) -> None:
    parts = list(usage_csv.usage(Scope(None), [SINCE, UNTIL], "route", "", most=2, lines_at_once=2))
    rows = read(parts)

    assert [each["value"] for each in rows][2:] == [OTHER]
    assert [Decimal(each["cost"]) for each in rows[:2]] == sorted(
        (Decimal(each["cost"]) for each in rows[:2]), reverse=True
    )
    assert total(rows) == units(naive(calls, SINCE, UNTIL).cost_nanos)
    assert [each.count("\r\n") for each in parts] == [1, 2, 1]


def test_a_series_of_everything_has_a_line_for_each_span(calls: list[Settled]) -> None:
    rows = read(usage_csv.usage(Scope(None), spans.edges(SINCE, UNTIL, BERLIN, "day"), None, ""))

    assert [each["since"] for each in rows] == [
        "2026-10-24T00:00:00+00:00",
        "2026-10-24T22:00:00+00:00",
        "2026-10-25T23:00:00+00:00",
        "2026-10-26T23:00:00+00:00",
    ]


def test_a_cost_without_an_exchange_rate_is_left_empty_and_said(calls: list[Settled]) -> None:
    [row] = read(usage_csv.usage(Scope(None), [SINCE, UNTIL], None, "JPY"))

    assert (row["cost"], row["currency"]) == ("", "JPY")
    assert row["note"] == "No exchange rate is known for 2026-10-24, 2026-10-25, 2026-10-26."


# Calls


def test_calls_come_team_by_team_and_the_earliest_first(calls: list[Settled]) -> None:
    rows = read(usage_csv.calls(Scope(None), SINCE, UNTIL))

    wanted = sorted(calls, key=lambda each: (each.team_id, each.started_at_us, each.call_id))
    assert [each["call_id"] for each in rows] == [each.call_id for each in wanted]
    assert total(rows) == units(naive(calls, SINCE, UNTIL).cost_nanos)


def test_more_calls_than_are_read_at_once_are_told_once_each(team: Team) -> None:
    key = ApiKey.objects.filter(team=team).first()
    assert key is not None
    moment = at("2026-10-25T12:00")  # one for all, so that pages are cut between calls of the same moment
    copied = Entry.objects.filter(team=team).first()
    assert copied is not None
    for each in range(2 * usage_csv.CALLS_AT_ONCE + 1):
        copied.call_id, copied.started_at = UUID(int=each), moment
        copied.save(force_insert=True)

    rows = read(usage_csv.calls(Scope((team.pk,)), moment, moment + timedelta(minutes=1)))

    assert len({each["call_id"] for each in rows}) == len(rows) == 2 * usage_csv.CALLS_AT_ONCE + 1


def test_a_filter_leaves_out_other_calls(calls: list[Settled], team: Team) -> None:
    scope = Scope((team.pk,), {"outcome": ("failed",), "route": ("fast", "wise")}, ("project", "north"))

    rows = read(usage_csv.calls(scope, SINCE, UNTIL))

    wanted = {
        each.call_id
        for each in of(team, calls)
        if each.outcome == "failed" and each.route != "gpt-4o" and (each.tags or {}).get("project") == "north"
    }
    assert {each["call_id"] for each in rows} == wanted


def correct(call: Settled, change: int, *, made_at: str, cause: str = "A price came late.") -> None:
    repricing, _ = Repricing.objects.get_or_create(target_id=1, from_at=SINCE, until_at=UNTIL, cause=cause)
    made = Correction.objects.create(
        call_id=call.call_id,
        attempt_no=1,
        repricing=repricing,
        team_id=call.team_id,
        started_at=Entry.objects.get(call_id=call.call_id).started_at,
        before_nanos=1000,
        after_nanos=1000 + change,
        prices=True,
        price="",
    )
    Correction.objects.filter(pk=made.pk).update(created_at=at(made_at))
    for size in Rollup.Size.values:
        start = call.started_at_us // 60_000_000 // size * size
        row = Rollup.objects.filter(size=size, start=start, key_id=call.key_id, route=call.route).first()
        assert row is not None
        row.cost_nanos += change
        row.save()


def test_a_call_shows_what_was_booked_and_what_was_corrected(calls: list[Settled]) -> None:
    correct(calls[0], 500, made_at="2026-11-05T00:00")
    correct(calls[0], -2_000, made_at="2026-11-06T00:00", cause="Another price came late.")

    rows = {each["call_id"]: each for each in read(usage_csv.calls(Scope(None), SINCE, UNTIL))}

    row = rows[calls[0].call_id]
    assert Decimal(row["booked_cost"]) == units(calls[0].cost_nanos)
    assert (row["corrections"], row["priced_later"]) == ("-0.0000015", "1")
    assert Decimal(row["cost"]) == units(calls[0].cost_nanos - 1500)
    assert rows[calls[1].call_id]["corrections"] == "0"


def test_text_that_looks_like_a_formula_stays_text(calls: list[Settled]) -> None:
    Team.objects.filter(pk=calls[0].team_id).update(name="=HYPERLINK(1)")

    rows = read(usage_csv.calls(Scope(None), SINCE, UNTIL))

    assert " =HYPERLINK(1)" in {each["team"] for each in rows}


def test_a_part_of_the_calls_is_read_when_it_is_asked_for(calls: list[Settled], team: Team) -> None:
    parts = usage_csv.calls(Scope((team.pk,)), SINCE, UNTIL)
    next(parts)
    with CaptureQueriesContext(connection) as taken:
        next(parts)

    # the team, the names of its keys, a page of calls, and their corrections
    assert len(taken) == 4


def copied(team: Team, calls: int) -> None:
    """Write one of the team's calls so many times, a second apart from the year 2000 on."""
    names = [
        each.column for each in Entry._meta.concrete_fields if each.column not in ("call_id", "started_at")
    ]
    rows = Entry.objects.filter(team=team).values(*names)[:1]
    values = ", ".join(f"each.{name}" for name in names)
    epoch = "'2000-01-01'" if connection.vendor == "sqlite" else "timestamptz '2000-01-01 00:00Z'"
    moment = f"datetime({epoch}, i || ' seconds')"
    call_id = "printf('%%032x', i)"
    if connection.vendor == "postgresql":
        moment, call_id = f"{epoch} + i * interval '1 second'", "lpad(to_hex(i), 32, '0')::uuid"
    sql, variables = rows.query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %s) "
            f"INSERT INTO gateway_entry (call_id, started_at, {', '.join(names)}) "
            f"SELECT {call_id}, {moment}, {values} FROM n CROSS JOIN ({sql}) AS each",
            [calls, *variables],
        )


def peak_of(parts: Iterator[str]) -> tuple[int, int]:
    """How many characters there were, and the most memory that was in use meanwhile, in bytes."""
    tracemalloc.start()
    characters = sum(map(len, parts))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return characters, peak


@pytest.mark.parametrize("many", [15_000, pytest.param(1_000_000, marks=pytest.mark.prove)])
def test_a_long_file_takes_no_more_memory_than_a_short_one(team: Team, many: int) -> None:
    copied(team, many)
    since, scope = at("2000-01-01T00:00"), Scope((team.pk,))
    short = since + timedelta(seconds=usage_csv.CALLS_AT_ONCE * 2)

    a_few, little = peak_of(usage_csv.calls(scope, since, short))
    all_of_them, much = peak_of(usage_csv.calls(scope, since, at("2020-01-01T00:00")))

    assert all_of_them > 7 * a_few
    assert much < 1.2 * little


@pytest.mark.sqlite  # PostgreSQL chooses by the size of the table
def test_a_part_of_the_calls_is_found_by_an_index(team: Team) -> None:
    row = {"started_at": SINCE, "call_id": UUID(int=5)}
    rows = Entry.objects.filter(team=team, started_at__lt=UNTIL).order_by("started_at", "call_id")

    plan = rows.filter(usage_csv._after(row)).values(*usage_csv.ENTRY)[: usage_csv.CALLS_AT_ONCE].explain()

    assert "SEARCH gateway_entry USING INDEX entry_by_team_and_start (team_id=? AND started_at>?" in plan


# Statements


def statement(team: Team, month: str = OCTOBER, zone: ZoneInfo = BERLIN, currency: str = "") -> Rows:
    return read(usage_csv.statement(team, Month.read(month, zone), currency))


def kind(rows: Rows, name: str) -> Rows:
    return [each for each in rows if each["line"] == name]


def test_the_lines_of_a_statement_add_up_to_its_sum(calls: list[Settled], team: Team) -> None:
    rows = statement(team)

    cost = units(naive(of(team, calls), SINCE, UNTIL).cost_nanos)
    assert total(kind(rows, "usage")) == cost
    assert total(kind(rows, "model name")) == cost
    assert total(kind(rows, "total")) == cost
    assert len(kind(rows, "total")) == 1
    assert {each["day"] for each in kind(rows, "usage")} == {f"2026-10-{day}" for day in (24, 25, 26)}
    assert {each["key"] for each in kind(rows, "usage")} == {"team1 0", "team1 1"}
    assert kind(rows, "correction") == kind(rows, "note") == kind(rows, "rate") == []


def test_a_correction_made_after_the_month_is_a_line_of_its_own(calls: list[Settled], team: Team) -> None:
    before = statement(team)
    late, early = of(team, calls)[:2]
    correct(late, 700, made_at="2026-11-05T00:00")
    correct(early, 40, made_at="2026-10-30T00:00", cause="A price came soon.")

    after = statement(team)

    [line] = kind(after, "correction")
    assert (line["cost"], line["calls"], line["key_id"]) == ("0.0000007", "1", str(late.key_id))
    assert line["note"] == "A price came late., worked out on 2026-11-05."
    assert total(kind(after, "usage")) == total(kind(before, "usage")) + units(40)
    assert total(kind(after, "total")) == total(kind(before, "total")) + units(740)
    assert kind(after, "total")[0]["calls"] == kind(before, "total")[0]["calls"]


def test_a_correction_that_the_sums_do_not_have_yet_is_on_no_line(calls: list[Settled], team: Team) -> None:
    late, later = of(team, calls)[:2]
    correct(late, 700, made_at="2026-11-05T00:00")
    before = statement(team)
    correct(later, 40, made_at="2026-11-06T00:00", cause="Another price came late.")
    worked_out = statement(team)
    for size in Rollup.Size.values:
        of_later = Rollup.objects.filter(size=size, start=later.started_at_us // 60_000_000 // size * size)
        row = of_later.filter(key_id=later.key_id, route=later.route).first()
        assert row is not None
        Rollup.objects.filter(pk=row.pk).update(cost_nanos=row.cost_nanos - 40)
    minute = later.started_at_us // 60_000_000
    mark = Stale.objects.create(size=1, start=minute, team_id=team.pk)

    waiting = statement(team)

    assert kind(waiting, "usage") == kind(before, "usage") == kind(worked_out, "usage")
    assert kind(waiting, "correction") == kind(before, "correction")
    assert total(kind(waiting, "total")) == total(kind(worked_out, "total")) - units(40)
    mark.delete()
    assert kind(statement(team), "correction") == kind(worked_out, "correction")


@pytest.mark.django_db(transaction=True)
def test_each_day_of_a_statement_is_read_as_of_one_moment(calls: list[Settled], team: Team) -> None:
    correct(of(team, calls)[0], 700, made_at="2026-11-05T00:00")

    with CaptureQueriesContext(connection) as made_queries:
        statement(team)

    sent = [each["sql"] for each in made_queries]
    assert sum(each.startswith("BEGIN") for each in sent) == 31


def test_a_statement_in_another_currency_tells_its_rates(calls: list[Settled], team: Team) -> None:
    for day, nanos in (("2026-09-01", 7_300_000_000), ("2026-10-25", 7_100_000_000)):
        ExchangeRate.objects.create(base="USD", quote="CNY", valid_from=day, rate_nanos=nanos)

    rows = statement(team, currency="CNY")

    assert total(kind(rows, "usage")) == total(kind(rows, "total"))
    assert [(each["day"], each["note"]) for each in kind(rows, "rate")] == [
        ("2026-09-30", "1 USD is 7.3 CNY"),
        ("2026-10-25", "1 USD is 7.1 CNY"),
    ]
    by_day = [naive(of(team, calls), at(f"2026-10-{day}"), at(f"2026-10-{day + 1}")) for day in (24, 25, 26)]
    rates = (Decimal("7.3"), Decimal("7.1"), Decimal("7.1"))
    near = sum(units(sums.cost_nanos) * rate for sums, rate in zip(by_day, rates, strict=True))
    assert abs(total(kind(rows, "total")) - near) < units(len(kind(rows, "usage")))


def test_a_statement_says_what_it_does_not_know(calls: list[Settled], team: Team) -> None:
    Stale.objects.create(size=1, start=spans.minute_of(SINCE), team_id=team.pk)

    rows = statement(team, currency="JPY")

    [sum_] = kind(rows, "total")
    assert sum_["cost"] == ""
    assert sum_["note"] == "No exchange rate is known for 2026-10-24, 2026-10-25, 2026-10-26."
    assert [each["note"] for each in kind(rows, "note")] == [
        "What began after 2026-10-24 00:00 UTC may not be in this yet."
    ]


def test_a_month_without_calls_is_a_sum_of_nothing(team: Team) -> None:
    [row] = statement(team, "2025-02", ZoneInfo("UTC"))

    assert (row["line"], row["calls"], row["cost"]) == ("total", "0", "0")
