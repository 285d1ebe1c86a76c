import asyncio
import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from gateway.relay.transports.addresses import KEPT_S, CheckedResolver, ForbiddenAddress, check

METADATA = [
    "169.254.169.254",
    "fe80::1",
    "fe80::1%eth0",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "::a9fe:a9fe",
    "::ffff:0:a9fe:a9fe",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fd00:c1::a9fe:a9fe",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "0.0.0.0",
    "::",
    "224.0.0.1",
    "ff02::1",
]
PRIVATE = [
    "127.0.0.1",
    "::1",
    "10.0.0.1",
    "192.168.1.1",
    "172.16.0.1",
    "fd12::1",
    "fec0::1",
    "::ffff:10.0.0.1",
]
PUBLIC = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("address", METADATA)
def test_no_provider_lives_at_a_metadata_address(address: str) -> None:
    with pytest.raises(ForbiddenAddress):
        check("provider.example", address, allow_private=True)


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_for_the_operator_to_allow(address: str) -> None:
    check("provider.example", address, allow_private=True)
    with pytest.raises(ForbiddenAddress):
        check("provider.example", address, allow_private=False)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_fine(address: str) -> None:
    check("provider.example", address, allow_private=False)


@pytest.mark.parametrize("name", ["localhost", "0x7f000001", "2130706433", "017700000001"])
async def test_a_name_is_checked_by_where_it_leads(name: str) -> None:
    resolver = CheckedResolver(allow_private=False)
    with pytest.raises(ForbiddenAddress):
        await resolver.resolve(name, 80)
    await resolver.close()


class Names(AbstractResolver):
    """Answers when it is told to, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.fails = False

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked += 1
        await self.may_answer.wait()
        if self.fails:
            raise OSError("no such name")
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing is open."""


async def test_who_wants_the_same_name_at_once_shares_a_look_up() -> None:
    names = Names()
    resolver = CheckedResolver(allow_private=True, names=names)
    first, *others = [asyncio.ensure_future(resolver.resolve("api.example", 443)) for _ in range(10)]
    await asyncio.sleep(0)
    first.cancel()  # who leaves takes nothing from the others
    names.may_answer.set()
    found = await asyncio.gather(*others)
    assert [each[0]["host"] for each in found] == ["127.0.0.1"] * 9
    assert names.asked == 1


async def test_a_name_is_looked_up_again_after_a_while_and_never_kept_where_it_failed() -> None:
    names, now = Names(), [0.0]
    names.may_answer.set()
    resolver = CheckedResolver(allow_private=True, names=names, clock=lambda: now[0])
    for moment in (0.0, KEPT_S - 0.1, KEPT_S):
        now[0] = moment
        await resolver.resolve("api.example", 443)
    assert names.asked == 2
    names.fails = True
    for _ in range(2):
        with pytest.raises(OSError, match="no such name"):
            await resolver.resolve("other.example", 443)
    assert names.asked == 4


async def test_what_is_kept_is_checked_each_time() -> None:
    names = Names()
    names.may_answer.set()
    resolver = CheckedResolver(allow_private=False, names=names)
    for _ in range(2):
        with pytest.raises(ForbiddenAddress):
            await resolver.resolve("api.example", 443)
    assert names.asked == 1
