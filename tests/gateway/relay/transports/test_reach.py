"""Which client a call gets as settings change, and when clients are closed; no sockets."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from gateway.relay.catalog import PoolConfig, Secret, Target
from gateway.relay.ports import Answer
from gateway.relay.transports import CannotConnect
from gateway.relay.transports.pool import Pool
from gateway.relay.transports.reach import LOOK_EVERY_S, UNUSED_S, PooledTransport, Reach
from tests.gateway.relay.transports.conftest import eventually

TARGET = Target(1, "provider", "http://provider.example/v1", "upstream-model", Secret("sk-1"))


class Client(Reach):
    """A client without a library."""

    closed = False

    async def send(self, call_id: str, body: bytes, /) -> Answer:
        raise NotImplementedError

    def idle(self) -> int | None:
        return None

    async def close(self) -> None:
        self.closed = True


@dataclass
class House:
    """A transport whose clients and clock are at hand."""

    clients: list[Client] = field(default_factory=list)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.transport = PooledTransport(self.open, lambda: self.now)

    def open(self, target: Target, pool: Pool) -> Client:
        if "forbidden" in target.base_url:
            raise CannotConnect
        self.clients.append(Client(target, pool))
        return self.clients[-1]


@pytest.fixture
def house() -> House:
    return House()


async def test_a_target_that_was_read_again_unchanged_keeps_its_client(house: House) -> None:
    first = await house.transport.acquire(TARGET)
    again = await house.transport.acquire(replace(TARGET))
    assert first is again
    assert again.calls == again.pool.in_use == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"weight": 3},
        {"prices": ()},
        {"max_concurrency": 3},
        {"pool": PoolConfig(max_connections=3)},
        {"pool": PoolConfig(pool_timeout_s=3)},
        {"pool": PoolConfig(read_timeout_s=3)},
    ],
)
async def test_what_does_not_concern_connections_keeps_the_client(
    house: House, changed: dict[str, Any]
) -> None:
    await house.transport.acquire(TARGET)
    await house.transport.acquire(replace(TARGET, **changed))
    assert len(house.clients) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"base_url": "http://elsewhere.example/v1"},
        {"credential": Secret("sk-2")},
        {"ca_pem": "-----BEGIN CERTIFICATE-----"},
        {"transport": "httpx"},
        {"pool": PoolConfig(http2=True)},
        {"pool": PoolConfig(max_keepalive_connections=3)},
        {"pool": PoolConfig(keepalive_expiry_s=3)},
        {"pool": PoolConfig(connect_timeout_s=3)},
        {"pool": PoolConfig(write_timeout_s=3)},
    ],
)
async def test_what_concerns_connections_brings_a_new_client_over_the_same_pool(
    house: House, changed: dict[str, Any]
) -> None:
    old = await house.transport.acquire(TARGET)
    new = await house.transport.acquire(replace(TARGET, **changed))
    assert old is not new
    assert old.pool is new.pool
    assert (old.calls, new.calls, new.pool.in_use) == (1, 1, 2)


async def test_the_last_call_to_leave_closes_an_old_client(house: House) -> None:
    old = await house.transport.acquire(TARGET)
    await house.transport.acquire(TARGET)
    await house.transport.acquire(replace(TARGET, credential=Secret("sk-2")))

    old.release()
    assert not house.clients[0].closed
    old.release()

    await eventually(lambda: house.clients[0].closed)
    assert not house.clients[1].closed


async def test_settings_that_cannot_be_used_leave_the_client_as_it_was(house: House) -> None:
    await house.transport.acquire(TARGET)
    with pytest.raises(CannotConnect):
        await house.transport.acquire(replace(TARGET, base_url="http://forbidden"))
    (await house.transport.acquire(TARGET)).release()
    assert len(house.clients) == 1


async def test_closing_closes_every_client_also_one_that_still_has_calls(house: House) -> None:
    await house.transport.acquire(TARGET)
    await house.transport.acquire(replace(TARGET, credential=Secret("sk-2")))
    await house.transport.close()
    assert [client.closed for client in house.clients] == [True, True]


async def test_a_target_that_is_called_no_more_is_closed_and_forgotten(house: House) -> None:
    place = await house.transport.acquire(TARGET)
    house.now += LOOK_EVERY_S
    assert TARGET.id in house.transport.figures()
    place.release()

    house.now += UNUSED_S
    assert house.transport.figures() == {}

    await eventually(lambda: house.clients[0].closed)


async def test_a_target_that_is_being_called_is_kept(house: House) -> None:
    await house.transport.acquire(TARGET)
    for _ in range(3):
        house.now += UNUSED_S
        assert TARGET.id in house.transport.figures()


async def test_a_target_that_was_called_meanwhile_is_kept(house: House) -> None:
    for _ in range(3):
        (await house.transport.acquire(TARGET)).release()
        house.now += UNUSED_S
        assert TARGET.id in house.transport.figures()


async def test_unused_targets_are_looked_for_when_another_one_is_new(house: House) -> None:
    (await house.transport.acquire(TARGET)).release()
    for id in (2, 3):
        house.now += UNUSED_S
        await house.transport.acquire(replace(TARGET, id=id))
    await eventually(lambda: house.clients[0].closed)
    assert not house.clients[2].closed
