"""Listeners on loopback that are no HTTP server, or one that nobody should trust.

Each is an async context manager that yields the `base_url` which a provider would be given.
What a real HTTP/1.1 server can do wrong is the simulator's.
"""

import asyncio
import select
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from ssl import PROTOCOL_TLS_SERVER, SSLContext

import trustme

from gateway.simulator import running_simulator

LOOPBACK = "127.0.0.1"
SETTLED_S = 0.1
"""A connection on loopback that is not made by then is not going to be."""
MOST_FILLERS = 16
SMALL_BUFFER_BYTES = 4096


@asynccontextmanager
async def refused() -> AsyncIterator[str]:
    """The port is taken and nobody listens: a connection is refused at once."""
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        yield _base_url("http", taken)


@asynccontextmanager
async def connect_hang() -> AsyncIterator[str]:
    """Connections are neither made nor refused: the queue of those to accept is full.

    Linux drops the SYN then (net.ipv4.tcp_abort_on_overflow is 0 unless somebody set it).
    Raises RuntimeError where the queue cannot be filled.
    """
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((LOOPBACK, 0))
        listener.listen(0)
        for _ in range(MOST_FILLERS):
            filler = stack.enter_context(socket.socket())
            if not await _connected(filler, listener.getsockname()):
                break
        else:
            raise RuntimeError(f"{MOST_FILLERS} connections were made although none is accepted")
        yield _base_url("http", listener)


async def _connected(filler: socket.socket, address: tuple[str, int]) -> bool:
    """Whether a connection is made within SETTLED_S; it is left as it is."""
    filler.setblocking(False)
    filler.connect_ex(address)
    _, made, _ = await asyncio.to_thread(select.select, [], [filler], [], SETTLED_S)
    return bool(made)


@asynccontextmanager
async def never_answers(scheme: str = "http") -> AsyncIterator[str]:
    """Takes everything and says nothing; with `https` already in the middle of TLS' handshake."""
    async with _listening(Silent) as listener:
        yield _base_url(scheme, listener)


@asynccontextmanager
async def never_reads() -> AsyncIterator[str]:
    """Accepts and leaves what it is sent where it is, in a buffer of a few kilobytes."""
    async with _listening(Unreading, receive_buffer_bytes=SMALL_BUFFER_BYTES) as listener:
        yield _base_url("http", listener)


@asynccontextmanager
async def plain_text_on_tls() -> AsyncIterator[str]:
    """Asked for TLS, it answers in plain HTTP/1.1 as a server on the wrong port does."""
    async with _listening(PlainText) as listener:
        yield _base_url("https", listener)


@asynccontextmanager
async def trusted(authority: trustme.CA) -> AsyncIterator[str]:
    """A good simulator behind a good certificate, for whoever trusts the authority."""
    async with _certified(authority.issue_cert(LOOPBACK)) as base_url:
        yield base_url


@asynccontextmanager
async def expired(authority: trustme.CA) -> AsyncIterator[str]:
    """The certificate was good until yesterday."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    issued = authority.issue_cert(LOOPBACK, not_before=yesterday - timedelta(days=1), not_after=yesterday)
    async with _certified(issued) as base_url:
        yield base_url


@asynccontextmanager
async def wrong_name(authority: trustme.CA) -> AsyncIterator[str]:
    """The certificate is another host's."""
    async with _certified(authority.issue_cert("elsewhere.example")) as base_url:
        yield base_url


@asynccontextmanager
async def self_signed() -> AsyncIterator[str]:
    """The certificate is signed by nobody else."""
    itself = trustme.CA()
    offered = SSLContext(PROTOCOL_TLS_SERVER)
    with itself.private_key_pem.tempfile() as key, itself.cert_pem.tempfile() as certificate:
        offered.load_cert_chain(certificate, key)
    async with running_simulator(tls=offered) as simulator:
        yield simulator.base_url


@asynccontextmanager
async def _certified(certificate: trustme.LeafCert) -> AsyncIterator[str]:
    offered = SSLContext(PROTOCOL_TLS_SERVER)
    certificate.configure_cert(offered)
    async with running_simulator(tls=offered) as simulator:
        yield simulator.base_url


class Silent(asyncio.Protocol):
    """Reads and says nothing; ends with the listener."""

    def __init__(self, opened: set[asyncio.BaseTransport]) -> None:
        self._opened = opened
        self._transport: asyncio.BaseTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._opened.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._opened.discard(self._transport)


class Unreading(Silent):
    """Does not even read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.ReadTransport)
        transport.pause_reading()


class PlainText(Silent):
    """Whatever it is told, it was no request."""

    def data_received(self, data: bytes) -> None:
        assert isinstance(self._transport, asyncio.WriteTransport)
        self._transport.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        self._transport.close()


@asynccontextmanager
async def _listening(
    protocol: Callable[[set[asyncio.BaseTransport]], Silent], receive_buffer_bytes: int = 0
) -> AsyncIterator[socket.socket]:
    opened: set[asyncio.BaseTransport] = set()
    with socket.socket() as listener:
        if receive_buffer_bytes:  # before listen(), so that connections inherit it
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        listener.bind((LOOPBACK, 0))
        server = await asyncio.get_running_loop().create_server(lambda: protocol(opened), sock=listener)
        try:
            yield listener
        finally:
            server.close()
            for transport in list(opened):
                assert isinstance(transport, asyncio.Transport)
                transport.abort()
            await server.wait_closed()


def _base_url(scheme: str, listener: socket.socket) -> str:
    return f"{scheme}://{LOOPBACK}:{listener.getsockname()[1]}/v1"
