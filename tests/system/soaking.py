"""Mixed traffic for as long as one likes: who calls, what goes wrong, and what people do meanwhile."""

import asyncio
import contextlib
import itertools
import json
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import aiohttp
import msgspec
import psutil

from gateway.simulator import Ended, Fault, Received, Step
from tests.served import Served, eventually
from tests.system import books as b
from tests.system.live import signed_in
from tests.system.soaking_figures import Sample
from tests.system.test_killed import is_whole
from tests.system.together.house import PLENTY, Key, Team, Together
from tests.system.together.keys import Person
from tests.system.upstream_side.clients import arrive, at_random

MODEL_NAMES = ("gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini")
INSIDE = Path(__file__).parent / "inside"
A_SECOND = 20.0
FAULTY = 0.05
FAULTS = (
    Step(fault=Fault.THROTTLED_SECONDS, retry_after_s=1.0),
    Step(fault=Fault.SERVER_ERROR),
    Step(fault=Fault.RESET_BEFORE_HEADERS),
    Step(fault=Fault.RESET_MID_STREAM),
    Step(fault=Fault.TRUNCATED),
    Step(fault=Fault.SLOW_FIRST_TOKEN, pause_s=2.0),
    Step(fault=Fault.GARBAGE_JSON),
    Step(fault=Fault.GARBAGE_SSE),
)
ATTEMPTS_A_CALL = 1.3
"""More than there are, so that the trouble does not end before the load."""
QUOTAS = [
    (kind, PLENTY, period) for kind in ("requests", "tokens", "money") for period in ("month", "soft month")
]
A_FEW = 20
"""Calls a minute of a key that wants more."""
PAGES = ("/", "/usage/", "/calls/", "/calls/refused/", "/keys/", "/providers/", "/routes/", "/statement/")
WORDS = "How deep is the water behind the second gate, and how fast does it rise? "
TOOL = {
    "type": "function",
    "function": {
        "name": "read_gauge",
        "parameters": {"type": "object", "properties": {"gauge": {"type": "string"}}, "required": ["gauge"]},
    },
}
NARROW = """
from accounts.models import Team
from accounts.services import create_key
print(create_key(Team.objects.get(pk={team_id}), "narrow", None, routes=[{model_name!r}])[1])
"""
GONE_S = 10.0
"""Longer than a call of a key may still be under way that is no longer taken."""

PATIENCE_S = 120.0
REST_S = 60.0
"""Idle connections to a provider are kept for thirty seconds."""

Kind = Literal["usual", "a few", "narrow", "unknown", "revoked", "leaves"]
SHARES: Mapping[Kind, float] = {
    "usual": 0.85,
    "a few": 0.03,
    "narrow": 0.02,
    "unknown": 0.02,
    "revoked": 0.02,
    "leaves": 0.06,
}
REFUSED: Mapping[Kind, tuple[int, ...]] = {
    "a few": (429,),
    "narrow": (403, 404),
    "unknown": (401,),
    "revoked": (401,),
}
"""How the gateway itself may answer, of which nothing is sent on and nothing booked."""
WITHOUT_RIGHTS = frozenset({"narrow", "unknown", "revoked"})
"""Whose calls are never let in."""


def trouble(rng: random.Random, count: int) -> list[Step]:
    """What so many requests meet: one of twenty has trouble; a run of good answers is one step."""
    steps: list[Step] = []
    while count > 0:
        good = int(rng.expovariate(FAULTY / (1 - FAULTY)))
        steps += [Step(count=good)] if good else []
        steps.append(rng.choice(FAULTS))
        count -= good + 1
    return steps


@dataclass
class Keys:
    """Whom the clients call as; people make, rotate and revoke some of them meanwhile."""

    usual: list[str]
    narrow: str
    few: str
    revoked: list[str]

    def pick(self, kind: Kind, rng: random.Random) -> str:
        match kind:
            case "a few":
                return self.few
            case "narrow":
                return self.narrow
            case "unknown":
                return "pst_nobody_knows_this_key"
            case "revoked":
                return rng.choice(self.revoked)
        return rng.choice(self.usual)


def request(rng: random.Random, kind: Kind) -> dict[str, Any]:
    """A body: whole or streamed, mostly short, some with a tool, a few of a hundred kilobytes."""
    draw = rng.random()
    times = rng.randint(400, 2000) if draw < 0.01 else rng.randint(20, 120) if draw < 0.2 else 1
    body = {
        "model": MODEL_NAMES[1] if kind == "narrow" else rng.choice(MODEL_NAMES),
        "messages": [{"role": "user", "content": WORDS * times}],
        "stream": rng.random() < 0.5,
        "max_tokens": rng.randint(4, 64),
    }
    return body | ({"tools": [TOOL], "tool_choice": "required"} if rng.random() < 0.1 else {})


@dataclass
class Load:
    """Clients that come at random moments, whatever becomes of those before, and write down what they saw."""

    served: Served
    keys: Keys
    rng: random.Random
    seen: list[b.Seen] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    """By kind of call and status; None: it did not come."""
    surprises: list[str] = field(default_factory=list)
    trials: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def run(self, seconds: float) -> None:
        """Ends when the last call has ended, and closes all connections."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(None)) as http:
            await arrive(lambda _: self._call(http), at_random(A_SECOND, seconds, self.rng))

    async def _call(self, http: aiohttp.ClientSession) -> None:
        kind = self.rng.choices(list(SHARES), list(SHARES.values()))[0]
        body, headers = request(self.rng, kind), self._headers(kind, trial := f"trial-{next(self.trials)}")
        patience_s = self.rng.uniform(0.01, 0.8) if kind == "leaves" else PATIENCE_S
        call_id, status, whole = None, None, False
        url = f"{self.served.base_url}/chat/completions"
        try:
            async with asyncio.timeout(patience_s), http.post(url, json=body, headers=headers) as answer:
                call_id, status = answer.headers["X-Request-Id"], answer.status
                data = await answer.read()
                whole = status == 200 and is_whole(data, body["stream"])
        except (aiohttp.ClientError, TimeoutError, OSError) as why:
            self._note_failure(kind, status, why)
        self._note(kind, status)
        refused = status in REFUSED.get(kind, ())
        self.seen.append(b.Seen(trial, call_id, body["stream"], whole, refused))

    def _headers(self, kind: Kind, trial: str) -> dict[str, str]:
        key = self.keys.pick(kind, self.rng)
        return {"Authorization": f"Bearer {key}", "X-Penstock-Tags": f"trial={trial}"}

    def _note_failure(self, kind: Kind, status: int | None, why: Exception) -> None:
        """A stream may be cut, where its provider cut it; everybody else has an answer."""
        if kind != "leaves" and status != 200:
            self.surprises.append(f"{kind}, {status}: {why!r}")

    def _note(self, kind: Kind, status: int | None) -> None:
        self.answers[f"{kind} {status}"] += 1
        if kind in WITHOUT_RIGHTS and status not in REFUSED[kind]:
            self.surprises.append(f"{kind} was not refused, but {status}")


async def teams_and_keys(house: Together, someone: Person) -> tuple[list[Key | Team], Keys]:
    """Owners of quotas that nobody exhausts, and keys of theirs; one with few calls a minute."""
    make = asyncio.to_thread
    upper = await make(house.team, "upper", {"first": QUOTAS[::2], "second": QUOTAS[1::2]}, QUOTAS[::2])
    lower = await make(
        house.team, "lower", {"third": [], "few": [("requests", A_FEW, "minute")]}, QUOTAS[1::2]
    )
    code = NARROW.format(team_id=lower.id, model_name=MODEL_NAMES[0])
    narrow = (await make(house.house.served.manage, "shell", "--no-imports", "-c", code)).split()[-1]
    revoked = await someone.make_key("revoked at once")
    await someone.revoke(revoked)
    texts = {name: key.text for team in (upper, lower) for name, key in team.keys.items()}
    few = texts.pop("few")
    owners: list[Key | Team] = [upper, lower, *upper.keys.values()]
    return owners, Keys([*texts.values()], narrow, few, [revoked.text])


@dataclass
class People:
    """One looks at the live page all the time, reads others now and then, and cares for keys."""

    served: Served
    keys: Keys
    someone: Person
    browser: aiohttp.ClientSession
    pages_every_s: float
    keys_every_s: float
    frames: int = 0
    pages: int = 0
    made: int = 0

    async def watch(self) -> None:
        async with self.browser.ws_connect("/ws/live/", max_msg_size=0) as line:
            while True:
                message = await line.receive(timeout=30)
                assert message.type is aiohttp.WSMsgType.TEXT, message
                self.frames += 1

    async def read(self) -> None:
        for path in itertools.cycle(PAGES):
            await asyncio.sleep(self.pages_every_s)
            async with self.browser.get(path) as page:
                assert page.status == 200, (path, page.status, self.served.errors()[-3000:])
                await page.read()
            self.pages += 1

    async def care(self) -> None:
        """Make a key, rotate it, and revoke it when nobody calls with it any more."""
        for number in itertools.count():
            key = await self.someone.make_key(f"for a while {number}")
            self.keys.usual.append(key.text)
            await asyncio.sleep(self.keys_every_s / 2)
            rotated, _ = await self.someone.rotate(key, overlap_s=60)
            self.keys.usual[self.keys.usual.index(key.text)] = rotated.text
            await asyncio.sleep(self.keys_every_s / 2)
            self.keys.usual.remove(rotated.text)
            await asyncio.sleep(GONE_S)
            await self.someone.revoke(rotated)
            self.keys.revoked[:] = [*self.keys.revoked, rotated.text][-20:]
            self.made += 1


@contextlib.asynccontextmanager
async def people(
    house: Together, keys: Keys, someone: Person, pages_s: float, keys_s: float
) -> AsyncIterator[People]:
    """At work while the block runs; what goes wrong with them ends it."""
    served = house.house.served
    async with signed_in(served) as browser, asyncio.TaskGroup() as at_work:
        made = People(served, keys, someone, browser, pages_s, keys_s)
        tasks = [at_work.create_task(each()) for each in (made.watch, made.read, made.care)]
        yield made
        for each in tasks:
            each.cancel()


@dataclass
class Scales:
    """Weighs every process of a gateway now and then, and reads the provider's journal on the way."""

    house: Together
    inside: Path
    every_s: float
    began: float = field(default_factory=time.monotonic)
    samples: list[Sample] = field(default_factory=list)
    lines: list[Received | Ended] = field(default_factory=list)
    """Of the provider's journal, without the bodies."""

    async def run(self) -> None:
        for number in itertools.count(1):
            await asyncio.to_thread(self._once)
            await asyncio.sleep(max(0.0, self.began + number * self.every_s - time.monotonic()))

    def _once(self) -> None:
        self.samples += self.weigh().values()
        self.read_provider()

    def read_provider(self) -> None:
        self.lines += map(_without_body, self.house.house.provider.news())

    def weigh(self) -> dict[str, Sample]:
        """By role, at this moment."""
        served = self.house.house.served
        assert served.process is not None
        main = psutil.Process(served.process.pid)
        worker = self.house.house.worker().pid
        found = {"up": self._sample("up", main)}
        for each in main.children(recursive=True):
            command = " ".join(each.cmdline())
            role = "worker" if each.pid == worker else "tasks" if "run_tasks" in command else ""
            if role:
                found[role] = self._sample(role, each)
        return found

    def _sample(self, role: str, process: psutil.Process) -> Sample:
        maps = process.memory_maps(grouped=True)
        links = descriptors(process.pid)
        inside = self._inside(process.pid)
        return Sample(
            at_s=time.monotonic() - self.began,
            role=role,
            pid=process.pid,
            rss=process.memory_info().rss,
            files=sum(
                each.rss for each in maps if each.path.startswith(str(self.house.house.served.var_dir))
            ),
            fds=len(links),
            sockets=sum(each.startswith("socket:") for each in links),
            threads=process.num_threads(),
            tasks=inside.get("tasks"),
            objects=inside.get("objects"),
        )

    def _inside(self, pid: int) -> dict[str, Any]:
        """The newest that the process says of itself."""
        path = self.inside / f"{pid}.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        whole = [each for each in lines if each.endswith(b"\n")]
        return json.loads(whole[-1]) if whole else {}

    def fresh(self) -> dict[str, Sample]:
        """By role, after every process has looked at itself once more."""
        asked_at = time.time()

        def have_looked() -> bool:
            return all(self._inside(each.pid).get("at", 0.0) > asked_at for each in self.weigh().values())

        eventually(have_looked, 3 * self.every_s + 5, "a look of every process at itself")
        return self.weigh()

    def at_rest(self) -> dict[str, Sample]:
        """The same when no call is under way and no connection to a provider is kept."""
        self.house.house.wait_for_rest(30)
        is_idle = lambda: not self.house.house.served.figure("penstock_pool_idle")  # noqa: E731
        eventually(is_idle, REST_S, "the end of the connections to the provider")
        return self.fresh()


def descriptors(pid: int) -> list[str]:
    """What each open descriptor of a process leads to. Linux only."""
    found = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(os.readlink(each)))
    return found


def _without_body(line: Received | Ended) -> Received | Ended:
    return msgspec.structs.replace(line, body=None) if isinstance(line, Received) else line


def faults_in(lines: Sequence[Received | Ended]) -> Iterator[str]:
    """Of the requests that the provider ended."""
    return (each.fault for each in lines if isinstance(each, Ended) and each.fault)
