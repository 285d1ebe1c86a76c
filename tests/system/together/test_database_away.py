"""PostgreSQL dies, freezes and comes back under load.

Known keys go on, unknown ones are told to come back, nothing is lost, and nobody hangs.
"""

import asyncio
import http.client
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from accounts import keys
from tests.postgres import RunningPostgres, running_postgres
from tests.served import Served, eventually, serve

MODEL_NAME = "gpt-4o-mini"
A_SECOND = 20.0
ANSWERED_SHARE = 0.999
NOTICED_S = 3.0
"""By then `/readyz` says that the database is away."""
RECOVERED_WITHIN_S = 10.0
STALLED_S = 15.0
"""Longer than any of the time limits of a frozen database."""
RECORD = re.compile(r"^(?=\d{4}-\d\d-\d\d \d\d:)", re.MULTILINE)
CELERYS = re.compile(r"\S+ \S+ \w+ (celery|kombu)\b")
UNKNOWN = keys.mint().text
"""An API key that nobody was given."""
COOKIE = {"Cookie": f"sessionid={'a' * 32}"}
"""Of nobody, but that is for the database to say."""


@dataclass(frozen=True)
class Told:
    status: int
    headers: dict[str, str]
    body: bytes
    took_s: float

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["error"]["code"])


@dataclass
class House:
    """A gateway, and the database that is its own."""

    served: Served
    database: RunningPostgres

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Told:
        began_at_s = time.monotonic()
        wire = http.client.HTTPConnection("localhost", self.served.port, timeout=60)
        try:
            wire.request(method, path, body, headers)
            answer = wire.getresponse()
            told = answer.read()
        finally:
            wire.close()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Told(answer.status, headers, told, time.monotonic() - began_at_s)

    def call(self, key: str) -> Told:
        asked = {"model": MODEL_NAME, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        return self.ask("POST", "/v1/chat/completions", json.dumps(asked).encode(), **headers)

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ask("GET", "/readyz").body)
        return found

    def booked(self) -> int:
        return int(self.database.rows("SELECT COUNT(*) FROM gateway_entry")[0][0])


@dataclass
class Load:
    """Calls with a known key at an even pace, and what came of them."""

    house: House
    answers: list[Told] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        tasks, due_s = [], time.monotonic()
        while not self.over.is_set():
            tasks.append(asyncio.create_task(asyncio.to_thread(self.house.call, self.house.served.api_key)))
            due_s += 1 / A_SECOND
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        self.answers = await asyncio.gather(*tasks)


@pytest.fixture
def house(var_dir) -> Iterator[House]:
    with (
        running_postgres(quick=False) as database,
        serve(
            var_dir, DATABASE_URL=database.url, KEY_REQUESTS_PER_MINUTE="0", TEAM_REQUESTS_PER_MINUTE="0"
        ) as served,
    ):
        made = House(served, database)
        assert made.call(served.api_key).status == 200
        eventually(lambda: made.booked() == 1, what="the first entry")
        yield made


def is_away(house: House) -> bool:
    return house.state() == {"status": "degraded", "degraded": ["database"]}


def check_what_is_told_meanwhile(house: House) -> None:
    """Of a key that nobody used yet, of a page, and of the management API."""
    unknown = house.call(UNKNOWN)
    assert (unknown.status, unknown.code) == (503, "unavailable")
    assert int(unknown.headers["retry-after"]) > 0

    page = house.ask("GET", "/keys/", **COOKIE)
    assert page.status == 503
    assert b"The database is away" in page.body
    assert int(page.headers["retry-after"]) > 0

    listed = house.ask("GET", "/api/teams", **COOKIE)
    assert listed.status == 503
    assert listed.headers["content-type"] == "application/problem+json"
    assert "database" in json.loads(listed.body)["detail"]

    for each in (unknown, page, listed):
        assert each.took_s <= STALLED_S


async def through(house: House, take: Callable[[], None], give: Callable[[], None], away_s: float) -> str:
    """The whole story. Returns the line that sums it up."""
    before = house.booked()
    load = Load(house)
    calls = asyncio.create_task(load.run())
    await asyncio.sleep(0.5)  # of load, not a wait for anything
    await asyncio.to_thread(take)
    began_at_s = time.monotonic()
    await asyncio.to_thread(eventually, lambda: is_away(house), STALLED_S, "the news of it")
    noticed_s = time.monotonic() - began_at_s
    await asyncio.to_thread(check_what_is_told_meanwhile, house)
    behind = await asyncio.to_thread(house.served.figure, "penstock_processes_behind")
    await asyncio.sleep(max(0.0, away_s - (time.monotonic() - began_at_s)))  # the length of the outage
    await asyncio.to_thread(give)
    back_at_s = time.monotonic()
    await asyncio.to_thread(eventually, lambda: house.state() == {"status": "ready"}, 30, "ready again")
    recovered_s = time.monotonic() - back_at_s
    unknown, page = house.call(UNKNOWN), house.ask("GET", "/keys/", **COOKIE)
    load.over.set()
    await calls

    answered = sum(each.status == 200 for each in load.answers)
    assert behind == 1
    assert answered >= ANSWERED_SHARE * len(load.answers)
    assert recovered_s <= RECOVERED_WITHIN_S
    assert (unknown.status, unknown.code) == (401, "invalid_api_key")
    assert page.status == 302
    await asyncio.to_thread(
        eventually, lambda: house.booked() == before + answered, RECOVERED_WITHIN_S, "every call on the books"
    )
    assert with_traceback(house.served.errors()) == []
    longest_s = max(each.took_s for each in load.answers)
    return (
        f"database away for {away_s:.0f} s: {answered} of {len(load.answers)} calls of a known key answered, "
        f"the longest in {longest_s:.2f} s; said by /readyz after {noticed_s:.1f} s, ready again "
        f"{recovered_s:.1f} s after its return, all {answered} on the books once"
    )


def with_traceback(log: str) -> list[str]:
    """Records of the log that tell more than a sentence. Celery, whose tasks fail meanwhile, may."""
    records = RECORD.split(log)
    return [each for each in records if "Traceback" in each and not CELERYS.match(each)]


def killed(house: House, away_s: float) -> str:
    return asyncio.run(through(house, house.database.kill, house.database.start, away_s))


def frozen(house: House, away_s: float) -> str:
    return asyncio.run(through(house, house.database.freeze, house.database.thaw, away_s))


def test_postgresql_may_be_killed_and_started_again(house, say):
    say(f"O2/O4 {killed(house, 4)}")


def test_postgresql_may_be_frozen(house, say):
    say(f"O2/O4 {frozen(house, 4)}")


@pytest.mark.prove
def test_postgresql_may_be_dead_for_a_minute(house, say):
    say(f"O2  {killed(house, 60)}")


@pytest.mark.prove
def test_postgresql_may_be_dead_for_five_minutes(house, say):
    say(f"O2  {killed(house, 300)}")


@pytest.mark.prove
def test_postgresql_may_be_frozen_for_a_minute(house, say):
    say(f"O2  {frozen(house, 60)}")


def test_a_gateway_starts_only_with_its_database_and_says_so(var_dir):
    """A socket that nobody listens on any more."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    served = Served(var_dir, {"DATABASE_URL": f"postgresql://penstock:hidden@127.0.0.1:{port}/penstock"})
    served.launch()
    assert served.process is not None
    assert served.process.wait(60) != 0
    said = served.errors() + (var_dir / "out.txt").read_text()
    assert "Does DATABASE_URL name a server that runs" in said
    assert "hidden" not in said
    assert "Traceback" not in said
