"""The pages of calls: the list, refusals, and each call explained."""

import asyncio
import re
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
from axe_playwright_python.async_playwright import Axe
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from playwright.async_api import expect

from accounts.models import Membership
from dashboard.timeline import SCALE, timeline
from gateway.ledger import explain, rollups
from gateway.ledger.writer import book
from gateway.models import BreakerChange
from gateway.relay.records import Refusals
from tests.dashboard.called import LIMITS, a_call, booked, some, that_fell_back, us_of
from tests.dashboard.conftest import session_of, signed_in
from tests.gateway.records import refused

# Static files are handed on as Django's own file iterators, of which it warns under ASGI.
pytestmark = pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")


@pytest.fixture
def client_of():
    def client_of_person(person):
        client = Client()
        client.force_login(person)
        return client

    return client_of_person


@pytest.fixture
def session(alice):
    return session_of(alice)


@pytest.fixture
def now():
    return timezone.now() - timedelta(minutes=2)


@pytest.fixture
def fallen_back(team, api_key, now):
    record = that_fell_back(team, api_key, now)
    booked(record)
    BreakerChange.objects.create(
        target_id=11, provider="spare", upstream_model="gpt-4o", at=now, before="closed", after="open",
        cause="5 failures in a row",
    )  # fmt: skip
    return record


@pytest.fixture
def refusal(team, api_key, now):
    row = refused(
        team_id=team.pk,
        key_id=api_key.pk,
        at_us=us_of(now),
        status=429,
        code="insufficient_quota",
        message="The team 'Hydro' has a quota of 5.00 USD a day.",
        limits=LIMITS[2:],
    )
    book([], [Refusals(row.call_id, row.at_us, (), (row,))])
    return row


def text_of(answer):
    return answer.content.decode()


def test_the_list_shows_calls_the_newest_first_and_leads_to_earlier_ones(
    client_of, alice, team, api_key, now
):
    records = some(team, api_key, now, 60)
    booked(*records)
    client = client_of(alice)

    first = client.get("/calls/")
    second = client.get(first.context["next"])

    shown = [str(each.call_id) for each in (*first.context["rows"], *second.context["rows"])]
    assert shown == [each.call_id for each in records]
    assert "Earlier ones" in text_of(first)
    assert "Earlier ones" not in text_of(second)
    assert client.get(second.context["first"]).context["rows"] == first.context["rows"]


def test_filters_are_kept_from_page_to_page(client_of, alice, team, api_key, now):
    booked(*some(team, api_key, now, 540))
    rollups.work(timezone.now(), budget_s=None)
    client = client_of(alice)

    answer = client.get("/calls/", {"outcome": "failed", "code": "upstream_timeout", "key": api_key.pk})
    rest = client.get(answer.context["next"])

    rows = [*answer.context["rows"], *rest.context["rows"]]
    assert len(rows) == 60
    assert {each.outcome for each in rows} == {"failed"}


def test_what_cannot_be_read_is_said_beside_the_field(client_of, alice):
    answer = client_of(alice).get("/calls/", {"tag": "apollo", "since": "yesterday"})

    assert answer.status_code == 422
    assert "Write a tag as name=value." in text_of(answer)
    assert "Write a moment such as 2030-01-31T09:30:00, in UTC." in text_of(answer)


def test_a_tag_that_is_not_declared_is_said_beside_the_field(client_of, alice):
    answer = client_of(alice).get("/calls/", {"tag": "project=apollo"})

    assert answer.status_code == 422
    assert "is not declared" in text_of(answer)


def test_a_place_that_is_none_is_not_found(client_of, alice):
    assert client_of(alice).get("/calls/", {"after": "nowhere"}).status_code == 404


def test_an_administrator_sees_all_teams_with_their_names(
    client_of, administrator, team, other_team, api_key, now
):
    booked(a_call(team, api_key, now), a_call(other_team, api_key, now))

    page = text_of(client_of(administrator).get("/calls/"))

    assert "Hydro</td>" in page
    assert "Solar</td>" in page


def test_another_teams_calls_are_not_there(client_of, alice, other_team, api_key, now):
    record = a_call(other_team, api_key, now)
    booked(record)
    client = client_of(alice)

    assert record.call_id not in text_of(client.get("/calls/"))
    assert client.get("/calls/", {"team": "solar"}).status_code == 404
    answer = client.get(f"/calls/{record.call_id}/")
    assert answer.status_code == 404
    assert "There is no call with this id on the books." in text_of(answer)


def test_a_person_without_a_team_is_told_what_to_do(client_of, alice):
    Membership.objects.all().delete()

    for path in ("/calls/", "/calls/refused/"):
        assert "You are on no team yet" in text_of(client_of(alice).get(path))


def test_a_call_says_in_short_why_it_was_slow_and_dear(client_of, alice, fallen_back):
    page = text_of(client_of(alice).get(f"/calls/{fallen_back.call_id}/"))

    assert "The call was answered by openai/gpt-4o, at attempt 3." in page
    assert "went into the provider writing its answer" in page
    assert "of it for 1,830 output tokens at 73.00 CNY a million." in page
    assert "It opened at" in page
    assert "5 failures in a row" in page
    assert "Times the exchange rate 10 / 73" in page
    assert "do not come to what is on the books" not in page


def test_the_bars_lie_where_the_attempts_were(fallen_back):
    told = explain.explain(fallen_back.call_id, None, "USD")

    drawn = timeline(told)

    assert [[part.name for part in lane.parts] for lane in drawn.lanes] == [
        ["gate", "connection", "head", "writing"],
        ["backoff", "gate", "silent"],
        ["gate", "connection", "head", "first", "writing"],
    ]
    for lane in drawn.lanes:
        ends = [part.start + part.length for part in lane.parts]
        assert ends == sorted(ends)
        assert 0 <= lane.parts[0].start < max(ends) <= SCALE
    assert (drawn.ticks[0], drawn.ticks[-1]) == ("0", "6.41 s")
    assert [part.duration_us for part in drawn.own] == [10_000, 8_000, 1_000, 5_000]


def test_a_refused_call_is_explained_at_the_address_of_calls(client_of, alice, refusal):
    page = text_of(client_of(alice).get("/calls/refused/"))
    one = text_of(client_of(alice).get(f"/calls/{refusal.call_id}/"))

    for told in (page, one):
        assert "has a quota of 5.00 USD a day." in told
        assert "nightly batch" in told
    assert "The limit at that moment" in one
    assert "$250.00" in one


def test_another_teams_refusals_are_not_there(client_of, alice, team, refusal):
    team.memberships.all().delete()

    assert client_of(alice).get(f"/calls/{refusal.call_id}/").status_code == 404


def test_refusals_are_found_by_code(client_of, alice, refusal):
    client = client_of(alice)

    assert len(client.get("/calls/refused/", {"code": "insufficient_quota"}).context["rows"]) == 1
    assert client.get("/calls/refused/", {"code": "overloaded"}).context["rows"] == []


@pytest.mark.parametrize("question", [{}, {"outcome": "failed"}])
def test_no_page_takes_more_than_twelve_queries(
    client_of, administrator, team, api_key, now, fallen_back, refusal, question
):
    booked(*some(team, api_key, now, 20))
    rollups.work(timezone.now(), budget_s=None)
    client = client_of(administrator)

    for path in (
        "/calls/",
        "/calls/refused/",
        f"/calls/{fallen_back.call_id}/",
        f"/calls/{refusal.call_id}/",
    ):
        for team_slug in ("", "hydro"):
            with CaptureQueriesContext(connection) as asked:
                client.get(path, {**question, "team": team_slug})
            assert len(asked) <= 12, path


WIDTHS = "all => all.map(each => each.getBoundingClientRect().width)"


HTMX = {"HX-Request": "true"}


def ids_of(answer):
    return [str(each.call_id) for each in answer.context["rows"]]


def test_one_field_finds_calls_by_id_key_name_code_and_model_name(client_of, alice, team, api_key, now):
    records = some(team, api_key, now, 20)
    booked(*records)
    rollups.work(timezone.now(), budget_s=None)
    client = client_of(alice)
    wanted = records[3]

    def found(text):
        return ids_of(client.get("/calls/", {"q": text}))

    assert found(wanted.call_id) == [wanted.call_id]
    assert wanted.call_id in found(wanted.call_id[:13])
    assert len(found("nightly")) == len(found("GPT")) == 20
    assert found("upstream_timeout") == [each.call_id for each in records if each.code == "upstream_timeout"]
    assert found("nobody has this") == []


def test_a_whole_api_key_does_not_stay_in_the_address(client_of, alice):
    answer = client_of(alice).get("/calls/", {"q": "pst_abcdefghijkl_" + "s" * 49, "outcome": "failed"})

    assert answer.status_code == 302
    assert answer["Location"] == "/calls/?q=pst_abcdefghijkl&outcome=failed"


@pytest.mark.parametrize("form", ["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S+00:00"])
def test_bounds_are_moments_to_the_second(client_of, alice, team, api_key, now, form):
    since = now.replace(microsecond=0)
    inside, before = a_call(team, api_key, since), a_call(team, api_key, since - timedelta(seconds=1))
    after = a_call(team, api_key, since + timedelta(seconds=1))
    booked(inside, before, after)
    until = since + timedelta(seconds=1)

    answer = client_of(alice).get("/calls/", {"since": since.strftime(form), "until": until.strftime(form)})

    assert ids_of(answer) == [inside.call_id]
    assert f'value="{since:%Y-%m-%dT%H:%M:%S}"' in text_of(answer)


def test_a_day_is_whole(client_of, alice, team, api_key, now):
    booked(a_call(team, api_key, now))
    today = f"{now:%Y-%m-%d}"

    assert len(client_of(alice).get("/calls/", {"since": today, "until": today}).context["rows"]) == 1


def test_moments_are_in_the_readers_zone_and_bounds_in_utc_each_saying_so(
    client_of, alice, team, api_key, now, fallen_back, refusal
):
    alice.zone = "Asia/Tokyo"
    alice.save()
    client = client_of(alice)
    in_tokyo = f"{now.astimezone(ZoneInfo('Asia/Tokyo')):%Y-%m-%d %H:%M:%S}"
    bounds = {"since": f"{now - timedelta(minutes=1):%Y-%m-%dT%H:%M:%SZ}"}

    listed = text_of(client.get("/calls/", bounds))
    refused_ones = text_of(client.get("/calls/refused/", bounds))
    one = text_of(client.get(f"/calls/{fallen_back.call_id}/"))
    refused_one = text_of(client.get(f"/calls/{refusal.call_id}/"))

    assert "Started, JST" in listed
    assert "At, JST" in refused_ones
    for page in (listed, refused_ones):
        assert f">{in_tokyo}</time>" in page
        assert "From, UTC" in page
        assert f'value="{bounds["since"].removesuffix("Z")}"' in page
    for page in (one, refused_one):
        assert f"{in_tokyo[-8:]} JST</time> ·" in page
    assert f"{now:%Y-%m-%dT%H:%M:%S}" in one


def test_slow_dear_and_streamed_calls_are_found(client_of, alice, team, api_key, now, fallen_back):
    booked(*some(team, api_key, now, 5))
    client = client_of(alice)

    for question in ({"slower": "6.4"}, {"dearer": "0.039"}, {"streamed": "yes", "slower": "6"}):
        assert ids_of(client.get("/calls/", question)) == [fallen_back.call_id]
    assert ids_of(client.get("/calls/", {"slower": "6.5"})) == []


def test_htmx_gets_the_same_page_with_a_clean_address(client_of, alice):
    client = client_of(alice)

    answer = client.get("/calls/", {"q": "gpt", "outcome": "", "tag": ""}, headers=HTMX)
    wrong = client.get("/calls/", {"tag": "apollo"}, headers=HTMX)

    assert answer["HX-Push-Url"] == "/calls/?q=gpt"
    assert wrong.status_code == 200
    assert 'data-state="error"' in text_of(wrong)


def test_every_state_of_the_list_is_said(client_of, alice, administrator, team):
    alices = client_of(alice)

    assert "No call on the books is like this" in text_of(alices.get("/calls/", {"outcome": "failed"}))
    assert "No call is on the books yet" in text_of(alices.get("/calls/"))
    assert "No call was refused lately" in text_of(alices.get("/calls/refused/"))
    assert "Open it" in text_of(alices.get("/calls/", {"q": "01a20519-f84d-77c1-b58e-ba542d25a418"}))
    team.memberships.all().delete()
    assert 'data-state="forbidden"' in text_of(alices.get("/calls/"))


def test_what_is_asked_can_be_taken_as_a_file(client_of, alice, team, api_key):
    client = client_of(alice)

    def export(**question):
        return client.get("/calls/", question).context["export"]

    assert export(key=api_key.pk, outcome="failed", since="2030-01-31T09:30:00Z") == (
        f"/api/calls.csv?team={team.pk}&key={api_key.pk}&outcome=failed&since=2030-01-31T09%3A30%3A00Z"
    )
    assert client.get(export(outcome="failed")).status_code == 200
    for question in ({"q": "gpt"}, {"slower": "1"}, {"unpriced": "on"}, {"q": "pst_nobody"}):
        assert export(**question) == ""


def test_the_tail_tells_of_what_ended_since(client_of, alice, team, api_key):
    began = timezone.now()
    fresh, old = a_call(team, api_key, began), a_call(team, api_key, began - timedelta(seconds=40))
    booked(fresh, old)
    client = client_of(alice)

    answer = client.get("/calls/", {"tail": began.isoformat()}, headers=HTMX)

    assert fresh.call_id in text_of(answer)
    assert old.call_id not in text_of(answer)
    assert answer["X-Tail-From"] > began.isoformat()
    assert client.get("/calls/", {"tail": (began - timedelta(hours=1)).isoformat()}).status_code == 205
    assert client.get("/calls/", {"tail": "nowhere"}).status_code == 404


def test_a_call_leads_to_those_beside_it_and_like_it(client_of, alice, team, api_key, now):
    records = [a_call(team, api_key, now - timedelta(seconds=each)) for each in range(2)]
    booked(*records)
    later, earlier = (f"/calls/{each.call_id}/" for each in records)
    client = client_of(alice)

    assert client.get(later, {"go": "earlier"})["Location"] == earlier
    assert client.get(earlier, {"go": "later"})["Location"] == later
    assert client.get(later, {"go": "later"})["Location"] == later
    assert client.get(later, {"go": "astray"}).status_code == 404
    assert ids_of(client.get(client.get(later).context["alike"])) == [each.call_id for each in records]


async def test_filters_rows_and_the_tail_by_keyboard(site, browser, session, team, api_key, now):
    await asyncio.to_thread(booked, *some(team, api_key, now, 60))
    page, complaints = await signed_in(browser, site.origin, session)
    await page.goto(f"{site.origin}/calls/")
    rows = page.locator("tr[data-call]")

    await page.keyboard.press("/")
    await expect(page.locator("#calls_q")).to_be_focused()
    await page.keyboard.type("j/k")
    await expect(page.locator(".state-title")).to_have_text("No call on the books is like this")
    await expect(page).to_have_url(f"{site.origin}/calls/?q=j%2Fk")
    await page.locator("#calls_q").fill("")
    await expect(rows).to_have_count(50)
    await page.get_by_role("link", name="Earlier ones").click()
    await expect(rows).to_have_count(60)
    await expect(rows.nth(50).locator("a")).to_be_focused()
    await page.keyboard.press("k")
    await expect(rows.nth(49).locator("a")).to_be_focused()

    await page.get_by_role("switch", name="Live").check()
    fresh = a_call(team, api_key, timezone.now())
    await asyncio.to_thread(booked, fresh)
    await expect(rows.first).to_have_attribute("data-call", fresh.call_id)
    await expect(page.locator("[data-tail-said]")).to_have_text("1 new call")
    await expect(page).to_have_url(re.compile("live=1$"))
    await rows.first.hover()
    more = a_call(team, api_key, timezone.now())
    await asyncio.to_thread(booked, more)
    await expect(page.locator("[data-tail-said]")).to_contain_text("1 new call waits")
    await expect(rows.first).to_have_attribute("data-call", fresh.call_id)
    await page.mouse.move(5, 5)
    await expect(rows.first).to_have_attribute("data-call", more.call_id)

    found = await Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    await page.keyboard.press("Escape")
    await page.keyboard.press("j")
    await page.keyboard.press("Enter")
    await expect(page.locator("h1")).to_contain_text("Answered")
    found = await Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert complaints == []


def at_once(team, api_key, number):
    """Calls of this moment, a millisecond apart."""
    at = timezone.now()
    return [a_call(team, api_key, at - timedelta(milliseconds=each)) for each in range(number)]


def that_lasted(team, api_key, hours):
    """And has just ended."""
    at, lasted_us = timezone.now(), hours * 3_600_000_000
    return a_call(team, api_key, at - timedelta(hours=hours), ended_at_us=us_of(at), latency_us=lasted_us)


async def test_a_tail_that_cuts_the_list_leaves_no_call_out(site, browser, session, team, api_key, now):
    old = some(team, api_key, now, 60)
    await asyncio.to_thread(booked, *old)
    page, complaints = await signed_in(browser, site.origin, session)
    await page.goto(f"{site.origin}/calls/?live=1")
    rows, earlier = page.locator("tr[data-call]"), page.get_by_role("link", name="Earlier ones")
    await earlier.click()
    await expect(rows).to_have_count(60)
    await expect(earlier).to_have_count(0)
    await page.locator("h1").click()  # at no row

    first = [*at_once(team, api_key, 99), that_lasted(team, api_key, hours=5)]
    await asyncio.to_thread(booked, *first)
    await expect(rows).to_have_count(160)
    second = at_once(team, api_key, 100)
    await asyncio.to_thread(booked, *second)
    await expect(rows.first).to_have_attribute("data-call", second[0].call_id)

    await expect(rows).to_have_count(200)
    await expect(rows.last).to_have_attribute("data-call", first[-1].call_id)
    await page.get_by_role("switch", name="Live").uncheck()
    await earlier.click()
    await expect(rows).to_have_count(249)  # the long one is among the next fifty, and was shown
    await earlier.click()
    await expect(rows).to_have_count(260)
    shown = await rows.evaluate_all("all => all.map(row => row.dataset.call)")
    assert sorted(shown) == sorted(each.call_id for each in (*old, *first, *second))
    assert complaints == []


async def test_what_the_tail_asked_before_a_filter_does_not_come_into_the_new_list(
    site, browser, session, team, api_key, now
):
    failed = a_call(team, api_key, now, outcome="failed", status=504, code="upstream_timeout")
    await asyncio.to_thread(booked, failed, a_call(team, api_key, now))
    page, complaints = await signed_in(browser, site.origin, session)
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def held(route):
        answer = await route.fetch()
        asked.set()
        await may_answer.wait()
        await route.fulfill(response=answer)

    fresh = a_call(team, api_key, timezone.now())
    await page.goto(f"{site.origin}/calls/")
    await asyncio.to_thread(booked, fresh)
    await page.route("**/calls/?*tail=*", held, times=1)
    rows = page.locator("tr[data-call]")
    await expect(rows).to_have_count(2)
    await page.get_by_role("switch", name="Live").check()
    await asyncio.wait_for(asked.wait(), 20)
    await page.locator("#calls_q").fill("upstream_timeout")
    await expect(rows).to_have_count(1)

    async with page.expect_response(lambda answer: "tail=" in answer.url and "q=" in answer.url):
        may_answer.set()

    await expect(page.locator("[data-tail-said]")).to_have_text("Nothing new so far")
    assert await rows.evaluate_all("all => all.map(row => row.dataset.call)") == [failed.call_id]
    assert complaints == []


async def test_a_call_reads_well_in_a_browser(site, browser, session, fallen_back):
    page, complaints = await signed_in(browser, site.origin, session)
    await page.goto(f"{site.origin}/calls/")
    await page.get_by_role("link", name=":").first.click()

    await expect(page.locator("h1")).to_contain_text("Answered")
    await expect(page.locator(".lane")).to_have_count(4)  # the gateway's own, and three attempts
    widths = await page.locator(".bar .part").evaluate_all(
        "all => all.map(each => each.getBoundingClientRect().width)"
    )
    assert min(widths) > 0
    await page.set_viewport_size({"width": 390, "height": 800})
    assert await page.evaluate("document.documentElement.scrollWidth") <= 390
    await page.goto(f"{site.origin}/calls/")
    assert await page.evaluate("document.documentElement.scrollWidth") <= 390
    assert complaints == []
