"""The playground in a real browser, against a real gateway: what comes is shown as it comes, and adds up."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from tests.served import ADMIN_EMAIL, ADMIN_PASSWORD, Served, eventually, provider_of, serve
from tests.system.conftest import simulator_in_a_thread

MARKUP = '<img src=x onerror="document.title=1"> and\n```html\n<b>bold</b>\n```'
STALLS = "fault-stall-mid-stream"
BREAKS = "fault-error-mid-stream"
BUSY = "fault-429-retry-after-seconds"
SLOWEST_MS = 20_000
"""On a machine that has much else to do."""
ENTER_PRICES = f"""
from datetime import UTC, datetime
from gateway.models import Target
from gateway.services import add_price

for target in Target.objects.filter(upstream_model__in=["gpt-4o-mini", "{STALLS}"]):
    add_price(
        target,
        datetime(2020, 1, 1, tzinfo=UTC),
        input_nanos=10**14,
        cached_input_nanos=10**13,
        output_nanos=4 * 10**14,
    )
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory) -> Iterator[Served]:
    """Whose provider has four model names that answer well, stall, break, and are busy. Two have a price."""
    folder = tmp_path_factory.mktemp("playground")
    with simulator_in_a_thread(folder / "upstream.jsonl") as upstream:
        provider = provider_of(upstream.base_url, "gpt-4o-mini", STALLS, BREAKS, BUSY)
        before = Served(folder / "var", provider)
        before.var_dir.mkdir()
        before.configure()
        before.manage("shell", "-c", ENTER_PRICES)
        with serve(before.var_dir, **provider) as served:
            served.api_key = before.api_key
            yield served


@pytest.fixture
async def page(gateway, browser) -> Page:
    """Of the administrator, who owns the first team, signed in by the form."""
    context = await browser.new_context(viewport={"width": 1440, "height": 1000})
    page = await context.new_page()
    await page.goto(f"{gateway.origin}/accounts/login/?next=/playground/")
    await page.fill("input[name=login]", ADMIN_EMAIL)
    await page.fill("input[name=password]", ADMIN_PASSWORD)
    await page.click("main button[type=submit]")
    await expect(page.locator("#send")).to_be_enabled(timeout=SLOWEST_MS)  # its script has begun
    return page


async def say(page: Page, text: str, model_name: str = "gpt-4o-mini", *, ends: str = "answered") -> None:
    """By keyboard; returns when the last answer is in this state."""
    await page.select_option("#model", model_name)
    await page.fill("#message", text)
    await page.keyboard.press("Control+Enter")
    await expect(page.locator(".play-answer").last).to_have_attribute("data-state", ends, timeout=SLOWEST_MS)


def of(page: Page, name: str):
    return page.locator(".play-answer").last.locator(f'[data-of="{name}"]')


def entry(gateway: Served, call_id: str) -> tuple:
    """What the books say of a call: tokens in, tokens out, cost, tags, and the key's kind."""
    query = (
        "SELECT e.input_tokens, e.output_tokens, e.cost_nanos, e.tags, k.kind FROM gateway_entry e"
        " JOIN accounts_apikey k ON k.id = e.key_id WHERE e.call_id = ?"
    )
    return eventually(lambda: gateway.rows(query, call_id.replace("-", "")) or gateway.rows(query, call_id))[
        0
    ]


async def test_an_answer_is_streamed_and_what_it_cost_is_on_the_books(gateway, page):
    complaints = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)

    await say(page, MARKUP)

    await expect(of(page, "text")).to_contain_text("Simulated answer to")
    await expect(page.locator(".play-said pre")).to_have_text("<b>bold</b>")
    await expect(page.locator(".play-said img, .play-said b")).to_have_count(0)
    await expect(of(page, "cost-source")).to_have_text("booked", timeout=SLOWEST_MS)
    href = await of(page, "call").get_attribute("href")
    tokens_in, tokens_out, cost_nanos, tags, kind = entry(gateway, href.strip("/").split("/")[-1])
    assert await of(page, "input").inner_text() == str(tokens_in)
    assert await of(page, "output").inner_text() == str(tokens_out)
    shown = float(re.sub(r"[^\d.]", "", await of(page, "cost").inner_text()))
    assert shown == pytest.approx(cost_nanos / 1e9, rel=0.01)
    assert shown > 0
    assert ("playground" in tags, kind) == (True, "playground")
    await expect(of(page, "output-source")).to_have_text("reported")
    await expect(of(page, "first-source")).to_have_text("measured")
    await expect(of(page, "facts")).to_contain_text("1 attempt")
    found = await Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    await of(page, "call").click()
    await expect(page.locator("h1")).to_contain_text("Answered")
    assert complaints == []


async def test_a_call_is_stopped_and_another_follows(gateway, page):
    await say(page, "wait", STALLS, ends="running")
    await expect(of(page, "text")).not_to_be_empty()
    await expect(page.locator("#send")).to_be_hidden()

    await page.keyboard.press("Escape")

    await expect(page.locator(".play-answer").last).to_have_attribute("data-state", "stopped")
    await expect(page.locator("#status")).to_contain_text("was stopped after")
    await expect(of(page, "cost-source")).to_have_text("booked", timeout=SLOWEST_MS)
    await expect(of(page, "output-source")).to_have_text("estimated")
    await say(page, "and now?")
    await expect(page.locator(".play-answer")).to_have_count(2)


async def test_a_call_without_a_price_has_no_cost(page):
    await say(page, "break", BREAKS, ends="failed")

    await expect(of(page, "cost-source")).to_have_text("unpriced", timeout=SLOWEST_MS)
    await expect(of(page, "cost")).to_have_text("\N{EN DASH}")
    await expect(of(page, "output-source")).to_have_text("estimated")


async def test_what_went_wrong_is_a_sentence_with_its_code(gateway, page):
    await say(page, "break", BREAKS, ends="failed")
    await expect(of(page, "error-said")).not_to_be_empty()
    await expect(of(page, "call")).to_be_visible()
    await say(page, "busy", BUSY, ends="refused")
    await expect(of(page, "error-more")).to_contain_text("HTTP 429")
    await expect(of(page, "error-more")).to_contain_text("can be tried again in")

    await page.select_option("#model", "gpt-4o-mini")
    await of(page, "again").click()

    await expect(page.locator(".play-answer").last).to_have_attribute("data-state", "answered")
    await expect(page.locator(".play-answer")).to_have_count(2)


async def test_a_relay_that_is_away_or_elsewhere_is_named(page):
    await page.route("**/v1/chat/completions", lambda route: route.abort())
    await say(page, "anybody?", ends="failed")
    await expect(of(page, "error-said")).to_contain_text("The relay did not answer.")

    await page.unroute("**/v1/chat/completions")
    told = '{"error": {"message": "Pages only.", "type": "invalid_request_error", "code": "unknown_url"}}'
    await page.route("**/v1/chat/completions", lambda route: route.fulfill(status=404, body=told))
    await say(page, "anybody?", ends="refused")
    await expect(of(page, "error-said")).to_contain_text("its pages run apart from the relay")


async def test_a_key_that_was_revoked_is_replaced_without_a_word(gateway, page):
    await say(page, "first")
    gateway.manage(
        "shell",
        "-c",
        "from accounts import services; from accounts.models import User\n"
        "services.close_playground(User.objects.get(), why='test')",
    )

    await say(page, "second")

    assert gateway.api_key not in await page.content()
    assert "pst_" not in await page.content()
    assert "pst_" not in await page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert "pst_" not in page.url + gateway.errors()


async def test_two_model_names_are_compared_each_with_its_own_talk(gateway, page):
    await page.select_option("#with", BREAKS)
    await say(page, "both", ends="failed")

    assert "with=fault-error-mid-stream" in page.url
    await expect(page.locator(".play-answer")).to_have_count(2)
    await expect(page.locator(".play-answer").first).to_have_attribute("data-state", "answered")
    await page.set_viewport_size({"width": 360, "height": 800})
    assert not await page.evaluate("document.documentElement.scrollWidth > innerWidth")


async def test_the_code_is_the_same_call_and_runs(gateway, page):
    await page.fill("#system", 'It\'s "quoted", and\nover two lines.')
    await page.fill("#temperature", "0.5")
    await page.fill("#message", "How deep is it?")
    await page.get_by_role("tab", name="curl").focus()
    await page.keyboard.press("ArrowRight")
    await expect(page.get_by_role("tab", name="Python")).to_be_focused()
    await expect(page.locator("#panel-curl")).to_be_hidden()
    program = await page.locator("#code-python").inner_text()
    environ = {**os.environ, "PENSTOCK_API_KEY": gateway.api_key}

    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert "Simulated answer to" in ran.stdout
    assert "temperature=0.5," in program
    assert r"It'\''s" in await page.locator("#code-curl").text_content()
    assert "process.env.PENSTOCK_API_KEY" in await page.locator("#code-node").text_content()


CUT_ANYWHERE = """async (address) => {
    const { eventsOf } = await import(address);
    const bytes = new TextEncoder().encode(': hello\\r\\n\\r\\ndata: {"a":"é→😀"}\\n\\ndata: one\\r\\ndata: two\\r\\n\\r\\ndata:[DONE]');
    const heard = [];
    for (let size = 1; size <= bytes.length; size += 1) {
        const stream = new ReadableStream({ start(controller) {
            for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
            controller.close();
        } });
        const events = [];
        for await (const data of eventsOf(stream)) events.push(data);
        heard.push(JSON.stringify(events));
    }
    return [...new Set(heard)];
}"""  # noqa: E501


async def test_events_are_the_same_however_the_bytes_are_cut(page):
    heard = await page.evaluate(CUT_ANYWHERE, "/static/playground-stream.js")

    assert heard == ['["{\\"a\\":\\"é→😀\\"}","one\\ntwo","[DONE]"]']
