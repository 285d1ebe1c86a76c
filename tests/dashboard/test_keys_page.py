"""Keys in a browser: made and copied by keyboard alone, and an overlap that ticks."""

from datetime import timedelta

from asgiref.sync import sync_to_async
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from accounts import services
from accounts.models import ApiKey, KeyUse
from tests.dashboard.conftest import session_of, signed_in


async def test_a_key_is_made_and_copied_by_keyboard_alone(site, browser, alice, team):
    page, complaints = await signed_in(browser, site.origin, await sync_to_async(session_of)(alice))
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=site.origin)
    await page.goto(f"{site.origin}/keys/")

    await page.get_by_role("link", name="Make a key").first.press("Enter")
    await page.get_by_label("Name").press_sequentially("nightly index")
    await page.keyboard.press("Enter")
    copy = page.get_by_role("button", name="Copy the key")
    await copy.press("Enter")
    await page.get_by_role("button", name="Copied").wait_for()

    shown = await page.locator("#key").inner_text()
    assert await page.evaluate("navigator.clipboard.readText()") == shown
    assert await sync_to_async(ApiKey.objects.filter(name="nightly index").exists)()
    found = await Axe().run(page)
    assert [each["id"] for each in found.response["violations"]] == []
    assert complaints == []


def rotating(team, alice) -> ApiKey:
    """With a program that still uses the old secret, for another two minutes."""
    key, _ = services.create_key(team, "billing", alice)
    old = key.secrets.get()
    services.rotate_key(key, alice, timedelta(minutes=2))
    new = key.secrets.get(ends_at=None)
    at = new.created_at + timedelta(seconds=1)
    KeyUse.objects.create(
        secret=old, address="10.0.0.1", user_agent="indexer/1.0", first_used_at=at, last_used_at=at
    )
    return key


async def test_the_list_narrows_as_one_types_and_an_overlap_ticks(site, browser, alice, team):
    await sync_to_async(rotating)(team, alice)
    await sync_to_async(services.create_key)(team, "web", alice)
    page, complaints = await signed_in(browser, site.origin, await sync_to_async(session_of)(alice))
    await page.goto(f"{site.origin}/keys/")
    for theme in ("light", "dark"):
        await page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        found = await Axe().run(page)
        assert [each["id"] for each in found.response["violations"]] == []

    await page.get_by_label("Search").press_sequentially("bill")
    await page.get_by_role("heading", name="1 key", exact=True).wait_for()
    await expect(page).to_have_url(f"{site.origin}/keys/?q=bill")
    assert await page.get_by_text("1 program still uses the old secret").is_visible()
    before = await page.locator(".countdown").inner_text()
    await page.wait_for_function(
        "before => document.querySelector('.countdown').textContent !== before", arg=before, timeout=10_000
    )
    assert complaints == []
