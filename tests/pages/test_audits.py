"""Every page can be used by everybody: axe-core finds nothing, nothing is cut off, no console complains.

Each page is opened once and looked at in both themes, on a desk and on a phone.
"""

import pytest
from asgiref.sync import sync_to_async
from axe_playwright_python.async_playwright import Axe
from django.conf import settings
from playwright.async_api import expect

from tests.pages.atlas import sights
from tests.pages.house import NAMES, build
from tests.pages.photograph import ON_ITS_WAY

CONTRAST = {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}}
LOOKS = [("light", 1440, {}), ("dark", 1440, CONTRAST), ("dark", 390, CONTRAST), ("light", 390, {})]
"""Themes differ in nothing but colours, so the dark one is asked for these."""
LOOKS_ELSEWHERE = [LOOKS[0], LOOKS[2]]
"""In other languages than English: words differ, and what they take of a place."""
NARROWEST, WIDEST = 360, 2560
LANGUAGES = [
    code for code, _ in settings.LANGUAGES if code == "en" or (settings.BASE_DIR / "locale" / code).exists()
]
"""Those that there are translations for."""
TOO_WIDE = "document.documentElement.scrollWidth > innerWidth"


async def violations(page, rules):
    """One line for each, with the element and what would mend it."""
    found = await page.evaluate("(rules) => axe.run({resultTypes: ['violations'], ...rules})", rules)
    for each in found["violations"]:
        for node in each["nodes"]:
            why = " ".join(node["failureSummary"].split())
            yield f"{each['id']} at {node['target'][0]}: {why}"


async def complaints_of(page, sight, origin, names, looks):
    """Everything that is wrong with one page, in sentences."""
    heard = []
    page.on("console", lambda said: heard.append(said.text) if said.type in ("error", "warning") else None)
    await page.set_viewport_size({"width": 1440, "height": 1000})
    answer = await page.goto(origin + sight.of(names))
    if answer.status != sight.status:
        return [f"answered {answer.status} instead of {sight.status}"]
    await expect(page.locator(ON_ITS_WAY)).to_have_count(0)
    await page.evaluate(Axe().axe_script)
    found = []
    for theme, width, rules in looks:
        await page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        await page.set_viewport_size({"width": width, "height": 1000})
        found += [f"{theme}, {width} px: {each}" async for each in violations(page, rules)]
    for width in (NARROWEST, WIDEST):
        await page.set_viewport_size({"width": width, "height": 1000})
        if await page.evaluate(TOO_WIDE):
            found.append(f"is wider than a screen of {width} px")
    # A browser tells of a page's own status as if a part of it were missing.
    expected = "" if sight.status == 200 else f"status of {sight.status}"
    return found + [f"says: {each}" for each in heard if not (expected and expected in each)]


@pytest.mark.parametrize("language", LANGUAGES)
async def test_everybody_can_use_every_page(site, browser, language):
    house = await sync_to_async(build)(calls=200, days=2)
    sessions = await sync_to_async(house.sessions)()
    looks = LOOKS if language == "en" else LOOKS_ELSEWHERE
    wrong = []

    for who in (*NAMES, "stranger"):
        context = await browser.new_context(locale=language)
        if who != "stranger":
            cookie = {"name": settings.SESSION_COOKIE_NAME, "value": sessions[who], "url": site.origin}
            await context.add_cookies([cookie])
        for sight in sights():
            if sight.who == who:
                page = await context.new_page()
                found = await complaints_of(page, sight, site.origin, house.names, looks)
                wrong += [f"{sight.name} ({who}) {each}" for each in found]
                await page.close()
        await context.close()

    assert not wrong, "\n" + "\n".join(wrong)
