"""The provider of the field report, as the process that it is."""

import time

import httpx2
import pytest
import trustme

from benchmarks import world
from benchmarks.far import CERTIFICATE, JOURNAL
from benchmarks.field import Program, started
from gateway.simulator import read_journal
from tests.served import free_port


@pytest.fixture
def authority():
    return trustme.CA()


@pytest.fixture
def far(tmp_path, authority):
    """Its port, and that of the line to a gateway that is not there."""
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / CERTIFICATE)
    ports = [free_port() for _ in range(3)]
    with started("benchmarks.far", str(tmp_path), *map(str, ports), "a", "b", listens_on=ports[1]):
        yield ports[0]


async def test_it_answers_far_away_as_its_world_says_and_writes_it_down(far, authority, tmp_path):
    ca_pem = authority.cert_pem.bytes().decode()
    program = Program(f"https://127.0.0.1:{far}/v1", "sk-plain", ca_pem, False, "b", "plain")
    first = next(world.answers("b"))
    began_s = time.perf_counter()
    async with program.client() as client:
        assert await program.ask(client) == "answered"

    assert time.perf_counter() - began_s > 3 * world.ROUND_TRIP_S + first.delay_s
    _, ended = read_journal(tmp_path / JOURNAL)
    assert (ended.model_name, ended.usage.completion_tokens) == ("b", world.COMPLETION_TOKENS)


async def test_only_its_authority_vouches_for_it(far):
    async with httpx2.AsyncClient() as client:
        with pytest.raises(httpx2.ConnectError, match="certificate"):
            await client.get(f"https://127.0.0.1:{far}/v1/models")
