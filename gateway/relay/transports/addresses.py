"""Which addresses a provider may live on, checked when a name is resolved and before a connection is made."""

import ipaddress
import socket

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

_METADATA = (
    ipaddress.ip_network("169.254.0.0/16"),
    ipaddress.ip_network("fe80::/10"),
    ipaddress.ip_network("fd00:ec2::/32"),
    ipaddress.ip_network("100.100.100.200/32"),
)


class ForbiddenAddress(OSError):
    """A provider's name leads where no provider may live."""


def check(host: str, address: str, *, allow_private: bool) -> None:
    """Raises ForbiddenAddress: for link-local, metadata, multicast, and for private ones unless allowed."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    never = ip.is_link_local or ip.is_multicast or ip.is_unspecified or any(ip in each for each in _METADATA)
    if never or (not allow_private and not ip.is_global):
        raise ForbiddenAddress(f"{host} leads to {ip}, where no provider may be")


class CheckedResolver(AbstractResolver):
    """Resolves in a thread, then checks every address that came back."""

    def __init__(self, *, allow_private: bool) -> None:
        self._inner = ThreadedResolver()
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        for each in found:
            check(host, each["host"], allow_private=self._allow_private)
        return found

    async def close(self) -> None:
        await self._inner.close()
