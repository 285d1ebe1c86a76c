"""The four ways of calling, on a provider nearby."""

import asyncio
import ssl
from dataclasses import replace

import pytest
import trustme

from benchmarks.field import WAYS, Limiter, Program, side_by_side
from benchmarks.rows import Call
from gateway.simulator import Fault, Step, running_simulator


@pytest.fixture
async def provider():
    authority = trustme.CA()
    offered = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(offered)
    async with running_simulator(tls=offered) as running:
        yield running, authority.cert_pem.bytes().decode()


@pytest.fixture
def program(provider):
    running, ca_pem = provider
    return Program(running.base_url, "sk-plain", ca_pem, True, "plain-0", "plain", calls=6)


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_call_is_answered(program, streamed):
    program = replace(program, streamed=streamed)
    async with program.client() as client:
        assert await program.ask(client) == "answered"


@pytest.mark.parametrize(
    ("fault", "fate"),
    [
        (Fault.GATEWAY_TIMEOUT, "timed_out"),
        (Fault.SERVER_ERROR, "failed"),
        (Fault.TRUNCATED, "failed"),
        (Fault.RESET_BEFORE_HEADERS, "failed"),
    ],
)
async def test_a_call_is_not_answered(provider, program, fault, fate):
    provider[0].script([Step(fault=fault)])
    async with program.client() as client:
        assert await program.ask(client) == fate


async def test_a_call_ends_when_the_programs_patience_does(provider, program):
    provider[0].script([Step(fault=Fault.SILENCE)])
    impatient = replace(program, timeout_s=0.1)
    async with impatient.client() as client:
        assert await impatient.ask(client) == "timed_out"


@pytest.mark.parametrize("way", WAYS)
async def test_each_way_makes_every_call_once(provider, program, way):
    calls = await way(program)
    assert [each.fate for each in calls] == ["answered"] * 6
    assert len(provider[0].journal.received()) == 6


async def test_callers_share_the_calls_and_have_one_at_a_time():
    under_way = most = 0

    async def once():
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return Call("answered", 0.1)

    assert len(await side_by_side(once, 4, 30)) == 30
    assert most == 4


async def test_a_limiter_lets_one_go_at_a_time():
    turns, loop = Limiter(0.01), asyncio.get_running_loop()
    began_s = loop.time()
    for _ in range(6):
        await turns.wait()
    assert loop.time() - began_s >= 0.045
