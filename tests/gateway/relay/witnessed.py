"""One call as everybody saw it: its client, its provider, the books, the breaker, the sockets.

The relay is the real one behind its real front; only HTTP's bytes on the client's side are left out.
"""

import asyncio
import contextlib
import json
import os
import socket
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any
from urllib.parse import urlsplit

from accounts.caller import Caller
from gateway.endpoints import RelayApplication
from gateway.ledger.sweeper import ends, read
from gateway.relay.attempt import Limits
from gateway.relay.breaker import Breaker
from gateway.relay.catalog import Target
from gateway.relay.records import Settled
from tests.gateway.relay.carried import ALICE, CREDENTIAL, House

HEAD = [
    (b"host", b"localhost"),
    (b"authorization", b"Bearer known"),
    (b"content-type", b"application/json"),
]
DONE = b"data: [DONE]\n\n"
GONE_WITHIN_S = 1.0
"""How long a connection on which something broke may last."""


class Keyring:
    """Everybody is Alice."""

    def used(self, caller: Caller, address: str, user_agent: str) -> None: ...

    def remembered(self, presented: str) -> Caller:
        return ALICE

    async def look_up(self, presented: str) -> Caller:
        return ALICE


def front_of(home: House) -> RelayApplication:
    """The house's front door, as a server would have it."""
    limits = Limits()
    return RelayApplication(
        home.relay, Keyring(), home.routes, home.lines, limits, max_body_bytes=1 << 25, body_timeout_s=30.0
    )


@dataclass
class Heard:
    """What a client asked, and every message that came back."""

    asked: bytes
    sent: list[dict[str, Any]] = field(default_factory=list)
    _said: bool = False

    async def receive(self) -> dict[str, Any]:
        if not self._said:
            self._said = True
            return {"type": "http.request", "body": self.asked, "more_body": False}
        await asyncio.Event().wait()  # it stays to the end
        raise AssertionError

    async def send(self, message: Any) -> None:
        self.sent.append(dict(message))

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def call_id(self) -> str:
        return self.headers["x-request-id"]

    @property
    def body(self) -> bytes:
        return b"".join(each.get("body", b"") for each in self.sent[1:])

    @property
    def is_stream(self) -> bool:
        return self.headers["content-type"].startswith("text/event-stream")

    @property
    def events(self) -> list[bytes]:
        """The data of each event of a stream."""
        return [each.removeprefix(b"data: ") for each in self.body.split(b"\n\n")[:-1]]

    @property
    def text(self) -> str:
        """What the answer says, whole or streamed."""
        if not self.is_stream:
            return str(json.loads(self.body)["choices"][0]["message"]["content"])
        chunks = [json.loads(each) for each in self.events if each.startswith(b"{")]
        deltas = [choice["delta"] for chunk in chunks for choice in chunk.get("choices", [])]
        return "".join(each.get("content") or "" for each in deltas)

    @property
    def error(self) -> dict[str, Any] | None:
        """The error that the client was told, as an answer of its own or as its stream's last event."""
        if not self.is_stream:
            return None if self.status == 200 else error_in(self.body)
        last = self.events[-1]
        return None if last == b"[DONE]" else error_in(last)

    @property
    def in_short(self) -> str:
        """Status and code; `stop` where an SDK must not try again; `after` how long it has to wait."""
        error = self.error
        if self.is_stream:
            return "200" if error is None else f"200 then {error['code']}"
        if error is None:
            return str(self.status)
        headers = self.headers
        stop = " stop" if headers.get("x-should-retry") == "false" else ""
        after = f" after {int(headers['retry-after']) / 60:.1f} min" if "retry-after" in headers else ""
        return f"{self.status} {error['code']}{stop}{after}"


def error_in(document: bytes) -> dict[str, Any]:
    """An error of OpenAI's shape and of no other; without a traceback, and without our credential."""
    found = json.loads(document)
    assert list(found) == ["error"]
    error: dict[str, Any] = found["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    assert error["param"] is None or isinstance(error["param"], str)
    assert error["code"] is None or isinstance(error["code"], str)
    assert "Traceback" not in error["message"]
    assert CREDENTIAL not in error["message"]
    return error


async def ask(
    front: RelayApplication, heard: Heard, timeout_s: float | None = None, within_s: float = 10.0
) -> Heard:
    """Carry one request through the front. Raises TimeoutError where it hangs."""
    head = list(HEAD)
    if timeout_s is not None:
        head.append((b"x-penstock-timeout", str(timeout_s).encode()))
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": head}
    async with asyncio.timeout(within_s):
        await front(scope, heard.receive, heard.send)
    return heard


def request(content: str = "Hello there", *, streamed: bool = False, **fields: Any) -> Heard:
    body = {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": content}],
        "stream": streamed,
        "max_tokens": 64,
        **fields,
    }
    return Heard(json.dumps(body).encode())


def check_framing(heard: Heard) -> None:
    """One beginning, one end, and `[DONE]` after all of it or not at all."""
    assert [each["type"] for each in heard.sent[:1]] == ["http.response.start"]
    assert [each["type"] for each in heard.sent[1:]] == ["http.response.body"] * (len(heard.sent) - 1)
    ends_here = [not each["more_body"] for each in heard.sent[1:]]
    assert ends_here == [False] * (len(ends_here) - 1) + [True]
    well_ended = heard.is_stream and heard.error is None
    assert heard.body.count(DONE) == well_ended
    assert heard.body.endswith(DONE) == well_ended


def check_books(heard: Heard, home: House) -> Settled:
    """Exactly one entry, in the journal too, and it says what the client was told."""
    entry = home.books.entry
    assert ends(read(home.journal.folder)) == [entry]
    error = heard.error
    assert entry.status == heard.status
    assert entry.code == ("" if error is None else error["code"] or "")
    assert heard.call_id == entry.call_id
    if heard.status == 200:
        assert heard.headers["x-penstock-attempts"] == str(len(entry.attempts))
    check_costs(entry)
    return entry


def check_costs(entry: Settled) -> None:
    """Nothing is free but what was not used, and the call's cost is that of its attempts."""
    for each in (entry, *entry.attempts):
        used = each.usage.input_tokens or each.usage.output_tokens
        assert bool(each.cost_nanos) == bool(used)
        assert used == 0 or each.usage.basis != "none"
    assert entry.cost_nanos == sum(each.cost_nanos for each in entry.attempts)


def is_free(home: House, target: Target) -> bool:
    """Nobody holds a place at the gate or in the pool, and nobody waits for one."""
    gate = home.targets.of(target).gate.figures()
    pool = home.transport.figures().get(target.id)
    return gate.in_use == 0 and (pool is None or (pool.in_use, pool.waiting) == (0, 0))


def tries(entry: Settled) -> str:
    """The attempts in short: how many in a row went the same way, and why."""
    said = [f"{each.outcome} {each.code}".strip() for each in entry.attempts]
    return ", ".join(f"{len(list(group))} {what}" for what, group in groupby(said))


def verdict(breaker: Breaker, attempts: int) -> str:
    """What the attempts said to a breaker that had counted one failure before them.

    By how many more it takes to open it: a failure leaves fewer to go, a success begins the count anew.
    """
    missing = 0
    now = time.monotonic()
    while breaker.state(now) == "closed":
        permit = breaker.enter(now)
        assert permit is not None
        breaker.ended(permit, "failure", now, "asked how many are missing")
        missing += 1
    counted = breaker.policy.consecutive - 1 - missing
    if counted < 0:
        return "success"
    return {0: "neutral", attempts: "failure"}.get(counted, f"{counted} of {attempts} failures")


def fail_once(breaker: Breaker) -> None:
    now = time.monotonic()
    permit = breaker.enter(now)
    assert permit is not None
    breaker.ended(permit, "failure", now, "to see whether a success follows")


def connections_to(base_url: str) -> int:
    """This process's connections to a provider, open or half-closed, as the system knows them."""
    port = urlsplit(base_url).port
    return sum(_peer(int(each)) == port for each in os.listdir("/dev/fd"))


def _peer(descriptor: int) -> int | None:
    """The port at the far end, if this is a connection."""
    with contextlib.suppress(OSError):  # the descriptor of the listing itself, or one that is not connected
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            with socket.socket(fileno=os.dup(descriptor)) as copy:
                return int(copy.getpeername()[1]) if copy.family == socket.AF_INET else None
    return None


async def settled(holds: Callable[[], bool], within_s: float = GONE_WITHIN_S) -> bool:
    """Whether it holds, within the time that it has for it."""
    try:
        async with asyncio.timeout(within_s):
            while not holds():  # noqa: ASYNC110 - what is waited for is the system's
                await asyncio.sleep(0.01)
    except TimeoutError:
        return False
    return True
