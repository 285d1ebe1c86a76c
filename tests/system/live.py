"""The live page's own data, as a browser gets it: signed in by the form, then frames from the socket."""

import contextlib
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec

from dashboard.frames import COUNTS
from tests.served import ADMIN_EMAIL, ADMIN_PASSWORD, Served

CSRF = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')


@contextlib.asynccontextmanager
async def signed_in(served: Served) -> AsyncIterator[aiohttp.ClientSession]:
    """A browser's session, cookies and all, of the administrator."""
    async with aiohttp.ClientSession(served.origin, headers={"Origin": served.origin}) as browser:
        await submit(browser, "/accounts/login/", login=ADMIN_EMAIL, password=ADMIN_PASSWORD)
        yield browser


async def submit(browser: aiohttp.ClientSession, path: str, **fields: str) -> str:
    """Open a form's page, fill it in and send it; the page that answers."""
    async with browser.get(path) as page:
        html = await page.text()
    token = CSRF.search(html)
    assert token is not None, f"{path} shows no form: {html[:300]}"
    filled = {**_hidden(html), "csrfmiddlewaretoken": token[1], **fields}
    async with browser.post(path, data=filled, headers={"Referer": str(page.url)}) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.text()


def _hidden(html: str) -> dict[str, str]:
    found = re.findall(r'<input type="hidden" name="([^"]+)"(?: value="([^"]*)")?', html)
    return dict(found)


def frames_of(said: dict[str, Any]) -> list[dict[str, Any]]:
    """The seconds that a message tells of; one may be told of again."""
    return said["frames"] if said["kind"] == "snapshot" else [each for each in [said.get("frame")] if each]


async def watch(browser: aiohttp.ClientSession, until_s: int) -> tuple[dict[int, dict[str, int]], list[str]]:
    """Counts of every second up to one, by second, and all that came over the socket."""
    totals: dict[int, dict[str, int]] = {}
    texts: list[str] = []
    async with browser.ws_connect("/ws/live/", max_msg_size=0) as socket:
        last_s = 0
        while last_s < until_s:
            message = await socket.receive(timeout=30)
            assert message.type is aiohttp.WSMsgType.TEXT, message
            texts.append(message.data)
            said = msgspec.json.decode(message.data)
            last_s = said["id"]
            for frame in frames_of(said):
                totals[frame["id"]] = dict(zip(COUNTS, frame["total"], strict=False))
    return totals, texts
