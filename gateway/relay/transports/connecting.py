"""What every transport needs to connect: whom to trust, socket options, and the words for a failure."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol, TypeVar

import aiohappyeyeballs
from aiohttp.abc import ResolveResult

from gateway.relay.transports import CannotConnect, ConnectTimedOut, TransportError
from gateway.relay.transports.addresses import CheckedResolver, ForbiddenAddress

QUIET_S = 60
"""A connection that is silent for so long is probed by the kernel: whole answers may take minutes,
and some networks forget a connection that says nothing for four."""
NEXT_ADDRESS_AFTER_S = 0.25
"""A host's next address is tried beside one that has not answered for so long (RFC 8305)."""

Spoken = TypeVar("Spoken", bound=asyncio.BaseProtocol)


class Tunable(Protocol):
    """A socket, or what stands for one with an event loop of another make."""

    def setsockopt(self, level: int, name: int, value: int, /) -> None: ...


async def trust(ca_pem: str, alpn: tuple[str, ...] = ("http/1.1",)) -> ssl.SSLContext:
    """Verifies against the system's certificates and these. Raises CannotConnect where they cannot be read.

    Made in a thread: reading the system's takes 40 ms.
    """
    try:
        return await asyncio.to_thread(_trust, ca_pem, alpn)
    except (ssl.SSLError, ValueError):
        raise CannotConnect(
            "the certificates that were given for the provider cannot be read; they must be PEM"
        ) from None


@lru_cache(maxsize=64)
def _trust(ca_pem: str, alpn: tuple[str, ...]) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_pem:
        # What is not ASCII can only be a remark between certificates, and ssl does not take it.
        context.load_verify_locations(cadata=ca_pem.encode("ascii", "replace").decode())
    context.set_alpn_protocols(list(alpn))
    return context


def tune(sock: Tunable, write_timeout_s: float) -> None:
    """Let the kernel end a connection whose far end takes nothing more for `write_timeout_s`.

    TCP_USER_TIMEOUT (RFC 5482, tcp(7)) counts while something that was sent is not acknowledged,
    or while the window is shut: a timer of our own for each call would cost more and see less.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, int(write_timeout_s * 1000)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, QUIET_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, QUIET_S)


async def dial(
    speak: Callable[[], Spoken],
    host: str,
    port: int,
    trust: ssl.SSLContext | None,
    resolver: CheckedResolver,
    write_timeout_s: float,
) -> Spoken:
    """Connect to whichever of the host's addresses answers first, with TLS if there is a context.

    Raises OSError, ForbiddenAddress among them: every address is checked before any is tried.
    """
    found = await resolver.resolve(host, port)
    sock = await aiohappyeyeballs.start_connection(
        [_address(each) for each in found], happy_eyeballs_delay=NEXT_ADDRESS_AFTER_S, interleave=1
    )
    tune(sock, write_timeout_s)
    _, spoken = await asyncio.get_running_loop().create_connection(
        speak, sock=sock, ssl=trust, server_hostname=host.removesuffix(".") if trust else None
    )
    return spoken


def _address(found: ResolveResult) -> aiohappyeyeballs.AddrInfoType:
    """As getaddrinfo() would say it."""
    host, port = found["host"], found["port"]
    if found["family"] == socket.AF_INET6:
        return socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, 0, 0)
    return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port)


def no_connection(why: OSError) -> TransportError:
    """Why a connection could not be made, in words that name no secret."""
    if isinstance(why, TimeoutError) or why.errno == errno.ETIMEDOUT:
        return ConnectTimedOut("no connection to the provider was made in time")
    return CannotConnect(f"the provider cannot be reached: {_reason(why)}")


def _reason(why: OSError) -> str:
    if isinstance(why, ForbiddenAddress):
        return str(why)
    if isinstance(why, ssl.SSLCertVerificationError):
        return f"its certificate was not accepted ({why.verify_message})"
    if isinstance(why, ssl.SSLError):
        return f"no TLS connection could be made ({getattr(why, 'reason', None) or type(why).__name__})"
    if isinstance(why, socket.gaierror):
        return "its name was not found"
    if isinstance(why, ConnectionRefusedError):
        return "the connection was refused"
    return why.strerror or type(why).__name__
