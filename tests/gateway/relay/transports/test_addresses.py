import pytest

from gateway.relay.transports.addresses import CheckedResolver, ForbiddenAddress, check

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
