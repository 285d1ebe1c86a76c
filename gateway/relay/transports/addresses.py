"""Which addresses a provider may live on, checked when a name is resolved and before a connection is made."""

import asyncio
import ipaddress
import socket
import time
from collections.abc import Callable

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA = tuple(
    ipaddress.ip_network(each)
    for each in (
        *("169.254.0.0/16", "fe80::/10"),  # link-local, where most vendors keep it
        *("fd00:ec2::/32", "fd20:ce::/32", "fd00:c1::/32"),  # Amazon, Google, Oracle
        *("100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32"),  # Alibaba, Azure, Oracle
    )
)
_IN_THE_LAST_32_BITS = tuple(
    ipaddress.ip_network(each)
    for each in ("64:ff9b::/96", "64:ff9b:1::/48", "::/96", "::ffff:0:0:0/96")  # NAT64, compatible, SIIT
)


class ForbiddenAddress(OSError):
    """A provider's name leads where no provider may live."""


def check(host: str, address: str, *, allow_private: bool) -> None:
    """Raises ForbiddenAddress: for link-local, metadata, multicast, and for private ones unless allowed."""
    ip = _inner(ipaddress.ip_address(address.partition("%")[0]))
    never = ip.is_link_local or ip.is_multicast or ip.is_unspecified or any(ip in each for each in _METADATA)
    # Site-local addresses (fec0::/10) are out of use, and global to Python; some networks still have them.
    is_public = ip.is_global and not (isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local)
    if never or (not allow_private and not is_public):
        raise ForbiddenAddress(f"{host} leads to {ip}, where no provider may be")


def _inner(ip: Address) -> Address:
    """The IPv4 address that an IPv6 one leads to, if it does (RFC 4291, 6052, 3056, 4380)."""
    if isinstance(ip, ipaddress.IPv4Address) or ip.is_loopback or ip.is_unspecified:
        return ip
    if any(ip in each for each in _IN_THE_LAST_32_BITS):
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else ip)


KEPT_S = 10.0
"""A name's addresses are used for so long before they are looked up again."""
Lookup = tuple[str, int, socket.AddressFamily]


class CheckedResolver(AbstractResolver):
    """Resolves in a thread, then checks every address that came back.

    Calls that want the same name at once share one look-up: threads are few, and one that waits for a slow
    name server is not there for other names.
    """

    def __init__(
        self,
        *,
        allow_private: bool,
        names: AbstractResolver | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inner = names or ThreadedResolver()
        self._allow_private, self._clock = allow_private, clock
        self._looking: dict[Lookup, asyncio.Task[list[ResolveResult]]] = {}
        self._kept: dict[Lookup, tuple[float, list[ResolveResult]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._found((host, port, family))
        for each in found:
            check(host, each["host"], allow_private=self._allow_private)
        return found

    async def _found(self, wanted: Lookup) -> list[ResolveResult]:
        """Kept, or looked up with whoever else wants it; who leaves takes nothing from the others."""
        kept_at, found = self._kept.get(wanted, (-KEPT_S, []))
        if found and self._clock() - kept_at < KEPT_S:
            return found
        task = self._looking.get(wanted)
        if task is None:
            task = self._looking[wanted] = asyncio.ensure_future(self._inner.resolve(*wanted))
            task.add_done_callback(lambda done: self._looked_up(wanted, done))
        return await asyncio.shield(task)

    def _looked_up(self, wanted: Lookup, done: "asyncio.Task[list[ResolveResult]]") -> None:
        del self._looking[wanted]
        if not done.cancelled() and done.exception() is None:  # those who waited have the failure
            self._kept[wanted] = self._clock(), done.result()

    async def close(self) -> None:
        await self._inner.close()
