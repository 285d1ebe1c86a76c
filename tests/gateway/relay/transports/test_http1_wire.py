"""A connection whose far end is gone without a word: whether it had taken what was sent."""

import asyncio
import contextlib
import ctypes
import socket
import struct
import sys
from collections.abc import Iterator

import pytest

from gateway.relay.transports.http1_wire import ConnectionClosed, NotTaken, Wire
from tests.upstreams.upstream import within

SO_ATTACH_FILTER = 26
HEAD, BODY = b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n", b"body"


@contextlib.contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client's socket that is given up after a second or two of silence, and the server's."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    client.setblocking(False)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
        client.setsockopt(socket.IPPROTO_TCP, option, 1)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000)
    with client, server:
        yield client, server


def vanish(server: socket.socket) -> None:
    """Nothing that comes for it is answered any more, as if its machine were gone (socket(7))."""
    take_nothing = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    program = struct.pack("HL", 1, ctypes.addressof(take_nothing))
    server.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


async def why_lost(client: socket.socket, server: socket.socket, taken: bool) -> Exception | None:
    loop = asyncio.get_running_loop()
    wire = Wire(loop, lambda wire: None)
    if not taken:
        vanish(server)
    await loop.create_connection(lambda: wire, sock=client)
    incoming = wire.ask(HEAD, BODY)
    if taken:
        taken_here = await asyncio.to_thread(server.recv, len(HEAD + BODY), socket.MSG_WAITALL)
        assert taken_here == HEAD + BODY
        vanish(server)
    await within(incoming.more())
    wire.close()
    return incoming.lost


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's options are Linux's")
@pytest.mark.parametrize(("taken", "expected"), [(True, ConnectionClosed), (False, NotTaken)])
async def test_a_far_end_that_vanished_had_taken_the_call_or_not(
    taken: bool, expected: type[Exception]
) -> None:
    """The provider may have worked on what it took, so it counts and is not sent to another."""
    with pair() as (client, server):
        assert isinstance(await why_lost(client, server, taken), expected)
