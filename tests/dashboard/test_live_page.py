"""The live page in a real browser: its figures are the sums of the calls, whatever happens on the way."""

import asyncio
import json
import time

import pytest
from playwright.async_api import expect

from gateway.relay.records import Usage
from tests.dashboard.conftest import session_of, signed_in
from tests.dashboard.records import settled
from tests.served import ADMIN_EMAIL, ADMIN_PASSWORD, eventually

# Static files are handed on as Django's own file iterators, of which it warns under ASGI.
pytestmark = pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")


@pytest.fixture
def session(alice, api_key):
    return session_of(alice)


def calls_of(team, api_key, count, **changed):
    """Calls that end now, of two model names, with figures that are easy to add."""
    return [
        settled(
            time.time(),
            team_id=team.pk,
            key_id=api_key.pk,
            **{
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
    await expect(tile(page, name)).to_have_attribute("data-raw", str(value), timeout=10_000)


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


async def test_a_paused_page_stands_still_and_catches_up_exactly(site, browser, session, team, api_key):
    page, _ = await signed_in(browser, site.origin, session)
    site.happened(*calls_of(team, api_key, 4))
    await page.goto(site.origin)
    await shows(page, "calls", 4)

    await page.locator("#pause").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("#connection")).to_have_text("Paused")
    site.happened(*calls_of(team, api_key, 5))
    await expect(page.locator("#pause")).to_have_text("Resume (5 new)")
    await shows(page, "calls", 4)
    await expect(page.locator("#latest tr")).to_have_count(4)
    await page.locator("#legend button").first.click()
    await shows(page, "calls", 4)

    await page.locator("#pause").focus()
    await page.keyboard.press("Enter")
    await shows(page, "calls", 9)
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

    await expect(page.locator("#connection")).to_have_text("Live", timeout=10_000)
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
    assert await charts.count() == 6
    for number in range(6):
        chart = charts.nth(number)
        await chart.locator("summary").click()
        for name in ("deepseek-v3.2", "gpt-4o"):
            await expect(chart.locator("thead")).to_contain_text(name)
        await expect(chart.locator("tbody tr")).to_have_count(15)


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
    colours = """Object.values(Chart.instances).flatMap(
        ({data, options}) => [data.datasets[0].borderColor, options.scales.y.grid.color])"""
    light = await page.evaluate(colours)
    await page.locator("[data-theme-toggle]").click()
    await page.locator("[data-theme-toggle]").click()

    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    drawn = await page.locator("#live").get_attribute("data-drawn")
    await expect(page.locator("#live")).not_to_have_attribute("data-drawn", drawn)
    dark = await page.evaluate(colours)
    assert [one for one, other in zip(light, dark, strict=True) if one == other] == []


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
    await expect(page.locator("#connection")).to_have_text("Live", timeout=10_000)
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
