"""What lies far away in the field report: the provider, behind TLS and a line with a length.

    python -m benchmarks.far FOLDER PROVIDER_PORT LINE_PORT GATEWAY_PORT MODEL_NAME...

FOLDER has the certificate (`provider.pem`, key included) and gets the provider's journal (`provider.jsonl`).
PROVIDER_PORT leads to the provider and LINE_PORT to the gateway at GATEWAY_PORT, each by half a round trip.
"""

import asyncio
import signal
import sys
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from urllib.parse import urlsplit

import uvloop

from benchmarks import world
from benchmarks.delay import line
from gateway.simulator import running_simulator

CERTIFICATE, JOURNAL = "provider.pem", "provider.jsonl"


async def serve(
    folder: Path, provider_port: int, line_port: int, gateway_port: int, names: list[str]
) -> None:
    """Answer until told to stop."""
    tls = SSLContext(PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / CERTIFICATE)
    one_way_s = world.ROUND_TRIP_S / 2
    async with running_simulator(tls=tls, journal=folder / JOURNAL) as provider:
        provider.script(world.script(names))
        own_port = urlsplit(provider.base_url).port
        assert own_port is not None
        async with line(own_port, one_way_s, provider_port), line(gateway_port, one_way_s, line_port):
            await _told_to_stop()


async def _told_to_stop() -> None:
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    await told.wait()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), *map(int, sys.argv[2:5]), sys.argv[5:]))
