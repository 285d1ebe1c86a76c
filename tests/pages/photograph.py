"""`make screenshots`: every page in both themes, on a phone and on a desk, with real-looking data.

The gateway runs as it does for anybody, on a VAR_DIR of its own, and is called meanwhile.
"""

import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django
import openai
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.served import ROOT, Served, serve

if TYPE_CHECKING:
    from tests.pages.atlas import Sight

FOLDER = ROOT / "var" / "screenshots"
CHROMIUM = "/usr/bin/chromium"
WIDTHS = (390, 1440)
THEMES = ("light", "dark")
MOVE_IN = """
import json
from django.conf import settings
from django.utils import timezone
from gateway.ledger import rollups
from gateway.models import Provider
from tests.pages.house import build
house = build(Provider.objects.get(slug="simulator").base_url, days=DAYS)
rollups.work(timezone.now(), budget_s=None)
cookie = settings.SESSION_COOKIE_NAME
moved = {"names": house.names, "sessions": house.sessions(), "cookie": cookie, "api_key": house.api_key}
print("HOUSE", json.dumps(moved, default=str))
"""
ON_ITS_WAY = (
    "[aria-busy=true]:not(#states *), [data-state=loading]:not(#states *), #busy:not([hidden]) [data-loading]"
)
"""But for the style guide's samples."""
LOOK_AROUND = """async () => {
  for (const box of document.querySelectorAll("#busy:not([hidden]) [data-loading]")) {
    box.scrollIntoView();
    for (let frames = 300; frames && box.matches("[data-loading]"); frames--)
      await new Promise(requestAnimationFrame);
  }
  scrollTo(0, 0);
}"""
"""A chart of the live page is drawn when one comes near it."""


@contextlib.contextmanager
def moved_into(var_dir: Path, days: int = 30) -> Iterator[tuple[Served, dict[str, Any]]]:
    """A started gateway, with the house in its books, which go back so many days."""
    before = Served(var_dir)
    var_dir.mkdir(parents=True, exist_ok=True)
    before.configure()
    try:
        printed = before.manage("shell", "-c", MOVE_IN.replace("DAYS", str(days)))
    except subprocess.CalledProcessError as why:
        raise SystemExit(f"The house was not built: {why.stderr}") from why
    house = json.loads(printed.partition("HOUSE ")[2])
    with serve(var_dir) as running:
        running.api_key = house["api_key"]
        yield running, house


@contextlib.contextmanager
def called(running: Served) -> Iterator[None]:
    """Somebody calls all the time, a little, streamed and not, and now and then for what is not there."""
    enough = threading.Event()
    caller = threading.Thread(target=_call_until, args=(running, enough))
    caller.start()
    try:
        yield
    finally:
        enough.set()
        caller.join()


def _call_until(running: Served, enough: threading.Event) -> None:
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it tells of every call
    client = openai.OpenAI(base_url=running.base_url, api_key=running.api_key, max_retries=0)
    names = [each.id for each in client.models.list().data]
    number = 0
    while not enough.wait(0.4):
        number += 1
        name = "no-such-model" if number % 17 == 0 else names[number % len(names)]
        said = "How deep is the river? " * (number % 9 + 1)
        with contextlib.suppress(openai.APIStatusError):  # some are refused, as in life
            client.chat.completions.create(
                model=name, messages=[{"role": "user", "content": said}], max_tokens=60
            )
    client.close()


def photograph(
    browser: Browser, origin: str, house: Mapping[str, Any], wanted: "Sequence[Sight]", folder: Path
) -> Iterator[str]:
    """Sentences on what did not look as it should."""
    folder.mkdir(parents=True, exist_ok=True)
    for who in dict.fromkeys(each.who for each in wanted):
        context = browser.new_context(reduced_motion="reduce")
        if who != "stranger":
            context.add_cookies([{"name": house["cookie"], "value": house["sessions"][who], "url": origin}])
        page = context.new_page()
        for sight in wanted:
            if sight.who == who:
                yield from _pictures(page, origin, sight, house["names"], folder)
        context.close()


def _pictures(
    page: Page, origin: str, sight: "Sight", names: Mapping[str, Any], folder: Path
) -> Iterator[str]:
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 844 if width < 800 else 900})
        for theme in THEMES:
            page.emulate_media(color_scheme=theme)
            answer = page.goto(origin + sight.of(names))
            if answer is None or answer.status != sight.status:
                yield f"{sight.name} answered {answer and answer.status} instead of {sight.status}."
                return
            if page.locator("#live").count():
                page.locator("#live[data-drawn]").wait_for(state="attached")
                page.evaluate(LOOK_AROUND)
            expect(page.locator(ON_ITS_WAY)).to_have_count(0)
            page.screenshot(path=str(folder / f"{sight.name}-{width}-{theme}.png"), full_page=True)
        if page.evaluate("document.documentElement.scrollWidth") > width:
            yield f"{sight.name} is wider than {width} px."


def main(folder: Path, only: Sequence[str]) -> int:
    """0 where every page looked as it should. `only` are names of pages; none means all."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()  # the pages are listed beside the views
    from tests.pages.atlas import sights

    wanted = [each for each in sights() if not only or each.name in only]
    with (
        tempfile.TemporaryDirectory() as place,
        moved_into(Path(place) / "var") as (running, house),
        called(running),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        wrong = list(photograph(browser, running.origin, house, wanted, folder))
        browser.close()
    print(*wrong, f"{len(wanted)} pages are photographed in {folder}.", sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(FOLDER, sys.argv[1:]))
