"""After a busy day no secret, prompt or answer is in the database, the journal, the logs or a live frame.

Everything is looked for as it is, and as base64 and hexadecimal digits, because that is how things hide.
VAR_DIR/secrets holds the server's own keys, and is the one place where they may be.
"""

import asyncio
import base64
import contextlib
import io
import json
import logging
import re
import secrets
import sqlite3
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pyotp
import pytest
from django.core.signing import b64_decode, dumps
from yarl import URL

from accounts.caller import Caller
from accounts.keys import mint, take_apart
from dashboard.access import OneLine
from gateway.endpoints import RelayApplication
from gateway.relay.attempt import Limits
from gateway.simulator import Fault, RunningSimulator, Step
from tests.gateway.relay.carried import ALICE, House, house, house_of
from tests.gateway.relay.carried import CREDENTIAL as UPSTREAM_CREDENTIAL
from tests.gateway.test_endpoints import Client, head
from tests.served import ADMIN_EMAIL, ADMIN_PASSWORD, KEY, Served, eventually, provider_of, serve
from tests.soon import soon
from tests.system.conftest import MODEL_NAMES, simulator_in_a_thread
from tests.system.live import CSRF, signed_in, submit, watch

CREDENTIAL = f"sk-stored-{secrets.token_hex(20)}"
PROMPT, ANSWER = f"prompt-canary-{secrets.token_hex(12)}", f"answer-canary-{secrets.token_hex(12)}"
COMPLAINT = f"complaint-canary-{secrets.token_hex(12)}"
"""What a provider says in an error; it may well repeat the prompt."""
PAGES = (
    *("/metrics", "/admin/", "/admin/gateway/provider/", "/admin/gateway/provider/1/change/"),
    *("/admin/accounts/user/", "/keys/", "/calls/"),
)
FORGED = "2026-01-01 00:00:00,000 CRITICAL forged"
"""How a line of the log would begin that nobody but the server may write."""
TOTP_SECRET = re.compile(r'id="authenticator_secret"[^>]* value="([A-Z2-7]+)"')
WEBHOOK_URL = "http://127.0.0.1:9/nobody"
TOO_LONG = "90"
"""A Retry-After in seconds after which no other attempt is made, so that the client hears of the failure."""


def disguises(secret: bytes) -> set[bytes]:
    """A text as it is, as it looks inside base64 at each of its three offsets, and as hexadecimal digits."""
    found = {secret, secret.hex().encode(), secret.hex().upper().encode()}
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + secret)
        inner = encoded[-(-offset * 8 // 6) :].rstrip(b"=")[1:-2]  # its edges depend on what stands beside it
        found |= {inner, inner.translate(bytes.maketrans(b"+/", b"-_"))}
    return found


def leaks(haystacks: Mapping[str, bytes], needles: Mapping[str, str]) -> list[str]:
    """Which secret is where; empty where none is anywhere."""
    return [
        f"{what} in {where}"
        for what, secret in needles.items()
        for where, text in haystacks.items()
        if any(each in text for each in disguises(secret.encode()))
    ]


def files_of(var_dir: Path) -> dict[str, bytes]:
    """Every file under VAR_DIR but its secrets; a journal's unused room is left out."""
    return {
        str(each.relative_to(var_dir)): each.read_bytes().rstrip(b"\0")
        for each in sorted(var_dir.rglob("*"))
        if each.is_file() and "secrets" not in each.relative_to(var_dir).parts
    }


def sessions_of(database: Path) -> bytes:
    """Django signs sessions and may compress them, so they are unpacked before they are looked through."""
    with contextlib.closing(sqlite3.connect(database)) as books:
        rows = books.execute("SELECT session_data FROM django_session").fetchall()
    return b"\n".join(unpacked(data) for (data,) in rows)


def unpacked(session: str) -> bytes:
    payload = session.rpartition(":")[0].rpartition(":")[0]
    packed = b64_decode(payload.removeprefix(".").encode())
    return zlib.decompress(packed) if payload.startswith(".") else packed


@dataclass
class Day:
    """What happened, and what was to stay secret."""

    served: Served
    upstream: RunningSimulator
    needles: dict[str, str] = field(default_factory=dict)
    frames: list[str] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)
    """The operators' pages and the metrics, as they are afterwards."""
    cookies: dict[str, str] = field(default_factory=dict)
    """Of the browser. The database knows a session by its id, so they are looked for everywhere else."""
    totp: dict[str, str] = field(default_factory=dict)
    """What an authenticator app shares with the server: kept in its table as it is, and nowhere else."""

    def remember_key(self, what: str, key: str) -> None:
        parts = take_apart(key)
        assert parts is not None
        self.needles |= {what: key, f"the secret of {what}": parts.secret}

    async def live(self) -> None:
        """Make keys, store a credential, call in every way, and watch it live."""
        self.remember_key("the first key", self.served.api_key)
        self.needles |= {"the password": ADMIN_PASSWORD, "the stored credential": CREDENTIAL}
        self.needles |= {"a prompt": PROMPT, "an answer": ANSWER, "a provider's words": COMPLAINT}
        async with signed_in(self.served) as browser:
            key = await self._make_keys(browser)
            await self._store_the_credential(browser)
            await self._make_a_webhook(browser)
            await self._turn_on_totp(browser)
            watching = asyncio.create_task(watch(browser, until_s=int(time.time()) + 6))
            await self._call(browser, key)
            _, self.frames = await watching
            self.cookies = {f"the cookie {each.key}": each.value for each in browser.cookie_jar}
            self.pages = [await self._read(browser, path) for path in PAGES]

    async def _make_keys(self, browser: aiohttp.ClientSession) -> str:
        page = await submit(browser, "/keys/new/", team="default", name="billing", expires="30")
        made = KEY.search(page)
        assert made is not None, page
        self.remember_key("a key made in the browser", made.group())
        printed = await asyncio.to_thread(
            self.served.manage, "create_key", "--team", "Default", "--name", "script"
        )
        self.remember_key("a key made by the command", printed.strip())
        return made.group()

    async def _store_the_credential(self, browser: aiohttp.ClientSession) -> None:
        [(number, slug, url)] = self.served.rows("SELECT id, slug, base_url FROM gateway_provider")
        await submit(
            browser,
            f"/admin/gateway/provider/{number}/change/",
            name="Stored",
            slug=slug,
            base_url=url,
            enabled="on",
            secret=CREDENTIAL,
            env_var="",
        )
        [(kept,)] = self.served.rows("SELECT encrypted FROM gateway_credential")
        assert kept, "the credential is stored"

    async def _make_a_webhook(self, browser: aiohttp.ClientSession) -> None:
        async with browser.get("/keys/new/") as page:
            token = CSRF.search(await page.text())
        assert token is not None
        wanted, headers = {"team_id": None, "url": WEBHOOK_URL}, {"X-CSRFToken": token[1]}
        async with browser.post("/api/webhooks", json=wanted, headers=headers) as answer:
            assert answer.status == 201, await answer.text()
            secret = (await answer.json())["secret"]
        self.needles |= {"a webhook's secret": secret, "its key": secret.removeprefix("whsec_")}

    async def _turn_on_totp(self, browser: aiohttp.ClientSession) -> None:
        await submit(browser, "/accounts/reauthenticate/", password=ADMIN_PASSWORD)
        path = "/accounts/2fa/totp/activate/"
        async with browser.get(path) as page:  # each time that it is opened, it shows another secret
            html = await page.text()
        shown, token = TOTP_SECRET.search(html), CSRF.search(html)
        assert shown is not None
        assert token is not None
        self.totp = {"the secret of an authenticator": shown[1]}
        typed = {"csrfmiddlewaretoken": token[1], "code": pyotp.TOTP(shown[1]).now()}
        async with browser.post(path, data=typed) as answer:
            await answer.read()
        kept = self.served.rows("SELECT data FROM mfa_authenticator WHERE type = 'totp'")
        assert len(kept) == 1, "it is turned on"
        assert shown[1] not in str(kept), "its secret is encrypted"

    async def _call(self, browser: aiohttp.ClientSession, key: str) -> None:
        """Until the stored credential is in use; then in every way in which a call can end."""
        while f"Bearer {CREDENTIAL}" not in self._presented():
            await self._post(browser, key)
        for stream in (False, True):
            for fault in (Fault.UNAUTHORIZED, Fault.BAD_REQUEST, Fault.SERVER_ERROR, Fault.ERROR_EVENT):
                complaint = Step(fault=fault, text=f"{COMPLAINT} {CREDENTIAL}", retry_after=TOO_LONG)
                self.upstream.script([complaint])
                await self._post(browser, key, stream=stream)
            failed = Step(fault=Fault.UNAVAILABLE, text=f"{COMPLAINT} {CREDENTIAL}")
            self.upstream.script([failed, Step(text=ANSWER)])
            await self._post(browser, key, stream=stream)
            await self._call_and_leave(browser, key, stream=stream)
        await self._misuse(browser, key)

    async def _call_and_leave(self, browser: aiohttp.ClientSession, key: str, *, stream: bool) -> None:
        """The client goes while the provider, which has the prompt, is silent."""
        self.upstream.script([Step(fault=Fault.SILENCE)])
        before = len(self.upstream.journal.received())
        call = asyncio.create_task(self._post(browser, key, stream=stream))
        await soon(lambda: len(self.upstream.journal.received()) > before, "the call at the provider")
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled(), "the provider was silent"

    async def _misuse(self, browser: aiohttp.ClientSession, key: str) -> None:
        """Keys where they do not belong, and prompts that cannot be read."""
        unknown = mint().text
        self.remember_key("a key that is not ours", unknown)
        await self._post(browser, unknown)
        await self._post(browser, key[:-1] + "~")
        await self._post(browser, key, body=f'{{"model": "gpt-4o", "messages": ["{PROMPT}"'.encode())
        for path in (f"/v1/models/{key}", f"/v1/{key}", f"/v1/models?api_key={key}", f"/keys/?q={key}"):
            async with browser.get(path, headers={"Authorization": f"Bearer {key}"}) as answer:
                await answer.read()

    async def _post(
        self,
        browser: aiohttp.ClientSession,
        key: str,
        *,
        stream: bool = False,
        body: bytes | None = None,
    ) -> None:
        messages = [{"role": "system", "content": PROMPT}, {"role": "user", "content": f"{PROMPT}?"}]
        asked = {"model": "gpt-4o", "messages": messages, "stream": stream, "user": PROMPT}
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        async with asyncio.timeout(20):
            how = {"json": asked} if body is None else {"data": body}
            async with browser.post("/v1/chat/completions", **how, headers=headers) as answer:
                await answer.read()

    async def _read(self, browser: aiohttp.ClientSession, path: str) -> str:
        async with browser.get(path) as answer:
            assert answer.status == 200, path
            return await answer.text()

    def _presented(self) -> set[str]:
        return {each.headers.get("authorization", "") for each in self.upstream.journal.received()}

    def remember_server_secrets(self) -> None:
        for each in (self.served.var_dir / "secrets").iterdir():
            self.needles[each.name] = each.read_text().strip()

    def haystacks(self) -> dict[str, bytes]:
        return {
            **files_of(self.served.var_dir),
            "live frames": "\n".join(self.frames).encode(),
            "pages and metrics": "\n".join(self.pages).encode(),
            "sessions": sessions_of(self.served.var_dir / "penstock.sqlite3"),
        }


@pytest.fixture(scope="module", params=["DEBUG", "usual"])
def day(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """One day for all that is asked of it: calls, a crash that leaves its journal, and another start."""
    folder = tmp_path_factory.mktemp("secrets")
    with simulator_in_a_thread(folder / "upstream.jsonl") as upstream:
        provider = provider_of(upstream.base_url, *MODEL_NAMES)
        level = {"LOG_LEVEL": "DEBUG"} if request.param == "DEBUG" else {}
        with serve(folder / "var", **level, **provider) as served:
            it = Day(served, upstream)
            asyncio.run(it.live())
            it.remember_server_secrets()
            eventually(lambda: served.rows("SELECT count(*) FROM gateway_entry")[0][0] > 10)
            yield it


def test_no_secret_prompt_or_answer_is_anywhere(day, say):
    """While it runs, after a crash, and after the next start. The first run shows one key on its terminal."""
    shown_once = {"out.txt"}
    running = {name: text for name, text in day.haystacks().items() if name not in shown_once}
    assert leaks(running, day.needles) == []

    day.served.kill()
    crashed = {name: text for name, text in day.haystacks().items() if name not in shown_once}
    assert any(name.endswith(".seg") for name in crashed), "a journal was left behind"
    assert leaks(crashed, day.needles) == []

    day.served.start()
    after = day.haystacks()
    assert leaks(after, day.needles) == []
    looked = len(running) + len(crashed) + len(after)
    [(calls,)] = day.served.rows("SELECT count(*) FROM gateway_entry")
    say(
        f"S2/S6  0 of {len(day.needles)} secrets, prompts and answers are in {looked} files and streams; "
        f"{calls} calls"
    )


def test_what_was_looked_through_is_what_was_written(day):
    """An empty haystack hides nothing: each has what it should have."""
    haystacks = day.haystacks()
    journals = [text for name, text in haystacks.items() if name.endswith(".seg")]

    assert b"gpt-4o" in haystacks["penstock.sqlite3"] + haystacks.get("penstock.sqlite3-wal", b"")
    assert journals
    assert (b" DEBUG " in haystacks["err.txt"]) is ("LOG_LEVEL" in day.served.environ)
    assert b" INFO " in haystacks["err.txt"]
    assert b"penstock_" in haystacks["pages and metrics"]
    assert b"Stored" in haystacks["pages and metrics"]
    assert b'"frames"' in haystacks["live frames"]
    assert b"_auth_user_id" in haystacks["sessions"]


def test_no_cookie_or_shared_secret_is_anywhere_but_in_its_table(day):
    elsewhere = {name: text for name, text in day.haystacks().items() if "sqlite3" not in name}

    assert "the cookie sessionid" in " ".join(day.cookies)
    assert day.totp
    assert "err.txt" in elsewhere
    assert leaks(elsewhere, day.cookies | day.totp) == []


def test_a_page_that_fails_tells_no_secret(day, say):
    """Without tables that it needs, and with secrets in its form, its address and its headers."""
    told = asyncio.run(fail(day))

    needles = {**day.needles, **day.cookies, **day.totp}
    log = (day.served.var_dir / "err.txt").read_bytes()
    assert [status for status, _ in told] == [500] * len(told)
    assert log.count(b"Internal Server Error") >= len(told)
    assert b"no such table" in log
    haystacks = {f"page {number}": body for number, (_, body) in enumerate(told)} | {"log": log}
    assert leaks(haystacks, needles) == []
    say(f"S6  0 of {len(needles)} secrets, prompts and answers are in {len(told)} pages of 500 and the log")


async def fail(day: Day) -> list[tuple[int, bytes]]:
    """Status and body of pages that are asked for while a table is away."""
    key, told = day.served.api_key, []
    bearer = {"Authorization": f"Bearer {key}", "Origin": day.served.origin}
    cookies = {name.removeprefix("the cookie "): value for name, value in day.cookies.items()}
    [(number, slug, url)] = day.served.rows("SELECT id, slug, base_url FROM gateway_provider")
    change = f"/admin/gateway/provider/{number}/change/"
    provider = {"name": "Stored", "slug": slug, "base_url": url, "enabled": "on", "secret": CREDENTIAL}
    login = {"login": ADMIN_EMAIL, "password": ADMIN_PASSWORD}
    async with (
        aiohttp.ClientSession(day.served.origin, headers=bearer, cookies=cookies) as known,
        aiohttp.ClientSession(day.served.origin, headers=bearer) as stranger,
    ):
        changing, entering = await form_of(known, change), await form_of(stranger, "/accounts/login/")
        with without(day.served, "gateway_credential"):
            told.append(await answer_to(known, change, {**changing, **provider}))
        with without(day.served, "accounts_user"):
            told.append(await answer_to(stranger, "/accounts/login/", {**entering, **login}))
            told.append(await answer_to(known, f"/keys/?q={key}"))
    return told


async def form_of(browser: aiohttp.ClientSession, path: str) -> dict[str, str]:
    async with browser.get(path) as page:
        token = CSRF.search(await page.text())
    assert token is not None, path
    return {"csrfmiddlewaretoken": token[1]}


async def answer_to(
    browser: aiohttp.ClientSession, path: str, fields: dict[str, str] | None = None
) -> tuple[int, bytes]:
    method = "GET" if fields is None else "POST"
    async with browser.request(method, path, data=fields, allow_redirects=False) as answer:
        return answer.status, await answer.read()


@contextlib.contextmanager
def without(served: Served, table: str) -> Iterator[None]:
    """The table goes by another name meanwhile; what refers to it is left as it is."""
    rename(served, table, f"{table}_away")
    try:
        yield
    finally:
        rename(served, f"{table}_away", table)


def rename(served: Served, table: str, name: str) -> None:
    with contextlib.closing(sqlite3.connect(served.var_dir / "penstock.sqlite3", timeout=10)) as books:
        books.execute("PRAGMA legacy_alter_table = ON")
        books.execute(f"ALTER TABLE {table} RENAME TO {name}")
        books.commit()


class Failing:
    """A part of the relay that raises, whatever it is asked for."""

    def used(self, *what: object) -> None:
        raise LookupError("a part of the relay is broken")

    remembered = get = __getitem__ = used


class Trusting(Failing):
    """Takes every key for a caller's."""

    def used(self, *what: object) -> None:
        """Nobody asks."""

    def remembered(self, presented: str) -> Caller:
        return ALICE


@contextlib.contextmanager
def logged(level: int) -> Iterator[io.StringIO]:
    """Everything that is logged from this level on, as the server writes it."""
    text, root = io.StringIO(), logging.getLogger()
    handler, before = logging.StreamHandler(text), root.level
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root.addHandler(handler)
    root.setLevel(level)
    try:
        yield text
    finally:
        root.setLevel(before)
        root.removeHandler(handler)


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO], ids=logging.getLevelName)
@pytest.mark.parametrize("broken", ["keys", "routes", "pool"])
async def test_a_call_that_fails_inside_the_relay_tells_no_secret(broken, level, tmp_path):
    """By keys that raise, by a catalog that does, and by a target whose pool is none."""
    key = mint()
    needles = {"the key": key.text, "its secret": key.secret, "a prompt": PROMPT}
    needles["the credential"] = UPSTREAM_CREDENTIAL
    keys = Failing() if broken == "keys" else Trusting()
    with logged(level) as log:
        async with part_broken(broken, tmp_path) as home:
            limits = {"max_body_bytes": 10_000, "body_timeout_s": 30.0}
            relay = RelayApplication(home.relay, keys, home.routes, home.lines, Limits(), **limits)
            client = Client(json.dumps({"model": "gpt-4o", "messages": [{"content": PROMPT}]}).encode())
            await relay(head(key=key.text), client.receive, client.send)

    assert client.status == 500, client.body
    assert "Traceback" in log.getvalue()
    headers = b"\n".join(b": ".join(each) for each in client.headers.items())
    haystacks = {"body": client.body, "headers": headers, "log": log.getvalue().encode()}
    assert leaks(haystacks, needles) == []


def part_broken(broken: str, tmp_path: Path) -> contextlib.AbstractAsyncContextManager[House]:
    if broken == "routes":
        return house_of(Failing(), tmp_path)
    return house("http://127.0.0.1:9", tmp_path, target={"pool": None} if broken == "pool" else None)


@pytest.mark.parametrize(
    "breaks", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1b[2K", "\x85", "\u2028"], ids=ascii
)
def test_no_line_of_the_log_is_forged(day, breaks):
    """By paths, queries, headers, model names, user agents and accounts; in clear and percent-encoded."""
    asyncio.run(forge(day, f"x{breaks}{FORGED}"))

    log = (day.served.var_dir / "err.txt").read_bytes().decode()
    assert FORGED in log, "what was sent is in the log, within a line of ours"
    assert forged(log) == []
    assert [each for each in log if not each.isprintable() and each != "\n"] == []


def forged(log: str) -> list[str]:
    return [each for each in log.splitlines() if each.startswith(FORGED)]


@pytest.mark.parametrize("breaks", ["\n", "\r", "\x0b", "\x85", "\u2028"], ids=ascii)
def test_our_formatter_alone_keeps_a_message_in_its_line(breaks):
    """Django escapes paths too, so the test above would pass without it; what we log ourselves would not."""
    record = logging.LogRecord("gateway", logging.INFO, "", 0, "%s", (f"x{breaks}{FORGED}",), None)

    assert forged(OneLine("%(message)s").format(record)) == []
    assert forged(logging.Formatter("%(message)s").format(record)) == [FORGED]


async def forge(day: Day, text: str) -> None:
    """Everywhere where a client's words may come to a log."""
    quoted, key = quote(text, safe=""), {"Authorization": f"Bearer {day.served.api_key}"}
    body = {"model": text, "messages": [{"role": "user", "content": text}], "user": text}
    async with aiohttp.ClientSession(day.served.origin) as http:
        for path in (f"/{quoted}/", f"/v1/{quoted}", f"/keys/?q={quoted}", f"/api/{quoted}", "/ws/" + quoted):
            async with http.get(URL(path, encoded=True), headers=key) as answer:
                await answer.read()
        async with http.post("/v1/chat/completions", json=body, headers=key) as answer:
            assert answer.status in (400, 404), await answer.text()
        async with http.post("/accounts/login/", data={"login": text, "password": text}) as answer:
            assert answer.status == 403, "without the form's token"
    wire = await asyncio.open_connection("127.0.0.1", day.served.port)
    wire[1].write(f"GET /none/ HTTP/1.1\r\nHost: localhost\r\nUser-Agent: {text}\r\n\r\n".encode())
    wire[1].write_eof()
    await wire[0].read()
    wire[1].close()


def test_the_calls_were_real(day):
    """The provider did get prompts and credentials, and clients their answers."""
    journal = day.upstream.journal.path.read_text()

    assert CREDENTIAL in journal
    assert any(PROMPT in (each.body or b"").decode() for each in day.upstream.journal.received())
    assert len(day.needles) >= 16


def test_a_secret_that_is_planted_is_found(day):
    """In each haystack, each secret, as it is and in disguise."""
    for where, text in day.haystacks().items():
        for what, secret in day.needles.items():
            for planted in planted_as(secret.encode()):
                middle = len(text) // 2
                spoilt = text[:middle] + b"{" + planted + b"}" + text[middle:]
                assert leaks({where: spoilt}, {what: secret}) == [f"{what} in {where}"]


def planted_as(secret: bytes) -> list[bytes]:
    """In clear, and encoded together with what may stand beside it."""
    encoded = [base64.b64encode(before + secret + b"after") for before in (b"", b"a", b"ab")]
    return [secret, *encoded, secret.hex().encode()]


def test_a_secret_planted_in_the_database_or_a_session_is_found(day, tmp_path):
    copy = tmp_path / "penstock.sqlite3"
    session = dumps({"made_key": day.served.api_key, "padding": "x" * 500}, compress=True)
    with contextlib.closing(sqlite3.connect(copy)) as books:
        books.execute("CREATE TABLE django_session (session_data TEXT)")
        books.execute("CREATE TABLE note (text TEXT)")
        books.execute("INSERT INTO note VALUES (?)", [CREDENTIAL])
        books.execute("INSERT INTO django_session VALUES (?)", [session])
        books.commit()

    haystacks = {"file": copy.read_bytes(), "sessions": sessions_of(copy)}

    assert leaks(haystacks, {"credential": CREDENTIAL}) == ["credential in file"]
    assert leaks(haystacks, {"key": day.served.api_key}) == ["key in sessions"]


def test_a_simulator_of_our_own_keeps_no_prompt_either(served):
    """The one that `up` starts keeps what it received in memory alone."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": PROMPT}]}

    async def ask() -> None:
        headers = {"Authorization": f"Bearer {served.api_key}"}
        url = f"{served.base_url}/chat/completions"
        async with aiohttp.ClientSession() as http, http.post(url, json=body, headers=headers) as answer:
            assert PROMPT in await answer.text()

    asyncio.run(ask())

    haystacks = files_of(served.var_dir)
    del haystacks["out.txt"]  # the first run shows one key on its terminal
    assert leaks(haystacks, {"a prompt": PROMPT, "the key": served.api_key}) == []
