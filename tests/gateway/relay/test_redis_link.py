"""What goes to Redis and comes back, byte by byte."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress

import pytest

from gateway.relay.redis_link import Incomplete, LinkLost, RedisRefused, connected, packed, read
from tests.redis import RunningRedis, running_redis


def test_a_command_is_an_array_of_strings_with_their_lengths() -> None:
    assert packed([b"GET", b"a\r\nb"]) == b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n"


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (b"+OK\r\n", b"OK"),
        (b":-12\r\n", -12),
        (b"$-1\r\n", None),
        (b"$0\r\n\r\n", b""),
        (b"$4\r\na\r\nb\r\n", b"a\r\nb"),
        (b"*-1\r\n", None),
        (b"*2\r\n$1\r\na\r\n*1\r\n:7\r\n", [b"a", [7]]),
    ],
)
def test_a_reply_is_read_only_when_all_of_it_is_there(data: bytes, reply: object) -> None:
    assert read(data + b"+more", 0) == (reply, len(data))
    for length in range(len(data)):
        with pytest.raises(Incomplete):
            read(data[:length], 0)


def test_an_error_is_a_reply() -> None:
    reply, _ = read(b"-ERR no\r\n", 0)

    assert isinstance(reply, RedisRefused)
    assert str(reply) == "ERR no"


def test_what_is_not_redis_is_said_to_be_so() -> None:
    with pytest.raises(LinkLost):
        read(b"HTTP/1.1 400 Bad Request\r\n", 0)


@pytest.fixture(scope="module")
def server() -> Iterator[RunningRedis]:
    with running_redis() as running:
        yield running


async def test_replies_of_any_size_come_in_the_order_of_the_commands(server: RunningRedis) -> None:
    talk = await connected(server.url)
    large = b"x" * 1_000_000

    replies = await talk.ask((b"SET", b"large", large), (b"GET", b"large"), (b"DEL", b"large"))

    assert replies == [b"OK", large, 1]
    talk.link.close()


async def test_a_password_and_a_database_are_used(server: RunningRedis) -> None:
    with server.client() as client:
        client.execute_command("ACL SETUSER ann on >secret ~* +@all")
        talk = await connected(f"unix://ann:secret@{server.socket}?db=3")
        await talk.ask((b"SET", b"where", b"three"))

        assert client.execute_command("ACL DELUSER ann") == 1
        talk.link.close()
        client.select(3)
        assert client.get("where") == b"three"


async def test_a_wrong_password_is_refused_in_rediss_own_words(server: RunningRedis) -> None:
    with pytest.raises(RedisRefused, match="WRONGPASS"):
        await connected(f"unix://ann:wrong@{server.socket}")


async def test_whoever_waits_hears_that_the_connection_ended() -> None:
    with running_redis() as server:
        talk = await connected(server.url)
        server.freeze()
        asking = asyncio.ensure_future(talk.ask((b"PING",)))
        await asyncio.sleep(0)
        with suppress(FileNotFoundError):
            server.kill()

        with pytest.raises(LinkLost):
            await asking
        await asyncio.to_thread(server.start)
