"""Open live pages: signed in through the real form, each a socket that takes every frame."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

import aiohttp

from benchmarks.load import NotWhole

CSRF = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')


class Pages:
    """A signed-in browser's sockets, and how many frames each has taken."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.frames: list[int] = []
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # else the 101st page would wait for another's end
            cookie_jar=aiohttp.CookieJar(unsafe=True),
        )

    async def sign_in(self, email: str, password: str) -> None:
        """Raises NotWhole where the form does not let us in."""
        url = f"{self.origin}/accounts/login/"
        async with self._session.get(url) as page:
            found = CSRF.search(await page.text())
        form = {"login": email, "password": password, "csrfmiddlewaretoken": found.group(1) if found else ""}
        async with self._session.post(url, data=form, headers={"Referer": url}) as page:
            if page.status != 200 or page.url.path == "/accounts/login/":
                raise NotWhole(f"signing in ended with {page.status} at {page.url.path}")

    async def close(self) -> None:
        await self._session.close()

    @contextlib.asynccontextmanager
    async def watching(self, count: int) -> AsyncIterator[None]:
        """So many sockets, each past its first message when this begins. Raises NotWhole if one is lost."""
        self.frames = [0] * count
        sockets = [await self._open() for _ in range(count)]
        readers = [asyncio.ensure_future(self._read(*each)) for each in enumerate(sockets)]
        try:
            await self.each_takes(1)
            yield
            if lost := [each for each in readers if each.done()]:
                raise NotWhole(f"{len(lost)} live sockets were lost")
        finally:
            for each in readers:
                each.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
            await asyncio.gather(*(each.close() for each in sockets))

    async def each_takes(self, frames: int, within_s: float = 15.0) -> None:
        """Wait until every socket has taken so many more. Raises NotWhole."""
        wanted = [taken + frames for taken in self.frames]
        deadline = asyncio.get_running_loop().time() + within_s
        while any(taken < least for taken, least in zip(self.frames, wanted, strict=True)):
            if asyncio.get_running_loop().time() > deadline:
                raise NotWhole("a live socket took no frame for too long")
            await asyncio.sleep(0.05)

    async def _open(self) -> aiohttp.ClientWebSocketResponse:
        return await self._session.ws_connect(f"{self.origin}/ws/live/", origin=self.origin, max_msg_size=0)

    async def _read(self, number: int, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for _ in socket:
            self.frames[number] += 1
