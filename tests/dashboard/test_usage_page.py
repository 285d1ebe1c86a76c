"""The usage page: its figures are the sums of the calls, whatever is asked, and the charts draw them."""

import csv
import json
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from playwright.async_api import expect

from accounts.models import ApiKey, Team, User
from dashboard.usage_figures import together
from gateway.ledger import rollups
from gateway.ledger.queries import OTHER, Sums
from gateway.ledger.writer import book
from gateway.models import ExchangeRate, TagName
from gateway.relay.records import Refusals, RefusedCount
from tests.dashboard.called import a_call, booked, us_of
from tests.dashboard.conftest import session_of, signed_in
from tests.gateway.records import opened

# Static files are handed on as Django's own file iterators, of which it warns under ASGI.
pytestmark = pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")

COST = 22_500
"""Nano-units, of each everyday call."""


@pytest.fixture
def client(alice):
    made = Client()
    made.force_login(alice)
    return made


@pytest.fixture
def usage(team, api_key):
    """Ten calls two hours ago of one model name, and four a day ago of another, two of which failed."""
    TagName.objects.create(team=team, name="project")
    now = timezone.now()
    wrong = {"outcome": "failed", "status": 504, "code": "upstream_timeout", "cost_nanos": 0}
    booked(
        *(a_call(team, api_key, now - timedelta(hours=2), tags={"project": "apollo"}) for _ in range(10)),
        *(a_call(team, api_key, now - timedelta(hours=25), route="deepseek-v3.2") for _ in range(2)),
        *(a_call(team, api_key, now - timedelta(hours=25), route="deepseek-v3.2", **wrong) for _ in range(2)),
    )
    minute = us_of(now) // 60_000_000 - 60
    count = RefusedCount(minute, team.pk, api_key.pk, "gpt-4o", "rate_limit_exceeded", "normal", 7)
    book([], [Refusals(opened().call_id, us_of(now), (count,))])
    rollups.work(now, budget_s=None)
    return now


def rows_of(answer):
    return {each.name: each.sums for each in answer.context["rows"]}


def test_the_totals_are_the_sums_of_the_calls(client, usage):
    answer = client.get("/usage/")

    total = answer.context["total"].sums
    assert (total.calls, total.refused, total.failed) == (14, 7, 2)
    assert (total.cost_nanos, total.input_tokens, total.output_tokens) == (12 * COST, 140, 490)
    page = answer.content.decode()
    assert "and 7 refused" in page
    assert "$0.000270" in page
    assert answer.context["total"].latency[0] == pytest.approx(400_100, rel=0.01)


def test_a_breakdown_and_the_series_add_up_to_the_totals(client, usage):
    for by in ("route", "key", "target", "outcome", "code", "priority"):
        context = client.get("/usage/", {"by": by, "range": "30d"}).context
        for parts in (context["rows"], context["points"]):
            sums = together(each.sums for each in parts)
            assert (sums.calls, sums.cost_nanos) == (14, 12 * COST), by


def test_rows_tell_the_dimension_that_was_chosen(client, usage):
    assert {name: each.calls for name, each in rows_of(client.get("/usage/")).items()} == {
        "gpt-4o": 10,
        "deepseek-v3.2": 4,
    }
    assert rows_of(client.get("/usage/", {"by": "key"}))["nightly batch"].calls == 14
    assert rows_of(client.get("/usage/", {"by": "tag:project"}))["apollo"].calls == 10


def test_a_click_narrows_and_another_widens_again(client, usage):
    first = client.get("/usage/", {"zone": "Asia/Tokyo"})
    [link] = [each.link for each in first.context["rows"] if each.name == "deepseek-v3.2"]

    narrowed = client.get(link)

    assert narrowed.context["total"].sums.calls == 4
    assert narrowed.context["zone"] == "Asia/Tokyo"
    [only] = narrowed.context["filters"]
    assert (only.title, only.value) == ("Model name", "deepseek-v3.2")
    assert client.get(only.without).context["total"].sums.calls == 14


def test_a_key_of_another_team_has_no_name_here(client, administrator, usage, other_team):
    theirs = ApiKey.objects.create(team=other_team, name="payroll")

    [shown] = client.get("/usage/", {"key": theirs.pk}).context["filters"]

    assert shown.value == str(theirs.pk)
    everybodys = Client()
    everybodys.force_login(administrator)
    [shown] = everybodys.get("/usage/", {"key": theirs.pk}).context["filters"]
    assert shown.value == "payroll"


def test_a_tag_is_cut_like_every_other_filter(client, usage):
    [shown] = client.get("/usage/", {"tag": f"{'p' * 1000}={'a' * 1000}"}).context["filters"]

    assert (shown.title, shown.value) == (f"Tag {'p' * 64}", "a" * 256)


def test_a_tag_whose_name_cannot_be_is_not_told_apart(client, usage):
    answer = client.get("/usage/", {"by": "tag:project\x00"})

    assert answer.status_code == 422
    assert "by" in answer.context["form"].errors
    assert answer.context["by_title"] == "Model name"


@pytest.mark.parametrize(
    ("question", "calls"),
    [
        ({"outcome": "failed"}, 2),
        ({"code": "upstream_timeout"}, 2),
        ({"tag": "project=apollo"}, 10),
        ({"tag": "unknown=apollo"}, 0),
        ({"key": "nobody"}, 14),
        ({"key": "9" * 40}, 14),
        ({"route": "gpt-4o\x00"}, 14),
        ({"tag": "project=apollo\x00"}, 14),
        ({"key": "999999"}, 0),
        ({"by": "anything"}, 14),
        ({"zone": "Nowhere/At-All"}, 14),
    ],
)
def test_what_is_asked_is_what_is_added_up(client, usage, question, calls):
    assert client.get("/usage/", question).context["total"].sums.calls == calls


def test_a_span_is_of_whole_days_in_the_zone(client, usage):
    def told(**question):
        context = client.get("/usage/", question).context
        return context["since"].isoformat(), context["until"] - context["since"]

    assert told(range="custom", since="2026-03-28", until="2026-03-30", zone="Europe/Berlin") == (
        "2026-03-28T00:00:00+01:00",
        timedelta(days=3),
    )
    since, span = told(range="today", zone="Asia/Tokyo")
    assert since.endswith("T00:00:00+09:00")
    assert span <= timedelta(days=1)
    assert told(range="month")[0].endswith("-01T00:00:00+00:00")


def test_a_span_may_begin_and_end_at_any_minute(client, usage):
    """Long ago at any quarter of an hour: minutes are not kept so long."""
    question = {"range": "custom", "since": "2026-03-28T08:15", "until": "2026-03-28T09:45"}
    context = client.get("/usage/", question | {"zone": "Asia/Tokyo"}).context

    assert context["since"].isoformat() == "2026-03-28T08:15:00+09:00"
    assert context["until"].isoformat() == "2026-03-28T09:45:00+09:00"


def test_the_last_hour_is_told_by_the_minute(client, usage, team, api_key):
    booked(a_call(team, api_key, usage - timedelta(minutes=20)))
    rollups.work(timezone.now(), budget_s=None)

    context = client.get("/usage/", {"range": "hour"}).context

    assert context["step"] == "minute"
    assert len(context["points"]) == 60
    assert context["total"].sums.calls == 1


@pytest.mark.parametrize(
    "question",
    [
        {"since": "2026-03-28", "until": "2026-03-01"},
        {"since": "2026-03-28T10:00", "until": "2026-03-28T10:00"},
        {"since": "2020-03-28", "until": "2026-03-28"},
    ],
)
def test_a_span_that_cannot_be_is_said_beside_the_field(client, usage, question):
    answer = client.get("/usage/", {"range": "custom", **question})

    assert answer.status_code == 422
    assert "Choose a moment after the first" in answer.content.decode()


def test_a_moment_that_cannot_be_read_is_said(client, usage):
    answer = client.get("/usage/", {"range": "custom", "since": "yesterday"})

    assert answer.status_code == 422
    assert "Write it as 2030-01-31" in answer.content.decode()


def test_costs_are_told_in_another_currency_and_days_without_a_rate_are_named(client, usage):
    ExchangeRate.objects.create(
        base="USD", quote="JPY", valid_from=usage.date() - timedelta(days=9), rate_nanos=150 * 10**9
    )
    in_yen = client.get("/usage/", {"currency": "JPY"})
    assert in_yen.context["total"].sums.cost_nanos == 150 * 12 * COST
    assert "JPY" in in_yen.content.decode()

    ExchangeRate.objects.update(valid_from=date(2100, 1, 1))
    assert "There is no exchange rate into JPY" in client.get("/usage/", {"currency": "JPY"}).content.decode()


def test_what_is_behind_is_told(client, usage, team, api_key):
    booked(a_call(team, api_key, datetime(2026, 1, 1, 7, 30, tzinfo=UTC)))

    page = client.get("/usage/").content.decode()

    assert "2026-01-01 07:30 UTC</time> may not be in these figures yet" in page


def test_the_export_asks_the_same_question(client, usage):
    question = {"route": "gpt-4o", "by": "outcome", "range": "today", "zone": "Asia/Tokyo"}
    link = client.get("/usage/", question).context["export"]

    answer = client.get(link)

    assert answer.status_code == 200
    assert b"".join(answer).decode().splitlines()[0].startswith("since,")
    for part in ("route=gpt-4o", "by=outcome", "zone=Asia%2FTokyo", "team="):
        assert part in link


def test_an_administrator_sees_teams_beside_each_other(administrator, usage, team, other_team, api_key):
    booked(a_call(other_team, api_key, usage))
    rollups.work(timezone.now(), budget_s=None)
    client = Client()
    client.force_login(administrator)

    rows = rows_of(client.get("/usage/", {"by": "team"}))

    assert {name: each.calls for name, each in rows.items()} == {"Hydro": 14, "Solar": 1}


def test_another_team_is_not_there(client, usage, other_team):
    assert client.get("/usage/", {"team": "solar"}).status_code == 404


@pytest.mark.parametrize(
    "question",
    [
        {},
        {"by": "key", "compare": "1"},
        {"by": "tag:project", "tag": "project=apollo", "range": "month"},
        {"currency": "JPY", "compare": "1", "range": "30d", "zone": "Asia/Tokyo"},
    ],
)
def test_the_page_takes_twelve_queries_at_most(client, usage, question):
    """Session, user, whether anything is simulated, teams; marks, largest values, sums, number and rows of
    histograms; exchange rates; names, choices and milestone; watermark."""
    ExchangeRate.objects.create(base="USD", quote="JPY", valid_from=date(2020, 1, 1), rate_nanos=150 * 10**9)
    client.get("/usage/", question)

    with CaptureQueriesContext(connection) as asked:
        client.get("/usage/", question)

    read = [
        each["sql"] for each in asked if "SELECT" in each["sql"]
    ]  # PostgreSQL's view has a begin and an end
    assert len(read) <= 12, read


# Compared with the period before


def test_the_period_before_is_told_beside_it(client, team, api_key, usage):
    now = usage
    booked(*(a_call(team, api_key, now - timedelta(days=8), route="gpt-4o") for _ in range(5)))
    rollups.work(now, budget_s=None)
    Team.objects.update(created_at=now - timedelta(days=99))

    answer = client.get("/usage/", {"compare": "1"})

    total = answer.context["total"]
    assert (total.sums.calls, total.before.calls) == (14, 5)
    page = " ".join(answer.content.decode().split())
    assert "180.0 % more" in page
    assert "from 0.0 %" in page  # the error rate
    rows = {each.name: each.before.calls for each in answer.context["rows"]}
    assert rows == {"gpt-4o": 5, "deepseek-v3.2": 0}
    assert answer.context["doubts"] == []
    drawn = answer.context["drawn"]["charts"]["calls"]
    assert [each["kind"] for each in drawn] == ["", "", "before"]
    assert sum(drawn[-1]["data"]) == 5


def test_without_the_switch_nothing_is_compared(client, usage):
    answer = client.get("/usage/")

    assert answer.context["total"].before is None
    assert "before" not in {each["kind"] for each in answer.context["drawn"]["charts"]["calls"]}


def test_a_period_before_the_team_was_there_is_not_fully_known(client, usage, team):
    answer = client.get("/usage/", {"compare": "1"})

    page = answer.content.decode()
    assert "The period before is not fully known." in page
    assert f"Nothing is on the books before {team.created_at:%Y-%m-%d %H:%M}." in page


def test_simulated_calls_are_said_to_be(client, usage, team, api_key):
    said = "of these calls was simulated: it counts with what it would have cost."
    assert said not in client.get("/usage/").content.decode()

    booked(a_call(team, api_key, usage - timedelta(hours=2), simulated=True))
    rollups.work(usage, budget_s=None)

    assert f"1 {said}" in client.get("/usage/").content.decode()


def test_calls_without_a_price_make_the_period_before_unsure(client, usage, team, api_key):
    now = usage
    Team.objects.update(created_at=now - timedelta(days=99))
    booked(a_call(team, api_key, now - timedelta(days=8), unpriced=True, cost_nanos=0))
    rollups.work(now, budget_s=None)

    assert client.get("/usage/", {"compare": "1"}).context["doubts"] == ["1 call had no price."]


# Sorting, links, files


@pytest.mark.parametrize(
    ("sort", "first"),
    [("", "gpt-4o"), ("name", "deepseek-v3.2"), ("cost", "deepseek-v3.2"), ("-failed", "deepseek-v3.2"),
     ("-calls", "gpt-4o"), ("nonsense", "gpt-4o")],
)  # fmt: skip
def test_the_table_is_sorted_by_what_the_address_says(client, usage, sort, first):
    assert client.get("/usage/", {"sort": sort}).context["rows"][0].name == first


def test_a_click_on_a_head_sorts_and_another_turns_it_round(client, usage):
    [calls] = [
        each for each in client.get("/usage/", {"by": "key"}).context["columns"] if each.title == "Calls"
    ]
    assert calls.link == "/usage/?by=key&sort=-calls"

    answer = client.get(calls.link)

    [calls] = [each for each in answer.context["columns"] if each.title == "Calls"]
    assert (calls.direction, calls.link) == ("descending", "/usage/?by=key&sort=calls")
    assert 'aria-sort="descending"' in answer.content.decode()


def test_a_row_and_a_point_lead_to_the_calls_behind(client, usage):
    question = {"range": "24h", "outcome": "answered", "team": "hydro"}
    context = client.get("/usage/", question).context

    [row] = [each for each in context["rows"] if each.name == "gpt-4o"]
    assert row.calls.startswith("/calls/?outcome=answered&team=hydro&route=gpt-4o&since=20")
    busy = [each for each in context["points"] if each.sums.calls]
    listed = client.get(busy[0].calls)
    assert listed.status_code == 200
    assert busy[0].sums.calls == len(listed.context["rows"])


def test_a_chart_has_a_file_of_what_it_draws(client, usage):
    link = client.get("/usage/", {"range": "30d", "compare": "1"}).context["files"]["spend"]

    answer = client.get(link)

    assert answer["Content-Disposition"] == 'attachment; filename="penstock-usage-spend.csv"'
    head, *rows = list(csv.reader(answer.content.decode().splitlines()))
    assert head == ["since", "until", "gpt-4o (USD)", "deepseek-v3.2 (USD)", "before (USD)"]
    assert len(rows) == 30
    assert sum(Decimal(each[2]) for each in rows) == Decimal(10 * COST) / 10**9


@pytest.mark.parametrize("chart", ["calls", "errors", "tokens", "latency", "first_token"])
def test_every_chart_has_one(client, usage, chart):
    rows = client.get("/usage/chart.csv", {"chart": chart}).content.decode().splitlines()

    assert len(rows) == 1 + 7


def test_there_is_no_file_of_another_chart(client, usage):
    assert client.get("/usage/chart.csv", {"chart": "weather"}).status_code == 404


# States, and what is remembered


def test_a_team_without_calls_is_told_so_and_draws_nothing(client, team):
    answer = client.get("/usage/")

    page = answer.content.decode()
    assert 'data-state="empty"' in page
    assert "data-chart=" not in page


def test_who_is_on_no_team_is_told_so(transactional_db):
    client = Client()
    client.force_login(User.objects.create_user("charlie@example.com"))

    assert "You are on no team yet" in client.get("/usage/").content.decode()
    assert client.get("/usage/chart.csv", {"chart": "spend"}).status_code == 404


def test_costs_count_as_seen_when_there_are_some(client, alice, team, api_key):
    client.get("/usage/")
    assert not alice.milestones.exists()

    booked(a_call(team, api_key, timezone.now() - timedelta(hours=1)))
    rollups.work(timezone.now(), budget_s=None)
    client.get("/usage/")
    client.get("/usage/")

    assert [each.name for each in alice.milestones.all()] == ["cost_seen"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("range=&by=key&team=", "/usage/?by=key"),
        ("range=30d&by=route&since=2026-01-01T00:00&until=2026-02-01T00:00", "/usage/?range=30d"),
        ("range=custom&since=2026-01-01", "/usage/?range=custom&since=2026-01-01"),
        ("range=", "/usage/"),
    ],
)
def test_a_part_of_the_page_says_its_address(client, usage, asked, said):
    answer = client.get(f"/usage/?{asked}", headers={"HX-Request": "true"})

    assert answer["HX-Push-Url"] == said


def test_what_is_not_measured_is_not_known_of_all():
    known, unknown = Sums(calls=1, latency={3: 1}), Sums(calls=1)

    assert together([known, known]).latency == {3: 2}
    assert together([known, unknown]).latency is None
    assert together([known, unknown]).calls == 2


def test_a_chart_draws_few_lines_and_the_rest_as_one(client, team, api_key):
    now = timezone.now()
    booked(
        *(
            a_call(team, api_key, now - timedelta(hours=1), route=f"route-{each}", cost_nanos=each + 1)
            for each in range(12)
        )
    )
    rollups.work(now, budget_s=None)

    page = client.get("/usage/").content.decode()

    drawn = json.loads(re.search(r'id="usage-charts"[^>]*>(.*?)</script>', page, re.DOTALL)[1])
    names = [each["name"] for each in drawn["charts"]["spend"]]
    assert len(names) == 8
    assert (names[0], names[-1]) == ("route-11", OTHER)
    assert sum(sum(each["data"]) for each in drawn["charts"]["spend"]) == sum(range(1, 13))


@pytest.fixture
def session(alice):
    return session_of(alice)


COLOURS = """() => {
  const chosen = getComputedStyle(document.documentElement);
  const drawn = Object.values(Chart.instances).flatMap(each => each.data.datasets);
  return drawn.map(each => [each.backgroundColor, chosen.getPropertyValue(each.property)]);
}"""


async def test_the_charts_are_drawn_without_a_complaint(site, browser, session, usage):
    page, complaints = await signed_in(browser, site.origin, session)
    await page.goto(f"{site.origin}/usage/")

    await expect(page.locator("canvas")).to_have_count(6)
    await expect(page.locator("[data-chart=spend] .legend-item")).to_have_count(2)
    await page.emulate_media(color_scheme="dark")
    await page.reload()
    drawn = await page.evaluate(COLOURS)
    assert len(drawn) == 2 + 2 + 2 + 2 + 3 + 3
    assert all(used == chosen.strip() for used, chosen in drawn)
    await page.get_by_role("link", name="deepseek-v3.2").click()
    await expect(page.locator(".chip.filter")).to_contain_text("deepseek-v3.2")
    await expect(page).to_have_url(f"{site.origin}/usage/?route=deepseek-v3.2")
    await expect(page.locator("[data-chart=spend] .legend-item")).to_have_count(1)

    await page.get_by_label("Compare with the period before").check()
    await expect(page).to_have_url(f"{site.origin}/usage/?compare=1&route=deepseek-v3.2")
    await expect(page.locator("[data-chart=spend] .legend-item")).to_contain_text(["deepseek-v3.2", "before"])
    await page.locator("[data-chart=errors] summary").click()
    await expect(page.locator("[data-chart=errors] tbody tr")).to_have_count(7)
    await page.go_back()
    await expect(page.get_by_label("Compare with the period before")).not_to_be_checked()
    await page.set_viewport_size({"width": 390, "height": 800})
    await page.wait_for_function("document.documentElement.scrollWidth <= 390")
    assert complaints == []
