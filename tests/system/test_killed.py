"""SIGKILL under load: whoever has an answer finds it on the books, once, and nothing else is there.

The provider's own journal is the truth; clients, provider and ledger are joined on the call id
(`X-Request-Id`, the same to both sides and in every attempt), and each client's own mark is in the entry's
tags.
Some calls fail at first and are tried again, so that gateways also die between two attempts.
"""

import asyncio
import itertools
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import aiohttp
import msgspec
import pytest

from gateway.simulator import Fault, RunningSimulator, Step, running_simulator
from tests.served import Served, eventually, provider_of, serve
from tests.system import books as b
from tests.system.conftest import MODEL_NAMES, enter_prices
from tests.system.live import signed_in, watch

CLIENTS = 50
FAULTS = (Fault.SERVER_ERROR.model_name, Fault.ERROR_EVENT.model_name, Fault.RESET_MID_STREAM.model_name)
LONG_PROMPT = "water " * 900  # long enough for the provider to report cached tokens
PASSING = (
    Step(fault=Fault.SERVER_ERROR),
    Step(fault=Fault.RESET_BEFORE_HEADERS),
    Step(fault=Fault.THROTTLED_MS, retry_after_s=0.3),
)
"""What goes wrong now and then with calls that are tried again and answered."""
GOOD_IN_A_ROW = 7
STEPS_A_KILL = 200
"""More than are used up between two deaths."""
ADOPTED_WITHIN_S = 5.0
PAGE_S = 900
DONE = b"data: [DONE]\n\n"
READY = "HTTP/1.1 200"


@dataclass
class Load:
    """Fifty clients that call without a pause, half of the calls streamed, and write down what they saw."""

    served: Served
    picks: random.Random
    seen: list[b.Seen] = field(default_factory=list)
    surprises: dict[str, int] = field(default_factory=dict)
    """Calls of model names that usually answer, by call id, with the status that was none of 200."""
    open_calls: int = 0
    stopping: bool = False
    trials: itertools.count = field(default_factory=lambda: itertools.count(1))

    async def run(self) -> None:
        """Until `stopping`; ends when the last call has ended."""
        self.stopping = False
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60)) as http,
            asyncio.TaskGroup() as clients,
        ):
            for _ in range(CLIENTS):
                clients.create_task(self._client(http))

    async def _client(self, http: aiohttp.ClientSession) -> None:
        while not self.stopping:
            self.open_calls += 1
            await self._call(http, f"trial-{next(self.trials)}")
            self.open_calls -= 1

    async def _call(self, http: aiohttp.ClientSession, trial: str) -> None:
        body, patience_s = self._draw()
        call_id, whole, refused = None, False, False
        headers = {"Authorization": f"Bearer {self.served.api_key}", "X-Penstock-Tags": f"trial={trial}"}
        url = f"{self.served.base_url}/chat/completions"
        try:
            async with asyncio.timeout(patience_s), http.post(url, json=body, headers=headers) as answer:
                call_id = answer.headers["X-Request-Id"]
                data = await answer.read()
                whole = answer.status == 200 and is_whole(data, body["stream"])
                refused = answer.status == 503 and b'"overloaded"' in data
                if answer.status != 200 and body["model"] in MODEL_NAMES:
                    self.surprises[call_id] = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            pass  # the gateway was killed, or the client's patience is over: not whole
        self.seen.append(b.Seen(trial, call_id, body["stream"], whole, refused))

    def _draw(self) -> tuple[dict, float | None]:
        """A request, and how long its client waits for the end of it."""
        pick = self.picks
        faulty = pick.random() < 0.06
        body = {
            "model": pick.choice(FAULTS if faulty else MODEL_NAMES),
            "messages": [{"role": "user", "content": LONG_PROMPT if pick.random() < 0.2 else "How deep?"}],
            "stream": pick.random() < 0.5,
            "max_tokens": pick.randint(4, 32),
        }
        return body, pick.uniform(0.05, 0.6) if pick.random() < 0.04 else None


def is_whole(data: bytes, streamed: bool) -> bool:
    return data.endswith(DONE) if streamed else "choices" in json.loads(data)


def dispatched(upstream: RunningSimulator) -> dict[str, list[b.Upstream]]:
    return b.upstream_calls(upstream.journal.lines())


def unlucky() -> Iterator[Step]:
    """Of so many calls of each model name, one fails and may be tried again."""
    for fault in itertools.cycle(PASSING):
        for name in MODEL_NAMES:
            yield Step(model_name=name, count=GOOD_IN_A_ROW)
            yield msgspec.structs.replace(fault, model_name=name)


def not_theirs(surprises: dict[str, int], calls: dict[str, list[b.Upstream]]) -> dict[str, int]:
    """Calls that failed though their provider answered; it may fail all attempts of one by chance."""
    failed = {
        call_id
        for call_id, requests in calls.items()
        if all(each.ended is not None and each.ended.fault for each in requests)
    }
    return {call_id: status for call_id, status in surprises.items() if call_id not in failed}


def all_booked(served: Served, call_ids: set[str]) -> bool:
    rows = served.rows("SELECT call_id FROM gateway_entry")
    return call_ids <= {b.with_dashes(call_id) for (call_id,) in rows}


def kill_worker_alone(served: Served) -> None:
    """The kind of death that the server itself has to get over."""
    [worker] = served.workers()
    worker.kill()


def wait_for_the_next_worker(served: Served) -> None:
    eventually(lambda: served.get("/readyz").startswith(READY), 60, "the next worker")


async def one_kill(load: Load, upstream: RunningSimulator, *, alone: bool) -> int:
    """Load, death at a random moment, and the start after it; how many calls were in flight at the death."""
    served = load.served
    clients = asyncio.create_task(load.run())
    await asyncio.sleep(load.picks.uniform(0.3, 1.3))  # the moment of death, not a wait for anything
    in_flight = load.open_calls
    load.stopping = True
    (kill_worker_alone if alone else Served.kill)(served)
    await clients
    await asyncio.to_thread(wait_for_the_next_worker if alone else Served.start, served)
    known = set(dispatched(upstream))
    await asyncio.to_thread(
        eventually, lambda: all_booked(served, known), ADOPTED_WITHIN_S, "an entry for every dispatched call"
    )
    return in_flight


async def a_quiet_end(load: Load, upstream: RunningSimulator) -> b.Books:
    """Some load without a death, so that the live page has history and news; then the books, complete."""
    clients = asyncio.create_task(load.run())
    await asyncio.sleep(2)  # of load, not a wait for anything
    load.stopping = True
    await clients
    answered = {each.call_id for each in load.seen if each.call_id is not None}
    known = answered | set(dispatched(upstream))
    await asyncio.to_thread(eventually, lambda: all_booked(load.served, known), 15, "the last entries")
    return b.read_books(load.served.rows)


async def live_and_ledger(served: Served, books: b.Books) -> tuple[b.Total, b.Total]:
    """The last 15 minutes, as the live page shows them and as the ledger has them."""
    async with signed_in(served) as browser:
        totals, _ = await watch(browser, until_s=int(time.time()) + 1)
    since_s = max(totals) - PAGE_S + 1
    shown = b.total_of_frames(count for at_s, count in totals.items() if at_s >= since_s)
    return shown, b.total_of_entries(books, after_s=since_s)


def plants(books: b.Books, once: str, again: str) -> dict[str, b.Books]:
    """Copies of these very books, each with one thing wrong.

    `once` is a call that was answered at its first attempt, `again` one at its second.
    """
    entry = books.by_call()[once]
    others = [each for each in books.entries if each is not entry]
    [attempt] = books.attempts_by_call()[once]
    rest = [each for each in books.attempts if each is not attempt]
    retried = books.attempts_by_call()[again]
    changed = replace(attempt, output_tokens=attempt.output_tokens + 1)
    return {
        "lost": replace(books, entries=others),
        "doubled": replace(books, entries=[*books.entries, entry]),
        "cost": replace(books, attempts=[*rest, replace(attempt, cost_nanos=attempt.cost_nanos + 1)]),
        "tokens": replace(books, attempts=[*rest, changed]),
        "sum": replace(books, entries=[*others, replace(entry, output_tokens=entry.output_tokens + 1)]),
        "unexplained": replace(books, attempts=[each for each in books.attempts if each is not retried[0]]),
        "outcome": replace(books, attempts=[each for each in books.attempts if each is not retried[-1]]),
    }


async def kill_under_load(var_dir, tmp_path, kills: int, seed: int) -> str:
    """Everything the goal asks for, joined; returns the summary."""
    journal = tmp_path / "upstream.jsonl"
    async with running_simulator(speed=1.0, seed=seed, journal=journal) as upstream:
        upstream.script(list(itertools.islice(unlucky(), STEPS_A_KILL * kills)))
        with serve(var_dir, **provider_of(upstream.base_url, *MODEL_NAMES, *FAULTS)) as served:
            await asyncio.to_thread(enter_prices, served)
            await asyncio.to_thread(served.stop)
            await asyncio.to_thread(served.start)
            load = Load(served, random.Random(seed))
            in_flight = [await one_kill(load, upstream, alone=each % 4 == 3) for each in range(kills)]
            books = await a_quiet_end(load, upstream)
            shown, booked = await live_and_ledger(served, books)
            calls = dispatched(upstream)

    assert not_theirs(load.surprises, calls) == {}
    assert in_flight == [CLIENTS] * kills
    assert b.findings(load.seen, calls, books) == []
    assert shown == booked
    whole = {each.call_id for each in load.seen if each.whole}
    tries = {call_id: len(each) for call_id, each in books.attempts_by_call().items()}
    assert any(tries.get(each.call_id, 0) > 1 for each in books.entries if each.outcome == b.INTERRUPTED)
    once, again = (
        next(call_id for call_id, n in tries.items() if call_id in whole and n == tried) for tried in (1, 2)
    )
    for kind, planted in plants(books, once, again).items():
        assert any(each.startswith(kind) for each in b.findings(load.seen, calls, planted)), kind
    return b.summary(load.seen, calls, books, kills, sum(in_flight))


async def test_a_killed_gateway_loses_and_doubles_nothing(var_dir, tmp_path, say):
    say(await kill_under_load(var_dir, tmp_path, kills=20, seed=20))


@pytest.mark.prove
async def test_two_hundred_kills_lose_and_double_nothing(var_dir, tmp_path, say):
    say(await kill_under_load(var_dir, tmp_path, kills=200, seed=200))
