"""The live page open for an hour: once its window is full, it needs no more memory than before."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import CDPSession, Page, async_playwright, expect

from dashboard.frames import KEPT_S, Frame
from gateway.glance import Seen
from tests.dashboard.conftest import CHROMIUM, CHROMIUM_ARGS, session_of, signed_in
from tests.dashboard.records import settled
from tests.dashboard.test_standing import target

pytestmark = pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")

HOUR_S = 3600
AT_ONCE = 6
"""Fewer than a socket's queue holds, so that every frame comes as a frame."""
BETWEEN_LOOKS = 10
STATES = ("closed", "open", "half_open")
MAY_GROW = 1.05
FLAGS = "--js-flags=--expose-gc --jitless"
"""Compiled code is on the heap too, and there comes more of it for hours."""


@pytest.fixture
async def browser():
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=CHROMIUM, args=[*CHROMIUM_ARGS, FLAGS])
        yield launched
        await launched.close()


async def weight(page: Page, cdp: CDPSession) -> dict[str, float]:
    """Bytes of JavaScript's heap, DOM nodes and listeners, with all drawn and the garbage gone."""
    received = await page.get_attribute("#live", "data-received")
    await expect(page.locator("#live")).to_have_attribute("data-drawn", received)
    for _ in range(3):
        await cdp.send("HeapProfiler.collectGarbage")
    found = (await cdp.send("Performance.getMetrics"))["metrics"]
    return {each["name"]: each["value"] for each in found}


def feeder(site, page: Page, team, api_key) -> Callable[[int], Awaitable[None]]:
    """Publishes so many more seconds, each with calls, in every sixth another model name."""
    at_s = site.hub.last_id

    def publish(first: int) -> None:
        for second in range(first, first + AT_ONCE):
            frame = Frame(second, under_way={team.pk: [1, second % 9, 0, 0, second % 3, 0]})
            for number in range(4):
                route = f"model-{(second // 6 + number) % 12}"
                frame.add(settled(second, team_id=team.pk, key_id=api_key.pk, route=route, cost_nanos=second))
            site.hub.see(Seen([target(breaker=STATES[second // 60 % 3])], 0))
            site.hub.publish(frame)

    async def feed(seconds: int) -> None:
        nonlocal at_s
        for _ in range(seconds // (AT_ONCE * BETWEEN_LOOKS)):
            for _ in range(BETWEEN_LOOKS):
                await asyncio.to_thread(site.on_loop, lambda first=at_s + 1: publish(first))
                at_s += AT_ONCE
            async with asyncio.timeout(10):
                while await page.evaluate("Number(document.getElementById('live').dataset.received)") < at_s:
                    await page.evaluate("new Promise(requestAnimationFrame)")

    return feed


async def test_the_live_page_open_for_an_hour_does_not_grow(site, browser, alice, team, api_key):
    page, complaints = await signed_in(browser, site.origin, await asyncio.to_thread(session_of, alice))
    await page.goto(site.origin)
    async with asyncio.timeout(10):
        while await page.get_attribute("#live", "data-connection") != "live":
            await page.evaluate("new Promise(requestAnimationFrame)")
    site.stand_still()
    cdp = await page.context.new_cdp_session(page)
    await cdp.send("Performance.enable")
    feed = feeder(site, page, team, api_key)

    await feed(KEPT_S + 60)
    full = await weight(page, cdp)
    await feed(HOUR_S - KEPT_S)
    later = await weight(page, cdp)

    assert len(site.hub._channels[team.pk].frames) == KEPT_S
    for name in ("JSHeapUsedSize", "Nodes", "JSEventListeners"):
        assert later[name] <= full[name] * MAY_GROW, f"{name} grew from {full[name]} to {later[name]}"
    assert complaints == []
