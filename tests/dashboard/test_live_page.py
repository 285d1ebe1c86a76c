"""The live page in a real browser: its figures are the sums of the calls, whatever happens on the way."""

import asyncio
import contextlib
import json
import re
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import expect

from accounts.models import ApiKey
from gateway.glance import Seen
from gateway.models import BreakerChange, Provider, Route, Target
from gateway.relay.records import Usage
from tests.dashboard.conftest import session_of, signed_in
from tests.dashboard.records import settled
from tests.dashboard.test_standing import target
from tests.pages.photograph import LOOK_AROUND
from tests.served import ADMIN_EMAIL, ADMIN_PASSWORD, eventually

# Static files are handed on as Django's own file iterators, of which it warns under ASGI.
pytestmark = pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")


@pytest.fixture
def session(alice, api_key):
    return session_of(alice)


@pytest.fixture
def administrator_session(administrator, api_key):
    return session_of(administrator)


def calls_of(team, api_key, count, **changed):
    """Calls that end now, of two model names, with figures that are easy to add."""
    return [
        settled(
            time.time(),
            team_id=team.pk,
            **{
                "key_id": api_key.pk,
                "route": ("gpt-4o", "deepseek-v3.2")[number % 2],
                "usage": Usage(100, 10, 0, "reported"),
                "cost_nanos": 1_000_001,
                **changed,
            },
        )
        for number in range(count)
    ]


def tile(page, name):
    return page.locator(f"[data-tile={name}]")


async def shows(page, name, value):
    await expect(tile(page, name)).to_have_attribute("data-raw", str(value))


async def every_chart_is_drawn(page):
    await page.evaluate(LOOK_AROUND)
    await expect(page.locator("#busy [data-loading]")).to_have_count(0)


async def test_the_page_waits_for_the_first_call_and_then_shows_it(site, browser, session, team, api_key):
    page, complaints = await signed_in(browser, site.origin, session)
    await page.goto(site.origin)
    await expect(page.locator("#empty")).to_be_visible()
    await expect(page.locator("#first-call")).to_contain_text(f"curl {site.origin}/v1/chat/completions")
    await expect(page.locator("#connection")).to_have_text("Live")

    site.happened(*calls_of(team, api_key, 1, simulated=True))

    await expect(page.locator("#empty")).to_be_hidden()
    await expect(page.locator("canvas").first).to_be_visible()
    row = page.locator("#latest tr")
    await expect(row).to_have_count(1)
    for text in ("gpt-4o", "simulated", "Answered", "400 ms", "120 ms", "nightly batch", "$0.001"):
        await expect(row).to_contain_text(text)
    await expect(page.locator("#simulated")).to_be_visible()
    assert complaints == []


async def test_the_page_names_what_its_figures_lack(site, browser, session, team, api_key):
    page, complaints = await signed_in(browser, site.origin, session)
    await page.goto(site.origin)
    await expect(page.locator("#connection")).to_have_text("Live")
    await expect(page.locator("#missing")).to_be_hidden()

    site.missing = ("process 7",)
    await expect(page.locator("#missing")).to_contain_text("Without the figures of process 7")
    site.missing = ("the database",)
    await expect(page.locator("#missing")).to_contain_text("The database is away")
    site.missing = ("Redis",)
    await expect(page.locator("#missing")).to_contain_text("Redis is away")
    site.missing = ()
    await expect(page.locator("#missing")).to_be_hidden()
    assert complaints == []


async def test_the_figures_are_the_sums_of_the_calls(site, browser, session, team, api_key):
    page, complaints = await signed_in(browser, site.origin, session)
    site.happened(*calls_of(team, api_key, 30))
    await page.goto(site.origin)
    site.happened(*calls_of(team, api_key, 7, outcome="failed", status=502, code="upstream_timeout"))
    site.happened(*calls_of(team, api_key, 3, outcome="truncated"))
    site.on_loop(lambda: site.fold.refused(team.pk, api_key.pk, "gpt-4o", "rate_limit_exceeded"))

    await shows(page, "calls", 40)
    await shows(page, "spend", 40 * 1_000_001)
    await shows(page, "error_rate", 10 / 40)
    await expect(page.locator("[data-note=calls]")).to_have_text("15 min, 1 refused")
    assert float(await tile(page, "latency_p95").get_attribute("data-raw")) == pytest.approx(
        400_000, rel=0.01
    )
    assert float(await tile(page, "first_token_p50").get_attribute("data-raw")) == pytest.approx(
        120_000, rel=0.01
    )
    await expect(page.locator("#legend button")).to_have_count(3)
    assert complaints == []


NOTE_WHEN_PAUSED = """() => {
  const { dataset } = document.getElementById("live");
  const note = () => { dataset.pausedAt = dataset.received; };
  document.getElementById("pause").addEventListener("click", note, { once: true });
}"""


async def test_a_paused_page_stands_still_and_catches_up_exactly(site, browser, session, team, api_key):
    page, _ = await signed_in(browser, site.origin, session)
    site.happened(*calls_of(team, api_key, 4))
    await page.goto(site.origin)
    await shows(page, "calls", 4)

    live = page.locator("#live")
    await page.evaluate(NOTE_WHEN_PAUSED)
    await page.locator("#pause").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("#connection")).to_have_text("Paused")
    site.happened(*calls_of(team, api_key, 5))
    site.on_loop(lambda: site.fold.refused(team.pk, api_key.pk, "gpt-4o", "rate_limit_exceeded"))
    await expect(page.locator("#pause")).to_have_text("Resume (5 new)")
    await shows(page, "calls", 4)
    await expect(page.locator("#latest tr")).to_have_count(4)
    second = await live.get_attribute("data-paused-at")
    await expect(live).to_have_attribute("data-drawn", second)
    await live.evaluate("(live) => live.removeAttribute('data-drawn')")
    await page.locator("#legend button").first.click()
    await expect(live).to_have_attribute("data-drawn", second)
    await shows(page, "calls", 4)
    await expect(page.locator("[data-note=calls]")).to_have_text("last 15 min")

    await page.locator("#pause").focus()
    await page.keyboard.press("Enter")
    await shows(page, "calls", 9)
    await expect(page.locator("[data-note=calls]")).to_have_text("15 min, 1 refused")
    await expect(page.locator("#latest tr")).to_have_count(9)
    await expect(page.locator("#connection")).to_have_text("Live")


async def test_a_lost_socket_comes_back_and_fills_the_gap_without_doubles(
    site, browser, session, team, api_key
):
    page, _ = await signed_in(browser, site.origin, session)
    snapshots = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda text: remember(snapshots, text)))
    await page.goto(site.origin)
    site.happened(*calls_of(team, api_key, 3))
    await shows(page, "calls", 3)

    site.sockets_refused = True
    site.hub.close_all()
    await expect(page.locator("#connection")).to_have_text("Reconnecting")
    site.happened(*calls_of(team, api_key, 11))
    before = site.hub.last_id
    # The gap is over in the server, so that a frame alone cannot fill it.
    await asyncio.to_thread(eventually, lambda: site.hub.last_id >= before + 2)
    site.sockets_refused = False

    await expect(page.locator("#connection")).to_have_text("Live")
    await shows(page, "calls", 14)
    await shows(page, "spend", 14 * 1_000_001)
    assert [each["full"] for each in snapshots] == [True, False]


def remember(snapshots, text):
    message = json.loads(text)
    if message["kind"] == "snapshot":
        snapshots.append(message)


async def test_signing_out_elsewhere_leads_to_the_sign_in_page(site, browser, session, alice):
    page, _ = await signed_in(browser, site.origin, session)
    await page.goto(site.origin)
    await expect(page.locator("#connection")).to_have_text("Live")

    await page.context.clear_cookies()
    site.hub.close_user(alice.pk)
    await page.wait_for_url("**/accounts/login/**")


async def test_each_chart_is_there_as_a_table_too(site, browser, session, team, api_key):
    page, _ = await signed_in(browser, site.origin, session)
    site.happened(*calls_of(team, api_key, 4))
    await page.goto(site.origin)
    await shows(page, "calls", 4)

    charts = page.locator("[data-chart]")
    assert await charts.count() == 7
    for number in range(7):
        chart = charts.nth(number)
        await chart.locator("summary").click()
        if await chart.get_attribute("data-chart") == "under_way":
            await expect(chart.locator("thead")).to_contain_text("Urgent, queued")
            continue
        for name in ("deepseek-v3.2", "gpt-4o"):
            await expect(chart.locator("thead")).to_contain_text(name)
        await expect(chart.locator("tbody tr")).to_have_count(15)


POINTED = "Object.values(Chart.instances).map((chart) => chart.pointedAt ?? null)"


async def test_all_charts_point_at_one_second_by_mouse_and_by_keyboard(site, browser, session, team, api_key):
    page, complaints = await signed_in(browser, site.origin, session)
    site.happened(*calls_of(team, api_key, 4))
    await page.goto(site.origin)
    await shows(page, "calls", 4)
    await every_chart_is_drawn(page)

    box = page.locator("[data-chart=calls] .chart-canvas")
    await box.hover(position={"x": 300, "y": 80})
    pointed = await page.evaluate(POINTED)
    assert len(pointed) == 7
    assert len(set(pointed)) == 1
    assert pointed[0] is not None
    await page.mouse.move(5, 5)
    assert set(await page.evaluate(POINTED)) == {None}

    await box.focus()
    await page.keyboard.press("ArrowLeft")
    first = (await page.evaluate(POINTED))[0]
    await page.keyboard.press("ArrowLeft")
    assert set(await page.evaluate(POINTED)) == {first - 5}
    await expect(box).to_have_attribute("aria-valuetext", re.compile("gpt-4o"))
    await page.keyboard.press("Escape")
    assert set(await page.evaluate(POINTED)) == {None}
    assert complaints == []


async def test_a_point_leads_to_the_calls_behind_it(site, browser, session, team, api_key):
    page, _ = await signed_in(browser, site.origin, session)
    site.happened(*calls_of(team, api_key, 4, route="gpt-4o", latency_us=2_500_000))
    await page.goto(site.origin)
    await shows(page, "calls", 4)
    await every_chart_is_drawn(page)
    last = str(site.stand_still())
    await expect(page.locator("#live")).to_have_attribute("data-received", last)
    await expect(page.locator("#live")).to_have_attribute("data-drawn", last)

    await page.locator("[data-chart=spend] .chart-canvas").focus()
    await page.keyboard.press("End")
    second = (await page.evaluate(POINTED))[0]
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/calls/?*")

    asked = {name: value for name, (value,) in parse_qs(urlsplit(page.url).query).items()}
    assert (asked["team"], asked["route"]) == (team.slug, "gpt-4o")
    assert datetime.fromisoformat(asked["until"]).timestamp() == second + 1
    # The 60 s that the point tells of, and as much earlier as its calls took.
    assert datetime.fromisoformat(asked["since"]).timestamp() == second + 1 - 60 - 3


async def test_calls_under_way_are_on_their_chart_before_any_has_ended(site, browser, session, team, api_key):
    page, complaints = await signed_in(browser, site.origin, session)
    site.under_way = {team.pk: [0, 7, 0, 0, 0, 3]}
    await page.goto(site.origin)
    drawn = """Object.values(Chart.instances).filter(({canvas}) => canvas.closest("[data-chart=under_way]"))
        .flatMap(({data}) => data.datasets.map(({label, data}) => [label, data.at(-1).y]))"""
    async with asyncio.timeout(10):  # the page's CSP lets nobody wait for an expression in it
        while dict(await page.evaluate(drawn)).get("Normal") != 7:
            await page.evaluate("new Promise(requestAnimationFrame)")
    assert dict(await page.evaluate(drawn)) == {
        "Urgent": 0, "Normal": 7, "Batch": 0, "Urgent, queued": 0, "Normal, queued": 0, "Batch, queued": 3,
    }  # fmt: skip
    assert complaints == []


@pytest.fixture
def sick_target(transactional_db):
    provider = Provider.objects.create(slug="openai", name="OpenAI", base_url="https://api.openai.com/v1")
    route = Route.objects.create(model_name="gpt-4o")
    return Target.objects.create(route=route, provider=provider, upstream_model="gpt-4o")


def opened(sick, ago_s):
    now = datetime.now(UTC)
    return BreakerChange.objects.create(
        target_id=sick.pk, provider="openai", upstream_model="gpt-4o", before="closed", after="open",
        at=now - timedelta(seconds=ago_s), until=now + timedelta(seconds=60), cause="5 failures in a row",
    )  # fmt: skip


async def test_a_breaker_is_seen_to_open_with_since_when_and_why(
    site, browser, administrator_session, sick_target
):
    page, complaints = await signed_in(browser, site.origin, administrator_session)
    site.seen = Seen([target(sick_target.pk, breakers=("closed", "closed"))], 0)
    await page.goto(site.origin)
    line = page.locator(".strip-line")
    await expect(page.locator(".calm summary")).to_have_text("Closed 1 target, all the time")
    await expect(line.locator("[data-part=state]")).to_have_text("Closed")
    await expect(line.locator(".piece")).to_have_count(1)
    await expect(page.locator("#target-use td").first).to_have_text("0 / 5")
    await expect(page.locator("#target-use td").last).to_have_text("83 of 90")

    await asyncio.to_thread(opened, sick_target, 1)
    site.seen = Seen([target(sick_target.pk, breaker="open", breakers=("open", "closed"))], 0)
    await expect(line.locator("[data-part=state]")).to_have_text("Open in 1 of 2")
    await expect(page.locator(".calm")).to_be_hidden()
    piece = line.locator(".piece-open")
    await expect(piece).to_have_attribute("aria-label", re.compile("Open since .*: 5 failures in a row"))
    await line.locator(".piece-closed").focus()
    await page.keyboard.press("ArrowRight")
    await expect(piece).to_be_focused()
    await expect(page.locator("#strip-said")).to_contain_text("5 failures in a row")
    await page.locator("#breakers .more summary").click()
    await expect(page.locator("#breakers tbody tr").first).to_contain_text("5 failures in a row")
    assert complaints == []


async def test_what_the_books_tell_too_late_is_asked_for_again_but_not_for_ever(
    site, browser, administrator_session, sick_target
):
    page, complaints = await signed_in(browser, site.origin, administrator_session)
    site.seen = Seen([target(sick_target.pk)], 0)
    await page.goto(site.origin)
    await expect(page.locator(".strip-line [data-part=state]")).to_have_text("Closed")
    asked = pages_asked_for(page, site.origin)

    async def booked_after_the_answer(route):
        answer = await route.fetch()
        await asyncio.to_thread(opened, sick_target, time.time() - opened_at)
        await route.fulfill(response=answer)

    await page.route(f"{site.origin}/", booked_after_the_answer, times=1)
    opened_at = time.time()
    site.seen = Seen([target(sick_target.pk, breaker="open")], 0)
    await expect(page.locator(".piece-open")).to_have_attribute(
        "aria-label", re.compile("5 failures in a row")
    )
    await hears_more(page, 3)
    assert asked == ["fetch"] * 2

    site.seen = Seen([target(sick_target.pk, breaker="half_open")], 0)  # which never comes on the books
    await asyncio.to_thread(eventually, lambda: len(asked) == 5)
    await hears_more(page, 3)
    assert asked == ["fetch"] * 5
    assert complaints == []


async def test_what_a_breaker_did_before_the_page_was_opened_is_on_its_strip(
    site, browser, session, sick_target
):
    await asyncio.to_thread(opened, sick_target, 300)
    page, _ = await signed_in(browser, site.origin, session)
    site.seen = Seen([target(sick_target.pk, breaker="open")], 0)
    await page.goto(site.origin)
    await expect(page.locator(".piece-open")).to_have_text("Open")
    width = "document.querySelector('.piece-open').offsetWidth / document.querySelector('.strip').offsetWidth"
    assert await page.evaluate(width) == pytest.approx(300 / 900, abs=0.02)
    await expect(page.locator("#target-use")).to_contain_text("For administrators")


def pages_asked_for(page, origin):
    asked = []
    page.on("request", lambda request: request.url == f"{origin}/" and asked.append(request.resource_type))
    return asked


async def hears_more(page, messages):
    heard = int(await page.locator("#live").get_attribute("data-received"))
    async with asyncio.timeout(10):
        while int(await page.locator("#live").get_attribute("data-received")) < heard + messages:
            await page.evaluate("new Promise(requestAnimationFrame)")


async def test_a_target_that_is_new_comes_on_an_open_page_which_asks_for_it_once(
    site, browser, administrator_session
):
    page, complaints = await signed_in(browser, site.origin, administrator_session)
    asked = pages_asked_for(page, site.origin)
    await page.goto(site.origin)
    await expect(page.locator("#connection")).to_have_text("Live")
    await expect(page.locator("#breakers")).to_contain_text("No target is in use")

    first = await asyncio.to_thread(added_target, "gpt-4o")
    site.seen = Seen([target(first.pk)], 0)
    await expect(page.locator(".strip-line [data-part=state]")).to_have_text(["Closed"])
    second = await asyncio.to_thread(added_target, "gpt-4o-mini")
    nobody = second.pk + 1000  # the page never has it
    site.seen = Seen([target(first.pk), target(second.pk, breaker="open"), target(nobody)], 0)

    await expect(page.locator("#target-use tr[data-target]")).to_have_count(2)
    await expect(page.locator("#target-use td").nth(6)).to_have_text("0 / 5")
    line = page.locator(f".strip-line[data-target='{second.pk}']")
    await expect(line.locator("[data-part=state]")).to_have_text("Open")
    await expect(line.locator(".piece-open")).to_be_visible()
    for missing in (1, 2):  # what is told is another each time, so that it comes again
        site.seen = Seen(site.seen.targets, missing)
        await hears_more(page, 2)
    assert asked == ["document", "fetch", "fetch"]

    await page.locator(".calm summary").click()
    await line.locator(".piece-open").focus()
    await page.keyboard.press("ArrowDown")
    await expect(page.locator(f"[data-target='{first.pk}'] .piece-closed")).to_be_focused()
    await page.keyboard.press("ArrowUp")
    await expect(line.locator(".piece-open")).to_be_focused()
    assert complaints == []


def added_target(upstream_model):
    provider, _ = Provider.objects.get_or_create(
        slug="openai", defaults={"name": "OpenAI", "base_url": "https://api.openai.com/v1"}
    )
    route, _ = Route.objects.get_or_create(model_name="gpt-4o")
    return Target.objects.create(route=route, provider=provider, upstream_model=upstream_model)


async def test_an_open_page_learns_the_names_of_new_keys_also_when_its_first_question_fails(
    site, browser, session, team, api_key
):
    page, _ = await signed_in(browser, site.origin, session)
    await page.goto(site.origin)
    await expect(page.locator("#connection")).to_have_text("Live")
    asked = pages_asked_for(page, site.origin)

    await page.route(f"{site.origin}/", lambda route: route.fulfill(status=503), times=1)
    new = await asyncio.to_thread(ApiKey.objects.create, team=team, name="weekly report")
    for key_id in (new.pk, new.pk + 1000, new.pk + 2000):  # the page never has the others
        site.happened(*calls_of(team, new, 1, key_id=key_id))

    await expect(page.locator("#latest")).to_contain_text(f"key {new.pk + 2000}")
    await expect(page.locator("#latest")).to_contain_text("weekly report")
    await hears_more(page, 3)
    assert asked == ["fetch", "fetch"]


async def test_the_busiest_keys_and_teams_are_named(site, browser, administrator_session, team, api_key):
    page, complaints = await signed_in(browser, site.origin, administrator_session)
    site.happened(*calls_of(team, api_key, 5), *calls_of(team, api_key, 2, outcome="failed", status=502))
    await page.goto(site.origin)
    for name, first in (("keys", "nightly batch"), ("teams", "Hydro")):
        row = page.locator(f"[data-busiest={name}] tbody tr")
        await expect(row).to_have_count(1)
        await expect(row.locator("th")).to_have_text(first)
        await expect(row.locator("td.numeric")).to_have_text(["7", "2", "$0.007"])
    assert complaints == []


async def test_a_lost_line_says_how_old_is_what_is_shown_and_moves_nothing(
    site, browser, session, team, api_key
):
    page, _ = await signed_in(browser, site.origin, session)
    site.happened(*calls_of(team, api_key, 3))
    await page.goto(site.origin)
    await shows(page, "calls", 3)
    await expect(page.locator(".checklist-panel")).to_have_count(1)  # it comes of itself, above the others
    places = "[...document.querySelectorAll('.tile, .chart, .panel')].map((each) => each.offsetTop)"
    before = await page.evaluate(places)
    site.sockets_refused = True
    site.hub.close_all()
    await expect(page.locator("#lost")).to_contain_text(re.compile(r"What is shown is of \d\d:\d\d:\d\d"))
    assert await page.evaluate(places) == before
    site.sockets_refused = False
    await expect(page.locator("#lost")).to_be_hidden()


async def test_nothing_jumps_from_the_first_paint_to_the_charts(site, browser, session, team, api_key):
    site.happened(*calls_of(team, api_key, 3))
    await asyncio.to_thread(eventually, lambda: site.hub.has_frames(team.pk))
    page, _ = await signed_in(browser, site.origin, session)
    await page.add_init_script("""window.shifts = [];
        new PerformanceObserver((list) => shifts.push(...list.getEntries().map(({value}) => value)))
            .observe({type: "layout-shift", buffered: true});""")
    await page.goto(site.origin)
    await shows(page, "calls", 3)
    await expect(page.locator("[data-busiest=keys] tbody tr")).to_have_count(1)
    assert sum(await page.evaluate("shifts")) < 0.02


async def test_a_chart_is_drawn_when_one_comes_near_it(site, browser, session, team, api_key):
    page, complaints = await signed_in(browser, site.origin, session)
    await page.set_viewport_size({"width": 390, "height": 600})
    site.happened(*calls_of(team, api_key, 3))
    await page.goto(site.origin)
    await expect(page.locator("#live")).to_have_attribute("data-drawn", re.compile(r"\d"))
    first, last = page.locator(".chart-box").first, page.locator(".chart-box").last
    await expect(first).not_to_have_attribute("data-loading", "")
    await expect(last).to_have_attribute("data-loading", "")

    await last.scroll_into_view_if_needed()

    await expect(last).not_to_have_attribute("data-loading", "")
    assert complaints == []


async def test_one_model_name_can_be_seen_in_detail_and_another_hidden(site, browser, session, team, api_key):
    page, complaints = await signed_in(browser, site.origin, session)
    site.happened(*calls_of(team, api_key, 4))
    await page.goto(site.origin)
    await shows(page, "calls", 4)

    latency = page.locator("[data-chart=latency]")
    await latency.locator("select").select_option("of:gpt-4o")
    await expect(latency.locator(".chart-legend")).to_contain_text("p95")
    button = page.locator("#legend button", has_text="gpt-4o")
    await button.click()
    await expect(button).to_have_attribute("aria-pressed", "false")
    assert complaints == []


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_the_page_fits_the_screen_and_does_not_jump(
    site, browser, session, team, api_key, width, theme
):
    page, complaints = await signed_in(browser, site.origin, session)
    await page.set_viewport_size({"width": width, "height": 900})
    await page.emulate_media(color_scheme=theme)
    site.happened(*calls_of(team, api_key, 30))
    await page.goto(site.origin)
    await shows(page, "calls", 30)
    await every_chart_is_drawn(page)
    heights = "[...document.querySelectorAll('.tile, .chart, .legend')].map((each) => each.offsetHeight)"
    before = await page.evaluate(heights)
    site.happened(*calls_of(team, api_key, 70, cost_nanos=123_456_789_012, latency_us=61_000_000))
    await shows(page, "calls", 100)

    assert await page.evaluate(heights) == before
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    assert complaints == []


async def test_the_charts_change_colour_with_the_theme(site, browser, session, team, api_key):
    page, _ = await signed_in(browser, site.origin, session)
    await page.emulate_media(color_scheme="light")
    site.happened(*calls_of(team, api_key, 4))
    await page.goto(site.origin)
    await shows(page, "calls", 4)
    await every_chart_is_drawn(page)
    colours = """Object.values(Chart.instances).flatMap(
        ({data, options}) => [data.datasets[0].borderColor, options.scales.y.grid.color])"""
    light = await page.evaluate(colours)
    await page.locator("[data-theme-toggle]").click()
    await page.locator("[data-theme-toggle]").click()

    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")

    async def unchanged():
        dark = await page.evaluate(colours)
        return [one for one, other in zip(light, dark, strict=True) if one == other]

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(10):
            while await unchanged():
                await page.evaluate("new Promise(requestAnimationFrame)")
    assert await unchanged() == []


async def test_calls_through_the_real_gateway_are_on_the_page_to_the_last_one_also_after_a_kill(
    served, browser
):
    assert await asyncio.to_thread(send_calls, served, 12) == [200] * 12
    page = await (await browser.new_context()).new_page()
    await page.goto(served.origin)
    await page.fill("input[name=login]", ADMIN_EMAIL)
    await page.fill("input[name=password]", ADMIN_PASSWORD)
    await page.press("input[name=password]", "Enter")
    await shows(page, "calls", 12)
    await expect(page.locator("#simulated")).to_be_visible()

    await asyncio.to_thread(served.kill)
    await expect(page.locator("#connection")).to_have_text("Reconnecting")
    await asyncio.to_thread(served.start)
    await expect(page.locator("#connection")).to_have_text("Live")
    assert await asyncio.to_thread(send_calls, served, 3) == [200] * 3
    await shows(page, "calls", 15)

    books = "select count(*), sum(cost_nanos) from gateway_entry"
    await asyncio.to_thread(eventually, lambda: served.rows(books)[0][0] == 15)
    await shows(page, "spend", served.rows(books)[0][1])


def send_calls(served, count):
    import httpx2

    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
    headers = {"Authorization": f"Bearer {served.api_key}"}
    return [
        httpx2.post(f"{served.base_url}/chat/completions", json=body, headers=headers, timeout=30).status_code
        for _ in range(count)
    ]
