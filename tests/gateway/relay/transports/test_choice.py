import subprocess
import sys

import pytest

from gateway.relay.catalog import PoolConfig, Target, TransportName
from gateway.relay.transports.aiohttp import AiohttpReach
from gateway.relay.transports.choice import Transports
from gateway.relay.transports.http1 import Http1Reach
from gateway.relay.transports.httpx import HttpxReach


@pytest.mark.parametrize(
    ("name", "http2", "library"),
    [
        ("http1", False, Http1Reach),
        ("aiohttp", False, AiohttpReach),
        ("httpx", False, HttpxReach),
        ("httpx", True, HttpxReach),
        ("http1", True, HttpxReach),
    ],
)
async def test_a_target_is_carried_by_the_library_it_asks_for(
    name: TransportName, http2: bool, library: type
) -> None:
    transports = Transports()
    target = Target(
        1, "provider", "https://api.example/v1", "m", None, transport=name, pool=PoolConfig(http2=http2)
    )
    place = await transports.acquire(target)
    assert type(place) is library
    place.release()
    await transports.close()


async def test_the_figures_of_all_targets_are_in_one_place() -> None:
    transports = Transports()
    for id, name in ((1, "http1"), (2, "httpx")):
        target = Target(id, "provider", "https://api.example/v1", "m", None, transport=name)
        (await transports.acquire(target)).release()
    assert {id: figures.acquired for id, figures in transports.figures().items()} == {1: 1, 2: 1}
    await transports.close()


LOADS = """
import sys
from gateway.relay.catalog import Catalog, Route, Target
from gateway.relay.transports.choice import ready
for name in ("http1", "aiohttp", "httpx"):
    target = Target(1, "p", "https://api.example/v1", "m", None, transport=name)
    ready(Catalog({"m": Route("m", (target,))}))
    print("gateway.relay.transports.httpx" in sys.modules)
"""


def test_httpx_is_loaded_with_the_catalog_that_asks_for_it_and_not_before() -> None:
    told = subprocess.run([sys.executable, "-c", LOADS], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False", "False", "True"]
