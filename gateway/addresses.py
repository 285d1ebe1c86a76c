"""Where a request came from, through the proxies that the operator named.

Pure. `X-Forwarded-For` is written by whoever likes: only what a trusted proxy added to it is believed.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
MOST_HOPS = 32
"""Trusted proxies that a request may have come through: whoever writes the header writes thousands."""


@lru_cache(maxsize=16)
def networks(ranges: tuple[str, ...]) -> tuple[Network, ...]:
    """TRUSTED_PROXIES as `client_address` takes them. Raises ValueError."""
    return tuple(map(ip_network, ranges))


def client_address(peer: str, forwarded_for: str, trusted: Sequence[Network]) -> str:
    """The rightmost address that is no trusted proxy's, if the peer is one; else the peer's.

    `forwarded_for` is the whole of X-Forwarded-For, several headers joined by commas.
    What is no address ends the search: the last proxy that we know of is then where it came from.
    A peer without an address, such as a Unix socket's, is empty.
    """
    nearest = _address(peer)
    if nearest is None:
        return ""
    for hop in reversed(forwarded_for.rsplit(",", MOST_HOPS)[-MOST_HOPS:]):
        if not _within(nearest, trusted):
            break
        farther = _address(hop)
        if farther is None:
            break
        nearest = farther
    return str(nearest)


def _within(address: Address, trusted: Iterable[Network]) -> bool:
    return any(address in each for each in trusted)


def _address(text: str) -> Address | None:
    """As peers and proxies write it: bare, with a port, in brackets, or an IPv4 one as IPv6."""
    bare = text.strip()
    if bare.startswith("["):
        bare = bare[1:].partition("]")[0]
    elif bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        found = ip_address(bare.partition("%")[0])
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found
