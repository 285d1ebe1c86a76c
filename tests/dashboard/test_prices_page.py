"""The page of prices in a real browser: a file is looked at, put right, and added."""

import pytest
from playwright.async_api import expect

from gateway import services
from gateway.models import Price
from tests.dashboard.conftest import session_of, signed_in

# Static files are handed on as Django's own file iterators, of which it warns under ASGI.
pytestmark = pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")

FILE = (
    "route,provider,upstream_model,valid_from,currency,above_tokens,input,cached_input,output,reasoning\n"
    "gpt-4o,acme,gpt-4o-2024,2026-01-01,JPY,,2.5,1.25,ten,\n"
    "gpt-4o,acme,gpt-4o-2024,2026-01-01,JPY,200000,5,2.5,15,20\n"
)


@pytest.fixture
def target(transactional_db):
    provider = services.add_provider("acme", "Acme", "https://acme.example/v1")
    return services.add_target(services.add_route("gpt-4o"), provider, "gpt-4o-2024")


@pytest.fixture
def session(administrator, target):
    return session_of(administrator)


async def test_a_file_is_looked_at_put_right_and_added(site, browser, session):
    page, complaints = await signed_in(browser, site.origin, session)
    await page.goto(f"{site.origin}/prices/")
    await expect(page.get_by_text("No call goes there until it has a price.")).to_be_visible()

    file = {"name": "prices.csv", "mimeType": "text/csv", "buffer": FILE.encode()}
    await page.get_by_label("CSV file").set_input_files(file)
    await page.get_by_role("button", name="Look at it").click()
    await expect(page.get_by_text("Line 2: 'ten' is no amount")).to_be_visible()
    complaints.clear()  # the browser's word for the 422

    await page.get_by_role("textbox", name="The file").fill(FILE.replace("ten", "10"))
    await page.get_by_role("button", name="Look again").click()
    await page.get_by_role("button", name="Add 1").press("Enter")

    await expect(page.get_by_text("1 added, 0 were there already.")).to_be_visible()
    now = page.locator("section", has=page.get_by_role("heading", name="Now", exact=True))
    await expect(now).to_contain_text("above 200,000 tokens: in 5, cached 2.5, out 15, reasoning 20")
    await expect(now).to_contain_text("No exchange rate")
    assert complaints == []
    assert await Price.objects.acount() == 1
