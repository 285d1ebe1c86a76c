"""What stands where something is missing: on pages of an empty gateway, in parts that are fetched again."""

import asyncio

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from playwright.async_api import expect

from accounts import services
from accounts.models import User
from tests.dashboard.conftest import session_of
from tests.pages.atlas import sights
from tests.pages.house import build

BARE = """() => {
  const isList = (each) => each.matches("tbody, ul, ol");
  const isEmpty = (each) => isList(each) ? !each.childElementCount : !each.textContent.trim();
  const isSaid = (each) => each.closest(".panel")?.querySelector("[data-state]");
  const nameOf = (each) => `${each.localName} of ${each.parentElement.textContent.trim().slice(0, 40)}`;
  return [...document.querySelectorAll("main :is(.panel, [data-state], tbody, ul, ol)")]
    .filter((each) => each.checkVisibility() && isEmpty(each) && !isSaid(each))
    .map(nameOf);
}"""
"""Lists and tables of nothing that nobody says a word about."""
EMPTY = [sight for sight in sights() if "{" not in sight.address and sight.status == 200]

REGIONS = """() => {
  const found = new Map();
  for (const each of document.querySelectorAll("[hx-get]")) {
    const target = each.closest("[hx-target]")?.getAttribute("hx-target");
    if (!found.has(target ?? each.id)) found.set(target ?? each.id, each);
  }
  [...found.values()].forEach((each, place) => { each.dataset.place = place; });
  return found.size;
}"""
FETCH = """(place) => {
  const source = document.querySelector(`[data-place="${place}"]`);
  htmx.ajax("GET", source.getAttribute("hx-get"), { source }).catch(() => null);
}"""
BUSY = "[aria-busy=true]:not(#states *)"


@pytest.fixture
def people(site):
    """Those who are in an empty gateway: an administrator, an owner of a team, somebody of none."""
    owner = User.objects.create_user("owner@example.com")
    services.create_team("Tide", owner)
    newcomer = User.objects.create_user("newcomer@example.com")
    administrator = User.objects.create_superuser("ada@example.com")
    return {"owner": owner, "newcomer": newcomer, "administrator": administrator}


@pytest.mark.parametrize("who", ["owner", "newcomer", "administrator"])
async def test_an_empty_gateway_says_on_every_page_that_nothing_is_there(site, browser, people, who):
    context = await browser.new_context()
    session = await sync_to_async(session_of)(people[who])
    await context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": site.origin}])
    page = await context.new_page()
    wrong = []

    for address in dict.fromkeys(sight.address for sight in EMPTY if sight.who != "stranger"):
        answer = await page.goto(site.origin + address)
        wrong += [f"{address}: {each}" for each in await page.evaluate(BARE)]
        if answer.status == 403:
            await expect(page.locator("main [data-state=forbidden]")).to_be_visible()

    assert not wrong, "\n".join(wrong)


async def test_a_part_that_is_fetched_again_is_busy_and_then_says_what_went_wrong(site, browser):
    house = await sync_to_async(build)(calls=100, days=2)
    sessions = await sync_to_async(house.sessions)()
    context = await browser.new_context()
    session = sessions["administrator"]
    await context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": site.origin}])
    page = await context.new_page()
    seen = set()

    for sight in sights():
        if sight.who in ("owner", "administrator") and sight.status == 200 and sight.address != "/":
            address = site.origin + sight.of(house.names)
            await page.goto(address)
            for place in range(await page.evaluate(REGIONS)):
                seen.add(sight.name)
                await ends_badly(page, address, place, ended, "error")
                await ends_badly(page, address, place, refused, "forbidden")

    assert seen >= {"usage", "calls", "keys", "savings", "forecast", "statement"}
    assert seen >= {"routes-one", "targets-one", "getting-started"}


async def ended(request):
    await request.abort()


async def refused(request):
    await request.fulfill(status=403, body="no")


async def ends_badly(page, address, place, end, says):
    """Fetch a part: while no answer comes it is busy, and then it shows the state."""
    held = asyncio.Queue()
    await page.goto(address)
    await expect(page.locator(BUSY)).to_have_count(0)
    assert await page.evaluate(REGIONS) > place
    await page.route(lambda _: True, held.put)
    await page.evaluate(FETCH, place)
    request = await asyncio.wait_for(held.get(), 5)
    await expect(page.locator(BUSY)).not_to_have_count(0)
    await end(request)
    polls = asyncio.create_task(end_all(held, end))  # the part asks again by itself
    wanted = await page.locator(f"#state-{says}").evaluate(
        "({content}) => content.querySelector('h2, h3, p').textContent"
    )
    await expect(
        page.locator("main [role=alert], main [data-state]").filter(has_text=wanted.strip()).first
    ).to_be_visible()
    await expect(page.locator(BUSY)).to_have_count(0)
    polls.cancel()
    await page.unroute_all(behavior="ignoreErrors")


async def end_all(held, end):
    while True:
        await end(await held.get())


async def test_the_live_page_says_that_its_first_steps_could_not_be_fetched(site, browser, people):
    context = await browser.new_context()
    session = await sync_to_async(session_of)(people["administrator"])
    await context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": site.origin}])
    page = await context.new_page()
    held = asyncio.Queue()
    await page.route("**/getting-started/", held.put)

    await page.goto(site.origin)
    request = await asyncio.wait_for(held.get(), 5)
    await expect(page.locator(BUSY)).to_have_count(1)
    await request.abort()

    await expect(page.locator("main .refetch-failed, main [data-state=error]").first).to_be_visible()
