"""A simulator without delays, and a plain HTTP client for it."""

import aiohttp
import pytest

from gateway.simulator import running_simulator


@pytest.fixture
async def simulator():
    async with running_simulator(speed=0, keep_bodies=True) as running:
        yield running


@pytest.fixture
async def client(simulator):
    """Speaks to the simulator's own address with a bearer; decompresses nothing."""
    headers = {"authorization": "Bearer sk-simulated", "x-request-id": "call-1"}
    origin = simulator.base_url.removesuffix("/v1")
    options = {
        "connector": aiohttp.TCPConnector(limit=0),
        "timeout": aiohttp.ClientTimeout(total=10),
        "auto_decompress": False,
    }
    async with aiohttp.ClientSession(origin, headers=headers, **options) as session:
        yield session
