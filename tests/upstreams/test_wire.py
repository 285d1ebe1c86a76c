"""The listeners are as bad as they say."""

import asyncio
import fcntl
import ssl
import struct
import termios

import pytest
import trustme

from tests.gateway.simulator.raw import connection
from tests.upstreams import wire


@pytest.fixture
def authority():
    return trustme.CA()


@pytest.fixture
def trust(authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def address(base_url):
    host, _, port = base_url.partition("://")[2].removesuffix("/v1").rpartition(":")
    return host, int(port)


async def shake_hands(base_url, context):
    """One request over TLS, and the first line of what comes."""
    host, port = address(base_url)
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    writer.write(b"GET /v1/models HTTP/1.1\r\nhost: h\r\n\r\n")
    line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return line


def unacknowledged(writer):
    """Bytes that the kernel still holds for the far side (SIOCOUTQ, tcp(7))."""
    return struct.unpack("i", fcntl.ioctl(writer.get_extra_info("socket"), termios.TIOCOUTQ, bytes(4)))[0]


async def test_a_connection_is_refused():
    async with wire.refused() as base_url:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address(base_url))


async def test_a_connection_is_neither_made_nor_refused():
    async with wire.connect_hang() as base_url:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.open_connection(*address(base_url)), 0.2)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_silent_listener_takes_everything(scheme):
    async with wire.never_answers(scheme) as base_url, connection(base_url) as (reader, writer):
        writer.write(b"x" * 8_000_000)
        await writer.drain()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.1)
        assert base_url.startswith(scheme + "://")


async def test_a_listener_that_does_not_read_blocks_its_writer():
    async with wire.never_reads() as base_url, connection(base_url) as (_, writer):
        writer.write(b"x" * 8_000_000)
        untaken = []
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(writer.drain(), 0.2)
            untaken.append(unacknowledged(writer))
        writer.transport.abort()
    assert untaken[0] == untaken[1] > 0


async def test_open_connections_end_with_their_listener():
    async with wire.never_answers() as base_url:
        reader, writer = await asyncio.open_connection(*address(base_url))
        writer.write(b"hello")
        await writer.drain()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 5)
    writer.close()


async def test_plain_text_is_no_tls(trust):
    async with wire.plain_text_on_tls() as base_url:
        with pytest.raises(ssl.SSLError, match=r"WRONG_VERSION_NUMBER|RECORD_LAYER"):
            await shake_hands(base_url, trust)


async def test_a_good_certificate_is_trusted_by_who_knows_the_authority(authority, trust):
    async with wire.trusted(authority) as base_url:
        assert await shake_hands(base_url, trust) == b"HTTP/1.1 200 OK\r\n"
        with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
            await shake_hands(base_url, ssl.create_default_context())


async def test_a_certificate_may_have_expired(authority, trust):
    async with wire.expired(authority) as base_url:
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            await shake_hands(base_url, trust)


async def test_a_certificate_may_be_anothers(authority, trust):
    async with wire.wrong_name(authority) as base_url:
        with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
            await shake_hands(base_url, trust)


async def test_a_certificate_may_be_signed_by_itself(trust):
    async with wire.self_signed() as base_url:
        with pytest.raises(ssl.SSLCertVerificationError, match="self-signed"):
            await shake_hands(base_url, trust)
