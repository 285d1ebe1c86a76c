"""Signing in and out in a real browser: by password, by code, by passkey, and elsewhere."""

import pyotp
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP
from asgiref.sync import sync_to_async
from axe_playwright_python.async_playwright import Axe

from accounts.models import User
from dashboard import live
from tests.dashboard.conftest import session_of, signed_in

PASSWORD = "a long enough password 1"
DEVICE = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


async def person() -> User:
    return await sync_to_async(User.objects.create_user)("alice@example.com", PASSWORD)


async def enter_password(page, origin: str) -> None:
    await page.goto(f"{origin}/accounts/login/")
    await page.fill("input[name=login]", "alice@example.com")
    await page.fill("input[name=password]", PASSWORD)
    await page.keyboard.press("Enter")


async def violations(page) -> list[tuple[str, list[str]]]:
    found = await Axe().run(page)
    return [(each["id"], [node["html"] for node in each["nodes"]]) for each in found.response["violations"]]


async def test_one_signs_in_by_password_and_with_an_authenticator_app_by_a_code_too(site, browser):
    alice = await person()
    page = await browser.new_page()
    await enter_password(page, site.origin)
    await page.wait_for_url(f"{site.origin}/")

    secret = pyotp.random_base32()
    await sync_to_async(TOTP.activate)(alice, secret)
    page = await browser.new_page()
    await enter_password(page, site.origin)
    await page.wait_for_url("**/2fa/authenticate/")
    assert await violations(page) == []
    await page.fill("input[name=code]", pyotp.TOTP(secret).now())
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{site.origin}/")


async def test_a_passkey_is_added_named_used_and_removed(site, browser):
    await person()
    page, complaints = await signed_in(browser, site.origin, "")
    device = await page.context.new_cdp_session(page)
    await device.send("WebAuthn.enable")
    await device.send("WebAuthn.addVirtualAuthenticator", {"options": DEVICE})
    await enter_password(page, site.origin)
    await page.wait_for_url(f"{site.origin}/")

    await page.goto(f"{site.origin}/account/")
    await page.click("text=Add a passkey")
    await page.fill("input[name=password]", PASSWORD)  # of what is sensitive one is asked again
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/webauthn/add/")
    assert await violations(page) == []
    await page.fill("#passkey-name", "work laptop")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/recovery-codes/")

    await page.context.clear_cookies()
    await page.goto(f"{site.origin}/accounts/login/?next=/account/")
    assert await violations(page) == []
    await page.click("text=Sign in with a passkey")
    await page.wait_for_url(f"{site.origin}/account/")
    for theme in ("light", "dark"):
        await page.emulate_media(color_scheme=theme, reduced_motion="reduce")  # no colour on its way
        assert await violations(page) == []

    await page.click("text=Rename")
    await page.click("text=Use a passkey")
    await page.wait_for_url("**/webauthn/reauthenticate/**")
    assert await violations(page) == []
    await page.click("button:has-text('Use a passkey')")
    await page.fill("input[name=name]", "desk")
    await page.click("text=Save the name")
    await page.wait_for_url("**/account/#passkeys")
    await page.get_by_role("link", name="Remove desk").click()
    await page.click("text=Remove the passkey")
    await page.wait_for_url("**/account/#passkeys")
    assert await page.get_by_text("No passkeys").is_visible()
    assert not await sync_to_async(Authenticator.objects.exists)()

    await page.context.clear_cookies()
    await page.goto(f"{site.origin}/accounts/login/")
    await page.click("text=Sign in with a passkey")
    await page.wait_for_selector(".messages .error")
    assert complaints == []


async def test_a_browser_that_is_signed_out_from_another_leaves_the_live_page(site, browser, alice):
    await sync_to_async(alice.set_password)(PASSWORD)
    await sync_to_async(alice.save)()
    there = await browser.new_page(user_agent="Mozilla/5.0 (iPhone) Version/18.0 Safari/604.1")
    await enter_password(there, site.origin)
    await there.wait_for_url(f"{site.origin}/")
    await there.wait_for_function("() => document.querySelector('main')")
    here, _ = await signed_in(browser, site.origin, await sync_to_async(session_of)(alice))

    await here.goto(f"{site.origin}/account/")
    await here.click("text=Sign out Safari on iPhone")

    await here.wait_for_selector("text=That browser is signed out.")
    await there.wait_for_url("**/accounts/login/**", timeout=5000)
    assert live.current() is not None
