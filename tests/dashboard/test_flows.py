"""What people do from beginning to end, in a real browser, beside programs that call a real gateway."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import openai
import pytest
from playwright.async_api import Browser, Page, expect

from gateway.simulator.script import Fault, Step
from gateway.simulator.server import RunningSimulator
from tests.served import ADMIN_EMAIL, ADMIN_PASSWORD, Served, provider_of, serve
from tests.system.conftest import simulator_in_a_thread

MODEL_NAME, SICK = "gpt-4o-mini", "gpt-4o"
SLOWEST_MS = 20_000
"""On a machine that has much else to do."""


@dataclass
class House:
    gateway: Served
    upstream: RunningSimulator
    cookies: list = field(default_factory=list)
    """Of the administrator, who signs in once: tries are counted."""


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("flows")
    with (
        simulator_in_a_thread(folder / "upstream.jsonl") as upstream,
        serve(folder / "var", **provider_of(upstream.base_url, MODEL_NAME, SICK)) as gateway,
    ):
        yield House(gateway, upstream)


@pytest.fixture
async def page(house: House, browser: Browser) -> Page:
    """Of the administrator, who owns the first team."""
    context = await browser.new_context(base_url=house.gateway.origin, accept_downloads=True)
    await context.add_cookies(house.cookies)
    page = await context.new_page()
    page.set_default_timeout(SLOWEST_MS)
    if not house.cookies:
        await page.goto("/accounts/login/")
        await page.locator("input[name=login]").press_sequentially(ADMIN_EMAIL)
        await page.locator("input[name=password]").press_sequentially(ADMIN_PASSWORD)
        await page.keyboard.press("Enter")
        await page.wait_for_url(house.gateway.origin + "/")
        house.cookies.extend(await context.cookies())
    return page


async def made(page: Page, name: str) -> tuple[str, str]:
    """A new key: its secret, and the address of its page."""
    await page.goto("/keys/new/")
    await page.get_by_label("Name").press_sequentially(name)
    await page.keyboard.press("Enter")
    secret = await page.locator("#key").inner_text()
    address = await page.get_by_role("link", name="I have kept it").get_attribute("href")
    return secret, address


@dataclass
class Program:
    """It calls all the time, with the secret that it has."""

    base_url: str
    secret: str
    answers: list[int] = field(default_factory=list)
    """The status of each call."""
    _called: asyncio.Event = field(default_factory=asyncio.Event)

    async def call(self, model_name: str = MODEL_NAME) -> int:
        async with openai.AsyncOpenAI(
            base_url=self.base_url, api_key=self.secret, max_retries=0, timeout=SLOWEST_MS / 1000
        ) as client:
            try:
                await client.chat.completions.create(
                    model=model_name, messages=[{"role": "user", "content": "Hello"}], max_tokens=5
                )
                return 200
            except openai.APIStatusError as why:
                return why.status_code

    async def run(self) -> None:
        while True:
            self.answers.append(await self.call())
            self._called.set()

    async def answered(self, more: int = 3) -> None:
        """Returns when it has called so many times more."""
        wanted = len(self.answers) + more
        async with asyncio.timeout(SLOWEST_MS / 1000):
            while len(self.answers) < wanted:
                self._called.clear()
                await self._called.wait()

    async def gets(self, status: int, model_name: str = MODEL_NAME) -> None:
        """Call until it gets this."""
        async with asyncio.timeout(SLOWEST_MS / 1000):
            while await self.call(model_name) != status:
                pass


async def shows_at_last(page: Page, text: str) -> None:
    """Load the page anew until it says this: uses of secrets are written down now and then."""
    async with asyncio.timeout(SLOWEST_MS / 1000):
        while not await page.get_by_text(text).count():
            await page.reload()


@pytest.fixture
async def running() -> AsyncIterator[list[asyncio.Task]]:
    tasks: list[asyncio.Task] = []
    yield tasks
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_key_is_made_called_with_rotated_under_traffic_and_revoked(house, page, running):
    old, address = await made(page, "indexer")
    program = Program(house.gateway.base_url, old)
    running.append(asyncio.create_task(program.run()))
    await program.answered()

    await page.goto(address)
    await page.get_by_role("link", name="Rotate").press("Enter")
    await page.get_by_role("button", name="Make the new secret").press("Enter")
    new = await page.locator("#key").inner_text()
    await program.answered()
    await page.goto(address)
    await expect(page.locator("main")).to_contain_text("The old secret ends in")
    await shows_at_last(page, "1 program still uses the old secret")

    program.secret = new
    await program.answered()
    await page.goto(address)
    await page.get_by_role("link", name=re.compile("End now")).press("Enter")
    await page.get_by_role("button", name="End it now").press("Enter")
    await Program(house.gateway.base_url, old).gets(401)
    await program.answered()
    assert set(program.answers) == {200}

    await page.goto(address)
    await page.get_by_role("link", name="Revoke").press("Enter")
    await page.get_by_role("button", name="Revoke indexer").press("Enter")
    await expect(page.get_by_text("Revoked").first).to_be_visible()
    await program.gets(401)


async def test_a_quota_is_set_and_run_into(house, page):
    secret, address = await made(page, "trial")
    await page.goto(f"{address}quota/")
    await page.get_by_label("Of what").select_option("requests")
    await page.get_by_label("Amount").fill("2")
    await page.get_by_label("Hard").check()
    await page.get_by_role("button", name="Set it").press("Enter")
    await expect(page.locator(".quota")).to_contain_text("2 requests a month")

    program = Program(house.gateway.base_url, secret)
    await program.gets(429)

    await page.goto(address)
    await expect(page.locator(".quota")).to_contain_text("Used up")
    await page.goto("/calls/refused/")
    await shows_at_last(page, "trial")


async def test_a_breaker_is_watched_as_it_opens_and_closes(house, page):
    secret, _ = await made(page, "watcher")
    program = Program(house.gateway.base_url, secret)
    await page.goto("/")
    line = page.locator(".strip-line", has_text=SICK).filter(has_not_text=MODEL_NAME)
    await expect(line.locator("[data-part=state]")).to_have_text("Closed")

    house.upstream.script([Step(fault=Fault.SERVER_ERROR, model_name=SICK, count=None)])
    await program.gets(503, SICK)
    await expect(line.locator("[data-part=state]")).to_have_text("Open")
    piece = line.locator(".piece-open")
    await expect(piece).to_have_attribute("aria-label", re.compile("Open since .*fail"))

    house.upstream.forget_script()
    await page.goto("/routes/")
    await page.locator("main a", has_text=re.compile(f"/{SICK}$")).press("Enter")
    await page.get_by_label("Why").press_sequentially("The vendor has mended it.")
    await page.get_by_role("button", name="Close it now").press("Enter")
    await program.gets(200, SICK)
    await page.goto("/")
    await expect(line.locator("[data-part=state]")).to_have_text("Closed")
    await expect(line.locator(".piece-closed").last).to_have_attribute("aria-label", re.compile("by hand"))


async def test_usage_is_taken_away_as_a_file(house, page):
    secret, _ = await made(page, "exporter")
    await Program(house.gateway.base_url, secret).gets(200)
    await page.goto("/usage/?range=24h")
    async with page.expect_download() as waiting:
        await page.get_by_role("link", name="Export as CSV").press("Enter")

    path = await (await waiting.value).path()
    head, *rows = path.read_text("utf-8").splitlines()
    assert "cost" in head
    assert rows


async def test_language_and_theme_are_chosen_and_kept(page):
    await page.goto("/")
    await page.locator(".menu summary").press("Enter")
    await page.get_by_role("button", name="日本語").press("Enter")
    await expect(page.locator("html")).to_have_attribute("lang", "ja")
    await expect(page.locator("h1")).to_contain_text("ライブ")
    for _ in range(2):
        await page.locator("[data-theme-toggle]").press("Enter")
    await page.goto("/usage/")
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await expect(page.locator("html")).to_have_attribute("lang", "ja")

    await page.locator(".menu summary").press("Enter")
    await page.get_by_role("button", name="English").press("Enter")
    await expect(page.locator("h1")).to_have_text("Usage")
