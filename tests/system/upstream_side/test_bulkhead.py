"""What is wrong at one provider, or with one team, is no other's business (U13, H8)."""

import asyncio
import contextlib
import random
import socket
import threading

import pytest

from gateway.server import raise_file_limit
from gateway.simulator import Step
from tests.served import eventually
from tests.system.upstream_side import figures
from tests.system.upstream_side.clients import arrive, at_random, connect, evenly, wires_to
from tests.system.upstream_side.house import open_house
from tests.system.upstream_side.provider import running_provider

HEALTHY, BLACK = "gpt-4o", "gpt-4o-black"
STUCK = 200
IDLE = 2500


@contextlib.contextmanager
def black_hole():
    """A provider that accepts every connection and never reads nor says anything."""
    held = []
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:

        def swallow():
            with contextlib.suppress(OSError):  # the listener was closed: it is over
                while True:
                    held.append(listener.accept()[0])

        thread = threading.Thread(target=swallow)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for each in held:
                each.close()


async def healthy(house, seconds, a_second=40.0):
    """Latencies of good calls, half of them streamed; each must be answered."""
    requests = [house.request(HEALTHY, stream=each, max_tokens=5) for each in (False, True)]
    async with wires_to(house.served.port) as wires:
        found = await arrive(lambda number: wires.ask(requests[number % 2]), evenly(a_second, seconds))
    assert {answer.status for answer, _ in found} == {200}
    return [latency_s for _, latency_s in found]


@contextlib.asynccontextmanager
async def stuck(house, count=STUCK):
    """So many calls that wait for the black hole, or at its gate."""
    wires = await asyncio.gather(*(connect(house.served.port) for _ in range(count)))
    for number, wire in enumerate(wires):
        wire.writer.write(house.request(BLACK, stream=number % 2 == 0))
    await asyncio.to_thread(eventually, lambda: in_line(house) == count, 20, "a crowd at the black hole")
    try:
        yield
    finally:
        for wire in wires:
            wire.leave()
        await asyncio.to_thread(eventually, lambda: in_line(house) == 0, 20, "the end of the crowd")


def in_line(house):
    return house.figure("penstock_gate_in_use", BLACK) + house.figure("penstock_gate_waiting", BLACK)


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """With a second provider, which is a black hole."""
    folder = tmp_path_factory.mktemp("bulkhead")
    with (
        running_provider(folder) as provider,
        black_hole() as base_url,
        open_house(folder, provider, HEALTHY) as opened,
    ):
        opened.add_provider("black", base_url, BLACK)
        provider.script(Step(delay_s=0.2, count=None))
        yield opened


def test_good_calls_are_answered_beside_a_black_hole(house):
    async def beside():
        async with stuck(house):
            return await healthy(house, 2.0), house.figure("penstock_gate_in_use", BLACK)

    answered, in_the_hole = asyncio.run(beside())
    assert (len(answered), in_the_hole) == (80, 50)


def test_a_crowd_of_idle_connections_locks_nobody_out(house):
    """More of them than the server's backlog is long."""
    raise_file_limit()
    with contextlib.ExitStack() as crowd:
        for _ in range(IDLE):
            crowd.enter_context(socket.create_connection(("127.0.0.1", house.served.port)))
        assert len(asyncio.run(healthy(house, 1.0))) == 40
        assert house.served.get("/healthz").startswith("HTTP/1.1 200")


@pytest.mark.prove
def test_good_calls_keep_their_pace_beside_a_black_hole(house, say):
    async def beside():
        async with stuck(house):
            return await healthy(house, 15.0)

    async def compare():
        await healthy(house, 3.0)
        return await figures.pairs_of_p99(lambda: healthy(house, 15.0), beside, 5)

    pairs = asyncio.run(compare())
    say(f"U13  beside {STUCK} calls stuck at a black hole good ones take {figures.told(pairs)}, 0 errors")
    assert figures.ratio(pairs) <= 1.10


# --- One team at fifty times its share

PLACES = 50
TEAMS = ("Bob's", "Charlie's", "Dora's")
SPEED = 0.2
MEAN_HOLD_S = 1.28
"""Of the provider's answers of three tokens at this speed: slow, so that fifty times a share is no test
of how many refusals a second a core can say."""
SHARE = PLACES / MEAN_HOLD_S / 4
"""Calls a second that fill a quarter of the places."""
TIMES = 50


async def quiet_teams(house, keys, seconds, failures, seed):
    """Latencies of three teams that ask for half of their share each; other answers go to `failures`."""
    due = at_random(SHARE / 2 * len(keys), seconds, random.Random(seed))
    requests = [house.request("gpt-4o-mini", key=key, max_tokens=3) for key in keys]
    async with wires_to(house.served.port) as wires:
        found = await arrive(lambda number: wires.ask(requests[number % len(requests)]), due)
    failures += [answer for answer, _ in found if answer.status != 200]
    return [latency_s for _, latency_s in found]


@contextlib.asynccontextmanager
async def greedy_team(house, key, times):
    """A team that asks for so many times its share until the block ends; yields what became of its calls."""
    request = house.request("gpt-4o-mini", key=key, max_tokens=3)
    statuses: list[int] = []
    async with wires_to(house.served.port) as wires:

        async def ask(_):
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):  # it is over
                statuses.append((await wires.ask(request)).status)

        flood = asyncio.create_task(arrive(ask, evenly(times * SHARE, 3600.0)))
        await asyncio.to_thread(
            eventually,
            lambda: house.figure("penstock_gate_waiting", "gpt-4o-mini") > PLACES / 2,
            20,
            "a crowd",
        )
        try:
            yield statuses
        finally:
            flood.cancel()
            await asyncio.wait([flood])
    await asyncio.to_thread(house.wait_for_rest, 30)


async def compare_teams(house, keys, greedy, pairs, seconds, times):
    """Pairs of p99 of the quiet teams, alone and beside the greedy one; calls, failures, its statuses."""
    failures, calls, fates = [], [0], []
    seeds = iter(range(1000))

    async def alone():
        found = await quiet_teams(house, keys, seconds, failures, next(seeds))
        calls[0] += len(found)
        return found

    async def beside():
        async with greedy_team(house, greedy, times) as statuses:
            found = await alone()
            fates.extend(statuses)
        return found

    found = await figures.pairs_of_p99(alone, beside, pairs)
    return found, calls[0], failures, fates


@contextlib.contextmanager
def house_of_teams(folder, max_waiting):
    line = {"max_concurrency": PLACES, "max_waiting": max_waiting}
    with (
        running_provider(folder, speed=SPEED) as provider,
        open_house(folder, provider, "gpt-4o-mini", targets=line) as house,
    ):
        yield house, [house.make_team(each) for each in TEAMS]


def test_quiet_teams_are_served_beside_a_greedy_one(tmp_path):
    with house_of_teams(tmp_path, 100) as (house, keys):
        _, calls, failures, fates = asyncio.run(compare_teams(house, keys, "", 1, 3.0, times=20))
    assert calls > 30
    assert failures == []
    assert 503 in fates


@pytest.mark.prove
def test_a_team_at_fifty_times_its_share_hardly_delays_the_others(tmp_path, say):
    with house_of_teams(tmp_path, 1000) as (house, keys):
        pairs, calls, failures, fates = asyncio.run(compare_teams(house, keys, "", 3, 60.0, TIMES))
    say(
        f"H8  three teams at half their share beside one at {TIMES} times its own: {figures.told(pairs)}; "
        f"{len(failures)} of their {calls} calls failed; "
        f"of the greedy one's {len(fates)}, {fates.count(200)} were answered"
    )
    assert figures.ratio(pairs) <= 1.2
    assert len(failures) <= 0.001 * calls
